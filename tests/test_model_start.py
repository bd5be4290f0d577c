"""The network before training, and the gradients of its parameters."""

import pytest
import torch
from small_nets import N_BINS, N_NEURONS, PUBLISHED, all_visible, draw_counts

from sklearn_stndt.network import STNDT, info_nce, loss_weights, masked_modelling_loss

DEFAULT_AND_PUBLISHED = pytest.mark.parametrize(
    "form", [{}, PUBLISHED, {"spatial_layers": "all"}], ids=["default", "published", "all"]
)


pytestmark = pytest.mark.usefixtures("torch_seed")


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
        log_rates = network(spikes, all_visible(spikes)).log_rates
    # the mean rates span a factor of 1,000, and e^0.5 is small in comparison
    assert (log_rates - mean_rates.log()).abs().mean() < 0.5


def test_training_starts_with_the_temporal_network():
    spatial, temporal = STNDT(5, 12), STNDT(5, 12, attention="temporal")
    temporal.load_state_dict(spatial.state_dict(), strict=False)
    spikes = draw_counts()
    with torch.no_grad():
        first, second = (
            network.eval()(spikes, all_visible(spikes)).log_rates for network in (spatial, temporal)
        )
    assert torch.equal(first, second)


@pytest.mark.parametrize("local", [True, False])
@torch.no_grad()
def test_local_attention_is_local_before_training(local):
    network = STNDT(N_NEURONS, 40, local_attention=local).eval()
    spikes = draw_counts(n_bins=40)
    output = network(spikes, all_visible(spikes), return_attention=True)
    for weights in output.temporal_weights:
        far = weights.mean((0, 1)).tril(-20).max()
        near = weights.mean((0, 1)).diagonal().min()
        assert (near > 4 * far) == local


def train_some_steps(network, n_steps):
    """Train on masked counts, and keep the gradients of the last step."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    spikes = draw_counts(8)
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
def test_every_parameter_gets_a_gradient(form):
    network = STNDT(N_NEURONS, N_BINS, **form)
    # several steps, because the projection back from neurons starts at zero
    train_some_steps(network, 3)
    assert without_gradient(network) == []


@DEFAULT_AND_PUBLISHED
def test_the_contrast_trains_all_but_the_read_out(form):
    network = STNDT(N_NEURONS, N_BINS, **form)
    train_some_steps(network, 3)
    network.zero_grad()
    spikes = draw_counts(8)
    first, second = (network(spikes, torch.rand(spikes.shape) < 0.7).encoded for _ in range(2))
    info_nce(first, second, 0.07).backward()
    end = {"norm.weight", "norm.bias", "readout.bias"}
    if form == PUBLISHED:  # otherwise spatial attention uses the weights of the readout
        end.add("readout.weight")
    assert set(without_gradient(network)) == end
