"""Generated calcium imaging."""

import numpy as np
import pytest

from sklearn_stndt.datasets import make_calcium


@pytest.fixture(scope="module")
def data():
    return make_calcium(n_trials=30, n_bins=40, n_neurons=10, random_state=0)


def test_shapes(data):
    for name in ("dff", "calcium", "spikes", "rates"):
        assert data[name].shape == (30, 40, 10)
    assert data.velocity.shape == (30, 40, 2)
    assert data.recording.shape == (30 * (40 + 30) + 30, 10)
    assert data.time.shape == (len(data.recording),)
    assert data.bin_width == 1 / data.fps


def test_trials_are_those_of_the_recording(data):
    frames = np.rint(data.starts * data.fps).astype(int)[:, None] + np.arange(40)
    np.testing.assert_array_equal(data.recording[frames], data.dff)
    np.testing.assert_allclose(data.time[frames[:, 0]], data.starts)


def test_calcium_follows_its_autoregressive_process(data):
    g1, g2 = data.ar
    c, spikes = data.calcium, data.spikes[:, 2:]
    input_ = c[:, 2:] - g1 * c[:, 1:-1] - g2 * c[:, :-2]  # (trials, bins, neurons)
    per_spike = (input_ * spikes).sum(axis=(0, 1)) / (spikes**2).sum(axis=(0, 1))
    np.testing.assert_allclose(input_, per_spike * spikes, atol=1e-9)
    # the peak of a single transient is the amplitude
    response = [0.0, 1.0]
    for _ in range(100):
        response.append(g1 * response[-1] + g2 * response[-2])
    np.testing.assert_allclose(per_spike * np.max(response), data.amplitudes)


@pytest.mark.parametrize("rise_time", [0.0, 0.1])
def test_transients_rise_and_decay_in_the_given_times(rise_time):
    data = make_calcium(2, 5, 1, decay_time=0.4, rise_time=rise_time, random_state=0)
    roots = np.sort(np.roots([1, *-data.ar]))[::-1]
    assert roots[0] == pytest.approx(np.exp(-1 / (0.4 * 30)))
    assert roots[1] == pytest.approx(np.exp(-1 / (rise_time * 30)) if rise_time else 0, abs=1e-12)


def test_noise_has_the_given_standard_deviation(data):
    noise = (data.dff - data.calcium).std(axis=(0, 1))
    np.testing.assert_allclose(noise, data.noise_stds, rtol=0.1)
    silent = make_calcium(3, 20, 4, noise=0.0, random_state=0)
    np.testing.assert_array_equal(silent.dff, silent.calcium)


def test_calcium_from_before_is_there_at_the_start_of_a_trial(data):
    start, mean = data.calcium[:, 0].mean(axis=0), data.calcium.mean(axis=(0, 1))
    assert (start > 0.3 * mean).mean() > 0.8


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"rise_time": 0.5}, "rise_time must be below decay_time, got 0.5 and 0.5"),
        ({"fps": 0}, "fps must be finite, above 0"),
        ({"noise": -1}, "noise must be finite, at least 0"),
        ({"decay_time": 3600.0, "fps": 1e6, "n_trials": 10**7}, "would take .* of memory"),
    ],
)
def test_arguments_out_of_range(params, message):
    with pytest.raises(ValueError, match=message):
        make_calcium(**params)


def test_the_same_seed_gives_the_same_recording():
    one, two, other = (make_calcium(3, 10, 4, random_state=seed).dff for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
