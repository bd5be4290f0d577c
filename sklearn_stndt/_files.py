"""Files that are complete or do not exist, and locks between processes."""

import errno
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PARTIAL = ".partial"
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file so that it is complete on disk, or does not exist.

    Parameters
    ----------
    path : Path
        The file, which is replaced if it exists. Its permissions are those of any new file.
    write : callable
        Called with an open binary file.

    Raises
    ------
    OSError
        If the file cannot be written; the error names it.
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        with open(partial, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from error
        raise
    if os.name == "posix":  # write the new file name to disk too
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def make_directory(path: Path) -> None:
    """Make a directory, and those above it, unless it exists."""
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(
            f"checkpoint_dir={str(path)!r} is a file. Pass the path of a directory."
        )
    path.mkdir(parents=True, exist_ok=True)


@contextmanager
def locked(path: Path, in_use: Callable[[str], Exception]) -> Iterator[None]:
    """Lock out other processes and threads, at most until this process ends.

    On a disk that cannot be written, nothing is locked: it can only be read.

    Parameters
    ----------
    path : Path
        File to lock; it is created.
    in_use : callable
        Makes the error to raise from a description of the process that holds the lock.
    """
    key = os.path.realpath(path)
    # opening and closing a file that this process has locked would release the lock
    with _held_lock:
        if key in _held:
            raise in_use(f"process {os.getpid()}")
        file = _open(path)
        if file is not None:
            if not _try_lock(file):
                file.seek(0, os.SEEK_SET)
                holder = file.read().strip() or "another process"
                file.close()
                raise in_use(holder)
            _held.add(key)
    try:
        if file is not None:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield
    finally:
        if file is not None:
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


def _open(path: Path) -> IO[str] | None:
    """Open a file to lock it; None on a disk that cannot be written."""
    try:
        return open(path, "a+", encoding="utf-8")
    except OSError as error:
        if error.errno in _READ_ONLY:
            return None
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
