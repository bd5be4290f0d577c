"""Worker processes end with the process that started them."""

import multiprocessing
import os
import threading
import time

_INTERVAL = 1.0  # seconds between two looks

_watching: int | None = None  # process that looks


def end_with_parent() -> None:
    """Let this process end soon after its parent, even if that is killed.

    Workers of joblib would go on training, and then wait for five minutes. Nothing happens in a
    process that multiprocessing or joblib did not start, nor on Windows.
    """
    global _watching
    parent = multiprocessing.parent_process()
    if os.name != "posix" or parent is None or _watching == os.getpid():
        return
    if os.getppid() == parent.pid:  # with the method "forkserver", another process is in between
        _watching = os.getpid()
        threading.Thread(target=_watch, args=(parent.pid,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_INTERVAL)
    os._exit(1)
