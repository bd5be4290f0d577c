"""Estimators of scikit-learn, by skops: known classes only, and checked before they are read."""

import functools
import io
import json
import zipfile
from typing import Any

import numpy as np
import sklearn.model_selection

from sklearn_stndt.persistence.archive import check_array, open_parts
from sklearn_stndt.persistence.extras import extra
from sklearn_stndt.persistence.refusals import CannotSaveError
from sklearn_stndt.persistence.registry import HELPERS, SCORE_FUNCTIONS, NotRestoredError

_SCHEMA = "schema.json"
_METRICS = ("Chebyshev", "Euclidean", "Manhattan", "Minkowski")
_PROTOCOL = 2  # of skops; earlier ones are read by code that is less strict
# attributes of scikit-learn's estimators that are no estimators themselves; none of them runs code
_PLAIN = (
    "numpy.dtype",
    "numpy.mean",
    "sklearn._loss.loss.HalfTweedieLoss",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.feature_selection._univariate_selection.f_classif",
    "sklearn.feature_selection._univariate_selection.f_regression",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
)
# in these, scikit-learn and scipy follow numbers without checking that they are in bounds
_MAY_CRASH = (
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
    "scipy.interpolate._bsplines.BSpline",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    *(f"sklearn.metrics._dist_metrics.{name}Distance64" for name in _METRICS),
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.tree._tree.Tree",
)
# kinds of nodes that call a function, or that read other formats
_REFUSED = {"MethodNode", "PartialNode", "OperatorFuncNode", "SparseMatrixNode"}


def dump(step: Any, where: str) -> bytes:
    """Return an estimator or another object of scikit-learn as a file of skops.

    Parameters
    ----------
    step : object
    where : str
        Its place in errors.

    Raises
    ------
    CannotSaveError
        If it, or something in it, is not scikit-learn's, numpy's or scipy's own.
    """
    skops = extra("skops.io")
    remedy = (
        "Change it before saving, or use joblib.dump, whose files may only be loaded if they come "
        "from people you trust."
    )
    name = f"{where}, a {type(step).__name__},"
    try:
        content = skops.dumps(step)
    except Exception as error:  # skops raises errors of many kinds
        raise CannotSaveError(f"{name} cannot be saved by skops ({error}). {remedy}") from error
    unknown = sorted(set(skops.get_untrusted_types(data=content)) - trusted_types(True))
    if unknown:
        raise CannotSaveError(
            f"{name} holds {unknown[0]}, which cannot be saved without pickle. {remedy}"
        )
    try:
        _check(content)
    except ValueError as error:
        raise CannotSaveError(f"{name} cannot be saved: {error}. {remedy}") from error
    return content


def load(content: bytes, trusted: bool) -> Any:
    """Restore an object of scikit-learn.

    Parameters
    ----------
    content : bytes
        File of skops.
    trusted : bool
        Also restore trees.

    Raises
    ------
    NotRestoredError
        If it holds what is not trusted.
    ValueError
        If it is not what `dump` writes.
    """
    skops = extra("skops.io")
    _check(content)
    unknown = set(skops.get_untrusted_types(data=content)) - trusted_types(trusted)
    if unknown - trusted_types(True):
        raise NotRestoredError(
            f"it holds {min(unknown - trusted_types(True))}, which is not among the classes and "
            "functions that are restored"
        )
    if unknown:
        raise NotRestoredError(
            f"it holds {min(unknown)}, and scikit-learn does not check the numbers in it when it "
            "uses them, so that an altered file can crash Python. If you trust the source of the "
            "file, pass trusted=True"
        )
    try:
        return skops.loads(content, trusted=sorted(trusted_types(trusted)))
    except ImportError as error:
        raise NotRestoredError(f"this version of scikit-learn lacks a part of it ({error})") from (
            error
        )


@functools.cache
def trusted_types(may_crash: bool) -> frozenset[str]:
    """Names of what is restored, in addition to what skops trusts: none of it runs code.

    Parameters
    ----------
    may_crash : bool
        Include what can crash Python after it was altered.
    """
    from sklearn.gaussian_process import kernels  # takes a while, and is rarely needed

    public = [vars(sklearn.model_selection).get(n) for n in sklearn.model_selection.__all__]
    splitters = [value for value in public if hasattr(value, "split")]
    of_kernels = [
        value
        for value in vars(kernels).values()
        if isinstance(value, type) and issubclass(value, kernels.Kernel)
    ]
    known = [*HELPERS, *SCORE_FUNCTIONS, *splitters, *of_kernels]
    names = [f"{value.__module__}.{value.__name__}" for value in known]
    return frozenset([*names, *_PLAIN, *(_MAY_CRASH if may_crash else ())])


def _check(content: bytes) -> None:
    """Check sizes and kinds in a file of skops before skops reads it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = open_parts(archive, len(content))
        schema = json.loads(archive.read(entries[_SCHEMA]))
        if type(schema["protocol"]) is not int or schema["protocol"] < _PROTOCOL:
            raise ValueError(f"its part for skops has the protocol {schema['protocol']!r}")
        _check_nodes(schema)
        for name, entry in entries.items():
            if name.endswith(".npy"):
                with archive.open(entry) as file:
                    check_array(file, entry.file_size)


def _check_nodes(node: Any) -> None:
    """Refuse nodes that `dump` does not write."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            waiting += node.values()
            loader, cls = node.get("__loader__"), node.get("__class__")
            if loader in _REFUSED:
                raise ValueError(f"it holds what skops reads as {loader}")
            if loader == "NdArrayNode" and cls != "ndarray":
                found = getattr(np, str(cls), None)
                # the others of numpy's types take a number as a size
                if not (isinstance(found, type) and issubclass(found, np.number | np.bool_)):
                    raise ValueError(f"it holds a scalar of the type {cls!r}")
