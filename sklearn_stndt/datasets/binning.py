"""Bin spike times into counts per bin."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from sklearn_stndt.datasets._checks import check_number

__all__ = ["align_to_events", "bin_spikes", "bin_trials"]

# In a longer recording, times are more likely not in seconds.
_LONGEST = 7 * 24 * 3600.0  # s


def bin_spikes(
    spike_times: Any,
    bin_width: float,
    *,
    start: float = 0.0,
    stop: float | None = None,
    dtype: DTypeLike = np.uint8,
) -> NDArray:
    """Count the spikes of a continuous recording in bins.

    Bin ``k`` starts at ``start + k * bin_width``, and a spike on an edge belongs to the bin that
    starts there.

    Parameters
    ----------
    spike_times : list of array-like, dict of array-like, pynapple TsGroup, or neo SpikeTrains
        Spike times of each neuron in ascending order, in seconds (neo spike trains in their own
        unit). MATLAB cell arrays that were read by :func:`scipy.io.loadmat` are accepted too.

    bin_width : float
        Width of a bin, in seconds.

    start : float, default=0.0
        Start of the first bin, in seconds. Earlier spikes are left out.

    stop : float, default=None
        End of the time range, in seconds. An incomplete last bin and later spikes are left out.
        None: the end of the recording if `spike_times` contains it (pynapple's time support,
        neo's t_stop), otherwise the end of the bin with the last spike.

    dtype : data type, default=numpy.uint8
        Data type of the counts.

    Returns
    -------
    counts : ndarray of shape (n_bins, n_neurons)
        Spike counts per bin, with neurons in the order of `spike_times`.

    Raises
    ------
    TypeError
        If `spike_times` does not hold an array of numbers for each neuron.
    ValueError
        If times are not finite or not sorted, if a time is negative while `start` is 0, if no
        whole bin fits between `start` and `stop`, or if a count is too large for `dtype`.

    See Also
    --------
    align_to_events : Trials of equal length around events.
    bin_trials : Trials of unequal length.

    Notes
    -----
    Neither multiples of a bin width such as 0.005 nor times such as 0.015 are exact in binary.
    A spike counts as on an edge if it is within a few rounding errors of it: four units in the
    last place of the recording's largest time, about 3e-12 s in an hour.

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
    trains, end = as_trains(spike_times)
    check_number(bin_width, "bin_width", above=0)
    check_number(start, "start")
    last = max((train[-1] for train in trains if train.size), default=start)
    if start == 0:
        first = min((train[0] for train in trains if train.size), default=0.0)
        if first < 0:
            raise ValueError(
                f"spike_times holds negative times, the lowest is {first:g} s, but bins start at "
                "0. Pass start=... with the start of the recording."
            )
    if stop is None:
        stop = end
    if stop is None:
        if last - start > _LONGEST:
            raise ValueError(
                f"The last spike is at {last:g} s, more than a week after the start. Convert times "
                "to seconds; if they are in seconds, pass stop=..."
            )
        tolerance = _tolerance(start, last, bin_width)
        n_bins = math.floor((last - start) / bin_width + tolerance) + 1
    else:
        check_number(stop, "stop")
        tolerance = _tolerance(start, stop, bin_width)
        n_bins = math.floor((stop - start) / bin_width + tolerance)
    if n_bins < 1:
        end_of_bins = f"the last spike, {last:g} s" if stop is None else f"stop={stop:g} s"
        raise ValueError(
            f"No bin of {bin_width:g} s fits between start={start:g} s and {end_of_bins}. Check "
            "that all are in seconds."
        )
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
    return counts


def align_to_events(
    spike_times: Any,
    events: ArrayLike,
    window: tuple[float, float],
    bin_width: float,
    *,
    dtype: DTypeLike = np.uint8,
) -> NDArray:
    """Count spikes in bins around events, one trial per event.

    The first bin of a trial starts at exactly ``event + window[0]``. Spikes on edges are counted
    as in :func:`bin_spikes`. Windows of different events may overlap.

    Parameters
    ----------
    spike_times : list of array-like, dict of array-like, pynapple TsGroup, or neo SpikeTrains
        As in :func:`bin_spikes`.

    events : array-like of shape (n_trials,)
        Times of the events, such as movement onsets, in seconds.

    window : (float, float)
        Start and end of a trial relative to its event, in seconds. Must span a whole number of
        bins.

    bin_width : float
        Width of a bin, in seconds.

    dtype : data type, default=numpy.uint8
        Data type of the counts.

    Returns
    -------
    counts : ndarray of shape (n_trials, n_bins, n_neurons)
        Spike counts per bin.

    Raises
    ------
    TypeError
        If `spike_times` does not hold an array of numbers for each neuron, or if `window` is not a
        pair of numbers.
    ValueError
        As in :func:`bin_spikes`, and if an event is NaN or `window` does not span a whole number
        of bins.

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
    trains, _ = as_trains(spike_times)
    check_number(bin_width, "bin_width", above=0)
    events = check_times(events, "events")
    n_bins = bins_of_window(window, bin_width)
    starts = events + window[0]
    counts = count_trials(trains, starts, np.full(len(starts), n_bins), bin_width, dtype)
    return counts


def bin_trials(
    spike_times: Any, starts: ArrayLike, stops: ArrayLike, bin_width: float
) -> NDArray[np.float32]:
    """Count spikes in bins of trials of unequal length, padded with NaN.

    Parameters
    ----------
    spike_times : list of array-like, dict of array-like, pynapple TsGroup, or neo SpikeTrains
        As in :func:`bin_spikes`.

    starts, stops : array-like of shape (n_trials,)
        Start and end of each trial, in seconds. An incomplete last bin is left out.

    bin_width : float
        Width of a bin, in seconds.

    Returns
    -------
    counts : ndarray of shape (n_trials, n_bins, n_neurons), float32
        Spike counts per bin. ``n_bins`` is that of the longest trial; shorter trials end in NaN.

    Raises
    ------
    TypeError
        If `spike_times` does not hold an array of numbers for each neuron.
    ValueError
        As in :func:`bin_spikes`, and if `starts` and `stops` differ in length, or if a trial is
        shorter than a bin.

    Examples
    --------
    >>> from sklearn_stndt.datasets import bin_trials
    >>> bin_trials([[0.1, 0.15, 1.3]], starts=[0, 1], stops=[0.2, 1.4], bin_width=0.1)[..., 0]
    array([[ 0.,  2., nan, nan],
           [ 0.,  0.,  0.,  1.]], dtype=float32)
    """
    trains, _ = as_trains(spike_times)
    check_number(bin_width, "bin_width", above=0)
    starts, stops = check_times(starts, "starts"), check_times(stops, "stops")
    if starts.shape != stops.shape:
        raise ValueError(f"There are {len(starts)} starts and {len(stops)} stops; pass pairs.")
    tolerance = _tolerance(np.abs(starts).max(), np.abs(stops).max(), bin_width)
    n_bins = np.floor((stops - starts) / bin_width + tolerance).astype(np.intp)
    if n_bins.min() < 1:
        trial = int(n_bins.argmin())
        raise ValueError(
            f"Trial {trial} lasts {stops[trial] - starts[trial]:g} s, less than a bin of "
            f"{bin_width:g} s. Leave it out, or use narrower bins."
        )
    counts = count_trials(trains, starts, n_bins, bin_width, np.float32)
    counts[np.arange(n_bins.max()) >= n_bins[:, None]] = np.nan
    return counts


def bins_of_window(window: Any, bin_width: float) -> int:
    """Return the number of bins in a window; raise an error if it is not whole."""
    try:
        low, high = window
    except (TypeError, ValueError) as error:
        raise TypeError(f"window must be (begin, end) in seconds, got {window!r}.") from error
    check_number(low, "window[0]")
    check_number(high, "window[1]", above=low)
    n_bins = (high - low) / bin_width
    if abs(n_bins - round(n_bins)) > 1e-6 * max(n_bins, 1):
        raise ValueError(
            f"window={window!r} lasts {high - low:g} s, which is not a whole number of bins of "
            f"{bin_width:g} s. Change one of them."
        )
    return round(n_bins)


def check_times(times: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return times of events, (n_trials,), as float64 after checking them."""
    array = np.asarray(times, dtype=np.float64)
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


def as_trains(spike_times: Any) -> tuple[list[NDArray[np.float64]], float | None]:
    """Return checked spike times of each neuron (s), and the end of the recording if known (s)."""
    wanted = (
        "pass a list with the spike times of each neuron in seconds, for a single neuron [times]."
    )
    end = None
    names: list[Any]
    if hasattr(spike_times, "time_support") and hasattr(spike_times, "index"):  # a TsGroup
        names = list(spike_times.index)
        trains = [spike_times[name] for name in names]
        end = float(np.max(spike_times.time_support.end))
    elif isinstance(spike_times, Mapping):
        names, trains = list(spike_times), list(spike_times.values())
    elif isinstance(spike_times, np.ndarray) and spike_times.dtype != object:
        raise TypeError(
            f"spike_times is one array of shape {spike_times.shape}; {wanted} From a table padded "
            "with NaN, make it by [row[~np.isnan(row)] for row in table]."
        )
    elif isinstance(spike_times, Iterable) and not isinstance(spike_times, str):
        if isinstance(spike_times, np.ndarray):
            spike_times = spike_times.ravel()  # cell arrays are 2D
        trains = list(spike_times)
        names = list(range(len(trains)))
    else:
        raise TypeError(f"spike_times is a {type(spike_times).__name__}; {wanted}")
    if not trains:
        raise ValueError(f"spike_times is empty; {wanted}")
    stops = [_stop_of(train) for train in trains]
    if end is None and all(stop is not None for stop in stops):
        end = max(stop for stop in stops if stop is not None)
    return [_as_train(train, name, wanted) for name, train in zip(names, trains, strict=True)], end


def check_train(times: NDArray[np.float64], name: str) -> None:
    """Raise an error unless spike times are finite and sorted."""
    n_bad = np.count_nonzero(~np.isfinite(times))
    if n_bad:
        raise ValueError(
            f"{name} is NaN or infinite {n_bad} times; remove these: times[np.isfinite(times)]."
        )
    late = np.flatnonzero(times[1:] < times[:-1])
    if late.size:
        at = int(late[0])
        raise ValueError(
            f"{name} is not in order of time: {times[at + 1]:g} s follows {times[at]:g} s at index "
            f"{at + 1}. Sort the times, np.sort(times), if nothing else is wrong with them."
        )


def _as_train(train: Any, name: Any, wanted: str) -> NDArray[np.float64]:
    label = f"spike_times[{name!r}]"
    if hasattr(train, "rescale"):  # neo and quantities
        train = train.rescale("s").magnitude
    elif hasattr(train, "time_support"):  # pynapple
        train = train.t
    try:
        times = np.asarray(train, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{label} holds no numbers ({error}); {wanted}") from error
    if times.ndim == 0:
        raise TypeError(f"{label} is a single number; {wanted}")
    if times.ndim > 1 and times.size != max(times.shape):
        raise TypeError(f"{label} has shape {times.shape}, expected (n_spikes,); {wanted}")
    times = times.ravel()
    check_train(times, label)
    return times


def _stop_of(train: Any) -> float | None:
    stop = getattr(train, "t_stop", None)
    return None if stop is None else float(stop.rescale("s").magnitude)


def _tolerance(start: float, stop: float, bin_width: float) -> float:
    """Tolerance for rounding errors of times, as a fraction of a bin."""
    largest = max(abs(start), abs(stop), bin_width)
    return min(4 * np.finfo(np.float64).eps * largest / bin_width, 0.25)


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
