"""Files that are complete or do not exist, and locks between processes."""

import errno
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PARTIAL = ".partial"  # end of the name of a file that is being written
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file so that it is complete on disk, or does not exist.

    Parameters
    ----------
    path : Path
        File to write or to replace.
    write : callable
        Called with an open temporary file in the same folder.

    Raises
    ------
    OSError
        If the file cannot be written; the error names it. A file that was there before is kept.
    """
    partial = path.with_name(f"{path.name}{secrets.token_hex(4)}{PARTIAL}")
    try:
        with open(partial, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            # the class of the new error follows from the number
            reason = f"{error.strerror}, so nothing was written"
            raise OSError(error.errno, reason, str(path)) from error
        raise
    if os.name == "posix":  # write the new file name to disk too
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def make_directory(path: Path) -> None:
    """Make a directory, and those above it, unless it exists."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(
            f"checkpoint_dir={str(path)!r} is a file, or in one. Pass a directory, or a new one."
        ) from error


@contextmanager
def locked(
    path: Path, in_use: Callable[[str], Exception], patience: float = 0.0
) -> Iterator[OSError | None]:
    """Lock out other processes and threads, at most until this process ends.

    Parameters
    ----------
    path : Path
        File to lock; it is created.
    in_use : callable
        Makes the error to raise from a description of the process that holds the lock.
    patience : float, default=0.0
        Seconds to wait for another process.

    Yields
    ------
    OSError or None
        Why nothing is locked: the disk cannot be written, and can only be read.
    """
    key = os.path.realpath(path)
    # opening and closing a file that this process has locked would release the lock
    with _held_lock:
        if key in _held:
            raise in_use(f"process {os.getpid()}")
        file, refused = _open(path)
        if file is not None:
            deadline = time.monotonic() + patience
            while not (ours := _try_lock(file)) and time.monotonic() < deadline:
                time.sleep(0.1)
            if not ours:
                file.seek(0, os.SEEK_SET)
                holder = file.read().strip() or "another process"
                file.close()
                raise in_use(holder)
            _held.add(key)
    if file is None:
        yield refused
        return
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield None
    finally:
        with _held_lock:
            _held.discard(key)
            file.close()  # this releases the lock, as does the end of the process


_held: set[str] = set()  # files that this process has locked
_held_lock = threading.Lock()


def _forget_locks() -> None:
    """In a forked process: it holds no lock, and no other thread will release `_held_lock`."""
    global _held_lock
    _held.clear()
    _held_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


def _open(path: Path) -> tuple[IO[str] | None, OSError | None]:
    """Open a file to lock it; if the disk cannot be written, return the error."""
    try:
        return open(path, "a+", encoding="utf-8"), None
    except OSError as error:
        if error.errno in _READ_ONLY:
            return None, error
        raise


def _try_lock(file: IO[str]) -> bool:
    """Lock a file without waiting; the system releases it when the process ends or crashes."""
    try:
        if fcntl is not None:
            # a lock of the process, not of the open file: children do not inherit it
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            file.seek(1 << 30)  # past the text, because Windows makes locked bytes unreadable
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    return True
