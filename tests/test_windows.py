from itertools import groupby

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_stndt.inference.stitching import Stitcher
from sklearn_stndt.training.splitting import split
from sklearn_stndt.windows.cutting import Windows, cut
from sklearn_stndt.windows.segments import Segments, as_segments


def numbered(n_rows, n_neurons=2, dtype=np.float32):
    """Rows that all differ, so that it shows where each of them went."""
    return np.arange(n_rows * n_neurons).reshape(n_rows, n_neurons).astype(dtype)


def segments_of(lengths, n_neurons=2):
    stops = np.cumsum(lengths)
    return Segments(numbered(stops[-1], n_neurons), stops - lengths, stops)


def rows_of(segments):
    return np.concatenate(
        [np.arange(*pair) for pair in zip(segments.starts, segments.stops, strict=True)]
    )


lengths_of_segments = st.lists(st.integers(1, 30), min_size=1, max_size=6)

# ---------------------------------------------------------------------- segments


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
            segments.rows[start + 1 : start + n_visible - 1] = np.nan  # a gap is no padding
            if lengths[i] > window:
                expected[i] = start + n_visible
    visible = segments.without_padding(window)
    assert visible.rows is segments.rows
    assert np.array_equal(visible.starts, segments.starts)
    assert np.array_equal(visible.stops, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_whole_numbers_have_no_padding(dtype):
    segments = as_segments(np.zeros((30, 2), dtype=dtype))
    assert segments.without_padding(4).stops.tolist() == [30]


# ---------------------------------------------------------------------- windows


@settings(deadline=None, max_examples=60)
@given(lengths=lengths_of_segments, window=st.integers(1, 12), stride=st.integers(1, 12))
def test_windows_lie_within_segments_and_cover_them(lengths, window, stride):
    segments = segments_of(lengths)
    windows = cut(segments, window, min(stride, window))
    for start, stop in zip(segments.starts, segments.stops, strict=True):
        inside = (windows.starts >= start) & (windows.starts < stop)
        starts, n_bins = windows.starts[inside], windows.lengths[inside]
        # nothing is padded where the segment has bins to fill the window
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


def test_a_window_holds_its_rows_and_then_padding():
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
    """Remembers which rows were read."""

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
    stitcher = Stitcher(on_disk)
    stitcher.add(indices, batch.numpy())
    np.testing.assert_allclose(stitcher.result(), rows, rtol=1e-6)


# ---------------------------------------------------------------------- split


@settings(deadline=None, max_examples=100)
@given(
    lengths=lengths_of_segments,
    window=st.integers(1, 12),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 100),
)
def test_split_sets_blocks_of_whole_windows_aside(lengths, window, fraction, seed):
    segments = segments_of(lengths)
    blocks = [max(length // window, 1) for length in lengths]
    parts = split(segments, window, fraction, np.random.RandomState(seed))
    if sum(blocks) < 2:
        assert parts is None
        return
    training, validation = parts
    training_rows, validation_rows = rows_of(training), rows_of(validation)
    together = np.concatenate([training_rows, validation_rows])
    assert np.array_equal(np.sort(together), np.arange(len(segments.rows)))
    n_blocks = [
        sum(max((stop - start) // window, 1) for start, stop in zip(p.starts, p.stops, strict=True))
        for p in parts
    ]
    assert sum(n_blocks) == sum(blocks)
    assert n_blocks[1] == min(max(round(fraction * sum(blocks)), 1), sum(blocks) - 1)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    shortest = np.minimum(lengths, window)
    for part in parts:
        for start, stop in zip(part.starts, part.stops, strict=True):
            assert owner[start] == owner[stop - 1]
            assert stop - start >= shortest[owner[start]]
        # neighbouring blocks of a segment were joined
        touching = part.starts[1:] == part.stops[:-1]
        assert (owner[part.starts[1:]] != owner[part.stops[:-1] - 1])[touching].all()
    seen_in_training = cut(training, window, max(window // 2, 1))
    for start, length in zip(seen_in_training.starts, seen_in_training.lengths, strict=True):
        assert not np.isin(np.arange(start, start + length), validation_rows).any()


@pytest.mark.parametrize("lengths", [[1], [7], [19]])
def test_less_than_two_windows_are_not_split(lengths):
    assert split(segments_of(lengths), 10, 0.5, np.random.RandomState(0)) is None


def test_the_random_state_decides_the_split():
    segments = segments_of([200])

    def validation_starts(seed):
        return split(segments, 10, 0.2, np.random.RandomState(seed))[1].starts.tolist()

    assert validation_starts(0) == validation_starts(0)
    assert len({tuple(validation_starts(seed)) for seed in range(10)}) > 5


# ---------------------------------------------------------------------- stitching


@settings(deadline=None, max_examples=100)
@given(lengths=lengths_of_segments, window=st.integers(1, 13), data=st.data())
def test_cut_and_stitched_is_the_same_again(lengths, window, data):
    hidden_tail = data.draw(st.integers(0, window - 1))
    segments = segments_of(lengths)
    windows = cut(segments, window, max((window - hidden_tail) // 2, 1))
    stitcher = Stitcher(windows, hidden_tail=hidden_tail)
    for indices in np.array_split(range(len(windows)), data.draw(st.integers(1, 4))):
        if len(indices):
            batch, _ = windows.__getitems__(indices)
            # what the network says of padding is nobody's rate
            stitcher.add(indices, np.nan_to_num(batch.numpy(), nan=1e9))
    np.testing.assert_allclose(stitcher.result(), segments.rows, rtol=1e-5)


def rates_with_offsets(windows, window):
    """A smooth course, and in every other window an offset of 1 to it."""
    offsets = np.arange(len(windows)) % 2
    course = np.sin(0.05 * (windows.starts[:, None] + np.arange(window)))
    return (course + offsets[:, None])[..., None]


def largest_jump(rates):
    return np.abs(np.diff(rates[:, 0])).max()


SEAMS = pytest.mark.parametrize(
    ("n_bins", "window"), [(100, 20), (95, 20), (101, 21), (64, 32), (150, 50)]
)


@SEAMS
def test_no_seam_shows_where_windows_overlap(n_bins, window):
    windows = cut(as_segments(numbered(n_bins, 1)), window, window // 2)
    rates = rates_with_offsets(windows, window)
    stitcher = Stitcher(windows)
    stitcher.add(range(len(windows)), rates)
    naive = np.zeros((n_bins, 1))
    for start, window_rates in zip(windows.starts, rates, strict=True):
        naive[start : start + window] = window_rates
    assert largest_jump(naive) > 0.9
    # a cross-fade over half a window, and the course's own 0.05 a bin
    assert largest_jump(stitcher.result()) < 2.2 / window + 0.06


# where the tail is longer than half of what is shown, the last windows' tails overlap
@pytest.mark.parametrize(
    ("n_bins", "window", "hidden_tail"), [(100, 20, 4), (100, 20, 10), (90, 30, 20)]
)
def test_no_seam_shows_beside_hidden_tails(n_bins, window, hidden_tail):
    shown = window - hidden_tail
    windows = cut(as_segments(numbered(n_bins, 1)), window, shown // 2)
    stitcher = Stitcher(windows, hidden_tail=hidden_tail)
    stitcher.add(range(len(windows)), rates_with_offsets(windows, window))
    assert largest_jump(stitcher.result()) < 2.2 / shown + 0.06


def test_a_hidden_tail_gives_way_to_windows_that_saw_the_bins():
    window, hidden_tail, n_bins = 20, 4, 100
    windows = cut(as_segments(numbered(n_bins, 1)), window, 8)
    rates = np.ones((len(windows), window, 1))
    rates[:, -hidden_tail:] = 100
    stitcher = Stitcher(windows, hidden_tail=hidden_tail)
    stitcher.add(range(len(windows)), rates)
    stitched = stitcher.result()[:, 0]
    np.testing.assert_allclose(stitched[:-hidden_tail], 1, rtol=1e-3)
    np.testing.assert_allclose(stitched[-hidden_tail:], 100, rtol=1e-6)


def test_without_windows_there_are_no_rates():
    segments = Segments(numbered(10), np.array([2]), np.array([8]))
    windows = cut(segments, 4, 2)
    stitcher = Stitcher(windows)
    stitcher.add(range(len(windows)), windows.__getitems__(range(len(windows)))[0].numpy())
    stitched = stitcher.result()
    np.testing.assert_allclose(stitched[2:8], segments.rows[2:8], rtol=1e-6)
    assert not stitched[:2].any()
    assert not stitched[8:].any()


def test_a_bin_counts_most_in_the_window_in_whose_middle_it_lies():
    windows = cut(as_segments(numbered(30, 1)), 20, 10)
    stitcher = Stitcher(windows)
    stitcher.add([0, 1], np.stack([np.zeros((20, 1)), np.ones((20, 1))]))
    # weights 10 ... 1 of the first window against 1 ... 10 of the second
    expected = np.arange(1, 11) / 11
    np.testing.assert_allclose(stitcher.result()[10:20, 0], expected, rtol=1e-6)
