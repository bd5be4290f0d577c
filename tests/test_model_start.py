"""The network as it begins to train."""

import pytest
import torch

from sklearn_stndt.network import STNDT, info_nce, loss_weights, masked_modelling_loss

N_BINS, N_NEURONS = 12, 5
PUBLISHED = {
    "d_model": None,
    "spatial_layers": "all",
    "d_spatial": None,
    "n_spatial_heads": 2,
    "input_scaling": "counts",
    "local_attention": False,
}
DEFAULT_AND_PUBLISHED = pytest.mark.parametrize(
    "form", [{}, PUBLISHED, {"spatial_layers": "all"}], ids=["default", "published", "all"]
)


pytestmark = pytest.mark.usefixtures("torch_seed")


def counts(n_trials=3, n_bins=N_BINS):
    return torch.poisson(torch.ones(n_trials, n_bins, N_NEURONS))


def everything(spikes):
    return torch.ones_like(spikes, dtype=torch.bool)


def test_scaled_input_has_the_values_computed_by_hand():
    # counts 4 and 9 of neurons with mean roots 1 and 2 and deviations .25 and 4
    spikes, visible = torch.tensor([[[4.0, 9.0]]]), torch.ones(1, 1, 2, dtype=torch.bool)
    expected = {
        "sqrt": [(2 - 1) / 0.5, (3 - 2) / 0.5],
        "standardized": [(2 - 1) / 0.25, (3 - 2) / 4],
        "counts": [4 * 2**0.5, 9 * 2**0.5],
    }
    for scaling, values in expected.items():
        network = STNDT(2, 1, input_scaling=scaling).requires_grad_(False)
        network.set_statistics(torch.ones(2), torch.tensor([1.0, 2.0]), torch.tensor([0.25, 4.0]))
        token = network.scaling.token
        token += torch.tensor([-5.0, -6.0]) * token.new_tensor(scaling != "counts")
        entering, bare = network.scaling(spikes, visible.float())
        torch.testing.assert_close(entering, torch.tensor([[values]]))
        torch.testing.assert_close(bare, torch.tensor([[values]]))
        entering, bare = network.scaling(spikes, (~visible).float())
        assert torch.equal(entering[0, 0], token)
        assert torch.equal(bare, torch.zeros(1, 1, 2))


@pytest.mark.parametrize(
    "form", [{}, PUBLISHED, {"attention": "temporal"}, {"input_scaling": "standardized"}]
)
def test_rates_start_near_the_mean_rates(form):
    mean_rates = torch.logspace(-2, 1, 30)
    spikes = torch.poisson(mean_rates.expand(8, 20, 30))
    network = STNDT(30, 20, **form).eval()
    roots = spikes.sqrt().flatten(0, 1)
    network.set_statistics(mean_rates, roots.mean(0), roots.std(0).clamp(min=0.1))
    with torch.no_grad():
        log_rates = network(spikes, everything(spikes)).log_rates
    # the means span a factor of 1,000: e^.5 is near
    assert (log_rates - mean_rates.log()).abs().mean() < 0.5


def test_training_starts_with_the_temporal_network():
    spatial, temporal = STNDT(5, 12), STNDT(5, 12, attention="temporal")
    temporal.load_state_dict(spatial.state_dict(), strict=False)
    spikes = counts()
    with torch.no_grad():
        first, second = (
            network.eval()(spikes, everything(spikes)).log_rates for network in (spatial, temporal)
        )
    assert torch.equal(first, second)


@pytest.mark.parametrize("local", [True, False])
@torch.no_grad()
def test_attention_starts_local_where_it_is_asked_for(local):
    network = STNDT(N_NEURONS, 40, local_attention=local).eval()
    spikes = counts(n_bins=40)
    output = network(spikes, everything(spikes), return_attention=True)
    for weights in output.temporal_weights:
        far = weights.mean((0, 1)).tril(-20).max()
        near = weights.mean((0, 1)).diagonal().min()
        assert (near > 4 * far) == local


def train_some_steps(network, n_steps):
    """Train on masked counts; what is left in `grad` is of the last step."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    spikes = counts(8)
    for _ in range(n_steps):
        optimizer.zero_grad()
        masked = torch.rand(spikes.shape) < 0.3
        log_rates = network(spikes, ~masked).log_rates
        nll = network.likelihood.nll(log_rates, spikes)
        masked_modelling_loss(nll, loss_weights(masked)).backward()
        optimizer.step()


def without_gradient(network):
    return [
        name
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.norm() > 0)
    ]


@DEFAULT_AND_PUBLISHED
def test_no_parameter_is_dead(form):
    network = STNDT(N_NEURONS, N_BINS, **form)
    # several steps, because the map back from neurons starts at zero
    train_some_steps(network, 3)
    assert without_gradient(network) == []


@DEFAULT_AND_PUBLISHED
def test_the_contrast_reaches_all_but_the_end(form):
    network = STNDT(N_NEURONS, N_BINS, **form)
    train_some_steps(network, 3)
    network.zero_grad()
    spikes = counts(8)
    first, second = (network(spikes, torch.rand(spikes.shape) < 0.7).encoded for _ in range(2))
    info_nce(first, second, 0.07).backward()
    end = {"norm.weight", "norm.bias", "readout.bias"}
    if form == PUBLISHED:  # otherwise the readout's weights lead to neuron space too
        end.add("readout.weight")
    assert set(without_gradient(network)) == end
