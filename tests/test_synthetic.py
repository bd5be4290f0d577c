import numpy as np
import pytest

from sklearn_stndt.datasets import make_chaotic_rnn, make_lorenz, make_reaches
from sklearn_stndt.datasets.synthetic import _integrate_lorenz

GENERATORS = [make_chaotic_rnn, make_lorenz, make_reaches]
BENCHMARKS = [make_chaotic_rnn, make_lorenz]
SMALL = {
    make_chaotic_rnn: {"n_conditions": 5, "n_repetitions": 4, "n_neurons": 7, "n_bins": 30},
    make_lorenz: {"n_conditions": 5, "n_repetitions": 4, "n_neurons": 7, "n_bins": 30},
    make_reaches: {"n_trials": 20, "n_neurons": 7, "n_bins": 30},
}


@pytest.fixture(scope="module")
def chaotic():
    return make_chaotic_rnn()


# ---- all generators


@pytest.mark.parametrize("make", GENERATORS)
def test_shapes_and_types(make):
    data = make(**SMALL[make], random_state=0)
    assert data.spikes.shape == data.rates.shape == (20, 30, 7)
    assert data.conditions.shape == (20,)
    assert np.issubdtype(data.spikes.dtype, np.integer)
    assert np.issubdtype(data.rates.dtype, np.floating)
    assert data.spikes.flags.c_contiguous
    assert (data.spikes >= 0).all()
    assert np.isfinite(data.rates).all()
    assert "Poisson" in data.DESCR
    assert "30 bins" in data.DESCR


@pytest.mark.parametrize("make", GENERATORS)
def test_spikes_are_poisson_with_the_stated_rates(make):
    data = make(random_state=0)
    rates, noise = data.rates, data.spikes - data.rates
    # Deviations of mean and variance of each neuron, in standard errors of Poisson counts.
    mean_error = noise.sum(axis=(0, 1)) / np.sqrt(rates.sum(axis=(0, 1)))
    spread = (noise**2 - rates).sum(axis=(0, 1))
    spread_error = spread / np.sqrt((rates + 2 * rates**2).sum(axis=(0, 1)))
    assert np.abs(mean_error).max() < 4.5
    assert np.abs(spread_error).max() < 4.5


@pytest.mark.parametrize("make", GENERATORS)
def test_same_seed_same_data_and_global_generator_untouched(make):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (make(**SMALL[make], random_state=3) for _ in range(2))
    other = make(**SMALL[make], random_state=4)
    assert set(first) == set(second)
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])
    assert not np.array_equal(first.rates, other.rates)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("make", GENERATORS)
def test_a_generator_given_as_random_state_advances(make):
    rng = np.random.RandomState(3)
    first, second = (make(**SMALL[make], random_state=rng) for _ in range(2))
    np.testing.assert_array_equal(first.spikes, make(**SMALL[make], random_state=3).spikes)
    assert not np.array_equal(first.spikes, second.spikes)


@pytest.mark.parametrize("make", BENCHMARKS)
def test_repetitions_share_rates_but_not_spikes(make):
    data = make(n_conditions=3, n_repetitions=5, random_state=0)
    for c in range(3):
        rates = data.rates[data.conditions == c]
        spikes = data.spikes[data.conditions == c]
        assert len(rates) == 5
        assert np.ptp(rates, axis=0).max() == 0
        assert len(np.unique(spikes, axis=0)) == 5
    assert not np.allclose(data.rates[0], data.rates[-1])


@pytest.mark.parametrize(
    ("make", "n_conditions", "n_repetitions", "n_train"),
    [(make_chaotic_rnn, 130, 10, 8), (make_lorenz, 65, 20, 16)],
)
def test_default_benchmarks_have_the_published_design(make, n_conditions, n_repetitions, n_train):
    data = make(random_state=5)
    assert len(data.spikes) == n_conditions * n_repetitions
    trained = np.bincount(data.conditions, weights=data.train)
    np.testing.assert_array_equal(trained, np.full(n_conditions, n_train))


@pytest.mark.parametrize(("fraction", "n_train"), [(0.01, 1), (0.5, 5), (0.29, 2), (1, 10)])
def test_train_fraction_counts_whole_repetitions(fraction, n_train):
    data = make_lorenz(2, 10, 3, train_fraction=fraction, random_state=0)
    expected = [True] * n_train + [False] * (10 - n_train)
    np.testing.assert_array_equal(data.train, 2 * expected)


# ---- chaotic network


def test_chaotic_network_is_the_published_one(chaotic):
    assert chaotic.weights[0, 0] == pytest.approx(0.06239899, abs=1e-8)
    assert chaotic.spikes.shape == (1300, 100, 50)
    # Number of spikes in the output of the published generator.
    assert chaotic.spikes.sum() == 972577


def test_chaotic_rates_follow_the_equation(chaotic):
    rng = np.random.RandomState(5)
    weights = rng.randn(50, 50) / np.sqrt(50)
    rng.randn(100)
    x = rng.randn(50)
    path = []
    for _ in range(100):
        x = x + (0.01 / 0.025) * (-x + 1.5 * weights.dot(np.tanh(x)))
        path.append(np.tanh(x))
    lowest, highest = np.min(path, axis=0), np.max(path, axis=0)
    expected = 0.3 * (path - lowest) / (highest - lowest)
    np.testing.assert_allclose(chaotic.rates[0], expected, atol=1e-9)


@pytest.mark.parametrize(("max_rate", "bin_width"), [(30, 0.01), (80.0, 0.005)])
def test_chaotic_rates_span_zero_to_the_maximum_in_each_trial(max_rate, bin_width):
    data = make_chaotic_rnn(4, 2, max_rate=max_rate, bin_width=bin_width)
    np.testing.assert_allclose(data.rates.min(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(data.rates.max(axis=1), max_rate * bin_width)


# ---- Lorenz system


def test_lorenz_integration_stays_at_the_fixed_point():
    side = np.sqrt(8 / 3 * 27)
    rest = np.array([[side, side, 27], [-side, -side, 27]])
    path = _integrate_lorenz(rest, 100, 0.006)
    np.testing.assert_allclose(path, np.repeat(rest[:, None], 100, axis=1), atol=1e-8)


def test_lorenz_latents_obey_the_equations():
    # One step per bin. Shifting and scaling a variable does not change its decay rate.
    data = make_lorenz(3, 1, 3, n_bins=1000, bin_width=0.001, random_state=0)
    for path in data.latents:
        x, y, z = path[:-1].T
        constant = np.ones_like(x)
        terms = [[x, y], [y, x, z, x * z], [z, x, y, x * y]]
        for change, inputs, decay in zip(np.diff(path.T), terms, [10, 1, 8 / 3], strict=True):
            inputs = np.column_stack([*inputs, constant])
            weights, residual = np.linalg.lstsq(inputs, change, rcond=None)[:2]
            assert residual[0] < 1e-12
            assert weights[0] == pytest.approx(-0.006 * decay, rel=1e-4)


def test_lorenz_rates_are_a_log_linear_read_out_of_scaled_latents():
    data = make_lorenz(4, 1, 12, n_bins=1000, bin_width=0.001, base_rate=7, random_state=0)
    np.testing.assert_allclose(data.latents.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(np.abs(data.latents).max(axis=1), 1)
    expected = 7 * 0.001 * np.exp(data.latents @ data.weights.T)
    np.testing.assert_allclose(data.rates, expected)
    magnitude = np.abs(data.weights)
    assert magnitude.min() >= 1
    assert magnitude.max() <= 2
    assert 0.2 < (data.weights > 0).mean() < 0.8


def test_lorenz_bins_are_sums_of_finer_bins():
    coarse = make_lorenz(3, 1, 4, n_bins=10, bin_width=0.02, random_state=0)
    fine = make_lorenz(3, 1, 4, n_bins=200, bin_width=0.001, random_state=0)
    np.testing.assert_allclose(coarse.rates, fine.rates.reshape(3, 10, 20, 4).sum(axis=2))
    np.testing.assert_allclose(coarse.latents, fine.latents.reshape(3, 10, 20, 3).mean(axis=2))


# ---- arguments


@pytest.mark.parametrize("value", [0, -3])
@pytest.mark.parametrize(
    ("make", "name"),
    [(m, n) for m in BENCHMARKS for n in ("n_conditions", "n_repetitions", "n_neurons", "n_bins")]
    + [(make_reaches, n) for n in ("n_trials", "n_bins", "n_neurons", "n_conditions")],
)
def test_counts_must_be_positive(make, name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least [12], got {value}"):
        make(**{name: value})


@pytest.mark.parametrize("make", BENCHMARKS)
def test_one_bin_has_no_range_to_scale(make):
    with pytest.raises(ValueError, match="n_bins must be at least 2, got 1"):
        make(n_bins=1)


@pytest.mark.parametrize(
    ("make", "name", "value", "wanted"),
    [
        (make_chaotic_rnn, "bin_width", 0.03, "above 0 and at most 0.025"),
        (make_chaotic_rnn, "gain", -1, "at least 0"),
        (make_chaotic_rnn, "tau", 0, "above 0"),
        (make_chaotic_rnn, "x0_std", 0.0, "above 0"),
        (make_chaotic_rnn, "max_rate", np.inf, "finite"),
        (make_chaotic_rnn, "train_fraction", 1.2, "above 0 and at most 1"),
        (make_lorenz, "bin_width", 0, "above 0"),
        (make_lorenz, "base_rate", -5, "above 0"),
        (make_lorenz, "speed", np.nan, "finite"),
        (make_lorenz, "train_fraction", 0, "above 0 and at most 1"),
        (make_reaches, "bin_width", -0.02, "above 0"),
        (make_reaches, "mean_rate", 0, "above 0"),
        (make_reaches, "modulation", -1, "at least 0"),
        (make_reaches, "variability", -0.1, "at least 0"),
        (make_reaches, "private_noise", np.nan, "at least 0"),
        (make_reaches, "lag", -0.1, "at least 0"),
        (make_reaches, "distance", 0, "above 0"),
        (make_reaches, "duration", 0, "above 0"),
    ],
)
def test_numbers_out_of_range(make, name, value, wanted):
    with pytest.raises(ValueError, match=rf"{name} must be .*{wanted}.*, got"):
        make(**{name: value})


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (make_chaotic_rnn, "n_bins", 100.0),
        (make_lorenz, "n_conditions", True),
        (make_reaches, "n_trials", "many"),
        (make_reaches, "mean_rate", None),
        (make_lorenz, "speed", "fast"),
    ],
)
def test_arguments_of_the_wrong_type(make, name, value):
    with pytest.raises(TypeError, match=rf"{name} must be an? (integer|number), got {value!r}"):
        make(**{name: value})


@pytest.mark.parametrize("make", GENERATORS)
def test_numpy_numbers_are_numbers(make):
    make(n_bins=np.int64(5), n_neurons=np.int32(3), bin_width=np.float32(0.01), random_state=0)
