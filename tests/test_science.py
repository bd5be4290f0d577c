"""Inferred and true rates of synthetic data: margins over baselines."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from sklearn_stndt import BaggingEnsemble
from sklearn_stndt.datasets import make_reaches


def r2(truth, rates):
    """Fraction of variance, around the mean rate of each neuron, that the rates explain."""
    residual = np.square(truth - rates).sum()
    return 1 - residual / np.square(truth - truth.mean((0, 1))).sum()


def smoothed(spikes, width):
    return gaussian_filter1d(spikes.astype(float), width, axis=1)


@pytest.fixture(scope="module")
def reaching():
    return make_reaches(n_trials=80, n_bins=25, n_neurons=40, random_state=0)


@pytest.fixture(scope="module")
def default_members(reaching):
    """Two networks with all defaults, as an ensemble."""
    return BaggingEnsemble(n_estimators=2, random_state=0).fit(reaching.spikes)


@pytest.mark.slow
def test_defaults_estimate_rates_better_than_smoothing(reaching, default_members):
    rates = default_members.estimators_[0].transform(reaching.spikes)
    # the best width is chosen by the true rates, in favour of smoothing
    best = max(r2(reaching.rates, smoothed(reaching.spikes, w)) for w in np.arange(1, 10, 0.5))
    assert r2(reaching.rates, rates) > best + 0.1
    assert r2(reaching.rates, rates) > 0.5  # mean rates score 0


@pytest.mark.slow
def test_an_ensemble_estimates_rates_better_than_each_of_its_members(reaching, default_members):
    members = [r2(reaching.rates, m.transform(reaching.spikes)) for m in default_members]
    assert r2(reaching.rates, default_members.transform(reaching.spikes)) > max(members)
