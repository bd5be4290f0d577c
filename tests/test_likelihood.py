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
    Poisson,
    Statistics,
    average,
)

poisson_nll = Poisson().nll
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


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_information_is_the_curvature_of_the_expected_loss(name):
    likelihood = made(name).double()
    readout = torch.tensor([-1.0, 0.1, 1.2], dtype=torch.float64)
    target = likelihood.mean(readout)

    def loss(change):
        return likelihood.cross_entropy(readout + change, target)

    step = 1e-3
    curvature = (loss(step) + loss(-step) - 2 * loss(0.0)) / step**2
    torch.testing.assert_close(likelihood.information(readout), curvature, rtol=0.01, atol=1e-4)


def test_averages_are_of_the_numbers_of_each_neuron():
    first, second = made("negative_binomial", variance=3.0), made("negative_binomial", variance=30)
    of_each = [one.constants()["dispersion"] for one in (first, second)]
    expected = (of_each[0] ** 3 * of_each[1]) ** 0.25
    found = average([first, second], [3, 1]).constants()["dispersion"]
    torch.testing.assert_close(found, expected.detach())
