import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score

from sklearn_stndt.datasets import make_reaches


@pytest.fixture(scope="module")
def reaches():
    return make_reaches(random_state=0)


def _decode(signal, velocity):
    """Velocity R2 of ridge regression without history, in the last fifth of the trials."""
    n = len(signal) * 4 // 5
    flat = [a.reshape(-1, a.shape[-1]) for a in (signal[:n], velocity[:n], signal[n:])]
    scale = flat[0].std(axis=0) + 1e-9
    model = RidgeCV(np.logspace(-2, 5, 8)).fit(flat[0] / scale, flat[1])
    return r2_score(velocity[n:].reshape(-1, 2), model.predict(flat[2] / scale))


def _r2(truth, estimate):
    return r2_score(truth.reshape(-1, truth.shape[-1]), estimate.reshape(-1, truth.shape[-1]))


@pytest.mark.parametrize("mean_rate", [10, 18.0])
@pytest.mark.parametrize("n_neurons", [30, 100])
def test_mean_rates_have_a_heavy_tail(mean_rate, n_neurons):
    data = make_reaches(100, n_neurons=n_neurons, mean_rate=mean_rate, random_state=1)
    assert data.mean_rates.mean() == pytest.approx(mean_rate)
    assert data.mean_rates.min() < 0.1 * mean_rate
    assert data.mean_rates.max() > 4 * mean_rate
    assert np.median(data.mean_rates) < 0.7 * mean_rate
    empirical = data.rates.mean(axis=(0, 1)) / data.bin_width
    assert empirical.mean() == pytest.approx(mean_rate, rel=0.05)
    np.testing.assert_allclose(empirical, data.mean_rates, rtol=0.25)


def test_rates_stay_physiological(reaches):
    hz = reaches.rates / reaches.bin_width
    assert hz.max() < 250
    assert np.quantile(hz, 0.99) > 60


def test_the_mean_reach_is_a_minimum_jerk_movement_to_the_target():
    data = make_reaches(
        16, 100, 2, bin_width=0.01, distance=8, duration=0.5, variability=0, random_state=0
    )
    speed = np.linalg.norm(data.velocity, axis=-1)
    np.testing.assert_allclose(speed.max(axis=1), 1.875 * 8 / 0.5, rtol=1e-3)
    np.testing.assert_allclose(data.position[:, -1], data.targets[data.conditions], atol=1e-3)
    time = (np.arange(100) + 0.5) * 0.01
    still = (time < data.onsets[:, None]) | (time > data.onsets[:, None] + 0.5)
    assert not speed[still].any()
    assert speed[~still].all()
    np.testing.assert_allclose(time[speed.argmax(axis=1)], data.onsets + 0.25, atol=0.01)


def test_single_reaches_vary_but_end_at_their_target(reaches):
    speed = np.linalg.norm(reaches.velocity, axis=-1)
    peak = speed.max(axis=1)
    assert np.median(peak) == pytest.approx(47, rel=0.1)  # cm/s
    assert 0.1 < peak.std() / peak.mean() < 0.4
    assert 0.04 < reaches.onsets.std() < 0.07  # s
    away = np.linalg.norm(reaches.position[:, -1, None] - reaches.targets, axis=-1)
    np.testing.assert_array_equal(away.argmin(axis=1), reaches.conditions)
    np.testing.assert_allclose(
        reaches.position, np.cumsum(reaches.velocity, axis=1) * reaches.bin_width
    )


def test_averages_over_trials_explain_only_part_of_the_variance(reaches):
    for truth in (reaches.velocity, reaches.rates):
        mean = np.stack([truth[reaches.conditions == c].mean(axis=0) for c in range(8)])
        assert 0.3 < _r2(truth, mean[reaches.conditions]) < 0.8


def test_without_variability_trials_of_a_condition_are_identical():
    data = make_reaches(24, variability=0, random_state=0)
    for c in range(8):
        same = data.conditions == c
        assert same.sum() == 3
        np.testing.assert_allclose(np.ptp(data.rates[same], axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(np.ptp(data.velocity[same], axis=0), 0, atol=1e-12)


@pytest.mark.parametrize(
    "extreme",
    [
        {"n_bins": 1},
        {"n_neurons": 1},
        {"lag": 0},
        {"lag": 2},
        {"duration": 0.03},
        {"duration": 5.0},
        {"bin_width": 1},
        {"variability": 5},
        {"modulation": 10},
    ],
    ids=str,
)
def test_extreme_arguments_give_finite_data(extreme):
    data = make_reaches(**{"n_trials": 9, "n_neurons": 5, "random_state": 0, **extreme})
    for key in ("rates", "latents", "velocity", "loadings"):
        assert np.isfinite(data[key]).all()
    assert (data.rates <= np.maximum(500, 5 * data.mean_rates) * data.bin_width).all()


@pytest.mark.parametrize(("n_trials", "n_conditions"), [(30, 8), (5, 8), (24, 3), (7, 1)])
def test_conditions_are_balanced(n_trials, n_conditions):
    data = make_reaches(n_trials, 5, 2, n_conditions=n_conditions, random_state=0)
    assert np.ptp(np.bincount(data.conditions, minlength=n_conditions)) <= 1
    assert data.targets.shape == (n_conditions, 2)


def test_command_precedes_the_hand_by_the_lag():
    data = make_reaches(20, lag=0.06, random_state=0)
    names = data.latent_names
    for axis, name in enumerate("xy"):
        hand = data.velocity[..., axis]
        command = data.latents[..., names.index(f"command_{name}")]
        feedback = data.latents[..., names.index(f"feedback_{name}")]
        assert np.corrcoef(command[:, :-3].ravel(), hand[:, 3:].ravel())[0, 1] > 1 - 1e-9
        assert np.corrcoef(feedback.ravel(), hand.ravel())[0, 1] > 1 - 1e-9
        assert np.corrcoef(command.ravel(), hand.ravel())[0, 1] < 0.97


def test_plan_precedes_the_movement_and_rotations_turn(reaches):
    names = reaches.latent_names
    bins = (reaches.onsets / reaches.bin_width).astype(int)
    trial = np.arange(len(bins))
    plan = np.linalg.norm(
        reaches.latents[..., [names.index("plan_x"), names.index("plan_y")]], axis=-1
    )
    assert (plan[trial, bins - 10] > 5 * plan[trial, bins + 5]).all()
    for k, frequency in [(1, 1.2), (2, 2.2)]:
        a, b = (names.index(f"rotation{k}_{axis}") for axis in "ab")
        angle = np.unwrap(np.arctan2(reaches.latents[..., b], reaches.latents[..., a]))
        turns = (angle[trial, bins + 10] - angle[trial, bins]) / (2 * np.pi)
        np.testing.assert_allclose(np.median(turns) / 0.2, frequency, rtol=0.1)


def test_shared_state_is_smooth_and_low_dimensional(reaches):
    now, later = reaches.latents[:, :-1], reaches.latents[:, 1:]
    for k in range(reaches.latents.shape[-1]):
        assert np.corrcoef(now[..., k].ravel(), later[..., k].ravel())[0, 1] > 0.95
    log_rates = np.log(reaches.rates).reshape(-1, 60)
    variance = np.linalg.svd(log_rates - log_rates.mean(axis=0), compute_uv=False) ** 2
    assert variance[:11].sum() / variance.sum() > 0.97
    assert variance[:4].sum() / variance.sum() < 0.9


@pytest.mark.parametrize("modulation", [0.1, 0.5])
def test_modulation_scales_the_depth(modulation):
    full, weak = (make_reaches(50, modulation=m, random_state=0) for m in (1, modulation))
    np.testing.assert_allclose(weak.loadings, modulation * full.loadings)
    depth = [np.median(np.log(d.rates).std(axis=(0, 1))) for d in (full, weak)]
    assert depth[0] == pytest.approx(0.6, abs=0.15)
    assert depth[1] / depth[0] == pytest.approx(modulation, rel=0.15)


def test_without_modulation_rates_are_constant():
    data = make_reaches(5, modulation=0, random_state=0)
    expected = np.broadcast_to(data.mean_rates * data.bin_width, data.rates.shape)
    np.testing.assert_allclose(data.rates, expected)


@pytest.mark.parametrize("bin_width", [0.02, 0.5])
def test_private_noise_is_slow_and_private(bin_width):
    data = make_reaches(
        400, 20, 6, modulation=0, private_noise=0.3, bin_width=bin_width, random_state=0
    )
    log_gain = np.log(data.rates / (data.mean_rates * bin_width))
    assert log_gain.std() == pytest.approx(0.3, rel=0.05)
    assert np.exp(log_gain).mean() == pytest.approx(1, abs=0.02)
    between = np.corrcoef(log_gain[:, 10].T) - np.eye(6)
    assert np.abs(between).max() < 0.2
    if bin_width == 0.02:
        assert np.corrcoef(log_gain[:, 10, 0], log_gain[:, 11, 0])[0, 1] > 0.95


def test_neurons_do_not_depend_on_the_number_of_trials():
    few, many = (make_reaches(n, random_state=7) for n in (10, 30))
    np.testing.assert_array_equal(few.mean_rates, many.mean_rates)
    np.testing.assert_array_equal(few.loadings, many.loadings)


WEAK = {"n_trials": 140, "n_bins": 26, "n_neurons": 45, "mean_rate": 18, "modulation": 0.35}


@pytest.mark.parametrize(("size", "counts"), [({}, 0.5), (WEAK, 0.35)], ids=["default", "weak"])
@pytest.mark.parametrize("seed", [0, 1])
def test_true_rates_decode_better_than_smoothed_and_raw_counts(size, counts, seed):
    data = make_reaches(**size, random_state=seed)
    smoothed = max(
        _decode(gaussian_filter1d(data.spikes.astype(float), width, axis=1), data.velocity)
        for width in (2, 3, 4)
    )
    from_truth = _decode(data.rates, data.velocity)
    from_counts = _decode(data.spikes, data.velocity)
    assert from_truth > 0.95
    assert from_counts < counts
    assert from_counts + 0.15 < smoothed < from_truth - 0.15
