"""Workers of joblib end with the process that has started them, and are shared with others."""

import os
import sys
import time
from pathlib import Path

import pytest
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from subprocesses import LIMIT, alive_in_session, joblib_processes, started

from sklearn_stndt._workers import backend_for_workers

# Sending the first task does not end. Workers without a task would wait for hours.
WITHOUT_TASKS = f"""
import time
from types import SimpleNamespace
from joblib.parallel import BACKENDS
from sklearn_stndt.ensemble.engine import train_run
from sklearn_stndt.ensemble.runs import Run

class Endless:
    def __reduce__(self):
        print("sending", flush=True)
        time.sleep({LIMIT})

loky = BACKENDS["loky"]
configure = loky.configure
loky.configure = lambda *args, **params: configure(*args, idle_worker_timeout={LIMIT}, **params)
plans = [SimpleNamespace(index=i) for i in range(2)]
train_run(Run(None, {{}}, plans, Endless()), n_jobs=2, verbose=0)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="states of processes of Linux")
def test_workers_without_a_task_end_with_a_process_that_is_killed():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with started("-c", WITHOUT_TASKS, env=environment) as process:
        assert process.stdout.readline() == "sending\n"
        assert len(alive_in_session(process)) > 3  # with two workers and what cleans up after them
        process.kill()  # it alone
        process.wait(LIMIT)
        deadline = time.monotonic() + LIMIT
        while alive_in_session(process):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_workers_of_other_users_of_joblib_continue():
    executors = []
    with joblib_processes():
        for backend in (None, backend_for_workers(), None):
            Parallel(n_jobs=2, backend=backend)([delayed(abs)(1)] * 2)
            executors.append(get_reusable_executor(reuse=True))
    assert executors == executors[:1] * 3


def test_an_initializer_of_the_user_is_kept():
    pytest.importorskip("joblib", minversion="1.5")
    with joblib_processes(), parallel_config("loky", initializer=os.putenv, initargs=("A", "B")):
        parallel = Parallel(n_jobs=2, backend=backend_for_workers())
        assert parallel([delayed(os.system)('test "$A" = B')] * 2) == [0, 0]


@pytest.mark.parametrize("name", ["threading", "multiprocessing", "sequential"])
def test_other_backends_are_used_as_they_are(name):
    with parallel_config(name):
        assert backend_for_workers() is None
