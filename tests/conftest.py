"""Data and estimators that several test files share, and what to skip on which machine."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sklearn_stndt import STNDTEstimator
from sklearn_stndt.datasets import make_reaches

FORMS = {
    "default": {},
    "temporal": {"attention": "temporal"},
    "banded": {"context": (4, 1), "input_scaling": "standardized"},
    "published": {
        "d_model": None,
        "d_spatial": None,
        "spatial_layers": "all",
        "n_spatial_heads": 2,
        "input_scaling": "counts",
        "token_ratio": 0.8,
        "random_ratio": 0.5,
        "contrastive_weight": 0.1,
    },
}


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


@pytest.fixture(scope="session")
def ragged(spikes):
    """The trials of `spikes`, up to 7 of their last bins hidden."""
    counts = spikes.copy()
    counts[np.add.outer(np.arange(24) % 8, np.arange(20)) >= 20] = np.nan
    counts.setflags(write=False)
    return counts


@pytest.fixture(scope="session")
def shaken():
    """Give a copy of a fitted estimator random weights: no path through it is closed by chance."""

    def shake(estimator, std=0.3):
        estimator = copy.deepcopy(estimator)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weights in estimator.net_.module_.parameters():
                weights += std * torch.randn(weights.shape, generator=generator)
        return estimator

    return shake


@pytest.fixture(scope="module", params=FORMS)
def form(request):
    """Parameters of networks that take different ways through the code."""
    return FORMS[request.param]


@pytest.fixture(scope="module")
def network(form, small, shaken, spikes):
    """A fitted estimator of each form, all of its weights at work."""
    return shaken(small(max_epochs=1, **form).fit(spikes))
