"""From recordings to windows of equal length, and back."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sklearn_stndt.training.out_of_core import READ_BYTES, let_go

MOST_VALIDATION_WINDOWS = 2048  # say enough of a score, and cost time in every epoch


@dataclass(frozen=True)
class Segments:
    """Stretches of rows within which time is continuous.

    Attributes
    ----------
    rows : ndarray of shape (n_rows, n_neurons)
        Counts, NaN where missing; all segments one below the other.
    starts, stops : ndarray of int, shape (n_segments,)
        First row of each segment, and the row behind its last.
    """

    rows: NDArray
    starts: NDArray
    stops: NDArray

    @property
    def n_bins(self) -> int:
        """Bins of all segments together."""
        return int((self.stops - self.starts).sum())

    @property
    def longest(self) -> int:
        """Bins of the longest segment."""
        return int((self.stops - self.starts).max())

    def without_padding(self, window: int) -> "Segments":
        """Leave out the bins behind the last visible one, in segments longer than a window.

        Shorter ones are padded to a window anyway, and so are segments that show nothing.
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
    """See trials, or a recording and the trial of each of its rows, as segments.

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
    """Put the last bins of X in front of `n_tail` hidden ones, in one window.

    The network expects what it has to forecast at the end of its window; where X is too short to
    fill the rest, it is padded in front.

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
    before = X[..., -(window - n_tail) :, :]
    if before.dtype.kind != "f":
        before = before.astype(np.float64)
    padding = [(0, 0)] * X.ndim
    padding[-2] = (window - n_tail - before.shape[-2], n_tail)
    return np.pad(before, padding, constant_values=np.nan)


class Windows(torch.utils.data.Dataset):
    """Windows of equal length, cut from segments when they are asked for.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_neurons)
        Counts, NaN where missing. May be a memory map: it is read window by window.
    starts : array-like of int, shape (n_windows,)
        First row of each window.
    lengths : array-like of int, shape (n_windows,)
        Rows of each window that exist, at most `window`; the rest is padding.
    window : int
        Bins of a window.
    final : array-like of bool, shape (n_windows,), default=None
        Whether a window is the last of its segment; None: each is.
    """

    def __init__(
        self,
        rows: NDArray,
        starts: ArrayLike,
        lengths: ArrayLike,
        window: int,
        final: ArrayLike | None = None,
    ):
        self.rows = rows
        self.starts = np.asarray(starts, dtype=np.intp)
        self.lengths = np.asarray(lengths, dtype=np.intp)
        self.window = window
        self.final = np.ones(len(self.starts), bool) if final is None else np.asarray(final)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        spikes, nothing = self.__getitems__([index])
        return spikes[0], nothing

    def __getitems__(self, indices: ArrayLike) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch at once, (len(indices), window, n_neurons), NaN where missing.

        The second tensor is empty: skorch expects a target, and here there is none.
        """
        indices = np.asarray(indices, dtype=np.intp)
        offsets = np.arange(self.window)
        starts, lengths = self.starts[indices, None], self.lengths[indices, None]
        batch = self.rows[starts + np.minimum(offsets, lengths - 1)]
        let_go(self.rows)  # at once: around each window the system maps far more than was read
        batch = batch.astype(np.float32, copy=False)  # (batch, window, n_neurons)
        batch[offsets >= lengths] = np.nan
        return torch.from_numpy(batch), torch.empty(0)


def cut(segments: Segments, window: int, stride: int) -> Windows:
    """Cut segments into windows; none spans two segments, none is needlessly padded.

    Parameters
    ----------
    segments : Segments
        What to cut.
    window, stride : int
        Bins of a window, and bins from one window to the next. The last window of a segment is
        moved back to end with it; a segment shorter than a window gives one, padded.

    Returns
    -------
    Windows
    """
    starts, lengths, final = [], [], []
    for start, stop in zip(segments.starts, segments.stops, strict=True):
        n_bins = stop - start
        first = np.arange(0, max(n_bins - window, 0), stride)
        first = np.append(first, max(n_bins - window, 0)) + start
        starts.append(first)
        lengths.append(np.full(len(first), min(n_bins, window)))
        final.append(np.arange(len(first)) == len(first) - 1)
    return Windows(
        segments.rows,
        np.concatenate(starts),
        np.concatenate(lengths),
        window,
        np.concatenate(final),
    )


def shows_anything(rows: NDArray) -> bool:
    """Whether there is an entry that is not NaN."""
    return rows.dtype.kind != "f" or not bool(np.isnan(rows).all())


def split(
    segments: Segments, window: int, validation_fraction: float, random_state: np.random.RandomState
) -> tuple[Segments, Segments] | None:
    """Set blocks of whole windows aside for validation.

    Segments longer than a window are first cut into blocks of a window's length, so that a
    continuous recording can be split too. Neighbouring blocks of a segment that stay in the same
    part are joined again.

    Parameters
    ----------
    segments : Segments
        What to split.
    window : int
        Bins of a window.
    validation_fraction : float
        Share of the blocks to set aside, at least one block and at most `MOST_VALIDATION_WINDOWS`.
    random_state : RandomState
        Draws the blocks.

    Returns
    -------
    (training, validation) : pair of Segments, or None
        None if there are fewer than two blocks, or none that shows anything.
    """
    starts, stops, owners = [], [], []
    for owner, (start, stop) in enumerate(zip(segments.starts, segments.stops, strict=True)):
        n_blocks = max((stop - start) // window, 1)
        edges = start + window * np.arange(n_blocks + 1)
        edges[-1] = stop  # what is left over at the end goes to the last block
        starts.append(edges[:-1])
        stops.append(edges[1:])
        owners.append(np.full(n_blocks, owner))
    start, stop, owner = np.concatenate(starts), np.concatenate(stops), np.concatenate(owners)
    n_blocks = len(start)
    if n_blocks < 2:
        return None
    n_validation = min(max(round(validation_fraction * n_blocks), 1), n_blocks - 1)
    n_validation = min(n_validation, MOST_VALIDATION_WINDOWS)
    validating = np.zeros(n_blocks, dtype=bool)
    for block in random_state.permutation(n_blocks):
        # a gap in the recording cannot tell a good network from a bad one
        validating[block] = shows_anything(segments.rows[start[block] : stop[block]])
        if validating.sum() == n_validation:
            break
    if not validating.any() or validating.all():
        return None

    def joined(chosen: NDArray) -> Segments:
        index = np.flatnonzero(chosen)
        breaks = (np.diff(index) != 1) | (np.diff(owner[index]) != 0)
        first = index[np.append(True, breaks)]
        last = index[np.append(breaks, True)]
        return Segments(segments.rows, start[first], stop[last])

    return joined(~validating), joined(validating)


class Stitcher:
    """Puts windows of rates back in their place; where windows overlap, blends them.

    A bin counts most in the window in whose middle it lies, for there the network sees most of
    its surroundings. Rates are written as soon as no other window reaches them, so that no more
    than a window of each is kept.

    Parameters
    ----------
    windows : Windows
        The windows to be put back.
    out : ndarray of shape (n_rows, n_neurons), default=None
        Where to write the rates; may be a memory map. None: new zeros.
    hidden_tail : int, default=0
        Bins at the end of each window that count only where the segment ends, for there no other
        window was shown them.
    """

    def __init__(self, windows: Windows, out: NDArray | None = None, hidden_tail: int = 0):
        n_rows, n_neurons = windows.rows.shape
        window = windows.window
        self.windows = windows
        self.out = np.zeros((n_rows, n_neurons), dtype=np.float32) if out is None else out
        self.sums = np.zeros((window, n_neurons), dtype=np.float32)
        self.weights = np.zeros((window, 1), dtype=np.float32)
        self.first = 0  # row of the first sum
        self.n_written = 0  # bytes since pages of a memory map were let go of
        bins = np.arange(window)
        shown = window - hidden_tail
        weight = np.minimum(bins + 1, shown - bins).astype(np.float32)
        weight[shown:] = 0.0
        self.weight = weight

    def add(self, indices: ArrayLike, rates: NDArray) -> None:
        """Add rates of windows, array of shape (len(indices), window, n_neurons).

        Windows of a segment come in the order of their rows.
        """
        for index, window_rates in zip(np.asarray(indices), rates, strict=True):
            n_bins = self.windows.lengths[index]
            self._move_to(int(self.windows.starts[index]))
            weight = self.weight[:n_bins, None]
            if self.windows.final[index]:
                weight = np.where(weight > 0, weight, 1e-6)
            self.sums[:n_bins] += weight * window_rates[:n_bins]
            self.weights[:n_bins] += weight

    def _move_to(self, start: int) -> None:
        """Write the rows that lie before a window, and make room for its own."""
        window = len(self.sums)
        n_done = start - self.first if self.first <= start < self.first + window else window
        done = np.flatnonzero(self.weights[:n_done, 0])  # one stretch: nobody leaves a gap
        if len(done):
            done = slice(done[0], done[-1] + 1)
            rows = slice(self.first + done.start, self.first + done.stop)
            self.out[rows] = self.sums[done] / self.weights[done]
            self.n_written += self.out[rows].nbytes
            if self.n_written > READ_BYTES:
                let_go(self.out)
                self.n_written = 0
        for kept in (self.sums, self.weights):
            kept[: window - n_done] = kept[n_done:].copy()
            kept[window - n_done :] = 0
        self.first = start

    def result(self) -> NDArray:
        """Return the rates, array of shape (n_rows, n_neurons), as they were where no window is."""
        self._move_to(self.first + len(self.sums))
        return self.out
