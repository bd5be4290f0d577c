"""Bring sampled signals, such as fluorescence or behaviour, onto bins and into trials."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklearn_stndt.datasets._checks import as_numbers, check_memory, check_number
from sklearn_stndt.datasets._intervals import CLOCK
from sklearn_stndt.datasets._resampling import Signal
from sklearn_stndt.datasets._times import (
    in_seconds,
    scalar_in_seconds,
    warn_of_window,
)
from sklearn_stndt.datasets.binning import (
    bins_of_window,
    check_bin_width,
    check_times,
    check_trials,
    window_in_seconds,
)

__all__ = ["align_signals", "bin_signal_trials", "bin_signals"]

_HOW = ("interpolate", "mean", "sum")
_FAR = 2**40  # samples, longer than any recording


def bin_signals(
    signals: ArrayLike,
    times: Any,
    bin_width: Any,
    *,
    start: Any = None,
    stop: Any = None,
    how: str = "interpolate",
    max_gap: Any = None,
) -> NDArray:
    """Bring a continuous recording of sampled signals onto bins.

    Parameters
    ----------
    signals : array-like of shape (n_samples, n_channels) or (n_samples,)
        Samples, such as the dF/F of each neuron in each frame. NaN where unknown.

    times : array-like of shape (n_samples,)
        Time of each sample, such as the start of each frame, in ascending order, in seconds unless
        it has a unit.

    bin_width : float, quantity, or timedelta
        Width of a bin, in seconds unless it has a unit. With "mean" and "sum", a whole number of
        sample intervals.

    start, stop : float, quantity, or timedelta, default=None
        Time range, in seconds unless it has a unit. An incomplete last bin is left out. None: from
        the first sample to one sample interval after the last.

    how : {"interpolate", "mean", "sum"}, default="interpolate"
        What a bin holds:

        - "interpolate": the mean over the bin of the linear interpolation between samples. For
          values at a time, such as a velocity.
        - "mean": the mean of the samples in the bin, each as it is. For samples that last until the
          next one, such as dF/F, where `times` are the starts of frames. The first bin starts with
          the sample nearest to `start`, so bins may be half a sample interval off.
        - "sum": their sum. For amounts per sample, such as deconvolved calcium: zeros stay 0.

    max_gap : float, quantity, or timedelta, default=None
        Longest time between two samples that is interpolated, in seconds; bins in longer gaps are
        NaN. None: five times the median sample interval. With "mean" and "sum", a bin that misses a
        sample is NaN.

    Returns
    -------
    binned : ndarray of shape (n_bins, n_channels)
        float32 if `signals` is, otherwise float64.

    Raises
    ------
    TypeError
        If times hold no numbers, or are dates.
    ValueError
        If shapes differ, times are not in ascending order, no bin fits into the time range, or
        bins do not hold a whole number of samples where `how` needs them to.

    See Also
    --------
    align_signals : Trials of equal length around events.
    bin_signal_trials : Trials of unequal length.
    bin_spikes : The same for spike times.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_stndt.datasets import bin_signals
    >>> frames = np.array([[0.0], [1.0], [0.0], [0.0], [2.0], [1.0]])  # one neuron, at 10 Hz
    >>> bin_signals(frames, np.arange(6) / 10, bin_width=0.2, how="sum")
    array([[1.],
           [0.],
           [3.]])
    """
    samples = _Samples(signals, times, how, max_gap)
    bin_width = check_bin_width(bin_width)
    start, stop = scalar_in_seconds(start, "start"), scalar_in_seconds(stop, "stop")
    start = float(samples.times[0]) if start is None else start
    stop = float(samples.times[-1] + samples.interval) if stop is None else stop
    check_number(start, "start")
    check_number(stop, "stop", above=start)
    n_bins = _whole_bins(start, stop, bin_width)
    if n_bins < 1:
        raise ValueError(
            f"No bin of {bin_width:g} s fits between start={start:g} s and stop={stop:g} s. Check "
            "that all are in seconds."
        )
    return samples.trials(np.array([start]), np.array([n_bins]), bin_width)[0]


def align_signals(
    signals: ArrayLike,
    times: Any,
    events: Any,
    window: tuple[Any, Any],
    bin_width: Any,
    *,
    how: str = "interpolate",
    max_gap: Any = None,
) -> NDArray:
    """Cut sampled signals into trials around events, with common bins.

    Parameters
    ----------
    signals, times
        As in :func:`bin_signals`.

    events : array-like of shape (n_trials,), pynapple Ts, or neo Event
        Times of the events on the clock of `times`, in seconds unless they have a unit.

    window : pair of float, quantity, or timedelta
        Start and end of a trial relative to its event, in seconds unless they have a unit. Must
        span a whole number of bins.

    bin_width : float, quantity, or timedelta
        Width of a bin, in seconds unless it has a unit. With "mean" and "sum", a whole number of
        sample intervals.

    how, max_gap
        As in :func:`bin_signals`.

    Returns
    -------
    trials : ndarray of shape (n_trials, n_bins, n_channels)
        NaN where a bin was not recorded.

    Raises
    ------
    TypeError, ValueError
        As in :func:`bin_signals`; and if an event is NaN, all events lie outside of the recording,
        or `window` does not span a whole number of bins.

    See Also
    --------
    align_to_events : The same for spike times.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_stndt.datasets import align_signals
    >>> position = np.arange(100.0)  # sampled at 10 Hz
    >>> align_signals(position, np.arange(100) / 10, [2, 5], (-0.2, 0.2), 0.2)[..., 0]
    array([[19., 21.],
           [49., 51.]])
    """
    samples = _Samples(signals, times, how, max_gap)
    bin_width = check_bin_width(bin_width)
    events = check_times(events, "events")
    window = window_in_seconds(window)
    warn_of_window(events, window)
    n_bins = np.full(len(events), bins_of_window(window, bin_width))
    return samples.trials(events + window[0], n_bins, bin_width, "events")


def bin_signal_trials(
    signals: ArrayLike,
    times: Any,
    starts: Any,
    stops: Any = None,
    bin_width: Any = None,
    *,
    how: str = "interpolate",
    max_gap: Any = None,
) -> NDArray:
    """Cut sampled signals into trials of unequal length, padded with NaN.

    Parameters
    ----------
    signals, times
        As in :func:`bin_signals`.

    starts, stops
        Trials on the clock of `times`, as in :func:`bin_trials`.

    bin_width, how, max_gap
        As in :func:`bin_signals`.

    Returns
    -------
    trials : ndarray of shape (n_trials, n_bins, n_channels)
        ``n_bins`` is that of the longest trial; shorter trials end in NaN. NaN also where a bin was
        not recorded.

    Raises
    ------
    TypeError, ValueError
        As in :func:`bin_signals`; and if `starts` and `stops` differ in length, a trial is shorter
        than a bin, or all trials lie outside of the recording.

    See Also
    --------
    bin_trials : The same for spike times.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_stndt.datasets import bin_signal_trials
    >>> position = np.arange(100.0)  # sampled at 10 Hz
    >>> bin_signal_trials(position, np.arange(100) / 10, [2, 5], [2.4, 5.2], 0.2)[..., 0]
    array([[21., 23.],
           [51., nan]])
    """
    samples = _Samples(signals, times, how, max_gap)
    starts, stops = check_trials(starts, stops)
    if bin_width is None:
        raise TypeError("bin_width is missing; pass it by name: bin_width=...")
    bin_width = check_bin_width(bin_width)
    n_bins = _whole_bins(starts, stops, bin_width)
    if n_bins.min() < 1:
        trial = int(n_bins.argmin())
        raise ValueError(
            f"Trial {trial} lasts from {starts[trial]:g} to {stops[trial]:g} s, less than a bin of "
            f"{bin_width:g} s. Leave it out, correct its times, or use narrower bins."
        )
    return samples.trials(starts, n_bins, bin_width, "trials")


class _Samples:
    """Checked samples and their times."""

    def __init__(self, signals: ArrayLike, times: Any, how: str, max_gap: Any) -> None:
        if not isinstance(how, str) or how not in _HOW:
            raise ValueError(f'how must be "interpolate", "mean" or "sum", got {how!r}.')
        values = as_numbers(signals, "signals", meaning="numbers", remedy="Pass an array of them.")
        if values.ndim not in (1, 2) or not values.size:
            raise ValueError(
                f"signals has shape {values.shape}; expected (n_samples, n_channels), or "
                "(n_samples,) for a single channel. Of trials, join those that follow each other."
            )
        values = values.reshape(len(values), -1)
        times = in_seconds(times, "times")
        if times.shape != (len(values),):
            turned = values.shape[1:] == times.shape
            raise ValueError(
                f"times has shape {times.shape} and signals {values.shape}; pass one time per "
                f"sample{', with samples along the first axis: signals.T' if turned else ''}."
            )
        steps = np.diff(times)
        if not np.isfinite(times).all() or (steps <= 0).any():
            raise ValueError(
                "times must be finite and ascending, but "
                + (
                    f"{times[1:][steps <= 0][0]:g} s follows {times[:-1][steps <= 0][0]:g} s. "
                    if np.isfinite(times).all()
                    else "some are NaN or infinite. "
                )
                + "Leave out samples without a time, and sort the others."
            )
        if len(times) < 2:
            raise ValueError(
                "There is one sample; pass at least two, or the interval is not known."
            )
        self.values, self.times, self.how = values, times, how
        self.interval = float(np.median(steps))
        max_gap = scalar_in_seconds(max_gap, "max_gap")
        if max_gap is not None:
            check_number(max_gap, "max_gap", at_least=0)
        self.max_gap = max_gap

    def trials(
        self, starts: NDArray, n_bins: NDArray[np.intp], bin_width: float, name: str = ""
    ) -> NDArray:
        """Return the bins of trials, (n_trials, max(n_bins), n_channels), NaN where unknown."""
        stops = starts + n_bins * bin_width
        first, last = self.times[0], self.times[-1] + self.interval
        if name and ((stops <= first) | (starts >= last)).all():
            raise ValueError(
                f"All {name} lie outside of the recording, which lasts from {first:g} to {last:g} "
                f"s: they range from {starts.min():g} to {stops.max():g} s. Pass times and {name} "
                "on the same clock, in seconds."
            )
        dtype = np.float32 if self.values.dtype == np.float32 else np.float64
        n_all = len(starts) * int(n_bins.max())
        if self.how != "interpolate":
            n_all *= max(math.ceil(bin_width / self.interval), 1)  # samples
        check_memory(
            (16 * self.values.shape[1] + 32) * n_all,
            f"{len(starts):,} trials of {int(n_bins.max()):,} bins and {self.values.shape[1]:,} "
            "channels",
            "Check that all times and bin_width are in seconds, or use wider bins.",
        )
        bins = self._interpolated if self.how == "interpolate" else self._whole_samples
        binned = bins(starts, n_bins, bin_width)
        binned[np.arange(n_bins.max()) >= n_bins[:, None]] = np.nan
        return binned.astype(dtype, copy=False)

    def _interpolated(self, starts: NDArray, n_bins: NDArray[np.intp], bin_width: float) -> NDArray:
        signal = Signal(self.times, self.values, None)
        bins = np.arange(n_bins.max())
        binned = np.full((len(starts), len(bins), self.values.shape[1]), np.nan)
        for rows in _without_overlap(starts, starts + n_bins * bin_width):
            inside = bins < n_bins[rows, None]  # (rows, bins)
            opens = (starts[rows, None] + bin_width * bins)[inside]
            found = np.full((*inside.shape, binned.shape[-1]), np.nan)
            found[inside] = signal.in_bins(opens, opens + bin_width, self.max_gap)
            binned[rows] = found
        return binned

    def _whole_samples(
        self, starts: NDArray, n_bins: NDArray[np.intp], bin_width: float
    ) -> NDArray:
        n_each = round(bin_width / self.interval)  # samples per bin
        if n_each < 1 or abs(bin_width / self.interval - n_each) > 0.02 * n_each:
            near = self.interval * max(n_each, 1)
            raise ValueError(
                f"bin_width={bin_width:g} s is {bin_width / self.interval:.3g} sample intervals of "
                f'{self.interval:g} s, but how="{self.how}" needs a whole number of them, so that '
                f'all bins hold as many samples. Pass bin_width={near:.10g}, or how="interpolate".'
            )
        # Numbers of samples on a regular grid, which has gaps where samples were dropped.
        steps = np.rint(np.diff(self.times) / self.interval)
        if (steps < 1).any():
            raise ValueError(
                f"{np.count_nonzero(steps < 1):,} samples follow the one before in less than half "
                f"of the median interval of {self.interval:g} s, so they cannot be put into bins "
                'one by one. Leave out repeated samples, or pass how="interpolate".'
            )
        number = np.append(0, np.cumsum(np.minimum(steps, _FAR).astype(np.intp)))  # (n_samples,)
        nearest = np.searchsorted((self.times[1:] + self.times[:-1]) / 2, starts)
        # of starts before the first sample, after the last, and in gaps
        beside = np.rint((starts - self.times[nearest]) / self.interval - CLOCK)
        grid = number[nearest] + np.clip(beside, -_FAR, _FAR).astype(np.intp)
        wanted = grid[:, None] + np.arange(n_bins.max() * n_each)  # (trials, samples)
        place = np.minimum(np.searchsorted(number, wanted), len(number) - 1)
        found = self.values[place].astype(np.float64)  # (trials, samples, channels)
        found[number[place] != wanted] = np.nan
        found = found.reshape(len(starts), -1, n_each, self.values.shape[1])
        return found.sum(axis=2) if self.how == "sum" else found.mean(axis=2)


def _without_overlap(starts: NDArray, stops: NDArray) -> list[NDArray[np.intp]]:
    """Divide trials into groups in order of time, in each of which none overlaps with another."""
    groups: list[list[int]] = []
    ends: list[float] = []
    for trial in np.argsort(starts, kind="stable"):
        free = [i for i, end in enumerate(ends) if end <= starts[trial] + CLOCK / 2]
        if free:
            groups[free[0]].append(trial)
            ends[free[0]] = stops[trial]
        else:
            groups.append([trial])
            ends.append(stops[trial])
    return [np.array(group) for group in groups]


def _whole_bins(start: Any, stop: Any, bin_width: float) -> Any:
    """Number of whole bins between times (s); times may be a microsecond off."""
    n_bins = (np.asarray(stop) - start) / bin_width + min(CLOCK / bin_width, 0.25)
    if np.abs(n_bins).max() > 2**53:
        raise ValueError(
            f"There would be {np.abs(n_bins).max():g} bins of {bin_width:g} s. Check that all "
            "times and bin_width are in seconds."
        )
    return np.floor(n_bins).astype(np.intp)
