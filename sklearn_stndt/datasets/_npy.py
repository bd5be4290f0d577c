"""Read the .npy files of other programs without running what they contain.

suite2p keeps its settings as a pickled dictionary, and unpickling can run any code. `read_setting`
reads a number out of such a file: no class or function that the file names is ever imported, and
one that does not belong in a dictionary of settings is an error.
"""

import io
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from sklearn_stndt.datasets._checks import check_memory, reading

# As pickle names them; the numpy of the file may be older or newer than ours.
_ARRAYS = {
    (f"numpy{core}.{module}", name)
    for core in (".core", "._core")
    for module, name in (
        ("multiarray", "_reconstruct"),
        ("numeric", "_frombuffer"),
    )
} | {("numpy", "ndarray")}
_SCALARS = {(f"numpy{core}.multiarray", "scalar") for core in (".core", "._core")}
_OTHER = {
    *(("builtins", name) for name in ("set", "frozenset", "complex", "bytearray", "slice")),
    *(("__builtin__", name) for name in ("set", "frozenset", "complex", "bytearray", "slice")),
    *(
        (module, name)
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path")
    ),
    *(("datetime", name) for name in ("datetime", "date", "time", "timedelta")),
}
_MOST_TUPLES = 20_000
_TYPES = {"f8", "f4", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1"}


def open_array(path: Path, ndim: tuple[int, ...], meaning: str) -> NDArray:
    """Return an array of numbers that stays on disk, after checking that the file holds it."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Check the path.")
    with path.open("rb") as file:
        shape, dtype = _header(file, path)
        n_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
        n_left = path.stat().st_size - file.tell()
    if dtype.kind not in "biuf" or len(shape) not in ndim:
        raise ValueError(
            f"{path} is an array of {dtype} of shape {shape}; expected {meaning}. Is it the file "
            "of another program?"
        )
    if n_bytes > n_left:
        raise ValueError(
            f"{path} should hold an array of shape {shape}, but ends after {n_left:,} of "
            f"{n_bytes:,} bytes. Copy or write it again."
        )
    if not n_bytes:
        return np.zeros(shape, dtype)
    with reading(str(path)):
        return np.load(path, mmap_mode="r", allow_pickle=False)


def read_setting(path: Path, key: str, remedy: str) -> float | None:
    """Return a number from a dictionary in a .npy file; None if it has no such number.

    Parameters
    ----------
    path : Path
        File, whose content is a pickled dictionary, as ``np.save`` writes it.

    key : str
        Key of the number.

    remedy : str
        What a user does in place of reading the file, for errors.
    """
    with path.open("rb") as file:
        shape, dtype = _header(file, path)
        if shape != () or not dtype.hasobject:
            raise ValueError(
                f"{path} is an array of {dtype} of shape {shape}; expected a dictionary of "
                f"settings. {remedy}"
            )
        n_bytes = path.stat().st_size - file.tell()
        check_memory(4 * n_bytes, f"{path}", remedy)
        content = file.read()
    with reading(str(path)):
        _check_operations(content, path, remedy)
        settings = _Unpickler(io.BytesIO(content), path, remedy).load()
    if isinstance(settings, _Array) and len(settings.content) == 1:  # of no dimension
        settings = settings.content[0]
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds no dictionary of settings. {remedy}")
    value = settings.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def _header(file: Any, path: Path) -> tuple[tuple[int, ...], np.dtype]:
    with reading(str(path)):
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
    return shape, dtype


# -- pickles ----------


def _check_operations(content: bytes, path: Path, remedy: str) -> None:
    """Raise an error if a pickle is incomplete, refers to what it lacks, or could be too deep.

    Python computes the hash of a key recursively, and tuples within tuples would fill its stack.
    """
    n_tuples = 0
    for operation, _, _ in pickletools.genops(content):
        n_tuples += "TUPLE" in operation.name or operation.name == "FROZENSET"
        if n_tuples > _MOST_TUPLES:
            raise ValueError(f"{path} holds more than {_MOST_TUPLES:,} tuples. {remedy}")
        if operation.name.startswith(("EXT", "PERSID", "BINPERSID", "NEXT_BUFFER")):
            raise ValueError(
                f"{path} refers to what is not in the file ({operation.name}). {remedy}"
            )


class _Ignored:
    """What stands for an object of the file that is not needed."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        """Leave the content where it is."""


class _Array:
    """Keeps the objects in an array of objects; of other arrays, nothing."""

    __slots__ = ("content",)

    def __init__(self, *_: Any) -> None:
        self.content: list[Any] = []

    def __setstate__(self, state: Any) -> None:
        """Keep the list of objects, which comes last."""
        if isinstance(state, tuple) and state and isinstance(state[-1], list):
            self.content = state[-1]


class _Make:
    """Stands for a class or function of the file."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        """Stay as it is."""


class _DType:
    """Type of a number."""

    __slots__ = ("name",)

    def __init__(self, name: Any) -> None:
        self.name = name if isinstance(name, str) else ""

    def __setstate__(self, state: Any) -> None:
        """Leave the byte order, which is that of nearly all machines."""


def _encoded(text: Any, encoding: Any = "latin1") -> Any:
    """Return bytes, which old versions of pickle write as text."""
    return text.encode("latin1") if isinstance(text, str) else _Ignored()


def _scalar(dtype: Any, content: Any = b"") -> Any:
    """Return a number of numpy, or what stands for anything else."""
    if not (isinstance(dtype, _DType) and isinstance(content, bytes) and dtype.name in _TYPES):
        return _Ignored()
    known = np.dtype("<" + dtype.name)
    return np.frombuffer(content, known)[0].item() if len(content) == known.itemsize else _Ignored()


def _ignored(*args: Any) -> _Ignored:
    return _Ignored()


# The implementation in Python: that in C takes memory for a table as large as a file says.
class _Unpickler(pickle._Unpickler):
    """Reads dictionaries, lists, tuples, text and numbers; imports nothing."""

    def __init__(self, file: Any, path: Path, remedy: str) -> None:
        super().__init__(file, encoding="latin1")
        self._where = path
        self._remedy = remedy

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a class or function; it is not imported."""
        found = (module, name)
        if found == ("_codecs", "encode"):
            return _Make(_encoded)
        if found == ("numpy", "dtype"):
            return _Make(lambda name="", *_: _DType(name))
        if found in _SCALARS:
            return _Make(_scalar)
        if found == ("collections", "OrderedDict"):
            return _Make(lambda *_: {})
        if found in _ARRAYS:
            return _Make(_Array)
        if found in _OTHER:
            return _Make(_ignored)
        raise ValueError(
            f"{self._where} names {module}.{name}, which does not belong in a file of settings "
            f"and could run code. Nothing was run. {self._remedy}"
        )
