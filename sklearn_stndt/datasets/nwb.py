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
    max_gap: float | None = None,
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

    max_gap : float, default=None
        Longest time between two samples of behaviour that is interpolated, in seconds; longer gaps
        are NaN. None: five times the median sample interval of each channel. Gaps shorter than a
        bin are always interpolated.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with these attributes:

        spikes : ndarray of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons), float32
            Spike counts per bin. NaN after the end of a trial, and where a unit was not observed
            for the whole bin (`obs_intervals`) or a part of the bin is in `invalid_times`.
        behavior : dict of ndarray of shape (n_trials, n_bins, n_channels) or (n_bins, n_channels)
            Time series by name, in the units declared in the file. NaN in gaps, beyond the
            ends of the series, and in `invalid_times`.
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
        times are negative, not sorted or not finite; if an interval in `obs_intervals` or
        `invalid_times` has a NaN end or stops before it starts; or if `window` does not span a
        whole number of bins.

    Warns
    -----
    UserWarning
        If the timestamps of a series are not in order. Its samples are then sorted by time.

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
    check_number(bin_width, "bin_width", above=0)
    check_number(lag, "lag")
    if max_gap is not None and max_gap != np.inf:
        check_number(max_gap, "max_gap", at_least=0)
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
    series = {
        name: recording.behavior(name, first, n_bins, bin_width, lag=lag, max_gap=max_gap)
        for name in recording.signals
    }
    spikes = recording.counts(first, n_bins, bin_width)  # last, as it takes the most memory
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
