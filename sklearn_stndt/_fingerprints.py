"""Describe parameters and data by short texts that are the same in every process."""

import hashlib
import platform
from importlib.metadata import version
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from sklearn_stndt._pretrained import find_pretrained
from sklearn_stndt.network.likelihood import Likelihood

# parameters that do not change the trained member
_WITHOUT_INFLUENCE = ("n_jobs", "verbose", "memory", "checkpoint_dir")
_PACKAGES = ("sklearn_stndt", "torch", "skorch", "scikit-learn", "numpy")


def fingerprint(values: NDArray | None) -> str:
    """Describe an array by its type, its shape and a hash of its bytes."""
    if values is None:
        return "None"
    digest = hashlib.blake2b(digest_size=16)
    if values.dtype.hasobject:
        digest.update("\0".join(map(repr, values.tolist())).encode())
    else:
        for start in range(0, len(values), 4096):  # a memory map is read in pieces
            digest.update(np.ascontiguousarray(values[start : start + 4096]).data)
    return f"{values.dtype} {values.shape} {digest.hexdigest()}"


def describe(value: Any) -> str:
    """Describe the value of a parameter.

    Equal values have equal descriptions in every process. An object that is neither a plain value
    nor an estimator is described by its class and a hash of its state.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)
    if isinstance(value, np.ndarray):
        small = value.size <= 100 and not value.dtype.hasobject
        return f"array {value.tolist()}" if small else f"array {fingerprint(value)}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(describe, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{describe(k)}: {describe(v)}' for k, v in value.items())}}}"
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, FrozenEstimator):
        return f"{name} {_fingerprint_of_fit(value)}"
    if isinstance(value, BaseEstimator):
        return name  # its parameters are parameters too
    if isinstance(value, Likelihood):
        value = value.content()
    try:
        return f"{name} {joblib.hash(value)}"
    except Exception:  # objects that cannot be pickled are distinguished only by class
        return name


def _fingerprint_of_fit(frozen: FrozenEstimator) -> str:
    """Describe what was fitted: by the weights of its network, if it has one."""
    try:
        weights = find_pretrained(frozen).net_.module_.state_dict().values()
    except (TypeError, ValueError, NotFittedError):
        return str(joblib.hash(frozen.estimator))
    return fingerprint(np.concatenate([w.cpu().numpy().ravel() for w in weights]))


def describe_estimator(estimator: Any) -> dict[str, str]:
    """Describe all parameters of an estimator, nested ones included, that influence its fit."""
    params = estimator.get_params() if hasattr(estimator, "get_params") else {}
    described = {
        name: describe(value)
        for name, value in params.items()
        if name.rpartition("__")[2] not in _WITHOUT_INFLUENCE
    }
    return {"estimator": describe(type(estimator))} | described


def versions() -> dict[str, str]:
    """Versions of packages that may change the last bits of a result."""
    from sklearn_stndt import __version__

    found = {name: version(name) for name in _PACKAGES[1:]}
    return {_PACKAGES[0]: __version__} | found | {"python": platform.python_version()}


def changed_versions(then: dict[str, str]) -> list[str]:
    """Say which of these versions are others now."""
    return [
        f"{name} {then.get(name)} (now {number})"
        for name, number in versions().items()
        if then.get(name) != number
    ]
