"""Find the part of an estimator that infers rates; every use of rates goes through here."""

import copy
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import config_context
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sklearn_stndt._containers import as_array

# attributes of scikit-learn's meta-estimators that hold an estimator fitted on the same X
_FITTED_INSIDE = ("best_estimator_", "regressor_")


class RateMixin:
    """Marks estimators whose `transform` turns counts into rates, if its `output` is "rates"."""

    output = "rates"


def likelihoods_in(estimator: Any, fitted: bool = False) -> list[Any]:
    """Return the values of the parameter `likelihood` in an estimator and inside it.

    If `fitted`, those with which a network was fitted.
    """
    if fitted and hasattr(estimator, "settings_"):
        return [estimator.settings_.network.likelihood]
    found = []
    for part in [estimator, *_parts(getattr(estimator, "estimator", None))]:
        params = part.get_params() if hasattr(part, "get_params") else {}
        found += [value for name, value in params.items() if _is_likelihood(name)]
    drawn = getattr(estimator, "param_distributions", None)
    for distributions in drawn if isinstance(drawn, list | tuple) else [drawn or {}]:
        for name, values in distributions.items():
            if _is_likelihood(name) and isinstance(values, list | tuple | np.ndarray):
                found += list(values)
    return found


def _parts(estimator: Any) -> list[Any]:
    return list(estimator) if isinstance(estimator, list | tuple) else [estimator]


def _is_likelihood(name: str) -> bool:
    return name.rpartition("__")[2] == "likelihood"


def groups_keyword(X: Any, groups: ArrayLike | None) -> dict[str, Any]:
    """Return `groups` as a keyword argument, but only if they give the trials of a 2D X.

    Not every estimator takes groups, and those of a 3D X are only for cross-validation.
    """
    return {} if groups is None or getattr(X, "ndim", 2) == 3 else {"groups": groups}


def find_rates(estimator: Any) -> tuple[list[Any], Any]:
    """Find the part of a fitted estimator that infers rates.

    Parameters
    ----------
    estimator : estimator
        STNDTEstimator, BaggingEnsemble, or a Pipeline, a search or a frozen estimator with one
        inside, nested to any depth. Otherwise, the rates are the output of `transform`; of a
        pipeline that ends in a decoder, the output of its other steps.

    Returns
    -------
    before : list of transformers
        Transformers that X passes through first.
    source : estimator
        Estimator whose `transform` then infers the rates.

    Raises
    ------
    TypeError
        If nothing in `estimator` has `transform`.
    """
    found = _find(estimator)
    if found is not None:
        return found[0], _of_rates(found[1])
    foreign = estimator
    while not hasattr(foreign, "transform"):
        inner = _inside(foreign)
        if inner is not None:
            foreign = inner
        elif isinstance(foreign, Pipeline) and len(foreign.steps) > 1:
            foreign = foreign[:-1]
        else:
            raise TypeError(
                f"{type(estimator).__name__} has no transform, so it infers no rates. Pass "
                "STNDTEstimator, BaggingEnsemble, or a pipeline with one of them."
            )
    return [], foreign


def rate_estimator(estimator: Any) -> tuple[list[Any], Any]:
    """Find the estimator of this package that infers rates, as `find_rates` does.

    Parameters
    ----------
    estimator : STNDTEstimator, BaggingEnsemble, or Pipeline or search with one of them
        Fitted.

    Returns
    -------
    before : list of transformers
        Transformers that X passes through first.
    source : STNDTEstimator or BaggingEnsemble

    Raises
    ------
    TypeError
        If there is no such estimator.
    sklearn.exceptions.NotFittedError
        Before fit.
    """
    before, source, _ = rate_steps(estimator)
    return before, _of_rates(source)


def rate_steps(estimator: Any) -> tuple[list[Any], Any, list[Any]]:
    """Find the estimator of this package that infers rates, and the steps before and after it.

    Parameters
    ----------
    estimator
        As for `rate_estimator`, with the same errors.

    Returns
    -------
    before : list of transformers
        Transformers that X passes through first.
    source : STNDTEstimator or BaggingEnsemble
        With the `output` that it has, which need not be "rates".
    after : list of estimators
        Steps that its output passes through, such as a decoder.
    """
    found = _find(estimator)
    if found is None:
        steps = [type(step).__name__ for _, step in getattr(estimator, "steps", [])]
        raise TypeError(
            "Expected a fitted STNDTEstimator, a BaggingEnsemble of them, or a Pipeline with one, "
            f"got {type(estimator).__name__}"
            + (f" of {', '.join(steps)}" if steps else "")
            + ". Pass the estimator that infers the rates."
        )
    check_is_fitted(found[1])
    return found


def pass_through(steps: list[Any], X: Any) -> Any:
    """Transform X by fitted transformers, one after the other."""
    for step in steps:
        X = step.transform(X)
    return X


def infer_rates(estimator: Any, X: Any, groups: ArrayLike | None = None) -> NDArray:
    """Infer rates with the part of an estimator that does so.

    Parameters
    ----------
    estimator : estimator
        As for `find_rates`.
    X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
        Spikes per bin, NaN where hidden.
    groups : array-like, default=None
        Passed to the `transform` that infers rates.

    Returns
    -------
    rates : ndarray, same shape
        Always an array, whatever the container of X, and even if scikit-learn is set to return
        tables. Trials are the first axis.
    """
    before, source = find_rates(estimator)
    X = pass_through(before, X)
    with config_context(transform_output="default"):
        return np.asarray(as_array(source.transform(X, **groups_keyword(X, groups))))


def _find(estimator: Any) -> tuple[list[Any], Any, list[Any]] | None:
    if isinstance(estimator, RateMixin):
        return [], estimator, []
    inner = _inside(estimator)
    if inner is not None:
        return _find(inner)
    if isinstance(estimator, Pipeline):
        steps = [step for _, step in estimator.steps if step not in (None, "passthrough")]
        for i, step in reversed(list(enumerate(steps))):
            found = _find(step)
            if found is not None:
                return steps[:i] + found[0], found[1], found[2] + steps[i + 1 :]
    return None


def _of_rates(source: Any) -> Any:
    """Return an estimator that infers rates, whatever its `output`; the given one is unchanged."""
    if source.output == "rates":
        return source
    source = copy.copy(source)
    source.output = "rates"
    return source


def _inside(estimator: Any) -> BaseEstimator | None:
    """Return the fitted estimator inside a search or another meta-estimator, or None."""
    if isinstance(estimator, FrozenEstimator):
        return estimator.estimator
    if isinstance(estimator, GridSearchCV | RandomizedSearchCV):
        check_is_fitted(estimator)
    for name in _FITTED_INSIDE:
        if hasattr(estimator, name):
            return getattr(estimator, name)
    return None
