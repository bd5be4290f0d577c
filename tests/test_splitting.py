"""Blocks of windows that are set aside for validation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_segments import lengths_of_segments, segments_of

from sklearn_stndt.training.splitting import split
from sklearn_stndt.windows.cutting import cut


def rows_of(segments):
    return np.concatenate(
        [np.arange(*pair) for pair in zip(segments.starts, segments.stops, strict=True)]
    )


@settings(deadline=None, max_examples=100)
@given(
    lengths=lengths_of_segments,
    window=st.integers(1, 12),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 100),
)
def test_split_sets_aside_blocks_of_whole_windows(lengths, window, fraction, seed):
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
