"""Data and estimators that several test files share, and what to skip on which machine."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sklearn_stndt import STNDTEstimator
from sklearn_stndt.datasets import make_reaches


def pytest_collection_modifyitems(items):
    """Skip, and say why, what cannot run on this machine."""
    reasons = {}
    if not torch.cuda.is_available():
        reasons["gpu"] = "no CUDA device"
    if not os.environ.get("STNDT_DATA"):
        reasons["real_data"] = "STNDT_DATA names no folder of recordings"
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def real_data():
    """Folder of recordings."""
    return Path(os.environ["STNDT_DATA"])


@pytest.fixture(scope="session")
def reaches():
    """A small data set whose rates and velocities are known."""
    return make_reaches(n_trials=24, n_bins=20, n_neurons=12, random_state=0)


@pytest.fixture(scope="session")
def spikes(reaches):
    """Counts of 24 trials, 20 bins, 12 neurons, float64; writing to them raises an error."""
    counts = reaches.spikes.astype(np.float64)
    counts.setflags(write=False)
    return counts


@pytest.fixture(scope="session")
def rows(spikes):
    """The trials of `spikes` one below the other, as a 2D recording."""
    return spikes.reshape(-1, spikes.shape[-1])


@pytest.fixture(scope="session")
def groups(spikes):
    """Trial of each of `rows`."""
    return np.repeat(np.arange(len(spikes)), spikes.shape[1])


@pytest.fixture(scope="session")
def small():
    """Make an estimator that trains in a tenth of a second."""

    def make(**params):
        defaults = {"d_model": 8, "n_heads": 2, "max_epochs": 3, "random_state": 0}
        return STNDTEstimator(**(defaults | params))

    return make


@pytest.fixture(scope="session")
def fitted(small, spikes):
    """A small estimator that was trained on `spikes`; tests leave it as it is."""
    return small().fit(spikes)
