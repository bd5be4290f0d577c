"""Find the networks inside an estimator, and the counts that it expects."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklearn_stndt._rates import pass_through, rate_estimator
from sklearn_stndt._validation import check_counts
from sklearn_stndt.estimator import STNDTEstimator


def networks(source: Any) -> list[STNDTEstimator]:
    """Return the fitted STNDTEstimators inside an estimator of rates; an ensemble has several."""
    if isinstance(source, STNDTEstimator):
        return [source]
    found: list[STNDTEstimator] = []
    for member in getattr(source, "estimators_", []):
        try:
            found += networks(rate_estimator(member)[1])
        except TypeError:  # an ensemble may have members of other kinds
            continue
    if not found:
        raise TypeError(
            f"{type(source).__name__} has no member that is an STNDTEstimator, so there is no "
            "network to inspect. Pass an ensemble of STNDTEstimator."
        )
    return found


def look_inside(estimator: Any, X: ArrayLike) -> tuple[Any, NDArray]:
    """Find the estimator that infers rates, and the counts that it receives.

    Returns
    -------
    source : STNDTEstimator or BaggingEnsemble
    counts : ndarray
        Checked, in a dtype that has NaN.
    """
    before, source = rate_estimator(estimator)
    counts = check_counts(source, pass_through(before, X), reset=False)
    return source, counts if counts.dtype.kind == "f" else counts.astype(np.float32)


def heldin_neurons(source: Any, counts: NDArray) -> NDArray:
    """Return the neurons that are visible to the networks: not held out, and not all NaN."""
    shown = ~np.isnan(counts).all(axis=tuple(range(counts.ndim - 1)))
    shown[source.heldout_neurons_] = False
    return np.flatnonzero(shown)
