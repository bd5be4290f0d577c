"""Read units, trials and time series of an NWB file."""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_stndt._progress import tracked
from sklearn_stndt.datasets._checks import as_flags, as_numbers, reading
from sklearn_stndt.datasets._h5 import check_dataset, import_h5py
from sklearn_stndt.datasets._intervals import merge_intervals
from sklearn_stndt.datasets._nwb_sources import import_pynwb, opened
from sklearn_stndt.datasets._recording import Recording
from sklearn_stndt.datasets._resampling import Signal

# Columns of the units table with large arrays.
_LARGE = ("spike_times", "obs_intervals", "waveforms")
_REMEDY = "Correct the file, or leave it out."


@dataclass(kw_only=True)
class NWBRecording(Recording):
    """A recording, and what else its file says of it."""

    units: Any  # DataFrame, one row per unit in `spike_times`
    electrodes: Any  # DataFrame, or None
    table: str  # name of the table in `trials`
    tables: list[str]  # names of all tables of intervals
    signal_units: dict[str, str]
    sampling_rates: dict[str, float]  # Hz
    reference_time: Any  # datetime of time 0
    left_out: list[str]  # messages to warn of


def read_recording(
    source: Any,
    behavior: Any = None,
    *,
    table: str = "trials",
    units: Any = None,
    skip: bool = False,
    verbose: bool = False,
    follow_links: bool = False,
) -> NWBRecording:
    """Read spikes, trials and the named time series (None: all) of an NWB file.

    `table` names the table of intervals, `units` chooses units, and `skip` leaves out units with
    invalid spike times instead of raising an error. See `load_nwb` for `follow_links`.
    """
    with opened(source, follow_links) as (file, name, trusted):
        left_out: list[str] = []
        tables = tables_of(file)
        if table not in tables and table != "trials":
            raise ValueError(
                f"{name} has no table of intervals {table!r}, only {sorted(tables)}. Pass one of "
                "them, or trials=False."
            )
        reader = Reader(name, trusted)
        rows, trains = _read_trains(file, reader, units, skip, left_out, verbose)
        series = choose_series(file, name, behavior, left_out)
        signals, signal_units, rates = {}, {}, {}
        for key, one in tracked(series.items(), "behaviour", "signals", show=verbose):
            with reading(name, key):
                signal = as_signal(one, key, reader)
            if isinstance(signal, Signal):
                signals[key], signal_units[key] = signal, str(one.unit)
                rates[key] = sampling_rate(signal)
            elif behavior is not None:
                raise ValueError(
                    f"{name}: {key} is not a numeric time series: it {signal}. Leave it out."
                )
            else:
                left_out.append(f"the time series {key!r} {signal} and is not loaded")
        table_of_units = file.units
        return NWBRecording(
            name=name,
            spike_times=trains,
            unit_ids=reader.all(table_of_units.id, "units.id")[rows],
            heldout=_heldout_of(table_of_units, reader)[rows],
            observed=_read_obs_intervals(table_of_units, reader, rows),
            invalid=read_invalid_times(file, reader),
            trials=reader.table(tables[table], ("timeseries",)) if table in tables else None,
            signals=signals,
            units=reader.table(table_of_units, _LARGE).iloc[rows].reset_index(drop=True),
            electrodes=None if file.electrodes is None else reader.table(file.electrodes),
            table=table,
            tables=sorted(tables),
            signal_units=signal_units,
            sampling_rates=rates,
            reference_time=file.timestamps_reference_time,
            left_out=left_out,
        )


@dataclass(frozen=True)
class Reader:
    """Reads parts of a file after checking how much memory they take."""

    name: str  # of the file
    trusted: bool

    def check(self, data: Any, key: str) -> None:
        """Raise an error if an array would take far more memory than its size in the file."""
        data = getattr(data, "dataset", data)  # of hdmf's own classes
        if not self.trusted and isinstance(data, import_h5py().Dataset):
            check_dataset(
                data,
                f"{self.name}: {key}",
                "Leave it out if that is possible. If the file is right, open it yourself and pass "
                "NWBHDF5IO(path, 'r').read().",
            )

    def all(self, data: Any, key: str) -> NDArray:
        """Return an array of the file, or the data of a column."""
        if not isinstance(data, np.ndarray | import_h5py().Dataset):
            data = getattr(data, "data", data)
        self.check(data, key)
        with reading(self.name, key):
            return np.asarray(data[:])

    def rows(self, table: Any, column: str, rows: Iterable[int], key: str) -> Iterator[NDArray]:
        """Yield the entries of some rows in a column of arrays of unequal lengths."""
        with reading(self.name, f"{key}.{column}"):
            index = table[column]
            is_ragged = hasattr(index, "target")
            target = index.target if is_ragged else index
            self.check(target.data, f"{key}.{column}")
            if is_ragged:
                where = f"{self.name}: {key}.{column}_index"
                ends = as_numbers(
                    self.all(index, f"{key}.{column}_index"), where, ("n_rows",), finite=True
                )
                steps = np.diff(ends.astype(np.int64), prepend=0)
                if (steps < 0).any() or (len(ends) and ends[-1] > len(target.data)):
                    raise ValueError(
                        f"{where} must ascend to {len(target.data):,}, the length of {column}, but "
                        "does not. Correct the file."
                    )
        for row in rows:
            with reading(self.name, f"{key}[{row}].{column}"):
                yield np.asarray(index[int(row)])

    def table(self, table: Any, without: Iterable[str] = ()) -> Any:
        """Return a table as a DataFrame without some columns; objects become their names."""
        without = {name + index for name in without for index in ("", "_index", "_index_index")}
        with reading(self.name, f"the table {table.name!r}"):
            for column in (table.id, *table.columns):
                if column.name not in without:
                    self.check(column.data, f"{table.name}.{column.name}")
            frame = table.to_dataframe(exclude=without & set(table.colnames), index=True)
        frame = frame.reset_index()
        for column in frame.columns:
            if frame[column].dtype.kind == "O" and any(
                hasattr(value, "object_id") for value in frame[column]
            ):
                frame[column] = [getattr(value, "name", value) for value in frame[column]]
        return frame


def tables_of(file: Any) -> dict[str, Any]:
    """Tables of intervals by name, those of processing modules too."""
    pynwb = import_pynwb()
    tables = {table.name: table for table in file.intervals.values()}
    for module in file.processing.values():
        for container in module.data_interfaces.values():
            if isinstance(container, pynwb.epoch.TimeIntervals):
                tables.setdefault(container.name, container)
    for table in (file.trials, file.epochs, file.invalid_times):
        if table is not None:
            tables[table.name] = table
    return tables


# -- units ----------


def _read_trains(
    file: Any, reader: Reader, units: Any, skip: bool, left_out: list[str], verbose: bool
) -> tuple[NDArray[np.intp], list[NDArray[np.float64]]]:
    """Return the rows of the units table that are chosen and valid, and their spike times."""
    table, name = file.units, reader.name
    if table is None or len(table) == 0:
        imaged = " It holds calcium imaging: load that with load_nwb_ophys." * bool(rois_of(file))
        raise ValueError(
            f"{name} has no units, and so no spike times.{imaged} Use the file of the session with "
            "sorted spikes."
        )
    if "spike_times" not in table.colnames:
        raise ValueError(
            f"{name}: units has no column spike_times, only {list(table.colnames)}. Use a file "
            "with spike times."
        )
    rows, trains = [], []
    chosen = _choose_units(table, units, reader)
    all_times = reader.rows(table, "spike_times", chosen, "units")
    for unit, stored in zip(
        tracked(chosen, "units", "units", show=verbose), all_times, strict=True
    ):
        times = stored.ravel()
        fault = _fault_of(times)
        if fault is None:
            rows.append(int(unit))
            trains.append(times.astype(np.float64))
        elif skip:
            left_out.append(f"units[{unit}] is left out: spike_times {fault[0]}")
        else:
            raise ValueError(
                f"{name}: units[{unit}].spike_times {fault[0]}. {fault[1]}, or leave this unit "
                "out: load_nwb(..., on_error='skip'), or units=... without it."
            )
    if not rows:
        raise ValueError(f"{name}: no unit is left; {'; '.join(left_out)}. Correct the file.")
    return np.array(rows, dtype=np.intp), trains


def _fault_of(times: NDArray) -> tuple[str, str] | None:
    """Say what is wrong with spike times, and what to do; None if nothing is."""
    if times.size and (times.dtype.kind not in "iuf" or times.dtype.itemsize > 8):
        return f"is of type {times.dtype} instead of numbers", "Write the times in seconds"
    n_bad = np.count_nonzero(~np.isfinite(times))
    if n_bad:
        return f"is NaN or infinite {n_bad} times", "To keep the unit, remove these from the file"
    late = np.flatnonzero(times[1:] < times[:-1])
    if late.size:
        at = int(late[0])
        return (
            f"is not in order of time: {times[at + 1]:g} s follows {times[at]:g} s at index "
            f"{at + 1}, as after a reset of the clock",
            "Sort them in the file if nothing else is wrong with them",
        )
    if times.size and times[0] < 0:
        return (
            f"holds negative times, the lowest is {times[0]:g} s, but times in NWB count from the "
            "start of the session",
            "Shift all times of the file by one offset",
        )
    return None


def _choose_units(table: Any, units: Any, reader: Reader) -> NDArray[np.intp]:
    """Return the rows of the units table that `units` chooses."""
    name = reader.name
    if units is None:
        return np.arange(len(table))
    if isinstance(units, str | Mapping) or callable(units):
        frame = reader.table(table, _LARGE)
        chosen = _matching(frame, units, name)
    else:
        chosen = _as_rows(units, len(table), name)
    if not chosen.size:
        raise ValueError(f"{name}: units={units!r} chooses none of the {len(table)} units.")
    return chosen


def _matching(frame: Any, units: Any, name: str) -> NDArray[np.intp]:
    """Rows of the units table that fulfil a query, a dict or a function."""
    if isinstance(units, Mapping):
        keep = np.ones(len(frame), dtype=bool)
        for column, wanted in units.items():
            if column not in frame.columns:
                raise ValueError(
                    f"{name}: the units table has no column {column!r}, only "
                    f"{list(frame.columns)}. Choose units by one of them."
                )
            one = isinstance(wanted, str) or np.ndim(wanted) == 0
            keep &= frame[column].isin([wanted] if one else list(wanted)).to_numpy()
        return np.flatnonzero(keep)
    if isinstance(units, str):
        try:
            mask = np.asarray(frame.eval(units, engine="python"))
        except Exception as error:
            raise ValueError(
                f"{name}: units={units!r} cannot be evaluated ({error}). Write a condition on "
                f"columns of the units table, {list(frame.columns)}, such as "
                "\"quality == 'good'\"."
            ) from error
        if mask.dtype != bool or mask.shape != (len(frame),):
            raise ValueError(
                f"{name}: units={units!r} is no condition on the units. Write one such as "
                "\"quality == 'good'\"."
            )
        return np.flatnonzero(mask)
    return _as_rows(units(frame), len(frame), name)


def _as_rows(units: Any, n_units: int, name: str) -> NDArray[np.intp]:
    """Return rows from indices or from a boolean mask."""
    chosen = np.atleast_1d(np.asarray(units))
    if chosen.dtype == bool:
        if chosen.shape != (n_units,):
            raise ValueError(
                f"{name}: the mask in units has shape {chosen.shape}, but the units table has "
                f"{n_units} rows. Pass one value per unit."
            )
        return np.flatnonzero(chosen)
    if chosen.ndim != 1 or (chosen.dtype.kind not in "iu" and chosen.size):
        raise TypeError(
            f"units must be row numbers, a mask, a dict of columns, a condition or a function, got "
            f"{units!r}."
        )
    outside = chosen[(chosen < -n_units) | (chosen >= n_units)]
    if outside.size:
        raise ValueError(
            f"{name}: units contains {outside[0]}, but the units table has rows 0 to "
            f'{n_units - 1}. To choose by identifiers, pass {{"id": [...]}}.'
        )
    rows = chosen.astype(np.intp) % n_units
    if len(np.unique(rows)) < len(rows):
        raise ValueError(f"{name}: units={units!r} contains a unit twice. Pass each once.")
    return rows


def _heldout_of(units: Any, reader: Reader) -> NDArray[np.bool_]:
    if "heldout" in units.colnames:
        flags = reader.all(units["heldout"], "units.heldout")
        return as_flags(flags, f"{reader.name}: units.heldout", remedy="Correct the file.")
    return np.zeros(len(units), dtype=bool)


def _read_obs_intervals(units: Any, reader: Reader, rows: NDArray[np.intp]) -> list[NDArray] | None:
    """Read when each unit was observed, (n_intervals, 2), s; None if the file does not say."""
    if "obs_intervals" not in units.colnames:
        return None
    name = reader.name
    observed = []
    stored = reader.rows(units, "obs_intervals", rows, "units")
    for unit, intervals in zip(rows, stored, strict=True):
        where = f"{name}: units[{unit}].obs_intervals"
        if intervals.size:
            intervals = _as_intervals(intervals, where)
        intervals = merge_intervals(intervals, where)
        intervals[np.isneginf(intervals)] = 0.0  # an open start is that of the session
        observed.append(intervals[intervals[:, 0] < intervals[:, 1]])
    if not any(len(intervals) for intervals in observed):
        warnings.warn(
            f"{name}: units.obs_intervals is empty for all units, and is ignored: all units count "
            "as observed throughout.",
            UserWarning,
            stacklevel=2,
        )
        return None
    return observed


def _as_intervals(intervals: NDArray, where: str) -> NDArray[np.float64]:
    """Return intervals, (n_intervals, 2), as float64; their ends may be infinite."""
    if intervals.dtype.kind not in "iuf" or intervals.dtype.itemsize > 8:
        raise ValueError(
            f"{where} is of type {intervals.dtype}; expected times in seconds. Correct the file."
        )
    if intervals.ndim > 2 or (intervals.ndim == 2 and intervals.shape[1] != 2):
        raise ValueError(
            f"{where} has shape {intervals.shape}; expected a start and a stop for each interval, "
            "(n_intervals, 2). Correct the file."
        )
    return intervals.astype(np.float64)


def read_invalid_times(file: Any, reader: Reader) -> NDArray[np.float64]:
    """Read the times to be left out of analyses, (n_intervals, 2), s, in order and disjoint."""
    table = file.invalid_times
    if table is None:
        return np.empty((0, 2))
    where = f"{reader.name}: invalid_times"
    with reading(reader.name, "invalid_times"):
        ends = [
            reader.all(table[end], f"invalid_times.{end}") for end in ("start_time", "stop_time")
        ]
        return merge_intervals(_as_intervals(np.column_stack(ends), where), where)


# -- time series ----------


def choose_series(file: Any, name: str, behavior: Any, left_out: list[str]) -> dict[str, Any]:
    """Return the time series to load by name: all, or those in `behavior`."""
    found = series_of(file)  # by path
    pynwb = import_pynwb()
    other = (pynwb.ecephys.ElectricalSeries, pynwb.image.ImageSeries)
    wanted = {path: series for path, (_, series) in found.items() if not isinstance(series, other)}
    shared = Counter(found[path][0] for path in wanted)
    names = {path: path if shared[found[path][0]] > 1 else found[path][0] for path in wanted}
    if behavior is None:
        return {names[path]: series for path, series in wanted.items()}
    keys = [behavior] if isinstance(behavior, str) else behavior
    if not isinstance(keys, Iterable) or not all(isinstance(key, str) for key in keys):
        raise TypeError(
            f"behavior must be the name of a time series or a list of names, got {behavior!r}."
        )
    chosen = {}
    for key in keys:
        paths = [path for path in wanted if key in (path, names[path])]
        own = [path for path in wanted if path.endswith(f"/{key}")]
        if not paths and len(own) == 1:
            paths = own
        if not paths:
            same = sorted(path for path in wanted if found[path][0] == key)
            excluded = [s for path, (short, s) in found.items() if key in (path, short)]
            if same:
                raise ValueError(
                    f"{name} has {len(same)} time series {key!r}: {same}. Pass one of these names."
                )
            if excluded:
                raise ValueError(
                    f"{name}: {key} is an {type(excluded[0]).__name__}; electrophysiology and "
                    "images are not loaded. Leave it out."
                )
            is_column = file.trials is not None and key in file.trials.colnames
            of_trials = (
                f" {key!r} is a column of the trials table: labels such as these are in "
                "data.trials, and BinwiseClassifier decodes them."
            ) * is_column
            raise ValueError(
                f"{name} has no time series {key!r}, only {sorted(names.values())}. Pass one of "
                f"them.{of_trials}"
            )
        chosen[key] = wanted[paths[0]]
    return chosen


def series_of(file: Any) -> dict[str, tuple[str, Any]]:
    """Return the time series of a file by path, each with its short name.

    The short name is joined by "_" from the names of its containers and its own.
    """
    pynwb = import_pynwb()
    found: dict[str, tuple[str, Any]] = {}
    seen = set()  # a series may be linked from several places

    def walk(containers: Any, path: str, short: str) -> None:
        for container in containers:
            if id(container) in seen:
                continue
            if isinstance(container, pynwb.TimeSeries):
                seen.add(id(container))
                found[path + container.name] = (short + container.name, container)
            elif hasattr(container, "children"):
                walk(container.children, f"{path}{container.name}/", f"{short}{container.name}_")

    walk(file.acquisition.values(), "acquisition/", "")
    for module in file.processing.values():
        walk(module.data_interfaces.values(), f"processing/{module.name}/", "")
    walk(file.stimulus.values(), "stimulus/presentation/", "")
    walk(file.analysis.values(), "analysis/", "")
    return found


def rois_of(file: Any) -> dict[str, Any]:
    """Return the responses of regions of interest, of calcium imaging, by path."""
    kind = import_pynwb().ophys.RoiResponseSeries
    return {path: one for path, (_, one) in series_of(file).items() if isinstance(one, kind)}


def as_signal(series: Any, key: str, reader: Reader) -> Signal | str:
    """Return a time series as a signal, or say why it is none."""
    pynwb = import_pynwb()
    if isinstance(series, pynwb.misc.IntervalSeries):
        return "holds starts and ends of intervals instead of samples"
    data = series.data
    if hasattr(data, "data") and not hasattr(data, "dtype"):  # H5DataIO around an array
        data = data.data
    if isinstance(data, list | tuple):
        data = np.asarray(data)
    if not hasattr(data, "shape"):
        return f"has data of type {type(data).__name__}"
    if len(data.shape) not in (1, 2):
        return f"has {len(data.shape)} dimensions"
    if not len(data):
        return "is empty"
    reader.check(data, f"{key}.data")
    kind = np.asarray(data[:1]).dtype.kind
    if kind not in "biuf":
        return "holds text" if kind in "OSUT" else f"has values of type {data.dtype}"
    conversion, offset = float(series.conversion), float(series.offset)
    if not (np.isfinite(conversion) and conversion and np.isfinite(offset)):
        return f"has a conversion of {conversion:g} and an offset of {offset:g}"
    values = np.asarray(data[:], dtype=np.float64)
    values = values.reshape(len(values), -1)
    if series.timestamps is not None:
        times = reader.all(series.timestamps, f"{key}.timestamps")
        if times.dtype.kind not in "iuf" or times.ndim != 1:
            return f"has timestamps of type {times.dtype} and shape {times.shape}"
        if len(times) != len(values):
            return f"has {len(values)} samples but {len(times)} timestamps"
        times = times.astype(np.float64)
    elif series.rate is not None:
        rate, start = float(series.rate), float(series.starting_time or 0.0)
        if not 0 < rate < np.inf or not np.isfinite(start):
            return f"has a rate of {rate:g} Hz and starts at {start:g} s"
        times = start + np.arange(len(values)) / rate
    else:
        return "has neither timestamps nor a rate"
    return Signal.from_samples(times, values, f"{reader.name}: {key}", conversion, offset)


def sampling_rate(signal: Signal) -> float:
    """Rate in Hz, of an irregular signal the inverse of the median interval, NaN if unknown."""
    if signal.rate is not None:
        return signal.rate
    steps = np.diff(signal.times[np.isfinite(signal.times)])
    steps = steps[steps > 0]
    return float(1 / np.median(steps)) if steps.size else np.nan
