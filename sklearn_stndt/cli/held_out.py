"""Set trials or bins aside, and score rates on them beside Gaussian smoothing."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d
from sklearn.model_selection import KFold, train_test_split

from sklearn_stndt._rates import groups_keyword, infer_rates
from sklearn_stndt._scoring import NEVER_HIDDEN, entry_folds, hide, score_hidden
from sklearn_stndt.metrics import bits_per_spike

_WIDTHS = (0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.4)  # s
_WEIGHTS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_ENOUGH = 2_000_000  # entries from which width and weight are chosen
_N_BLOCKS = 4  # blocks of a recording that are set aside
_REACH = 4  # standard deviations of a Gaussian
_NO_HELDOUT_NEURONS = np.array([], dtype=np.intp)


# -- which trials or bins ----------


def set_aside(counts: NDArray, fraction: float, seed: int) -> NDArray[np.intp]:
    """Choose trials, or bins of a recording, to score on: indices along the first axis.

    Of a recording these are up to four blocks spread over it, each as long as possible.
    """
    n = len(counts)
    if fraction == 0 or n < 2:
        return np.array([], dtype=np.intp)
    if counts.ndim == 3:
        size = min(max(round(fraction * n), 1), n - 1)
        _, chosen = train_test_split(np.arange(n), test_size=size, random_state=seed)
        return np.sort(chosen)
    parts = np.array_split(np.arange(n), min(_N_BLOCKS, max(n // 500, 1)))
    return np.concatenate([part[len(part) - round(fraction * len(part)) :] for part in parts])


def fingerprint(counts: NDArray, aside: NDArray[np.intp]) -> str:
    """Hash of counts, and of what was set aside of them."""
    digest = hashlib.sha256(repr(counts.shape).encode())
    for part in (counts.astype(np.float32), aside.astype(np.int64)):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def folds(counts: NDArray, n_folds: int, seed: int) -> list[tuple[NDArray, NDArray]]:
    """Return training and test indices of each fold: of trials, or contiguous ones of bins."""
    shuffled = counts.ndim == 3
    splitter = KFold(n_folds, shuffle=shuffled, random_state=seed if shuffled else None)
    return list(splitter.split(counts))


def runs(counts: NDArray, indices: NDArray[np.intp]) -> NDArray[np.intp] | None:
    """Number the stretches of consecutive bins, as groups; None for trials."""
    if counts.ndim == 3:
        return None
    return np.cumsum(np.diff(indices, prepend=indices[0]) != 1)


def grouped(counts: NDArray, groups: NDArray | None) -> dict[str, Any]:
    """Return `groups` as a keyword argument, if there are several."""
    if groups is None or len(groups) == 0 or groups[0] == groups[-1]:
        return {}
    return groups_keyword(counts, groups)


# -- Gaussian smoothing ----------


@dataclass(frozen=True)
class Smoothing:
    """Gaussian smoothing of visible counts, mixed with the mean count of each neuron.

    Without the mean, a neuron without spikes nearby would get a rate of 0, and a spike of it would
    be impossible.

    Parameters
    ----------
    means : ndarray of shape (n_neurons,)
        Mean counts per bin.
    width : float
        Standard deviation of the Gaussian, in bins.
    weight : float
        Weight of the mean; the weights of all bins add up to 1.
    causal : bool
        Use the bin and earlier ones alone.
    """

    means: NDArray
    width: float
    weight: float
    causal: bool = False

    def rates(self, counts: NDArray, groups: NDArray | None = None) -> NDArray:
        """Rates of each entry, spikes per bin; NaN in counts is not visible."""
        sums, n_visible = self.sums(counts, groups)
        return self.mixed(sums, n_visible)

    def mixed(self, sums: NDArray, n_visible: NDArray) -> NDArray:
        """Rates from weighted sums of counts and of visible bins."""
        return (sums + self.weight * self.means) / (n_visible + self.weight)

    def sums(self, counts: NDArray, groups: NDArray | None = None) -> tuple[NDArray, NDArray]:
        """Weighted sums of visible counts, and of visible bins."""
        reach = int(np.ceil(_REACH * self.width))
        steps = np.arange(-reach, reach + 1)
        kernel = np.exp(-0.5 * (steps / self.width) ** 2)
        if self.causal:
            kernel[steps < 0] = 0.0
        kernel /= kernel.sum()
        visible = ~np.isnan(counts)
        parts = [np.where(visible, counts, 0.0), visible.astype(np.float64)]
        out = [np.empty(counts.shape), np.empty(counts.shape)]
        ends = np.array([len(counts)])
        if groups is not None:
            ends = np.append(np.flatnonzero(np.diff(groups)) + 1, len(counts))
        for values, smoothed in zip(parts, out, strict=True):
            for start, stop in zip(np.append(0, ends[:-1]), ends, strict=True):
                smoothed[start:stop] = convolve1d(
                    values[start:stop], kernel, axis=-2, mode="constant"
                )
        return out[0], out[1]


def widths_in_bins(bin_width: float, n_bins: int) -> list[float]:
    """Widths of Gaussians to try, in bins."""
    widths = [width / bin_width for width in _WIDTHS]
    return [width for width in widths if 0.5 <= width <= n_bins] or [1.0]


def choose_smoothing(
    counts: NDArray, bin_width: float, groups: NDArray | None, *, causal: bool
) -> Smoothing:
    """Choose width and weight of the mean by hidden entries of training data."""
    means = np.nan_to_num(np.nanmean(counts.reshape(-1, counts.shape[-1]), axis=0))
    some = max(int(_ENOUGH / max(counts[0].size, 1)), 1)
    counts, groups = counts[:some], None if groups is None else groups[:some]
    entries = entry_folds(counts.shape)
    best, chosen = -np.inf, Smoothing(means, 1.0, 1.0, causal)
    for width in widths_in_bins(bin_width, counts.shape[-2]):
        one = Smoothing(means, width, 1.0, causal)
        sums, n_visible = np.empty(counts.shape), np.empty(counts.shape)
        for fold in range(NEVER_HIDDEN):
            hidden = entries == fold
            shown_sums, shown_visible = one.sums(hide(counts, hidden), groups)
            sums[hidden], n_visible[hidden] = shown_sums[hidden], shown_visible[hidden]
        for weight in _WEIGHTS:
            mixed = replace(one, weight=weight)
            score = bits_per_spike(counts, mixed.mixed(sums, n_visible))
            if score > best:
                best, chosen = score, mixed
    return chosen


# -- scores ----------


def bits(
    infer: Callable[[NDArray, NDArray | None], NDArray], counts: NDArray, groups: NDArray | None
) -> float:
    """Bits per spike of entries that were hidden, each once."""
    return score_hidden(lambda shown: infer(shown, groups), counts, _NO_HELDOUT_NEURONS)


def rates_of(network: Any, counts: NDArray, groups: NDArray | None) -> NDArray:
    """Rates by a fitted estimator, spikes per bin."""
    return infer_rates(network, counts, **grouped(counts, groups))
