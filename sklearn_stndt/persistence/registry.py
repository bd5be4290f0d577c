"""What may come out of a file: classes and functions, by name. Nothing else is looked up."""

import builtins
import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import scipy.stats
import sklearn.metrics
import torch
from sklearn.base import BaseEstimator
from sklearn.metrics import _scorer
from sklearn.utils import _metadata_requests
from skorch.history import History

from sklearn_stndt.decoding.alignment import LatentAligner
from sklearn_stndt.metrics import scorers
from sklearn_stndt.network import STNDT, CausalSTNDT, NetworkSettings
from sklearn_stndt.training.net import MaskedModellingNet
from sklearn_stndt.training.objective import ObjectiveSettings
from sklearn_stndt.training.settings import Settings, TrainingSettings

Class = TypeVar("Class", bound=type)


class NotRestoredError(LookupError):
    """A name in a file that is not looked up, or that this version does not have."""


_OURS: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        CausalSTNDT,
        History,
        LatentAligner,
        MaskedModellingNet,
        NetworkSettings,
        ObjectiveSettings,
        STNDT,
        Settings,
        TrainingSettings,
        scorers._CoSmoothingScorer,
        scorers._VelocityScorer,
    )
}
_REPLACED: dict[type, Callable[[Any], Any]] = {}

# classes of scikit-learn that are not public, but are attributes of public ones
HELPERS = tuple(
    getattr(module, name)
    for module, name in (
        (_scorer, "_Scorer"),
        (_scorer, "_PassthroughScorer"),
        (_scorer, "_MultimetricScorer"),
        (_metadata_requests, "MetadataRequest"),
        (_metadata_requests, "MethodMetadataRequest"),
    )
    if hasattr(module, name)
)
_HELPERS = {f"sklearn.{cls.__name__}": cls for cls in HELPERS}

# functions behind the scores that scikit-learn knows by name
SCORE_FUNCTIONS = tuple(
    dict.fromkeys(
        sklearn.metrics.get_scorer(name)._score_func for name in sklearn.metrics.get_scorer_names()
    )
)

_PUBLIC_MODULE = re.compile(r"sklearn(\.[a-z][a-z0-9_]*)+")
_NOT_PUBLIC = {"conftest", "externals", "tests"}
_NUMBER_TYPES = (bool, float, int, str, np.bool_, *np.sctypeDict.values())


def register(cls: Class, instead: Callable[[Any], Any] | None = None) -> Class:
    """Allow objects of a class in files, under the name of the class.

    Public estimators need no registration.

    Parameters
    ----------
    cls : type
        Dataclass, or class whose objects are restored from their attributes.
    instead : callable, default=None
        Returns the object that is saved in place of an object of this class, which is then never
        restored itself.

    Returns
    -------
    type
        The class, so that `register` can be used as a decorator.
    """
    if instead is None:
        _OURS[cls.__name__] = cls
    else:
        _REPLACED[cls] = instead
    return cls


def replaced(value: Any) -> Any:
    """Return the object that is saved in place of `value`, usually `value` itself."""
    instead = _REPLACED.get(type(value))
    return value if instead is None else instead(value)


def is_ours(cls: type) -> bool:
    """Whether objects of this class are restored by this package and not by skops."""
    return cls.__module__.partition(".")[0] == "sklearn_stndt" or cls is History


def can_be_in_a_file(cls: type) -> bool:
    """Whether a file may hold an object of this class, and nothing around it."""
    return issubclass(cls, BaseEstimator) or cls in _public().values()


def is_sklearn(cls: type) -> bool:
    """Whether a class is part of scikit-learn."""
    return cls.__module__.partition(".")[0] == "sklearn"


def name_of_class(cls: type) -> str | None:
    """Return the name of a class in files; None if its objects may not be in one."""
    name = cls.__name__
    if is_sklearn(cls):
        if cls in HELPERS:
            return f"sklearn.{name}"
        parts = cls.__module__.split(".")
        public = [part for part in parts if not part.startswith("_")]
        name = ".".join([*public, name])
    return name if _class_of(name) is cls else None


def class_of_name(name: Any) -> type:
    """Return the class of a name in a file.

    Raises
    ------
    NotRestoredError
        If there is none whose objects may be in a file.
    """
    cls = _class_of(name) if isinstance(name, str) else None
    if cls is None:
        raise NotRestoredError(
            f"it holds an object of the class {name!r}, which is not among those that this version "
            "of sklearn_stndt restores"
        )
    return cls


def _public() -> dict[str, Any]:
    """Public classes and functions; their modules register the classes of their attributes."""
    import sklearn_stndt  # which imports their modules when they are first used

    return {name: getattr(sklearn_stndt, name) for name in sklearn_stndt.__all__}


def _class_of(name: str) -> type | None:
    public = _public()
    if name in _OURS:
        return _OURS[name]
    if name in _HELPERS:
        return _HELPERS[name]
    if name in public:
        return public[name] if isinstance(public[name], type) else None
    module, _, name = name.rpartition(".")
    if not _PUBLIC_MODULE.fullmatch(module) or _NOT_PUBLIC & set(module.split(".")):
        return None
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
    known = isinstance(found, type) and issubclass(found, BaseEstimator) and is_sklearn(found)
    return found if known and not name.startswith("_") else None


def name_of_function(value: Any) -> str | None:
    """Return the name of a class or function that may be the value of a parameter, or None."""
    module = getattr(value, "__module__", None)
    names = [f"{module}.{getattr(value, '__name__', '')}"]
    if inspect.isclass(value) or inspect.isroutine(value):
        names += [f"{short}.{value.__name__}" for short in _NAMESPACES]
    elif isinstance(value, np.ufunc):
        names = [f"numpy.{value.__name__}"]
    for name in names:
        if _function_of(name) is value:
            return name
    return None


def function_of_name(name: Any) -> Any:
    """Return the class or function of a name in a file.

    Raises
    ------
    NotRestoredError
        If it is not one that may be the value of a parameter.
    """
    found = _function_of(name) if isinstance(name, str) else None
    if found is None:
        raise NotRestoredError(f"it names {name!r}, which is not looked up for a file")
    return found


# where functions and classes may come from, and which
_NAMESPACES: dict[str, tuple[Any, Callable[[Any], bool]]] = {
    "torch.optim": (
        torch.optim,
        lambda found: isinstance(found, type) and issubclass(found, torch.optim.Optimizer),
    ),
    "torch.optim.lr_scheduler": (
        torch.optim.lr_scheduler,
        lambda found: (
            isinstance(found, type) and issubclass(found, torch.optim.lr_scheduler.LRScheduler)
        ),
    ),
    "torch.nn": (
        torch.nn,
        lambda found: isinstance(found, type) and issubclass(found, torch.nn.Module),
    ),
    "torch.nn.functional": (torch.nn.functional, inspect.isroutine),
    "torch.utils.data": (
        torch.utils.data,
        lambda found: isinstance(found, type) and found.__module__.startswith("torch.utils.data"),
    ),
    "sklearn.metrics": (sklearn.metrics, lambda found: found in SCORE_FUNCTIONS),
    "numpy": (
        np,
        lambda found: isinstance(found, np.ufunc) or found in _NUMBER_TYPES,
    ),
    "builtins": (builtins, lambda found: found in _NUMBER_TYPES),
}


def _function_of(name: str) -> Any:
    namespace, _, last = name.rpartition(".")
    if namespace not in _NAMESPACES or last.startswith("_"):
        return None
    module, accepts = _NAMESPACES[namespace]
    found = getattr(module, last, None)
    return found if found is not None and accepts(found) else None


def distribution_of_name(name: Any) -> Any:
    """Return a distribution of :mod:`scipy.stats` by its name.

    Raises
    ------
    NotRestoredError
        If there is none.
    """
    found = getattr(scipy.stats, name, None) if isinstance(name, str) else None
    if not isinstance(found, scipy.stats.rv_continuous | scipy.stats.rv_discrete):
        raise NotRestoredError(f"it names {name!r}, which is not a distribution of scipy.stats")
    return found
