"""A recording as the commands see it: counts in bins, their clock, and behaviour."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sklearn_stndt.cli.arrays import read_arrays
from sklearn_stndt.cli.messages import CommandError
from sklearn_stndt.cli.options import DEFAULT_BIN_WIDTH
from sklearn_stndt.datasets import load_nwb

LONGEST_WINDOW = 60.0  # s around an event; a longer one is rather in milliseconds
ARRAYS = (".npy", ".npz", ".mat", ".csv", ".tsv")


@dataclass(frozen=True)
class Recording:
    """Counts of a file, and where their bins are.

    Parameters
    ----------
    path : Path
        File that they come from.
    counts : ndarray of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
        Spikes per bin, NaN where unknown.
    bin_width : float
        In seconds.
    neurons : ndarray of shape (n_neurons,)
        Identifiers of the units, or names.
    time : ndarray of shape (n_bins,)
        Start of each bin, in seconds from the event, the start of the trial or of the recording.
    clock : ndarray of shape (n_trials, n_bins) or (n_bins,), or None
        Start of each bin on the clock of the file, in seconds; None if the file has no clock.
    trials : ndarray of shape (n_trials,), or None
        Identifiers of the trials.
    targets : dict of ndarray of shape (n_trials, n_bins, n_channels) or (n_bins, n_channels)
        Behaviour in the same bins.
    target_units : dict of str
        Its unit of measurement, where known.
    """

    path: Path
    counts: NDArray
    bin_width: float
    neurons: NDArray
    time: NDArray
    clock: NDArray | None
    trials: NDArray | None
    targets: dict[str, NDArray] = field(default_factory=dict)
    target_units: dict[str, str] = field(default_factory=dict)

    @property
    def is_trials(self) -> bool:
        """Whether there are trials, not one continuous recording."""
        return self.counts.ndim == 3

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Which bins are not the padding of a short trial, (n_trials, n_bins) or (n_bins,)."""
        known = ~np.isnan(self.counts).all(axis=-1)
        if not self.is_trials:
            return np.ones(known.shape, dtype=bool)
        return np.logical_or.accumulate(known[:, ::-1], axis=1)[:, ::-1]

    def describe(self) -> str:
        """Say in a line what was read."""
        bins = f"bins of {1000 * self.bin_width:g} ms"
        n_spikes = f"{np.nansum(self.counts, dtype=np.float64):,.0f} spikes"
        if self.is_trials:
            n_trials, n_bins, n_neurons = self.counts.shape
            up_to = "" if self.inside.all() else "up to "
            size = f"{n_trials} trials of {up_to}{n_bins} {bins}"
        else:
            n_bins, n_neurons = self.counts.shape
            size = f"a recording of {n_bins:,} {bins}"
        return f"{self.path.name}: {size}, {n_neurons} neurons, {n_spikes}"


def read(options: argparse.Namespace, targets: Sequence[str] = ()) -> Recording:
    """Read the recording that the options of the command describe.

    Parameters
    ----------
    options : Namespace
        With `input` and the options of `add_reading`.
    targets : sequence of str, default=()
        Time series, variables or columns with behaviour to read.
    """
    path = Path(options.input).expanduser()
    if not path.exists():
        raise CommandError(f"There is no file {path}. Check the path.")
    is_nwb = path.suffix == ".nwb" or path.is_dir()
    if not is_nwb and path.suffix not in ARRAYS:
        raise CommandError(
            f"{path} ends in {path.suffix or 'nothing'}, which says nothing about its format. "
            f"Files of spikes end in .nwb, {', '.join(ARRAYS)}."
        )
    if options.align is not None and options.window is None:
        raise CommandError(
            f"--align {options.align} needs --window BEGIN END in seconds around the event, such "
            "as --window -0.2 0.8."
        )
    if options.window is not None and options.window[1] - options.window[0] > LONGEST_WINDOW:
        begin, end = options.window
        raise CommandError(
            f"--window {begin:g} {end:g} lasts {end - begin:g} s. It is in seconds, also with "
            "--time-unit ms: 200 ms are 0.2."
        )
    _check_options(options, path, is_nwb)
    recording = _read_nwb(path, options, targets) if is_nwb else _read(path, options, targets)
    if not np.nansum(recording.counts) > 0:
        raise CommandError(f"{path} holds no spike in the bins that were read.")
    return recording


def _check_options(options: argparse.Namespace, path: Path, is_nwb: bool) -> None:
    """Raise an error for options that say nothing about this kind of file."""
    of_nwb = ("units", "no_trials", "skip_bad")
    of_arrays = ("counts", "axes", "spike_times", "neuron")
    of_events = ("align", "window", "trials")
    of_tables = ("ignore",)
    if is_nwb:
        without = (*of_arrays, *of_tables)
    elif path.suffix in (".csv", ".tsv"):
        without = (*of_nwb, *of_events, "counts", "axes")
    elif path.suffix == ".npy":
        without = (*of_nwb, *of_events, *of_tables, "counts", "spike_times", "neuron")
    else:
        without = (*of_nwb, *of_tables)
    for name in without:
        if getattr(options, name):
            option = f"--{name.replace('_', '-')}"
            raise CommandError(f"{option} is not for {path.suffix or 'such'} files. Leave it out.")


def _read_nwb(path: Path, options: argparse.Namespace, targets: Sequence[str]) -> Recording:
    if options.no_trials and (options.align or options.window or options.trials):
        raise CommandError(
            "--no-trials reads the whole recording: leave the options of trials out."
        )
    data = load_nwb(
        path,
        bin_width=options.bin_width or DEFAULT_BIN_WIDTH,
        align=options.align,
        window=None if options.window is None else tuple(options.window),
        behavior=list(targets),
        trials=False if options.no_trials else options.trials or True,
        units=options.units,
        on_error="skip" if options.skip_bad else "raise",
    )
    return Recording(
        path=path,
        counts=data.spikes,
        bin_width=data.bin_width,
        neurons=np.asarray(data.unit_ids),
        time=data.time,
        clock=data.clock,
        trials=None if data.trials is None else data.trials["id"].to_numpy(),
        targets=dict(data.behavior),
        target_units=dict(data.behavior_units),
    )


def _read(path: Path, options: argparse.Namespace, targets: Sequence[str]) -> Recording:
    found = read_arrays(path, options, targets)
    n_bins = found.counts.shape[-2]
    clock = None
    if found.starts is not None:
        clock = np.asarray(found.starts)[..., None] + found.bin_width * np.arange(n_bins)
    elif found.counts.ndim == 2:
        clock = found.bin_width * np.arange(n_bins)
    return Recording(
        path=path,
        counts=found.counts,
        bin_width=found.bin_width,
        neurons=found.neurons,
        time=found.first + found.bin_width * np.arange(n_bins),
        clock=clock,
        trials=np.arange(len(found.counts)) if found.counts.ndim == 3 else None,
        targets=found.targets,
    )
