"""Warnings of common mistakes in X, which no check of values refuses."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIRST_ROWS = 4096  # looked at, so that a memory map is not read as a whole
MANY_COLUMNS = 200  # from which more neurons than bins look like a transposed recording
FEWEST_ROWS = 20  # in which a column that always rises is a clock
FEWEST_SPIKES = 50  # entries above 0 from which their values say something
SMALLEST_FACTOR = 5  # of all counts: no bin is wider than 200 ms
MOST_NAMES = 10  # in a message
TOLERANCE = 1e-6  # relative, of whole numbers that were multiplied and divided


def warn_of_mistakes(
    X: NDArray, names: Sequence[Any] | None = None, *, counts: bool, stacklevel: int
) -> None:
    """Warn if X looks transposed, has a clock among its neurons, or holds no counts.

    Parameters
    ----------
    X : ndarray of shape (n_bins, n_neurons) or (n_trials, n_bins, n_neurons)
        Checked values, NaN where hidden.
    names : sequence of str, default=None
        Names of the neurons.
    counts : bool
        Whether the likelihood is of spike counts.
    stacklevel : int
        As in :func:`warnings.warn`, of the caller.
    """
    rows = X.reshape(-1, X.shape[-1])[:FIRST_ROWS]
    mistakes = []
    if X.ndim == 2:
        mistakes += [_transposed(X), _clock(rows, names)]
    if counts:
        of_columns = "" if X.ndim == 3 or any(mistakes) else _other_columns(rows, names)
        mistakes.append(of_columns or _no_counts(rows))
    for mistake in mistakes:
        if mistake:
            warnings.warn(mistake, UserWarning, stacklevel=stacklevel + 1)


def _transposed(X: NDArray) -> str:
    n_bins, n_neurons = X.shape
    if n_neurons < MANY_COLUMNS or n_bins >= n_neurons:
        return ""
    return (
        f"X has {n_bins:,} rows, which are bins, and {n_neurons:,} columns, which are neurons. "
        "More neurons than bins are rare: is X transposed? Then pass X.T."
    )


def _clock(rows: NDArray, names: Sequence[Any] | None) -> str:
    if len(rows) < FEWEST_ROWS or rows.dtype.kind == "b":
        return ""
    rising = np.flatnonzero((rows[1:] > rows[:-1]).all(0))
    if not len(rising):
        return ""
    column = rising[0] if names is None else repr(names[rising[0]])
    return (
        f"Column {column} of X rises from every row to the next, as a clock does, and is taken for "
        "a neuron. Leave it out of X."
    )


def _other_columns(rows: NDArray, names: Sequence[Any] | None) -> str:
    """Columns without whole numbers, such as a velocity, among those with counts."""
    if rows.dtype.kind != "f":
        return ""
    positive = rows > 0  # False for NaN
    broken = positive & (np.abs(rows - np.rint(rows)) > TOLERANCE * np.maximum(rows, 1))
    found = np.flatnonzero((broken.sum(0) >= FEWEST_SPIKES) & (broken.sum(0) > positive.sum(0) / 2))
    if not len(found) or 2 * len(found) >= rows.shape[1]:
        return ""
    listed = [int(i) if names is None else names[i] for i in found[:MOST_NAMES]]
    more = f" and {len(found) - MOST_NAMES} more" if len(found) > MOST_NAMES else ""
    return (
        f"Columns {listed}{more} of X hold no whole numbers, unlike the others, and are taken for "
        "neurons. If they are behaviour, leave them out of X."
    )


def _no_counts(rows: NDArray) -> str:
    if rows.dtype.kind == "b":
        return ""
    spikes = rows[rows > 0]
    if len(spikes) < FEWEST_SPIKES:
        return ""
    whole = np.rint(spikes)
    is_whole = np.abs(spikes - whole) <= TOLERANCE * np.maximum(spikes, 1)
    if is_whole.mean() < 0.5:
        return (
            f"Most values in X are not whole numbers, such as {spikes[~is_whole][0]:g}, but spike "
            "counts per bin are expected. Multiply rates in Hz by the bin width in seconds; bin "
            "spike times with sklearn_stndt.datasets.bin_spikes; do not smooth or scale counts; "
            'and for signals such as dF/F, set likelihood="gaussian".'
        )
    factor = np.gcd.reduce(whole.astype(np.int64)) if is_whole.all() else 1
    if factor >= SMALLEST_FACTOR:
        return (
            f"All values in X are multiples of {factor}, so they look like rates in Hz (of bins of "
            f"{1 / factor:.3g} s). Pass spike counts per bin: X / {factor}."
        )
    return ""
