"""Processes that tests start: each ends with its test, and waits allow for slow machines."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from joblib.externals.loky import get_reusable_executor

LIMIT = 1800.0  # seconds; a longer wait counts as a hang even on a busy machine
SHARED_MEMORY = Path("/dev/shm")


@contextmanager
def started(*arguments, **params):
    """Run Python in a new process group, which is killed at the end of the block."""
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **params,
    ) as process:
        try:
            yield process
        finally:
            kill(process)


def kill(process):
    """Kill a process and those that it has started, with the one that cleans up after joblib."""
    with suppress(ProcessLookupError, PermissionError):  # all of them have ended
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
    if SHARED_MEMORY.is_dir():
        for path in SHARED_MEMORY.iterdir():
            if re.search(rf"[-_]{process.pid}[-_]", path.name):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def output_of(*arguments, **params):
    """Run Python until it ends and return its output."""
    with started(*arguments, **params) as process:
        printed, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
    return printed


def wait_until(condition, process):
    """Wait until a condition holds that a process brings about."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive_in_session(process):
    """Numbers of the processes that are alive of those that a process has started, and its own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue  # it has ended
        if int(session) == process.pid and state != "Z":
            found.append(int(path.parent.name))
    return found


@contextmanager
def joblib_processes():
    """Kill the worker processes of joblib at the end of the block."""
    try:
        yield
    finally:
        get_reusable_executor(reuse=True).shutdown(kill_workers=True)


# ---- functions that the processes call


def log_begin(path):
    """Add a line to a log that several processes write, and return its number."""
    line = f"{os.getpid():>10}\n".encode()
    with open(path, "ab", buffering=0) as file:
        file.write(line)
        return file.tell() // len(line)


def wait_to_be_killed():
    """Wait for a signal, at most as long as the parent process runs."""
    parent, deadline = os.getppid(), time.monotonic() + LIMIT
    while os.getppid() == parent and time.monotonic() < deadline:
        time.sleep(0.01)
    raise TimeoutError("no process has killed this one")
