"""Segments, the windows that are cut from them, and what a batch of windows holds."""

from itertools import groupby

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_segments import lengths_of_segments, numbered, segments_of

from sklearn_stndt.windows.cutting import Windows, cut, half_overlap
from sklearn_stndt.windows.segments import (
    as_segments,
    before_forecast,
    before_hidden,
    shows_anything,
)

# ---- segments


def test_each_trial_is_a_segment():
    X = numbered(24).reshape(4, 6, 2)
    segments = as_segments(X)
    assert segments.starts.tolist() == [0, 6, 12, 18]
    assert segments.stops.tolist() == [6, 12, 18, 24]
    assert np.array_equal(segments.rows, X.reshape(24, 2))
    assert (segments.n_bins, segments.longest) == (24, 6)


def test_a_recording_is_one_segment():
    segments = as_segments(numbered(9))
    assert (segments.starts.tolist(), segments.stops.tolist()) == ([0], [9])


@settings(deadline=None, max_examples=30)
@given(groups=st.lists(st.sampled_from([1, 2, 7]), min_size=1, max_size=20))
@pytest.mark.parametrize("dtype", [int, float, str, object])
def test_a_segment_is_an_unbroken_run_of_one_group(groups, dtype):
    segments = as_segments(numbered(len(groups)), np.array(groups, dtype=dtype))
    runs = [len(list(run)) for _, run in groupby(groups)]
    assert segments.starts[0] == 0
    assert np.array_equal(segments.starts[1:], segments.stops[:-1])
    assert (segments.stops - segments.starts).tolist() == runs
    assert (segments.n_bins, segments.longest) == (len(groups), max(runs))


@pytest.mark.parametrize("shape", [(9, 2), (3, 3, 2)])
def test_rows_are_not_copied(shape):
    X = np.zeros(shape)
    assert np.shares_memory(as_segments(X).rows, X)


@settings(deadline=None, max_examples=60)
@given(
    trials=st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), min_size=1, max_size=5),
    window=st.integers(1, 12),
)
def test_padding_is_left_out_of_segments_longer_than_a_window(trials, window):
    lengths = [max(n_visible + n_padding, 1) for n_visible, n_padding in trials]
    segments = segments_of(lengths)
    expected = segments.stops.copy()
    for i, (n_visible, _) in enumerate(trials):
        start, stop = segments.starts[i], segments.stops[i]
        segments.rows[start + n_visible : stop] = np.nan
        if n_visible:
            segments.rows[start, 0] = np.nan  # hidden in part
            segments.rows[start + 1 : start + n_visible - 1] = np.nan  # a gap is not padding
            if lengths[i] > window:
                expected[i] = start + n_visible
    visible = segments.without_padding(window)
    assert visible.rows is segments.rows
    assert np.array_equal(visible.starts, segments.starts)
    assert np.array_equal(visible.stops, expected)


def test_a_segment_of_one_window_keeps_its_padding():
    segments = segments_of([4, 5])
    segments.rows[[3, 8]] = np.nan
    assert segments.without_padding(4).stops.tolist() == [4, 8]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_whole_numbers_have_no_padding(dtype):
    segments = as_segments(np.zeros((30, 2), dtype=dtype))
    assert segments.without_padding(4).stops.tolist() == [30]


@pytest.mark.parametrize("leading", [(), (2,)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8])
def test_the_last_bins_stand_before_the_hidden_ones_of_a_window(leading, dtype):
    X = np.arange(1, 9).reshape(4, 2) * np.ones((*leading, 1, 1))
    X = X.astype(dtype)
    window = before_forecast(X, window=5, n_tail=2)  # the last 3 of 4 bins, and 2 hidden ones
    assert window.dtype == (np.float64 if dtype == np.uint8 else dtype)
    expected = np.array([[3, 4], [5, 6], [7, 8], [np.nan] * 2, [np.nan] * 2])
    np.testing.assert_array_equal(window, np.broadcast_to(expected, (*leading, 5, 2)))
    padded = before_forecast(X, window=7, n_tail=1)  # 4 bins where 6 are visible
    expected = np.array([*[[np.nan] * 2] * 2, [1, 2], [3, 4], [5, 6], [7, 8], [np.nan] * 2])
    np.testing.assert_array_equal(padded, np.broadcast_to(expected, (*leading, 7, 2)))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8])
def test_hidden_bins_follow_the_last_bin(dtype):
    X = np.arange(1, 5).reshape(1, 2, 2).astype(dtype)
    longer = before_hidden(X, 3)
    assert longer.dtype == (np.float64 if dtype == np.uint8 else dtype)
    np.testing.assert_array_equal(longer[0], [[1, 2], [3, 4], *[[np.nan] * 2] * 3])
    np.testing.assert_array_equal(before_hidden(X[0], 3), longer[0])


def test_hidden_bins_are_added_to_spikes_that_are_true_or_false():
    X = np.array([[True, False]])
    for longer in (before_hidden(X, 1), before_forecast(X, window=2, n_tail=1)):
        np.testing.assert_array_equal(longer, [[1, 0], [np.nan] * 2])


def test_rows_show_something_unless_all_are_nan():
    rows = np.full((3, 2), np.nan)
    assert not shows_anything(rows)
    rows[1, 1] = 0
    assert shows_anything(rows)
    for dtype in (np.uint8, bool):
        assert shows_anything(np.zeros((3, 2), dtype=dtype))
    assert not shows_anything(np.full((3, 2), np.nan, dtype=np.float16))


# ---- windows


@settings(deadline=None, max_examples=60)
@given(lengths=lengths_of_segments, window=st.integers(1, 12), stride=st.integers(1, 12))
def test_windows_lie_within_segments_and_cover_them(lengths, window, stride):
    segments = segments_of(lengths)
    windows = cut(segments, window, min(stride, window))
    for start, stop in zip(segments.starts, segments.stops, strict=True):
        inside = (windows.starts >= start) & (windows.starts < stop)
        starts, n_bins = windows.starts[inside], windows.lengths[inside]
        # a window is padded only if its segment is shorter
        assert (n_bins == min(window, stop - start)).all()
        assert (starts + n_bins <= stop).all()
        assert (starts[0], starts[-1] + n_bins[-1]) == (start, stop)
        assert ((np.diff(starts) > 0) & (np.diff(starts) <= min(stride, window))).all()


def test_the_last_window_is_moved_back_to_the_end_of_its_segment():
    windows = cut(segments_of([25, 4, 10]), window=10, stride=5)
    assert windows.starts.tolist() == [0, 5, 10, 15, 25, 29]
    assert windows.lengths.tolist() == [10, 10, 10, 10, 4, 10]
    windows = cut(segments_of([23]), window=10, stride=5)
    assert windows.starts.tolist() == [0, 5, 10, 13]


def test_the_last_window_of_each_segment_is_marked():
    windows = cut(segments_of([25, 4, 10]), window=10, stride=5)
    assert windows.final.tolist() == [False, False, False, True, True, True]
    rows = numbered(20)
    assert Windows(rows, [0, 5], [10, 10], 10).final.tolist() == [True, True]
    chosen = Windows(rows, [0, 5], [10, 10], 10, final=[False, True])
    assert chosen.final.tolist() == [False, True]


@pytest.mark.parametrize(
    ("args", "stride"), [((10,), 5), ((11,), 5), ((10, 4), 3), ((3,), 1), ((1,), 1), ((4, 4), 1)]
)
def test_windows_overlap_by_half_of_their_visible_bins(args, stride):
    found = half_overlap(*args)
    assert found == stride
    assert isinstance(found, int)


def test_a_window_contains_its_rows_followed_by_padding():
    segments = segments_of([25, 4])
    windows = cut(segments, window=10, stride=10)
    assert len(windows) == 4
    batch, nothing = windows.__getitems__([2, 3, 0])
    assert batch.dtype == torch.float32
    assert nothing.numel() == 0
    assert np.array_equal(batch[0], segments.rows[15:25])
    assert np.array_equal(batch[1, :4], segments.rows[25:])
    assert batch[1, 4:].isnan().all()
    assert np.array_equal(batch[2], segments.rows[:10])
    single, _ = windows[3]
    assert torch.equal(single[:4], batch[1, :4])
    assert single.shape == (10, 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, bool, np.float16, np.float64])
def test_counts_of_every_dtype_become_float32(dtype):
    rows = np.array([[0, 1], [1, 1], [1, 0]]).astype(dtype)
    if dtype == np.uint8:
        rows[0, 0] = 255
    batch, _ = Windows(rows, [0, 1], [3, 2], window=4).__getitems__([0, 1])
    assert batch.dtype == torch.float32
    assert np.array_equal(batch[0, :3], rows.astype(np.float32))
    assert np.array_equal(batch[1, :2], rows[1:].astype(np.float32))
    assert batch[0, 3:].isnan().all()
    assert batch[1, 2:].isnan().all()


def test_missing_counts_stay_missing():
    rows = numbered(4)
    rows[2, 1] = np.nan
    batch, _ = Windows(rows, [0], [4], window=4).__getitems__([0])
    assert np.array_equal(batch[0], rows, equal_nan=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_batch_shares_no_memory_with_the_data(dtype):
    rows = numbered(7, dtype=dtype)
    windows = Windows(rows, [0, 4], [5, 3], window=5)
    windows.__getitems__([0, 1])[0].fill_(-1)
    windows[1][0].fill_(-1)
    assert np.array_equal(rows, numbered(7))


class Watched(np.ndarray):
    """Records which rows are read."""

    def __getitem__(self, index):
        read = np.unique(np.arange(len(self))[index])
        self.reads.append(read)
        return np.asarray(self)[index]


def watched(rows):
    rows = rows.view(Watched)
    rows.reads = []
    return rows


def test_rows_are_read_window_by_window():
    rows = watched(numbered(10_000))
    windows = cut(as_segments(rows), window=10, stride=5)
    assert sum(len(read) for read in rows.reads) == 0
    windows.__getitems__([7, 1000])
    (read,) = rows.reads
    assert read.tolist() == [*range(35, 45), *range(5000, 5010)]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_memory_map_gives_the_windows_of_the_array(tmp_path, dtype):
    rows = numbered(50, dtype=dtype)
    rows.tofile(tmp_path / "counts")
    mapped = np.memmap(tmp_path / "counts", dtype=dtype, mode="r", shape=rows.shape)
    groups = np.repeat([0, 1], [43, 7])
    in_memory = cut(as_segments(rows, groups), 10, 5)
    on_disk = cut(as_segments(mapped, groups), 10, 5)
    indices = range(len(in_memory))
    expected, _ = in_memory.__getitems__(indices)
    batch, _ = on_disk.__getitems__(indices)
    assert torch.equal(batch.nan_to_num(-1), expected.nan_to_num(-1))
