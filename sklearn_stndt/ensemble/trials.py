"""Trials, or blocks of a recording, that are drawn for a member of an ensemble."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_stndt._containers import divide
from sklearn_stndt._files import write_atomically
from sklearn_stndt._fingerprints import fingerprint

N_BLOCKS = 20  # blocks of a continuous recording, which are drawn like trials


def row_trials(X: NDArray, groups: NDArray | None) -> NDArray | None:
    """Return the trial, or else the block, of each row of a 2D X; None for a 3D X."""
    if X.ndim == 3:
        return None
    if groups is None:
        n_blocks = min(N_BLOCKS, len(X))
        return np.arange(len(X)) * n_blocks // len(X)
    return np.concatenate([[0], np.cumsum(groups[1:] != groups[:-1])])


def take(
    X: NDArray, groups: NDArray | None, trials: NDArray | None, drawn: NDArray, takes_groups: bool
) -> tuple[NDArray, NDArray | None]:
    """Return the counts of the drawn trials, and groups that separate them.

    Blocks of a recording are concatenated for an estimator that does not take groups.
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


@dataclass(frozen=True)
class Recording:
    """Counts, and which of their rows belong to which trial."""

    X: Any  # counts, or the path of a file with them
    groups: NDArray | None
    trials: NDArray | None  # number of the trial of each row of a 2D X

    @classmethod
    def of(cls, X: NDArray, groups: NDArray | None, parts: NDArray | None = None) -> "Recording":
        """Make a recording of counts, the trials of their rows, and the parts between gaps."""
        return cls(X, divide(groups, parts), divide(row_trials(X, groups), parts))

    @property
    def n_trials(self) -> int:
        """Number of trials, or of blocks."""
        return len(self.X) if self.trials is None else int(self.trials[-1]) + 1

    def take(self, drawn: NDArray, takes_groups: bool) -> tuple[NDArray, NDArray | None]:
        """Return the counts of some trials, and groups that separate them, if there are any."""
        return take(self.X, self.groups, self.trials, drawn, takes_groups)

    def rows(self, trials: NDArray) -> NDArray:
        """Return the indices of trials on the first axis of X."""
        if self.trials is None:
            return trials
        return np.flatnonzero(np.isin(self.trials, trials))

    def describe(self) -> dict[str, str]:
        """Describe counts and groups by their fingerprints."""
        return {"X": fingerprint(self.X), "groups": fingerprint(self.groups)}

    def spilled(self, path: Path) -> "Recording":
        """Write the counts to a file, from which every worker reads them."""
        write_atomically(path, lambda file: np.save(file, self.X, allow_pickle=False))
        return replace(self, X=path)

    def opened(self) -> "Recording":
        """Return the recording with its counts as an array, memory-mapped if they are in a file."""
        return replace(self, X=np.load(self.X, mmap_mode="r")) if isinstance(self.X, Path) else self
