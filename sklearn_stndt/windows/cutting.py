"""Windows of equal length, cut from segments."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sklearn_stndt.windows.out_of_core import let_go
from sklearn_stndt.windows.segments import Segments


class Windows(torch.utils.data.Dataset):
    """Windows of equal length, cut from segments on access.

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
        Whether a window is the last of its segment; None: all are.
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
        """Return a batch, (len(indices), window, n_neurons), NaN where missing.

        The second tensor is empty: skorch expects a target, and there is none.
        """
        return torch.from_numpy(self.read(self.rows, indices)), torch.empty(0)

    def read(self, rows: NDArray, indices: ArrayLike) -> NDArray:
        """Cut windows from `rows`, of the shape of the counts; float32, NaN after their ends."""
        indices = np.asarray(indices, dtype=np.intp)
        offsets = np.arange(self.window)
        starts, lengths = self.starts[indices, None], self.lengths[indices, None]
        # (batch, window, n_neurons)
        batch = rows[starts + np.minimum(offsets, lengths - 1)]
        let_go(rows)  # immediately: the system maps far more around each window than was read
        batch = batch.astype(np.float32, copy=False)
        batch[offsets >= lengths] = np.nan
        return batch


def cut(segments: Segments, window: int, stride: int) -> Windows:
    """Cut segments into windows; none spans two segments, and only short segments are padded.

    Parameters
    ----------
    segments : Segments
        Segments to cut.
    window, stride : int
        Bins of a window, and bins from one window to the next. The last window of a segment is
        moved back to end with it; a segment shorter than a window gives one padded window.

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


def half_overlap(window: int, forecast_bins: int = 0) -> int:
    """Stride of windows that overlap by half of their visible bins.

    Used for training, inference and inspection alike. The forecast bins at the end of a window are
    always hidden.
    """
    return max((window - forecast_bins) // 2, 1)
