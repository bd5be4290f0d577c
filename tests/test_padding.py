"""Trials of unequal length become one array."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sklearn_stndt.datasets import pad_trials


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64, float])
def test_trials_keep_their_values_and_end_in_nan(dtype):
    trials = [np.arange(2 * n).reshape(n, 2).astype(dtype) for n in (3, 1, 2)]
    padded = pad_trials(trials)
    assert padded.shape == (3, 3, 2)
    assert padded.dtype == (np.float32 if dtype in (np.uint8, np.float32) else np.float64)
    for row, trial in zip(padded, trials, strict=True):
        assert_array_equal(row[: len(trial)], trial)
        assert np.isnan(row[len(trial) :]).all()


def test_a_single_channel_needs_no_axis():
    assert_array_equal(pad_trials([[1.0], [2.0, 3.0]]), [[1, np.nan], [2, 3]])


def test_trials_of_an_object_array_are_padded(small, spikes):
    trials = np.empty(24, dtype=object)
    for i, trial in enumerate(spikes):
        trials[i] = trial[: 15 + i % 6]
    with pytest.raises(ValueError, match="pad_trials"):
        small().fit(trials)
    rates = small(max_epochs=1).fit(pad_trials(trials)).transform(pad_trials(trials))
    assert rates.shape == spikes.shape


@pytest.mark.parametrize(
    ("trials", "error", "message"),
    [
        ([], ValueError, "trials is empty"),
        (3, TypeError, "trials is a int; pass a list"),
        ("ab", TypeError, "trials is a str"),
        ([np.ones((2, 3)), np.ones((2, 4))], ValueError, r"trials\[1\] \(2, 4\).*trial\.T for"),
        ([np.ones((2, 3)), np.ones((0, 3))], ValueError, r"trials\[1\] has shape \(0, 3\)"),
        ([np.ones((2, 3, 4))], ValueError, r"expected \(n_bins, n_channels\)"),
        ([["a"]], ValueError, r"trials\[0\].*counts or behaviour"),
    ],
)
def test_what_cannot_be_padded_is_refused(trials, error, message):
    with pytest.raises(error, match=message):
        pad_trials(trials)
