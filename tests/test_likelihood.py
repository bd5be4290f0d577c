"""Likelihoods of counts."""

import math

import pytest
import torch

from sklearn_stndt.network.likelihood import MAX_LOG_RATE, Poisson

poisson_nll = Poisson().nll


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
