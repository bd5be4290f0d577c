"""Sampled signals in bins and trials."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_values import ODD_VALUES, examples, outcome

from sklearn_stndt.datasets import align_signals, bin_signal_trials, bin_signals, make_calcium

TIMES = np.arange(100) / 10  # s


def line(n_channels=2):
    """A signal that equals its time, and its double."""
    return TIMES[:, None] * np.arange(1, n_channels + 1)


@pytest.mark.parametrize("bin_width", [0.05, 0.1, 0.25, 1.0])
def test_means_of_a_line_are_its_values_at_the_centres(bin_width):
    trials = align_signals(line(), TIMES, [3.03, 5.5], (-1, 1), bin_width)
    centres = np.arange(-1, 1 - 1e-9, bin_width) + bin_width / 2
    for trial, event in zip(trials, [3.03, 5.5], strict=True):
        np.testing.assert_allclose(trial, (event + centres)[:, None] * [1, 2])


def test_trials_that_overlap_are_those_alone():
    events = [2.0, 4.13, 2.31, 2.02, 7.0]
    trials = align_signals(line(), TIMES, events, (-0.5, 1.0), 0.1)
    for trial, event in zip(trials, events, strict=True):
        np.testing.assert_allclose(
            trial, align_signals(line(), TIMES, [event], (-0.5, 1), 0.1)[0], atol=1e-9
        )


def test_trials_beyond_the_recording_and_in_gaps_are_nan():
    times = np.delete(TIMES, slice(30, 60))  # no samples from 3 to 6 s
    signals = times[:, None]
    trials = align_signals(signals, times, [-0.5, 4.0, 9.5], (0, 1), 0.5)[..., 0]
    np.testing.assert_allclose(trials, [[np.nan, 0.25], [np.nan, np.nan], [9.7, np.nan]], atol=0.06)
    close = align_signals(signals, times, [4.0], (0, 1), 0.5, max_gap=10)[..., 0]
    np.testing.assert_allclose(close, [[4.25, 4.75]])


def test_sums_take_each_sample_as_it_is():
    rng = np.random.default_rng(0)
    spks = rng.exponential(size=(100, 3)) * (rng.random((100, 3)) < 0.3)
    trials = align_signals(spks, TIMES, [2.04, 5.96], (0, 1), 0.2, how="sum")
    np.testing.assert_allclose(trials[0], spks[20:30].reshape(5, 2, 3).sum(axis=1))
    np.testing.assert_allclose(trials[1], spks[60:70].reshape(5, 2, 3).sum(axis=1))
    means = align_signals(spks, TIMES, [2.04, 5.96], (0, 1), 0.2, how="mean")
    np.testing.assert_allclose(means, trials / 2)
    frames = align_signals(spks, TIMES, [2.04], (0, 1), 0.1, how="sum")
    np.testing.assert_array_equal(frames[0], spks[20:30])
    np.testing.assert_array_equal(bin_signals(spks, TIMES, 0.1, how="sum"), spks)


def test_sums_over_dropped_samples_are_nan_and_the_rest_stays_in_place():
    rng = np.random.default_rng(0)
    jitter = 0.02 * rng.uniform(-1, 1, 100)
    values = np.arange(100.0)
    kept = np.delete(np.arange(100), [41, 42])
    binned = bin_signals(values[kept], (TIMES + jitter)[kept], 0.2, start=0, stop=10, how="sum")
    expected = values.reshape(-1, 2).sum(axis=1)
    expected[[20, 21]] = np.nan
    np.testing.assert_array_equal(binned[:, 0], expected)


def test_sums_before_and_after_the_recording_are_nan():
    trials = align_signals(np.ones(100), TIMES, [-0.5, 9.5], (0, 1), 0.1, how="sum")[..., 0]
    np.testing.assert_array_equal(np.isnan(trials[0]), np.arange(10) < 5)
    np.testing.assert_array_equal(np.isnan(trials[1]), np.arange(10) >= 5)


@pytest.mark.parametrize("how", ["interpolate", "mean", "sum"])
def test_trials_of_unequal_length_end_in_nan(how):
    intervals = np.array([[1.0, 2.0], [4.0, 4.5]])
    trials = bin_signal_trials(line(), TIMES, intervals, bin_width=0.1, how=how)
    assert trials.shape == (2, 10, 2)
    np.testing.assert_array_equal(np.isnan(trials[..., 0]).sum(axis=1), [0, 5])
    both = bin_signal_trials(line(), TIMES, *intervals.T, bin_width=0.1, how=how)
    np.testing.assert_array_equal(both, trials)
    whole = align_signals(line(), TIMES, [4.0], (0, 0.5), 0.1, how=how)
    np.testing.assert_allclose(trials[1, :5], whole[0])


def test_the_whole_recording_in_bins():
    binned = bin_signals(line(), TIMES, 0.5)
    assert binned.shape == (20, 2)
    np.testing.assert_allclose(binned[:-1, 0], np.arange(19) / 2 + 0.25)
    assert bin_signals(line().astype(np.float32), TIMES, 0.5).dtype == np.float32
    np.testing.assert_allclose(bin_signals(line(), TIMES, 0.5, start=2, stop=3)[:, 0], [2.25, 2.75])


def test_trials_of_a_recording_are_those_of_the_generator():
    data = make_calcium(n_trials=5, n_bins=12, n_neurons=3, random_state=0)
    window = (0, 12 / data.fps)
    trials = align_signals(data.recording, data.time, data.starts, window, 1 / 30, how="sum")
    np.testing.assert_array_equal(trials, data.dff)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"signals": line().T}, r"pass one time per sample, with samples along the first axis: si"),
        ({"signals": np.zeros((2, 3, 4))}, r"signals has shape \(2, 3, 4\); expected \(n_samples"),
        ({"signals": np.full(100, np.inf)}, "signals is infinite in 100 of 100"),
        ({"times": TIMES[::-1]}, "9.8 s follows 9.9 s"),
        ({"times": np.where(TIMES > 5, np.nan, TIMES)}, "some are NaN or infinite"),
        ({"events": [1e6]}, "All events lie outside of the recording, which lasts from 0 to 10 s"),
        ({"events": [np.nan]}, "events is NaN"),
        ({"window": (0, 0.33)}, "not a whole number of bins"),
        ({"window": (0, 1e15), "bin_width": 1.0}, "would take .* of memory"),
        ({"bin_width": 0}, "bin_width must be finite, above 0"),
        ({"how": "median"}, 'how must be "interpolate", "mean" or "sum", got \'median\''),
        ({"how": "sum", "bin_width": 0.25, "window": (0, 1)}, r"2\.5 sample intervals of 0\.1 s"),
        ({"how": "sum", "bin_width": 0.01, "window": (0, 1)}, r"0\.1 sample intervals.*=0\.1"),
        ({"max_gap": -1}, "max_gap must be finite"),
    ],
)
def test_what_is_wrong_is_said(changed, message):
    usual = {"signals": line(), "times": TIMES, "events": [5], "window": (0, 1), "bin_width": 0.1}
    with pytest.raises(ValueError, match=message):
        align_signals(**(usual | changed))


USUAL = {
    align_signals: {"events": [2.0, 3.0], "window": (-0.5, 0.5)},
    bin_signals: {"start": 1.0, "stop": 2.0},
    bin_signal_trials: {"starts": [1.0, 2.0], "stops": [1.5, 2.5]},
}


@pytest.mark.parametrize("function", USUAL, ids=lambda function: function.__name__)
@pytest.mark.parametrize("how", ["interpolate", "mean", "sum"])
@examples(60)
@given(data=st.data())
def test_odd_values(function, how, data):
    usual = {"signals": line(), "times": TIMES, "bin_width": 0.1, "max_gap": None, "how": how}
    usual |= USUAL[function]
    name = data.draw(st.sampled_from(sorted(usual)))
    odd = ODD_VALUES[data.draw(st.sampled_from(sorted(ODD_VALUES)))]
    result = outcome(function, **(usual | {name: odd}))
    if not isinstance(result, Exception):
        assert result.dtype.kind == "f"
        assert result.size


def test_windows_in_milliseconds_are_noticed():
    times = np.arange(0, 300, 0.5)
    with pytest.warns(UserWarning, match="Is it in milliseconds") as record:
        align_signals(times, times, 50.0 + np.arange(9), (-50, 50), 1.0)
    assert record[0].filename == __file__
