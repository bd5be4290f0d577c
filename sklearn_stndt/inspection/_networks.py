"""Find the networks inside an estimator, and the counts that it expects."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sklearn_stndt._base import RateTransformer
from sklearn_stndt._validation import check_counts
from sklearn_stndt.estimator import STNDTEstimator


def rate_estimator(estimator: Any) -> Any:
    """Return the fitted estimator of rates that `estimator` is, or starts with.

    Parameters
    ----------
    estimator : STNDTEstimator, BaggingEnsemble, or Pipeline or search over one
        Fitted.

    Returns
    -------
    STNDTEstimator or BaggingEnsemble

    Raises
    ------
    TypeError
        If it is something else.
    sklearn.exceptions.NotFittedError
        Before fit.
    """
    source = estimator
    while not isinstance(source, RateTransformer):
        if hasattr(source, "best_estimator_"):
            source = source.best_estimator_
        elif isinstance(source, Pipeline) and source.steps:
            source = source.steps[0][1]
        else:
            raise TypeError(
                f"Expected a fitted STNDTEstimator, a BaggingEnsemble of them, or a Pipeline that "
                f"starts with one, got {type(estimator).__name__}"
                + ("." if source is estimator else f" that starts with {type(source).__name__}.")
                + " Pass the estimator that infers the rates."
            )
    check_is_fitted(source)
    return source


def networks(source: Any) -> list[STNDTEstimator]:
    """Return the fitted STNDTEstimators of an estimator of rates, more than one in an ensemble."""
    if isinstance(source, STNDTEstimator):
        return [source]
    found: list[STNDTEstimator] = []
    for member in getattr(source, "estimators_", []):
        try:
            found += networks(rate_estimator(member))
        except TypeError:  # an ensemble may have members of other kinds
            continue
    if not found:
        raise TypeError(
            f"{type(source).__name__} has no member that is an STNDTEstimator, so there is no "
            "network to look into. Pass an ensemble of STNDTEstimator."
        )
    return found


def float_counts(source: Any, X: ArrayLike) -> NDArray:
    """Check counts, and return them in a dtype that has NaN."""
    counts = check_counts(source, X, reset=False)
    return counts if counts.dtype.kind == "f" else counts.astype(np.float32)


def heldin_neurons(source: Any, counts: NDArray) -> NDArray:
    """Neurons that the networks are shown, and of which there is anything to show."""
    shown = ~np.isnan(counts).all(axis=tuple(range(counts.ndim - 1)))
    shown[source.heldout_neurons_] = False
    return np.flatnonzero(shown)


def like(X: Any, counts: NDArray) -> Any:
    """Return counts in the container that X came in, so that names of neurons are kept."""
    if hasattr(X, "iloc"):
        return type(X)(counts, index=X.index, columns=X.columns)
    if hasattr(X, "columns"):
        return type(X)(counts, schema=list(X.columns))
    return counts
