"""Results do not depend on the backend of joblib: threads, processes, Dask, Ray."""

import os
import signal
import threading

import joblib
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from same_ensembles import assert_same_ensembles
from scipy.stats import uniform
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback
from subprocesses import LIMIT, joblib_processes
from worker_callbacks import DieOnce, InterruptParent

from sklearn_stndt import BaggingEnsemble, BinwiseRegressor
from sklearn_stndt.ensemble import engine

PARAMS = {
    "n_estimators": 5,
    "param_distributions": {"dropout": uniform(0, 0.4), "context": [None, (4, 4)]},
    "n_best": "auto",
    "bootstrap": True,
    "oob_score": True,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def make(small):
    def make(max_epochs=20, **params):
        base = small(max_epochs=max_epochs, random_state=None)
        return BaggingEnsemble(base, **(PARAMS | params))

    return make


@pytest.fixture(scope="module")
def expected(make, spikes):
    return make().fit(spikes)


@pytest.mark.parametrize("on_disk", [False, True])
def test_threads_give_identical_results(make, expected, spikes, tmp_path, on_disk):
    with joblib.parallel_config("threading", n_jobs=2):
        ensemble = make(checkpoint_dir=tmp_path if on_disk else None).fit(spikes)
    assert_same_ensembles(ensemble, expected, spikes)


@pytest.fixture(autouse=True)
def ctrl_c():
    """Handle SIGINT even if a shell started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def two_processes():
    with joblib_processes():
        yield


@pytest.mark.usefixtures("two_processes")
def test_processes_give_identical_results(make, expected, spikes, tmp_path):
    assert_same_ensembles(make(n_jobs=2).fit(spikes), expected, spikes)
    assert_same_ensembles(make(n_jobs=2, checkpoint_dir=tmp_path).fit(spikes), expected, spikes)


@pytest.mark.usefixtures("two_processes")
def test_interrupting_processes_keeps_finished_members(make, spikes, monkeypatch, tmp_path):
    update, done, ready = engine.Progress.update, [], tmp_path / "ready"

    def update_and_count(self, outcome):
        update(self, outcome)
        done.append(outcome.plan.index)
        if len(done) == 2:  # the remaining members never finish
            ready.touch()

    monkeypatch.setattr(engine.Progress, "update", update_and_count)
    callback = InterruptParent(str(tmp_path / "log"), str(ready), os.getpid())
    ensemble = make(n_jobs=2, n_estimators=40, oob_score=False)
    ensemble.set_params(estimator__callbacks=[callback])
    with pytest.warns(ConvergenceWarning, match="interrupted at member .* of 40"):
        ensemble.fit(spikes)
    assert len(ensemble) == len(done) == 2
    assert np.isfinite(ensemble.transform(spikes)).all()


@pytest.fixture
def hold_back(monkeypatch):
    """Let members wait in their threads until the test ends, from a given member on."""
    fit_member, over = engine.fit_member, threading.Event()

    def hold(first, begin_to_wait=lambda: None):
        def fit_or_wait(work, plan):
            if plan.index < first:
                return fit_member(work, plan)
            begin_to_wait()
            over.wait(LIMIT)
            raise TimeoutError("nothing has ended this member")

        monkeypatch.setattr(engine, "fit_member", fit_or_wait)

    yield hold
    over.set()


class InterruptThird(Callback):
    """Raises KeyboardInterrupt in the third member."""

    begun = []

    def on_train_begin(self, net, **kwargs):
        self.begun.append(net)

    def on_batch_begin(self, net, **kwargs):
        if len(self.begun) >= 3 and net is self.begun[2] and len(net.history) == 2:
            raise KeyboardInterrupt


# warning filters are not thread-safe, so a warning of joblib may get through
@pytest.mark.filterwarnings("ignore:.*tasks which were still being processed:UserWarning")
def test_interrupting_one_worker_ends_the_others(make, spikes, hold_back):
    hold_back(4)
    InterruptThird.begun.clear()
    ensemble = make(n_estimators=40).set_params(estimator__callbacks=[InterruptThird()])
    with joblib.parallel_config("threading", n_jobs=2), pytest.warns(ConvergenceWarning) as warned:
        ensemble.fit(spikes)
    assert any("interrupted at member" in str(w.message) for w in warned)
    assert 1 <= len(ensemble) <= 4
    assert np.isfinite(ensemble.transform(spikes)).all()


@pytest.fixture
def list_backend():
    """A backend that returns all results together at the end, as Ray's does."""
    from joblib._parallel_backends import ThreadingBackend

    class AtTheEnd(ThreadingBackend):
        supports_return_generator = False

    joblib.register_parallel_backend("at the end", AtTheEnd)
    with joblib.parallel_config("at the end", n_jobs=2):
        yield
    del joblib.parallel.BACKENDS["at the end"]


@pytest.mark.usefixtures("list_backend")
def test_backends_that_return_lists_give_identical_results(make, expected, spikes, capsys):
    assert_same_ensembles(make(verbose=1).fit(spikes), expected, spikes)
    assert "5/5" in capsys.readouterr().err.splitlines()[-1]  # progress is counted nevertheless


@pytest.mark.usefixtures("list_backend")
def test_checkpoints_are_kept_by_backends_that_return_lists(
    make, expected, spikes, tmp_path, hold_back
):
    # the main thread, which waits for the list, gets the signal
    both = threading.Barrier(2, lambda: signal.raise_signal(signal.SIGINT), LIMIT)
    hold_back(2, both.wait)
    with pytest.warns(Warning, match="interrupted at member"):
        ensemble = make(checkpoint_dir=tmp_path, n_estimators=40, oob_score=False).fit(spikes)
    assert len(ensemble) == 2
    seeds = dict(zip(expected.results_["seed"], expected.params_, strict=True))
    for seed, params in zip(ensemble.results_["seed"], ensemble.params_, strict=True):
        assert seeds.get(seed, params) == params


# ---- Dask


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Client of a cluster of two worker processes on this machine."""
    distributed = pytest.importorskip("distributed", reason="needs the extra [dask]")
    import dask

    limits = ("comm.timeouts.connect", "comm.timeouts.tcp", "scheduler.worker-ttl")
    with (
        dask.config.set({f"distributed.{name}": f"{LIMIT} s" for name in limits}),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=":0",
            local_directory=tmp_path_factory.mktemp("dask"),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.run(lambda: __import__("sklearn_stndt"))
        yield client


@pytest.fixture
def on_dask(client):
    client.wait_for_workers(2)
    with joblib.parallel_config("dask", wait_for_workers_timeout=LIMIT):
        yield client


@pytest.mark.slow
def test_dask_gives_identical_results(make, expected, spikes, on_dask, capsys):
    assert_same_ensembles(make(verbose=1).fit(spikes), expected, spikes)
    last = capsys.readouterr().err.splitlines()[-1]
    assert "5/5" in last
    assert "best score" in last
    assert len(on_dask.run(os.getpid)) == 2


@pytest.mark.slow
def test_a_search_over_a_pipeline_runs_on_dask(small, spikes, reaches, on_dask):
    pipeline = make_pipeline(small(), BinwiseRegressor(Ridge()))
    grid = {"stndtestimator__d_model": [4, 8], "binwiseregressor__estimator__alpha": [0.1, 10.0]}

    def scores(estimator, grid, y=None):
        search = GridSearchCV(estimator, grid, cv=2, error_score="raise").fit(spikes, y)
        return search.cv_results_["mean_test_score"]

    ensemble = BaggingEnsemble(small(), 2, random_state=0)
    nested = {"estimator__d_model": [4, 8]}
    of_pipeline = scores(pipeline, grid, reaches.velocity)
    of_ensemble = scores(ensemble, nested)  # a task that starts tasks
    with joblib.parallel_config("sequential"):
        assert_array_equal(of_pipeline, scores(pipeline, grid, reaches.velocity))
        assert_array_equal(of_ensemble, scores(ensemble, nested))


@pytest.mark.slow
@pytest.mark.parametrize("on_disk", [False, True])
def test_losing_a_worker_does_not_change_results(
    make, expected, spikes, on_dask, tmp_path, on_disk
):
    directory, mark = (tmp_path / "run" if on_disk else None), tmp_path / "killed"
    ensemble = make(checkpoint_dir=directory)
    ensemble.set_params(estimator__callbacks=[DieOnce(mark, directory)]).fit(spikes)
    assert mark.exists()
    assert_same_ensembles(ensemble, expected, spikes)


# ---- Ray


@pytest.mark.slow
def test_ray_gives_identical_results(make, expected, spikes):
    ray = pytest.importorskip("ray", reason="ray is not installed")
    from ray.util.joblib import register_ray

    register_ray()
    ray.init(num_cpus=2)
    try:
        with joblib.parallel_config("ray", n_jobs=2):
            assert_same_ensembles(make().fit(spikes), expected, spikes)
    finally:
        ray.shutdown()


# ---- groups


def test_groups_reach_pipelines_in_workers(small, rows, groups):
    import sklearn

    base = make_pipeline(small(max_epochs=2))
    with sklearn.config_context(enable_metadata_routing=True):
        alone = BaggingEnsemble(base, 2, random_state=0).fit(rows, groups=groups)
        # scikit-learn's settings are local to a thread
        with joblib.parallel_config("threading", n_jobs=2):
            ensemble = BaggingEnsemble(base, 2, random_state=0).fit(rows, groups=groups)
        rates = ensemble.transform(rows, groups=groups)
        assert_array_equal(rates, alone.transform(rows, groups=groups))
    assert np.isfinite(rates).all()
