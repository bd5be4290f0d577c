"""Segments for tests of windows, splitting and inference."""

import numpy as np
from hypothesis import strategies as st

from sklearn_stndt.windows.segments import Segments, as_segments

lengths_of_segments = st.lists(st.integers(1, 30), min_size=1, max_size=6)


def numbered(n_rows, n_neurons=2, dtype=np.float32):
    """Rows that all differ, so that a row can be found again."""
    return np.arange(n_rows * n_neurons).reshape(n_rows, n_neurons).astype(dtype)


def segments_of(lengths, n_neurons=2):
    """Consecutive segments of numbered rows."""
    stops = np.cumsum(lengths)
    return Segments(numbered(stops[-1], n_neurons), stops - lengths, stops)


def padded_and_not(trials, lengths):
    """Trials of unequal length, padded with NaN, and the same as rows with groups."""
    trials = trials.copy()
    for trial, length in zip(trials, lengths, strict=True):
        trial[length - 1] = np.nan_to_num(trial[length - 1])
        trial[length:] = np.nan
    rows = np.concatenate([trial[:length] for trial, length in zip(trials, lengths, strict=True)])
    return as_segments(trials), as_segments(rows, np.repeat(np.arange(len(lengths)), lengths))
