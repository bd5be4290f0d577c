"""Checks of the arguments of scores, and warnings of common mistakes."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import get_tags

from sklearn_stndt._containers import as_array

# With fewer spikes, the scale of the rates cannot be judged.
_FEWEST_SPIKES = 50


def as_float64(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return `values` as a float64 array, with masked entries as NaN."""
    wanted = f"pass real numbers as {name}, in an array or in nested lists of equal lengths."
    values = as_array(values, name)
    if isinstance(values, np.ma.MaskedArray):
        values = np.ma.filled(values.astype(np.float64), np.nan)
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} is not a rectangular array ({error}); {wanted}") from error
    if array.dtype.kind not in "biufO":
        raise TypeError(f"{name} has dtype {array.dtype}; {wanted}")
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} holds values that are not real ({error}); {wanted}") from error


def rectangular(values: Any, name: str) -> NDArray:
    """Return `values` as an array; lists of unequal lengths are an error."""
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(
            f"{name} holds lists of unequal lengths, {values!r}; pass an array or a plain list."
        ) from error


def as_labels(values: Any, name: str) -> tuple[NDArray, NDArray[np.bool_]]:
    """Return labels as an array, and mark the known ones: not None, NaN, NaT, NA nor masked."""
    if isinstance(values, list | tuple):  # NumPy would turn NaN among strings into "nan"
        values = np.array(values, dtype=object)
    labels = np.asarray(values)
    if not labels.ndim:
        raise TypeError(f"{name} must be an array or a list of labels, got {values!r}.")
    if labels.dtype.kind == "U" and (labels == "nan").any():
        raise ValueError(
            f"{name} holds the string 'nan', which is what NumPy makes of NaN among strings. Pass "
            "a list, or an array with dtype=object."
        )
    if labels.dtype == object:
        if any(isinstance(label, list | tuple | np.ndarray) for label in labels.flat):
            raise ValueError(
                f"{name} holds lists of labels of unequal lengths; pass single labels."
            )
        known = np.array([_is_known(label) for label in labels.flat], dtype=bool)
        known = known.reshape(labels.shape)
    else:
        known = labels == labels  # NaN and NaT differ from themselves
    if isinstance(values, np.ma.MaskedArray):
        known &= ~np.ma.getmaskarray(values)
    return labels, known


def _is_known(label: Any) -> bool:
    try:
        return label is not None and bool(label == label)
    except TypeError:  # NA of pandas is neither equal to itself nor different
        return False


def number_labels(labels: NDArray, known: NDArray) -> tuple[NDArray, NDArray[np.intp]]:
    """Return the distinct labels in order, and the index of each label among them, -1 if unknown.

    Labels of different types are sorted by the name of their type first.
    """
    found = labels[known]
    try:
        distinct = np.unique(found)
    except TypeError:
        ordered = sorted(set(found.tolist()), key=lambda label: (type(label).__name__, label))
        distinct = np.empty(len(ordered), dtype=object)
        distinct[:] = ordered
    index = {label: number for number, label in enumerate(distinct.tolist())}
    numbers = np.full(labels.shape, -1, dtype=np.intp)
    numbers[known] = [index[label] for label in found.tolist()]
    return distinct, numbers


def check_predicts_numbers(estimator: Any, who: str) -> None:
    """Refuse an estimator whose predictions are labels, such as a classifier."""
    has_tags = hasattr(estimator, "__sklearn_tags__")
    kind = get_tags(estimator).estimator_type if has_tags else None
    if kind not in (None, "regressor"):
        raise TypeError(
            f"{who} compares numbers, but {type(estimator).__name__} is of type {kind!r} and "
            "predicts labels. Pass a regressor, or use the estimator's own score."
        )


def check_same_shape(a: NDArray, a_name: str, b: NDArray, b_name: str) -> None:
    """Raise an error if shapes differ, with a hint if bin widths seem to differ."""
    if a.shape == b.shape:
        return
    message = (
        f"{a_name} has shape {a.shape} and {b_name} has shape {b.shape}; pass two arrays of one "
        "shape, with a rate for each spike count."
    )
    if a.ndim == b.ndim >= 2 and a.shape[:-2] + a.shape[-1:] == b.shape[:-2] + b.shape[-1:]:
        few, many = sorted((a.shape[-2], b.shape[-2]))
        if few and many % few == 0:
            message += (
                f" One has {many // few} times as many bins as the other: were they binned with "
                "different bin widths? Use the same bins for both."
            )
    raise ValueError(message)


def check_neurons(
    neurons: Any, n_neurons: int, name: str = "neurons", *, from_the_end: bool = True
) -> NDArray[np.intp]:
    """Turn indices or a boolean mask into indices of neurons.

    Parameters
    ----------
    neurons : array-like of int or bool
        What the user passed.
    n_neurons : int
        Number of neurons that there are.
    name : str, default="neurons"
        Parameter that an error names.
    from_the_end : bool, default=True
        Whether negative indices count from the last neuron.
    """
    indices = rectangular(neurons, name)
    if indices.dtype == bool and indices.shape == (n_neurons,):
        indices = np.flatnonzero(indices)
    if indices.ndim != 1 or not indices.size or indices.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be a boolean mask of shape ({n_neurons},) or a list of indices, got "
            f"{neurons!r}. Name at least one neuron."
        )
    lowest = -n_neurons if from_the_end else 0
    if not (indices.min() >= lowest and indices.max() < n_neurons):
        raise ValueError(
            f"{name} must lie between 0 and {n_neurons - 1}, for X has {n_neurons} neurons, got "
            f"{indices.min()} to {indices.max()}."
        )
    indices = np.where(indices < 0, indices + n_neurons, indices).astype(np.intp)
    if len(np.unique(indices)) != len(indices):
        raise ValueError(f"{name} names a neuron twice, got {neurons!r}. Name each neuron once.")
    return indices


def check_n_bins(n_bins: Any, n_all: int) -> int:
    """Return a number of bins at the end of a trial after checking it."""
    whole = isinstance(n_bins, int | np.integer) and not isinstance(n_bins, bool | np.timedelta64)
    if not whole or not 0 < n_bins <= n_all:
        raise ValueError(
            f"n_bins must be a whole number from 1 to {n_all}, the bins of a trial, got {n_bins!r}."
        )
    return int(n_bins)


def warn_of_scale(spikes: NDArray, rates: NDArray, *, stacklevel: int) -> None:
    """Warn if the rates predict many more or many fewer spikes than were observed."""
    known = ~np.isnan(spikes)
    n_spikes, n_expected = spikes[known].sum(), rates[known].sum()
    if n_spikes < _FEWEST_SPIKES or not np.isfinite(n_expected):
        return
    ratio = n_expected / n_spikes
    if ratio > 8:
        reason = (
            "They look like Hz, or another bin width: multiply rates in Hz by the bin width in "
            f"seconds (a bin width of {1 / ratio:.2g} s would explain the ratio)."
        )
    elif ratio > 2.5 or ratio < 0.4:
        reason = "Were rates and spikes binned with different bin widths?"
    else:
        return
    warnings.warn(
        f"The rates predict {ratio:.3g} times as many spikes as were observed. {reason} "
        "check=False silences this.",
        UserWarning,
        stacklevel=stacklevel + 1,
    )


def warn_of_copies(spikes: NDArray, rates: NDArray, *, stacklevel: int) -> None:
    """Warn if rates are closer to the spikes than Poisson noise permits.

    For Poisson counts, the summed squared difference from the rates equals the sum of the rates on
    average. If it is less than half of that, the rates contain noise of the scored spikes.
    """
    known = ~np.isnan(spikes)
    spikes, rates = spikes[known], rates[known]
    n_expected = rates.sum()
    if spikes.sum() < _FEWEST_SPIKES or not 0 < n_expected < np.inf:
        return
    dispersion = np.sum((spikes - rates) ** 2) / n_expected
    if dispersion < 0.5:
        warnings.warn(
            "The rates follow the scored spikes more closely than Poisson noise permits (the mean "
            f"squared difference is {dispersion:.2g} times that of a Poisson process). Were the "
            "scored entries visible to the model? Set them to NaN before transform. If the "
            "neurons are that regular, check=False silences this.",
            UserWarning,
            stacklevel=stacklevel + 1,
        )


def warn_of_visible(X: NDArray, scored: Any, *, stacklevel: int) -> None:
    """Warn if scored entries were visible in the input of the model."""
    n_visible = np.count_nonzero(~np.isnan(X[scored]))
    if n_visible:
        warnings.warn(
            f"{n_visible} of {X[scored].size} scored entries were visible in X, so the model could "
            "copy them. Set them to NaN before transform. check=False silences this.",
            UserWarning,
            stacklevel=stacklevel + 1,
        )
