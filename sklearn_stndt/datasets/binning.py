"""Bin spike times into counts per bin."""

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sklearn_stndt.datasets._checks import check_number
from sklearn_stndt.datasets._intervals import CLOCK, are_inside
from sklearn_stndt.datasets._times import (
    LONGEST,
    check_size,
    in_seconds,
    intervals_in_seconds,
    scalar_in_seconds,
    warn_of_clocks,
    warn_of_window,
)
from sklearn_stndt.datasets._trains import Recorded, as_trains

__all__ = ["align_to_events", "bin_spikes", "bin_trials"]


def bin_spikes(
    spike_times: Any,
    bin_width: Any,
    *,
    start: Any = None,
    stop: Any = None,
    dtype: DTypeLike | None = None,
) -> NDArray:
    """Count the spikes of a continuous recording in bins.

    Bin ``k`` starts at ``start + k * bin_width``, and a spike on an edge belongs to the bin that
    starts there.

    Parameters
    ----------
    spike_times : list of array-like, dict of array-like, pynapple TsGroup, or neo SpikeTrains
        Spike times of each neuron in ascending order. Numbers are in seconds; quantities,
        timedeltas, and objects of pynapple and neo keep their unit. MATLAB cell arrays that were
        read by :func:`scipy.io.loadmat` are accepted too, and a single pynapple Ts or neo
        SpikeTrain for a single neuron.

    bin_width : float, quantity, or timedelta
        Width of a bin, in seconds unless it has a unit.

    start : float, quantity, or timedelta, default=None
        Start of the first bin, in seconds unless it has a unit. Earlier spikes are left out.
        None: the start of the recording if all of `spike_times` contain it (pynapple's time
        support, neo's t_start), otherwise 0.

    stop : float, quantity, or timedelta, default=None
        End of the time range, in seconds unless it has a unit. An incomplete last bin and later
        spikes are left out. None: the end of the recording if all of `spike_times` contain it
        (pynapple's time support, neo's t_stop), otherwise the end of the bin with the last spike.

    dtype : data type, default=None
        Data type of the counts. None: numpy.uint8, or numpy.float32 if some bins are NaN.

    Returns
    -------
    counts : ndarray of shape (n_bins, n_neurons)
        Spike counts per bin, with neurons in the order of `spike_times`. NaN where a bin does not
        lie within the recorded time of the neuron (pynapple's time support, neo's t_start and
        t_stop).

    Raises
    ------
    TypeError
        If `spike_times` does not hold an array of numbers for each neuron, or if times are dates.
    ValueError
        If times are not finite or not sorted, if a time is negative and neither `start` nor
        `spike_times` says when the recording starts, if no whole bin fits between `start` and
        `stop`, if a count is too large for `dtype`, if bins are NaN and `dtype` is an integer, or
        if the recording lasts more than a week and `stop` is None.

    Warns
    -----
    UserWarning
        If the intervals between spikes or their range suggest that times are not in seconds.

    See Also
    --------
    align_to_events : Trials of equal length around events.
    bin_trials : Trials of unequal length.

    Notes
    -----
    Neither multiples of a bin width such as 0.005 nor times such as 0.015 are exact in binary.
    A spike counts as on an edge if it is within a few rounding errors of it: four units in the
    last place of the recording's largest time, about 3e-12 s in an hour.

    Without a time support of its own, a pynapple object is given one from its first to its last
    spike. Such a support says nothing about silence: it sets `start`, but no bin is NaN for it.

    Examples
    --------
    >>> from sklearn_stndt.datasets import bin_spikes
    >>> times = [[0.001, 0.005, 0.015, 0.0151], [0.012]]  # seconds, two neurons
    >>> bin_spikes(times, bin_width=0.005)
    array([[1, 0],
           [1, 0],
           [0, 1],
           [2, 0]], dtype=uint8)
    """
    dtype = _as_dtype(dtype)
    recorded = as_trains(spike_times)
    trains = recorded.times
    bin_width = check_bin_width(bin_width)
    start, stop = scalar_in_seconds(start, "start"), scalar_in_seconds(stop, "stop")
    is_start_known = start is not None or recorded.start is not None
    is_stop_given = stop is not None
    if start is None:
        start = recorded.start or 0.0
    check_number(start, "start")
    if stop is not None:
        check_number(stop, "stop")
    last = max((train[-1] for train in trains if train.size), default=start)
    if not is_start_known:
        first = min((train[0] for train in trains if train.size), default=0.0)
        if first < 0:
            raise ValueError(
                f"spike_times holds negative times, the lowest is {first:g} s, but bins start at "
                "0. Pass start=... with the start of the recording."
            )
    slack = 0.0
    if stop is None and recorded.stop is not None:
        stop = recorded.stop
        slack = CLOCK / bin_width  # pynapple rounds the ends of its time support
    end_of_bins = f"the last spike, {last:g} s" if stop is None else f"stop={stop:g} s"
    end = last if stop is None else stop
    if end - start > LONGEST and not is_stop_given:
        raise ValueError(
            f"The recording would last from {start:g} s to {end_of_bins}, more than a week. "
            "Convert times to seconds; if they are in seconds, pass stop=..."
        )
    tolerance = _tolerance(start, end, bin_width)
    n_bins = math.floor((end - start) / bin_width + max(tolerance, min(slack, 0.25)))
    n_bins += stop is None  # the bin with the last spike
    if n_bins < 1:
        raise ValueError(
            f"No bin of {bin_width:g} s fits between start={start:g} s and {end_of_bins}. Check "
            "that all are in seconds."
        )
    starts = np.array([start], dtype=np.float64)
    warn_of_clocks(
        trains, starts, starts + n_bins * bin_width, support=recorded.union, trials="the bins"
    )
    check_size(1, n_bins, len(trains), dtype or np.uint8, n_bins * bin_width)
    unknown = _unknown_bins(recorded, starts, np.array([n_bins]), bin_width)
    dtype = _check_dtype(dtype, unknown)
    counts = np.zeros((n_bins, len(trains)), dtype=dtype)
    for neuron, train in enumerate(trains):
        bins = np.floor((train - start) / bin_width + tolerance)
        low, high = np.searchsorted(bins, [0, n_bins])
        bins = bins[low:high].astype(np.intp)
        if not bins.size:
            continue
        # Times are sorted, so the spikes of a bin are consecutive.
        opens = np.flatnonzero(np.diff(bins, prepend=-1))
        in_bin = np.diff(opens, append=bins.size)
        _check_fits(in_bin.max(), dtype)
        counts[bins[opens], neuron] = in_bin
    _hide(counts, unknown)
    return counts


def align_to_events(
    spike_times: Any,
    events: Any,
    window: tuple[Any, Any],
    bin_width: Any,
    *,
    dtype: DTypeLike | None = None,
) -> NDArray:
    """Count spikes in bins around events, one trial per event.

    The first bin of a trial starts at exactly ``event + window[0]``. Spikes on edges are counted
    as in :func:`bin_spikes`. Windows of different events may overlap.

    Parameters
    ----------
    spike_times : list of array-like, dict of array-like, pynapple TsGroup, or neo SpikeTrains
        As in :func:`bin_spikes`.

    events : array-like of shape (n_trials,), pynapple Ts, or neo Event
        Times of the events, such as movement onsets, in seconds unless they have a unit (of a neo
        Epoch, its starts). Columns and rows of MATLAB are taken too.

    window : pair of float, quantity, or timedelta
        Start and end of a trial relative to its event, in seconds unless they have a unit. Must
        span a whole number of bins.

    bin_width : float, quantity, or timedelta
        Width of a bin, in seconds unless it has a unit.

    dtype : data type, default=None
        Data type of the counts. None: numpy.uint8, or numpy.float32 if some bins are NaN.

    Returns
    -------
    counts : ndarray of shape (n_trials, n_bins, n_neurons)
        Spike counts per bin. NaN where a bin does not lie within the recorded time of the neuron,
        as in :func:`bin_spikes`.

    Raises
    ------
    TypeError
        If `spike_times` does not hold an array of numbers for each neuron, if `window` is not a
        pair of numbers, or if times are dates.
    ValueError
        As in :func:`bin_spikes`, and if an event is NaN or `window` does not span a whole number
        of bins.

    Warns
    -----
    UserWarning
        If spikes and events seem to be on different clocks, or they or `window` not in seconds.

    Examples
    --------
    >>> from sklearn_stndt.datasets import align_to_events
    >>> times = [[1.01, 1.02, 2.01], [0.99, 2.03]]  # seconds, two neurons
    >>> align_to_events(times, events=[1.0, 2.0], window=(-0.02, 0.04), bin_width=0.02)
    array([[[0, 1],
            [1, 0],
            [1, 0]],
           [[0, 0],
            [1, 0],
            [0, 1]]], dtype=uint8)
    """
    dtype = _as_dtype(dtype)
    recorded = as_trains(spike_times)
    bin_width = check_bin_width(bin_width)
    events = check_times(events, "events")
    window = window_in_seconds(window)
    warn_of_window(events, window)
    n_bins = np.full(len(events), bins_of_window(window, bin_width))
    return _count_recorded(recorded, events + window[0], n_bins, bin_width, dtype, "events")


def bin_trials(
    spike_times: Any, starts: Any, stops: Any = None, bin_width: Any = None
) -> NDArray[np.float32]:
    """Count spikes in bins of trials of unequal length, padded with NaN.

    Parameters
    ----------
    spike_times : list of array-like, dict of array-like, pynapple TsGroup, or neo SpikeTrains
        As in :func:`bin_spikes`.

    starts : array-like of shape (n_trials,), or intervals
        Start of each trial, in seconds unless it has a unit. Or the trials themselves, without
        `stops`: a pynapple IntervalSet, a neo Epoch, a pandas IntervalIndex, or an array-like of
        shape (n_trials, 2).

    stops : array-like of shape (n_trials,), default=None
        End of each trial, in seconds unless it has a unit. An incomplete last bin is left out.
        None: `starts` holds intervals.

    bin_width : float, quantity, or timedelta
        Width of a bin, in seconds unless it has a unit.

    Returns
    -------
    counts : ndarray of shape (n_trials, n_bins, n_neurons), float32
        Spike counts per bin. ``n_bins`` is that of the longest trial; shorter trials end in NaN.
        NaN also where a bin does not lie within the recorded time of the neuron, as in
        :func:`bin_spikes`.

    Raises
    ------
    TypeError
        If `spike_times` does not hold an array of numbers for each neuron, or if times are dates.
    ValueError
        As in :func:`bin_spikes`, and if `starts` and `stops` differ in length, or if a trial is
        shorter than a bin.

    Warns
    -----
    UserWarning
        If spikes and trials seem to be on different clocks, or not in seconds.

    Examples
    --------
    >>> from sklearn_stndt.datasets import bin_trials
    >>> bin_trials([[0.1, 0.15, 1.3]], starts=[0, 1], stops=[0.2, 1.4], bin_width=0.1)[..., 0]
    array([[ 0.,  2., nan, nan],
           [ 0.,  0.,  0.,  1.]], dtype=float32)
    """
    recorded = as_trains(spike_times)
    if stops is not None and bin_width is None:
        raise TypeError("bin_width is missing; after intervals, pass it by name: bin_width=...")
    starts, stops = check_trials(starts, stops)
    bin_width = check_bin_width(bin_width)
    tolerance = _tolerance(np.abs(starts).max(), np.abs(stops).max(), bin_width)
    n_bins = np.floor((stops - starts) / bin_width + tolerance).astype(np.intp)
    if n_bins.min() < 1:
        trial = int(n_bins.argmin())
        if stops[trial] < starts[trial]:
            raise ValueError(
                f"Trial {trial} stops at {stops[trial]:g} s, before its start at "
                f"{starts[trial]:g} s. Leave it out, or correct its times."
            )
        raise ValueError(
            f"Trial {trial} lasts {stops[trial] - starts[trial]:g} s, less than a bin of "
            f"{bin_width:g} s. Leave it out, or use narrower bins."
        )
    counts = _count_recorded(recorded, starts, n_bins, bin_width, np.dtype(np.float32), "trials")
    counts[np.arange(n_bins.max()) >= n_bins[:, None]] = np.nan
    return counts


def window_in_seconds(window: Any) -> tuple[float, float]:
    """Return start and end of a window in seconds after checking them."""
    try:
        low, high = window
    except (TypeError, ValueError) as error:
        raise TypeError(f"window must be (begin, end) in seconds, got {window!r}.") from error
    low, high = scalar_in_seconds(low, "window[0]"), scalar_in_seconds(high, "window[1]")
    check_number(low, "window[0]")
    check_number(high, "window[1]", above=low)
    return low, high


def bins_of_window(window: Any, bin_width: float) -> int:
    """Return the number of bins in a window; raise an error if it is not whole."""
    low, high = window_in_seconds(window)
    n_bins = (high - low) / bin_width
    if abs(n_bins - round(n_bins)) > 1e-6 * max(n_bins, 1):
        raise ValueError(
            f"window={window!r} lasts {high - low:g} s, which is not a whole number of bins of "
            f"{bin_width:g} s. Change one of them."
        )
    if round(n_bins) < 1:
        raise ValueError(
            f"window={window!r} lasts {high - low:g} s, less than a bin of {bin_width:g} s. Change "
            "one of them."
        )
    return round(n_bins)


def check_times(times: Any, name: str) -> NDArray[np.float64]:
    """Return times of events in seconds, (n_trials,), as float64 after checking them."""
    array = in_seconds(times, name)
    if array.ndim == 2 and 1 in array.shape:  # a vector of MATLAB
        array = array.ravel()
    if array.ndim != 1 or not array.size:
        raise ValueError(
            f"{name} has shape {array.shape}; pass one time per trial, and at least one trial."
        )
    n_bad = np.count_nonzero(~np.isfinite(array))
    if n_bad:
        raise ValueError(
            f"{name} is NaN or infinite in {n_bad} of {len(array)} trials; leave these trials out "
            f"with {name}[np.isfinite({name})]."
        )
    return array


def check_trials(starts: Any, stops: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return starts and stops of trials in seconds, (n_trials,) each, after checking them.

    If `stops` is None, `starts` holds intervals.
    """
    if stops is None:
        intervals = intervals_in_seconds(starts, "starts")
        if intervals is None:
            raise TypeError(
                "stops is missing: pass the end of each trial, or intervals as starts, such as an "
                "IntervalSet or an array of shape (n_trials, 2)."
            )
        starts, stops = intervals
    starts, stops = check_times(starts, "starts"), check_times(stops, "stops")
    if starts.shape != stops.shape:
        raise ValueError(f"There are {len(starts)} starts and {len(stops)} stops; pass pairs.")
    return starts, stops


def check_bin_width(bin_width: Any) -> float:
    """Return the width of a bin in seconds after checking it."""
    bin_width = scalar_in_seconds(bin_width, "bin_width")
    check_number(bin_width, "bin_width", above=0)
    return float(bin_width)


def _as_dtype(dtype: DTypeLike | None) -> np.dtype | None:
    """Return the data type of counts after checking that it is one of numbers."""
    if dtype is None:
        return None
    wanted = "pass one of numbers, such as numpy.uint16 or numpy.float32."
    try:
        known = np.dtype(dtype)
    except Exception as error:
        raise TypeError(f"dtype={dtype!r} is no data type; {wanted}") from error
    if known.kind not in "iuf":
        raise TypeError(f"dtype={dtype!r} cannot hold counts; {wanted}")
    return known


def _unknown_bins(
    recorded: Recorded,
    starts: NDArray[np.float64],
    n_bins: NDArray[np.intp],
    bin_width: float,
) -> list[tuple[list[int], NDArray[np.intp]]]:
    """Bins that were not recorded, for all neurons with the same recorded time at once.

    Bins are indices into an array of shape (n_trials, max(n_bins)).
    """
    groups: dict[bytes, tuple[NDArray[np.float64], list[int]]] = {}
    for neuron, support in enumerate(recorded.supports):
        if support is not None:
            groups.setdefault(support.tobytes(), (support, []))[1].append(neuron)
    steps = np.arange(n_bins.max())
    opens = starts[:, None] + steps * bin_width if groups else np.empty(0)  # (trials, bins)
    unknown = []
    for support, neurons in groups.values():
        outside = ~are_inside(opens, opens + bin_width, support)
        bins = np.flatnonzero(outside & (steps < n_bins[:, None]))
        if bins.size:
            unknown.append((neurons, bins))
    return unknown


def _hide(counts: NDArray, unknown: list[tuple[list[int], NDArray[np.intp]]]) -> None:
    """Set the counts, (..., n_neurons), of unknown bins to NaN."""
    rows = counts.reshape(-1, counts.shape[-1])
    for neurons, bins in unknown:
        if len(neurons) == rows.shape[1]:
            rows[bins] = np.nan
        else:
            rows[bins[:, None], neurons] = np.nan


def _check_dtype(dtype: np.dtype | None, unknown: list) -> np.dtype:
    """Return the data type of counts; raise an error if it cannot hold NaN but has to."""
    if dtype is None:
        return np.dtype(np.float32 if unknown else np.uint8)
    if unknown and dtype.kind != "f":
        neurons, bins = unknown[0]
        raise ValueError(
            f"{bins.size:,} bins of neuron {neurons[0]} do not lie within its recorded time and "
            f"are NaN, which {dtype} cannot hold. Pass dtype=np.float32, or choose only times that "
            "were recorded."
        )
    return dtype


def _count_recorded(
    recorded: Recorded,
    starts: NDArray[np.float64],
    n_bins: NDArray[np.intp],
    bin_width: float,
    dtype: np.dtype | None,
    name: str,
) -> NDArray:
    """Count the spikes of each trial after checking clocks and size; NaN where not recorded."""
    stops = starts + n_bins * bin_width
    warn_of_clocks(recorded.times, starts, stops, support=recorded.union, trials=name, stacklevel=4)
    longest = int(n_bins.max())
    n_neurons = len(recorded.times)
    check_size(len(starts), longest, n_neurons, dtype or np.uint8, longest * bin_width)
    unknown = _unknown_bins(recorded, starts, n_bins, bin_width)
    dtype = _check_dtype(dtype, unknown)
    counts = count_trials(recorded.times, starts, n_bins, bin_width, dtype)
    _hide(counts, unknown)
    return counts


def _tolerance(start: float, stop: float, bin_width: float) -> float:
    """Tolerance for rounding errors of times, as a fraction of a bin."""
    largest = max(abs(start), abs(stop), bin_width)
    error = np.finfo(np.float64).eps * largest / bin_width
    if error > 0.5:
        raise ValueError(
            f"A time of {largest:g} s cannot be told from the next bin of {bin_width:g} s: both "
            "are rounded to 16 digits. Check that all times and bin_width are in seconds."
        )
    return min(4 * error, 0.25)


def _check_fits(largest: int, dtype: DTypeLike) -> None:
    dtype = np.dtype(dtype)
    if dtype.kind in "iu" and largest > np.iinfo(dtype).max:
        raise ValueError(
            f"A bin holds {largest} spikes, more than {dtype} can count. Pass dtype=np.uint16 or "
            "narrower bins; if no neuron can fire that much, check that times are in seconds."
        )


def count_trials(
    trains: list[NDArray[np.float64]],
    starts: NDArray,
    n_bins: NDArray[np.intp],
    bin_width: float,
    dtype: DTypeLike,
) -> NDArray:
    """Count the spikes of each trial, (n_trials, max(n_bins), n_neurons), 0 after its end."""
    longest = int(n_bins.max())
    stops = starts + n_bins * bin_width
    tolerance = _tolerance(np.abs(starts).max(), np.abs(stops).max(), bin_width)
    margin = 2 * tolerance * bin_width
    counts = np.zeros((len(starts), longest, len(trains)), dtype=dtype)
    for neuron, train in enumerate(trains):
        low = np.searchsorted(train, starts - margin)
        n_near = np.searchsorted(train, stops + margin) - low  # spikes of each trial
        trial = np.repeat(np.arange(len(starts)), n_near)  # (spikes of all trials,)
        first = np.cumsum(n_near) - n_near
        spike = np.arange(len(trial)) + (low - first)[trial]
        bins = np.floor((train[spike] - starts[trial]) / bin_width + tolerance).astype(np.intp)
        inside = (bins >= 0) & (bins < n_bins[trial])
        flat = trial[inside] * longest + bins[inside]
        if flat.size:
            # In ascending order; only bins with spikes are written, because a neuron's bins are
            # far apart in memory.
            opens = np.flatnonzero(np.diff(flat, prepend=-1))
            in_bin = np.diff(opens, append=flat.size)
            _check_fits(in_bin.max(), dtype)
            counts.reshape(-1, len(trains))[flat[opens], neuron] = in_bin
    return counts
