"""Nothing is lost when a process is killed or interrupted, at whatever moment."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sklearn_stndt._checkpoints import CheckpointDirectory

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


class Fit:
    """A process that fits an ensemble, in a group of its own with its workers."""

    def __init__(self, folder, **options):
        self.log, self.out = folder / "log", folder / "out.npz"
        options = {"log": str(self.log), "out": str(self.out)} | options
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), json.dumps(options)],
            env=environment,
            start_new_session=True,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self):
        _, errors = self.process.communicate(timeout=120)
        return self.process.returncode, errors

    def send(self, number):
        os.killpg(self.process.pid, number)

    def result(self):
        with np.load(self.out) as arrays:
            return dict(arrays)

    def n_begun(self):
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


def finished(directory):
    """When each finished member was written."""
    return {path.name: path.stat().st_mtime_ns for path in directory.glob("member-*.zip")}


def wait_for_members(directory, number, fit):
    deadline = time.monotonic() + 60
    while len(finished(directory)) < number:
        assert time.monotonic() < deadline, "no member is finished"
        assert fit.process.poll() is None, fit.wait()
        time.sleep(0.01)


def test_three_kills_and_a_resume_are_an_uninterrupted_run(tmp_path, uninterrupted):
    directory = tmp_path / "run"
    params = {"checkpoint_dir": str(directory)}
    written = {}
    random = np.random.RandomState(0)
    n_finished = 0
    for moment in ("in training", "half written", "just written"):
        n_more = int(random.randint(1, 3))
        fit = Fit(tmp_path, params=params, kill=(n_more, moment))
        assert fit.wait() == (-signal.SIGKILL, "")
        n_finished += n_more
        now = finished(directory)
        assert len(now) == n_finished
        assert written.items() <= now.items()  # what was finished is not touched again
        written = now
    fit = Fit(tmp_path, params=params)
    assert fit.wait() == (0, "")
    assert written.items() <= finished(directory).items()
    # begun: every member once, and those again that were under way when the process was killed
    assert fit.n_begun() == 6 + 2
    assert not list(directory.glob("*.partial"))
    result = fit.result()
    assert_array_equal(result["rates"], uninterrupted.transform(make_spikes()))
    assert_array_equal(result["scores"], uninterrupted.scores_)
    assert_array_equal(result["selected"], uninterrupted.selected_)


def test_a_kill_of_all_workers_loses_no_finished_member(tmp_path, uninterrupted):
    directory = tmp_path / "run"
    params = {"checkpoint_dir": str(directory), "n_jobs": 2}
    fit = Fit(tmp_path, params=params, pause=0.1)
    wait_for_members(directory, 2, fit)
    lock = CheckpointDirectory(directory)
    with pytest.raises(RuntimeError, match=f"in use by process {fit.process.pid} on"):
        lock.locked().__enter__()
    fit.send(signal.SIGKILL)
    fit.wait()
    with lock.locked():  # a lock does not outlive its process
        pass
    written = finished(directory)
    assert 2 <= len(written) < 6
    n_begun = fit.n_begun()
    fit = Fit(tmp_path, params=params | {"n_jobs": 1}, pause=0.1)
    assert fit.wait() == (0, "")
    assert written.items() <= finished(directory).items()
    assert fit.n_begun() - n_begun == 6 - len(written)
    assert_array_equal(fit.result()["rates"], uninterrupted.transform(make_spikes()))


def test_ctrl_c_keeps_finished_members_of_parallel_workers(tmp_path, uninterrupted):
    fit = Fit(tmp_path, params={"n_jobs": 2}, pause=0.1)
    deadline = time.monotonic() + 60
    while fit.n_begun() < 4:  # two are finished, or about to be
        assert time.monotonic() < deadline
        assert fit.process.poll() is None, fit.wait()
        time.sleep(0.01)
    time.sleep(0.1)
    fit.send(signal.SIGINT)  # to the workers too, as a terminal does
    code, errors = fit.wait()
    assert code == 0, errors
    result = fit.result()
    number = len(result["seeds"])
    assert 1 <= number < 6
    assert any(f"interrupted at member {number} of 6" in text for text in result["warned"])
    assert set(result["seeds"]) <= set(uninterrupted.results_["seed"])
    assert np.isfinite(result["rates"]).all()
