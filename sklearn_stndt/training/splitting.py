"""Split of segments into training and validation."""

import numpy as np
from numpy.typing import NDArray

from sklearn_stndt.windows.segments import Segments, shows_anything

MOST_VALIDATION_WINDOWS = 2048  # enough for a score; more would slow down every epoch


def split(
    segments: Segments, window: int, validation_fraction: float, random_state: np.random.RandomState
) -> tuple[Segments, Segments] | None:
    """Set blocks of whole windows aside for validation.

    Segments longer than a window are first cut into blocks of a window's length, so that a
    continuous recording can be split too. Adjacent blocks of a segment in the same part are joined
    again.

    Parameters
    ----------
    segments : Segments
        Segments to split.
    window : int
        Bins of a window.
    validation_fraction : float
        Share of the blocks to set aside, at least one block and at most `MOST_VALIDATION_WINDOWS`.
    random_state : RandomState
        Draws the blocks.

    Returns
    -------
    (training, validation) : pair of Segments, or None
        None if there are fewer than two blocks, or none with a known count.
    """
    starts, stops, owners = [], [], []
    for owner, (start, stop) in enumerate(zip(segments.starts, segments.stops, strict=True)):
        n_blocks = max((stop - start) // window, 1)
        edges = start + window * np.arange(n_blocks + 1)
        edges[-1] = stop  # leftover bins at the end go to the last block
        starts.append(edges[:-1])
        stops.append(edges[1:])
        owners.append(np.full(n_blocks, owner))
    start, stop, owner = np.concatenate(starts), np.concatenate(stops), np.concatenate(owners)
    n_blocks = len(start)
    if n_blocks < 2:
        return None
    n_validation = min(max(round(validation_fraction * n_blocks), 1), n_blocks - 1)
    n_validation = min(n_validation, MOST_VALIDATION_WINDOWS)
    validating = np.zeros(n_blocks, dtype=bool)
    for block in random_state.permutation(n_blocks):
        # a gap in the recording has nothing to score
        validating[block] = shows_anything(segments.rows[start[block] : stop[block]])
        if validating.sum() == n_validation:
            break
    if not validating.any() or validating.all():
        return None

    def joined(chosen: NDArray) -> Segments:
        index = np.flatnonzero(chosen)
        breaks = (np.diff(index) != 1) | (np.diff(owner[index]) != 0)
        first = index[np.append(True, breaks)]
        last = index[np.append(breaks, True)]
        return Segments(segments.rows, start[first], stop[last])

    return joined(~validating), joined(validating)
