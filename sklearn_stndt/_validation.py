"""Checks of user input; each error says what came, what was wanted and what to do."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import joblib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import check_consistent_length, validate_data

from sklearn_stndt.metrics._checks import check_neurons
from sklearn_stndt.windows.out_of_core import extremes, mapping_of

_LARGEST_COUNT = float(np.finfo(np.float32).max)


@contextmanager
def unchanged_if_failed(estimator: Any) -> Iterator[None]:
    """Leave an estimator as it was where what is done to it fails."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


# what the shape of a network's input and targets follows from
FIXED_BY_FIT = ("heldout_neurons", "forecast_bins", "window")


def check_unchanged(estimator: Any, before: dict[str, Any]) -> None:
    """Refuse to go on training with another input or other targets."""
    for name, value in before.items():
        now = getattr(estimator, name)
        if joblib.hash(now) != joblib.hash(value):
            raise ValueError(
                f"warm_start=True goes on with a network that was fitted with {name}={value!r}, "
                f"but {name} is {now!r} now. Set it back, or fit a clone."
            )


def check_counts(estimator: Any, X: ArrayLike, *, reset: bool) -> NDArray:
    """Check spike counts, 2D or 3D, NaN allowed; record or compare the neurons.

    Parameters
    ----------
    estimator : estimator
        Gets `n_features_in_` and `feature_names_in_` if `reset`, is compared with them if not.
    X : array-like of shape (n_bins, n_neurons) or (n_trials, n_bins, n_neurons)
        Counts per bin.
    reset : bool
        True in fit.

    Returns
    -------
    ndarray, same shape
        float32, float64, or an integer type as it came.
    """
    name = type(estimator).__name__
    if isinstance(X, np.ma.MaskedArray):
        X = np.ma.filled(X.astype(np.result_type(X.dtype, np.float32)), np.nan)
    _refuse_unequal(X, name)
    mapped = isinstance(X, np.ndarray) and mapping_of(X) is not None
    counts = check_array(
        X,
        dtype="numeric",
        allow_nd=True,
        # a memory map would be read as a whole; it is checked below, piece by piece
        ensure_all_finite=not mapped and "allow-nan",
        estimator=estimator,
        input_name="X",
    )
    if counts.ndim > 3:
        raise ValueError(
            f"{name} expects X of shape (n_bins, n_neurons) or (n_trials, n_bins, n_neurons), "
            f"got {counts.ndim} dimensions: {counts.shape}. Merge the leading axes into trials."
        )
    if 0 in counts.shape:
        raise ValueError(
            f"Found array with 0 sample(s) or bins or neurons (shape={counts.shape}) while a "
            f"minimum of 1 of each is required by {name}."
        )
    # scikit-learn reads names and number of features from a table; a row is a bin here
    validate_data(
        estimator,
        X if counts.ndim == 2 else counts.reshape(-1, counts.shape[-1]),
        reset=reset,
        skip_check_array=True,
    )
    if counts.dtype == np.float16:
        counts = counts.astype(np.float32)
    if counts.dtype.kind not in "ub":
        _check_values(counts, name)
    return counts


def _refuse_unequal(X: Any, name: str) -> None:
    """Name what is wrong with a list of trials that do not fit into one array."""
    if isinstance(X, np.ndarray):
        if X.dtype != object:
            return
    elif not isinstance(X, list | tuple):
        return
    trials = [x if hasattr(x, "shape") else np.asarray(x, dtype=object) for x in X]
    shapes = {tuple(trial.shape) for trial in trials if len(trial.shape) == 2}
    if len(shapes) < 2:
        return
    if len({shape[1] for shape in shapes}) > 1:
        raise ValueError(
            f"{name} was given trials of different numbers of neurons: {sorted(shapes)} "
            "(n_bins, n_neurons). Bring all to the same neurons, NaN where one is unknown."
        )
    lengths = sorted(shape[0] for shape in shapes)
    raise ValueError(
        f"{name} was given a list of trials of {lengths[0]} to {lengths[-1]} bins, which makes no "
        "array. Pad the shorter ones with NaN to an array of shape (n_trials, n_bins, n_neurons)."
    )


def _check_values(counts: NDArray, name: str) -> None:
    """Refuse values that no spike count has, and counts that say nothing."""
    smallest, largest = extremes(counts)
    if np.isnan(smallest):
        raise ValueError(
            f"X is NaN everywhere, and NaN means hidden: {name} has nothing to infer rates "
            "from. Pass at least one spike count."
        )
    if smallest < 0:
        raise ValueError(
            f"Negative values in data passed to {name}: the smallest is {smallest:g}, and spike "
            "counts are at least 0. Pass counts that are not centred; mark what is missing "
            "with NaN."
        )
    if largest > _LARGEST_COUNT:
        raise ValueError(
            f"X holds a value too large for float32: {largest}. Pass spike counts per bin."
        )


def check_groups(X: NDArray, groups: ArrayLike | None) -> NDArray | None:
    """Check the trial of each row of a 2D X; of a 3D X, groups are for cross-validation alone.

    Returns
    -------
    ndarray of shape (n_bins,) or None
        None where X is 3D: its trials are known, whatever groups they belong to.
    """
    if groups is None:
        return None
    groups = np.asarray(groups)
    if X.ndim == 3:
        if groups.shape != X.shape[:1]:
            raise ValueError(
                f"groups has shape {groups.shape}, but X is 3D, of {len(X)} trials: {X.shape}. "
                f"Pass one group a trial, of shape ({len(X)},), or leave groups out."
            )
        return None
    if groups.ndim != 1:
        raise ValueError(
            f"groups must name the trial of each row of X, a 1d array of shape ({len(X)},), got "
            f"shape {groups.shape}."
        )
    check_consistent_length(X, groups)
    if np.any(groups != groups):  # NaN alone differs from itself
        raise ValueError(
            "groups holds NaN, and a row without a trial cannot be placed. Name every row's trial."
        )
    return groups


def check_table_output(estimator: Any, X: ArrayLike) -> None:
    """Refuse to put trials into a table."""
    container = _get_output_config("transform", estimator)["dense"]
    if getattr(X, "ndim", 2) == 3 and container != "default":
        raise ValueError(
            f"{container} output is for a 2D X, got X of shape {np.shape(X)}. Call "
            "set_output(transform='default'), or pass rows and name their trials by `groups`."
        )


def check_heldout_neurons(
    heldout: Any, n_neurons: int, random_state: np.random.RandomState
) -> NDArray:
    """Turn a number, a fraction, a boolean mask or indices into sorted indices of neurons."""
    if heldout is None:
        return np.array([], dtype=np.intp)
    if isinstance(heldout, Real) and not isinstance(heldout, bool | np.bool_):
        if isinstance(heldout, Integral):
            number = int(heldout)
        else:
            number = max(round(float(heldout) * n_neurons), 1)
        if not 0 < number < n_neurons:
            raise ValueError(
                f"heldout_neurons={heldout!r} would hide {number} of {n_neurons} neurons; hold out "
                "at least one and leave at least one."
            )
        return np.sort(random_state.permutation(n_neurons)[:number])
    if not isinstance(heldout, Real) and not np.size(heldout):
        return np.array([], dtype=np.intp)
    indices = np.sort(check_neurons(heldout, n_neurons, "heldout_neurons", from_the_end=False))
    if len(indices) == n_neurons:
        raise ValueError(
            f"heldout_neurons names all {n_neurons} neurons, so nothing is left to infer rates "
            "from. Leave at least one out of the list."
        )
    return indices


def check_forecast(n_bins: Any, window: int, trained: int) -> None:
    """Check how many bins are to be forecast; warn where they go beyond what was trained."""
    if not (isinstance(n_bins, Integral) and 0 < int(n_bins) < window):
        raise ValueError(
            f"n_bins must be a whole number from 1 to {window - 1}, below the window of {window} "
            f"bins, got {n_bins!r}."
        )
    if int(n_bins) > trained:
        warnings.warn(
            f"The estimator was trained with forecast_bins={trained}; the other "
            f"{int(n_bins) - trained} of {n_bins} bins are a guess. Fit with "
            f"forecast_bins={n_bins}.",
            stacklevel=3,
        )


def warn_of_interruption(net: Any, previous: Any) -> None:
    """Say that fit ended before its time, and what it leaves."""
    epoch = len(net.history) - (0 if previous is None else len(previous.history))
    which = "best" if "valid_bits" in net.history[0] else "latest"
    warnings.warn(
        f"Training was interrupted in epoch {epoch} of {net.max_epochs}. The estimator can be "
        f"used: it keeps the {which} weights so far.",
        ConvergenceWarning,
        stacklevel=5,
    )
