"""Finished members are kept when a process is killed at any moment."""

import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from subprocesses import LIMIT, kill, started, wait_until

from sklearn_stndt.ensemble.checkpoints import CheckpointDirectory

SCRIPT = Path(__file__).with_name("fit_with_checkpoints.py")
NAMES = runpy.run_path(str(SCRIPT))
make_ensemble, make_spikes = NAMES["make_ensemble"], NAMES["make_spikes"]
pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="signals of POSIX"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def uninterrupted():
    return make_ensemble().fit(make_spikes())


def start(*fits):
    """Start a process that fits."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return started(str(SCRIPT), json.dumps(fits), env=environment)


def finished(directory):
    """Which members are finished, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in directory.glob("member-*.zip")}


def n_begun(log):
    return len(log.read_text().splitlines())


def assert_same_results(out, ensemble):
    with np.load(out) as result:
        assert_array_equal(result["rates"], ensemble.transform(make_spikes()))
        assert_array_equal(result["scores"], ensemble.scores_)
        assert_array_equal(result["selected"], ensemble.selected_)


def test_resuming_after_three_kills_gives_identical_results(tmp_path, uninterrupted):
    directory, log, out = tmp_path / "run", tmp_path / "log", tmp_path / "out.npz"
    options = {
        "log": str(log),
        "out": str(out),
        "params": {"checkpoint_dir": str(directory)},
    }
    # other moments in every run; at least one member is left to train
    random = np.random.RandomState()
    moments = random.permutation(["in training", "half written", "just written"]).tolist()
    kills = [(int(random.randint(1, 3)), moment) for moment in moments]
    with start(*[options | {"kill": pair} for pair in kills], options) as process:
        printed, errors = process.communicate(timeout=LIMIT)
    assert errors == "", kills
    assert json.loads(printed) == [-signal.SIGKILL] * 3 + [0], kills
    # every member has started once, and once more if it was killed before it was written
    assert n_begun(log) == 7 + 2, kills
    assert len(finished(directory)) == 7
    assert not list(directory.glob("*.partial"))
    assert_same_results(out, uninterrupted)


def test_killing_all_workers_keeps_finished_members(tmp_path, uninterrupted):
    directory, log, out = tmp_path / "run", tmp_path / "log", tmp_path / "out.npz"
    params = {"checkpoint_dir": str(directory), "n_jobs": 2}
    options = {"log": str(log), "out": str(out), "params": params}
    lock, hold = CheckpointDirectory(directory), tmp_path / "log.hold"
    hold.touch()
    with start(options) as process:
        wait_until(lambda: log.exists() and n_begun(log) == 4, process)
        with pytest.raises(RuntimeError, match=f"in use by process {process.pid} on"):
            lock.locked().__enter__()
        kill(process)
        process.wait(LIMIT)
        with lock.locked():  # the lock ends with its process
            pass
    written = finished(directory)
    assert len(written) == 2
    hold.unlink()
    with start(options | {"params": params | {"n_jobs": 1}}) as process:
        assert process.communicate(timeout=LIMIT) == ("", "")
    assert written.items() <= finished(directory).items()  # they are not written again
    assert n_begun(log) == 4 + 5
    assert_same_results(out, uninterrupted)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="states of processes of Linux")
def test_workers_end_with_a_process_that_is_killed(tmp_path):
    log = tmp_path / "log"
    options = {"log": str(log), "out": str(tmp_path / "out.npz"), "params": {"n_jobs": 2}}

    def alive(pid):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        return state != "Z"

    (tmp_path / "log.endless").touch()
    with start(options) as process:
        wait_until(lambda: log.exists() and n_begun(log) == 2, process)
        workers = [int(line) for line in log.read_text().split()]
        assert all(alive(pid) for pid in workers)
        process.kill()  # it alone
        process.wait(LIMIT)
        deadline = time.monotonic() + LIMIT
        while any(alive(pid) for pid in workers):
            assert time.monotonic() < deadline
            time.sleep(0.01)
