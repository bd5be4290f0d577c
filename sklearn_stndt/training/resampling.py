"""Trials, or blocks of a recording, as what is drawn for a member of an ensemble."""

import numpy as np
from numpy.typing import NDArray

N_BLOCKS = 20  # into which a continuous recording is cut to be resampled


def row_trials(X: NDArray, groups: NDArray | None) -> NDArray | None:
    """Number the trials, or else the blocks, of a 2D X row by row; None for a 3D X."""
    if X.ndim == 3:
        return None
    if groups is None:
        n_blocks = min(N_BLOCKS, len(X))
        return np.arange(len(X)) * n_blocks // len(X)
    return np.concatenate([[0], np.cumsum(groups[1:] != groups[:-1])])


def take(
    X: NDArray, groups: NDArray | None, trials: NDArray | None, drawn: NDArray, takes_groups: bool
) -> tuple[NDArray, NDArray | None]:
    """Counts of the trials that were drawn, and the groups that keep them apart.

    Blocks of a recording are joined end to end for an estimator that knows nothing of groups.
    """
    n_trials = len(X) if trials is None else trials[-1] + 1
    if np.array_equal(drawn, np.arange(n_trials)):
        return X, groups
    if trials is None:
        return X[drawn], None
    rows = [np.flatnonzero(trials == trial) for trial in drawn]
    if groups is None and not takes_groups:
        return X[np.concatenate(rows)], None
    labels = np.repeat(np.arange(len(drawn)), [len(r) for r in rows])
    return X[np.concatenate(rows)], labels
