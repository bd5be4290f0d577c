"""A second training on all windows, with the calibration of the first."""

import copy

import numpy as np
import pytest
import torch

from sklearn_stndt import MultiSessionEstimator, STNDTEstimator
from sklearn_stndt.datasets import make_reaches
from sklearn_stndt.training import fitting
from sklearn_stndt.training.calibration import calibrate_as
from sklearn_stndt.training.hidden import predict_hidden
from sklearn_stndt.windows.cutting import cut
from sklearn_stndt.windows.segments import as_segments

SMALL = {"n_layers": 1, "d_model": 16, "max_epochs": 6, "batch_size": 8, "random_state": 0}


@pytest.fixture(scope="module")
def spikes():
    return make_reaches(40, 20, 10, mean_rate=25, random_state=0).spikes


@pytest.fixture(scope="module")
def refitted(spikes):
    return STNDTEstimator(refit=True, **SMALL).fit(spikes)


def weights(estimator):
    return estimator.net_.module_.state_dict()


def test_the_second_training_sees_every_trial(spikes, monkeypatch):
    seen = []

    def train(data, *args):
        seen.append((len(data.windows), data.validation))
        return original(data, *args)

    original = fitting.train
    monkeypatch.setattr(fitting, "train", train)
    STNDTEstimator(refit=True, **SMALL).fit(spikes)
    assert seen == [(40, None)]


def test_width_and_gain_are_those_of_the_first_training(spikes, refitted):
    first = weights(STNDTEstimator(**SMALL).fit(spikes))
    second = weights(refitted)
    for name in ("smoothing.width", "readout.gain"):
        assert torch.equal(first[name], second[name])
    assert not torch.equal(first["readout.weight"], second["readout.weight"])


def test_mean_rates_of_windows_are_preserved(spikes):
    net = STNDTEstimator(early_stopping=False, **SMALL).fit(spikes).net_
    windows = cut(as_segments(spikes.astype(float)), 20, 20)

    @torch.no_grad()
    def mean_rates():
        return predict_hidden(net, windows, 1)[0].log_rates.exp().mean((0, 1)).numpy()

    net_without = copy.deepcopy(net)
    net_without.module_.smoothing.width.fill_(1.0)
    with torch.no_grad():
        smooth = predict_hidden(net_without, windows, 1)[0].log_rates.exp().mean((0, 1))
    calibrate_as(net, 1.0, 0.4, windows)
    np.testing.assert_allclose(mean_rates(), smooth.numpy(), rtol=1e-4)
    assert (net.module_.readout.gain == 0.4).all()


def test_the_history_holds_both_trainings(refitted):
    rows = refitted.history_.to_list()
    assert [row["epoch"] for row in rows] == list(range(1, 13))
    assert ["valid_bits" in row for row in rows] == [True] * 6 + [False] * 6
    assert refitted.n_iter_ == 12


def test_the_second_training_takes_as_many_epochs_as_were_best(spikes):
    stopped = {"max_epochs": 40, "n_iter_no_change": 1, "lr": 0.1, "optimizer": "adamw"}
    rows = STNDTEstimator(refit=True, **SMALL | stopped).fit(spikes).history_.to_list()
    first = [row for row in rows if "valid_bits" in row]
    kept = [row["epoch"] for row in first if row.get("kept")]
    assert len(first) < 40
    assert kept == [len(rows) - len(first)]


def test_epochs_of_net_params_do_not_lengthen_the_second_training(spikes):
    stopped = {"n_iter_no_change": 1, "lr": 0.1, "optimizer": "adamw", "refit": True}
    by_parameter = STNDTEstimator(**SMALL | stopped | {"max_epochs": 40}).fit(spikes)
    by_net = STNDTEstimator(**SMALL | stopped, net_params={"max_epochs": 40}).fit(spikes)
    assert by_net.n_iter_ == by_parameter.n_iter_ < 40
    for name, value in weights(by_parameter).items():
        assert torch.equal(value, weights(by_net)[name])


@pytest.mark.parametrize("params", [{"early_stopping": False}, {"validation_fraction": 1e-9}])
def test_without_validation_there_is_one_training(spikes, params):
    X = spikes if "early_stopping" in params else spikes[:1]
    once, twice = (STNDTEstimator(refit=r, **SMALL | params).fit(X) for r in (False, True))
    for name, value in weights(once).items():
        assert torch.equal(value, weights(twice)[name])


def test_a_finished_refit_is_read_from_its_checkpoints(spikes, refitted, tmp_path, monkeypatch):
    again = STNDTEstimator(refit=True, checkpoint_dir=tmp_path, **SMALL)
    written = again.fit(spikes).transform(spikes)
    np.testing.assert_array_equal(written, refitted.transform(spikes))
    monkeypatch.setattr(fitting.MaskedModellingNet, "fit_loop", None)  # nothing is trained
    np.testing.assert_array_equal(again.fit(spikes).transform(spikes), written)


def test_training_further_begins_both_trainings_from_the_same_weights(spikes):
    estimator = STNDTEstimator(refit=True, warm_start=True, **SMALL).fit(spikes)
    estimator.fit(spikes)
    assert estimator.n_iter_ == 24
    assert np.isfinite(estimator.transform(spikes)).all()


def test_adapt_may_refit(spikes, refitted):
    adapted = refitted.adapt(spikes[:, :, :7])
    assert adapted.refit
    assert adapted.transform(spikes[:, :, :7]).shape == (40, 20, 7)


def test_several_sessions_are_not_refitted(spikes):
    with pytest.raises(ValueError, match="refit=False"):
        MultiSessionEstimator(STNDTEstimator(refit=True, **SMALL)).fit([spikes, spikes])


@pytest.mark.parametrize("likelihood", ["negative_binomial", "gaussian", "zero_inflated_gamma"])
def test_constants_of_a_likelihood_are_those_of_the_first_training(spikes, likelihood):
    first, second = (
        STNDTEstimator(refit=r, likelihood=likelihood, **SMALL).fit(spikes) for r in (False, True)
    )
    for name, values in first.likelihood_params_.items():
        np.testing.assert_allclose(second.likelihood_params_[name], values)
    assert np.isfinite(second.score(spikes))
