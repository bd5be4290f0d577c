"""Arrays larger than memory: read and written in pieces, with their pages released afterwards."""

import math
import mmap
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

READ_BYTES = 2**26  # bytes read or written, at most, before pages are released
LARGE_RESULT = 2**30  # bytes from which rates of a memory map are written to a file too


def mapping_of(array: NDArray) -> mmap.mmap | None:
    """Memory map that holds the data of an array, or None for an array in memory.

    A copy-on-write map (`mode="c"`) counts as memory: changes to it are not in the file.
    """
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and array.mode == "c":
            return None
        array = array.base
    return array if isinstance(array, mmap.mmap) else None


def let_go(array: NDArray) -> None:
    """Release the pages of a memory map; the file keeps all data, including what was written."""
    mapping = mapping_of(array)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def in_pieces(array: NDArray, n_bytes: int = READ_BYTES) -> Iterator[NDArray]:
    """Iterate over an array in pieces along its first axis.

    Parameters
    ----------
    array : ndarray
        May be a memory map.
    n_bytes : int, default=2**26
        Size of a piece, which has at least one entry along the first axis.

    Yields
    ------
    ndarray
        A view, to be used before the next one is requested.
    """
    length = max(n_bytes // max(array[:1].nbytes, 1), 1)
    for start in range(0, len(array), length):
        yield array[start : start + length]
        let_go(array)


def extremes(array: NDArray) -> tuple[float, float]:
    """Smallest and largest value, ignoring NaN; NaN if there is no other.

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


def empty_rates(X: NDArray, n_columns: int | None = None) -> NDArray:
    """Allocate rates: in memory, or in a temporary file for large memory-mapped counts.

    Parameters
    ----------
    X : ndarray
        The counts.
    n_columns : int or None, default=None
        Length of the last axis; None: that of X.

    Returns
    -------
    ndarray, same shape except for the last axis
        Zeros, of the type of X if it is a float; for integers float64 in memory and, in a file,
        float32, the type in which rates are computed. The file has no name and is deleted with the
        array.

    Raises
    ------
    OSError
        If there is not enough space on the disk.
    """
    shape = X.shape if n_columns is None else (*X.shape[:-1], n_columns)
    size = math.prod(shape)
    dtype: Any = X.dtype if X.dtype.kind == "f" else np.float64
    if mapping_of(X) is None or size * np.dtype(dtype).itemsize < LARGE_RESULT:
        return np.zeros(shape, dtype=dtype)
    dtype = X.dtype if X.dtype.kind == "f" else np.float32
    n_bytes = size * np.dtype(dtype).itemsize
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise OSError(
            f"The rates take {n_bytes / 2**30:.1f} GiB, but {folder} has {free / 2**30:.1f} GiB "
            "left. Set TMPDIR to a folder on a larger disk, or transform X in parts."
        )
    with tempfile.TemporaryFile(dir=folder, prefix="rates-") as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
