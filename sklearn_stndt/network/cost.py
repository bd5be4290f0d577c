"""Cost model: activations and memory of a window, and how many windows to process at once.

All estimates come from the network's settings and the shape of a window.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch

from sklearn_stndt.network.causal import N_FILTERS

if TYPE_CHECKING:
    from sklearn_stndt.network.model import STNDT

CPU_CHUNK_ENTRIES = 2**20  # entries of the largest activation of a micro-batch
GPU_CHUNK_ENTRIES = 2**27
MAX_INFERENCE_ENTRIES = 2**24  # entries of all activations of a batch, on the order of 100 MB


def largest_activation(network: "STNDT", n_bins: int, n_neurons: int) -> int:
    """Entries of the largest tensor of one window in the forward pass."""
    settings, width = network.settings, network.width
    widest = max(settings.dim_feedforward, 3 * width, n_neurons)
    return max(n_bins * widest, spatial_entries(network, n_bins, n_neurons))


def spatial_entries(network: "STNDT", n_bins: int, n_neurons: int) -> int:
    """Entries of the weights of a spatial attention: a map, or, if causal, queries and keys."""
    settings = network.settings
    if settings.attention != "spatiotemporal":
        return 0
    if not settings.causal:
        return settings.n_spatial_heads * n_neurons**2
    return 2 * n_bins * n_neurons * (settings.d_spatial or N_FILTERS)


def training_chunk_size(network: "STNDT", shape: torch.Size, device: torch.device) -> int:
    """Windows per micro-batch in training.

    On a CPU, few enough that their activations stay in the processor's caches, which is faster; on
    a GPU, as many as the memory bound allows.
    """
    _, n_bins, n_neurons = shape
    largest, limit = largest_activation(network, n_bins, n_neurons), CPU_CHUNK_ENTRIES
    if device.type != "cpu":  # where attention between bins is not computed block by block
        largest, limit = max(largest, network.settings.n_heads * n_bins**2), GPU_CHUNK_ENTRIES
    return int(np.clip(limit // largest, 1, 2**16))


def inference_batch_size(network: "STNDT", n_bins: int, n_neurons: int) -> int:
    """Windows per batch at inference, within the memory bound."""
    a_window = n_bins * (4 * n_neurons + 12 * network.width) + 2 * n_neurons**2
    a_window += network.settings.n_heads * n_bins**2
    if network.settings.causal:
        a_window += 3 * spatial_entries(network, n_bins, n_neurons)
    return int(np.clip(MAX_INFERENCE_ENTRIES // a_window, 1, 256))


def training_bytes(network: "STNDT", n_bins: int, n_neurons: int) -> int:
    """Approximate memory of a training step on a single window.

    The factors were fitted to measured peaks, for windows of 200 to 6,000 bins and 50 to 2,000
    neurons; estimates of gigabytes are within a factor of 1.5.

    Parameters
    ----------
    network : STNDT
        The network.
    n_bins, n_neurons : int
        Shape of the window.

    Returns
    -------
    int
        Bytes.
    """
    settings = network.settings
    of_a_bin = settings.n_layers * (16 * network.width + 4 * settings.dim_feedforward)
    streams = 1.5 * n_bins * (of_a_bin + 12 * n_neurons)
    between_bins = 7 * settings.n_heads * n_bins**2
    between_neurons = 0
    if settings.attention == "spatiotemporal":
        n_mixings = 1 if settings.spatial_layers == "last" else settings.n_layers
        n_tensors = 4 if settings.causal else 8
        between_neurons = n_tensors * n_mixings * spatial_entries(network, n_bins, n_neurons)
    return int(4 * (streams + between_bins + between_neurons))
