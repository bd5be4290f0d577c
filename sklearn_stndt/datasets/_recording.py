"""Read a recording from an NWB file and bin it."""

import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_stndt.datasets._intervals import (
    CLOCK,
    bins_within,
    merge_intervals,
    subtract_intervals,
)
from sklearn_stndt.datasets._resampling import Signal
from sklearn_stndt.datasets.binning import check_train, count_trials

_UNITS_AT_ONCE = 64


@dataclass
class Recording:
    """Spikes, trials and signals of a file."""

    name: str
    spike_times: list[NDArray[np.float64]]
    unit_ids: NDArray
    heldout: NDArray[np.bool_]
    observed: list[NDArray] | None  # per unit, (n_intervals, 2), s, in order and disjoint
    trials: Any  # DataFrame, or None
    signals: dict[str, Signal]
    invalid: NDArray = field(default_factory=lambda: np.empty((0, 2)))  # as of one unit

    @property
    def end(self) -> float:
        """End of the last observed interval in seconds, or of the last data if it is open."""
        times = [train[-1] for train in self.spike_times if train.size]
        observed = [float(intervals.max()) for intervals in self.observed or [] if intervals.size]
        if observed and np.isfinite(observed).all():
            return max(observed)
        times += [stop for stop in observed if np.isfinite(stop)]
        if self.trials is not None:
            times.append(self.trials["stop_time"].max())
        times += [signal.times[-1] for signal in self.signals.values() if signal.times.size]
        return float(max(times, default=0.0))

    def intervals_of(self, unit: int) -> NDArray[np.float64]:
        """Return when a unit was observed in valid times, (n_intervals, 2), s, in order."""
        whole = np.array([[0.0, np.inf]])
        observed = whole if self.observed is None else self.observed[unit]
        return subtract_intervals(observed, self.invalid)

    def event_times(self, column: str) -> NDArray[np.float64]:
        """Times in a column of the trials table, in seconds, NaN where missing."""
        if self.trials is None:
            raise ValueError(
                f"{self.name} has no trials table. Pass trials=False for the whole recording, or "
                "bin its spike times around your own events with align_to_events."
            )
        if column not in self.trials.columns:
            raise ValueError(
                f"{self.name}: the trials table has no column {column!r}, only "
                f"{list(self.trials.columns)}. Align to one of them."
            )
        try:
            return self.trials[column].to_numpy(dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{self.name}: trials/{column} holds no times ({error}). Align to another column."
            ) from error

    def first_bins(self, times: NDArray, bin_width: float) -> NDArray[np.intp]:
        """First bin of the recording that starts at or after each time (s)."""
        return np.ceil(times / bin_width - CLOCK).astype(np.intp)

    def counts(
        self,
        first: NDArray[np.intp],
        n_bins: NDArray[np.intp],
        bin_width: float,
        *,
        whole: bool = True,
    ) -> NDArray[np.float32]:
        """Spike counts of trials, (n_trials, n_bins, n_units), NaN where not observed.

        With `whole`, a bin counts as observed if all of it was observed; otherwise, if its first
        millisecond was.
        """
        counts = count_trials(self.spike_times, first * bin_width, n_bins, bin_width, np.float32)
        bins = first[:, None] + np.arange(n_bins.max())  # (trials, bins)
        counts[np.arange(n_bins.max()) >= n_bins[:, None]] = np.nan
        wanted, place = np.unique(bins.ravel(), return_inverse=True)  # trials may overlap
        after = wanted >= np.floor(self.end / bin_width) + 1
        length = bin_width if whole else 0.001
        rows = counts.reshape(len(place), -1)  # (n_trials * n_bins, n_units), a view
        last, known = None, after
        # Units are adjacent in memory, the bins of a unit are not.
        for begin in range(0, rows.shape[1], _UNITS_AT_ONCE):
            some = rows[:, begin : begin + _UNITS_AT_ONCE]
            unknown = np.empty(some.shape, dtype=bool)
            for column in range(some.shape[1]):
                intervals = self.intervals_of(begin + column)
                if last is None or not np.array_equal(intervals, last):  # often all units share
                    known = bins_within(wanted, bin_width, length, intervals) & ~after
                    last, known = intervals, known[place]
                np.logical_not(known, out=unknown[:, column])
            np.copyto(some, np.nan, where=unknown)
        return counts

    def behavior(
        self,
        name: str,
        first: NDArray[np.intp],
        n_bins: NDArray[np.intp],
        bin_width: float,
        *,
        lag: float = 0.0,
        max_gap: float | None = None,
        as_benchmark: bool = False,
    ) -> NDArray[np.float64]:
        """Signal in the bins of trials, (n_trials, n_bins, n_channels), NaN where unknown.

        Behaviour is taken `lag` (s) later than the bins. See `Signal.in_bins` for `max_gap`, and
        `Signal.in_bins_of_benchmark` for `as_benchmark`.
        """
        signal = self.signals[name].without(self.invalid)
        bins = first[:, None] + np.arange(n_bins.max())  # (trials, bins)
        inside = np.arange(n_bins.max()) < n_bins[:, None]
        out = np.full((*bins.shape, signal.values.shape[1]), np.nan)
        if as_benchmark:
            n_all = int(np.floor(self.end / bin_width + CLOCK)) + 1
            values = signal.in_bins_of_benchmark(bin_width, n_all, self.end)
            inside &= (bins >= 0) & (bins < n_all)
            out[inside] = values[bins[inside]]
            return out
        wanted, place = np.unique(bins[inside], return_inverse=True)  # trials may overlap
        values = signal.in_bins(wanted * bin_width + lag, (wanted + 1) * bin_width + lag, max_gap)
        valid = subtract_intervals(np.array([[-np.inf, np.inf]]), self.invalid) - lag
        values[~bins_within(wanted, bin_width, bin_width, valid)] = np.nan
        out[inside] = values[place]
        return out


def import_pynwb() -> Any:
    """Return pynwb, or raise an ImportError that says how to install it."""
    try:
        import pynwb
    except ImportError as error:
        raise ImportError(
            "NWB files need pynwb. Install it with: pip install sklearn-stndt[io]"
        ) from error
    return pynwb


def read_recording(path: str | os.PathLike, behavior: Any = None) -> Recording:
    """Read spikes, trials and the named time series (None: all) of an NWB file."""
    pynwb = import_pynwb()
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Check the path.")
    try:
        io = pynwb.NWBHDF5IO(path, "r")
    except Exception as error:
        raise ValueError(
            f"{path} cannot be opened ({error}): it is not an HDF5 file, or is truncated. "
            "Download it again."
        ) from error
    with io:
        try:
            file = io.read()
        except Exception as error:
            raise ValueError(
                f"{path} is not an NWB file that pynwb can read ({error}). Check it with "
                "pynwb-validate, or download it again."
            ) from error
        return Recording(
            str(path),
            *_read_units(file, path),
            trials=None if file.trials is None else file.trials.to_dataframe().reset_index(),
            signals=_read_signals(file, path, behavior, pynwb),
            invalid=_read_invalid_times(file, path),
        )


def _read_units(
    file: Any, path: Path
) -> tuple[list[NDArray], NDArray, NDArray[np.bool_], list[NDArray] | None]:
    units = file.units
    if units is None or len(units) == 0:
        raise ValueError(
            f"{path} has no units, and so no spike times. Use the file of the session with sorted "
            "spikes."
        )
    if "spike_times" not in units.colnames:
        raise ValueError(
            f"{path}: units has no column spike_times, only {list(units.colnames)}. Use a file "
            "with spike times."
        )
    trains = []
    for unit in range(len(units)):
        times = np.asarray(units["spike_times"][unit], dtype=np.float64)
        name = f"{path}: units[{unit}].spike_times"
        check_train(times, name)
        if times.size and times[0] < 0:
            raise ValueError(
                f"{name} holds negative times, the lowest is {times[0]:g} s, but times in NWB "
                "count from the start of the session. Shift all times of the file by one offset."
            )
        trains.append(times)
    heldout = np.zeros(len(units), dtype=bool)
    if "heldout" in units.colnames:
        heldout = np.asarray(units["heldout"][:], dtype=bool)
    observed = _read_obs_intervals(units, path)
    return trains, np.asarray(units.id[:]), heldout, observed


def _read_obs_intervals(units: Any, path: Path) -> list[NDArray] | None:
    """Read when each unit was observed, (n_intervals, 2), s; None if the file does not say."""
    if "obs_intervals" not in units.colnames:
        return None
    observed = []
    for unit in range(len(units)):
        name = f"{path}: units[{unit}].obs_intervals"
        intervals = merge_intervals(units["obs_intervals"][unit], name)
        intervals[np.isneginf(intervals)] = 0.0  # an open start is that of the session
        observed.append(intervals[intervals[:, 0] < intervals[:, 1]])
    if not any(len(intervals) for intervals in observed):
        warnings.warn(
            f"{path}: units.obs_intervals is empty for all units, and is ignored: all units count "
            "as observed throughout.",
            UserWarning,
            stacklevel=2,
        )
        return None
    return observed


def _read_invalid_times(file: Any, path: Path) -> NDArray[np.float64]:
    """Read the times to be left out of analyses, (n_intervals, 2), s, in order and disjoint."""
    table = file.invalid_times
    if table is None:
        return np.empty((0, 2))
    ends = [np.asarray(table[name][:], dtype=np.float64) for name in ("start_time", "stop_time")]
    return merge_intervals(np.column_stack(ends), f"{path}: invalid_times")


def _read_signals(file: Any, path: Path, behavior: Any, pynwb: Any) -> dict[str, Signal]:
    """Read the time series of the file, except electrophysiology and images."""
    found: dict[str, Any] = {}

    def walk(containers: Any, prefix: str) -> None:
        for container in containers:
            if isinstance(container, pynwb.TimeSeries):
                if not isinstance(
                    container, pynwb.ecephys.ElectricalSeries | pynwb.image.ImageSeries
                ):
                    found[prefix + container.name] = container
            elif hasattr(container, "children"):
                walk(container.children, f"{prefix}{container.name}_")

    walk(file.acquisition.values(), "")
    for module in file.processing.values():
        walk(module.data_interfaces.values(), "")
    wanted = (
        list(found) if behavior is None else [behavior] if isinstance(behavior, str) else behavior
    )
    signals = {}
    for name in wanted:
        if name not in found:
            raise ValueError(
                f"{path} has no time series {name!r}, only {sorted(found)}. Pass one of them."
            )
        signal = _as_signal(found[name], f"{path}: {name}")
        if signal is not None:
            signals[name] = signal
        elif behavior is not None:
            raise ValueError(f"{path}: {name} is not a numeric time series. Leave it out.")
    return signals


def _as_signal(series: Any, name: str) -> Signal | None:
    data = series.data
    if (
        getattr(data, "ndim", 3) > 2
        or not len(data)
        or np.asarray(data[:1]).dtype.kind not in "iuf"
    ):
        return None
    values = np.asarray(data[:], dtype=np.float64)
    values = values.reshape(len(values), -1)
    if series.timestamps is not None:
        times = np.asarray(series.timestamps[:], dtype=np.float64)
    else:
        times = (series.starting_time or 0.0) + np.arange(len(values)) / float(series.rate)
    conversion, offset = float(series.conversion), float(series.offset)
    return Signal.from_samples(times, values, name, conversion, offset)
