"""Recordings in Neurodata Without Borders (NWB) files."""

import os
from collections.abc import Sequence

import numpy as np
from sklearn.utils import Bunch

from ._checks import check_number
from ._recording import read_recording
from .binning import bins_of_window

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
    """Load spikes, behaviour and trials of an NWB file, binned.

    Bins are those of the recording: bin ``k`` begins at ``k * bin_width``, and a trial begins with
    the first bin that opens at or after its start. So spikes and behaviour of all trials share one
    clock, as in the Neural Latents Benchmark.

    Parameters
    ----------
    path : path
        NWB file with a units table.

    bin_width : float, default=0.005
        Width of a bin, in seconds.

    align : str, default=None
        Column of the trials table with the time of an event, such as "move_onset_time". Trials
        without that event are left out. None: trials last from start_time to stop_time; shorter
        ones are padded with NaN.

    window : (float, float), default=None
        Begin and end of each trial relative to `align` (or to start_time), in seconds; a whole
        number of bins.

    lag : float, default=0.0
        Time by which behaviour follows the neurons, in seconds: behaviour of bin ``t`` is taken
        `lag` later than spikes of bin ``t``.

    behavior : str or list of str, default=None
        Time series to load, such as "hand_vel"; of a container, its name and that of the series,
        joined by "_". None: all but electrophysiology and images.

    trials : bool, default=True
        False: the whole recording as a single 2D array, whatever trials there are.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the attributes:

        spikes : ndarray of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons), float32
            Spike counts per bin; NaN after the end of a trial, and where a unit was not observed
            throughout the bin (`obs_intervals`).
        behavior : dict of ndarray of shape (n_trials, n_bins, n_channels) or (n_bins, n_channels)
            Each time series, in the unit that the file declares; NaN where it is unknown.
        trials : DataFrame
            The rows of the trials table that belong to `spikes`, conditions among its columns.
            None with ``trials=False``.
        heldout : ndarray of int
            Units that a column "heldout" of the units table marks, as the benchmark's files do.
        unit_ids : ndarray of shape (n_neurons,)
            Identifiers of the units.
        time : ndarray of shape (n_bins,)
            Begin of each bin relative to `align`, or to the start, in seconds.
        bin_width, lag : float
            As given.

    Raises
    ------
    ImportError
        Without pynwb.
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file cannot be read, has no units, no trials, or no such column or time series; if
        spike times are negative, not in order or not finite; or if `window` is no whole number of
        bins.

    See Also
    --------
    load_nlb : The benchmark's tensors, from its NWB files too.
    fetch_nlb : Downloads these files.

    Notes
    -----
    A regular series with a whole number of samples a bin is sampled at the opening of each bin
    after a zero-phase anti-aliasing filter, as in the benchmark. Others are averaged over the
    samples of each bin; series slower than the bins are interpolated to their centres.

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
                f"{recording.name}: trial {too_short[0]} lasts {stops[too_short[0]]:g} - "
                f"{starts[too_short[0]]:g} s, less than a bin of {bin_width:g} s. Use narrower "
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
