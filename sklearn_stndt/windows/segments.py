"""Segments: runs of rows within which time is continuous."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Segments:
    """Runs of rows within which time is continuous.

    Attributes
    ----------
    rows : ndarray of shape (n_rows, n_neurons)
        Counts, NaN where missing; all segments along the first axis.
    starts, stops : ndarray of int, shape (n_segments,)
        First row of each segment, and one past its last row.
    """

    rows: NDArray
    starts: NDArray
    stops: NDArray

    @property
    def n_bins(self) -> int:
        """Total number of bins."""
        return int((self.stops - self.starts).sum())

    @property
    def longest(self) -> int:
        """Bins of the longest segment."""
        return int((self.stops - self.starts).max())

    def n_windows(self, window: int) -> int:
        """Windows of so many bins that fit in, one next to the other; at least one per segment."""
        return int(np.maximum((self.stops - self.starts) // window, 1).sum())

    def without_padding(self, window: int) -> "Segments":
        """Remove the bins after the last visible one, in segments longer than a window.

        Shorter ones are padded to a window anyway; segments without visible bins are kept.
        """
        stops = self.stops.copy()
        if self.rows.dtype.kind != "f":
            return self
        for i in np.flatnonzero(self.stops - self.starts > window):
            stop = self.stops[i]
            while stop > self.starts[i]:
                start = max(stop - window, self.starts[i])
                visible = np.flatnonzero(~np.isnan(self.rows[start:stop]).all(1))
                if len(visible):
                    stops[i] = start + visible[-1] + 1
                    break
                stop = start
        return Segments(self.rows, self.starts, stops)


def as_segments(X: NDArray, groups: NDArray | None = None) -> Segments:
    """Convert trials, or a recording and the trial of each of its rows, to segments.

    Parameters
    ----------
    X : ndarray of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
        Trials, or one continuous recording.
    groups : ndarray of shape (n_bins,), default=None
        Trial of each row of a 2D X; a segment is an unbroken run of rows of one trial.

    Returns
    -------
    Segments
    """
    if X.ndim == 3:
        edges = np.arange(len(X) + 1) * X.shape[1]
        return Segments(X.reshape(-1, X.shape[2]), edges[:-1], edges[1:])
    changes = np.array([], dtype=int)
    if groups is not None:
        changes = np.flatnonzero(groups[1:] != groups[:-1]) + 1
    edges = np.concatenate([[0], changes, [len(X)]])
    return Segments(X, edges[:-1], edges[1:])


def before_forecast(X: NDArray, window: int, n_tail: int) -> NDArray:
    """Place the last bins of X before `n_tail` hidden ones, in one window.

    The network expects the bins to forecast at the end of its window; if X is too short to fill
    the rest, it is padded at the start.

    Parameters
    ----------
    X : ndarray of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
        Counts before the forecast.
    window, n_tail : int
        Bins of the window, and of its end that is to be forecast.

    Returns
    -------
    ndarray of shape (n_trials, window, n_neurons) or (window, n_neurons)
    """
    before = X[..., -(window - n_tail) :, :]  # (..., at most window - n_tail, n_neurons)
    if before.dtype.kind != "f":
        before = before.astype(np.float64)
    padding = [(0, 0)] * X.ndim
    padding[-2] = (window - n_tail - before.shape[-2], n_tail)
    return np.pad(before, padding, constant_values=np.nan)  # (..., window, n_neurons)


def before_hidden(X: NDArray, n_tail: int) -> NDArray:
    """Append `n_tail` hidden bins to X, (..., n_bins, n_neurons)."""
    X = X if X.dtype.kind == "f" else X.astype(np.float64)
    padding = [(0, 0)] * X.ndim
    padding[-2] = (0, n_tail)
    return np.pad(X, padding, constant_values=np.nan)  # (..., n_bins + n_tail, n_neurons)


def shows_anything(rows: NDArray) -> bool:
    """Whether any entry is not NaN."""
    return rows.dtype.kind != "f" or not bool(np.isnan(rows).all())
