"""Intervals of time in which a recording is known."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Files round times to microseconds, and pynapple leaves one between touching epochs.
CLOCK = 1e-6  # s


def merge_intervals(intervals: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return the union of intervals, (n_intervals, 2), s, in order and disjoint.

    Intervals may be unordered, nested or overlapping. Those that touch become one. Ends may be
    infinite; NaN, or a stop before its start, is an error that contains `name`.
    """
    rows = np.asarray(intervals, dtype=np.float64)
    if rows.size % 2:
        raise ValueError(
            f"{name} has shape {rows.shape}; expected a start and a stop for each interval, "
            "(n_intervals, 2). Correct the file."
        )
    rows = rows.reshape(-1, 2)
    bad = np.flatnonzero(~(rows[:, 0] <= rows[:, 1]))
    if bad.size:
        start, stop = rows[bad[0]]
        problem = "stops before it starts" if stop < start else "has an unknown end"
        raise ValueError(
            f"{name}: interval {bad[0]} is [{start:g}, {stop:g}] s, which {problem}. Correct the "
            "file; for an interval without end, write an infinite stop."
        )
    rows = rows[rows[:, 0] < rows[:, 1]]
    if not len(rows):
        return rows
    starts, stops = rows[np.argsort(rows[:, 0])].T
    stops = np.maximum.accumulate(stops)
    # half a microsecond more, as differences of times are rounded
    opens = np.flatnonzero(np.append(True, starts[1:] > stops[:-1] + 1.5 * CLOCK))
    closes = np.append(opens[1:], len(stops)) - 1
    return np.column_stack([starts[opens], stops[closes]])


def subtract_intervals(
    intervals: NDArray[np.float64], removed: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the parts of `intervals` outside of `removed`; both as from `merge_intervals`."""
    if not len(removed):
        return intervals
    kept = np.column_stack([np.append(-np.inf, removed[:, 1]), np.append(removed[:, 0], np.inf)])
    parts = []
    for start, stop in intervals:
        part = np.column_stack([np.maximum(kept[:, 0], start), np.minimum(kept[:, 1], stop)])
        parts.append(part[part[:, 0] < part[:, 1]])
    return np.concatenate([np.empty((0, 2)), *parts])


def bins_within(
    bins: NDArray[np.intp], bin_width: float, length: float, intervals: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether the first `length` (s) of each bin lies within one of the intervals.

    Bins are in ascending order, and bin ``k`` starts at ``k * bin_width``.
    """
    lows = np.searchsorted(bins, (intervals[:, 0] - CLOCK) / bin_width)
    highs = np.searchsorted(bins, (intervals[:, 1] + CLOCK - length) / bin_width, side="right")
    return _in_slices(len(bins), lows, highs)


def are_inside(
    starts: NDArray[np.float64], stops: NDArray[np.float64], intervals: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether each bin, from `starts` to `stops` (s), lies in one of the merged intervals (s)."""
    if not len(intervals):
        return np.zeros(starts.shape, dtype=bool)
    at = np.searchsorted(intervals[:, 0], starts + CLOCK, side="right") - 1
    return (at >= 0) & (stops <= intervals[np.maximum(at, 0), 1] + CLOCK)


def times_within(times: NDArray[np.float64], intervals: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each of the sorted times lies in one of the intervals; stops are left out."""
    lows, highs = np.searchsorted(times, intervals.T)
    return _in_slices(len(times), lows, highs)


def _in_slices(n: int, lows: NDArray[np.intp], highs: NDArray[np.intp]) -> NDArray[np.bool_]:
    inside = np.zeros(n, dtype=bool)
    for low, high in zip(lows, highs, strict=True):
        inside[low:high] = True
    return inside
