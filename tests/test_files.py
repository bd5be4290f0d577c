"""Files are complete or do not exist, and one process at a time has a lock."""

import errno
import os
import stat
import sys
import threading

import pytest
from subprocesses import output_of

from sklearn_stndt import _files
from sklearn_stndt._files import locked, write_atomically

posix = pytest.mark.skipif(os.name != "posix", reason="permissions and forks of POSIX")


def test_files_are_written_atomically(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"first"))

    def fail(file):
        file.write(b"sec")
        raise ValueError("cannot be pickled")

    with pytest.raises(ValueError, match="cannot be pickled"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_the_disk_names_the_file(tmp_path):
    path = tmp_path / "file"

    def fail(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"No space left.*nothing was written.*file'") as caught:
        write_atomically(path, fail)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


@posix
def test_files_have_the_usual_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", lambda file: file.write(b"text"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def in_use(holder):
    return RuntimeError(f"in use by {holder}")


def test_a_lock_is_held_by_one_thread_at_a_time(tmp_path):
    path, errors = tmp_path / "lock", []

    def enter():
        try:
            with locked(path, in_use):
                pass
        except RuntimeError as error:
            errors.append(str(error))

    with locked(path, in_use) as refused:
        assert refused is None
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert errors == [f"in use by process {os.getpid()}"]
    enter()
    assert len(errors) == 1


def test_nothing_is_locked_on_a_disk_that_can_only_be_read(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("builtins.open", refuse)
    with locked(tmp_path / "lock", in_use) as refused:
        assert refused.errno == errno.EROFS


@posix
def test_a_fork_holds_no_lock_of_its_parent(tmp_path):
    # the child must not wait for a thread that it does not have
    script = """
import os, sys
from pathlib import Path
from sklearn_stndt import _files
path = Path(sys.argv[1])
def in_use(holder):
    return RuntimeError(holder)
with _files.locked(path / "parent", in_use), _files._held_lock:
    child = os.fork()
    if child == 0:
        try:
            with _files.locked(path / "child", in_use):
                pass
            with _files.locked(path / "parent", in_use):
                pass
        except RuntimeError as error:
            print(error, flush=True)
        os._exit(0)
    print(os.waitpid(child, 0)[1], os.getpid())
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    holder, ended = output_of("-c", script, str(tmp_path), env=environment).splitlines()
    status, pid = ended.split()
    assert status == "0"
    assert holder.startswith(f"process {pid} on ")


def test_the_lock_works_without_posix_locks(tmp_path, monkeypatch):
    calls = []

    class Msvcrt:
        LK_NBLCK = 2

        @staticmethod
        def locking(handle, mode, number):
            calls.append((mode, number))
            if len(calls) > 1:
                raise OSError("in use")

    monkeypatch.setattr(_files, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", Msvcrt)
    with locked(tmp_path / "lock", in_use):
        pass
    with pytest.raises(RuntimeError, match="in use"):
        locked(tmp_path / "lock", in_use).__enter__()
    assert calls == [(2, 1), (2, 1)]
