"""Worker processes end with the process that started them."""

import multiprocessing
import os
import threading
import time
from copy import copy
from typing import Any

from joblib.parallel import BACKENDS, get_active_backend

_INTERVAL = 1.0  # seconds between two looks

_Loky: Any = BACKENDS["loky"]  # the default backend of joblib

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


class _EndingWithParent(_Loky):
    """Backend of joblib whose workers end with their parent, also before their first task.

    A worker whose parent is killed while it sends a task waits for the rest of it for ever: the
    other workers keep the pipe open.
    """

    def configure(self, *args: Any, **params: Any) -> int:
        n_workers = super().configure(*args, **params)
        # not the parameter `initializer`: joblib ends running workers when it changes, which
        # another thread may be using
        executor = self._workers
        if getattr(executor, "_initializer", end_with_parent) is None:
            executor._initializer = end_with_parent
        return n_workers


def backend_for_workers() -> Any:
    """Backend to pass to :class:`joblib.Parallel`, so that workers end with this process.

    Returns
    -------
    backend : ParallelBackendBase or None
        None: the active backend is not joblib's default one, and is used as it is.
    """
    active, _ = get_active_backend()
    if type(active) is not _Loky:
        return None
    backend = copy(active)
    backend.__class__ = _EndingWithParent
    return backend
