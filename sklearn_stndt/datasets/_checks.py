"""Checks of arguments and of arrays in files, shared by the modules of this package."""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray


def check_count(value, name, *, minimum=1):
    """Raise an error unless `value` is an integer of at least `minimum`."""
    if isinstance(value, bool | np.timedelta64) or not isinstance(value, Integral):
        raise TypeError(
            f"{name} must be an integer, got {value!r} of type {type(value).__name__}. "
            f"Pass a whole number of at least {minimum}."
        )
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}.")
    if int(value) > sys.maxsize:
        raise ValueError(f"{name} must be a number of things that fit into memory, got {value}.")


def check_number(value, name, *, above=None, at_least=None, at_most=None):
    """Raise an error unless `value` is a finite number in the given range."""
    limits = {"above": above, "at least": at_least, "at most": at_most}
    wanted = "finite, " + " and ".join(f"{k} {v:g}" for k, v in limits.items() if v is not None)
    if isinstance(value, bool | np.timedelta64) or not isinstance(value, Real):
        raise TypeError(
            f"{name} must be a number, got {value!r} of type {type(value).__name__}. "
            f"Pass a number that is {wanted}."
        )
    inside = (
        _is_finite(value)
        and (above is None or value > above)
        and (at_least is None or value >= at_least)
        and (at_most is None or value <= at_most)
    )
    if not inside:
        raise ValueError(f"{name} must be {wanted}, got {value!r}.")


def _is_finite(value):
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def check_rates(rates, params):
    """Raise an error unless numbers of spikes can be drawn at these rates."""
    largest = np.max(rates)
    if not largest < 2**53:
        raise ValueError(
            f"The rates reach {largest:g} spikes per bin, which cannot be drawn. Lower one of "
            f"{params}."
        )


# -- arrays of a file, or of a dictionary in its place ----------


@contextmanager
def reading(file: str, what: str = "") -> Iterator[None]:
    """Turn whatever fails in a library while a file is read into an error that names it.

    Errors that name the file already, and warnings that are errors, pass unchanged.
    """
    try:
        yield
    except MemoryError as error:
        raise ValueError(
            f"{file}: {what or 'it'} needs more memory than there is ({error}). Read less of it."
        ) from error
    except Warning:
        raise
    except Exception as error:
        if str(error).startswith(file):
            raise
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise ValueError(
            f"{file}: {what or 'it'} cannot be read ({reason}). The file is damaged, or was "
            "written by a program that keeps to another format. Download or write it again."
        ) from error


def as_numbers(
    values: Any,
    where: str,
    shape: tuple[int | str | None, ...] | None = None,
    *,
    meaning: str = "numbers",
    at_least: float | None = None,
    finite: bool = False,
    remedy: str = "Write the file again.",
) -> NDArray:
    """Return an array of real numbers after checking it; NaN is allowed unless `finite`.

    Parameters
    ----------
    values : array-like
        As read from a file, or as the user passed it.

    where : str
        File and key, with which an error starts.

    shape : tuple of int, str or None, default=None
        Expected shape; a name, or None, in it stands for any length.

    meaning : str, default="numbers"
        What is expected, for errors.

    at_least : float, default=None
        Smallest value that is possible.

    finite : bool, default=False
        Whether NaN is an error too; infinite values always are.

    remedy : str, default="Write the file again."
        What to do.
    """
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} is no array of {meaning} ({error}). {remedy}") from error
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise ValueError(
            f"{where} is {array.dtype} of shape {array.shape}; expected {meaning}. {remedy}"
        )
    if shape is not None and (
        array.ndim != len(shape)
        or any(
            isinstance(want, int) and have != want
            for have, want in zip(array.shape, shape, strict=True)
        )
    ):
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        wanted += "," if len(shape) == 1 else ""
        raise ValueError(
            f"{where} has shape {array.shape}; expected {meaning} of shape ({wanted}). {remedy}"
        )
    if array.dtype.kind == "f" and array.size:
        bad = np.isinf(array) if not finite else ~np.isfinite(array)
        if bad.any():
            raise ValueError(
                f"{where} is {'NaN or ' if finite else ''}infinite in {np.count_nonzero(bad):,} of "
                f"{array.size:,} entries; expected {meaning}. {remedy}"
            )
    if at_least is not None and array.size:
        low = np.count_nonzero(array < at_least)
        if low:
            raise ValueError(
                f"{where} is below {at_least:g} in {low:,} of {array.size:,} entries, the lowest "
                f"is {np.nanmin(array):g}; expected {meaning}. {remedy}"
            )
    return array


def as_flags(values: Any, where: str, *, remedy: str = "Write the file again.") -> NDArray:
    """Return an array of bool after checking that it is one, or holds 0 and 1 alone."""
    array = as_numbers(values, where, meaning="True and False", finite=True, remedy=remedy)
    if array.dtype != bool:
        other = array[(array != 0) & (array != 1)]
        if other.size:
            raise ValueError(
                f"{where} holds {other.flat[0]:g}; expected True and False, or 1 and 0. {remedy}"
            )
    return array.astype(bool)


def as_indices(
    values: Any, where: str, n: int, *, remedy: str = "Write the file again."
) -> NDArray[np.intp]:
    """Return whole numbers from 0 to `n` - 1, in one dimension."""
    array = as_numbers(values, where, ("n",), meaning="whole numbers", finite=True, remedy=remedy)
    if array.dtype == bool or (array.dtype.kind == "f" and (array != np.rint(array)).any()):
        raise ValueError(f"{where} is {array.dtype}; expected whole numbers. {remedy}")
    outside = array[(array < 0) | (array >= n)]
    if outside.size:
        raise ValueError(
            f"{where} holds {outside[0]:g}; expected whole numbers from 0 to {n - 1}. {remedy}"
        )
    return array.astype(np.intp)


# -- memory ----------


def size_of(n_bytes: float) -> str:
    """Return a number of bytes as text, such as "1.5 GiB"."""
    size, unit = float(n_bytes), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:,.3g} {unit}" if size < 1000 else f"{size:,.0f} {unit}"


def largest_size() -> int:
    """Bytes of memory that this machine has, or 64 GiB where that is not known."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return 2**36


def check_memory(n_bytes: float, what: str, remedy: str) -> None:
    """Raise an error if an array of `n_bytes` does not fit into the memory of this machine."""
    if n_bytes > largest_size():
        raise ValueError(
            f"{what} would take {size_of(n_bytes)} of memory, and this machine has "
            f"{size_of(largest_size())}. {remedy}"
        )
