"""Read counts and spike times from .npy, .npz, .mat and .csv files."""

import argparse
import csv
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_stndt.cli.messages import CommandError
from sklearn_stndt.cli.options import AXES, DEFAULT_BIN_WIDTH
from sklearn_stndt.datasets import align_to_events, bin_spikes, bin_trials
from sklearn_stndt.datasets._checks import as_numbers, reading
from sklearn_stndt.datasets._h5 import check_dataset, check_links, import_h5py, open_file
from sklearn_stndt.datasets._times import ClockWarning

# Names by which variables are found if no option names them.
_COUNTS = ("counts", "spike_counts", "spikes")
_TIMES = ("spike_times", "spikeTimes", "spike_time", "spiketimes")
_NEURONS = ("neuron", "unit", "unit_id", "cluster", "cluster_id", "spike_clusters")
_BIN_WIDTHS = ("bin_width", "binWidth", "bin_size", "binSize")
_TRIAL, _CLOCK = "trial", ("time", "bin")  # columns of a table of counts
_INDEX = "index of rows"  # a first column without a name


@dataclass(frozen=True)
class Arrays:
    """What a file holds: counts, or spike times that were binned."""

    counts: NDArray  # (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
    bin_width: float  # s
    neurons: NDArray  # (n_neurons,)
    starts: NDArray | float | None = None  # of trials or the recording on the clock, s
    first: float = 0.0  # start of the first bin relative to the event, s
    targets: dict[str, NDArray] = field(default_factory=dict)


def read_arrays(path: Path, options: argparse.Namespace, targets: Sequence[str]) -> Arrays:
    """Read a file by the end of its name; see `Recording` for `targets`."""
    if path.suffix in (".csv", ".tsv"):
        return _read_table(path, options, targets)
    content = _READERS[path.suffix](path)
    scale = 1e-3 if options.time_unit == "ms" else 1.0
    name = _choose(content, options, path)
    value = content[name]
    if name == options.spike_times or (options.counts is None and _are_times(name, value)):
        if targets:
            raise CommandError(
                f"{path} has spike times, and behaviour in bins does not belong to them. Use an "
                "NWB file, or count the spikes in the bins of the behaviour first."
            )
        trains, neurons = _trains_of(path, content, name, options, scale)
        with _clock_checked(path, options.time_unit):
            return _binned(path, content, trains, neurons, options, scale)
    counts = _numbers(path, name, value)
    counts, order = _ordered(path, name, counts, options.axes)
    behavior = {
        target: _behavior(path, target, _variable(content, target, path), counts, order)
        for target in targets
    }
    bin_width = options.bin_width or _bin_width_in(content, path, scale)
    return Arrays(counts, bin_width, np.arange(counts.shape[-1]), targets=behavior)


# -- files of variables ----------


def _read_npy(path: Path) -> dict[str, Any]:
    with reading(str(path)):
        return {"counts": np.load(path, allow_pickle=False)}


def _read_npz(path: Path) -> dict[str, Any]:
    with reading(str(path)), np.load(path, allow_pickle=False) as file:
        content = {}
        for name in file.files:
            try:
                content[name] = file[name]
            except ValueError as error:
                if "pickle" not in str(error):
                    raise
                content[name] = None  # objects would need pickle, which can run any code
        return content


def _read_mat(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        content = loadmat(path)
    except NotImplementedError:  # version 7.3
        return _read_mat73(path)
    except Exception as error:
        try:
            import_h5py()
            return _read_mat73(path)
        except (ImportError, ValueError):
            raise CommandError(
                f"{path} cannot be read as a MATLAB file ({error}). Write it again by save."
            ) from error
    return {
        name: value.toarray() if hasattr(value, "toarray") else value  # of a sparse matrix
        for name, value in content.items()
        if not name.startswith("__")
    }


def _read_mat73(path: Path) -> dict[str, Any]:
    """Read a MATLAB file of version 7.3, which is HDF5: axes are reversed, cells references."""
    h5py = import_h5py()
    content: dict[str, Any] = {}
    with open_file(path) as file:
        check_links(file, str(path))
        with reading(str(path)):
            for name in file:
                dataset = file[name]
                if name.startswith("#") or not isinstance(dataset, h5py.Dataset):
                    continue
                check_dataset(dataset, f"{path}: {name}")
                value = dataset[()].T
                if h5py.check_dtype(ref=dataset.dtype) is not None:
                    cells = np.empty(value.shape, dtype=object)
                    for index in np.ndindex(value.shape):
                        cell = file[value[index]]
                        check_dataset(cell, f"{path}: {name}{list(index)}")
                        is_empty = bool(cell.attrs.get("MATLAB_empty", 0))
                        cells[index] = np.empty(0) if is_empty else cell[()].T
                    value = cells
                content[name] = value
    return content


_READERS = {".npy": _read_npy, ".npz": _read_npz, ".mat": _read_mat}


def _variable(content: Mapping[str, Any], name: str, path: Path) -> Any:
    if name not in content:
        raise CommandError(
            f"{path} has no variable {name!r}, only {_listed(content)}. Name one of them."
        )
    if content[name] is None:
        raise CommandError(
            f"{path}: {name} holds objects of Python, which are not read because they can run "
            "code. Save numbers: for spike times, those of all neurons in one array, and the "
            "neuron of each spike in another."
        )
    return content[name]


def _listed(content: Mapping[str, Any]) -> str:
    found = [f"{name} {np.shape(value)}" for name, value in content.items()]
    return ", ".join(found) or "none"


def _choose(content: Mapping[str, Any], options: argparse.Namespace, path: Path) -> str:
    """Return the name of the variable with counts or spike times."""
    if options.counts and options.spike_times:
        raise CommandError("A recording has --counts or --spike-times. Leave one of them out.")
    named = options.counts or options.spike_times
    if named is None:
        known = [name for name in (*_COUNTS, *_TIMES) if name in content]
        arrays = [
            name
            for name, value in content.items()
            if isinstance(value, np.ndarray) and value.ndim in (2, 3) and value.size > 1
        ]
        found = known or (arrays if len(arrays) == 1 else [])
        if not found and len(content) == 1:
            _refuse_struct(path, *next(iter(content.items())))
        if len(found) != 1:
            raise CommandError(
                f"{path} holds {_listed(content)}. Say by --counts or --spike-times which of them "
                "holds the spikes."
            )
        named = found[0]
    _variable(content, named, path)
    return named


def _are_times(name: str, value: NDArray) -> bool:
    return value.dtype == object or name in _TIMES


def _numbers(path: Path, name: str, value: Any) -> NDArray:
    _refuse_struct(path, name, value)
    return as_numbers(value, f"{path}: {name}", remedy="Name a variable with numbers.")


def _refuse_struct(path: Path, name: str, value: Any) -> None:
    fields = getattr(value, "dtype", np.dtype(float)).names
    if fields:
        raise CommandError(
            f"{path}: {name} is a struct with the fields {', '.join(fields)}. Save what it holds "
            "as variables of their own: counts as numbers, or a cell array with the spike times of "
            "each neuron."
        )


def _ordered(
    path: Path, name: str, counts: NDArray, axes: Sequence[str] | None
) -> tuple[NDArray, list[int]]:
    """Return counts with axes in the order of the package, and the permutation."""
    if counts.ndim not in (2, 3) or _are_in_order(counts):
        of_sorter = (
            " A spike sorter's spike_times.npy holds samples, and spike_clusters.npy the neuron of "
            "each: write both to one file, numpy.savez('spikes.npz', spike_times=samples / 30000, "
            "cluster=clusters)."
        )
        raise CommandError(
            f"{path}: {name} has shape {counts.shape} and does not hold counts, which have the "
            "axes trials, bins, neurons or bins, neurons; --spike-times names a variable with "
            f"times of spikes.{of_sorter if path.suffix == '.npy' else ''}"
        )
    wanted = AXES[-counts.ndim :]
    axes = tuple(axes) if axes else wanted
    if sorted(axes) != sorted(wanted):
        raise CommandError(
            f"{path}: {name} has {counts.ndim} axes, shape {counts.shape}, but --axes names "
            f"{len(axes)}."
        )
    order = [axes.index(axis) for axis in wanted]
    return counts.transpose(order), order


def _are_in_order(values: NDArray) -> bool:
    """Whether numbers ascend throughout, as times of spikes do."""
    row = values.ravel()
    return row.size > 20 and bool((row[1:] >= row[:-1]).all()) and bool(row[-1] > row[0] + 20)


def _behavior(
    path: Path, name: str, value: Any, counts: NDArray, order: list[int]
) -> NDArray[np.float64]:
    """Return behaviour in the bins of counts, (..., n_channels)."""
    values = _numbers(path, name, value).astype(np.float64)
    bins = counts.shape[:-1]
    if values.ndim == len(order):
        by_axes = values.transpose(order)
        if by_axes.shape[:-1] == bins:
            return by_axes
        if values.shape[:-1] == bins:  # in the order of the package already
            return values
        if 1 in values.shape and values.size == counts.shape[0]:
            return values.reshape(-1, 1)  # a vector of MATLAB
    elif values.ndim == len(order) - 1:
        *kept, neuron = order
        for one in (values.transpose([axis - (axis > neuron) for axis in kept]), values):
            if one.shape == bins:
                return one[..., None]
    raise CommandError(
        f"{path}: {name} has shape {values.shape}, but there are {bins} bins of counts. Behaviour "
        "needs one value per bin, with its axes in the order of those of the counts."
    )


def _bin_width_in(content: Mapping[str, Any], path: Path, scale: float) -> float:
    for name in _BIN_WIDTHS:
        if name in content and np.size(content[name]) == 1:
            width = float(np.ravel(content[name])[0]) * scale
            if 0 < width < np.inf:
                return width
    raise CommandError(
        f"How wide are the bins of the counts in {path.name}? Pass --bin-width in seconds, such as "
        "--bin-width 0.02."
    )


# -- spike times ----------


def _trains_of(
    path: Path,
    content: Mapping[str, Any],
    name: str,
    options: argparse.Namespace,
    scale: float,
) -> tuple[list[NDArray], NDArray]:
    """Return the spike times of each neuron in seconds, and what the neurons are called."""
    value = content[name]
    if value.dtype == object:
        if value.size > max(value.shape):
            raise CommandError(
                f"{path}: {name} is a cell array of shape {value.shape}, but one cell per neuron "
                "is expected, with times from the start of the recording."
            )
        trains = [_numbers(path, f"{name}{{{i + 1}}}", cell) for i, cell in enumerate(value.flat)]
        return [np.ravel(train) * scale for train in trains], np.arange(len(trains))
    label = options.neuron or next((one for one in _NEURONS if one in content), None)
    if label is None:
        raise CommandError(
            f"{path}: {name} has one time per spike. Name the variable with the neuron of each "
            f"spike by --neuron; there are {_listed(content)}."
        )
    labels = np.ravel(_variable(content, label, path))
    times = np.ravel(_numbers(path, name, value))
    return _by_neuron(times * scale, labels, f"{path}: {name} and {label}")


def _by_neuron(times: NDArray, labels: NDArray, where: str) -> tuple[list[NDArray], NDArray]:
    if times.shape != labels.shape:
        raise CommandError(
            f"{where} have {times.size} and {labels.size} entries. They need one for each spike."
        )
    neurons = np.unique(labels)
    return [np.sort(times[labels == neuron]) for neuron in neurons], neurons


@contextmanager
def _clock_checked(path: Path, time_unit: str | None) -> Iterator[None]:
    """Refuse times that do not look like seconds, unless the user has said what they are."""
    if time_unit is not None:
        yield
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ClockWarning)
            yield
    except ClockWarning as warning:
        found = str(warning).partition(" Convert")[0]
        raise CommandError(
            f"{path}: {found} Pass --time-unit ms if times in the file are in milliseconds, and "
            "--time-unit s if all is right. --window is always in seconds."
        ) from warning


def _binned(
    path: Path,
    content: Mapping[str, Any],
    trains: list[NDArray],
    neurons: NDArray,
    options: argparse.Namespace,
    scale: float,
) -> Arrays:
    """Count spikes in bins around events, in trials, or in the whole recording."""
    width = options.bin_width or DEFAULT_BIN_WIDTH
    if options.align is not None:
        if options.trials is not None:
            raise CommandError("Trials are cut by --align or by --trials. Leave one of them out.")
        events = np.ravel(_numbers(path, options.align, _variable(content, options.align, path)))
        events = events[np.isfinite(events)] * scale
        low, high = options.window
        counts = align_to_events(trains, events, (low, high), width)
        return Arrays(counts, width, neurons, events + low, low)
    if options.window is not None:
        raise CommandError("--window needs --align NAME, a variable with the times of events.")
    if options.trials is not None:
        trials = _numbers(path, options.trials, _variable(content, options.trials, path)) * scale
        if trials.ndim != 2 or trials.shape[1] != 2:
            raise CommandError(
                f"{path}: {options.trials} has shape {trials.shape}; expected a start and an end "
                "of each trial, (trials, 2)."
            )
        counts = bin_trials(trains, trials[:, 0], trials[:, 1], width)
        return Arrays(counts, width, neurons, trials[:, 0])
    first = min((train[0] for train in trains if train.size), default=0.0)
    start = 0.0 if first >= 0 else float(np.floor(first / width) * width)
    return Arrays(bin_spikes(trains, width, start=start), width, neurons, start, start)


# -- tables ----------


def _read_table(path: Path, options: argparse.Namespace, targets: Sequence[str]) -> Arrays:
    """Read a table with a row per bin and a column per neuron, or with a row per spike."""
    columns = _columns_of(path)
    scale = 1e-3 if options.time_unit == "ms" else 1.0
    of_times = options.spike_times or next((c for c in (*_TIMES, "time") if c in columns), None)
    label = options.neuron or next((c for c in _NEURONS if c in columns), None)
    if of_times is not None and label is not None:
        if targets:
            raise CommandError(
                f"{path} has a row per spike, so that it has no behaviour in bins. Use an NWB file."
            )
        times = _floats(path, of_times, _column(columns, of_times, path))
        trains, neurons = _by_neuron(
            times * scale, np.array(_column(columns, label, path)), str(path)
        )
        with _clock_checked(path, options.time_unit):
            return _binned(path, {}, trains, neurons, options, scale)
    if options.spike_times or options.neuron:
        raise CommandError(
            f"{path}: a table of spikes needs a column of times, --spike-times, and one with the "
            f"neuron of each spike, --neuron. It has {', '.join(columns)}."
        )
    if options.bin_width is None:
        raise CommandError(
            f"How wide are the bins of the counts in {path.name}? Pass --bin-width in seconds, "
            "such as --bin-width 0.02."
        )
    for name in (*targets, *options.ignore):
        _column(columns, name, path)
    other = {_TRIAL, *_CLOCK, _INDEX, *targets, *options.ignore}
    neurons = np.array([name for name in columns if name not in other])
    if not len(neurons):
        raise CommandError(f"{path} has no column of counts, only {', '.join(columns)}.")
    counts = np.column_stack([_counts(path, name, columns[name]) for name in neurons])
    behavior = np.column_stack(
        [_floats(path, name, columns[name]) for name in targets] or [np.empty(len(counts))]
    )
    if _TRIAL in columns:
        counts, behavior = _as_trials(path, np.array(columns[_TRIAL]), counts, behavior)
    named = {name: behavior[..., [i]] for i, name in enumerate(targets)}
    return Arrays(counts, options.bin_width, neurons, targets=named)


def _columns_of(path: Path) -> dict[str, list[str]]:
    """Read a table as text, by column."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            tab, semicolon = "\t" in first, ";" in first and "," not in first
            rows = list(csv.reader(file, delimiter="\t" if tab else ";" if semicolon else ","))
    except (UnicodeDecodeError, csv.Error) as error:
        raise CommandError(f"{path} is no table in text ({error}).") from error
    rows = [row for row in rows if any(entry.strip() for entry in row)]
    if len(rows) < 2:
        raise CommandError(f"{path} needs a row with the names of its columns, and rows of data.")
    names = [name.strip() for name in rows[0]]
    if not names[0]:  # as pandas writes the index of a table
        names[0] = _INDEX
    for number, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise CommandError(
                f"{path}: row {number} has {len(row)} entries, but there are {len(names)} names of "
                "columns in the first row."
            )
    if len(set(names)) < len(names):
        raise CommandError(f"{path} has two columns of one name.")
    if all(_is_number(name) for name in names):
        raise CommandError(
            f"{path} begins with numbers. Its first row must hold the names of the columns."
        )
    return {
        name: [entry.strip() for entry in column]
        for name, column in zip(names, zip(*rows[1:], strict=True), strict=True)
    }


def _column(columns: Mapping[str, list[str]], name: str, path: Path) -> list[str]:
    if name not in columns:
        raise CommandError(f"{path} has no column {name!r}, only {', '.join(columns)}.")
    return columns[name]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _floats(path: Path, name: str, column: list[str]) -> NDArray[np.float64]:
    """Return a column as numbers, NaN where it is empty."""
    for row, entry in enumerate(column, 2):
        if entry and not _is_number(entry):
            raise CommandError(f"{path}: {name} holds {entry!r} in row {row}, which is no number.")
    return np.array([float(entry) if entry else np.nan for entry in column])


def _counts(path: Path, name: str, column: list[str]) -> NDArray[np.float64]:
    values = _floats(path, name, column)
    known = values[np.isfinite(values)]
    if (known < 0).any() or (known != np.rint(known)).any():
        raise CommandError(
            f"{path}: {name} holds numbers that are no counts. If it is no neuron, pass --ignore "
            f"{name}, or --target {name} to decode it."
        )
    return values


def _as_trials(
    path: Path, trial: NDArray, counts: NDArray, behavior: NDArray
) -> tuple[NDArray, NDArray]:
    """Return rows as trials, padded with NaN."""
    starts = np.flatnonzero(np.append(True, trial[1:] != trial[:-1]))
    if len(starts) > len(np.unique(trial)):
        raise CommandError(
            f"{path}: rows of one trial are apart. Sort the table by trial and by time."
        )
    parts = [np.split(values, starts[1:]) for values in (counts, behavior)]
    longest = max(map(len, parts[0]))
    padded = [np.full((len(starts), longest, part[0].shape[1]), np.nan) for part in parts]
    for out, part in zip(padded, parts, strict=True):
        for row, values in zip(out, part, strict=True):
            row[: len(values)] = values
    return padded[0], padded[1]
