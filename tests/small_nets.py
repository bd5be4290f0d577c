"""A small net, and counts with gaps for it, that several test files share."""

import torch

from sklearn_stndt import STNDTEstimator
from sklearn_stndt.training.net import build_net
from sklearn_stndt.training.settings import DataSize, resolve
from sklearn_stndt.windows.cutting import cut
from sklearn_stndt.windows.segments import as_segments

N_BINS, N_NEURONS = 8, 5
SMALL = {
    "n_layers": 1,
    "n_heads": 2,
    "d_model": 8,
    "dim_feedforward": 8,
    "dropout": 0.1,
    "d_spatial": 4,
}


def draw_counts():
    """Counts with missing entries, a missing bin and a missing neuron."""
    spikes = torch.poisson(torch.ones(6, N_BINS, N_NEURONS))
    spikes[torch.rand(spikes.shape) < 0.1] = torch.nan
    spikes[0, 3] = torch.nan
    spikes[1, :, 2] = torch.nan
    return spikes


def windows_of(batch):
    return cut(as_segments(batch.numpy()), N_BINS, N_BINS)


def small_net(callbacks=(), validation=None, n_train=12, heldout_neurons=(), **params):
    choices = {"max_epochs": 2, "batch_size": 4, "lr": 0.01, "n_iter_no_change": 5, "warmup": 0.3}
    estimator = STNDTEstimator(**(SMALL | choices | params), callbacks=list(callbacks))
    size = DataSize(n_train * N_BINS, N_NEURONS, n_train, N_BINS, 1.0)
    settings = resolve(estimator, size, heldout_neurons=heldout_neurons, device="cpu", seed=0)
    return build_net(settings, N_NEURONS, range(n_train), validation).initialize()
