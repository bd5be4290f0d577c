"""Times of any library become seconds, and wrong clocks are noticed."""

import datetime
import subprocess
import sys
import warnings
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_stndt.datasets._intervals import are_inside, merge_intervals
from sklearn_stndt.datasets._times import (
    check_size,
    in_seconds,
    intervals_in_seconds,
    scalar_in_seconds,
    support_of,
    warn_of_clocks,
    warn_of_events,
)

SECONDS = [1.0, 3.0]


def quantities(values, unit):
    return pytest.importorskip("quantities").Quantity(values, unit)


def neo_event(values):
    return pytest.importorskip("neo").Event(quantities(values, "ms"))


def neo_epoch(values):
    neo = pytest.importorskip("neo")
    return neo.Epoch(quantities(values, "ms"), durations=quantities([700, 500], "ms"))


def pandas_times(values):
    return pytest.importorskip("pandas").to_timedelta(values, unit="ms")


def pynapple_times(values):
    return pytest.importorskip("pynapple").Ts(np.array(values), time_units="ms")


def pynapple_series(values):
    nap = pytest.importorskip("pynapple")
    return nap.Tsd(t=np.array(values), d=np.array([7.0, 8.0]), time_units="ms")


def xarray_times(values):
    xarray = pytest.importorskip("xarray")
    return xarray.DataArray(values, dims="event", attrs={"units": "ms"})


def polars_times(values):
    polars = pytest.importorskip("polars")
    return polars.Series([datetime.timedelta(milliseconds=value) for value in values])


class Astropy:
    """Has the interface of a Quantity of astropy."""

    def __init__(self, values):
        self.values, self.unit = values, "ms"

    def to_value(self, unit):
        return np.array(self.values) / {"s": 1000}[unit]


class Pint:
    """Has the interface of a Quantity of pint."""

    def __init__(self, values):
        self.magnitude = np.array(values)

    def to(self, unit):
        return Pint(self.magnitude / {"s": 1000}[unit])


MAKERS = {
    "quantity": lambda ms: quantities(ms, "ms"),
    "quantity in microseconds": lambda ms: quantities(np.multiply(ms, 1000), "us"),
    "list of quantities": lambda ms: [quantities(ms[0], "ms"), quantities(ms[1] / 1000, "s")],
    "neo.Event": neo_event,
    "starts of a neo.Epoch": neo_epoch,
    "times of a neo.Event": lambda ms: neo_event(ms).times,
    "timedelta64": lambda ms: np.array(ms, dtype="timedelta64[ms]"),
    "timedelta64 in ns": lambda ms: np.array(np.multiply(ms, 10**6), dtype="timedelta64[ns]"),
    "list of timedelta": lambda ms: [datetime.timedelta(milliseconds=value) for value in ms],
    "list of timedelta64": lambda ms: [np.timedelta64(value, "ms") for value in ms],
    "cells of timedelta64": lambda ms: np.array(
        [np.timedelta64(value, "ms") for value in ms], dtype=object
    ),
    "TimedeltaIndex": pandas_times,
    "Series of timedelta": lambda ms: pandas_times(ms).to_series(),
    "list of Timedelta": lambda ms: list(pandas_times(ms)),
    "polars Duration": polars_times,
    "Ts": pynapple_times,
    "Tsd": pynapple_series,
    "index of a Ts": lambda ms: pynapple_times(ms).index,
    "DataArray in ms": xarray_times,
    "astropy": Astropy,
    "pint": Pint,
    "float32": lambda ms: np.array(ms, dtype=np.float32) / np.float32(1000),
    "Decimal": lambda ms: [Decimal(value) / 1000 for value in ms],
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_times_keep_their_unit(make):
    seconds = in_seconds(make([1000, 3000]), "events")
    assert seconds.dtype == np.float64
    assert seconds.tolist() == SECONDS


@given(st.lists(st.integers(0, 10**10), min_size=1))
def test_units_are_converted_without_rounding_errors(microseconds):
    expected = [time / 10**6 for time in microseconds]
    for times in (quantities(microseconds, "us"), np.array(microseconds, "timedelta64[us]")):
        assert in_seconds(times, "events").tolist() == expected


def test_times_in_samples_of_a_declared_rate_are_converted():
    pq = pytest.importorskip("quantities")
    sample = pq.UnitTime("sample", pq.s / 30_000)
    np.testing.assert_allclose(in_seconds([30_000, 90_000] * sample, "events"), SECONDS, rtol=1e-15)


def test_objects_that_are_not_read_yet_are_read():
    neo = pytest.importorskip("neo")
    segment = neo.io.ExampleIO("name.fake").read_segment(lazy=True)
    lazy, read = segment.events[0], segment.events[0].load()
    np.testing.assert_array_equal(in_seconds(lazy, "events"), read.times.rescale("s").magnitude)
    np.testing.assert_array_equal(support_of(segment.spiketrains[0]), [[0, 10]])


@pytest.mark.parametrize(
    "times",
    [
        np.ma.MaskedArray([1.0, 2.0], mask=[False, True]),
        np.ma.MaskedArray(np.array([1000, 2], dtype="timedelta64[ms]"), mask=[False, True]),
        np.array([1000, "NaT"], dtype="timedelta64[ms]"),
        [1.0, None],
        [datetime.timedelta(seconds=1), None],
    ],
)
def test_missing_times_are_nan(times):
    np.testing.assert_array_equal(in_seconds(times, "events"), [1, np.nan])


def test_missing_times_of_pandas_are_nan():
    pd = pytest.importorskip("pandas")
    for times in (
        pd.Series([1.0, None], dtype="Float64"),
        pd.Series([pd.Timedelta("1s"), pd.NaT], dtype=object),
        [pd.Timedelta("1s"), pd.NaT],
        [1.0, pd.NA],
    ):
        np.testing.assert_array_equal(in_seconds(times, "events"), [1, np.nan])


def dates():
    pd = pytest.importorskip("pandas")
    day = datetime.datetime(2026, 1, 1)
    return [
        np.array(["2026-01-01"], dtype="datetime64[ms]"),
        [day],
        [1.0, day],
        [day.date()],
        [np.datetime64(day)],
        [pd.Timestamp(day)],
        pd.Series([pd.Timestamp(day)]),
        pd.Series([pd.Timestamp(day, tz="UTC")]),
        pd.DatetimeIndex([day]),
    ]


@pytest.mark.parametrize("case", range(9))
def test_dates_are_refused(case):
    message = (
        "events holds dates, such as 2026-01-01.*Subtract the start of the recording: events -"
    )
    with pytest.raises(TypeError, match=message):
        in_seconds(dates()[case], "events")


def without_unit():
    """Durations without a unit, which numpy 2.5 deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.array([1], dtype="timedelta64")


@pytest.mark.parametrize(
    ("times", "error", "message"),
    [
        (["0.1"], TypeError, "holds no numbers, but values of type <U3"),
        ([True, False], TypeError, "holds no numbers, but values of type bool"),
        ([1j], TypeError, "values of type complex128"),
        ([[1.0], [1.0, 2.0], None], TypeError, "arrays of different lengths"),
        (np.array([1], dtype="timedelta64[M]"), TypeError, "no fixed length"),
        (without_unit(), TypeError, "no fixed length"),
        (object(), TypeError, "holds no numbers, but <object"),
    ],
)
def test_what_holds_no_times_is_refused(times, error, message):
    with pytest.raises(error, match=f"events .*{message}"):
        in_seconds(times, "events")


def test_other_units_and_containers_are_refused():
    nap = pytest.importorskip("pynapple")
    pd = pytest.importorskip("pandas")
    xarray = pytest.importorskip("xarray")
    frame = nap.TsdFrame(t=np.arange(3.0), d=np.ones((3, 2)))
    group = nap.TsGroup({0: nap.Ts(np.arange(3.0))})
    volts = xarray.DataArray([1.0], attrs={"units": "mV"})
    for times, error, message in [
        (quantities([1.0], "mV"), ValueError, "events is in .*mV.*not a unit of time"),
        (quantities([1.0], "dimensionless"), ValueError, "not a unit of time"),
        (volts, ValueError, "'mV', which is not a unit of time"),
        (nap.IntervalSet(0, 1), TypeError, r"IntervalSet.* pass its \.start or \.end"),
        (frame, TypeError, "events is a TsdFrame"),
        (group, TypeError, "events is a TsGroup"),
        (pd.DataFrame({"onset": [1.0]}), TypeError, r"is a table.*\['onset'\]"),
    ]:
        with pytest.raises(error, match=message):
            in_seconds(times, "events")


def test_single_times_keep_their_unit_and_numbers_stay():
    pd = pytest.importorskip("pandas")
    xarray = pytest.importorskip("xarray")
    for value in (
        quantities(20, "ms"),
        quantities([20], "ms"),
        np.timedelta64(20, "ms"),
        np.array(20, dtype="timedelta64[ms]"),
        datetime.timedelta(milliseconds=20),
        pd.Timedelta(20, "ms"),
        xarray.DataArray(20, attrs={"units": "ms"}),
    ):
        seconds = scalar_in_seconds(value, "bin_width")
        assert type(seconds) is float
        assert seconds == 0.02
    for value in (0.02, 1, None, "20 ms", [0.02], np.float32(0.5)):
        assert scalar_in_seconds(value, "bin_width") is value
    with pytest.raises(TypeError, match="start holds dates"):
        scalar_in_seconds(datetime.datetime(2026, 1, 1), "start")
    with pytest.raises(TypeError, match="must be a single time, got 2"):
        scalar_in_seconds(quantities([1, 2], "s"), "start")


def test_intervals_of_any_kind_have_starts_and_stops():
    nap = pytest.importorskip("pynapple")
    pd = pytest.importorskip("pandas")
    for intervals in (
        nap.IntervalSet([1000, 3000], [1700, 3500], time_units="ms"),
        neo_epoch([1000, 3000]),
        pd.IntervalIndex.from_arrays([1.0, 3.0], [1.7, 3.5]),
        pd.IntervalIndex.from_arrays(pandas_times([1000, 3000]), pandas_times([1700, 3500])),
        quantities([[1000, 1700], [3000, 3500]], "ms"),
        [(1.0, 1.7), (3.0, 3.5)],
    ):
        starts, stops = intervals_in_seconds(intervals, "starts")
        assert starts.tolist() == SECONDS
        np.testing.assert_allclose(stops, [1.7, 3.5], rtol=1e-15)
    assert intervals_in_seconds(SECONDS, "starts") is None


def test_no_library_is_imported_for_plain_times():
    code = (
        "import sys; from sklearn_stndt.datasets import bin_spikes; bin_spikes([[0.1]], 0.05); "
        "print(*{'neo', 'pynapple', 'quantities', 'xarray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# -- recorded time ----------


def test_the_recorded_time_comes_from_the_object():
    nap = pytest.importorskip("pynapple")
    neo = pytest.importorskip("neo")
    support = nap.IntervalSet([0, 20], [10, 40])
    group = nap.TsGroup({0: nap.Ts(np.array([1.0, 21.0]))}, time_support=support)
    for value in (group, group[0]):
        assert support_of(value).tolist() == [[0, 10], [20, 40]]
    train = neo.SpikeTrain([500], units="ms", t_start=400, t_stop=900)
    assert support_of(train).tolist() == [[0.4, 0.9]]
    for value in ([0.1], np.array([0.1]), quantities([0.1], "s"), neo_event([1, 2])):
        assert support_of(value) is None


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([[0, 40], [2, 3]], [[0, 40]]),
        ([[2, 3], [0, 40]], [[0, 40]]),
        ([[5, 6], [0, 1]], [[0, 1], [5, 6]]),
        ([[0, 1.0005], [1.0005, 2]], [[0, 2]]),
        ([[0, 0.999999], [1, 2]], [[0, 2]]),
        ([[0, 1], [1.00001, 2]], [[0, 1], [1.00001, 2]]),
        ([[0, 1], [0.5, np.inf]], [[0, np.inf]]),
        (np.empty((0, 2)), []),
    ],
)
def test_intervals_that_overlap_or_touch_are_joined(intervals, expected):
    assert merge_intervals(intervals, "support").tolist() == expected


def test_bins_are_inside_if_all_of_them_was_recorded():
    starts = np.array([-0.1, 0.0, 0.9, 0.95, 1.9, 2.0])
    inside = are_inside(starts, starts + 0.1, np.array([[0, 1], [2, np.inf]]))
    assert inside.tolist() == [False, True, True, False, False, True]
    assert not are_inside(starts, starts + 0.1, np.empty((0, 2))).any()


# -- clocks ----------


def recording(n_neurons=5, seconds=40.0, rate=10.0):
    random = np.random.default_rng(0)
    n_spikes = int(seconds * rate)
    return [np.sort(random.uniform(0, seconds, n_spikes)) for _ in range(n_neurons)]


STARTS = 2.0 * np.arange(20)


@pytest.mark.parametrize(
    ("spike_factor", "trial_factor", "offset", "reason"),
    [
        (1000, 1, 0, r"from .* to 39,\d+ s, trials from 0 to 39 s, and only .* shorter than 1 s"),
        (30_000, 1, 0, "shorter than 1 s"),
        (1000, 1000, 0, "shorter than 1 s"),
        (1, 1000, 0, "trials from 0 to 39,000 s, and 20 of 20 lie far from all spikes"),
        (1, 1, 1.7e9, "20 of 20 lie far from all spikes"),
        (1, 1, 45, "only 0 of 2,000 spikes fall into them"),
    ],
)
def test_a_wrong_clock_is_noticed(spike_factor, trial_factor, offset, reason):
    trains = [train * spike_factor for train in recording()]
    starts = STARTS * trial_factor + offset
    with pytest.warns(UserWarning, match=reason):
        warn_of_clocks(trains, starts, starts + trial_factor)


def test_a_single_trial_far_from_all_spikes_is_noticed():
    with pytest.warns(UserWarning, match="1 of 1 lie far from all spikes"):
        warn_of_clocks(recording(), np.array([3000.0]), np.array([3001.0]))
    warn_of_clocks(recording(), np.array([0.0]), np.array([600.0]))  # silent after 40 s


def test_fast_neurons_in_milliseconds_are_noticed():
    trains = [train * 1000 for train in recording(rate=100.0)]
    with pytest.warns(UserWarning, match="spikes fall into them"):
        warn_of_clocks(trains, STARTS, STARTS + 1)


def test_most_trials_outside_of_the_recorded_time_are_noticed():
    with pytest.warns(UserWarning, match=r"10 to 12 s.* 19 of 20 lie outside of the recorded time"):
        warn_of_clocks([np.array([11.0])], STARTS, STARTS + 1, support=np.array([[10.0, 12]]))


@pytest.mark.parametrize(
    ("trains", "starts", "stops"),
    [
        (recording(), STARTS, STARTS + 1),
        (recording(1, 7200.0, 0.2), 60.0 * np.arange(120), 60.0 * np.arange(120) + 1),
        (recording(5, 36_000.0, 5.0), np.array([18_000.0]), np.array([18_001.0])),
        (recording(5, 36_000.0, 5.0), 18_000 + STARTS, 18_001 + STARTS),  # a block of 40 s
        ([recording(1, 300.0)[0]], 10.0 * np.arange(120), 10.0 * np.arange(120) + 5),  # lost early
        ([np.array([0.5])], STARTS, STARTS + 1),
        ([np.array([])], STARTS, STARTS + 1),
    ],
)
def test_sparse_long_and_silent_recordings_raise_no_warning(trains, starts, stops):
    warn_of_clocks(trains, starts, stops)


def test_events_relative_to_their_trial_are_noticed():
    message = r"go_cue ranges from 0.5 to 0.5 s, the trials from 0 to 39 s.*add that start"
    with pytest.warns(UserWarning, match=f"19 of 20 times in go_cue lie outside.*{message}"):
        warn_of_events(np.full(20, 0.5), STARTS, STARTS + 1, name="go_cue")
    with pytest.warns(UserWarning, match="go_cue"):
        warn_of_events(1000 * (STARTS + 0.5), STARTS, STARTS + 1, name="go_cue")
    some = np.where(np.arange(20) < 15, np.nan, STARTS + 1.0)
    warn_of_events(some, STARTS, STARTS + 1, name="go_cue")


def test_absurdly_large_arrays_are_refused():
    with pytest.raises(ValueError, match=r"36,000,000 bins and 1,000 neurons would need 134 GiB"):
        check_size(1, 36_000_000, 1000, np.float32, 720_000.0)
    check_size(1, 17_000_000, 1000, np.uint8, 86_400.0)
