"""Recordings and synthetic data for the benchmarks, split into training and test sets."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d
from sklearn.model_selection import KFold, train_test_split

from sklearn_stndt.datasets import make_chaotic_rnn, make_lorenz, make_reaches


@dataclass
class Problem:
    """Counts for training and test, and the data with which inferred rates are compared.

    Attributes
    ----------
    train, test : ndarray of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
        Spike counts per bin.
    heldout : ndarray of int, or None
        Held-out neurons for co-smoothing. None: no co-smoothing.
    true_rates : ndarray, or None
        Expected spikes per bin in the test set.
    behaviour : (ndarray, ndarray), or None
        Behaviour in training and test sets, with variables along the last axis.
    params : dict
        Parameters of estimators that depend on the data, such as `window`.
    """

    train: np.ndarray
    test: np.ndarray
    heldout: np.ndarray | None = None
    true_rates: np.ndarray | None = None
    behaviour: tuple | None = None
    params: dict = field(default_factory=dict)


def draw_heldout(n_neurons, seed):
    """Draw a quarter of the neurons."""
    return np.random.RandomState(seed).permutation(n_neurons)[: n_neurons // 4]


def datahigh(array, seed):
    """Motor cortex; a fifth of the trials for the test."""
    X = load("datahigh/datahigh_20ms.npz")[array]
    train, test = train_test_split(X, test_size=0.2, random_state=seed)
    return Problem(train, test, draw_heldout(X.shape[-1], seed))


def chewie(seed):
    """Motor cortex; half of the bins are missing; a fifth of the trials for the test."""
    X = load("reaches_chewie/chewie_20131003_50ms.npz")["spikes"]
    train, test = train_test_split(X, test_size=0.2, random_state=seed)
    return Problem(train, test, draw_heldout(X.shape[-1], seed))


def linear_track(seed):
    """Hippocampus of a running rat; a contiguous quarter of the running time for the test."""
    recording = load("nelpy/nelpy_linear-track_25ms.npz")
    on_track = np.zeros(len(recording["spikes"]), dtype=bool)  # before and after, it is carried
    on_track[int(55 / recording["bin_s"]) : int(975 / recording["bin_s"])] = True
    return while_running(recording, seed, on_track)


def w_maze(seed):
    """Another maze and other neurons; a contiguous quarter of the running time for the test."""
    recording = load("nelpy/nelpy_w-maze_25ms.npz")
    return while_running(recording, seed, np.ones(len(recording["spikes"]), dtype=bool))


def while_running(recording, seed, usable):
    """Counts and position in the usable bins in which the animal runs."""
    position = recording["pos_px"].astype(float)
    velocity = np.gradient(gaussian_filter1d(position, 10, axis=0), recording["bin_s"], axis=0)
    running = usable & (np.linalg.norm(velocity, axis=1) > 20)  # pixels/s
    X, position = recording["spikes"][running], position[running]
    train, test = list(KFold(4).split(X))[seed % 4]
    heldout = draw_heldout(X.shape[-1], seed)
    return Problem(X[train], X[test], heldout, None, (position[train], position[test]))


def retina(seed):
    """Spontaneous waves in 477 neurons; a contiguous quarter of the recording for the test."""
    X = load("retina/stafford2009_500ms.npz")["spikes"]
    train, test = list(KFold(4).split(X))[seed % 4]
    return Problem(X[train], X[test], draw_heldout(X.shape[-1], seed), params={"window": 64})


def reaches(seed, n_train=112, n_test=80, **params):
    """Synthetic reaches with hand velocity; test trials follow training trials."""
    data = make_reaches(n_train + n_test, random_state=seed, **params)
    train, test = slice(n_train), slice(n_train, None)
    return Problem(
        data.spikes[train],
        data.spikes[test],
        draw_heldout(data.spikes.shape[-1], seed),
        data.rates[test],
        (data.velocity[train], data.velocity[test]),
    )


def synthetic(data):
    """Synthetic benchmark with its own split and without held-out neurons."""
    return Problem(data.spikes[data.train], data.spikes[~data.train], None, data.rates[~data.train])


PROBLEMS = {
    "ex1": lambda seed: datahigh("ex1_spikes", seed),
    "ex2": lambda seed: datahigh("ex2_spikes_first1s", seed),
    "chewie": chewie,
    "track": linear_track,
    "w-maze": w_maze,
    "retina": retina,
    "reaches": reaches,
    "weak reaches": lambda seed: reaches(
        seed, 112, 80, n_bins=26, n_neurons=45, mean_rate=18.0, modulation=0.35
    ),
    "lorenz": lambda seed: synthetic(make_lorenz(random_state=seed)),
    "chaotic rnn": lambda seed: synthetic(make_chaotic_rnn()),
}
NEEDS_FILE = {
    "ex1": "datahigh/datahigh_20ms.npz",
    "ex2": "datahigh/datahigh_20ms.npz",
    "chewie": "reaches_chewie/chewie_20131003_50ms.npz",
    "track": "nelpy/nelpy_linear-track_25ms.npz",
    "w-maze": "nelpy/nelpy_w-maze_25ms.npz",
    "retina": "retina/stafford2009_500ms.npz",
}


def missing_file(name):
    """Path of the recording that a problem needs if it does not exist, otherwise None."""
    if name not in NEEDS_FILE:
        return None
    path = Path(os.environ.get("STNDT_DATA", "STNDT_DATA is not set")) / NEEDS_FILE[name]
    return None if path.is_file() else path


def load(name):
    """Read a file of arrays from the folder in STNDT_DATA."""
    with np.load(Path(os.environ["STNDT_DATA"]) / name) as arrays:
        return dict(arrays)
