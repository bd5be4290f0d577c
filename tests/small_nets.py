"""Small networks and nets, and counts for them, that several test files share."""

import pytest
import torch
from torch import nn

from sklearn_stndt import STNDTEstimator
from sklearn_stndt.network import N_FOLDS, NetworkOutput, NetworkSettings
from sklearn_stndt.network.likelihood import Poisson
from sklearn_stndt.training.net import MaskedModellingNet, build_net
from sklearn_stndt.training.objective import ObjectiveSettings
from sklearn_stndt.training.settings import DataSize, resolve
from sklearn_stndt.windows.cutting import cut
from sklearn_stndt.windows.segments import as_segments

N_BINS, N_NEURONS = 12, 5
SMALL = {
    "n_layers": 1,
    "n_heads": 2,
    "d_model": 8,
    "dim_feedforward": 8,
    "dropout": 0.1,
    "d_spatial": 4,
}
PUBLISHED = {
    "d_model": None,
    "spatial_layers": "all",
    "d_spatial": None,
    "n_spatial_heads": 2,
    "input_scaling": "counts",
    "local_attention": False,
}


def draw_counts(n_trials=3, n_bins=N_BINS, n_neurons=N_NEURONS, dtype=torch.float32):
    """Poisson counts, 1 spike per bin on average."""
    return torch.poisson(torch.ones(n_trials, n_bins, n_neurons, dtype=dtype))


def draw_counts_with_gaps(n_trials=6):
    """Counts with missing entries, a missing bin and a missing neuron."""
    spikes = draw_counts(n_trials)
    spikes[torch.rand(spikes.shape) < 0.1] = torch.nan
    spikes[0, 3] = torch.nan
    spikes[1, :, 2] = torch.nan
    return spikes


def all_visible(spikes):
    return torch.ones_like(spikes, dtype=torch.bool)


def windows_of(batch):
    return cut(as_segments(batch.numpy()), N_BINS, N_BINS)


def small_net(callbacks=(), validation=None, n_train=12, heldout_neurons=(), **params):
    choices = {"max_epochs": 2, "batch_size": 4, "lr": 0.01, "n_iter_no_change": 5, "warmup": 0.3}
    estimator = STNDTEstimator(**(SMALL | choices | params), callbacks=list(callbacks))
    size = DataSize(n_train * N_BINS, N_NEURONS, n_train, N_BINS, 1.0)
    settings = resolve(estimator, size, heldout_neurons=heldout_neurons, device="cpu", seed=0)
    return build_net(settings, N_NEURONS, range(n_train), validation).initialize()


class Spy(nn.Module):
    """A network that records its input and returns one log-rate for all entries."""

    def __init__(self):
        super().__init__()
        self.log_rate = nn.Parameter(torch.tensor(0.5))
        self.calls = []
        self.likelihood = Poisson()
        self.settings, self.width = NetworkSettings(), 64

    def forward(self, spikes, visible):
        self.calls.append((spikes, visible, self.training, torch.is_grad_enabled()))
        encoded = (spikes * visible).sum(1) + self.log_rate
        return NetworkOutput(self.log_rate.expand(spikes.shape), encoded, [], [])

    def infer(self, spikes, visible, masks):
        (shown,) = masks
        return self(spikes, visible & shown)


def spying_net(n_scored_folds=N_FOLDS, **objective):
    net = MaskedModellingNet(
        Spy,
        train_split=None,
        objective=ObjectiveSettings(**objective),
        n_scored_folds=n_scored_folds,
    ).initialize()
    net.history.new_epoch()
    net.history.new_batch()
    return net


HIDING = pytest.mark.parametrize(
    ("heldout", "n_forecast"), [([], 0), ([1, 4], 0), ([], 3), ([1, 4], 3)]
)


def may_be_shown(batch, heldout, n_forecast):
    visible = ~batch.isnan()
    visible[:, :, heldout] = False
    visible[:, N_BINS - n_forecast :] = False
    return visible
