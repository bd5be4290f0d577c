"""Scores by likelihoods other than Poisson."""

import math

import numpy as np
import pytest
from scipy import stats

from sklearn_stndt.metrics import (
    bits_per_spike,
    gaussian_bits,
    negative_binomial_bits,
    zero_inflated_gamma_bits,
)
from sklearn_stndt.metrics.likelihoods import GAINS

# ---- counts


def test_scores_of_counts_differ_by_the_difference_of_log_likelihoods():
    random = np.random.RandomState(0)
    rates, alpha = random.gamma(1.0, size=(5, 40, 3)), np.array([0.2, 1.0, 5.0])
    spikes = random.poisson(rates * random.gamma(1 / alpha, alpha, size=rates.shape)).astype(float)
    spikes[0, :9] = np.nan
    known = ~np.isnan(spikes)
    size = np.broadcast_to(1 / alpha, spikes.shape)[known]
    gain = stats.nbinom.logpmf(spikes[known], size, size / (size + rates[known])).sum()
    gain -= stats.poisson.logpmf(spikes[known], rates[known]).sum()
    found = negative_binomial_bits(spikes, rates, alpha) - bits_per_spike(spikes, rates)
    assert found == pytest.approx(gain / spikes[known].sum() / np.log(2))
    assert negative_binomial_bits(spikes, rates, 1e-9) == pytest.approx(
        bits_per_spike(spikes, rates), abs=1e-5
    )


def test_a_negative_binomial_rate_of_0_is_replaced():
    spikes = np.array([[1.0, 0.0], [2.0, 1.0]])
    zero = np.array([[0.0, 0.0], [1.0, 1.0]])
    found = negative_binomial_bits(spikes, zero, 0.5)
    assert found == negative_binomial_bits(spikes, np.maximum(zero, 1e-9), 0.5)
    assert np.isfinite(found)


def test_no_spikes_have_no_negative_binomial_score():
    with pytest.warns(RuntimeWarning):
        assert np.isnan(negative_binomial_bits(np.zeros((3, 2)), np.ones((3, 2)), 1.0))


# ---- signals


def test_the_gaussian_score_is_that_of_the_explained_variance():
    random = np.random.RandomState(0)
    means = random.normal(size=(3000, 2)) * [1, 50]
    values = means + random.normal(size=means.shape) * [1, 100]
    values[:100, 0] = np.nan
    residual = np.nanstd(values - means, axis=0)
    share = 1 - residual**2 / np.nanvar(values, axis=0)
    n = np.array([2900, 3000])
    expected = (-0.5 * np.log2(1 - share) * n).sum() / n.sum()
    assert gaussian_bits(values, means, residual) == pytest.approx(expected, abs=2e-3)
    constant = np.broadcast_to(np.nanmean(values, 0), values.shape)
    assert gaussian_bits(values, constant, np.nanstd(values, 0)) == pytest.approx(0, abs=1e-9)


def test_unknown_signals_change_no_score():
    random = np.random.RandomState(0)
    means = random.normal(size=(4, 25, 3))
    values = random.normal(means, [0.5, 1.0, 2.0])
    noise = np.array([0.5, 1.0, 2.0])
    padded = np.full((6, 25, 4), np.nan)
    padded[:4, :, :3] = values
    of_padded = np.full((6, 25, 4), np.nan)
    of_padded[:4, :, :3] = means
    expected = gaussian_bits(values, means, noise)
    assert gaussian_bits(padded, of_padded, np.append(noise, 7.0)) == pytest.approx(expected)
    rows = gaussian_bits(values.reshape(-1, 3), means.reshape(-1, 3), noise)
    assert rows == pytest.approx(expected)


def test_signals_that_never_change_are_not_scored():
    random = np.random.RandomState(0)
    means = random.normal(size=(50, 3))
    values = random.normal(means, 0.5)
    expected = gaussian_bits(values[:, 1:], means[:, 1:], 0.5)
    values[:, 0] = 0.1 + np.float32(1e-9) * random.normal(size=50)  # as far as float32 can tell
    assert gaussian_bits(values, means, 0.5) == pytest.approx(expected)
    with pytest.warns(RuntimeWarning, match="not defined without variance"):
        assert np.isnan(gaussian_bits(values[:, :1], means[:, :1], 0.5))


# ---- deconvolved calcium


def log_likelihood(value, mean, shape, event_rate, exponent):
    """Of one entry, as the docstring defines it."""
    p = 1 - math.exp(-event_rate * mean**exponent)
    if value == 0:
        return math.log(1 - p)
    scale = mean / p / shape
    size = (shape - 1) * math.log(value) - value / scale
    return math.log(p) + size - math.lgamma(shape) - shape * math.log(scale)


CONSTANTS = {
    "shape": np.array([0.7, 2.0, 5.0]),
    "event_rate": np.array([0.3, 1.0, 2.0]),
    "exponent": np.array([1.0, 0.5, 1.5]),
}


@pytest.fixture(scope="module")
def calcium():
    """Entries, some NaN, and their expected values, (n_trials, n_bins, n_neurons)."""
    random = np.random.RandomState(0)
    means = random.gamma(2.0, size=(6, 50, 3))
    p = 1 - np.exp(-CONSTANTS["event_rate"] * means ** CONSTANTS["exponent"])
    sizes = random.gamma(CONSTANTS["shape"], means / p / CONSTANTS["shape"])
    values = np.where(random.uniform(size=means.shape) < p, sizes, 0.0)
    values[0, :9] = np.nan
    values[2, :, 1] = np.nan
    return values, means


def test_differences_of_gamma_scores_are_those_of_log_likelihoods(calcium):
    values, means = calcium
    flat = CONSTANTS | {"exponent": np.array([1.2, 0.8, 1.0]), "shape": np.full(3, 1.5)}

    def total(constants):
        return sum(
            log_likelihood(value, means[index], *(c[index[-1]] for c in constants.values()))
            for index, value in np.ndenumerate(values)
            if not np.isnan(value)
        )

    found = zero_inflated_gamma_bits(values, means, **CONSTANTS) - zero_inflated_gamma_bits(
        values, means, **flat
    )
    n_known = np.count_nonzero(~np.isnan(values))
    assert found == pytest.approx((total(CONSTANTS) - total(flat)) / n_known / math.log(2))


def test_the_gamma_score_is_0_for_the_best_constants_of_a_neuron(calcium):
    values = calcium[0][..., :1]
    known = values[~np.isnan(values)]
    positive = known[known > 0]
    means = np.full(values.shape, known.mean())
    shape = stats.gamma.fit(positive, floc=0)[0]
    event_rate = -math.log(np.mean(known == 0)) / known.mean()
    best = zero_inflated_gamma_bits(values, means, shape, event_rate, 1.0)
    assert best == pytest.approx(0, abs=1e-9)
    for other in (0.9, 1.1):
        assert zero_inflated_gamma_bits(values, means, other * shape, event_rate, 1.0) < -1e-4
        assert zero_inflated_gamma_bits(values, means, shape, other * event_rate, 1.0) < -1e-4
        assert zero_inflated_gamma_bits(values, other * means, shape, event_rate, 1.0) < -1e-4


def test_the_gamma_score_of_several_neurons_is_the_mean_over_their_entries(calcium):
    values, means = calcium
    alone = [
        zero_inflated_gamma_bits(
            values[..., [i]], means[..., [i]], **{k: v[i] for k, v in CONSTANTS.items()}
        )
        for i in range(3)
    ]
    n_known = np.count_nonzero(~np.isnan(values), axis=(0, 1))
    expected = np.average(alone, weights=n_known)
    assert zero_inflated_gamma_bits(values, means, **CONSTANTS) == pytest.approx(expected)


def test_neurons_with_zeros_alone_or_without_spread_are_scored():
    silent = np.zeros((10, 1))
    # a probability of exp(-.5) for each zero, and of 1 by the reference
    found = zero_inflated_gamma_bits(silent, np.full((10, 1), 0.5), 1.0, 1.0, 1.0)
    assert found == pytest.approx(-0.5 / math.log(2))
    steady = np.array([[0.0], [3.0], [3.0], [3.0]])
    means, event_rate = np.full((4, 1), 2.25), math.log(4) / 2.25
    assert zero_inflated_gamma_bits(steady, means, 500.0, event_rate, 1.0) == pytest.approx(0)
    assert zero_inflated_gamma_bits(steady, means, 50.0, event_rate, 1.0) < -0.5


# ---- all


def test_every_likelihood_is_scored_by_its_own_function():
    assert {
        "poisson": bits_per_spike,
        "negative_binomial": negative_binomial_bits,
        "gaussian": gaussian_bits,
        "zero_inflated_gamma": zero_inflated_gamma_bits,
    } == GAINS


@pytest.mark.parametrize(
    ("score", "args", "message"),
    [
        (negative_binomial_bits, ([[0.5, 1]], [[0.3, 1.2]], 1.0), "holds fractions"),
        (negative_binomial_bits, ([[1, 1]], [[0.3, 1.2]], 0.0), "dispersion must be .* above 0"),
        (negative_binomial_bits, ([[1, 1]], [[0.3, 1.2]], [1.0] * 3), "one for each of the 2"),
        (gaussian_bits, ([[1, -1]], [[np.nan, 1.2]], 1.0), "means is NaN or infinite"),
        (gaussian_bits, ([[1, np.inf]], [[0.0, 1.2]], 1.0), "values is NaN or infinite"),
        (gaussian_bits, ([[1, -1]], [[1.2]], 1.0), "one shape"),
        (gaussian_bits, ([1, -1], [1, 1.2], 1.0), "1D"),
        (gaussian_bits, ([[[[1.0]]]], [[[[1.0]]]], 1.0), "4D"),
        (gaussian_bits, ([[np.nan]], [[1.2]], 1.0), "no entry"),
        (gaussian_bits, ([[1.0]], [[1.2]], np.inf), "noise must be finite"),
        (gaussian_bits, ([[1.0, 2.0]], [[1.2, 1.0]], [3.0, -2.0]), "got -2 as smallest"),
        (gaussian_bits, ([[[1.0, 2.0]] * 3], [[[1.2, 1.0]] * 3], [1.0] * 3), "of the 2 neurons"),
        (gaussian_bits, ([[1.0, 2.0]], [[1.2, 1.0]], [[1.0, 1.0]]), r"noise has shape \(1, 2\)"),
        (zero_inflated_gamma_bits, ([[-1.0]], [[1.2]], 1.0, 1.0, 1.0), "got -1 and 1.2 as"),
        (zero_inflated_gamma_bits, ([[1.0]], [[0.0]], 1.0, 1.0, 1.0), "got 1 and 0 as"),
        (zero_inflated_gamma_bits, ([[1.0]], [[-0.5]], 1.0, 1.0, 1.0), "got 1 and -0.5 as"),
        (zero_inflated_gamma_bits, ([[1.0]], [[1.2]], -1.0, 1.0, 1.0), "shape must be"),
        (zero_inflated_gamma_bits, ([[1.0]], [[1.2]], 1.0, 0.0, 1.0), "event_rate must be"),
        (zero_inflated_gamma_bits, ([[1.0]], [[1.2]], 1.0, 1.0, np.nan), "exponent must be"),
    ],
)
def test_scores_refuse_what_they_cannot_score(score, args, message):
    with pytest.raises(ValueError, match=message):
        score(*args)
