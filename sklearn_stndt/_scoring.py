"""Hide entries, infer their rates and score them; every score of rates goes through here.

Scored entries are NaN in the counts that `infer` receives, so that no estimator can copy them.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sklearn_stndt.metrics import bits_per_spike
from sklearn_stndt.network.masking import N_FOLDS, speckled_folds

NEVER_HIDDEN = N_FOLDS  # in `folds`: an entry that no fold hides


def entry_folds(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Assign each entry of an array to one of the complementary speckled folds."""
    return speckled_folds(shape).numpy()


def hide(X: NDArray, hidden: NDArray | tuple) -> NDArray:
    """Copy counts to a dtype that has NaN, and set entries to NaN.

    Parameters
    ----------
    X : ndarray
        Counts.
    hidden : index
        Boolean array, or any other index of numpy.
    """
    counts = X.astype(np.result_type(X.dtype, np.float32))
    counts[hidden] = np.nan
    return counts


def infer_folds(
    infer: Callable[[NDArray], NDArray], X: NDArray, folds: NDArray
) -> NDArray[np.float32]:
    """Infer the rates of entries while they are hidden, one fold at a time.

    Parameters
    ----------
    infer : callable
        Infers rates from counts, NaN where hidden.
    X : ndarray
        Counts, NaN where unknown.
    folds : ndarray of uint8, same shape
        From `entry_folds`; entries set to `NEVER_HIDDEN` get no rate.

    Returns
    -------
    ndarray, same shape
        NaN for entries that are never hidden.
    """
    rates = np.full(X.shape, np.nan, dtype=np.float32)
    for fold in range(N_FOLDS):
        hidden = folds == fold
        rates[hidden] = infer(hide(X, hidden))[hidden]
    return rates


def infer_hidden(
    infer: Callable[[NDArray], NDArray], X: NDArray, heldout_neurons: NDArray
) -> tuple[NDArray, NDArray]:
    """Infer the rates of entries while they are hidden; return their counts and rates.

    Parameters
    ----------
    infer : callable
        Infers rates from counts, NaN where hidden.
    X : ndarray of shape (n_bins, n_neurons) or (n_trials, n_bins, n_neurons)
        Counts, NaN where unknown.
    heldout_neurons : ndarray of int
        Neurons to hide. If empty, every entry is hidden once, in speckled folds.

    Returns
    -------
    spikes, rates : ndarray
        Last axis: the held-out neurons, or all neurons.
    """
    if len(heldout_neurons):
        hidden = (..., heldout_neurons)
        return X[hidden], infer(hide(X, hidden))[hidden]
    return X, infer_folds(infer, X, entry_folds(X.shape))


def score_hidden(
    infer: Callable[[NDArray], NDArray], X: NDArray, heldout_neurons: NDArray
) -> float:
    """Bits per spike of the entries that `infer_hidden` hides."""
    return bits_per_spike(*infer_hidden(infer, X, heldout_neurons))
