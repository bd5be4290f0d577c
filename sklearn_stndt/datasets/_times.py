"""Times of any library as seconds, the time that an object was recorded, and checks of clocks.

The libraries that hold times (pynapple, neo, quantities, pandas, xarray and others) are recognised
by the class of the user's object and never imported.
"""

import datetime
import warnings
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sklearn_stndt.datasets._intervals import CLOCK, merge_intervals

LONGEST = 7 * 24 * 3600.0  # s; in a longer recording, times are more likely not in seconds
_MOST_EVENTS = 100  # in a window
_LARGEST = 2**36  # bytes of an array, 64 GiB

_UNITS = {
    1.0: ("s", "sec", "secs", "second", "seconds"),
    1e-3: ("ms", "msec", "millisecond", "milliseconds"),
    1e-6: ("us", "µs", "μs", "usec", "microsecond", "microseconds"),
    1e-9: ("ns", "nanosecond", "nanoseconds"),
    60.0: ("min", "minute", "minutes"),
    3600.0: ("h", "hr", "hour", "hours"),
}
_FACTORS = {name: factor for factor, names in _UNITS.items() for name in names}


class ClockWarning(UserWarning):
    """Times seem to be on different clocks, or not in seconds."""


def in_seconds(times: Any, name: str) -> NDArray[np.float64]:
    """Return times in seconds as float64, in the shape in which they came.

    Numbers are taken as seconds. Quantities, timedeltas and the objects of pynapple and neo keep
    their unit; missing and masked times become NaN.

    Raises
    ------
    TypeError
        If `times` holds dates, intervals, several spike trains, or no numbers.
    ValueError
        If the unit of `times` is not one of time.
    """
    libraries = _libraries(times)
    if "pynapple" in libraries:
        times = _times_of_pynapple(times, name)
    elif "neo" in libraries and hasattr(times, "load"):  # not read from the file yet
        times = times.load()
        libraries = _libraries(times)
    if hasattr(times, "columns") and libraries & {"pandas", "polars"}:
        raise TypeError(f"{name} is a table; pass one of its columns, {list(times.columns)}.")
    if "quantities" in libraries:
        return _scaled(times.magnitude, _factor_of_quantity(times, name))
    if hasattr(times, "to_value") and hasattr(times, "unit"):  # astropy
        return np.asarray(times.to_value("s"), dtype=np.float64)
    if hasattr(times, "to") and hasattr(times, "magnitude"):  # pint
        return np.asarray(times.to("s").magnitude, dtype=np.float64)
    if times is None or type(times).__name__ in ("NaTType", "NAType"):
        return np.array(np.nan)
    if isinstance(times, datetime.date):  # also datetime and pandas.Timestamp
        raise _dates(times, name)
    if isinstance(times, datetime.timedelta):
        times = getattr(times, "to_timedelta64", lambda: np.timedelta64(times))()
    if isinstance(times, list | tuple) and not _are_plain(times):
        return _stacked([in_seconds(time, name) for time in times], name)
    mask = np.ma.getmaskarray(times) if isinstance(times, np.ma.MaskedArray) else None
    try:
        array = np.asarray(times)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} holds no numbers ({error}).") from error
    if array.dtype == object:
        if not array.ndim:
            if isinstance(times, Number) and not isinstance(times, complex):  # as Decimal
                return np.array(times, dtype=np.float64)
            raise TypeError(f"{name} holds no numbers, but {times!r}.")
        seconds = _stacked([in_seconds(time, name) for time in array.ravel()], name)
        seconds = seconds.reshape(array.shape)
    elif array.dtype.kind == "m":
        seconds = _timedelta_in_seconds(array, name)
    elif array.dtype.kind == "M":
        raise _dates(array.ravel()[0] if array.size else array.dtype, name)
    elif array.dtype.kind in "iuf":
        factor = _factor_of_attrs(times, name) if "xarray" in libraries else 1.0
        seconds = _scaled(array, factor)
    else:
        raise TypeError(f"{name} holds no numbers, but values of type {array.dtype}.")
    return seconds if mask is None else np.where(mask, np.nan, seconds)


def scalar_in_seconds(value: Any, name: str) -> Any:
    """Return a duration or time with a unit as a float in seconds, and anything else unchanged."""
    with_unit = (
        _libraries(value) & {"quantities", "astropy", "pint", "xarray"}
        or isinstance(value, datetime.timedelta | datetime.date)
        or getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M")
    )
    if not with_unit:
        return value
    seconds = in_seconds(value, name)
    if seconds.size != 1:
        raise TypeError(f"{name} must be a single time, got {seconds.size} of them.")
    return float(seconds.item())


def intervals_in_seconds(
    intervals: Any, name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return starts and stops in seconds, (n,) each; None if `intervals` holds single times.

    Intervals are a pynapple IntervalSet, a neo Epoch, a pandas IntervalIndex, or an array-like of
    shape (n, 2).
    """
    libraries = _libraries(intervals)
    if "neo" in libraries and hasattr(intervals, "load"):
        intervals = intervals.load()
    if _is_interval_set(intervals):
        return in_seconds(intervals.start, name), in_seconds(intervals.end, name)
    if hasattr(intervals, "durations") and "neo" in libraries:
        starts = in_seconds(intervals, name)
        return starts, starts + in_seconds(intervals.durations, f"{name}.durations")
    if hasattr(intervals, "left") and hasattr(intervals, "right") and "pandas" in libraries:
        return in_seconds(intervals.left, name), in_seconds(intervals.right, name)
    times = in_seconds(intervals, name)
    return (times[:, 0], times[:, 1]) if times.ndim == 2 and times.shape[1] == 2 else None


def is_train(value: Any) -> bool:
    """Whether an object is the spike train of a single neuron, and not a container of trains."""
    if "pynapple" in _libraries(value):
        return hasattr(value, "t")
    return _is_neo_train(value)


def support_of(value: Any) -> NDArray[np.float64] | None:
    """Return the intervals that were recorded, (n_intervals, 2), in seconds.

    That is the time support of a pynapple object, or t_start and t_stop of a neo SpikeTrain. None
    if the object does not know. A t_stop that is the time of the last spike counts as infinite: neo
    requires one, and many set it to that time.
    """
    if "pynapple" in _libraries(value) and hasattr(value, "time_support"):
        support = np.column_stack([value.time_support.start, value.time_support.end])
        return merge_intervals(support, "time_support")
    if _is_neo_train(value):
        start, stop = in_seconds(value.t_start, "t_start"), in_seconds(value.t_stop, "t_stop")
        if isinstance(value, np.ndarray) and value.size and in_seconds(value, "times")[-1] == stop:
            stop = np.array(np.inf)
        return np.array([[start, stop]], dtype=np.float64)
    return None


def declared_supports(
    supports: list[NDArray[np.float64] | None], trains: list[NDArray[np.float64]]
) -> list[NDArray[np.float64] | None]:
    """Return supports, with None in place of those whose intervals start and end with a spike.

    pynapple derives such a support from the spikes if the user declares none; nobody said that the
    recording ended there.
    """
    known = {support.tobytes(): support for support in supports if support is not None}
    edges = np.concatenate([np.empty(0), *[support.ravel() for support in known.values()]])
    is_spike = np.zeros(len(edges), dtype=bool)
    for train in trains:
        if train.size:
            at = np.minimum(np.searchsorted(train, edges), train.size - 1)
            is_spike |= train[at] == edges
    splits = np.cumsum([support.size for support in known.values()])
    is_derived = {
        key: part.all() for key, part in zip(known, np.split(is_spike, splits), strict=False)
    }
    return [
        None if support is None or is_derived[support.tobytes()] else support
        for support in supports
    ]


# -- clocks ----------


def warn_of_clocks(
    trains: list[NDArray[np.float64]],
    starts: NDArray[np.float64],
    stops: NDArray[np.float64],
    *,
    support: NDArray[np.float64] | None = None,
    spikes: str = "spike_times",
    trials: str = "trials",
    stacklevel: int = 3,
) -> None:
    """Warn if spikes and trials seem to be on different clocks, or not in seconds.

    Parameters
    ----------
    trains : list of ndarray of shape (n_spikes,)
        Sorted spike times of each neuron, in seconds.

    starts, stops : ndarray of shape (n_trials,)
        Start and end of each trial, in seconds.

    support : ndarray of shape (n_intervals, 2), default=None
        The recorded time, if known, in seconds.

    spikes, trials : str
        Names of the two in the warning.

    stacklevel : int, default=3
        That of :func:`warnings.warn`; 3 is the caller of the function that calls this one.
    """
    reason = _wrong_clock(trains, starts, stops, support)
    if reason is None:
        return
    ends = [end for train in trains if train.size for end in (train[0], train[-1])]
    if support is not None:
        ends += support[np.isfinite(support)].tolist()
    warnings.warn(
        f"{spikes} and {trials} may be on different clocks, or not in seconds: {spikes} range from "
        f"{_readable(min(ends))} to {_readable(max(ends))} s, {trials} from "
        f"{_readable(starts.min())} to {_readable(stops.max())} s, and {reason}. Convert both to "
        "seconds on one clock; milliseconds, for example, by times / 1000.",
        ClockWarning,
        stacklevel=stacklevel,
    )


def warn_of_window(
    events: NDArray[np.float64], window: tuple[float, float], *, stacklevel: int = 3
) -> None:
    """Warn if a window around events seems to be in milliseconds: it spans a hundred of them."""
    length = window[1] - window[0]
    steps = np.diff(np.unique(events))
    if not steps.size or length < 60 or length < _MOST_EVENTS * np.median(steps):
        return
    apart = _readable(float(np.median(steps)))
    warnings.warn(
        f"window={window} lasts {_readable(length)} s, but events are {apart} s apart. Is it in "
        "milliseconds? Pass seconds.",
        ClockWarning,
        stacklevel=stacklevel,
    )


def warn_of_events(
    events: NDArray[np.float64],
    starts: NDArray[np.float64],
    stops: NDArray[np.float64],
    *,
    name: str,
    file: str = "",
    stacklevel: int = 3,
) -> None:
    """Warn if most events lie outside of their own trial; all arrays are (n_trials,), in seconds.

    Trials in which one of the three is NaN are ignored. The warning begins with `file`.
    """
    known = np.isfinite(events) & np.isfinite(starts) & np.isfinite(stops)
    events, starts, stops = events[known], starts[known], stops[known]
    n_outside = np.count_nonzero((events < starts - CLOCK) | (events > stops + CLOCK))
    if 2 * n_outside <= len(events):
        return
    warnings.warn(
        f"{file and file + ': '}{name} and the trials may be on different clocks: {n_outside:,} of "
        f"{len(events):,} times in {name} lie outside of their own trial. {name} ranges from "
        f"{_readable(events.min())} to {_readable(events.max())} s, the trials from "
        f"{_readable(starts.min())} to {_readable(stops.max())} s. If {name} is relative to the "
        "start of each trial, add that start.",
        UserWarning,
        stacklevel=stacklevel,
    )


def check_size(n_trials: int, n_bins: int, n_neurons: int, dtype: DTypeLike, span: float) -> None:
    """Raise an error before an array of counts is made that is absurdly large."""
    n_bytes = n_trials * n_bins * n_neurons * np.dtype(dtype).itemsize
    if n_bytes > _LARGEST:
        raise ValueError(
            f"Counts of {n_trials:,} trials, {n_bins:,} bins and {n_neurons:,} neurons would need "
            f"{n_bytes / 2**30:,.0f} GiB: the longest trial lasts {_readable(span)} s. Check that "
            "all times and bin_width are in seconds, or use wider bins."
        )


def _wrong_clock(
    trains: list[NDArray[np.float64]],
    starts: NDArray[np.float64],
    stops: NDArray[np.float64],
    support: NDArray[np.float64] | None,
) -> str | None:
    """Return what looks wrong about the clocks of spikes and trials, or None."""
    if support is not None and len(support):
        outside = (stops <= support.min() + CLOCK) | (starts >= support.max() - CLOCK)
        if 2 * outside.sum() > len(starts):
            return f"{outside.sum():,} of {len(starts):,} lie outside of the recorded time"
    trains = [train for train in trains if train.size]
    n_spikes = sum(train.size for train in trains)
    if not n_spikes:
        return None
    first, last = min(train[0] for train in trains), max(train[-1] for train in trains)
    span = last - first
    is_long = span > 3600  # in milliseconds, each recording of more than 3.6 s
    if is_long:
        # Neurons that fire at least now and then have intervals far below a second.
        n_short = sum(np.count_nonzero(np.diff(train) <= 1) for train in trains)
        n_intervals = n_spikes - len(trains)
        if n_intervals >= 50 and n_short < 0.05 * n_intervals:
            return (
                f"only {n_short:,} of {n_intervals:,} intervals between spikes of a neuron are "
                "shorter than 1 s"
            )
    near = max(span, 60.0)
    far = (stops < first - near) | (starts > last + near)
    if len(starts) > 1:  # a single long one may end far from the spikes
        far |= (starts < first - near) | (stops > last + near)
    # Neurons that were lost early leave some of the trials near their spikes.
    is_open = support is None or not np.isfinite(support).all()
    if is_open and n_spikes >= 20 and far.mean() >= 0.9:
        return f"{far.sum():,} of {len(starts):,} lie far from all spikes"
    n_inside = sum(
        int(np.sum(np.searchsorted(train, stops) - np.searchsorted(train, starts)))
        for train in trains
    )
    time = float(np.sum(stops - starts))
    expected = n_spikes * min(time / span, 1.0) if span > 0 else 0.0
    is_short = stops.max() - starts.min() < 0.01 * span
    is_rare = n_inside < 0.2 * time * len(trains)  # below 0.2 Hz
    if (expected >= 100 and n_inside < 0.01 * expected) or (
        is_long and is_short and is_rare and len(starts) >= 5
    ):
        return f"only {n_inside:,} of {n_spikes:,} spikes fall into them"
    return None


def _readable(seconds: float) -> str:
    return f"{seconds:,.0f}" if abs(seconds) >= 1000 else f"{seconds:.4g}"


# -- libraries and units ----------


def _libraries(value: Any) -> set[str]:
    """Names of the packages that define the class of an object and its base classes."""
    return {base.__module__.partition(".")[0] for base in type(value).__mro__}


def _is_interval_set(value: Any) -> bool:
    return "pynapple" in _libraries(value) and hasattr(value, "tot_length")


def _is_neo_train(value: Any) -> bool:
    """Whether an object is a SpikeTrain, in memory or not; a SpikeTrainList has a t_stop too."""
    return (
        "neo" in _libraries(value)
        and (isinstance(value, np.ndarray) or hasattr(value, "load"))
        and hasattr(value, "t_stop")
    )


def _times_of_pynapple(value: Any, name: str) -> Any:
    if _is_interval_set(value):
        raise TypeError(
            f"{name} is an IntervalSet, but single times are needed; pass its .start or .end."
        )
    if hasattr(value, "t") and getattr(value, "ndim", 1) == 1:  # Ts and Tsd
        return value.t
    if isinstance(value, np.ndarray):  # an index of times
        return np.asarray(value)
    raise TypeError(
        f"{name} is a {type(value).__name__}, but the times of one series are needed; pass a Ts."
    )


def _are_plain(times: list | tuple) -> bool:
    """Whether all entries are numbers, which have no unit."""
    kinds = {type(time) for time in times}
    return all(issubclass(kind, int | float | np.number) and kind is not bool for kind in kinds)


def _stacked(times: list[NDArray[np.float64]], name: str) -> NDArray[np.float64]:
    try:
        return np.array(times, dtype=np.float64)
    except ValueError as error:
        raise TypeError(f"{name} holds arrays of different lengths; pass single times.") from error


def _scaled(values: Any, factor: float) -> NDArray[np.float64]:
    """Multiply by a factor, or divide by its inverse where that is a whole number and so exact."""
    values = np.asarray(values, dtype=np.float64)
    inverse = round(1 / factor)
    if factor < 1 and abs(inverse * factor - 1) < 1e-12:
        return values / inverse
    return values * factor if factor != 1 else values


def _factor_of_quantity(value: Any, name: str) -> float:
    try:
        return float(value.units.rescale("s").magnitude)
    except ValueError as error:
        raise ValueError(
            f"{name} is in {value.dimensionality}, which is not a unit of time. Pass times."
        ) from error


def _factor_of_attrs(value: Any, name: str) -> float:
    unit = getattr(value, "attrs", {}).get("units", "s")
    if unit not in _FACTORS:
        raise ValueError(
            f"{name} has attrs['units'] = {unit!r}, which is not a unit of time; use 's' or 'ms'."
        )
    return _FACTORS[unit]


def _timedelta_in_seconds(array: NDArray, name: str) -> NDArray[np.float64]:
    unit = np.datetime_data(array.dtype)[0]
    if unit in ("generic", "Y", "M"):
        raise TypeError(
            f"{name} is of type {array.dtype}, whose unit has no fixed length. Use timedelta64[ms]."
        )
    return np.asarray(array / np.timedelta64(1, "s"), dtype=np.float64)


def _dates(example: Any, name: str) -> TypeError:
    return TypeError(
        f"{name} holds dates, such as {example}, but seconds are needed. Subtract the start of the "
        f"recording: {name} - start_of_recording."
    )
