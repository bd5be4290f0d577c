"""Arrays larger than memory: read and written piece by piece, and let go of afterwards."""

import mmap
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

READ_BYTES = 2**26  # read or written, at most, before what was touched is let go of
LARGE_RESULT = 2**30  # bytes from which rates of a memory map go to a file themselves


def mapping_of(array: NDArray) -> mmap.mmap | None:
    """File behind an array, or None where it lies in memory.

    A private copy (`mode="c"`) counts as memory: what was written to it is nowhere else.
    """
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and array.mode == "c":
            return None
        array = array.base
    return array if isinstance(array, mmap.mmap) else None


def let_go(array: NDArray) -> None:
    """Drop the pages of a memory map from this process; the file, and what is written, stay."""
    mapping = mapping_of(array)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def in_pieces(array: NDArray, n_bytes: int = READ_BYTES) -> Iterator[NDArray]:
    """Go through an array in pieces along its first axis.

    Parameters
    ----------
    array : ndarray
        May be a memory map.
    n_bytes : int, default=2**26
        Size of a piece, if an entry along the first axis is not larger.

    Yields
    ------
    ndarray
        A view, to be used before the next one is asked for.
    """
    length = max(n_bytes // max(array[:1].nbytes, 1), 1)
    for start in range(0, len(array), length):
        yield array[start : start + length]
        let_go(array)


def extremes(array: NDArray) -> tuple[float, float]:
    """Smallest and largest value, NaN left out; NaN if there is no other.

    Parameters
    ----------
    array : ndarray
        May be a memory map.
    """
    smallest = largest = np.nan
    for piece in in_pieces(array):
        smallest = np.fmin(smallest, np.fmin.reduce(piece, axis=None))
        largest = np.fmax(largest, np.fmax.reduce(piece, axis=None))
    return smallest, largest


def empty_rates(X: NDArray) -> NDArray:
    """Make room for rates: in memory, or in a temporary file if counts come from one and are many.

    Parameters
    ----------
    X : ndarray
        The counts.

    Returns
    -------
    ndarray, same shape
        Zeros: float32 or float64 as X is; for integers float64 in memory and float32, as which
        rates are computed, in a file. A memory map is of a file without a name, which is gone
        when the array is.

    Raises
    ------
    OSError
        If there is no room on the disk.
    """
    dtype: Any = X.dtype if X.dtype.kind == "f" else np.float64
    if mapping_of(X) is None or X.size * np.dtype(dtype).itemsize < LARGE_RESULT:
        return np.zeros(X.shape, dtype=dtype)
    dtype = X.dtype if X.dtype.kind == "f" else np.float32
    n_bytes = X.size * np.dtype(dtype).itemsize
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise OSError(
            f"The rates take {n_bytes / 2**30:.1f} GiB, and {folder} has {free / 2**30:.1f} GiB "
            "left. Set TMPDIR to a folder on a larger disk, or transform X in parts."
        )
    with tempfile.TemporaryFile(dir=folder, prefix="rates-") as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=X.shape)
