"""Binning of spike times: exact edges, every container, and errors for bad times."""

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
    # the edge before each spike, plus the rest
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


def test_every_edge_of_an_hour_opens_its_bin():
    n_bins = 720_000
    for edges in (
        np.arange(n_bins) * 0.005,
        np.arange(n_bins) / 200,
        np.linspace(0, 3600, n_bins, False),
    ):
        counts = bin_spikes([edges], 0.005, stop=3600)
        assert counts.shape == (n_bins, 1)
        assert (counts == 1).all()


def test_a_spike_just_before_an_edge_stays_before_it():
    edge = 1000 * 0.005
    for early in (edge - 1e-9, edge - 1e-12):
        counts = bin_spikes([[early]], 0.005, stop=5.01)
        assert counts[999, 0] == 1


def test_clocks_that_start_in_1970_are_binned():
    start = 1_790_000_000.0
    train = start + np.arange(1000) * 0.005
    counts = bin_spikes([train], 0.005, start=start, stop=start + 5)
    assert (counts == 1).all()


def test_start_and_stop_leave_out_what_is_outside():
    train = [-0.5, 0.1, 0.25, 0.9, 1.7]
    assert bin_spikes([train], 0.5, start=-1, stop=1).ravel().tolist() == [0, 1, 2, 1]
    assert bin_spikes([train], 0.5, start=0.2, stop=1.3).ravel().tolist() == [1, 1]
    assert bin_spikes([train], 0.5, start=-0.5).ravel().tolist() == [1, 2, 1, 0, 1]


def test_silent_neurons_have_a_column():
    counts = bin_spikes([[], [0.1], []], 0.1, stop=0.3)
    assert counts.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert bin_spikes([[]], 0.1, stop=0.2).tolist() == [[0], [0]]


# -- containers ----------

TRAINS = [[0.1, 0.25, 0.3], [0.7, 0.8]]


def test_lists_dictionaries_and_cell_arrays_are_the_same():
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


def test_pynapple_groups_bring_their_end():
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


def test_neo_spike_trains_bring_their_unit_and_end():
    neo = pytest.importorskip("neo")
    trains = [neo.SpikeTrain(np.multiply(t, 1000), units="ms", t_stop=1200) for t in TRAINS]
    np.testing.assert_array_equal(bin_spikes(trains, 0.1), bin_spikes(TRAINS, 0.1, stop=1.2))
    segment = neo.Segment()
    segment.spiketrains.extend(trains)
    np.testing.assert_array_equal(bin_spikes(segment.spiketrains, 0.1), bin_spikes(trains, 0.1))


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
        ([["a"]], TypeError, "holds no numbers"),
        ([np.ones((2, 2))], TypeError, r"shape \(2, 2\)"),
        (5.0, TypeError, "spike_times is a float"),
        ("times.npy", TypeError, "spike_times is a str"),
    ],
)
def test_bad_times_are_named(times, error, message):
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
        (lambda: bin_trials(TRAINS, [0, 1], [1, 1.05], 0.1), ValueError, "Trial 1 lasts 0.05 s"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
