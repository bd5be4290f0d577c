"""Epochs, interruption, callbacks, net_params, warm start and printed output of fit."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback

from sklearn_stndt.training.calibration import shares_of


def test_max_epochs_and_history(small, spikes):
    estimator = small(max_epochs=4, n_iter_no_change=4).fit(spikes)
    assert estimator.n_iter_ == len(estimator.history_) == 4
    assert np.isfinite(estimator.history_[:, ("train_loss", "valid_bits")]).all()


def test_without_early_stopping_every_window_trains(small, spikes):
    estimator = small(early_stopping=False).fit(spikes)
    assert "valid_bits" not in estimator.history_[-1]
    sizes = estimator.history_[0, "batches", :, "train_batch_size"]
    assert sum(sizes) == len(spikes)


@pytest.mark.parametrize("seed", range(6))
def test_windows_without_counts_are_not_validated_on(small, rows, seed):
    counts = rows.copy()
    counts[60:420] = np.nan  # most windows of 20 bins are empty
    estimator = small(window=20, random_state=seed).fit(counts)
    assert (np.array(estimator.history_[:, "valid_bits"]) != 0).all()


class Interrupt(Callback):
    """Raises KeyboardInterrupt, as Ctrl-C does, in the first batch of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_batch_begin(self, net, **kwargs):
        if len(net.history) == self.epoch:
            raise KeyboardInterrupt


def test_interrupting_fit_warns_and_keeps_the_best_weights(small, spikes):
    estimator = small(max_epochs=9, callbacks=[Interrupt(3)])
    with pytest.warns(ConvergenceWarning, match=r"interrupted in epoch 3 of 9.*best weights"):
        estimator.fit(spikes)
    assert estimator.n_iter_ == 3
    loaded = pickle.loads(pickle.dumps(estimator.set_params(callbacks=None)))
    assert_array_equal(loaded.transform(spikes), estimator.transform(spikes))


def test_interrupting_the_first_batch_leaves_mean_rates(small, spikes):
    estimator = small(max_epochs=9, callbacks=[Interrupt(1)])
    with pytest.warns(ConvergenceWarning, match=r"interrupted in epoch 1 of 9"):
        estimator.fit(spikes)
    assert estimator.score(spikes) == pytest.approx(0, abs=0.05)


class CountEpochs(Callback):
    seen = []  # shared by all copies

    def initialize(self):
        self.n_epochs_ = 0
        return self

    def on_epoch_end(self, net, **kwargs):
        self.n_epochs_ += 1
        self.seen.append(self.n_epochs_)


def test_copies_of_callbacks_are_called(small, spikes):
    callback = CountEpochs()
    CountEpochs.seen.clear()
    small(callbacks=[callback]).fit(spikes)
    assert CountEpochs.seen == [1, 2, 3]
    assert not hasattr(callback, "n_epochs_")


def test_net_params_are_merged_last(small, spikes):
    steps = []

    class CountingSGD(torch.optim.SGD):
        def step(self, closure=None):
            steps.append(1)
            return super().step(closure)

    params = {"optimizer": CountingSGD, "batch_size": 11, "max_epochs": 2}
    estimator = small(net_params=params).fit(spikes)
    assert len(steps) == 4  # two batches per epoch of 22 trials, as 2 of 24 are for validation
    assert estimator.n_iter_ == 2
    assert params == {"optimizer": CountingSGD, "batch_size": 11, "max_epochs": 2}


def test_net_params_reach_the_objective(small, spikes):
    estimator = small(net_params={"mask_ratio": 0.25}).fit(spikes)
    assert estimator.settings_.objective.mask_ratio == 0.25
    assert estimator.net_.objective == estimator.settings_.objective


def test_warm_start_continues_from_the_current_weights(small, spikes):
    params = {"warm_start": True, "max_epochs": 4, "n_iter_no_change": 9, "calibration": False}
    estimator = small(**params).fit(spikes)
    rates = estimator.transform(spikes)
    estimator.set_params(lr=1e-9, random_state=1, max_epochs=2).fit(spikes)
    assert_allclose(estimator.transform(spikes), rates, rtol=1e-4)
    assert estimator.n_iter_ == len(estimator.history_) == 6
    estimator.set_params(lr=3e-3).fit(spikes)
    assert not np.allclose(estimator.transform(spikes), rates, rtol=1e-4)


def test_a_warm_start_is_calibrated_once(small, spikes):
    estimator = small(warm_start=True, max_epochs=40).fit(spikes)
    rates = estimator.transform(spikes)
    module = estimator.net_.module_
    calibration = module.smoothing.width, module.readout.gain, shares_of(estimator.net_)
    assert (calibration[1] != 1).all()
    assert calibration[2]["heldin"] > 0
    for _ in range(2):
        estimator.set_params(lr=1e-9, max_epochs=1).fit(spikes)
        assert_allclose(estimator.transform(spikes), rates, rtol=1e-3)
    # without windows set aside, as before
    for trials in (spikes, spikes[:1]):
        module = estimator.set_params(early_stopping=False).fit(trials).net_.module_
        assert_allclose(module.readout.gain, calibration[1], rtol=1e-3)
        assert module.smoothing.width == calibration[0]
        assert shares_of(estimator.net_) == calibration[2]
    module = estimator.set_params(calibration=False).fit(spikes).net_.module_
    assert (module.readout.gain == 1).all()
    assert module.posterior is None


def test_warm_start_after_loading(small, spikes):
    estimator = pickle.loads(pickle.dumps(small(warm_start=True).fit(spikes)))
    estimator.fit(spikes[:12])
    assert estimator.n_iter_ == 6


def test_an_interrupted_warm_start_counts_its_own_epochs(small, spikes):
    estimator = small(warm_start=True).fit(spikes)
    estimator.set_params(max_epochs=9, callbacks=[Interrupt(1)])
    with pytest.warns(ConvergenceWarning, match=r"interrupted in epoch 1 of 9"):
        estimator.fit(spikes)


def test_warm_start_with_more_data_keeps_the_layers(small, spikes, monkeypatch):
    estimator = small(n_layers="auto", warm_start=True).fit(spikes)
    monkeypatch.setattr("sklearn_stndt.training.settings.MANY_BINS", 100)
    assert len(estimator.fit(spikes).net_.module_.layers) == 3
    assert len(small(n_layers="auto").fit(spikes).net_.module_.layers) == 4


def test_warm_start_refuses_another_architecture(small, spikes):
    estimator = small(warm_start=True).fit(spikes)
    with pytest.raises(ValueError, match=r"warm_start|d_model"):
        estimator.set_params(d_model=16).fit(spikes)


@pytest.mark.parametrize(
    ("param", "value"), [("heldout_neurons", [1]), ("window", 5), ("forecast_bins", 25)]
)
def test_warm_start_refuses_changed_targets_and_windows(small, spikes, param, value):
    estimator = small(warm_start=True).fit(spikes).set_params(**{param: value})
    # the weights were trained for the targets and the window of the first fit
    with pytest.raises(ValueError, match=param):
        estimator.fit(spikes)


def test_without_warm_start_training_starts_again(small, fitted, spikes):
    estimator = small(max_epochs=2).fit(spikes[:12]).set_params(max_epochs=3).fit(spikes)
    assert estimator.n_iter_ == 3
    assert_array_equal(estimator.transform(spikes), fitted.transform(spikes))


def test_verbose_shows_progress_in_a_few_lines(small, spikes, capsys):
    small(verbose=1, max_epochs=30).fit(spikes)
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert len(lines) == 10
    assert "3 layers, width 8, window of 20 bins; 30 epochs in batches of 16" in lines[0]
    for number in ("epoch 1/30", "loss", "held-out bits/spike"):
        assert number in lines[1]
    assert "60/60 updates, epoch 30/30" in lines[-2]
    assert "60 updates in 30 epochs" in lines[-1]
    assert "\r" not in printed.err
    assert printed.out == ""
    small(verbose=2).fit(spikes)
    assert "train_loss" in capsys.readouterr().out


def test_silent_by_default(small, spikes, capsys):
    small().fit(spikes).transform(spikes)
    assert capsys.readouterr() == ("", "")


def test_warm_start_works_if_the_device_of_the_first_fit_is_missing(small, spikes):
    estimator = small(warm_start=True).fit(spikes)
    settings = estimator.settings_  # as if trained on another machine
    trained = dataclasses.replace(settings.training, device="cuda:7")
    estimator.settings_ = dataclasses.replace(settings, training=trained)
    with pytest.warns(UserWarning, match="trained on 'cuda:7'.*continues on '(cpu|cuda)'"):
        estimator.fit(spikes)
    assert estimator.device_ == str(estimator.net_.device) == estimator.settings_.training.device
    assert estimator.n_iter_ == 6
    assert np.isfinite(estimator.transform(spikes)).all()


def test_the_device_is_that_of_the_network_after_a_move(small, spikes):
    estimator = small().fit(spikes)
    state = estimator.__getstate__() | {"device_": "cuda:7"}
    moved = small()
    moved.__setstate__(state)
    assert moved.device_ == "cpu"
