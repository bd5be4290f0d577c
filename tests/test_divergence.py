"""A training that diverges is continued with a smaller step, or fails in words."""

import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from skorch.callbacks import Callback
from skorch.history import History

from sklearn_stndt import BaggingEnsemble
from sklearn_stndt.network.likelihood import LIKELIHOODS, Poisson
from sklearn_stndt.training import divergence
from sklearn_stndt.training.divergence import Diverged, DivergenceGuard


class Harm(Callback):
    """Changes the readout's bias in an epoch, once or every time."""

    def __init__(self, epoch, value=torch.nan, hook="on_batch_begin", always=False):
        self.epoch = epoch
        self.value = value
        self.hook = hook
        self.always = always

    def _harm(self, hook, net):
        harmed = not self.always and hasattr(net, "harmed")
        if hook == self.hook and len(net.history) == self.epoch and not harmed:
            net.harmed = True
            with torch.no_grad():
                net.module_.readout.bias.fill_(self.value)

    def on_batch_begin(self, net, **kwargs):
        self._harm("on_batch_begin", net)

    def on_batch_end(self, net, **kwargs):
        self._harm("on_batch_end", net)

    def on_epoch_end(self, net, **kwargs):
        self._harm("on_epoch_end", net)


@pytest.mark.parametrize("early_stopping", [True, False])
@pytest.mark.parametrize(
    "params",
    [
        {"lr": 1e3},
        {"lr": 10.0},
        {"lr": 100.0, "net_params": {"optimizer": torch.optim.SGD}},
        {"net_params": {"lr": 1e3}},
    ],
    ids=["not a number", "rates at the cap", "SGD", "net_params"],
)
def test_too_large_a_step_is_reduced(small, spikes, params, early_stopping):
    params = params | {"early_stopping": early_stopping, "max_epochs": 6}
    estimator = small(**params)
    with pytest.warns(
        ConvergenceWarning, match=r"diverged with lr=10*0 \(epoch .*Pass lr="
    ) as caught:
        estimator.fit(spikes)
    (message,) = [str(one.message) for one in caught]
    used = float(re.search(r"from the initial weights with lr=([\d.e-]+)\. ", message)[1])
    assert len(estimator.history_) == 6
    assert estimator.score(spikes) > -5  # not -1e6
    # as if the smaller step had been chosen at once
    other = {"net_params": params["net_params"] | {"lr": used}} if "net_params" in params else {}
    same = small(**(params | {"lr": used} | other)).fit(spikes)
    assert_array_equal(estimator.transform(spikes), same.transform(spikes))


def test_too_much_weight_decay_is_named(small, spikes):
    with pytest.warns(ConvergenceWarning, match="pass a smaller weight_decay"):
        estimator = small(weight_decay=1e5).fit(spikes)
    assert np.isfinite(estimator.transform(spikes)).all()


@pytest.mark.parametrize(
    "harm",
    [
        Harm(5),
        Harm(5, torch.inf),
        Harm(5, 15.0),
        Harm(5, hook="on_batch_end"),
        Harm(6, hook="on_epoch_end"),
    ],
    ids=["nan", "inf", "cap", "after an update", "after the last update"],
)
def test_training_goes_back_to_its_last_good_weights(small, spikes, monkeypatch, harm):
    monkeypatch.setattr(divergence, "UPDATES_BETWEEN", 1)
    params = {"max_epochs": 6, "early_stopping": False, "lr": 0.003}
    whole = small(**params).fit(spikes)
    with pytest.warns(ConvergenceWarning, match="the weights after epoch [34] with lr=0.0003"):
        estimator = small(**params, callbacks=[harm]).fit(spikes)
    losses = [estimator.history_[:, "train_loss"], whole.history_[:, "train_loss"]]
    assert losses[0][:3] == losses[1][:3]
    assert losses[0][3:] != losses[1][3:]
    assert len(losses[0]) == 6
    assert [row["epoch"] for row in estimator.history_] == [1, 2, 3, 4, 5, 6]
    assert np.isfinite(estimator.transform(spikes)).all()


def test_a_score_that_collapses_is_divergence(small, spikes, monkeypatch):
    monkeypatch.setattr(divergence, "UPDATES_BETWEEN", 1)

    class HarmBeforeValidation(Harm):
        def on_batch_begin(self, net, training=False, **kwargs):
            if not training:
                super().on_batch_begin(net)

    harm = HarmBeforeValidation(5, 15.0)
    with pytest.warns(
        ConvergenceWarning, match=r"epoch 5: the held-out score was -.*bits per spike"
    ):
        estimator = small(max_epochs=6, callbacks=[harm]).fit(spikes)
    assert min(estimator.history_[:, "valid_bits"]) > -1
    assert estimator.score(spikes) > -1


@pytest.mark.parametrize(
    ("scores", "diverges"),
    [
        ([0.1, -3.0], False),
        ([0.1, -150.0], True),
        ([-0.5, 0.2, -150.0], True),
        ([-1200.0, -55.0, -1070.0], False),  # few spikes, and a rate that has nearly halved
        ([-200.0], False),
        ([np.nan], True),
        ([-np.inf], True),
    ],
)
def test_which_scores_are_divergence(scores, diverges):
    guard, net = DivergenceGuard(), SimpleNamespace(history=History())
    guard.best_bits_, guard.mean_loss_, guard.limit_ = -np.inf, 0.5, 10.0
    for number, score in enumerate(scores, start=1):
        net.history.new_epoch()
        net.history.record("train_loss", 0.5)
        net.history.record("valid_bits", score)
        if diverges and number == len(scores):
            with pytest.raises(Diverged, match="the held-out score was"):
                guard.on_epoch_end(net)
        else:
            guard.on_epoch_end(net)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (Harm(1, always=True), "epoch 1: the loss was nan in the first update, so lr=0.003 is not"),
        (
            Harm(2, always=True),
            r"diverged with lr=0.003 \(epoch 2: .* and with lr=0.0003.*3e-09, so",
        ),
        (Harm(3, hook="on_epoch_end", always=True), "the last update made weights infinite"),
    ],
    ids=["at once", "later", "at the end"],
)
def test_an_error_says_that_smaller_steps_do_not_help(small, spikes, harm, message):
    estimator = small(callbacks=[harm], early_stopping=False, lr=0.003)
    with pytest.raises(FloatingPointError, match=message):
        estimator.fit(spikes)
    assert not hasattr(estimator, "net_")


def test_a_loss_that_is_not_a_number_is_an_error(small, spikes, monkeypatch):
    class Broken(Poisson):
        def nll(self, readout, spikes):
            return super().nll(readout, spikes) * torch.nan

    monkeypatch.setitem(LIKELIHOODS, "broken", Broken)
    with pytest.raises(FloatingPointError, match="net_params and callbacks"):
        small(net_params={"module__likelihood": "broken"}).fit(spikes)


def test_weights_that_are_not_finite_are_refused_without_a_guard(small, spikes):
    harm = Harm(3, hook="on_epoch_end")
    with pytest.raises(FloatingPointError, match="weights that are not finite"):
        small(net_params={"callbacks": [harm]}, early_stopping=False).fit(spikes)


def test_a_training_that_does_not_diverge_is_unchanged(small, spikes, fitted):
    unguarded = small(net_params={"callbacks__divergence": None}).fit(spikes)
    assert_array_equal(unguarded.transform(spikes), fitted.transform(spikes))


@pytest.mark.parametrize("early_stopping", [True, False])
def test_a_batch_of_huge_counts_is_no_divergence(small, spikes, early_stopping):
    counts = spikes.copy()
    counts[3, 5:9] = 1e6
    estimator = small(early_stopping=early_stopping).fit(counts)
    assert np.isfinite(estimator.transform(counts)).all()


def test_further_training_goes_back_to_the_weights_it_began_with(small, spikes):
    estimator = small(warm_start=True, max_epochs=6).fit(spikes)
    score = estimator.score(spikes)
    estimator.set_params(lr=1e3)
    with pytest.warns(ConvergenceWarning, match="the initial weights with lr="):
        estimator.fit(spikes)
    assert estimator.n_iter_ == 12
    assert estimator.score(spikes) > score - 0.5


def test_further_training_on_other_counts_is_no_divergence(small, spikes):
    estimator = small(warm_start=True, max_epochs=6, lr=0.03).fit(spikes + 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator.fit(np.minimum(spikes, 1))


def test_an_ensemble_leaves_a_member_out_that_diverges(small, spikes):
    members = [small(), small(callbacks=[Harm(2, always=True)], lr=0.003)]
    with pytest.warns(FitFailedWarning, match="Member 1 of 2 failed.*FloatingPointError"):
        ensemble = BaggingEnsemble(members, 2, random_state=0).fit(spikes)
    assert len(ensemble) == 1
    assert np.isfinite(ensemble.transform(spikes)).all()
    assert "diverged with lr=0.003" in ensemble.results_["error"][1]


@pytest.mark.parametrize("call", ["transform", "score", "forecast"])
def test_rates_that_are_not_finite_are_an_error(small, spikes, call):
    estimator = small(max_epochs=1, forecast_bins=2).fit(spikes)
    with torch.no_grad():
        estimator.net_.module_.readout.bias[3] = torch.nan
    arguments = (spikes, 2) if call == "forecast" else (spikes,)
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        getattr(estimator, call)(*arguments)


def test_the_progress_bar_goes_back_too(small, spikes, capsys):
    with pytest.warns(ConvergenceWarning, match="diverged"):
        small(lr=1e3, verbose=1).fit(spikes)
    ends = re.findall(r"(\d+)/(\d+) ", capsys.readouterr().err)
    assert ends[-1][0] == ends[-1][1]
