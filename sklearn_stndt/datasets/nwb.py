"""Load recordings from Neurodata Without Borders (NWB) files."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Bunch

from sklearn_stndt._progress import tracked
from sklearn_stndt.datasets._checks import check_memory, check_number
from sklearn_stndt.datasets._loaded import Loaded, Series
from sklearn_stndt.datasets._nwb_reading import NWBRecording, read_recording
from sklearn_stndt.datasets._times import (
    scalar_in_seconds,
    warn_of_clocks,
    warn_of_events,
    warn_of_window,
)
from sklearn_stndt.datasets.binning import bins_of_window, window_in_seconds

__all__ = ["load_nwb"]

# Spikes and behaviour are on different clocks if one of them lasts so many times longer.
_RATIO = 50
_FEW_SPIKES = 20  # show nothing about a clock
_LISTED = 20  # rows in a warning


def load_nwb(
    path: Any,
    *,
    bin_width: float = 0.005,
    align: str | None = None,
    window: tuple[float, float] | None = None,
    lag: float = 0.0,
    behavior: str | Sequence[str] | None = None,
    trials: bool | str = True,
    units: str | Mapping[str, Any] | ArrayLike | Callable[[Any], ArrayLike] | None = None,
    on_error: str = "raise",
    verbose: bool | int = False,
    max_gap: float | None = None,
    follow_links: bool = False,
) -> Bunch:
    """Load binned spikes, behaviour and trials from an NWB file.

    The whole recording is divided into bins: bin ``k`` starts at ``k * bin_width``, and the first
    bin of a trial is the first one that starts at or after the start of the trial. So all trials
    share one grid of bins, as in the Neural Latents Benchmark.

    Parameters
    ----------
    path : path, NWBFile, h5py.File or binary file
        NWB file with a units table: its path, or an object that is open and stays open. The path
        of a Zarr folder needs hdmf-zarr.

    bin_width : float, default=0.005
        Width of a bin, in seconds.

    align : str, default=None
        Column of the trials table with the time of an event, such as "move_onset_time"; requires
        `window`. Trials without the event are left out. None: start_time.

    window : (float, float), default=None
        Start and end of each trial relative to `align`, in seconds. Must span a whole number of
        bins. None: trials last from start_time to stop_time, and shorter ones are padded with NaN.

    lag : float, default=0.0
        Time by which behaviour lags the spikes, in seconds: behaviour in bin ``t`` is taken `lag`
        later than the spikes in bin ``t``.

    behavior : str or list of str, default=None
        Names of the time series to load, such as "hand_vel". The name of a series in a container is
        that of the container and that of the series, joined by "_"; its own name is enough if it is
        the only one. If several series have the same
        name, each is named by its path in the file instead, such as "acquisition/lick" and
        "processing/behavior/lick". Paths are always accepted. None: all time series except
        electrophysiology and images.

    trials : bool or str, default=True
        Name of the table of intervals that holds the trials, such as "epochs". True: "trials".
        False: return the whole recording as one 2D array and ignore the trials table.

    units : str, dict, array-like or callable, default=None
        Units to load, in one of these forms:

        - a condition on columns of the units table, as in :meth:`pandas.DataFrame.query`:
          ``"quality == 'good' and snr > 4"``;
        - a dict of columns and wanted values: ``{"quality": "good"}`` or
          ``{"quality": ["good", "mua"]}``;
        - row numbers in the units table, in the order of the neurons in `spikes`;
        - a boolean mask, one value per unit;
        - a function that receives the units table as a DataFrame and returns row numbers or a mask.

        The column "id" contains the identifiers. None: all units.

    on_error : {"raise", "skip"}, default="raise"
        What to do with units whose spike times are negative, unsorted or not finite, and with
        trials that end before they start or are shorter than a bin. "skip": leave them out, with
        a warning that lists them.

    verbose : bool or int, default=False
        Whether to show the progress of reading.

    max_gap : float, default=None
        Longest time between two samples of behaviour that is interpolated, in seconds; longer gaps
        are NaN. None: five times the median sample interval of each channel. Gaps shorter than a
        bin are always interpolated.

    follow_links : bool, default=False
        Whether to read what is stored in other files: external links, external storage and virtual
        datasets; arrays may then be of any size. False: a file that names another one is an error.
        Only for files that you trust, as a file can name any file that you can read. Objects that
        pynwb has opened, such as an NWBFile, are always read in full.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, which prints the names and shapes of what it holds, with these
        attributes:

        spikes : ndarray of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons), float32
            Spike counts per bin. NaN after the end of a trial, and where a unit was not observed
            for the whole bin (`obs_intervals`) or a part of the bin is in `invalid_times`.
        behavior : dict of ndarray of shape (n_trials, n_bins, n_channels) or (n_bins, n_channels)
            Time series by name, in the units declared in the file. NaN in gaps, beyond the
            ends of the series, and in `invalid_times`. Booleans are 0 and 1. A series in a
            container is also found by its own name if that is the only one.
        behavior_units : dict of str
            Unit of measurement of each series in `behavior`, as declared in the file.
        sampling_rates : dict of float
            Sampling rate of each series in `behavior` in the file, in Hz. For irregular series, the
            inverse of the median interval; NaN for a single sample.
        trials : DataFrame
            Rows of the trials table for the trials in `spikes`, including columns with conditions.
            None with ``trials=False``.
        units : DataFrame
            Rows of the units table for the neurons in `spikes`, without spike times,
            `obs_intervals` and waveforms. The column "electrodes" contains row numbers of
            `electrodes`.
        electrodes : DataFrame
            Table of electrodes. None if the file has none.
        heldout : ndarray of int
            Indices of the neurons marked in the column "heldout" of the units table, which the
            benchmark's files have.
        unit_ids : ndarray of shape (n_neurons,)
            Identifiers of the units.
        time : ndarray of shape (n_bins,)
            Start of each bin, in seconds relative to `align`, or to the start of the trial or
            recording.
        clock : ndarray of shape (n_trials, n_bins) or (n_bins,)
            Start of each bin on the clock of the file, in seconds.
        reference_time : datetime
            Date and time of 0 s on the clock of the file.
        bin_width, lag : float
            As given.

    Raises
    ------
    ImportError
        If pynwb is not installed, or hdmf-zarr for a Zarr folder.
    FileNotFoundError
        If the file does not exist.
    TypeError
        If `path` or `units` is of another type.
    ValueError
        If the file cannot be read, or lacks units, trials, a column or a time series; if `path` is
        a URL; if the file names other files, or holds arrays that would take far more memory than
        their size in the file; if all bins would need more memory than there is; if `units` chooses
        no unit; if spike times are negative, not sorted or not finite, or a trial ends before it
        starts, and `on_error` is "raise"; if an interval in `obs_intervals` or `invalid_times` has
        a NaN end or stops before it starts; or if `window` does not span a
        whole number of bins.

    Warns
    -----
    UserWarning
        If units, trials or time series are left out. If the clocks of spikes and trials seem to
        differ, or most events lie outside their own trials. If the timestamps of a series are not
        in order; its samples are then sorted by time.

    See Also
    --------
    load_nlb : Load the arrays of the benchmark, also from its NWB files.
    fetch_nlb : Download the NWB files of the benchmark.

    Notes
    -----
    Behaviour in a bin is the mean over the bin of the linear interpolation between samples, at
    every sampling rate, regular or not. Samples and timestamps that are NaN are left out. A bin is
    NaN if its centre lies in a gap longer than `max_gap`, or before the first or after the last
    sample, more than half a sample interval from any sample. `load_nlb` follows the benchmark
    instead, which takes the value at the start of each bin after an anti-aliasing filter.

    Examples
    --------
    >>> import tempfile
    >>> from datetime import datetime, timezone
    >>> from pathlib import Path
    >>> from pynwb import NWBHDF5IO, NWBFile
    >>> from sklearn_stndt.datasets import load_nwb
    >>> file = NWBFile("a session", "an identifier", datetime(2026, 1, 1, tzinfo=timezone.utc))
    >>> for times in ([0.11, 0.52], [0.26]):
    ...     file.add_unit(spike_times=times)
    >>> for start in (0.0, 0.5):
    ...     file.add_trial(start_time=start, stop_time=start + 0.3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "session.nwb"
    ...     with NWBHDF5IO(path, "w") as io:
    ...         io.write(file)
    ...     data = load_nwb(path, bin_width=0.1)
    >>> data.spikes[0]
    array([[0., 0.],
           [1., 0.],
           [0., 1.]], dtype=float32)
    """
    bin_width = scalar_in_seconds(bin_width, "bin_width")
    lag = scalar_in_seconds(lag, "lag")
    max_gap = None if max_gap is None else scalar_in_seconds(max_gap, "max_gap")
    window = None if window is None else window_in_seconds(window)
    check_number(bin_width, "bin_width", above=0)
    check_number(lag, "lag")
    if not isinstance(on_error, str) or on_error not in ("raise", "skip"):
        raise ValueError(f'on_error must be "raise" or "skip", got {on_error!r}.')
    if max_gap is not None and not (isinstance(max_gap, float) and max_gap == np.inf):
        check_number(max_gap, "max_gap", at_least=0)
    if not isinstance(trials, str | bool | np.bool_):
        raise TypeError(f"trials must be True, False or the name of a table, got {trials!r}.")
    if not isinstance(verbose, int | np.integer | np.bool_):
        raise TypeError(f"verbose must be True, False or a number, got {verbose!r}.")
    whole = not isinstance(trials, str) and not trials
    if not isinstance(align, str | None):
        raise TypeError(f"align must be the name of a column, got {align!r}.")
    if align is not None and window is None and not whole:
        raise ValueError(f"align={align!r} needs a window=(begin, end) around it, in seconds.")
    recording = read_recording(
        path,
        behavior,
        table=trials if isinstance(trials, str) else "trials",
        units=units,
        skip=on_error == "skip",
        verbose=bool(verbose),
        follow_links=follow_links,
    )
    if whole:
        recording.check_end()
        rows = None
        starts = np.zeros(1)
        n_bins = np.array([max(int(np.floor(recording.end / bin_width + 1e-6)), 1)])
    else:
        _check_table(recording)
        if window is None:
            rows, starts, n_bins = _whole_trials(recording, bin_width, on_error == "skip")
        else:
            rows, starts = _events(recording, align or "start_time")
            warn_of_window(starts, window)
            starts = starts + window[0]
            n_bins = np.full(len(starts), bins_of_window(window, bin_width))
    for message in [*recording.left_out, *_doubtful_signals(recording)]:
        warnings.warn(f"{recording.name}: {message}.", stacklevel=2)
    _check_clocks(recording, None if whole else align)
    _check_size(recording, rows, n_bins, bin_width)
    first = recording.first_bins(starts, bin_width)
    series = {
        name: recording.behavior(name, first, n_bins, bin_width, lag=lag, max_gap=max_gap)
        for name in tracked(recording.signals, "binning behaviour", "signals", show=bool(verbose))
    }
    spikes = recording.counts(first, n_bins, bin_width)  # last, as it takes the most memory
    clock = (first[:, None] + np.arange(n_bins.max())) * bin_width  # (n_trials, n_bins)
    if rows is None:
        spikes, clock = spikes[0], clock[0]
        series = {name: values[0] for name, values in series.items()}
    return Loaded(
        spikes=spikes,
        behavior=Series(series),
        behavior_units=recording.signal_units,
        sampling_rates=recording.sampling_rates,
        trials=None if rows is None else recording.trials.iloc[rows].reset_index(drop=True),
        units=recording.units,
        electrodes=recording.electrodes,
        heldout=np.flatnonzero(recording.heldout),
        unit_ids=recording.unit_ids,
        time=(0.0 if window is None or rows is None else window[0])
        + bin_width * np.arange(n_bins.max()),
        clock=clock,
        reference_time=recording.reference_time,
        bin_width=bin_width,
        lag=lag,
    )


def _check_table(recording: NWBRecording) -> None:
    """Raise an error unless there are trials."""
    if recording.trials is None:
        other = f", or trials=... with one of its tables {recording.tables}"
        raise ValueError(
            f"{recording.name} has no trials table. Pass trials=False for the whole recording"
            f"{other if recording.tables else ''}, or bin its spike times around your own events "
            "with align_to_events."
        )
    if not len(recording.trials):
        raise ValueError(
            f"{recording.name}: the table {recording.table!r} has no rows. Pass trials=False for "
            "the whole recording."
        )


def _whole_trials(
    recording: NWBRecording, bin_width: float, skip: bool
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.intp]]:
    """Return rows, starts (s) and numbers of bins of trials from start_time to stop_time."""
    starts, stops = (recording.event_times(name) for name in ("start_time", "stop_time"))
    for name, times in (("start_time", starts), ("stop_time", stops)):
        if not np.isfinite(times).any():
            raise ValueError(
                f"{recording.name}: {name} is missing (NaN) in all {len(times)} rows of "
                f"{recording.table!r}. Pass align and window, with a column that has times."
            )
    known = np.isfinite(starts) & np.isfinite(stops)
    if not known.any():
        raise ValueError(
            f"{recording.name}: no row of {recording.table!r} has both a start_time and a "
            "stop_time. Pass align and window."
        )
    if not known.all():
        recording.left_out.append(
            f"{recording.table}[{_listed(~known)}] left out: start_time or stop_time is NaN or "
            "infinite"
        )
    n_bins = np.zeros(len(starts), dtype=np.intp)
    n_bins[known] = recording.first_bins(stops[known], bin_width) - recording.first_bins(
        starts[known], bin_width
    )
    reversed_ = known & (stops < starts)
    short = known & ~reversed_ & (n_bins < 1)
    for bad, fault, remedy in (
        (reversed_, "stop_time is before start_time", "Correct the file"),
        (short, f"shorter than a bin of {bin_width:g} s", "Use narrower bins"),
    ):
        if not bad.any():
            continue
        if skip:
            recording.left_out.append(f"{recording.table}[{_listed(bad)}] left out: {fault}")
            continue
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"{recording.name}: trial {row} lasts from {starts[row]:g} to {stops[row]:g} s: {fault}"
            f" (in {bad.sum()} of {len(bad)} trials). {remedy}, leave such trials out with "
            "on_error='skip', or pass align and window."
        )
    rows = np.flatnonzero(known & ~reversed_ & ~short)
    if not len(rows):
        raise ValueError(
            f"{recording.name}: no trial is left; {'; '.join(recording.left_out)}. Pass align and "
            "window, or correct the file."
        )
    return rows, starts[rows], n_bins[rows]


def _events(recording: NWBRecording, column: str) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return rows and times (s) of the trials that have an event."""
    events = recording.event_times(column)
    rows = np.flatnonzero(np.isfinite(events))
    if not len(rows):
        raise ValueError(
            f"{recording.name}: no trial has a time in {column}: it is NaN in all {len(events)} "
            f"rows of {recording.table!r}. Align to another column of the trials table."
        )
    return rows, events[rows]


def _check_size(
    recording: NWBRecording,
    rows: NDArray[np.intp] | None,
    n_bins: NDArray[np.intp],
    bin_width: float,
) -> None:
    """Raise an error before more memory is taken than the machine has."""
    longest, at = int(n_bins.max()), int(n_bins.argmax())
    n_channels = sum(signal.values.shape[1] for signal in recording.signals.values())
    n_bytes = 4 * len(recording.spike_times) + 8 * n_channels + 8  # of a bin; 8 for the clock
    what = "the recording" if rows is None else f"{recording.table}[{rows[at]}]"
    check_memory(
        len(n_bins) * longest * n_bytes,
        f"{recording.name}: {what} lasts {longest * bin_width:,.6g} s. To bin {len(n_bins):,} "
        f"trials of that length in {longest:,} bins of {bin_width:g} s",
        "Correct the file if that time is wrong, or not in seconds; pass align and window, wider "
        "bins, or fewer units and time series.",
    )


def _check_clocks(recording: NWBRecording, align: str | None) -> None:
    """Warn if spikes, trials and the events to align to seem to be on different clocks."""
    if recording.trials is None:
        starts, stops, trials = np.zeros(1), np.array([recording.end]), "recording"
    else:
        starts, stops = (recording.event_times(name) for name in ("start_time", "stop_time"))
        trials = recording.table
        if align is not None:
            warn_of_events(
                recording.event_times(align),
                starts,
                stops,
                name=align,
                file=recording.name,
                stacklevel=4,
            )
    known = np.isfinite(starts) & np.isfinite(stops) & (starts <= stops)
    if known.any():
        warn_of_clocks(
            recording.spike_times,
            starts[known],
            stops[known],
            spikes=f"{recording.name}: spikes",
            trials=trials,
            stacklevel=4,
        )


def _doubtful_signals(recording: NWBRecording) -> list[str]:
    """Say which time series do not fit the clock of the spikes."""
    trains = [train for train in recording.spike_times if train.size]
    if sum(map(len, trains)) < _FEW_SPIKES:
        return []
    first, last = min(train[0] for train in trains), max(train[-1] for train in trains)
    notes = []
    for name, signal in recording.signals.items():
        times = signal.times[np.isfinite(signal.times)]
        if len(times) < 2:
            continue
        low, high = times.min(), times.max()
        if low > last or high < first or high - low > _RATIO * (last - first):
            notes.append(
                f"spikes and {name!r} may be on different clocks, or not in seconds: spikes range "
                f"from {first:g} to {last:g} s, {name!r} from {low:g} to {high:g} s"
            )
    return notes


def _listed(rows: NDArray[np.bool_]) -> str:
    found = np.flatnonzero(rows)
    more = f" and {len(found) - _LISTED:,} more" if len(found) > _LISTED else ""
    return ", ".join(map(str, found[:_LISTED])) + more
