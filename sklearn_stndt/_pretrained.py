"""Find the fitted estimator whose core a fit starts from, and check that it can be used."""

import copy
import importlib
import os
from dataclasses import replace
from typing import Any

import joblib
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from sklearn_stndt._rates import rate_estimator
from sklearn_stndt.network.core import CORE_SETTINGS
from sklearn_stndt.network.likelihood import Likelihood

_ADVICE = (
    "clone, which cross_val_score, searches and pipelines call, removes what was fitted. Freeze "
    "the fitted estimator: pretrained=FrozenEstimator(day1), from sklearn.frozen."
)


def find_pretrained(pretrained: Any) -> Any:
    """Find the fitted STNDTEstimator in what was passed as `pretrained`.

    Parameters
    ----------
    pretrained : estimator, str or path
        Fitted STNDTEstimator or MultiSessionEstimator, frozen or not, a pipeline or search with an
        STNDTEstimator, or the path of a saved one.

    Returns
    -------
    STNDTEstimator

    Raises
    ------
    TypeError
        If there is no network in `pretrained`, or several with cores of their own.
    NotFittedError
        If it is not fitted.
    ValueError
        If its network has one channel per neuron, so that its core depends on its neurons.
    """
    if isinstance(pretrained, str | os.PathLike):
        # by name, because saving and loading know all estimators
        pretrained = importlib.import_module("sklearn_stndt.persistence").load(pretrained)
    inner = pretrained.estimator if isinstance(pretrained, FrozenEstimator) else pretrained
    try:
        # several sessions have one core
        source = shared[0] if (shared := _sessions(inner)) else rate_estimator(inner)[1]
    except NotFittedError as error:
        raise NotFittedError(f"pretrained is not fitted. {_ADVICE}") from error
    if not hasattr(source, "net_"):
        raise TypeError(
            f"pretrained is a {type(source).__name__} of several networks, but one is needed to "
            "start from. Pass one of them: pretrained=FrozenEstimator(ensemble.estimators_[0])."
        )
    if source.settings_.network.d_model is None:
        raise ValueError(
            "pretrained has d_model=None, one channel per neuron, so its network fits only its own "
            "neurons. Fit it with a width such as d_model=64."
        )
    return source


def _sessions(estimator: Any) -> list[Any]:
    """Return the estimators of sessions with a shared core; empty if there are none."""
    if not getattr(estimator, "_shares_core", False):
        return []
    if not hasattr(estimator, "estimators_"):
        raise NotFittedError
    return estimator.estimators_


def as_pretrained(fitted: Any) -> FrozenEstimator:
    """Freeze a fitted STNDTEstimator, to start from its core.

    It comes without what it started from itself, which would otherwise pile up.
    """
    start = copy.copy(fitted).set_params(pretrained=None)
    training = replace(fitted.settings_.training, pretrained=None)
    start.settings_ = replace(fitted.settings_, training=training)
    return FrozenEstimator(start)


def check_same_core(estimator: Any, source: Any) -> None:
    """Refuse parameters, other than defaults, that contradict the network to start from.

    Raises
    ------
    ValueError
        If a parameter that shapes the core, or the window, differs from that of the source.
    """
    defaults = type(estimator)().get_params(deep=False)
    core = source.settings_.network
    allowed = {
        name: (source.get_params(deep=False)[name], getattr(core, name)) for name in CORE_SETTINGS
    }
    allowed["window"] = (source.window, source.window_)
    for name, values in allowed.items():
        wanted = getattr(estimator, name)
        if not any(_same(wanted, value) for value in (defaults[name], *values)):
            raise ValueError(
                f"{name}={wanted!r} contradicts pretrained, whose network has {name}="
                f"{values[1]!r}. Leave {name} at its default to take that of pretrained, or fit "
                "without pretrained."
            )


def _same(first: Any, second: Any) -> bool:
    def plain(value: Any) -> Any:
        return tuple(value) if hasattr(value, "__len__") and not isinstance(value, str) else value

    if isinstance(first, Likelihood) and isinstance(second, Likelihood):
        # clone copies an object of the user, and modules are equal to themselves alone
        return joblib.hash(first.content()) == joblib.hash(second.content())
    return plain(first) == plain(second)
