"""Containers of counts besides arrays and tables: pynapple, xarray; and how to return them.

No library is imported unless X is one of its objects, so neither pynapple nor xarray is required.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# words in the names of dimensions of a DataArray by which their order is checked
_DIMENSIONS = {
    "trial": {"trial", "trials", "presentation", "presentations"},
    "time": {"time", "times", "timestamp", "timestamps", "bin", "bins"},
    "neuron": {"neuron", "neurons", "unit", "units", "cell", "cells"},
}
_BIN_SPIKES = "sklearn_stndt.datasets.bin_spikes"
_LARGEST_STEP = 1.5  # bins from one row to the next; more is a gap


def _is(X: Any, package: str, *names: str) -> bool:
    """Whether X is an instance of a class, or of a subclass of it, without importing it."""
    return any(
        base.__name__ in names and base.__module__.partition(".")[0] == package
        for base in type(X).__mro__
    )


def is_pynapple(X: Any) -> bool:
    """Whether X is a TsdFrame or a TsdTensor."""
    return _is(X, "pynapple", "TsdFrame", "TsdTensor")


def is_xarray(X: Any) -> bool:
    """Whether X is a DataArray."""
    return _is(X, "xarray", "DataArray")


def is_tensor(X: Any) -> bool:
    """Whether X is a tensor of torch."""
    return _is(X, "torch", "Tensor")


def _is_trials(X: Any) -> bool:
    """Whether X is a list of trials, some of them TsdFrames, DataArrays or tensors."""
    return isinstance(X, list | tuple) and any(
        is_pynapple(x) or is_xarray(x) or is_tensor(x) for x in X
    )


def as_array(X: Any, name: str = "X") -> Any:
    """Return the array in a container; anything else as it is.

    Parameters
    ----------
    X : object
        Counts, rates or behaviour.
    name : str, default="X"
        What X is called in errors.

    Returns
    -------
    object
        Of a DataArray or a TsdFrame, an ndarray of the same shape. Of a TsdTensor, whose axes are
        (time, trial, ...), an ndarray with axes (trial, time, ...). A list of such objects becomes
        a list of arrays.

    Raises
    ------
    TypeError
        If X contains spike times, or several arrays.
    ValueError
        If the dimensions of a DataArray are in another order than (trial, time, neuron).
    """
    if is_pynapple(X):
        values = np.asarray(X.d)
        return np.moveaxis(values, 1, 0) if values.ndim > 2 else values
    if is_xarray(X):
        _check_dimensions(X, name)
        return np.asarray(X.data)
    if is_tensor(X):
        X = X.detach().cpu()
        return X.float() if X.dtype.itemsize == 2 and X.is_floating_point() else X
    if _is_trials(X):
        return [as_array(trial, name) for trial in X]
    if _is(X, "pynapple", "TsGroup", "Ts"):
        raise TypeError(
            f"{name} is a pynapple {type(X).__name__}, which holds spike times, but numbers "
            f"per bin are expected. Bin them: {name} = units.count(bin_size) of a TsGroup, or "
            "sklearn_stndt.datasets.bin_spikes(units, bin_width)."
        )
    if _is(X, "xarray", "Dataset"):
        variables = [*X.data_vars]
        example = f", such as {name}[{variables[0]!r}]" if variables else ""
        raise TypeError(
            f"{name} is an xarray.Dataset with the variables {variables}, but one array is "
            f"expected. Pass one variable{example}."
        )
    if isinstance(X, Mapping) and not hasattr(X, "shape"):  # a sparse array may be a Mapping
        advice = f"Pass trials of equal length as list({name}.values()); pad shorter ones with NaN."
        if "spikes" in X:
            advice = f"Pass {name}['spikes']."
        elif X and all(np.ndim(value) == 1 for value in X.values()):
            advice = f"If it holds spike times, bin them: {_BIN_SPIKES}({name}, bin_width)."
        raise TypeError(
            f"{name} is a {type(X).__name__} with {len(X)} items, but an array is expected. "
            f"{advice}"
        )
    if isinstance(X, str | os.PathLike):
        raise TypeError(
            f"{name} is {X!r}, but an array is expected. If it is a file, load it first, such as "
            "by numpy.load or sklearn_stndt.datasets.load_nwb."
        )
    return X


def check_is_no_vector(X: Any, name: str = "X") -> None:
    """Refuse a vector, or a list of vectors of unequal lengths, such as spike times.

    Raises
    ------
    ValueError
        If X is one of them.
    """
    wanted = "(n_bins, n_neurons) or (n_trials, n_bins, n_neurons)"
    binned = f"Bin spike times: {_BIN_SPIKES}({name}, bin_width)."
    if isinstance(X, list | tuple) or (isinstance(X, np.ndarray) and X.dtype == object):
        lengths = {len(x) for x in X if isinstance(x, list | tuple) or getattr(x, "shape", None)}
        if len(lengths) > 1 and all(_is_vector(x) for x in X):
            raise ValueError(
                f"{name} is a list of {len(X)} vectors of {min(lengths)} to {max(lengths)} values, "
                f"but counts of shape {wanted} are expected. {binned}"
            )
    elif getattr(X, "ndim", None) == 1:
        raise ValueError(
            f"{name} of shape {wanted} is expected, got 1D array of shape {tuple(X.shape)}. "
            f"Reshape your data, of one neuron by numpy.asarray({name}).reshape(-1, 1). {binned}"
        )


def _is_vector(x: Any) -> bool:
    """Whether this is a list or an array of single values."""
    if hasattr(x, "shape"):
        return len(x.shape) == 1
    return isinstance(x, list | tuple) and all(np.isscalar(value) for value in x)


def _check_dimensions(X: Any, name: str) -> None:
    """Refuse a DataArray whose dimensions are known by name and in another order."""
    roles = {dim: _role(dim) for dim in X.dims}
    order = list(_DIMENSIONS)[-len(roles) :]
    fits = [roles[dim] in (None, wanted) for dim, wanted in zip(X.dims, order, strict=False)]
    if len(roles) > 3 or all(fits):
        return
    unclear = [dim for dim in X.dims if roles[dim] is None]
    known = {role: dim for dim, role in roles.items()}
    dims = [known.get(role) or (unclear.pop(0) if unclear else None) for role in order]
    remedy = "an array with these dimensions"  # one of them is missing
    if None not in dims:
        remedy = f"{name}.transpose({', '.join(map(repr, dims))})"
    raise ValueError(
        f"{name} has the dimensions {tuple(X.dims)}, but ({', '.join(order)}) is expected. Pass "
        f"{remedy}."
    )


def _role(dim: Any) -> str | None:
    """Return what a dimension means by its name: trial, time or neuron; None if that is unclear."""
    words = set(re.findall(r"[a-z]+", str(dim).lower()))
    found = [role for role, names in _DIMENSIONS.items() if words & names]
    return found[0] if len(found) == 1 else None


def neuron_names(X: Any) -> list[str] | None:
    """Return the names of neurons in a TsdFrame or DataArray, if all of them are strings."""
    names: Any = None
    if _is(X, "pynapple", "TsdFrame"):
        names = list(X.columns)
    elif is_xarray(X) and X.dims[-1] in X.indexes:
        names = list(X.indexes[X.dims[-1]])
    return names if names and all(isinstance(name, str) for name in names) else None


def n_epochs(X: Any) -> int:
    """Return the number of epochs in the time support of a TsdFrame; 1 for anything else."""
    return len(X.time_support) if _is(X, "pynapple", "TsdFrame") else 1


def runs(X: Any) -> NDArray[np.intp] | None:
    """Number the runs of rows within which the clock of X has no gap.

    Parameters
    ----------
    X : object
        A TsdFrame, a DataArray with times, or anything else, which has no clock. A new run begins
        with each epoch of the time support, and wherever the time from one row to the next is
        longer than a bin, or negative.

    Returns
    -------
    ndarray of int, shape (n_bins,), or None
        None if time is continuous, or if X has no clock.

    Raises
    ------
    ValueError
        If rows are not in order of time, or if there is a gap within trials.
    """
    if _is_trials(X):
        for trial in X:
            if runs(trial) is not None:
                raise _gap_within_trials()
        return None
    times, epochs = _clock(X)
    if times is None or len(times) < 2:
        return None
    steps = np.diff(times)
    new = np.diff(epochs) != 0
    width = _bin_width(steps[~new])
    regular = (steps > 0) & (steps <= _LARGEST_STEP * width)
    within = np.count_nonzero(~new)
    if within > 2 and np.count_nonzero(regular & ~new) < 0.5 * within:
        raise ValueError(
            f"Rows of X are not consecutive bins in order of time: {within} steps of its clock "
            f"include {np.count_nonzero(regular & ~new)} of one bin. Was X split at random? Split "
            "it with KFold(shuffle=False), or with GroupKFold and the trial of each row."
        )
    new |= ~regular
    if not new.any():
        return None
    if X.ndim > 2:
        raise _gap_within_trials()
    return np.concatenate([[0], np.cumsum(new)])


def _gap_within_trials() -> ValueError:
    return ValueError(
        "The clock of X has a gap within trials. Pass the parts before and after it as trials of "
        "their own, or fill the missing bins with NaN. (scikit-learn splits along the first axis, "
        "which is time in a TsdTensor: to split by trials, pass numpy.moveaxis(X.d, 1, 0).)"
    )


def _clock(X: Any) -> tuple[NDArray | None, NDArray]:
    """Return the times of bins, in any unit, and the epoch of each; None if there are none."""
    if is_pynapple(X):
        times = np.asarray(X.t)
        return times, np.searchsorted(X.time_support.start, times, side="right")
    nowhere = np.zeros(0, dtype=np.intp)
    if not is_xarray(X) or X.ndim not in (2, 3):
        return None, nowhere
    index = X.indexes.get(X.dims[-2])
    names = [] if index is None else list(index.names)  # several, of stacked trials and bins
    for name in names:
        if _role(name) == "time":
            values = np.asarray(index.get_level_values(name))
            if values.dtype.kind in "mM":
                values = values.astype(np.int64)
            if values.dtype.kind in "iuf":
                return values.astype(np.float64), np.zeros(len(values), dtype=np.intp)
    return None, nowhere


def _bin_width(steps: NDArray) -> float:
    """Return the time from one bin to the next; a low quantile, because gaps are longer."""
    steps = steps[steps > 0]
    return float(np.quantile(steps, 0.1, method="lower")) if len(steps) else np.nan


def divide(groups: NDArray | None, parts: NDArray | None) -> NDArray | None:
    """Number the runs of rows that belong to one group and to one part; None: all rows do."""
    if groups is None or parts is None:
        return parts if groups is None else groups
    new = (groups[1:] != groups[:-1]) | (parts[1:] != parts[:-1])
    return np.concatenate([[0], np.cumsum(new)])


def wrapped(X: Any, values: NDArray, name: str | None = None) -> Any:
    """Return values in the container of X, if it is a TsdFrame, a TsdTensor or a DataArray.

    Parameters
    ----------
    X : object
        What the user passed; it is left as it is.
    values : ndarray
        As many as X has, with the axes of `as_array`.
    name : str, default=None
        Name of a DataArray. None: that of X.

    Returns
    -------
    object
        With the clock, time support, columns and metadata of X, or its dimensions, coordinates and
        attributes. The values themselves if X is anything else.
    """
    if is_pynapple(X):
        return _pynapple_like(X, values, X.t, X.time_support)
    if is_xarray(X):
        result = X.copy(data=values)
        result.name = X.name if name is None else name
        result.encoding = {}  # counts may be stored as integers, rates must not
        return result
    return values


def _pynapple_like(X: Any, values: NDArray, times: NDArray, support: Any) -> Any:
    if not len(support):  # that of a single bin is empty, and would remove it
        support = None
    if values.ndim > 2:
        return type(X)(t=times, d=np.moveaxis(values, 0, 1), time_support=support)
    keywords = {"columns": X.columns}
    if len(getattr(X, "metadata_columns", [])):
        keywords["metadata"] = X.metadata
    return type(X)(t=times, d=values, time_support=support, **keywords)


def relabelled(X: Any, values: NDArray, names: list[str], dim: str) -> Any:
    """Return values of the bins of X, but not of its neurons, in the container of X.

    Parameters
    ----------
    X : object
        What the user passed.
    values : ndarray
        With the axes of `as_array`; the last has another meaning than that of X.
    names : list of str
        Names along the last axis.
    dim : str
        Name of the last dimension of a DataArray, and of the DataArray itself, in the singular.

    Returns
    -------
    object
        With the clock of X, and without what belongs to its neurons. The values themselves if X is
        neither a TsdFrame, a TsdTensor nor a DataArray.
    """
    if is_pynapple(X) and values.ndim > 2:
        values = np.moveaxis(values, 0, 1)
        return type(X)(t=X.t, d=values, time_support=X.time_support)
    if is_pynapple(X):
        return type(X)(t=X.t, d=values, time_support=X.time_support, columns=names)
    if is_xarray(X):
        of_neurons = X.dims[-1]
        coords = {k: v for k, v in X.coords.items() if of_neurons not in v.dims}
        coords[dim] = names
        dims = (*X.dims[:-1], dim)
        return type(X)(values, coords=coords, dims=dims, attrs=X.attrs, name=f"{dim}s")
    return values


def bin_width(X: Any) -> tuple[str, float] | None:
    """Return the clock that X has and the time from one bin to the next; None if it has none.

    Parameters
    ----------
    X : object
        A TsdFrame, a TsdTensor, a DataArray with times, a list of them, or anything else.

    Returns
    -------
    (str, float), or None
        Widths can be compared only between equal clocks: times of pynapple are in seconds, those of
        a DataArray in the unit that its attributes name, if they name one.
    """
    if _is_trials(X):
        X = next(trial for trial in X if is_pynapple(trial) or is_xarray(trial))
    times, epochs = _clock(X)
    if times is None or len(times) < 2:
        return None
    width = _bin_width(np.diff(times)[np.diff(epochs) == 0])
    if is_pynapple(X):
        return ("pynapple, in seconds", width) if np.isfinite(width) else None
    unit = X.coords[X.dims[-2]].attrs.get("units", "the units of its coordinate")
    return (f"xarray, in {unit}", width) if np.isfinite(width) else None


def like(X: Any, counts: NDArray) -> Any:
    """Return counts in the container of X, a table included, so that names and clock are kept."""
    if hasattr(X, "iloc"):
        return type(X)(counts, index=X.index, columns=X.columns)
    if hasattr(X, "columns") and not is_pynapple(X):
        return type(X)(counts, schema=list(X.columns))
    return wrapped(X, counts)


def continued(X: Any, rates: NDArray) -> Any:
    """Return rates of the bins that follow X in a container of the kind of X.

    Parameters
    ----------
    X : object
        Counts before the forecast.
    rates : ndarray of shape (n_trials, n_forecast, n_neurons) or (n_forecast, n_neurons)
        Rates of the bins after X.

    Returns
    -------
    object
        Its clock continues that of X. Coordinates of a DataArray that depend on time are left out,
        except for regular times. The rates themselves if X is another kind of object, or a
        pynapple object of a single bin.
    """
    times, epochs = _clock(X)
    steps = np.diff(times)[np.diff(epochs) == 0] if times is not None else np.zeros(0)
    width, n_bins = _bin_width(steps), rates.shape[-2]
    if is_pynapple(X) and np.isfinite(width):
        later = X.t[-1] + width * np.arange(1, n_bins + 1)
        support = type(X.time_support)(later[0] - width / 2, later[-1] + width / 2)
        return _pynapple_like(X, rates, later, support)
    if not is_xarray(X):
        return rates
    dim = X.dims[-2]
    coords = {key: value for key, value in X.coords.items() if dim not in value.dims}
    if np.isfinite(width) and X.indexes[dim].nlevels == 1:
        index = np.asarray(X.indexes[dim])
        step = index[1:] - index[:-1]
        coords[dim] = index[-1] + np.sort(step)[len(step) // 10] * np.arange(1, n_bins + 1)
    return type(X)(rates, coords=coords, dims=X.dims, attrs=X.attrs, name="rates")
