"""Windows of rates, put back in their place in the recording."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklearn_stndt.windows.cutting import Windows
from sklearn_stndt.windows.out_of_core import READ_BYTES, let_go


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
