"""Load recordings from Neurodata Without Borders (NWB) files."""

import os
from collections.abc import Sequence

import numpy as np
from sklearn.utils import Bunch

from sklearn_stndt.datasets._checks import check_number
from sklearn_stndt.datasets._recording import read_recording
from sklearn_stndt.datasets.binning import bins_of_window

__all__ = ["load_nwb"]


def load_nwb(
    path: str | os.PathLike,
    *,
    bin_width: float = 0.005,
    align: str | None = None,
    window: tuple[float, float] | None = None,
    lag: float = 0.0,
    behavior: str | Sequence[str] | None = None,
    trials: bool = True,
) -> Bunch:
    """Load binned spikes, behaviour and trials from an NWB file.

    The whole recording is divided into bins: bin ``k`` starts at ``k * bin_width``, and the first
    bin of a trial is the first one that starts at or after the start of the trial. So all trials
    share one grid of bins, as in the Neural Latents Benchmark.

    Parameters
    ----------
    path : path
        NWB file with a units table.

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
        that of the container and that of the series, joined by "_". None: all time series except
        electrophysiology and images.

    trials : bool, default=True
        If False, return the whole recording as one 2D array and ignore the trials table.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with these attributes:

        spikes : ndarray of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons), float32
            Spike counts per bin. NaN after the end of a trial, and where a unit was not observed
            for the whole bin (`obs_intervals`).
        behavior : dict of ndarray of shape (n_trials, n_bins, n_channels) or (n_bins, n_channels)
            Time series by name, in the units declared in the file. NaN where unknown.
        trials : DataFrame
            Rows of the trials table for the trials in `spikes`, including columns with conditions.
            None with ``trials=False``.
        heldout : ndarray of int
            Indices of the units marked in the column "heldout" of the units table, which the
            benchmark's files have.
        unit_ids : ndarray of shape (n_neurons,)
            Identifiers of the units.
        time : ndarray of shape (n_bins,)
            Start of each bin, in seconds relative to `align`, or to the start of the trial or
            recording.
        bin_width, lag : float
            As given.

    Raises
    ------
    ImportError
        If pynwb is not installed.
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file cannot be read, or lacks units, trials, a column or a time series; if spike
        times are negative, not sorted or not finite; or if `window` does not span a whole number
        of bins.

    See Also
    --------
    load_nlb : Load the arrays of the benchmark, also from its NWB files.
    fetch_nlb : Download the NWB files of the benchmark.

    Notes
    -----
    A regular time series with a whole number of samples per bin is sampled at the start of each
    bin after a zero-phase anti-aliasing filter, as in the benchmark. A regular series with less
    than one sample per bin is interpolated linearly to the bin centres. All other series are
    averaged within each bin.

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
    check_number(bin_width, "bin_width", above=0)
    check_number(lag, "lag")
    recording = read_recording(path, behavior)
    if not trials:
        starts = np.zeros(1)
        n_bins = np.array([max(int(np.floor(recording.end / bin_width + 1e-6)), 1)])
        kept = None
    elif window is not None:
        events = recording.event_times(align or "start_time")
        kept = np.isfinite(events)
        starts = events[kept] + window[0]
        n_bins = np.full(len(starts), bins_of_window(window, bin_width))
    else:
        if align is not None:
            raise ValueError(f"align={align!r} needs a window=(begin, end) around it, in seconds.")
        starts, stops = (recording.event_times(name) for name in ("start_time", "stop_time"))
        kept = np.isfinite(starts) & np.isfinite(stops)
        starts, stops = starts[kept], stops[kept]
        n_bins = recording.first_bins(stops, bin_width) - recording.first_bins(starts, bin_width)
        too_short = np.flatnonzero(n_bins < 1)
        if too_short.size:
            raise ValueError(
                f"{recording.name}: trial {too_short[0]} lasts from {starts[too_short[0]]:g} to "
                f"{stops[too_short[0]]:g} s, less than a bin of {bin_width:g} s. Use narrower "
                "bins, or pass align and window."
            )
    if not len(starts):
        raise ValueError(
            f"{recording.name}: no trial has a time in {align or 'start_time'}. Align to another "
            "column of the trials table."
        )
    first = recording.first_bins(starts, bin_width)
    spikes = recording.counts(first, n_bins, bin_width)
    recording.signals = {name: signal.scaled() for name, signal in recording.signals.items()}
    later = recording.first_bins(starts + lag, bin_width)
    series = {
        name: recording.behavior(name, later, n_bins, bin_width) for name in recording.signals
    }
    if not trials:
        spikes, series = spikes[0], {name: values[0] for name, values in series.items()}
    return Bunch(
        spikes=spikes,
        behavior=series,
        trials=None if kept is None else recording.trials[kept].reset_index(drop=True),
        heldout=np.flatnonzero(recording.heldout),
        unit_ids=recording.unit_ids,
        time=(0.0 if window is None else window[0]) + bin_width * np.arange(n_bins.max()),
        bin_width=bin_width,
        lag=lag,
    )
