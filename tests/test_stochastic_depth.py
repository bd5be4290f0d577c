"""Training passes that skip spatial attention."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from sklearn_stndt import STNDTEstimator
from sklearn_stndt.network import STNDT
from sklearn_stndt.network.dropout import StochasticDepth

N_BINS, N_NEURONS = 6, 5
DRY = {"dropout": 0.0, "dropout_embedding": 0.0, "dropout_rates": 0.0}
SMALL = {"n_layers": 2, "n_heads": 2, "d_model": 6, "dim_feedforward": 8, "d_spatial": 4} | DRY


pytestmark = pytest.mark.usefixtures("torch_seed")


def build(**params):
    """A network in training mode, without dropout, with noise added to all weights."""
    network = STNDT(N_NEURONS, N_BINS, **SMALL | params).train()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return network


@pytest.fixture
def spikes():
    return torch.poisson(torch.ones(3, N_BINS, N_NEURONS))


@pytest.fixture
def shown(spikes):
    return torch.ones_like(spikes, dtype=torch.bool)


@pytest.mark.parametrize("p", [0.25, 0.75])
def test_the_factor_is_1_on_average(p):
    factors = [StochasticDepth(p).draw_factor() for _ in range(4_000)]
    assert set(factors) == {0.0, 1 / (1 - p)}
    # four standard errors
    assert np.mean(factors) == pytest.approx(1, abs=4 * np.sqrt(p / (1 - p) / 4_000))


def test_nothing_is_skipped_in_inference():
    assert {StochasticDepth(0.75).eval().draw_factor() for _ in range(50)} == {1.0}


def test_at_probability_0_no_random_number_is_drawn():
    state = torch.get_rng_state()
    assert StochasticDepth(0.0).draw_factor() == 1.0
    assert_array_equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("spatial_layers", ["last", "all"])
def test_rates_do_not_depend_on_the_probability(spatial_layers, spikes, shown):
    network = build(spatial_layers=spatial_layers, stochastic_depth=0.75).eval()
    always = build(spatial_layers=spatial_layers).eval()
    always.load_state_dict(network.state_dict())
    assert_array_equal(
        network(spikes, shown).log_rates.detach(), always(spikes, shown).log_rates.detach()
    )


def test_a_skipped_pass_is_that_of_the_temporal_network(spikes, shown):
    network = build(stochastic_depth=0.5)
    temporal = build(attention="temporal")
    temporal.load_state_dict(network.state_dict(), strict=False)
    alone = temporal(spikes, shown, return_attention=True).log_rates
    for _ in range(20):
        output = network(spikes, shown, return_attention=True)
        assert torch.equal(output.log_rates, alone) == (not output.spatial_weights)


def test_every_layer_has_its_own_draw(spikes, shown):
    network = build(spatial_layers="all", stochastic_depth=0.5)
    runs = [network(spikes, shown, return_attention=True) for _ in range(40)]
    assert {len(run.spatial_weights) for run in runs} == {0, 1, 2}
    assert {len(run.temporal_weights) for run in runs} == {2}


@pytest.mark.parametrize("spatial_layers", ["last", "all"])
def test_a_skipped_part_gets_no_gradient(spatial_layers, spikes, shown):
    network = build(spatial_layers=spatial_layers, stochastic_depth=0.999)
    network(spikes, shown).log_rates.sum().backward()
    without = {name for name, p in network.named_parameters() if p.grad is None}
    assert {name.split(".")[0] for name in without if not name.startswith("token")} == {
        "mix_last" if spatial_layers == "last" else "mix_every"
    }


@pytest.fixture(scope="module")
def wide():
    return np.random.RandomState(0).poisson(0.5, (20, 8, 128))


def test_the_probability_depends_on_the_number_of_neurons(small, wide):
    assert small(max_epochs=1).fit(wide).net_.module_.depth.p == 0.75
    assert small(max_epochs=1).fit(wide[..., 1:]).net_.module_.depth.p == 0
    assert small(max_epochs=1, spatial_layers="all").fit(wide).net_.module_.depth.p == 0
    assert small(max_epochs=1, stochastic_depth=0.3).fit(wide).net_.module_.depth.p == 0.3


def test_the_seed_determines_the_rates(small, wide):
    rates = [small(max_epochs=3).fit_transform(wide) for _ in range(2)]
    assert_array_equal(*rates)
    other = small(max_epochs=3, stochastic_depth=0).fit_transform(wide)
    assert not np.array_equal(other, rates[0])


def test_a_probability_of_1_is_refused(wide):
    with pytest.raises(ValueError, match="stochastic_depth"):
        STNDTEstimator(stochastic_depth=1.0).fit(wide)
