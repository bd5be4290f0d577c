"""Kill fits at random moments, fit again, and compare with fits that were not killed.

    python benchmarks/kills.py [--fits single ensemble] [--kills 200] [--n-jobs 1]

Each fit runs in a fork of this process, so that its imports take no part; with `--n-jobs 2`,
workers still have to start, which takes most of the time. Moments are spread evenly over the time
that an uninterrupted fit takes, every second one over the time after its first finished epoch (or
member of an ensemble). Checkpoints are written after every epoch, not every few seconds, so that
kills hit writing as well. After each kill the same fit runs again to its end. One that has not
ended after twenty times the time of an uninterrupted one hangs; what its processes are doing is
printed, and they are killed.

Columns: seconds of an uninterrupted fit; kills; those after the first finished epoch or member;
fits that continued from a file of the killed one; fits with the same bits (weights, history,
rates); fits that hung; fits that left files behind, in their directory (other names than without a
kill), the temporary directory or shared memory; kills after which a process of the fit was alive
ten seconds later; seconds a kill, with all that follows it.
"""

import argparse
import faulthandler
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
from joblib.externals.loky import get_reusable_executor

from sklearn_stndt import BaggingEnsemble, STNDTEstimator
from sklearn_stndt.datasets import make_reaches
from sklearn_stndt.training import checkpointing

SPIKES = make_reaches(n_trials=24, n_bins=20, n_neurons=12, random_state=0).spikes
ORPHANED = 10  # seconds after a kill
HANGING = 20  # times of an uninterrupted fit, and at least a minute
SHARED_MEMORY = Path("/dev/shm")


def single(directory, n_jobs):
    """One network."""
    return STNDTEstimator(
        d_model=8,
        n_heads=2,
        max_epochs=30,
        n_iter_no_change=30,
        random_state=0,
        checkpoint_dir=directory,
    )


def ensemble(directory, n_jobs):
    """An ensemble of four, whose members also continue."""
    member = STNDTEstimator(d_model=8, n_heads=2, max_epochs=15, checkpoint_dir=directory)
    return BaggingEnsemble(
        member, 4, n_best=2, n_jobs=n_jobs, random_state=0, checkpoint_dir=directory
    )


def networks(estimator):
    """All networks of a fitted estimator."""
    return [estimator] if isinstance(estimator, STNDTEstimator) else list(estimator)


def digest(estimator):
    """Hash of the weights, the history without times, and the rates."""
    parts = hashlib.sha256()
    for network in networks(estimator):
        for values in network.net_.module_.state_dict().values():
            parts.update(np.ascontiguousarray(values.numpy()))
        rows = [{k: v for k, v in row.items() if k != "dur"} for row in network.history_]
        parts.update(json.dumps(rows).encode())
    parts.update(np.ascontiguousarray(estimator.transform(SPIKES)))
    return parts.hexdigest()


def start(make, directory, n_jobs):
    """Fit in a fork, the first process of a new session; its digest is written beside."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        faulthandler.enable()
        estimator = make(directory / "run", n_jobs).fit(SPIKES)
        (directory / "digest").write_text(digest(estimator))
        if n_jobs > 1:
            get_reusable_executor().shutdown()
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def wait(child):
    """Wait for the end of a fit; return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def has_ended(child):
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def wait_until(condition, child, seconds):
    """Wait until a condition holds or a fit has ended; return whether it hangs."""
    deadline = time.monotonic() + max(60, seconds)
    while not condition() and not has_ended(child):
        if time.monotonic() > deadline:
            end_hanging(child)
            return True
        time.sleep(0.005)
    return False


def end_hanging(child):
    """Print where the processes of a fit wait, and end them."""
    for pid in session(child):
        process = Path("/proc", str(pid))
        command = process.joinpath("cmdline").read_text().replace("\0", " ")[-100:]
        if "resource_tracker" in command:
            continue  # it ends after the others, and cleans up after them
        where = process.joinpath("wchan").read_text()
        print(f"\n{pid} hangs in {where}: ... {command}", file=sys.stderr, flush=True)
        os.kill(pid, signal.SIGABRT)  # faulthandler prints the stacks of all threads
        time.sleep(1)


def n_finished(make, directory):
    """Finished epochs of the training, or finished members of the ensemble."""
    run = directory / "run"
    if make is ensemble:
        return len(list(run.glob("member-*.zip")))
    for path in run.glob("training-*.zip"):
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("record.json"))["n_epochs"]
    return 0


def names(directory):
    return sorted(path.name for path in (directory / "run").iterdir())


def session(leader):
    """Processes of a session that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue  # it has ended
        if int(of) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found


def in_shared_memory():
    """Names in shared memory."""
    return {path.name for path in SHARED_MEMORY.iterdir()} if SHARED_MEMORY.exists() else set()


def left_in_shared_memory(pid, before):
    """Names that a process of this id has left; those from `before` are of others."""
    return sorted(
        name for name in in_shared_memory() - before if f"-{pid}-" in name.replace("_", "-")
    )


class Trials:
    """Kills and what came of them."""

    def __init__(self, make, n_jobs, folder):
        self.make = make
        self.n_jobs = n_jobs
        self.folder = folder
        self.counts = dict.fromkeys(["kills", "after first", "continued", "same bits"], 0)
        self.left, self.orphans, self.hung, self.moments = [], [], [], []
        self.killed, self.ended = [], []  # fits, with the time
        self.random = np.random.RandomState()
        self.before = in_shared_memory()  # ids of processes return
        make(None, 1).fit(SPIKES)  # what is computed once is then known to all forks
        begun, whole = time.monotonic(), self.directory("whole")
        child = start(make, whole, n_jobs)
        wait_until(lambda: n_finished(make, whole), child, np.inf)
        self.first = time.monotonic() - begun  # seconds to the first epoch or member
        assert wait(child) == 0
        self.seconds = time.monotonic() - begun
        self.expected = (folder / "whole" / "digest").read_text()
        self.names = names(folder / "whole")

    def directory(self, name):
        path = self.folder / name
        path.mkdir()
        return path

    def wait_until(self, condition, child):
        """Wait for a fit, and note whether it hangs."""
        hangs = wait_until(condition, child, HANGING * self.seconds)
        if hangs:
            self.hung.append(child)
        return hangs

    def kill(self, number, share):
        """Kill a fit after a share of its time, and fit again; repeat if it has ended before."""
        while True:
            directory = self.directory(f"{number}-{time.monotonic_ns()}")
            child = start(self.make, directory, self.n_jobs)
            seconds = self.seconds
            if number % 2:
                if self.wait_until(lambda at=directory: n_finished(self.make, at), child):
                    wait(child)
                    self.counts["kills"] += 1
                    return
                seconds -= self.first
            deadline = time.monotonic() + share * seconds
            while time.monotonic() < deadline and not has_ended(child):
                time.sleep(0.001)
            os.kill(child, signal.SIGKILL)  # without effect on a process that has just ended
            if wait(child) == -signal.SIGKILL:
                break
            share *= self.random.uniform()
        killed = time.monotonic()
        finished = n_finished(self.make, directory)
        self.moments.append(finished)
        self.counts["kills"] += 1
        self.counts["after first"] += finished > 0
        self.counts["continued"] += any((directory / "run").glob("*.zip"))
        again = start(self.make, directory, self.n_jobs)
        self.wait_until(lambda: False, again)
        code = wait(again)
        same = code == 0 and (directory / "digest").read_text() == self.expected
        self.counts["same bits"] += same
        left = set(names(directory)) ^ set(self.names)
        temporary = os.listdir(tempfile.gettempdir())
        left |= {name for name in temporary if not name.startswith("torchinductor_")}  # of torch
        if left:
            self.left.append(sorted(left))
        self.killed.append((child, killed))
        self.ended += [(child, killed), (again, time.monotonic())]
        self.check_orphans()

    def check_orphans(self):
        """Look for processes and shared memory of fits that ended long enough ago."""
        while self.killed and time.monotonic() > self.killed[0][1] + ORPHANED:
            leader, _ = self.killed.pop(0)
            alive = session(leader)
            if alive:
                self.orphans.append(leader)
                for pid in alive:
                    os.kill(pid, signal.SIGKILL)
        while self.ended and time.monotonic() > self.ended[0][1] + ORPHANED:
            shared = left_in_shared_memory(self.ended.pop(0)[0], self.before)
            if shared:
                self.left.append(shared)

    def end(self):
        while self.ended:
            time.sleep(1)
            self.check_orphans()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fits", nargs="+", default=["single", "ensemble"])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--n-jobs", type=int, default=1, help="of the ensemble")
    options = parser.parse_args()
    torch.set_num_threads(1)  # threads do not survive a fork
    warnings.simplefilter("ignore")
    os.environ["PYTHONFAULTHANDLER"] = "1"  # of workers
    os.environ["PYTHONWARNINGS"] = "ignore"  # joblib says what it removes after a kill
    checkpointing.INTERVAL, checkpointing.WRITING_SHARE = 0.0, np.inf
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        temporary = Path(folder, "tmp")
        temporary.mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)  # of the fits
        print(f"{'fits':<10}{'seconds':>9}{'kills':>7}{'after first':>13}{'continued':>11}", end="")
        print(f"{'same bits':>11}{'hung':>6}{'left files':>12}{'orphans':>9}{'s a kill':>10}")
        for name in options.fits:
            trials = Trials(
                {"single": single, "ensemble": ensemble}[name],
                options.n_jobs,
                Path(tempfile.mkdtemp(dir=folder)),
            )
            begun = time.monotonic()
            shares = (trials.random.permutation(options.kills) + 0.5) / options.kills
            for number, share in enumerate(shares):
                trials.kill(number, share)
                if number % 10 == 9:
                    seconds = time.monotonic() - begun
                    print(f"{name}: {number + 1} kills in {seconds:.0f} s", file=sys.stderr)
            trials.end()
            counts = trials.counts
            print(
                f"{name:<10}{trials.seconds:>9.1f}{counts['kills']:>7}{counts['after first']:>13}",
                end="",
            )
            print(
                f"{counts['continued']:>11}{counts['same bits']:>11}{len(trials.hung):>6}"
                f"{len(trials.left):>12}{len(trials.orphans):>9}"
                f"{(time.monotonic() - begun) / options.kills:>10.1f}"
            )
            what = "epochs" if name == "single" else "members"
            edges = np.percentile(trials.moments, [0, 25, 50, 75, 100]).round(1).tolist()
            print(f"  finished {what} at the kill: minimum, quartiles, maximum {edges}")
            for left in trials.left[:3]:
                print(f"  left: {left}")


if __name__ == "__main__":
    main()
