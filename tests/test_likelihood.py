"""Distributions: losses, expected values, draws, null models."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy import stats

from sklearn_stndt.metrics.likelihoods import _of_constant_gamma
from sklearn_stndt.network.likelihood import (
    LIKELIHOODS,
    MAX_LOG_RATE,
    Constant,
    Gaussian,
    Likelihood,
    Poisson,
    Statistics,
    as_likelihood,
    average,
    check_likelihood,
    known_likelihoods,
)

poisson_nll = Poisson().nll
WITH_DERIVATIVES = ["poisson", "negative_binomial", "gaussian"]
OTHERS = [name for name in LIKELIHOODS if name != "poisson"]


def made(name, n_neurons=3, **statistics):
    """A likelihood with starting values."""
    defaults = {"mean": 1.5, "mean_input": 1.0, "std_input": 0.7, "variance": 4.0}
    values = defaults | {"share_positive": 0.6} | statistics
    likelihood = LIKELIHOODS[name]().fresh(n_neurons)
    full = [torch.full((n_neurons,), values[field]) for field in Statistics._fields]
    likelihood.start_mean.copy_(full[0])
    likelihood.begin(Statistics(*full))
    return likelihood


# ---- Poisson counts


def test_poisson_nll_has_the_values_computed_by_hand():
    # exp(r) - s r: 1 - 0; 1 - 3 * 0; 2 - 3 ln 2; 0.5 + 2 ln 2
    log_rates = torch.tensor([0.0, 0.0, math.log(2), -math.log(2)])
    spikes = torch.tensor([0.0, 3.0, 3.0, 2.0])
    expected = torch.tensor([1.0, 1.0, -0.0794415, 1.8862944])
    torch.testing.assert_close(poisson_nll(log_rates, spikes), expected)


def test_poisson_nll_is_least_where_the_rate_is_the_count():
    log_rates = torch.linspace(-2, 3, 501, dtype=torch.float64)
    for count in (1.0, 4.0):
        nll = poisson_nll(log_rates, torch.full_like(log_rates, count))
        assert log_rates[nll.argmin()] == pytest.approx(math.log(count), abs=0.01)


@pytest.mark.parametrize("log_rate", [-1e4, -80.0, 15.0, 1e4])
def test_every_rate_has_a_square_and_a_logarithm(log_rate):
    likelihood = Poisson()
    rate = likelihood.mean(likelihood.limit(torch.tensor(log_rate)))
    assert rate.dtype == torch.float32
    assert rate.log().isfinite()
    assert rate.square().isfinite()
    assert (rate < 1e-30) == (log_rate < 0)


def test_the_null_model_is_each_neuron_at_its_mean():
    spikes = torch.tensor([[0.0, 1.0, 0.0], [4.0, 1.0, 0.0]])
    likelihood = Poisson()
    rates = spikes.mean(0)
    expected = likelihood.nll(likelihood.link(rates.clamp(min=1e-30)), spikes).sum(0)
    null = likelihood.null_nll(spikes.sum(0), torch.full((3,), 2.0))
    torch.testing.assert_close(null, expected)
    torch.testing.assert_close(likelihood.mean(likelihood.link(rates[:2])), rates[:2])
    one_entry = likelihood.null_nll(torch.tensor([3.0]), torch.tensor([1.0]))
    torch.testing.assert_close(one_entry, torch.tensor([3 - 3 * math.log(3)]))
    no_entries = likelihood.null_nll(torch.zeros(3), torch.zeros(3))
    torch.testing.assert_close(no_entries, torch.zeros(3))


def test_readouts_are_clipped_at_the_largest_rate_alone():
    readout = torch.tensor([-50.0, 0.3, MAX_LOG_RATE, MAX_LOG_RATE + 1])
    expected = torch.tensor([-50.0, 0.3, MAX_LOG_RATE, MAX_LOG_RATE])
    torch.testing.assert_close(Poisson().limit(readout), expected)


# ---- all distributions


def log_density(name, values, mean, params):
    if name == "poisson":
        return stats.poisson.logpmf(values, mean)
    if name == "negative_binomial":
        size = 1 / params["dispersion"]
        return stats.nbinom.logpmf(values, size, size / (size + mean))
    if name == "gaussian":
        return stats.norm.logpdf(values, mean, params["noise"])
    share = 1 - np.exp(-params["event_rate"] * mean ** params["exponent"])
    scale = mean / share / params["shape"]
    of_positive = np.log(share) + stats.gamma.logpdf(values, params["shape"], scale=scale)
    return np.where(values > 0, of_positive, np.log(1 - share))


def draw(likelihood, mean, seed=0):
    return likelihood.sample(mean, np.random.RandomState(seed))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_losses_differ_as_the_log_densities_of_scipy(name):
    likelihood = made(name).double()
    random = np.random.RandomState(0)
    mean = random.uniform(0.2, 5, (400, 3))
    values = draw(likelihood, mean)
    params = {k: v.detach().numpy() for k, v in likelihood.constants().items()}
    expected = log_density(name, values, mean, params)
    expected -= log_density(name, values, np.full(3, 1.5), params)
    values, mean = torch.as_tensor(values, dtype=torch.float64), torch.as_tensor(mean)
    loss = likelihood.nll(likelihood.link(mean), values)
    loss = loss - likelihood.nll(likelihood.link(torch.full((3,), 1.5).double()), values)
    np.testing.assert_allclose(-loss.detach().numpy(), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", OTHERS)
def test_losses_of_other_constants_differ_as_the_log_densities_of_scipy(name):
    likelihood = made(name).double()
    mean = np.full((2000, 3), 1.5)
    values = draw(likelihood, mean)
    losses, densities = [], []
    for change in (0.0, 0.1):
        for constant in likelihood.children():
            torch.nn.init.constant_(constant.change, change)
        params = {k: v.detach().numpy() for k, v in likelihood.constants().items()}
        readout = likelihood.link(torch.as_tensor(mean))
        loss = likelihood.nll(readout, torch.as_tensor(values, dtype=torch.float64))
        losses.append(loss.detach().numpy())
        densities.append(log_density(name, values, mean, params))
    np.testing.assert_allclose(
        losses[0] - losses[1], densities[1] - densities[0], rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("name", OTHERS)
def test_draws_have_the_expected_mean_and_the_density_of_scipy(name):
    likelihood = made(name)
    mean = np.repeat([[0.5, 1.5, 4.0]], 20_000, 0)
    values = draw(likelihood, mean)
    error = values.std(0) / np.sqrt(len(values))
    assert (np.abs(values.mean(0) - mean[0]) < 4 * error).all()
    params = {k: v.detach().numpy() for k, v in likelihood.constants().items()}
    variances = {
        "negative_binomial": lambda: mean[0] + params["dispersion"] * mean[0] ** 2,
        "gaussian": lambda: params["noise"] ** 2,
        "zero_inflated_gamma": lambda: (
            (1 + 1 / params["shape"]) * mean[0] ** 2 / share - mean[0] ** 2
        ),
    }
    if name == "zero_inflated_gamma":
        share = 1 - np.exp(-params["event_rate"] * mean[0] ** params["exponent"])
        np.testing.assert_allclose((values > 0).mean(0), share, rtol=0.03)
    np.testing.assert_allclose(values.var(0), variances[name](), rtol=0.1)


def test_a_small_dispersion_is_a_poisson_distribution():
    likelihood = made("negative_binomial", variance=1.0)  # below the mean
    torch.nn.init.constant_(likelihood.dispersion.change, -10.0)
    np.testing.assert_allclose(likelihood.constants()["dispersion"].detach(), 1e-4, rtol=1e-5)
    readout = torch.linspace(-5, 3, 90).view(30, 3)
    counts = torch.poisson(readout.exp(), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        likelihood.nll(readout, counts), Poisson().nll(readout, counts), rtol=1e-2, atol=1e-2
    )


@pytest.mark.parametrize("count", [0.0, 1.0, 3.0, 2.5, 400.0])
@pytest.mark.parametrize("variance", [1.0, 3.0, 300.0])
def test_the_negative_binomial_loss_is_exact_in_single_precision(count, variance):
    single = made("negative_binomial", variance=variance)
    double = copy.deepcopy(single).double()
    readout = torch.tensor([[-60.0, 0.0, 15.0]])
    counts = torch.full((1, 3), count)
    expected = double.nll(readout.double(), counts.double())
    torch.testing.assert_close(single.nll(readout, counts).double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.isfinite(expected).all()


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("readout", [-1e4, -80.0, 0.0, 15.0, 1e4])
def test_expected_values_and_gradients_are_finite(name, readout):
    likelihood = made(name)
    readouts = torch.full((2, 3), readout, requires_grad=True)
    limited = likelihood.limit(readouts)
    loss = likelihood.nll(limited, torch.tensor([[0.0, 1.0, 7.0]]))
    loss.sum().backward()
    assert torch.isfinite(likelihood.mean(limited)).all()
    for values in (loss, readouts.grad, *(p.grad for p in likelihood.parameters())):
        assert torch.isfinite(values).all()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_null_model_has_the_mean_of_the_entries(name):
    likelihood = made(name)
    values = torch.as_tensor(draw(likelihood, np.full((4000, 3), 1.5)), dtype=torch.float32)
    sums = [part.sum(0) for part in likelihood.summary(values)]
    null = likelihood.null_nll(*sums, torch.full((3,), 4000.0))
    of_null = Poisson() if likelihood.counts else likelihood
    at_mean = of_null.nll(of_null.link(values.mean(0)).expand(values.shape), values).sum(0)
    if name == "zero_inflated_gamma":
        best = [_of_constant_gamma(column) for column in values.double().numpy().T]
        constant = values.gt(0).sum(0) * likelihood.size.log()
        at_mean = -torch.tensor(best, dtype=torch.float32) - constant
    if name == "gaussian":  # its variance is not that of the start
        spread = values.std(0, unbiased=False) / likelihood.scale
        at_mean = 4000 * (0.5 + spread.log())
    torch.testing.assert_close(null, at_mean.detach(), rtol=2e-3, atol=1e-2)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_cross_entropy_is_least_at_the_expected_value(name):
    likelihood = made(name)
    target = torch.tensor([0.3, 1.5, 6.0])
    readouts = likelihood.link(target) + torch.linspace(-2, 2, 401)[:, None]
    losses = likelihood.cross_entropy(readouts, target.expand(401, 3))
    assert losses.argmin(0).tolist() == pytest.approx([200] * 3, abs=1)


@pytest.mark.parametrize(("mean", "readout"), [(0.3, 0.4), (6.0, -1.0), (1.5, 1.2)])
def test_the_cross_entropy_of_sizes_is_their_expected_loss(mean, readout):
    likelihood = made("zero_inflated_gamma", 1).double()
    shape, rate, exponent = (v.item() for v in likelihood.of(...).constants().values())
    share = 1 - math.exp(-rate * mean**exponent)
    at = torch.tensor([readout], dtype=torch.float64)

    def loss(value):
        return likelihood.nll(at, torch.tensor([value], dtype=torch.float64)).item()

    of_positive = stats.gamma(shape, scale=mean / share / shape).expect(loss)
    expected = share * of_positive + (1 - share) * loss(0.0)
    found = likelihood.cross_entropy(at, torch.tensor([mean], dtype=torch.float64)).item()
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_cross_entropy_of_sizes_is_finite_where_none_is_expected():
    likelihood = made("zero_inflated_gamma", mean=100.0, variance=1e4).double()
    readout = torch.tensor([-3.0, 0.0, 2.0], dtype=torch.float64)
    found = likelihood.cross_entropy(readout, torch.zeros(3, dtype=torch.float64))
    least = torch.full((3,), 1e-4, dtype=torch.float64)  # a millionth of the mean
    torch.testing.assert_close(found, likelihood.cross_entropy(readout, least))
    # nearly all entries are 0
    torch.testing.assert_close(found, likelihood.nll(readout, 0 * readout), rtol=1e-3, atol=1e-4)


def test_losses_of_sizes_are_densities_in_units_of_the_mean():
    likelihood = made("zero_inflated_gamma").double()
    values = np.array([[0.0, 0.2, 4.0]])
    params = {k: v.detach().numpy() for k, v in likelihood.constants().items()}
    expected = -log_density("zero_inflated_gamma", values, np.full(3, 0.8), params)
    expected -= math.log(1.5) * (values > 0)
    mean = torch.full((1, 3), 0.8, dtype=torch.float64)
    found = likelihood.nll(likelihood.link(mean), torch.as_tensor(values))
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-6)


def test_the_loss_of_a_fraction_of_a_spike():
    likelihood = made("negative_binomial", 1).double()
    alpha = likelihood.constants()["dispersion"].item()
    for value in (0.5, 2.5):
        found = likelihood.nll(torch.zeros(1).double(), torch.full((1,), value).double()).item()
        rising = math.lgamma(value + 1 / alpha) - math.lgamma(1 / alpha) + value * math.log(alpha)
        expected = (value + 1 / alpha) * math.log1p(alpha) - rising
        assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_information_is_the_curvature_of_the_expected_loss(name):
    likelihood = made(name).double()
    for constant in likelihood.children():
        torch.nn.init.constant_(constant.change, 0.1)
    readout = torch.tensor([-1.0, 0.1, 1.2], dtype=torch.float64)
    target = likelihood.mean(readout)

    def loss(change):
        return likelihood.cross_entropy(readout + change, target)

    step = 1e-3
    curvature = (loss(step) + loss(-step) - 2 * loss(0.0)) / step**2
    torch.testing.assert_close(likelihood.information(readout), curvature, rtol=0.01, atol=1e-4)


@pytest.mark.parametrize("name", WITH_DERIVATIVES)
def test_the_gradient_is_that_of_the_loss(name):
    likelihood = made(name).double()
    readout = torch.linspace(-3, 2, 60, dtype=torch.float64).view(20, 3).requires_grad_()
    drawn = draw(likelihood, likelihood.mean(readout.detach()).numpy())
    values = torch.as_tensor(drawn, dtype=torch.float64)
    (slope,) = torch.autograd.grad(likelihood.nll(readout, values).sum(), readout)
    torch.testing.assert_close(likelihood.gradient(readout, values), -slope)
    assert likelihood.has_derivatives


@pytest.mark.parametrize("name", WITH_DERIVATIVES)
@pytest.mark.parametrize("readout", [-1e4, 0.0, 1e4])
def test_derivatives_are_finite(name, readout):
    likelihood = made(name)
    limited = likelihood.limit(torch.full((4, 3), readout)).clamp(max=likelihood.steepest)
    values = torch.tensor([0.0, 1.0, 7.0, 1e6])[:, None]
    assert likelihood.gradient(limited, values).isfinite().all()
    assert likelihood.information(limited).isfinite().all()


def test_averages_are_of_the_numbers_of_each_neuron():
    first, second = made("negative_binomial", variance=3.0), made("negative_binomial", variance=30)
    of_each = [one.constants()["dispersion"] for one in (first, second)]
    expected = (of_each[0] ** 3 * of_each[1]) ** 0.25
    found = average([first, second], [3, 1]).constants()["dispersion"]
    torch.testing.assert_close(found, expected.detach())


def test_averages_of_means_and_scales_are_arithmetic():
    first, second = made("gaussian", mean=1.0, std_input=2.0), made("gaussian", mean=5.0)
    found = average([first, second], [1, 3])
    torch.testing.assert_close(found.center, torch.full((3,), 4.0))
    torch.testing.assert_close(found.scale, torch.full((3,), (2.0 + 3 * 0.7) / 4))
    torch.testing.assert_close(first.center, torch.ones(3))  # as it was
    torch.testing.assert_close(average([second], [2]).center, second.center)


# ---- numbers of each neuron


def test_a_constant_stays_within_its_bounds():
    constant = Constant(3, 0.1, 10.0)
    torch.testing.assert_close(constant().detach(), torch.ones(3))
    constant.begin(torch.tensor([0.01, 2.0, 100.0]))
    torch.testing.assert_close(constant().detach(), torch.tensor([0.1, 2.0, 10.0]))
    torch.nn.init.constant_(constant.change, 0.1)  # five times as much, as a logarithm
    expected = torch.tensor([0.1 * math.exp(0.5), 2 * math.exp(0.5), 10.0])
    torch.testing.assert_close(constant().detach(), expected)
    constant.settle()
    torch.testing.assert_close(constant().detach(), expected)
    assert (constant.change == 0).all()
    torch.testing.assert_close(constant.start, expected.log())
    torch.nn.init.constant_(constant.change, -10.0)
    torch.testing.assert_close(constant().detach(), torch.full((3,), 0.1))


@pytest.mark.parametrize(
    ("statistics", "expected"),
    [
        ({}, 2.5 / 2.25),  # (variance - mean) / mean squared
        ({"variance": 1.5}, 1e-2),  # no more than of Poisson counts
        ({"mean": 0.1, "variance": 100.0}, 1e2),
    ],
)
def test_a_dispersion_begins_with_that_of_the_counts(statistics, expected):
    likelihood = made("negative_binomial", **statistics)
    torch.testing.assert_close(likelihood.constants()["dispersion"], torch.full((3,), expected))
    torch.nn.init.constant_(likelihood.dispersion.change, 0.1)
    of_one_step = torch.full((3,), min(expected * math.e, 1e2))
    torch.testing.assert_close(likelihood.constants()["dispersion"], of_one_step)
    torch.nn.init.constant_(likelihood.dispersion.change, -10.0)
    torch.testing.assert_close(likelihood.constants()["dispersion"], torch.full((3,), 1e-4))


def test_noise_begins_with_the_standard_deviation():
    likelihood = made("gaussian", mean=-2.0, std_input=0.5)
    for change, expected in ((0.0, 0.5), (0.1, 0.5 * math.exp(0.5)), (10, 5.0), (-10, 0.005)):
        torch.nn.init.constant_(likelihood.noise.change, change)
        torch.testing.assert_close(likelihood.constants()["noise"], torch.full((3,), expected))
    torch.testing.assert_close(likelihood.mean(torch.tensor([2.0])), torch.full((3,), -1.0))
    torch.testing.assert_close(likelihood.link(torch.tensor([-1.0])), torch.full((3,), 2.0))


@pytest.mark.parametrize(
    ("statistics", "expected"),
    [
        # 60 % positive, of mean 2.5 and variance (4 + 1.5^2) / 0.6 - 2.5^2
        ({}, {"shape": 1.5, "event_rate": -math.log(0.4) / 1.5, "exponent": 1.0}),
        # positive entries that are all equal
        ({"share_positive": 0.5, "variance": 2.25}, {"shape": 100.0}),
        ({"share_positive": 1.0}, {"event_rate": -math.log(1e-4) / 1.5}),
        ({"share_positive": 0.0}, {"event_rate": 1e-4 / 1.5}),
    ],
)
def test_sizes_begin_with_their_moments(statistics, expected):
    found = made("zero_inflated_gamma", **statistics).constants()
    for name, value in expected.items():
        values = torch.full((3,), value, dtype=found[name].dtype)
        torch.testing.assert_close(found[name].detach(), values, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("name", "low", "high", "at_start"),
    [("events", 1e-6, 1e2, -math.log(0.4)), ("exponent", 1e-2, 2.0, 1.0), ("shape", 0.1, 1e3, 1.5)],
)
def test_numbers_of_sizes_stay_within_their_bounds(name, low, high, at_start):
    constant = getattr(made("zero_inflated_gamma"), name)
    for change, expected in ((-10.0, low), (0.0, at_start), (10.0, high)):
        torch.nn.init.constant_(constant.change, change)
        torch.testing.assert_close(constant().detach(), torch.full((3,), expected))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("poisson", -1e6, MAX_LOG_RATE),
        ("negative_binomial", -1e6, MAX_LOG_RATE),
        ("gaussian", -1e4, 1e4),
        ("zero_inflated_gamma", -MAX_LOG_RATE, MAX_LOG_RATE),
    ],
)
def test_readouts_are_clipped(name, low, high):
    limited = made(name).limit(torch.tensor([-1e6, 0.5, 1e6]))
    torch.testing.assert_close(limited, torch.tensor([low, 0.5, high]))


def test_the_smallest_rate_is_above_zero():
    rates = Poisson().mean(torch.tensor([-1e4, -80.0, -79.0]))
    expected = torch.tensor([math.exp(-80), math.exp(-80), math.exp(-79)])
    torch.testing.assert_close(rates, expected, rtol=1e-5, atol=0)


# ---- null models, and the mean that scaling must not change


def test_null_models_of_few_entries():
    gaussian = made("gaussian", mean=1.0, std_input=2.0)
    values = torch.tensor([[3.0], [-1.0], [7.0]]).expand(3, 3)  # 1, -1 and 3 deviations
    sums = [part.sum(0) for part in gaussian.summary(values)]
    torch.testing.assert_close(sums, [torch.full((3,), 3.0), torch.full((3,), 11.0)])
    null = gaussian.null_nll(*sums, torch.full((3,), 3.0))
    torch.testing.assert_close(null, torch.full((3,), 1.5 * (1 + math.log(8 / 3))))
    # equal entries have a hundredth of the deviation
    null = gaussian.null_nll(torch.ones(3) * 4, torch.ones(3) * 8, torch.ones(3) * 2)
    torch.testing.assert_close(null, torch.full((3,), 1 + math.log(1e-4)))
    # of one entry, the deviation is not known
    null = gaussian.null_nll(torch.ones(3), torch.ones(3), torch.ones(3))
    torch.testing.assert_close(null, torch.full((3,), 0.5 * (1 + math.log(1e-4))))
    for name in LIKELIHOODS:
        likelihood = made(name)
        n_sums = len(likelihood.summary(torch.zeros(1, 3)))
        none = likelihood.null_nll(*torch.zeros(n_sums + 1, 3))
        torch.testing.assert_close(none, torch.zeros(3))


def test_the_null_model_of_sizes_has_the_shape_of_minka():
    likelihood = made("zero_inflated_gamma").double()
    # For exponential sizes, the logarithm of the mean exceeds the mean logarithm by 0.5772, and
    # (3 - x + sqrt((x - 3)^2 + 24 x)) / 12 x is 0.991.
    x = 0.5772156649
    k = (3 - x + math.sqrt((x - 3) ** 2 + 24 * x)) / (12 * x)
    assert k == pytest.approx(0.991, abs=1e-4)
    mean, n_positive, n_entries = 0.4, 30, 40
    density = math.lgamma(k) + k * math.log(mean / k) + k - (k - 1) * (math.log(mean) - x)
    expected = n_positive * density - 30 * math.log(0.75) - 10 * math.log(0.25)
    sums = [n_positive * mean, n_positive, n_positive * (math.log(mean) - x), n_entries]
    null = likelihood.null_nll(*(torch.full((1,), v, dtype=torch.float64) for v in sums))
    assert null.item() == pytest.approx(expected, rel=1e-9)
    # one positive entry of one: its shape is the largest, where x is 0.001
    k = (2.999 + math.sqrt(2.999**2 + 0.024)) / 0.012
    sums = [mean, 1.0, math.log(mean), 1.0]
    null = likelihood.null_nll(*(torch.full((1,), v, dtype=torch.float64) for v in sums))
    expected = math.lgamma(k) + k * math.log(mean / k) + k - (k - 1) * math.log(mean)
    assert null.item() == pytest.approx(expected, rel=1e-9)


def test_the_null_model_of_a_likelihood_of_a_user_is_its_mean():
    likelihood = Squares().fresh(3)
    likelihood.start_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    (losses,) = likelihood.summary(torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(losses, torch.tensor([[0.0, 1.0, 4.0], [1.0, 4.0, 9.0]]))
    total = losses.sum(0)
    assert torch.equal(likelihood.null_nll(total, torch.full((3,), 2.0)), total)


def test_a_shift_restores_the_mean_of_each_neuron():
    before = torch.tensor([[[0.0, 1.0, 5.0], [math.log(3), 1.0, 5.0]]])
    after = 2 * before
    known = torch.tensor([[[True, True, False], [True, False, False]]])
    shift = Poisson().shift(before, after, known)
    # rates of 1 and 3 became 1 and 9; e became e^2; and nothing is known of the last neuron
    torch.testing.assert_close(shift, torch.tensor([math.log(4 / 10), -1.0, 0.0]))
    assert torch.equal(made("gaussian").shift(before, after, known), torch.zeros(3))


# ---- a likelihood of one's own


class Squares(Likelihood):
    """The loss is the squared difference."""

    def link(self, mean):
        return mean

    def mean(self, readout):
        return readout

    def nll(self, readout, values):
        return (values - readout).square()

    def sample(self, mean, random_state):
        return random_state.normal(mean)


class SquaresOfSignals(Gaussian):
    """Another loss of a likelihood that has derivatives."""

    def nll(self, readout, values):
        return (self.link(values) - readout).square()


class WithDerivatives(SquaresOfSignals):
    """Derivatives of that loss."""

    def gradient(self, readout, values):
        return 2 * (self.link(values) - readout)

    def information(self, readout):
        return torch.full_like(readout, 2.0)


def test_derivatives_are_of_the_same_loss():
    assert WithDerivatives().has_derivatives
    assert not SquaresOfSignals().has_derivatives
    assert not Squares().has_derivatives
    assert not LIKELIHOODS["zero_inflated_gamma"]().has_derivatives


def test_what_a_likelihood_need_not_define():
    likelihood = Squares()
    readout = torch.tensor([[1.0, -3.0]])
    assert likelihood.limit(readout) is readout
    assert torch.equal(likelihood.information(readout), torch.ones(1, 2))
    assert likelihood.constants() == {}
    losses = likelihood.cross_entropy(readout, torch.zeros(1, 2))
    assert torch.equal(losses, torch.tensor([[1.0, 9.0]]))
    assert (likelihood.counts, likelihood.lowest, likelihood.root_input) == (False, None, False)
    assert (Poisson.counts, Poisson.lowest, Poisson.root_input) == (True, 0.0, True)
    spikes, entries = torch.tensor(3.0), torch.tensor(7.0)
    assert (likelihood.unit, likelihood.amount(spikes, entries)) == ("bits per entry", entries)
    assert (Poisson().unit, Poisson().amount(spikes, entries)) == ("bits per spike", spikes)


def test_every_population_has_numbers_of_its_own():
    likelihood = LIKELIHOODS["negative_binomial"]()
    first, second = likelihood.fresh(2), likelihood.fresh(5)
    assert (len(first.start_mean), len(second.dispersion.change)) == (2, 5)
    assert "start_mean" not in first.state_dict()
    assert not likelihood.state_dict()
    second.dispersion.begin(torch.arange(1.0, 6.0))
    chosen = second.of([3, 0])
    torch.testing.assert_close(chosen.constants()["dispersion"], torch.tensor([4.0, 1.0]))
    assert not any(values.requires_grad for values in chosen.parameters())
    assert all(values.requires_grad for values in second.parameters())
    assert len(second.of(...).dispersion.start) == len(second.dispersion.start) == 5
    torch.testing.assert_close(second.of(...).dispersion(), second.dispersion().detach())


def test_names_and_objects_of_likelihoods():
    own = Squares()
    assert as_likelihood(own) is own
    assert type(as_likelihood("poisson")) is Poisson
    found = known_likelihoods(["gaussian", own, "linear", None, 3, ["poisson"]])
    assert [type(one).__name__ for one in found] == ["Gaussian", "Squares"]


class OfOneNeuron(Squares):
    def link(self, mean):
        return mean[:1]

    def nll(self, readout, values):
        return torch.ones(2, 4, 3)


class OfMoreNeurons(Squares):
    def mean(self, readout):
        return torch.ones(4)


class Total(Squares):
    def nll(self, readout, values):
        return super().nll(readout, values).sum()


class Few(Squares):
    def mean(self, readout):
        return readout[:2]


def test_a_likelihood_returns_a_number_for_each_entry():
    for right in ("poisson", Squares(), Poisson(), LIKELIHOODS["zero_inflated_gamma"]()):
        check_likelihood(right)
    for wrong, message in (
        (OfOneNeuron(), r"link of likelihood=OfOneNeuron\(...\) returned shape \(1,\) .* \(3,\)"),
        (OfMoreNeurons(), r"mean of .* returned shape \(4,\) .* where \(3,\) was"),
        (Few(), r"mean of likelihood=Few\(...\) returned shape \(2,\) .* where \(3,\) was"),
        (Total(), r"nll of likelihood=Total\(...\) returned shape \(\) .* \(2, 4, 3\) was"),
    ):
        with pytest.raises(ValueError, match=message):
            check_likelihood(wrong)
    with pytest.raises(TypeError, match=r"lacks link, mean, nll, sample\. A likelihood"):
        check_likelihood(Likelihood())
