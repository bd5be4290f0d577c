"""Margins of ensembles over single networks, on synthetic data with known rates."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from sklearn_stndt import BaggingEnsemble, STNDTEstimator
from sklearn_stndt.datasets import make_reaches

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reaching():
    return make_reaches(n_trials=80, n_bins=25, n_neurons=30, random_state=0)


@pytest.fixture(scope="module")
def halves(reaching):
    """Training and test trials."""
    return np.split(np.random.RandomState(0).permutation(80), 2)


@pytest.fixture(scope="module")
def seeds(reaching, halves):
    """Eight networks that differ only by their seeds, trained on half of the trials."""
    base = STNDTEstimator(d_model=32)
    return BaggingEnsemble(base, n_estimators=8, random_state=0).fit(reaching.spikes[halves[0]])


def test_score_rises_with_the_number_of_members(seeds, reaching, halves):
    test = reaching.spikes[halves[1]]
    curve = seeds.score_curve(test)
    alone = np.array([member.score(test) for member in seeds])
    assert curve[-1] > curve[0] + 0.01
    assert curve[-1] > alone.mean() + 0.01


def test_the_spread_of_members_predicts_the_error_of_their_mean(seeds, reaching, halves):
    test = reaching.spikes[halves[1]]
    std = seeds.rate_std(test)
    error = abs(seeds.transform(test) - reaching.rates[halves[1]])
    assert spearmanr(std.ravel(), error.ravel())[0] > 0.5
    # also within neurons, so that it is not only because both grow with the mean rate
    of_neurons = [spearmanr(std[..., n].ravel(), error[..., n].ravel())[0] for n in range(30)]
    assert np.mean(of_neurons) > 0.3


@pytest.mark.real_data
def test_score_rises_from_one_to_ten_members_on_motor_cortex():
    path = Path(os.environ["STNDT_DATA"]) / "datahigh" / "datahigh_20ms.npz"
    spikes = np.load(path)["ex2_spikes_first1s"]
    order = np.random.RandomState(0).permutation(len(spikes))
    train, test = spikes[order[22:]], spikes[order[:22]]
    base = STNDTEstimator(heldout_neurons=0.25)
    ensemble = BaggingEnsemble(base, n_estimators=10, random_state=0).fit(train)
    curve = ensemble.score_curve(test)
    alone = [member.score(test) for member in ensemble]
    assert curve[-1] > curve[0]
    assert curve[-1] > np.mean(alone) + 2 * np.std(alone) / np.sqrt(len(alone))
    # the best member is close: differences of 0.001 are within chance
    assert curve[-1] > np.sort(alone)[-2]
