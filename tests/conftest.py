"""Fixtures that several test files share, and tests that are skipped on some machines."""

import copy
import gc
import multiprocessing
import os
import sys
import threading
import warnings
from datetime import UTC, datetime
from multiprocessing.dummy import DummyProcess
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pytest
import sklearn
import torch
from counted_fits import FITS, Scaled
from hypothesis import HealthCheck, settings
from scipy.stats import uniform
from subprocesses import LIMIT

from sklearn_stndt import BaggingEnsemble, STNDTEstimator
from sklearn_stndt.datasets import make_reaches
from sklearn_stndt.network import CausalPosterior, CausalSTNDT

# An import registers a device in the whole process, which doctests must not do.
collect_ignore = ["stand_in_device.py", "fits_elsewhere.py"]

# No test depends on how long an example takes. "ci" tries the same examples each time, "long" (make
# soak) more of them, and new ones.
UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", derandomize=True, **UNTIMED)
settings.register_profile("long", print_blob=True, **UNTIMED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

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
    """Skip tests that cannot run on this machine, with the reason."""
    reasons = {}
    if not torch.cuda.is_available():
        reasons["gpu"] = "no CUDA device"
    if not os.environ.get("STNDT_DATA"):
        reasons["real_data"] = "STNDT_DATA names no folder of recordings"
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Free what a failed test has left open, or its warnings would make a later test fail."""
    n_failed = item.session.testsfailed
    result = yield
    if item.session.testsfailed > n_failed:
        for name in ("last_exc", "last_type", "last_value", "last_traceback"):
            vars(sys).pop(name, None)  # the traceback refers to all variables of the test
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
    return result


# state that tests must restore: how to read it, and how to set it
GLOBAL_STATE = {
    "threads of torch": (torch.get_num_threads, torch.set_num_threads),
    "gradients": (torch.is_grad_enabled, torch.set_grad_enabled),
    "settings of scikit-learn": (sklearn.get_config, lambda config: sklearn.set_config(**config)),
    "directory": (os.getcwd, os.chdir),
}


def running():
    """Threads and processes that tests must end; joblib ends its own ones."""
    everything = [*threading.enumerate(), *multiprocessing.active_children()]
    return {one for one in everything if not one.daemon and ".loky." not in type(one).__module__}


@pytest.fixture(autouse=True)
def closed_figures():
    """Close the figures of a test."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def end_pools(threads):
    """Wait for threads of joblib, which does not wait after an interruption or an error."""
    left = [t for t in set(threading.enumerate()) - threads if isinstance(t, DummyProcess)]
    if left:
        for pool in gc.get_objects():
            if type(pool) is ThreadPool:
                pool.terminate()
    for thread in left:
        thread.join(LIMIT)


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Restore global state that a test has changed, and fail the test."""
    threads, before = set(threading.enumerate()), running()
    values = {name: read() for name, (read, _) in GLOBAL_STATE.items()}
    yield
    end_pools(threads)
    changed = []
    for name, (read, put_back) in GLOBAL_STATE.items():
        if read() != values[name]:
            changed.append(name)
            put_back(values[name])
    assert not changed
    assert not running() - before


@pytest.fixture(scope="session")
def real_data():
    """Folder with recordings."""
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
    """The trials of `spikes`, concatenated to a 2D recording."""
    return spikes.reshape(-1, spikes.shape[-1])


@pytest.fixture(scope="session")
def groups(spikes):
    """Index of the trial of each row of `rows`."""
    return np.repeat(np.arange(len(spikes)), spikes.shape[1])


@pytest.fixture(scope="session")
def small():
    """Make an estimator that trains in a tenth of a second."""

    def make(**params):
        defaults = {"d_model": 8, "n_heads": 2, "max_epochs": 3, "random_state": 0}
        return STNDTEstimator(**(defaults | params))

    return make


@pytest.fixture
def scaled(tmp_path):
    """Make an ensemble whose fits are counted and that writes to a directory."""
    FITS.clear()

    def make(n_estimators=5, base=None, **params):
        params = {
            "param_distributions": {"power": uniform(0.5, 1)},
            "checkpoint_dir": tmp_path / "run",
            "n_best": "auto",
            "random_state": 0,
        } | params
        return BaggingEnsemble(Scaled() if base is None else base, n_estimators, **params)

    return make


@pytest.fixture(scope="session")
def fitted(small, spikes):
    """A small estimator trained on `spikes`; tests do not change it."""
    return small().fit(spikes)


@pytest.fixture(scope="session")
def ragged(spikes):
    """The trials of `spikes`, with up to 7 hidden bins at the end."""
    counts = spikes.copy()
    counts[np.add.outer(np.arange(24) % 8, np.arange(20)) >= 20] = np.nan
    counts.setflags(write=False)
    return counts


@pytest.fixture(scope="session")
def perturbed():
    """Add noise to all weights of a copy of a fitted estimator, so that each influences rates.

    A causal network gets a filter, if it can have one.
    """

    def perturb(estimator, std=0.3):
        estimator = copy.deepcopy(estimator)
        generator = torch.Generator().manual_seed(0)
        network = estimator.net_.module_
        with torch.no_grad():
            for weights in network.parameters():
                weights += std * torch.randn(weights.shape, generator=generator)
        if isinstance(network, CausalSTNDT) and network.settings.context is None:
            sizes = len(network.readout.weight), network.n_bins, 3, 7
            network.posterior = CausalPosterior(*sizes, restarts=not network.in_trials)
            for values in network.posterior.buffers():
                values += std * torch.randn(values.shape, generator=generator)
            network.posterior.weight.fill_(0.5)
            network.posterior.lowest -= 5
            network.posterior.highest += 5
        return estimator

    return perturb


@pytest.fixture(scope="module", params=FORMS)
def form(request):
    """Parameters of networks that use different parts of the code."""
    return FORMS[request.param]


@pytest.fixture(scope="module")
def network(form, small, perturbed, spikes):
    """A fitted estimator of each form, with noise added to all weights."""
    return perturbed(small(max_epochs=1, **form).fit(spikes))


@pytest.fixture(scope="session")
def write_nwb(tmp_path_factory):
    """Write reaches to a file in the layout of the benchmark's MC_Maze, and return its path.

    Velocity has 1,000 samples a second; each unit is observed from the start of a trial to 20 ms
    before the next one.
    """
    pynwb = pytest.importorskip("pynwb")

    def write(
        name="maze.nwb",
        *,
        n_trials=20,
        n_neurons=12,
        n_heldout=3,
        seed=0,
        observe_all=False,
        edit=None,
    ):
        data = make_reaches(n_trials, 1200, n_neurons, bin_width=0.001, random_state=seed)
        rng = np.random.default_rng(seed)
        starts = 1.4 * np.arange(n_trials) + 0.1
        when = datetime(2026, 1, 1, tzinfo=UTC)
        file = pynwb.NWBFile("synthetic reaches", name, when)
        file.add_unit_column("heldout", "held out")
        intervals = np.column_stack([starts, starts + 1.38])
        if observe_all:
            intervals = np.array([[0.0, intervals.max()]])
        for neuron in range(n_neurons):
            of_neuron = data.spikes[..., neuron]
            trial, ms = np.repeat(np.nonzero(of_neuron), of_neuron[of_neuron > 0], axis=1)
            times = starts[trial] + (ms + rng.uniform(0.05, 0.95, len(ms))) / 1000
            file.add_unit(
                spike_times=np.sort(times),
                obs_intervals=intervals,
                heldout=neuron >= n_neurons - n_heldout,
            )
        columns = ("move_onset_time", "split", "trial_type", "trial_version")
        for column in columns:
            file.add_trial_column(column, column)
        starts = starts.round(3)
        splits = np.where(np.arange(n_trials) % 4 == 3, "val", "train")
        for trial, start in enumerate(starts):
            file.add_trial(
                start_time=start,
                stop_time=start + 1.2,
                move_onset_time=round(start + data.onsets[trial], 3),
                split=splits[trial],
                trial_type=int(data.conditions[trial] % 2),
                trial_version=0,
            )
        velocity = np.zeros((round(1000 * (starts[-1] + 1.38)), 2))
        for start, of_trial in zip(np.rint(1000 * starts).astype(int), data.velocity, strict=True):
            velocity[start : start + 1200] = of_trial
        series = pynwb.TimeSeries(
            name="hand_vel",
            data=velocity,
            unit="cm/s",
            timestamps=np.arange(len(velocity)) / 1000,
            comments="columns=[x,y]",
        )
        file.create_processing_module("behavior", "behaviour").add(series)
        if edit is not None:
            edit(file)
        path = tmp_path_factory.mktemp("nwb") / name
        with pynwb.NWBHDF5IO(path, "w") as io:
            io.write(file)
        return path

    return write


@pytest.fixture
def torch_seed():
    """Seed torch, and restore its generator afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
