"""Scores of rates: entries are hidden while they are scored."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, TransformerMixin

from sklearn_stndt import BaggingEnsemble
from sklearn_stndt._scoring import infer_hidden
from sklearn_stndt.datasets import make_reaches
from sklearn_stndt.metrics import bits_per_spike


def test_score_is_bits_per_spike_of_held_out_neurons(small, spikes):
    estimator = small(heldout_neurons=[1, 4]).fit(spikes)
    rates = estimator.transform(spikes)[..., [1, 4]]
    assert estimator.score(spikes) == bits_per_spike(spikes[..., [1, 4]], rates)


def test_score_without_held_out_neurons_hides_every_entry_once(spikes):
    n_hidden = np.zeros(spikes.shape, dtype=int)

    def infer(counts):
        n_hidden[np.isnan(counts)] += 1
        return np.ones_like(counts)

    scored, rates = infer_hidden(infer, spikes, np.array([], dtype=int))
    assert (n_hidden == 1).all()
    assert_array_equal(scored, spikes)
    assert_array_equal(rates, np.ones_like(spikes))


def test_copying_the_input_does_not_raise_the_score(spikes):
    mean = spikes.mean((0, 1))

    def copy_input(counts):
        return np.where(np.isnan(counts), mean, counts)

    scored, rates = infer_hidden(copy_input, spikes, np.array([], dtype=int))
    assert bits_per_spike(scored, rates) == pytest.approx(0, abs=1e-6)
    assert bits_per_spike(spikes, copy_input(spikes)) > 1  # the score if entries were visible


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_held_out_neurons_are_hidden_from_every_estimator(spikes, dtype):
    shown = []

    def infer(counts):
        shown.append(counts)
        return np.ones_like(counts)

    counts = spikes.astype(dtype)
    scored, _ = infer_hidden(infer, counts, np.array([1, 4]))
    assert_array_equal(scored, spikes[..., [1, 4]])
    assert np.isnan(shown[0][..., [1, 4]]).all()
    assert_array_equal(np.delete(shown[0], [1, 4], -1), np.delete(spikes, [1, 4], -1))
    assert_array_equal(counts, spikes)  # the argument is unchanged


class Copier(TransformerMixin, BaseEstimator):
    """Returns the counts that it is shown, and the neurons' means where they are hidden."""

    def __init__(self, heldout_neurons=None, random_state=None):
        self.heldout_neurons = heldout_neurons
        self.random_state = random_state

    def fit(self, X, y=None):
        self.mean_ = np.nanmean(X, axis=(0, 1))
        return self

    def transform(self, X):
        return np.where(np.isnan(X), self.mean_, X + 1e-9)


@pytest.mark.parametrize("heldout", [None, [1, 4]])
@pytest.mark.parametrize(
    "params",
    [{"bootstrap": True, "oob_score": True}, {"validation_fraction": 0.5}],
    ids=["out of bag", "trials set aside"],
)
def test_copying_the_input_does_not_raise_the_scores_of_an_ensemble(spikes, heldout, params):
    copying = BaggingEnsemble(Copier(heldout), 3, n_best=2, random_state=0, **params).fit(spikes)
    for scores in (copying.score(spikes), copying.scores_, copying.score_curve(spikes)):
        assert np.max(scores) < 0.1
    assert getattr(copying, "oob_score_", 0) < 0.1


def test_score_of_an_entry_does_not_depend_on_its_count(fitted, spikes):
    def rates_while_hidden(counts):
        return infer_hidden(fitted.transform, counts, np.array([], dtype=int))[1]

    changed = spikes.copy()
    changed[4, 9, 3] += 5
    rates, rates_of_changed = rates_while_hidden(spikes), rates_while_hidden(changed)
    assert rates[4, 9, 3] == rates_of_changed[4, 9, 3]
    assert not np.array_equal(rates, rates_of_changed)


@pytest.mark.parametrize("params", [{}, {"heldout_neurons": 3}])
def test_score_is_repeatable_and_skips_unknown_counts(small, spikes, ragged, params):
    estimator = small(**params).fit(spikes)
    assert estimator.score(spikes) == estimator.score(spikes)
    assert np.isfinite(estimator.score(ragged))


def test_score_rises_with_training(small):
    spikes = make_reaches(n_trials=60, n_bins=20, n_neurons=20, random_state=1).spikes
    trained = small(d_model=16, max_epochs=40).fit(spikes)
    assert trained.score(spikes) > small(max_epochs=1).fit(spikes).score(spikes) + 0.02
    assert trained.score(spikes) > 0.02
