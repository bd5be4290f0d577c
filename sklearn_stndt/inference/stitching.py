"""Assemble the rates of windows into rates of the recording."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklearn_stndt.windows.cutting import Windows
from sklearn_stndt.windows.out_of_core import READ_BYTES, let_go


class Stitcher:
    """Assembles the rates of windows, blending them where windows overlap.

    A window's weight is largest at its centre, where the network sees the most context on both
    sides. Rates are written as soon as no later window covers them, so that only the sums of one
    window are kept in memory.

    Parameters
    ----------
    windows : Windows
        Windows to assemble.
    out : ndarray of shape (n_rows, n_columns), default=None
        Array to write the rates to, or other values of rows; may be a memory map. None: new zeros,
        with a column per neuron.
    hidden_tail : int, default=0
        Bins at the end of each window that have weight only at the end of a segment, where no
        other window shows them.
    """

    def __init__(self, windows: Windows, out: NDArray | None = None, hidden_tail: int = 0):
        window = windows.window
        self.windows = windows
        self.out = np.zeros(windows.rows.shape, dtype=np.float32) if out is None else out
        self.sums = np.zeros((window, self.out.shape[1]), dtype=np.float32)
        self.weights = np.zeros((window, 1), dtype=np.float32)
        self.first = 0  # row of the first sum
        self.n_written = 0  # bytes since pages of a memory map were last released
        bins = np.arange(window)
        shown = window - hidden_tail
        weight = np.minimum(bins + 1, shown - bins).astype(np.float32)  # (window,)
        weight[shown:] = 0.0
        self.weight = weight

    def add(self, indices: ArrayLike, rates: NDArray) -> None:
        """Add rates of windows, array of shape (len(indices), window, n_columns).

        Windows of a segment must be added in the order of their rows.
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
        """Write the rows before the window at `start`, and shift the sums to that window."""
        window = len(self.sums)
        n_done = start - self.first if self.first <= start < self.first + window else window
        done = np.flatnonzero(self.weights[:n_done, 0])  # contiguous: windows leave no gap
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
        """Return the rates, shape (n_rows, n_columns); rows outside all windows are unchanged."""
        self._move_to(self.first + len(self.sums))
        return self.out
