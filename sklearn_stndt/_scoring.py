"""Rates of entries while they are hidden: what every score of rates has to be made of."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

N_FOLDS = 5  # complementary masks where there are no held-out neurons


def infer_hidden(
    infer: Callable[[NDArray], NDArray], X: NDArray, heldout_neurons: NDArray
) -> tuple[NDArray, NDArray]:
    """Infer rates of entries that were hidden, and return the counts that belong to them.

    Parameters
    ----------
    infer : callable
        Infers rates from counts, NaN where hidden.
    X : ndarray of shape (n_bins, n_neurons) or (n_trials, n_bins, n_neurons)
        Counts, NaN where unknown.
    heldout_neurons : ndarray of int
        Neurons that `infer` never sees. Without any, every entry is hidden once, by a fixed set of
        complementary speckled masks.

    Returns
    -------
    spikes, rates : ndarray
        Last axis: the held-out neurons, or all neurons.
    """
    if len(heldout_neurons):
        return X[..., heldout_neurons], infer(X)[..., heldout_neurons]
    rates = np.empty(X.shape, dtype=np.float32)
    folds = np.random.RandomState(0).randint(N_FOLDS, size=X.shape, dtype=np.uint8)
    for fold in range(N_FOLDS):
        hidden = folds == fold
        rates[hidden] = infer(np.where(hidden, np.float32(np.nan), X))[hidden]
    return X, rates
