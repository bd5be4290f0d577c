"""Binning of spike times: exact edges, every container, and errors for bad times."""

import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

from sklearn_stndt.datasets import align_to_events, bin_spikes, bin_trials

WIDTHS = [1000, 5000, 20_000, 33_333, 100_000]  # microseconds

MICROSECONDS = st.lists(st.integers(0, 3_000_000), max_size=30)


@st.composite
def recordings(draw):
    """Spike times in whole microseconds, many of them on edges, and a bin width."""
    width = draw(st.sampled_from(WIDTHS))
    on_edges = st.lists(st.integers(0, 3_000_000 // width), max_size=30)
    trains = [
        sorted(draw(MICROSECONDS) + [width * edge for edge in draw(on_edges)])
        for _ in range(draw(st.integers(1, 3)))
    ]
    return trains, width


def as_seconds(trains, width, how):
    """Convert to seconds by different arithmetic, with different rounding errors."""
    if how == "quotient":
        return [np.array(train) / 1e6 for train in trains]
    if how == "product":
        return [np.array(train) * 1e-6 for train in trains]
    # the edge before each spike, plus the remainder
    return [
        np.sort(
            (np.array(train, dtype=int) // width) * (width / 1e6) + (np.array(train) % width) / 1e6
        )
        for train in trains
    ]


def naive(trains, start, n_bins, width):
    """Count with integer arithmetic."""
    counts = np.zeros((n_bins, len(trains)), dtype=int)
    for neuron, train in enumerate(trains):
        for spike in train:
            if 0 <= (spike - start) // width < n_bins:
                counts[(spike - start) // width, neuron] += 1
    return counts


@pytest.mark.parametrize("how", ["quotient", "product", "sum"])
@given(data=recordings(), start=st.integers(0, 1_000_000), n_bins=st.integers(1, 50))
def test_counts_are_exact_wherever_edges_fall(how, data, start, n_bins):
    trains, width = data
    counts = bin_spikes(
        as_seconds(trains, width, how),
        width / 1e6,
        start=start / 1e6,
        stop=(start + n_bins * width) / 1e6,
    )
    np.testing.assert_array_equal(counts, naive(trains, start, n_bins, width))


@given(
    data=recordings(),
    events=st.lists(st.integers(0, 3_000_000), min_size=1, max_size=5),
    before=st.integers(0, 5),
    after=st.integers(1, 5),
)
def test_trials_around_events_are_exact_and_may_overlap(data, events, before, after):
    trains, width = data
    counts = align_to_events(
        as_seconds(trains, width, "quotient"),
        np.array(events) / 1e6,
        (-before * width / 1e6, after * width / 1e6),
        width / 1e6,
    )
    expected = [naive(trains, e - before * width, before + after, width) for e in events]
    np.testing.assert_array_equal(counts, expected)


@given(data=recordings(), bounds=st.lists(st.tuples(st.integers(0, 2_000_000), st.integers(1, 9))))
def test_trials_of_unequal_length_end_in_nan(data, bounds):
    trains, width = data
    bounds = [*bounds, (0, 3)]
    starts, lengths = np.array(bounds).T
    stops = (starts + lengths * width + width // 2) / 1e6  # half a bin is left out
    counts = bin_trials(as_seconds(trains, width, "quotient"), starts / 1e6, stops, width / 1e6)
    assert counts.dtype == np.float32
    assert counts.shape == (len(bounds), lengths.max(), len(trains))
    for trial, (start, length) in enumerate(bounds):
        np.testing.assert_array_equal(counts[trial, :length], naive(trains, start, length, width))
        assert np.isnan(counts[trial, length:]).all()


def test_a_spike_on_an_edge_is_in_the_bin_that_starts_there():
    n_bins = 720_000
    for edges in (
        np.arange(n_bins) * 0.005,
        np.arange(n_bins) / 200,
        np.linspace(0, 3600, n_bins, False),
    ):
        counts = bin_spikes([edges], 0.005, stop=3600)
        assert counts.shape == (n_bins, 1)
        assert (counts == 1).all()


def test_a_spike_just_before_an_edge_is_in_the_earlier_bin():
    edge = 1000 * 0.005
    for early in (edge - 1e-9, edge - 1e-12):
        counts = bin_spikes([[early]], 0.005, stop=5.01)
        assert counts[999, 0] == 1


def test_clocks_that_start_in_1970_are_binned():
    start = 1_790_000_000.0
    train = start + np.arange(1000) * 0.005
    counts = bin_spikes([train], 0.005, start=start, stop=start + 5)
    assert (counts == 1).all()


def test_spikes_outside_start_and_stop_are_left_out():
    train = [-0.5, 0.1, 0.25, 0.9, 1.7]
    assert bin_spikes([train], 0.5, start=-1, stop=1).ravel().tolist() == [0, 1, 2, 1]
    assert bin_spikes([train], 0.5, start=0.2, stop=1.3).ravel().tolist() == [1, 1]
    assert bin_spikes([train], 0.5, start=-0.5).ravel().tolist() == [1, 2, 1, 0, 1]


def test_silent_neurons_have_a_column():
    counts = bin_spikes([[], [0.1], []], 0.1, stop=0.3)
    assert counts.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert bin_spikes([[]], 0.1, stop=0.2).tolist() == [[0], [0]]


# ---- containers

TRAINS = [[0.1, 0.25, 0.3], [0.7, 0.8]]


def test_lists_dictionaries_and_cell_arrays_give_the_same_counts():
    expected = bin_spikes(TRAINS, 0.1, stop=1)
    cells = np.empty((1, 2), dtype=object)
    cells[0, 0], cells[0, 1] = np.array([TRAINS[0]]), np.array([TRAINS[1]]).T
    for form in (tuple(TRAINS), {"a": TRAINS[0], "b": TRAINS[1]}, cells, iter(TRAINS)):
        np.testing.assert_array_equal(bin_spikes(form, 0.1, stop=1), expected)


def test_a_squeezed_unit_with_one_spike_is_a_unit(tmp_path):
    path = tmp_path / "spikes.mat"
    cells = np.empty((1, 3), dtype=object)
    cells[0] = [np.array([0.1, 0.25]), np.array([0.7]), np.zeros(0)]
    savemat(path, {"cells": cells})
    squeezed = loadmat(path, squeeze_me=True)["cells"]
    expected = bin_spikes([[0.1, 0.25], [0.7], []], 0.1, stop=1)
    for form in (squeezed, list(squeezed), dict(enumerate(squeezed))):
        np.testing.assert_array_equal(bin_spikes(form, 0.1, stop=1), expected)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2)])
def test_a_cell_array_of_neurons_and_trials_is_refused(shape):
    cells = np.empty(shape, dtype=object)
    for index in np.ndindex(shape):
        cells[index] = np.array([[0.1, 0.2]])
    with pytest.raises(TypeError, match=r"neurons x trials.*np\.stack.*np\.concatenate"):
        bin_spikes(cells, 0.1)


def test_pynapple_groups_define_the_end():
    nap = pytest.importorskip("pynapple")
    support = nap.IntervalSet(0, 1.2)
    group = nap.TsGroup(
        {4: nap.Ts(np.array(TRAINS[0])), 2: nap.Ts(np.array(TRAINS[1]))}, time_support=support
    )
    counts = bin_spikes(group, 0.1)
    in_order = [TRAINS[1], TRAINS[0]]  # pynapple sorts by index
    np.testing.assert_array_equal(counts, bin_spikes(in_order, 0.1, stop=1.2))
    members = [group[4], group[2]]
    np.testing.assert_array_equal(bin_spikes(members, 0.1, stop=1), bin_spikes(TRAINS, 0.1, stop=1))
    events = align_to_events(group, [0.5], (0, 0.4), 0.1)
    np.testing.assert_array_equal(events, align_to_events(in_order, [0.5], (0, 0.4), 0.1))


def test_neo_spike_trains_define_unit_and_end():
    neo = pytest.importorskip("neo")
    trains = [neo.SpikeTrain(np.multiply(t, 1000), units="ms", t_stop=1200) for t in TRAINS]
    np.testing.assert_array_equal(bin_spikes(trains, 0.1), bin_spikes(TRAINS, 0.1, stop=1.2))
    segment = neo.Segment()
    segment.spiketrains.extend(trains)
    np.testing.assert_array_equal(bin_spikes(segment.spiketrains, 0.1), bin_spikes(trains, 0.1))


def test_single_series_are_single_neurons():
    nap = pytest.importorskip("pynapple")
    neo = pytest.importorskip("neo")
    expected = bin_spikes(TRAINS[:1], 0.1, stop=1.2)
    support = nap.IntervalSet(0, 1.2)
    times = np.array(TRAINS[0])
    for train in (
        nap.Ts(times, time_support=support),
        nap.Tsd(t=times, d=np.full(3, 40.0), time_support=support),
        neo.SpikeTrain(times, units="s", t_stop=1.2),
    ):
        for spike_times in (train, [train], {"a": train}):
            np.testing.assert_array_equal(bin_spikes(spike_times, 0.1), expected)


def test_spike_times_keep_their_unit():
    pq = pytest.importorskip("quantities")
    pd = pytest.importorskip("pandas")
    expected = bin_spikes(TRAINS, 0.1, stop=1)
    in_ms = [[100, 250, 300], [700, 800]]
    for trains in (
        [times * pq.ms for times in in_ms],
        [[time * pq.ms for time in times] for times in in_ms],
        [np.array(times, "timedelta64[ms]") for times in in_ms],
        [pd.to_timedelta(times, unit="ms") for times in in_ms],
        pd.Series([pd.Series(pd.to_timedelta(times, unit="ms")) for times in in_ms]),
    ):
        np.testing.assert_array_equal(bin_spikes(trains, 0.1, stop=1), expected)


def test_masked_spikes_are_left_out():
    trains = [np.ma.MaskedArray([0.1, 99.0, 0.25, 0.3], mask=[0, 1, 0, 0]), TRAINS[1]]
    np.testing.assert_array_equal(bin_spikes(trains, 0.1), bin_spikes(TRAINS, 0.1))


# -- units of events, trials and settings ----------


def as_events(kind, times):
    """Times in seconds as an object of that kind, in milliseconds."""
    in_ms = 1000 * np.asarray(times)
    pq = pytest.importorskip("quantities")
    if kind == "quantity":
        return in_ms * pq.ms
    if kind == "list of quantities":
        return [time * pq.ms for time in in_ms]
    if kind == "Event":
        return pytest.importorskip("neo").Event(in_ms * pq.ms)
    if kind == "timedelta64":
        return in_ms.astype("timedelta64[ms]")
    if kind == "to_timedelta":
        return pytest.importorskip("pandas").to_timedelta(in_ms, unit="ms")
    if kind == "list of timedelta":
        return [datetime.timedelta(milliseconds=time) for time in in_ms]
    return pytest.importorskip("pynapple").Ts(in_ms, time_units="ms")


@pytest.mark.parametrize(
    "kind",
    [
        "quantity",
        "list of quantities",
        "Event",
        "timedelta64",
        "to_timedelta",
        "list of timedelta",
        "Ts",
    ],
)
def test_events_and_trials_keep_their_unit(kind):
    trains = [np.sort(np.random.default_rng(0).uniform(0, 5, size=200)) for _ in range(2)]
    events = as_events(kind, [1.0, 3.0])
    aligned = align_to_events(trains, events, (-0.5, 0.5), 0.02)
    np.testing.assert_array_equal(aligned, align_to_events(trains, [1.0, 3.0], (-0.5, 0.5), 0.02))
    assert aligned.sum() > 50
    trials = bin_trials(trains, events, as_events(kind, [1.7, 3.5]), 0.02)
    np.testing.assert_array_equal(trials, bin_trials(trains, [1.0, 3.0], [1.7, 3.5], 0.02))


def test_intervals_are_trials():
    nap = pytest.importorskip("pynapple")
    neo = pytest.importorskip("neo")
    pd = pytest.importorskip("pandas")
    pq = pytest.importorskip("quantities")
    trains = [np.linspace(0, 4, 400)]
    expected = bin_trials(trains, [1, 3], [1.7, 3.5], 0.02)
    assert expected.shape == (2, 35, 1)
    epochs = neo.Epoch([1000, 3000] * pq.ms, durations=[0.7, 0.5] * pq.s)
    for trials in (
        nap.IntervalSet([1, 3], [1.7, 3.5]),
        epochs,
        pd.IntervalIndex.from_arrays([1, 3], [1.7, 3.5]),
        np.array([[1, 1.7], [3, 3.5]]),
    ):
        np.testing.assert_array_equal(bin_trials(trains, trials, bin_width=0.02), expected)
    stops = epochs.times + epochs.durations
    np.testing.assert_array_equal(bin_trials(trains, epochs, stops, 0.02), expected)


def test_widths_windows_and_ends_keep_their_unit():
    pq = pytest.importorskip("quantities")
    pd = pytest.importorskip("pandas")
    trains = [np.linspace(0, 4, 400)]
    whole = bin_spikes(trains, 0.02, start=1, stop=3)
    aligned = align_to_events(trains, [2.0], (-0.5, 0.5), 0.02)
    trials = bin_trials(trains, [1], [3], 0.02)

    def milliseconds(time):
        return datetime.timedelta(milliseconds=time)

    for unit in (
        lambda ms: ms * pq.ms,
        lambda ms: np.timedelta64(ms, "ms"),
        lambda ms: pd.Timedelta(ms, "ms"),
        milliseconds,
    ):
        width = unit(20)
        np.testing.assert_array_equal(
            bin_spikes(trains, width, start=unit(1000), stop=unit(3000)), whole
        )
        window = (unit(-500), unit(500))
        np.testing.assert_array_equal(align_to_events(trains, [2.0], window, width), aligned)
        np.testing.assert_array_equal(bin_trials(trains, [1], [3], width), trials)
    window = [-500, 500] * pq.ms
    np.testing.assert_array_equal(align_to_events(trains, [2.0], window, 0.02), aligned)


def test_dates_are_refused_wherever_times_come_in():
    day = datetime.datetime(2026, 1, 1)
    days = np.array([day, day], dtype="datetime64[ms]")
    for call in (
        lambda: bin_spikes([days], 0.1),
        lambda: bin_spikes(TRAINS, 0.1, start=day),
        lambda: bin_spikes(TRAINS, 0.1, stop=np.datetime64(day)),
        lambda: align_to_events(TRAINS, days, (0, 0.1), 0.1),
        lambda: align_to_events(TRAINS, [day], (0, 0.1), 0.1),
        lambda: bin_trials(TRAINS, days, days, 0.1),
    ):
        with pytest.raises(TypeError, match=r"holds dates.*Subtract the start of the recording"):
            call()


# -- recorded time ----------


def late_group():
    """Two neurons, recorded from 100 to 101 and from 102 to 103 s."""
    nap = pytest.importorskip("pynapple")
    support = nap.IntervalSet([100, 102], [101, 103])
    times = [np.array([100.05, 102.25]), np.array([100.55, 102.95])]
    return nap.TsGroup({i: nap.Ts(t) for i, t in enumerate(times)}, time_support=support)


def test_bins_outside_of_the_time_support_are_nan():
    counts = bin_spikes(late_group(), 0.1)
    assert counts.shape == (30, 2)
    assert counts.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(counts[:, 0]), np.repeat([False, True, False], 10))
    assert np.flatnonzero(counts[:, 0] == 1).tolist() == [0, 22]
    assert np.nansum(counts, axis=0).tolist() == [2, 2]
    for trains in ([late_group()[0], [0.1]], [[0.1], late_group()[0]]):
        aligned = align_to_events(trains, [100.0, 102.0], (-0.2, 0.2), 0.1)
        assert np.isnan(aligned).sum(axis=(0, 1)).tolist() == [4 * (len(t) == 2) for t in trains]
    aligned = align_to_events(late_group(), [100.0, 102.0], (-0.2, 0.2), 0.1)
    assert aligned.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(aligned[0, :, 0]), [True, True, False, False])
    np.testing.assert_array_equal(np.isnan(aligned[1, :, 1]), [True, True, False, False])
    trials = bin_trials(late_group(), [100.5, 102.0], [101.5, 102.3], 0.25)
    np.testing.assert_array_equal(trials[..., 0], [[0, 0, np.nan, np.nan], [0, *[np.nan] * 3]])


def test_bins_that_were_recorded_in_part_are_nan():
    counts = bin_spikes(late_group(), 0.3)
    known = [0, 1, 2, 7, 8, 9]  # the fourth starts at 100.9, the seventh at 101.8 s
    np.testing.assert_array_equal(np.flatnonzero(~np.isnan(counts[:, 0])), known)


def test_touching_epochs_lose_no_bin():
    nap = pytest.importorskip("pynapple")
    with pytest.warns(UserWarning, match="Removing 1 microsecond"):
        support = nap.IntervalSet([0, 1.25], [1.25, 3])
    train = nap.Ts(np.array([0.5, 2.0]), time_support=support)
    assert bin_spikes(train, 0.5).ravel().tolist() == [0, 1, 0, 0, 1, 0]


def test_recordings_start_and_end_with_their_support():
    nap = pytest.importorskip("pynapple")
    neo = pytest.importorskip("neo")
    late = nap.Ts(np.array([100.05, 100.55]), time_support=nap.IntervalSet(100, 101))
    in_ms = neo.SpikeTrain([100_050, 100_550], units="ms", t_start=100_000, t_stop=101_000)
    for train in (late, in_ms):
        counts = bin_spikes([train], 0.1)
        assert counts.dtype == np.uint8
        assert counts.ravel().tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0]
        earlier = bin_spikes([train], 0.1, start=99.8)
        np.testing.assert_array_equal(np.isnan(earlier[:3, 0]), [True, True, False])
        assert len(earlier) == 12
    before = neo.SpikeTrain([-0.45], units="s", t_start=-0.5, t_stop=0.5)
    assert bin_spikes(before, 0.5).ravel().tolist() == [1, 0]


def test_ends_that_pynapple_rounds_lose_no_bin():
    nap = pytest.importorskip("pynapple")
    train = nap.Ts(np.array([0.1]), time_support=nap.IntervalSet(0, 7 / 30))
    assert len(bin_spikes(train, 1 / 30)) == 7


def test_neurons_with_supports_of_their_own_are_nan_outside_of_them():
    nap = pytest.importorskip("pynapple")
    neo = pytest.importorskip("neo")
    pairs = [
        [
            nap.Ts(np.array([10.3]), time_support=nap.IntervalSet(10, 12)),
            nap.Ts(np.array([11.8]), time_support=nap.IntervalSet(11, 13)),
        ],
        [
            neo.SpikeTrain([10.3], units="s", t_start=10, t_stop=12),
            neo.SpikeTrain([11.8], units="s", t_start=11, t_stop=13),
        ],
    ]
    nan = np.nan
    for trains in pairs:
        counts = bin_spikes(trains, 0.5)
        np.testing.assert_array_equal(counts.T, [[1, 0, 0, 0, nan, nan], [nan, nan, 0, 1, 0, 0]])
        mixed = bin_spikes([trains[0], [0.2]], 1, stop=12)
        np.testing.assert_array_equal(mixed[:, 0], [*[nan] * 10, 1, 0])
        assert mixed[:, 1].tolist() == [1] + 11 * [0]


def test_supports_derived_from_the_spikes_hide_no_silence():
    nap = pytest.importorskip("pynapple")
    times = [np.array([100.0, 100.25, 100.3]), np.array([100.7, 100.8])]
    group = nap.TsGroup({i: nap.Ts(t) for i, t in enumerate(times)})
    expected = bin_spikes(times, 0.1, start=100)
    for trains in (group, [nap.Ts(t) for t in times], [group[0], group[1]]):
        np.testing.assert_array_equal(bin_spikes(trains, 0.1), expected)
        assert align_to_events(trains, [100.0], (-1, 2), 0.1).dtype == np.uint8


def test_a_neo_train_that_ends_with_its_last_spike_hides_no_silence():
    neo = pytest.importorskip("neo")
    times = [[100.05, 100.25], [100.5, 100.85]]
    trains = [neo.SpikeTrain(t, units="s", t_start=100, t_stop=t[-1]) for t in times]
    np.testing.assert_array_equal(bin_spikes(trains, 0.1), bin_spikes(times, 0.1, start=100))
    trains[1] = neo.SpikeTrain(times[1], units="s", t_start=100, t_stop=101)
    expected = bin_spikes(times, 0.1, start=100, stop=101)
    np.testing.assert_array_equal(bin_spikes(trains, 0.1), expected)


def test_integers_cannot_hold_unknown_bins():
    with pytest.raises(ValueError, match=r"10 bins of neuron 0 do not lie within .* uint8 cannot"):
        bin_spikes(late_group(), 0.1, dtype=np.uint8)
    with pytest.raises(ValueError, match=r"dtype=np\.float32, or choose only times"):
        align_to_events(late_group(), [100.0], (-0.2, 0.2), 0.1, dtype=np.int64)
    assert bin_spikes(late_group(), 0.1, dtype=np.float64).dtype == np.float64
    assert bin_spikes(late_group(), 0.1, stop=101, dtype=np.uint16).dtype == np.uint16


@given(
    edges=st.lists(st.integers(0, 200), min_size=2, max_size=8, unique=True),
    start=st.integers(0, 100),
    width=st.integers(1, 30),
)
def test_bins_are_known_where_every_part_of_them_was_recorded(edges, start, width):
    neo = pytest.importorskip("neo")
    edges = sorted(edges)[: len(edges) // 2 * 2]
    trains = [
        neo.SpikeTrain([], units="s", t_start=low / 100, t_stop=high / 100)
        for low, high in zip(edges[::2], edges[1::2], strict=True)
    ]
    counts = bin_spikes([*trains, []], width / 100, start=start / 100, stop=(start + 100) / 100)
    opens = start + width * np.arange(len(counts))
    for neuron, (low, high) in enumerate(zip(edges[::2], edges[1::2], strict=True)):
        known = (opens >= low) & (opens + width <= high)
        np.testing.assert_array_equal(~np.isnan(counts[:, neuron]), known)
    assert not counts[:, -1].any()


# -- wrong clocks ----------


def test_wrong_clocks_are_noticed_in_every_function():
    random = np.random.default_rng(0)
    trains = [np.sort(random.uniform(0, 40, size=400)) for _ in range(3)]
    in_ms = [1000 * train for train in trains]
    starts = 2.0 * np.arange(20)
    with pytest.warns(UserWarning, match="trials may be on different clocks") as record:
        bin_trials(in_ms, starts, starts + 1, 0.02)
    assert record[0].filename == __file__
    with pytest.warns(UserWarning, match="trials from 0 to 39,000 s") as record:
        bin_trials(trains, 1000 * starts, 1000 * (starts + 1), 0.02)
    with pytest.warns(UserWarning, match="spike_times and events") as record:
        align_to_events(in_ms, starts + 1, (-0.5, 0.5), 0.02)
    assert record[0].filename == __file__
    with pytest.warns(UserWarning, match="events from 999.5 to 3,000 s"):
        align_to_events(trains, [1000, 3000], (-0.5, 0.5), 0.02)
    with pytest.warns(UserWarning, match="spike_times and the bins") as record:
        bin_spikes(in_ms, 0.02)
    assert record[0].filename == __file__


def test_epochs_before_the_recording_are_noticed():
    with pytest.warns(UserWarning, match=r"from 100 to 103 s.*2 of 2 lie outside of the recorded"):
        counts = align_to_events(late_group(), [1.0, 2.0], (0, 0.2), 0.1)
    assert np.isnan(counts).all()


def test_absurd_sizes_are_refused_before_memory_is_taken():
    nap = pytest.importorskip("pynapple")
    week = nap.Ts(np.array([1.0, 3.0]), time_support=nap.IntervalSet(0, 3_600_000))
    with pytest.raises(ValueError, match=r"from 0 s to stop=3\.6e\+06 s, more than a week"):
        bin_spikes(week, 0.1)
    with pytest.raises(ValueError, match="36,000,000,000 bins and 2 neurons would need 67 GiB"):
        bin_spikes(TRAINS, 1e-6, stop=36_000)
    with pytest.raises(ValueError, match="the longest trial lasts 3,600 s"):
        bin_trials(TRAINS, [0, 1], [3600, 2], 1e-7)


# -- errors for bad times ----------


@pytest.mark.parametrize(
    ("times", "error", "message"),
    [
        ([[0.1], [0.3, 0.2]], ValueError, r"spike_times\[1\] is not in order .* index 1\. Sort"),
        ({"u7": [0.3, 0.2]}, ValueError, r"spike_times\['u7'\] is not in order"),
        ([[0.1, np.nan]], ValueError, r"spike_times\[0\] is NaN or infinite 1 times"),
        ([[-0.1, 0.2]], ValueError, r"negative times, the lowest is -0.1 s.* start="),
        ([[1.0, 3e6]], ValueError, "more than a week"),
        ([], ValueError, "is empty"),
        (np.array([0.1, 0.2]), TypeError, r"for a single neuron \[times\]"),
        (np.ones((3, 4)), TypeError, "padded with NaN"),
        ([0.1, 0.2], TypeError, r"spike_times\[0\] is a single number"),
        ([["a"]], TypeError, r"spike_times\[0\] holds no numbers"),
        ([np.ones((2, 2))], TypeError, r"shape \(2, 2\)"),
        (5.0, TypeError, "spike_times is a float"),
        ("times.npy", TypeError, "spike_times is a str"),
    ],
)
def test_bad_times_are_refused(times, error, message):
    with pytest.raises(error, match=message):
        bin_spikes(times, 0.1)


def test_more_spikes_than_the_dtype_holds_are_refused():
    train = np.linspace(0, 0.09, 300)
    with pytest.raises(ValueError, match="300 spikes, more than uint8"):
        bin_spikes([train], 0.1)
    with pytest.raises(ValueError, match="300 spikes, more than uint8"):
        align_to_events([train], [0.0], (0, 0.1), 0.1)
    assert bin_spikes([train], 0.1, dtype=np.uint16)[0, 0] == 300
    assert align_to_events([train], [0.0], (0, 0.1), 0.1, dtype=np.float32)[0, 0, 0] == 300


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: bin_spikes(TRAINS, 0), ValueError, "bin_width must be finite, above 0"),
        (lambda: bin_spikes(TRAINS, "5 ms"), TypeError, "bin_width must be a number"),
        (lambda: bin_spikes(TRAINS, 0.1, stop=0.05), ValueError, "No bin of 0.1 s fits"),
        (lambda: bin_spikes(TRAINS, 0.1, start=2), ValueError, "No bin of 0.1 s fits"),
        (lambda: align_to_events(TRAINS, [0.1, np.nan], (0, 0.1), 0.1), ValueError, "in 1 of 2"),
        (lambda: align_to_events(TRAINS, [], (0, 0.1), 0.1), ValueError, "at least one trial"),
        (lambda: align_to_events(TRAINS, 0.1, (0, 0.1), 0.1), ValueError, "one time per trial"),
        (lambda: align_to_events(TRAINS, [0.1], (0, 0.15), 0.1), ValueError, "not a whole number"),
        (lambda: align_to_events(TRAINS, [0.1], (0.1, 0), 0.1), ValueError, "above 0.1"),
        (lambda: align_to_events(TRAINS, [0.1], 0.1, 0.1), TypeError, "begin, end"),
        (lambda: bin_trials(TRAINS, [0, 1], [1], 0.1), ValueError, "2 starts and 1 stops"),
        (lambda: bin_trials(TRAINS, [0, 1], bin_width=0.1), TypeError, "stops is missing"),
        (lambda: bin_trials(TRAINS, [[0, 1]], 0.1), TypeError, "pass it by name: bin_width="),
        (lambda: bin_trials(TRAINS, [0, 1], [1, 0], 0.1), ValueError, "Trial 1 stops at 0 s"),
        (lambda: bin_trials(TRAINS, [0, 1], [1, 1.05], 0.1), ValueError, "Trial 1 lasts 0.05 s"),
    ],
)
def test_bad_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_windows_in_milliseconds_are_noticed():
    times = [np.arange(0, 700, 0.05)]
    events = 5.0 + 2 * np.arange(20)
    with pytest.warns(UserWarning, match=r"lasts 600 s, but events are 2 s apart") as record:
        align_to_events(times, events, (-2, 598), 0.02)
    assert record[0].filename == __file__
    align_to_events(times, events, (-0.2, 0.4), 0.02)  # no warning
    align_to_events(times, events[:1], (0, 90), 0.02)


@pytest.mark.parametrize("shape", [(-1, 1), (1, -1)])
def test_vectors_of_matlab_are_times(shape):
    times, starts = [np.arange(0, 10, 0.05)], np.arange(1.0, 5.0)
    expected = align_to_events(times, starts, (0, 0.5), 0.1)
    np.testing.assert_array_equal(
        align_to_events(times, starts.reshape(shape), (0, 0.5), 0.1), expected
    )
    stops = (starts + 0.5).reshape(shape)
    np.testing.assert_array_equal(bin_trials(times, starts.reshape(shape), stops, 0.1), expected)
    with pytest.raises(ValueError, match=r"events has shape \(2, 2\); pass one time per trial"):
        align_to_events(times, starts.reshape(2, 2), (0, 0.5), 0.1)
