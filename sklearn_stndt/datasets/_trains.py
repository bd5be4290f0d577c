"""Read the spike trains that a user passes, and when they were recorded."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_stndt.datasets._intervals import merge_intervals
from sklearn_stndt.datasets._times import declared_supports, in_seconds, is_train, support_of


@dataclass
class Recorded:
    """Spike times, and when they were recorded, all in seconds."""

    times: list[NDArray[np.float64]]  # per neuron, (n_spikes,)
    supports: list[NDArray[np.float64] | None]  # per neuron, (n_intervals, 2); None if not known
    start: float | None  # None if not known for all neurons
    stop: float | None

    @property
    def union(self) -> NDArray[np.float64] | None:
        """Intervals in which any neuron was recorded; None if a neuron's are not known."""
        known = [support for support in self.supports if support is not None]
        return (
            merge_intervals(np.concatenate(known), "time support")
            if len(known) == len(self.supports)
            else None
        )


def as_trains(spike_times: Any) -> Recorded:
    """Return checked spike times of each neuron, and when they were recorded if known."""
    wanted = (
        "pass a list with the spike times of each neuron in seconds, for a single neuron [times]."
    )
    names: list[Any]
    trains: list[Any]
    if is_train(spike_times):
        spike_times = [spike_times]
    group_support = None
    if isinstance(spike_times, Mapping):  # also a TsGroup
        names, trains = list(spike_times), list(spike_times.values())
        group_support = support_of(spike_times)
    elif isinstance(spike_times, np.ndarray) and spike_times.dtype != object:
        raise TypeError(
            f"spike_times is one array of shape {spike_times.shape}; {wanted} From a table padded "
            "with NaN, make it by [row[~np.isnan(row)] for row in table]."
        )
    elif isinstance(spike_times, Iterable) and not isinstance(spike_times, str):
        if isinstance(spike_times, np.ndarray):
            spike_times = _as_cells(spike_times)
        trains = list(spike_times)
        names = list(range(len(trains)))
    else:
        raise TypeError(f"spike_times is a {type(spike_times).__name__}; {wanted}")
    if not trains:
        raise ValueError(f"spike_times is empty; {wanted}")
    trains = _with_single_spikes(trains)
    times = [_as_train(train, name, wanted) for name, train in zip(names, trains, strict=True)]
    supports = [support_of(train) if group_support is None else group_support for train in trains]
    declared = declared_supports(supports, times)
    start = stop = None
    if all(support is not None for support in supports):
        ends = np.concatenate([support for support in supports if support is not None])
        ends = np.where(np.isfinite(ends), ends, np.nan)
        last = max((train[-1] for train in times if train.size), default=-np.inf)
        if not np.isnan(ends[:, 0]).all():
            start = float(np.nanmin(ends[:, 0]))
        if any(support is not None for support in declared) and not np.isnan(ends[:, 1]).all():
            stop = float(np.nanmax(ends[:, 1]))
            if stop < last:  # of a neuron whose end is not known
                stop = None
    return Recorded(times, declared, start, stop)


def _as_cells(cells: NDArray) -> NDArray:
    """Return a MATLAB cell array as one dimension."""
    if cells.size > max(cells.shape, default=0):
        raise TypeError(
            f"spike_times is a cell array of shape {cells.shape}, but one cell per neuron is "
            "expected. If it is neurons x trials, with times from the start of each trial, bin "
            "each trial: np.stack([bin_spikes(list(trial), bin_width, stop=...) for trial in "
            "cells.T]). With times from the start of the recording, join the trials: "
            "[np.concatenate([times.ravel() for times in row]) for row in cells]."
        )
    return cells.ravel()


def _with_single_spikes(trains: list[Any]) -> list[Any]:
    """Return numbers among spike trains, as loadmat(..., squeeze_me=True) makes them, as trains."""
    is_number = [isinstance(train, Real) for train in trains]
    if all(is_number):
        return trains  # more likely the times of one neuron
    return [[train] if one else train for train, one in zip(trains, is_number, strict=True)]


def check_train(times: NDArray[np.float64], name: str) -> None:
    """Raise an error unless spike times are finite and sorted."""
    n_bad = np.count_nonzero(~np.isfinite(times))
    if n_bad:
        raise ValueError(
            f"{name} is NaN or infinite {n_bad} times; remove these: times[np.isfinite(times)]."
        )
    late = np.flatnonzero(times[1:] < times[:-1])
    if late.size:
        at = int(late[0])
        raise ValueError(
            f"{name} is not in order of time: {times[at + 1]:g} s follows {times[at]:g} s at index "
            f"{at + 1}. Sort the times, np.sort(times), if nothing else is wrong with them."
        )


def _as_train(train: Any, name: Any, wanted: str) -> NDArray[np.float64]:
    label = f"spike_times[{name!r}]"
    if isinstance(train, np.ma.MaskedArray):
        train = train.compressed()
    times = in_seconds(train, label)
    if times.ndim == 0:
        raise TypeError(f"{label} is a single number; {wanted}")
    if times.ndim > 1 and times.size != max(times.shape):
        raise TypeError(f"{label} has shape {times.shape}, expected (n_spikes,); {wanted}")
    times = times.ravel()
    check_train(times, label)
    return times
