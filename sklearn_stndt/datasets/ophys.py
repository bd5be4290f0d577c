"""Load calcium imaging from Neurodata Without Borders (NWB) files."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from sklearn_stndt.datasets._checks import as_flags, as_indices, reading
from sklearn_stndt.datasets._imaging import as_recording, check_fps, check_frames
from sklearn_stndt.datasets._intervals import times_within
from sklearn_stndt.datasets._nwb_reading import (
    Reader,
    as_signal,
    choose_series,
    read_invalid_times,
    rois_of,
    sampling_rate,
    tables_of,
)
from sklearn_stndt.datasets._nwb_sources import import_pynwb, opened
from sklearn_stndt.datasets._resampling import Signal

__all__ = ["load_nwb_ophys"]

_MASKS = ("pixel_mask", "voxel_mask", "image_mask")  # large columns
# Columns that say whether a region is a cell, of suite2p, NeuroConv and the Allen Institute.
_IS_CELL = ("iscell", "is_cell", "Accepted", "accepted", "valid_roi")


def load_nwb_ophys(
    path: Any,
    signal: str | None = None,
    *,
    trials: bool | str = True,
    behavior: str | Sequence[str] | None = None,
    only_cells: bool = True,
    follow_links: bool = False,
) -> Bunch:
    """Load calcium imaging, behaviour and trials from an NWB file.

    Parameters
    ----------
    path : path, NWBFile, h5py.File or binary file
        As in :func:`load_nwb`.

    signal : str, default=None
        Name of a RoiResponseSeries, or of the container that holds one for each plane, whose
        neurons are then joined: "DfOverF", "Fluorescence", "Deconvolved"; or its path in the file.
        None: dF/F if the file has it once, otherwise the only one that there is.

    trials : bool or str, default=True
        Name of the table of intervals that holds the trials. True: "trials". False: none.

    behavior : str or list of str, default=None
        Names of the time series to load, as in :func:`load_nwb`. None: all except
        electrophysiology, images and calcium imaging.

    only_cells : bool, default=True
        Whether to leave out regions of interest that the file marks as not being cells, in a column
        "iscell", "Accepted" or "valid_roi" of their table. Without such a column, all are loaded.

    follow_links : bool, default=False
        Whether to read what is stored in other files, as in :func:`load_nwb`. Only for files that
        you trust.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with these attributes:

        signals : ndarray of shape (n_frames, n_neurons), float32
            The signal of each neuron in each frame, NaN in `invalid_times`.
        time : ndarray of shape (n_frames,)
            Start of each frame on the clock of the file, in seconds.
        neuron_ids : ndarray of shape (n_neurons,)
            Identifiers of the regions of interest in their table.
        rois : DataFrame
            Rows of that table for the neurons in `signals`, without masks.
        trials : DataFrame
            Table of the trials. None if there is none.
        behavior : dict of ndarray of shape (n_frames, n_channels)
            Time series by name: the mean over each frame, as over bins in :func:`load_nwb`.
        signal, unit : str
            Name of the signal, and its unit as declared in the file.
        fps : float
            Frames per second.
        bin_width : float
            ``1 / fps``, in seconds.
        reference_time : datetime
            Date and time of 0 s on the clock of the file.

    Raises
    ------
    ImportError
        If pynwb is not installed.
    FileNotFoundError
        If the file does not exist.
    TypeError
        If an argument is of another type.
    ValueError
        If the file cannot be read, names other files, or holds arrays that would take far more
        memory than their size in the file; or if it has no such signal or table.

    Warns
    -----
    UserWarning
        If time series are left out, or planes differ in their numbers of frames.

    See Also
    --------
    align_signals : Trials around events.
    load_nwb : Spikes of the same format.
    load_suite2p, load_caiman : Other formats.

    Examples
    --------
    >>> from sklearn_stndt.datasets import align_signals, load_nwb_ophys
    >>> data = load_nwb_ophys("session.nwb", "DfOverF")  # doctest: +SKIP
    >>> cues = data.trials["cue_time"]  # doctest: +SKIP
    >>> X = align_signals(data.signals, data.time, cues, (-0.5, 1.5), 0.1)  # doctest: +SKIP
    """
    if not isinstance(signal, str | None):
        raise TypeError(f"signal must be the name of a series, got {signal!r}.")
    if not isinstance(trials, str | bool | np.bool_):
        raise TypeError(f"trials must be True, False or the name of a table, got {trials!r}.")
    if not isinstance(only_cells, bool | np.bool_):
        raise TypeError(f"only_cells must be True or False, got {only_cells!r}.")
    with opened(path, follow_links) as (file, name, trusted):
        reader = Reader(name, trusted)
        table = _table(file, trials, reader)
        chosen = _choose(file, name, signal)
        parts = [_read_plane(series, key, bool(only_cells), reader) for key, series in chosen]
        left_out: list[str] = []
        kind = import_pynwb().ophys.RoiResponseSeries
        series = {}
        for key, one in choose_series(file, name, behavior, left_out).items():
            if behavior is not None or not isinstance(one, kind):
                with reading(name, key):
                    series[key] = as_signal(one, key, reader)
        invalid = read_invalid_times(file, reader)
        reference_time = file.timestamps_reference_time
    for key, found in series.items():
        if isinstance(found, str):
            if behavior is not None:
                raise ValueError(f"{name}: {key} is not a numeric time series: it {found}.")
            left_out.append(f"the time series {key!r} {found} and is not loaded")
    times, fps = _clock(parts, name, left_out)
    for message in left_out:
        warnings.warn(f"{name}: {message}.", UserWarning, stacklevel=2)
    signals = np.concatenate([part.values[: len(times)] for part in parts], axis=1)
    check_frames(len(signals), signals.shape[1], f"{name}: {chosen[0][0]}")
    signals[times_within(times, invalid)] = np.nan
    at_frames = {
        key: found.without(invalid).in_bins(times, times + 1 / fps)
        for key, found in series.items()
        if isinstance(found, Signal)
    }
    data = as_recording(
        signals,
        fps,
        signal or _container(chosen[0][0]),
        np.concatenate([part.rois["id"].to_numpy() for part in parts]),
        rois=_joined([part.rois for part in parts]),
        trials=table,
        behavior=at_frames,
        unit=parts[0].unit,
        reference_time=reference_time,
    )
    data.time = times
    return data


@dataclass(frozen=True)
class _Plane:
    """A series, and the regions of interest that are kept."""

    key: str  # path in the file
    values: NDArray[np.float32]  # (n_frames, n_neurons)
    times: NDArray[np.float64]  # (n_frames,), s
    fps: float
    rois: Any  # DataFrame, one row per neuron
    unit: str


def _table(file: Any, trials: bool | str, reader: Reader) -> Any:
    """Return the table of the trials, or None."""
    if not isinstance(trials, str) and not trials:
        return None
    tables = tables_of(file)
    wanted = trials if isinstance(trials, str) else "trials"
    if wanted not in tables:
        if isinstance(trials, str):
            raise ValueError(
                f"{reader.name} has no table of intervals {trials!r}, only {sorted(tables)}. Pass "
                "one of them, or trials=False."
            )
        return None
    return reader.table(tables[wanted], ("timeseries",))


def _container(path: str) -> str:
    """Name of the container of a series, such as "DfOverF" of processing/ophys/DfOverF/plane0."""
    return path.split("/")[-2]


def _choose(file: Any, name: str, signal: str | None) -> list[tuple[str, Any]]:
    """Return the series of a signal, by path: one for each plane."""
    found = rois_of(file)
    if not found:
        raise ValueError(
            f"{name} holds no RoiResponseSeries, and so no calcium imaging. Load spikes with "
            "load_nwb."
        )
    containers = {path: path.rpartition("/")[0] for path in found}
    if signal is None:
        kind = import_pynwb().ophys.DfOverF
        folders = {containers[path] for path, one in found.items() if isinstance(one.parent, kind)}
        folders = folders if len(folders) == 1 else set(containers.values())
    elif signal in found:
        return [(signal, found[signal])]
    else:
        folders = {one for one in containers.values() if signal in (one, one.rpartition("/")[2])}
        if not folders:
            same = [path for path in found if signal == path.rpartition("/")[2]]
            if len(same) == 1:
                return [(same[0], found[same[0]])]
    if len(folders) != 1:
        raise ValueError(
            f"{name} has {'several series' if signal is None else f'not one {signal!r}'}: "
            f"{sorted(found)}. Pass signal=... with one of these paths, or the name of a container."
        )
    (folder,) = folders
    return [(path, one) for path, one in found.items() if containers[path] == folder]


def _read_plane(series: Any, key: str, only_cells: bool, reader: Reader) -> _Plane:
    """Return values (n_frames, n_neurons) and times of a series, and rows of its regions."""
    where = f"{reader.name}: {key}"
    with reading(reader.name, f"{key}/rois"):
        table = series.rois.table
        rows = as_indices(reader.all(series.rois, f"{key}/rois"), f"{where}/rois", len(table))
        shape = tuple(series.data.shape)
    if len(shape) == 1 and len(rows) == 1:
        shape = (shape[0], 1)
    if len(shape) != 2 or shape[1] != len(rows):
        turned = shape == (len(rows), *shape[1:]) and len(shape) == 2
        raise ValueError(
            f"{where} has data of shape {shape} for {len(rows)} regions of interest; expected "
            f"(n_frames, n_rois). {'It is transposed. ' * turned}Correct the file; or read it with "
            "pynwb and pass the array."
        )
    frame = reader.table(table, _MASKS).iloc[rows].reset_index(drop=True)
    kept = np.ones(len(rows), dtype=bool)
    column = next((column for column in _IS_CELL if column in frame.columns), None)
    if only_cells and column is not None:
        values = [np.ravel(value)[:1] for value in frame[column]]
        kept = as_flags(
            np.concatenate(values), f"{where}/rois: {column}", remedy="Pass only_cells=False."
        )
    with reading(reader.name, key):
        signal = as_signal(series, key, reader)
    if isinstance(signal, str):
        raise ValueError(f"{where} {signal}. Correct the file, or pass another signal.")
    rate = check_fps(sampling_rate(signal), where)
    with np.errstate(over="ignore"):
        values = (signal.values[:, kept] * signal.conversion + signal.offset).astype(np.float32)
    if np.isinf(values).any():
        raise ValueError(f"{where} holds infinite numbers, or beyond 1e38. Correct the file.")
    return _Plane(key, values, signal.times, rate, frame[kept], str(series.unit))


def _clock(parts: list[_Plane], name: str, left_out: list[str]) -> tuple[NDArray, float]:
    """Return the times of the frames that all planes have, and frames per second."""
    first = parts[0]
    n_frames = min(len(part.times) for part in parts)
    for part in parts[1:]:
        if abs(part.fps - first.fps) > 1e-3 * first.fps:
            raise ValueError(
                f"{name}: {first.key} has {first.fps:g} frames per second and {part.key} "
                f"{part.fps:g}. Pass the path of one of them."
            )
    if any(len(part.times) > n_frames for part in parts):
        left_out.append(f"planes differ in length; frames after the first {n_frames:,} left out")
    times = first.times[:n_frames]
    if (np.diff(times) <= 0).any():
        raise ValueError(f"{name}: {first.key} has frames with equal times. Correct the file.")
    return times, first.fps


def _joined(frames: list[Any]) -> Any:
    if len(frames) == 1:
        return frames[0].reset_index(drop=True)
    import pandas as pd

    return pd.concat(frames, ignore_index=True)
