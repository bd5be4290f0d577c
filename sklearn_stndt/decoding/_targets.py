"""Check `y` of decoders: numbers or labels, per bin or per trial, some of them unknown."""

import warnings
from numbers import Real

import numpy as np
from sklearn.exceptions import DataConversionWarning
from sklearn.utils import check_array
from sklearn.utils.multiclass import check_classification_targets

from sklearn_stndt._containers import as_array
from sklearn_stndt.decoding._base import ALTERNATIVES, first_and_last_bin
from sklearn_stndt.metrics._checks import as_labels


def _check_y_is_given(y, estimator, wanted):
    if y is None:
        raise ValueError(
            f"{estimator} requires y to be passed, but the target y is None; pass {wanted}."
        )


def check_numbers(y, shape):
    """Return `y` as a numeric array whose first axes are `shape`, those of the bins."""
    _check_y_is_given(y, "BinwiseRegressor", "the behaviour in each bin of X")
    try:
        y = check_array(
            as_array(y, "y"),
            dtype="numeric",
            ensure_all_finite="allow-nan",
            ensure_2d=False,
            allow_nd=True,
            input_name="y",
        )
    except (TypeError, ValueError) as error:
        if not _holds_strings(y):
            raise
        raise ValueError(
            "y holds strings, and BinwiseRegressor predicts numbers. " + ALTERNATIVES["classifier"]
        ) from error
    n_axes = len(shape)
    if y.shape[:n_axes] != shape or y.ndim > n_axes + 1 or y.size == 0:
        axes, wanted = _axes_of_bins(shape)
        raise ValueError(
            f"y has shape {y.shape}, which does not fit X with ({axes}) = ({wanted}); expected "
            f"one target for each bin, of shape ({wanted}{',' * (n_axes == 1)}), or several, of "
            f"shape ({wanted}, n_targets).{_hint(y.shape, shape)}"
        )
    return y


def _hint(given, shape):
    """What to do about targets of another shape, after a space, if that can be guessed."""
    n_axes = len(shape)
    if given[::-1][:n_axes] == shape:
        return " Their axes are reversed: pass y.T."
    if n_axes == 2 and given in ((shape[0],), (shape[0], 1)):
        return (
            " To predict one number for each trial, average rates over bins and use a regressor of "
            "scikit-learn."
        )
    axis = n_axes - 1
    if len(given) > axis and given[:axis] == shape[:axis] and given[axis] != shape[axis]:
        return (
            f" If y was sampled at another rate than once per bin, bring it into the bins of X: "
            f"sklearn_stndt.datasets.{'bin_signals' if n_axes == 1 else 'align_signals'}."
        )
    return ""


def _axes_of_bins(shape):
    """Return the names and the lengths of the axes that count bins, as text."""
    axes = "n_bins" if len(shape) == 1 else "n_trials, n_bins"
    return axes, ", ".join(str(length) for length in shape)


def _holds_strings(y):
    """Whether `y` is an array of strings, or of objects with a string among them."""
    values = np.asarray(y)
    if values.dtype.kind == "O":
        return any(isinstance(value, str) for value in values.ravel())
    return values.dtype.kind in "SU"


def known_targets(targets, n_axes):
    """Mark the bins none of whose targets is NaN; `n_axes` axes count bins."""
    known = ~np.isnan(targets)
    if targets.ndim > n_axes:
        known = known.all(axis=-1)
    if not known.any():
        raise ValueError(
            f"y, of shape {targets.shape}, has a NaN among the targets of every bin; pass at "
            "least one bin whose targets are all known."
        )
    return known


def check_labels(y, bins):
    """Return the label of each bin, and mark the bins whose label is known."""
    _check_y_is_given(y, "BinwiseClassifier", "the label of each bin of X, or of each trial")
    labels, known = as_labels(y, "y")
    shape = bins.shape[:-1]
    is_column = labels.shape in ((*shape, 1), (*shape[:1], 1)) and labels.shape != shape
    if is_column:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected: y has shape "
            f"{labels.shape}. Leave out its last axis, as in y[..., 0].",
            DataConversionWarning,
            stacklevel=5,
        )
        labels, known = labels[..., 0], known[..., 0]
    if labels.shape not in (shape, shape[:1]):
        axes, wanted = _axes_of_bins(shape)
        if labels.shape[:-1] == shape:
            raise ValueError(
                f"y has shape {labels.shape}, several labels for each bin, but BinwiseClassifier "
                "predicts one. Fit a classifier for each of them."
            )
        of_trial = f", or one for each trial, of shape ({shape[0]},)" if len(shape) == 2 else ""
        raise ValueError(
            f"y has shape {labels.shape}, which does not fit X with ({axes}) = ({wanted}); "
            f"expected one label for each bin, of shape ({wanted}{',' * (len(shape) == 1)})"
            f"{of_trial}."
        )
    if not known.any():
        raise ValueError(
            f"y, of shape {labels.shape}, holds no known label: None and NaN mark unknown ones. "
            "Pass at least one label."
        )
    labels = _as_classes(labels, known)
    if labels.shape != shape:  # one label per trial
        first, last = first_and_last_bin(bins)
        time = np.arange(shape[1])
        inside = (first[:, None] <= time) & (time <= last[:, None])  # (trials, bins)
        labels, known = np.broadcast_to(labels[:, None], shape), known[:, None] & inside
    return labels, known


def _as_classes(labels, known):
    """Check that the known labels are classes; return labels of their common type."""
    classes = labels[known]
    if labels.dtype == object:
        found = classes.tolist()
        if all(isinstance(label, bool | np.bool_) for label in found):
            classes = classes.astype(bool)
        elif all(isinstance(label, Real | np.bool_) for label in found):
            classes = np.array(found)
        elif not all(isinstance(label, str) for label in found):
            types = sorted({type(label).__name__ for label in found})
            raise ValueError(
                f"y holds labels of type {', '.join(types)}; pass labels of one type: strings, "
                "integers or booleans."
            )
    classes = check_array(classes, dtype=None, ensure_2d=False, input_name="y")
    try:
        check_classification_targets(classes)
    except ValueError as error:
        raise ValueError(f"{error} {ALTERNATIVES['regressor']}") from error
    same_type = np.zeros(labels.shape, dtype=classes.dtype)
    same_type[known] = classes
    return same_type
