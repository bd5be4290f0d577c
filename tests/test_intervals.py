"""Observed and invalid times: which bins are known."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sklearn_stndt.datasets import load_nlb, load_nwb
from sklearn_stndt.datasets._intervals import bins_within, merge_intervals, subtract_intervals

pynwb = pytest.importorskip("pynwb")
INF = np.inf
OBSERVED = {
    "nested": [[0, 40], [2, 3]],
    "nested, unordered": [[2, 3], [0, 40]],
    "overlapping": [[0, 25], [20, 40]],
    "overlapping, unordered": [[20, 40], [0, 25]],
    "touching off the grid": [[0, 10.0073], [10.0073, 40]],
    "touching, unordered": [[10.0073, 40], [0, 10.0073]],
    "nested and touching": [[0, 20.003], [5, 6], [20.003, 40]],
    "microseconds apart": [[0, 10.0073], [10.0073005, 40]],
    "twice": [[0, 40], [0, 40]],
    "an empty one": [[0, 40], [7.003, 7.003]],
    "an open stop": [[0, INF]],
    "an open start": [[-INF, 40]],
    "both open": [[-INF, INF]],
    "an open stop, nested": [[0, INF], [3, 4]],
    "before the recording": [[-10, -5], [0, 40]],
}


@pytest.fixture
def load(tmp_path):
    """Write a session of 40 s, one unit for each list of intervals, and bin it."""

    def load(observed=None, *, invalid=(), bin_width=0.02, trials=False, **params):
        file = pynwb.NWBFile("a session", "an id", datetime(2026, 1, 1, tzinfo=UTC))
        times = np.linspace(0.001, 39.999, 500)
        for intervals in [None] if observed is None else observed:
            known = {} if intervals is None else {"obs_intervals": np.array(intervals, float)}
            file.add_unit(spike_times=times, **known)
        for start, stop in invalid:
            file.add_invalid_time_interval(start_time=float(start), stop_time=float(stop))
        for start in range(0, 40, 2):
            file.add_trial(start_time=float(start), stop_time=start + 2.0)
        path = tmp_path / "session.nwb"
        with pynwb.NWBHDF5IO(path, "w") as io:
            io.write(file)
        return load_nwb(path, bin_width=bin_width, trials=trials, **params)

    return load


@pytest.mark.parametrize("intervals", OBSERVED.values(), ids=OBSERVED)
@pytest.mark.parametrize("trials", [True, False])
def test_a_bin_in_the_union_of_the_intervals_is_observed(load, intervals, trials):
    data = load([intervals], trials=trials)
    n_bins = data.spikes.shape[-2] * (20 if trials else 1)
    assert n_bins == pytest.approx(2000, abs=1)
    assert not np.isnan(data.spikes).any()
    assert data.spikes.sum() == pytest.approx(500, abs=1)


def test_each_unit_has_its_own_intervals(load):
    data = load([[[0, 40]], [[20, 30], [0, 10.01]], np.zeros((0, 2)), [[5, INF], [-INF, 1]]])
    time = data.time
    within = (time < 9.999) | ((time > 19.999) & (time < 29.99))
    expected = np.column_stack(
        [time >= 0, within, time < 0, (time < 0.99) | (time > 4.999)]  # 10.00 to 10.02 s is cut
    )
    np.testing.assert_array_equal(~np.isnan(data.spikes), expected)


@pytest.mark.parametrize(
    ("intervals", "message"),
    [
        ([[0, 5], [6, np.nan]], r"obs_intervals: interval 1 is \[6, nan\] s, which has an unknown"),
        ([[np.nan, 5]], r"obs_intervals: interval 0 is \[nan, 5\] s, which has an unknown end"),
        ([[0, 5], [7, 6]], r"obs_intervals: interval 1 is \[7, 6\] s, which stops before it start"),
    ],
)
def test_intervals_without_order_name_file_and_unit(load, intervals, message):
    with pytest.raises(ValueError, match=rf"session\.nwb: units\[1\]\.{message}"):
        load([[[0, 40]], intervals])


@pytest.mark.filterwarnings("ignore:Shape of data")  # from pynwb, which writes the file
def test_intervals_that_are_empty_for_all_units_are_ignored_with_a_warning(load):
    with pytest.warns(UserWarning, match=r"session\.nwb: units\.obs_intervals is empty for all"):
        data = load([np.zeros((0, 2)), np.zeros((0, 2))])
    assert not np.isnan(data.spikes).any()


@pytest.mark.parametrize("trials", [True, False])
def test_counts_in_invalid_times_are_unknown(load, trials):
    invalid = [(30.01, 31), (10, 12.01), (10.5, 11), (20.001, 20.002)]
    data = load([[[0, 40]], [[0, 5], [3, 50]]], invalid=invalid, trials=trials)
    bins = np.arange(2000)
    expected = ((bins >= 500) & (bins < 601)) | ((bins >= 1500) & (bins < 1550)) | (bins == 1000)
    spikes = data.spikes.reshape(-1, 2)[:2000]
    for unit in range(2):
        np.testing.assert_array_equal(np.isnan(spikes[:, unit]), expected[: len(spikes)])


def test_invalid_times_hold_without_observed_intervals(load):
    data = load(invalid=[(-INF, 1), (38.5, INF)])
    assert data.spikes.shape == (2000, 1)  # the recording is as long as without them
    known = (data.time > 0.999) & (data.time < 38.49)
    np.testing.assert_array_equal(~np.isnan(data.spikes[:, 0]), known)


def test_invalid_times_without_an_end_are_named(load):
    with pytest.raises(ValueError, match=r"session\.nwb: invalid_times: interval 0 is \[1, nan\]"):
        load(invalid=[(1, np.nan)])


def test_the_benchmark_reads_open_and_nested_intervals(write_nwb):
    def of_unit(intervals):
        def edit(file):
            file.add_unit(spike_times=[0.3, 0.4], obs_intervals=intervals, heldout=True)

        return load_nlb(write_nwb(edit=edit, observe_all=True), name="mc_maze_20")

    plain, nested = of_unit([[0.0, 28.08]]), of_unit([[-INF, INF], [2.0, 3.0]])
    np.testing.assert_array_equal(plain.X_train, nested.X_train)
    np.testing.assert_allclose(plain.psth, nested.psth)


ENDS = st.one_of(st.integers(-3, 12), st.sampled_from([-INF, INF, 3.3, 7.77]))
CLOSE = st.one_of(ENDS, st.just(3.3000004))  # within the precision of timestamps


@settings(max_examples=300)
@given(
    observed=st.lists(st.tuples(CLOSE, CLOSE).map(sorted), max_size=5),
    invalid=st.lists(st.tuples(ENDS, ENDS).map(sorted), max_size=3),
    bins=arrays(np.intp, st.integers(0, 8), elements=st.integers(-10, 30), unique=True),
)
def test_bins_are_known_where_every_instant_is_observed_and_valid(observed, invalid, bins):
    bins = np.sort(bins)
    intervals = subtract_intervals(merge_intervals(observed, "a"), merge_intervals(invalid, "b"))
    known = bins_within(bins, 0.5, 0.5, intervals)
    for one, is_known in zip(bins, known, strict=True):
        instants = 0.5 * one + np.linspace(0.001, 0.499, 499)
        in_observed = [any(a - 1e-6 <= t <= b + 1e-6 for a, b in observed) for t in instants]
        in_invalid = [any(a < t < b for a, b in invalid) for t in instants]
        assert is_known == (all(in_observed) and not any(in_invalid))
