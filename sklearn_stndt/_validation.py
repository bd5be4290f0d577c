"""Checks of user input; each error says what was passed, what is expected and what to do."""

import math
import warnings
from numbers import Integral, Real
from typing import Any

import joblib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array
from sklearn.utils._param_validation import Interval, InvalidParameterError
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import check_consistent_length, validate_data

from sklearn_stndt._containers import as_array, check_is_no_vector, divide, neuron_names, runs
from sklearn_stndt._rates import likelihoods_in
from sklearn_stndt.metrics._checks import check_neurons
from sklearn_stndt.network.likelihood import LARGEST_SIGNAL, MAX_LOG_RATE, known_likelihoods
from sklearn_stndt.windows.out_of_core import extremes, mapping_of

LARGEST_COUNT = math.exp(MAX_LOG_RATE)  # rates end there


def refuse_booleans(estimator: Any) -> None:
    """Refuse booleans and durations as numbers, which Python, numpy and scikit-learn accept.

    Raises
    ------
    InvalidParameterError
        If a parameter that takes a number is a boolean or a numpy duration.
    """
    for name, constraints in estimator._parameter_constraints.items():
        value = getattr(estimator, name)
        numeric = any(isinstance(c, Interval) or c in (Integral, Real) for c in constraints)
        # what takes arrays too has its own checks of booleans
        refused = isinstance(value, bool) and "array-like" not in constraints
        if numeric and (refused or isinstance(value, np.timedelta64)):
            raise InvalidParameterError(
                f"The {name!r} parameter of {type(estimator).__name__} takes a number, got "
                f"{value!r}. Pass a number."
            )


def check_callbacks(callbacks: list | None) -> None:
    """Refuse what is not a callback of skorch, or a pair of a name and a callback.

    Raises
    ------
    TypeError
        If an entry is anything else.
    """
    for entry in callbacks or []:
        named = isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str)
        callback = entry[1] if named else entry
        if isinstance(callback, type) or not hasattr(callback, "on_train_begin"):
            raise TypeError(
                f"callbacks must be a list of skorch callbacks, but contains {entry!r}. Pass "
                "instances, such as skorch.callbacks.EpochTimer(), or pairs (name, callback)."
            )


# parameters that determine the shapes of the network's input and targets
FIXED_BY_FIT = ("heldout_neurons", "forecast_bins", "window")


def check_unchanged(estimator: Any, before: dict[str, Any]) -> None:
    """Refuse to continue training with other inputs or targets."""
    for name, value in before.items():
        now = getattr(estimator, name)
        if joblib.hash(now) != joblib.hash(value):
            raise ValueError(
                f"warm_start=True continues training a network fitted with {name}={value!r}, "
                f"but {name} is now {now!r}. Set it back, or fit a clone."
            )


def check_counts(estimator: Any, X: ArrayLike, *, reset: bool, likelihood: Any = None) -> NDArray:
    """Check spike counts, 2D or 3D, NaN allowed; record the neurons, or compare them with fit.

    Parameters
    ----------
    estimator : estimator
        If `reset`, its `n_features_in_` and `feature_names_in_` are set; else X must match them.
    X : array-like of shape (n_bins, n_neurons) or (n_trials, n_bins, n_neurons)
        Counts per bin.
    reset : bool
        True in fit.
    likelihood : str or Likelihood, default=None
        Likelihood that says which values are legal. None: that of the estimator.

    Returns
    -------
    ndarray, same shape
        float32, float64, or the integer type of X. Trials of a TsdTensor are the first axis.
    """
    name = type(estimator).__name__
    names = neuron_names(X)
    X = as_array(X)
    if isinstance(X, np.ma.MaskedArray):
        X = np.ma.filled(X.astype(np.result_type(X.dtype, np.float32)), np.nan)
    check_is_no_vector(X)
    _refuse_unequal(X, name)
    mapped = isinstance(X, np.ndarray) and mapping_of(X) is not None
    try:
        counts = check_array(
            X,
            dtype="numeric",
            allow_nd=True,
            # this would read a whole memory map at once; it is checked in pieces below
            ensure_all_finite=not mapped and "allow-nan",
            estimator=estimator,
            input_name="X",
        )
    except (TypeError, ValueError) as error:
        if columns := _columns_without_numbers(X):
            raise ValueError(
                f"X has columns that hold no numbers, {columns}, and {name} takes every column for "
                "a neuron. Leave them out of X; pass the trial of each row as groups."
            ) from error
        raise
    if counts.dtype.kind in "mM":
        raise TypeError(
            f"X has dtype {counts.dtype}, which is of times, but {name} expects numbers per bin. "
            "Bin spike times: sklearn_stndt.datasets.bin_spikes."
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
    # scikit-learn reads the number and names of features from a 2D table; each row is a bin
    table = X if counts.ndim == 2 else counts.reshape(-1, counts.shape[-1])
    if names is not None:
        import pandas as pd  # required by pynapple and by xarray, which X comes from

        table = pd.DataFrame(columns=names)
    validate_data(estimator, table, reset=reset, skip_check_array=True)
    if counts.dtype == np.float16:
        counts = counts.astype(np.float32)
    if counts.dtype.kind not in "ub" or counts.dtype.itemsize > 2:
        likelihoods = likelihoods_in(estimator, not reset) if likelihood is None else [likelihood]
        if may_be_negative(likelihoods):
            _check_signals(counts, name)
        else:
            _check_values(counts, name, largest_entry(likelihoods))
    return counts


def check_added_neurons(fitted: Any, extended: Any, counts: NDArray) -> None:
    """Check that counts hold the neurons of a fitted estimator, and then others.

    Parameters
    ----------
    fitted, extended : estimator
        Before and after `check_counts` has recorded the neurons of the counts.
    counts : ndarray of shape (..., n_neurons)

    Raises
    ------
    ValueError
        If they do not, or if a new neuron has no known count.
    """
    n_known, n_all = fitted.n_features_in_, counts.shape[-1]
    if n_all <= n_known:
        raise ValueError(
            f"X has {n_all} neurons, and {type(fitted).__name__} was fitted on {n_known}. Pass "
            "these in the same order, and the new ones after them."
        )
    names = getattr(fitted, "feature_names_in_", None)
    given = getattr(extended, "feature_names_in_", None)
    if names is not None and given is not None and list(given[:n_known]) != list(names):
        raise ValueError(
            f"The first {n_known} neurons of X must be those of fit, in the same order: "
            f"{list(names)[:5]}..., got {list(given[:n_known])[:5]}... Pass the new ones after "
            "them."
        )
    if counts.dtype.kind == "f":
        unknown = np.isnan(counts[..., n_known:]).reshape(-1, n_all - n_known).all(0)
        if unknown.any():
            raise ValueError(
                f"Neurons {(n_known + np.flatnonzero(unknown)).tolist()} are NaN everywhere in X, "
                "so nothing can be learned about them. Leave them out."
            )


def _columns_without_numbers(X: Any) -> list[Any]:
    """Names of the columns of a table with text, dates or other objects."""
    found = []
    for column in getattr(X, "columns", []):
        try:
            values = np.asarray(X[column])
            if values.dtype.kind in "mM":
                raise TypeError
            values.astype(np.float64)
        except (TypeError, ValueError):
            found.append(column)
    return found


def may_be_negative(likelihoods: list[Any]) -> bool:
    """Whether one of these likelihoods has negative entries."""
    return any(one.lowest is None for one in known_likelihoods(likelihoods))


def largest_entry(likelihoods: list[Any]) -> float:
    """Largest entry that all of these likelihoods allow; of counts, if there are none."""
    known = known_likelihoods(likelihoods)
    return LARGEST_COUNT if not known or any(one.counts for one in known) else LARGEST_SIGNAL


def _refuse_unequal(X: Any, name: str) -> None:
    """Explain why a list of trials does not form an array."""
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
            f"{name} was given trials with different numbers of neurons: {sorted(shapes)} "
            "(n_bins, n_neurons). Give all trials the same neurons, NaN where one is missing."
        )
    lengths = sorted(shape[0] for shape in shapes)
    raise ValueError(
        f"{name} was given a list of trials of {lengths[0]} to {lengths[-1]} bins, not an array. "
        "Pad the shorter ones with NaN: sklearn_stndt.datasets.pad_trials(trials), and their "
        "behaviour too."
    )


def _check_values(counts: NDArray, name: str, largest_allowed: float) -> None:
    """Refuse negative or too large values, and counts that are all NaN."""
    smallest, largest = extremes(counts)
    if np.isnan(smallest):
        raise ValueError(
            f"X is NaN everywhere, and NaN means hidden: {name} has nothing to infer rates "
            "from. Pass at least one spike count."
        )
    if smallest < 0:
        raise ValueError(
            f"Negative values in data passed to {name}: the smallest is {smallest:g}, and spike "
            "counts are at least 0. Pass counts that are not centred; mark missing values "
            'with NaN. For signals such as dF/F, LFP power or EMG, set likelihood="gaussian".'
        )
    if largest_allowed > LARGEST_COUNT:
        _check_size(smallest, largest, name)
    elif largest > LARGEST_COUNT:
        raise ValueError(
            f"X holds a count of {largest:g} in one bin, and {name} infers rates up to e^15 = "
            f"{LARGEST_COUNT:,.0f} spikes per bin. Pass spike counts per bin, NaN for artefacts."
        )


def _check_signals(signals: NDArray, name: str) -> None:
    """Refuse signals too large to be squared, and those that are all NaN."""
    smallest, largest = extremes(signals)
    if np.isnan(smallest):
        raise ValueError(
            f"X is NaN everywhere, and NaN means hidden: {name} has nothing to infer expected "
            "values from. Pass at least one value."
        )
    _check_size(smallest, largest, name)


def _check_size(smallest: float, largest: float, name: str) -> None:
    """Refuse values too large to be squared."""
    if max(abs(smallest), abs(largest)) > LARGEST_SIGNAL:
        raise ValueError(
            f"X holds values from {smallest:g} to {largest:g}, and {name} takes values up to "
            f"{LARGEST_SIGNAL:g}. Pass them in another unit, NaN for artefacts."
        )


def check_groups(X: NDArray, groups: ArrayLike | None, container: Any = None) -> NDArray | None:
    """Check the trial of each row of a 2D X; groups of a 3D X are only for cross-validation.

    Parameters
    ----------
    X : ndarray of shape (n_bins, n_neurons) or (n_trials, n_bins, n_neurons)
        Checked counts.
    groups : array-like or None
        As the user passed them.
    container : object, default=None
        X as the user passed it. If it has a clock, groups are divided at its gaps.

    Returns
    -------
    ndarray of shape (n_bins,) or None
        None for a 3D X, whose trials are known without groups.
    """
    return divide(_check_groups(X, groups), runs(container))


def _check_groups(X: NDArray, groups: ArrayLike | None) -> NDArray | None:
    if groups is None:
        return None
    groups = np.asarray(groups)
    if X.ndim == 3:
        if groups.shape != X.shape[:1]:
            raise ValueError(
                f"groups has shape {groups.shape}, but X is 3D with {len(X)} trials: {X.shape}. "
                f"Pass one group per trial, of shape ({len(X)},), or leave groups out."
            )
        return None
    if groups.ndim != 1:
        raise ValueError(
            f"groups must hold the trial of each row of X, a 1d array of shape ({len(X)},), got "
            f"shape {groups.shape}."
        )
    check_consistent_length(X, groups)
    if np.any(groups != groups):  # only NaN differs from itself
        raise ValueError(
            "groups holds NaN, but every row needs a trial. Pass the trial of every row."
        )
    return groups


def check_table_output(estimator: Any, X: ArrayLike) -> bool:
    """Return whether `transform` returns a table; refuse that for a 3D X."""
    container = _get_output_config("transform", estimator)["dense"]
    if getattr(X, "ndim", 2) == 3 and container != "default":
        raise ValueError(
            f"{container} output is for a 2D X, got X of shape {np.shape(X)}. Call "
            "set_output(transform='default'), or pass a 2D X with the trials of its rows as groups."
        )
    return container != "default"


def check_heldout_neurons(
    heldout: Any, n_neurons: int, random_state: np.random.RandomState
) -> NDArray:
    """Convert a number, a fraction, a boolean mask or indices to sorted indices of neurons."""
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
    size = len(heldout) if isinstance(heldout, list | tuple) else np.size(heldout)
    if not isinstance(heldout, Real) and not size:
        return np.array([], dtype=np.intp)
    indices = np.sort(check_neurons(heldout, n_neurons, "heldout_neurons", from_the_end=False))
    if len(indices) == n_neurons:
        raise ValueError(
            f"heldout_neurons names all {n_neurons} neurons, so nothing is left to infer rates "
            "from. Leave at least one out of the list."
        )
    return indices


def check_forecast(n_bins: Any, window: int, trained: int) -> None:
    """Check the number of bins to forecast; warn if it exceeds the number trained."""
    if not (isinstance(n_bins, Integral) and 0 < int(n_bins) < window):
        raise ValueError(
            f"n_bins must be a whole number from 1 to {window - 1}, below the window of {window} "
            f"bins, got {n_bins!r}."
        )
    if int(n_bins) > trained:
        warnings.warn(
            f"The estimator was trained with forecast_bins={trained}; the other "
            f"{int(n_bins) - trained} of {n_bins} bins are unreliable. Fit with "
            f"forecast_bins={n_bins}.",
            stacklevel=3,
        )


def warn_of_divergence(net: Any) -> None:
    """Warn that training has diverged and was continued with a smaller step."""
    if net.diverged_:
        warnings.warn(net.diverged_, ConvergenceWarning, stacklevel=5)


def warn_of_interruption(net: Any, previous: Any) -> None:
    """Warn that training was interrupted, and say which weights are kept."""
    epoch = len(net.history) - (0 if previous is None else len(previous.history))
    which = "best" if "valid_bits" in net.history[0] else "latest"
    warnings.warn(
        f"Training was interrupted in epoch {epoch} of {net.max_epochs}. The estimator can be "
        f"used: it keeps the {which} weights so far.",
        ConvergenceWarning,
        stacklevel=5,
    )
