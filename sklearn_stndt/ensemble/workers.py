"""Worker processes end with the process that started them."""

import multiprocessing
import os
import threading
import time
from typing import Any

_INTERVAL = 1.0  # seconds between two looks

_watching: int | None = None  # process that looks


def end_with_parent() -> None:
    """Let this process end soon after its parent, even if that is killed.

    Workers of joblib would go on training, and then wait for minutes. Nothing happens in a process
    that neither multiprocessing nor joblib has started.
    """
    global _watching
    parent = multiprocessing.parent_process()
    if parent is None or _watching == os.getpid():
        return
    if not _is_alive(parent):
        os._exit(1)
    _watching = os.getpid()
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: Any) -> None:
    while _is_alive(parent):
        time.sleep(_INTERVAL)
    os._exit(1)


def _is_alive(parent: Any) -> bool:
    try:
        return parent.is_alive()
    except (TypeError, ValueError):  # joblib's processes know only the number of their parent
        return os.getppid() == parent.pid
