"""Describe parameters and data by short texts that are the same in every process."""

import hashlib
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

# parameters that do not change the trained member
_WITHOUT_INFLUENCE = ("n_jobs", "verbose", "memory")


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
    if isinstance(value, BaseEstimator):
        return name  # its parameters are parameters too
    try:
        return f"{name} {joblib.hash(value)}"
    except Exception:  # objects that cannot be pickled are distinguished only by class
        return name


def describe_estimator(estimator: Any) -> dict[str, str]:
    """Describe all parameters of an estimator, nested ones included, that influence its fit."""
    params = estimator.get_params() if hasattr(estimator, "get_params") else {}
    described = {
        name: describe(value)
        for name, value in params.items()
        if name.rpartition("__")[2] not in _WITHOUT_INFLUENCE
    }
    return {"estimator": describe(type(estimator))} | described
