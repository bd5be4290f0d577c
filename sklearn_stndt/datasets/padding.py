"""Trials of unequal length as one array, padded with NaN."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_stndt.datasets._checks import as_numbers

__all__ = ["pad_trials"]


def pad_trials(trials: Sequence[Any]) -> NDArray:
    """Put trials of unequal length into one array, with NaN after the end of the shorter ones.

    For counts that are already in bins, and for behaviour in the same bins. Estimators take NaN as
    unknown: it is neither input nor part of a loss or a score.

    Parameters
    ----------
    trials : sequence of array-like, each of shape (n_bins, n_channels) or (n_bins,)
        Counts of each trial with neurons along the last axis, or behaviour. The number of bins may
        differ, the number of channels must not.

    Returns
    -------
    padded : ndarray of shape (n_trials, n_bins, n_channels) or (n_trials, n_bins)
        ``n_bins`` is that of the longest trial. float32 if all trials are of a type that it holds
        exactly, such as uint8; otherwise float64.

    Raises
    ------
    TypeError
        If `trials` is not a sequence.
    ValueError
        If there is no trial, one has no bins, or trials differ in their number of channels.

    See Also
    --------
    bin_trials : Trials of unequal length from spike times.
    bin_signal_trials : The same for sampled signals.

    Examples
    --------
    >>> from sklearn_stndt.datasets import pad_trials
    >>> pad_trials([[[1, 0], [0, 2], [1, 1]], [[0, 3]]])[..., 1]
    array([[ 0.,  2.,  1.],
           [ 3., nan, nan]])
    """
    if isinstance(trials, str) or not hasattr(trials, "__len__"):
        raise TypeError(
            f"trials is a {type(trials).__name__}; pass a list with the array of each trial."
        )
    arrays = [
        as_numbers(trial, f"trials[{i}]", remedy="Pass an array of counts or behaviour.")
        for i, trial in enumerate(trials)
    ]
    if not arrays:
        raise ValueError("trials is empty; pass the array of at least one trial.")
    for i, array in enumerate(arrays):
        if array.ndim not in (1, 2) or not array.size:
            raise ValueError(
                f"trials[{i}] has shape {array.shape}; expected (n_bins, n_channels) or (n_bins,), "
                "with at least one bin."
            )
        if array.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(
                f"trials[0] has shape {arrays[0].shape} and trials[{i}] {array.shape}, but only "
                "the number of bins may differ, which is the first axis. If trials are neurons x "
                "bins, pass [trial.T for trial in trials]."
            )
    dtype = np.result_type(np.float32, *arrays)
    longest = max(map(len, arrays))
    padded = np.full((len(arrays), longest, *arrays[0].shape[1:]), np.nan, dtype=dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return padded
