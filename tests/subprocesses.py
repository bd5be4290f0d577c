"""Processes that tests start: none outlives its test, and none is given up on a slow machine."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

from joblib.externals.loky import get_reusable_executor

LIMIT = 1800.0  # seconds after which a wait counts as a hang, however busy the machine is


@contextmanager
def started(*arguments, **params):
    """Run Python in a session of its own; at the end of the block all its processes are killed."""
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
    """Kill a process, and with it those that it has started."""
    with suppress(ProcessLookupError, PermissionError):  # all of them have ended
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def output_of(*arguments, **params):
    """Run Python to its end and return what it prints."""
    with started(*arguments, **params) as process:
        printed, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
    return printed


def wait_until(condition, process):
    """Wait for what a process is going to do."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def joblib_processes():
    """Kill the worker processes of joblib at the end of the block."""
    try:
        yield
    finally:
        get_reusable_executor(reuse=True).shutdown(kill_workers=True)


# ---- what the processes call


def log_begin(path):
    """Add a line to a log that several processes write, and return its number."""
    line = f"{os.getpid():>10}\n".encode()
    with open(path, "ab", buffering=0) as file:
        file.write(line)
        return file.tell() // len(line)


def wait_to_be_killed():
    """Wait for a signal, but not longer than the parent lives."""
    parent, deadline = os.getppid(), time.monotonic() + LIMIT
    while os.getppid() == parent and time.monotonic() < deadline:
        time.sleep(0.01)
    raise TimeoutError("no process has killed this one")
