"""Sensitivity of the log-rates of other neurons to the counts of a neuron."""

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_stndt.estimator import STNDTEstimator
from sklearn_stndt.inspection.attention import map_windows
from sklearn_stndt.network.cost import inference_batch_size
from sklearn_stndt.network.isolation import isolated_torch
from sklearn_stndt.windows.segments import Segments


def gradient_importance(
    network: STNDTEstimator, segments: Segments, n_repeats: int, seed: int
) -> NDArray:
    """Root of the mean squared sensitivity of other neurons to each neuron's input.

    Parameters
    ----------
    network : STNDTEstimator
        Fitted.
    segments : Segments
        Counts, NaN where hidden.
    n_repeats : int
        Number of pairs of complementary random projections.
    seed : int
        Seed of the projections.

    Returns
    -------
    ndarray of shape (n_neurons,)
        0 for a neuron that is hidden everywhere.
    """
    windows, _ = map_windows(network, segments)
    net, module = network.net_, network.net_.module_
    n_neurons = windows.rows.shape[1]
    size = inference_batch_size(module, windows.window, n_neurons)
    size = max(size // (4 * len(module.layers)), 1)  # activations are kept for the backward pass
    squares, moments, n_visible = np.zeros(n_neurons), np.zeros((2, n_neurons)), np.zeros(n_neurons)
    draw = np.random.RandomState(seed)
    for start in range(0, len(windows), size):
        batch = windows.__getitems__(np.arange(start, min(start + size, len(windows))))[0]
        with isolated_torch(network.n_threads, device=net.device, precision=network.precision):
            module.eval()
            spikes, known, visible = net.split_visible(batch)
            shown = visible.to(spikes.dtype)
            with torch.no_grad():
                values = module.scaling(spikes, shown)  # for bins, and for time courses
            inputs = [x.clone().requires_grad_() for x in values]
            # (batch, n_bins, n_neurons)
            log_rates = module.from_scaled(*inputs, shown).log_rates
            exists = known.any(2, keepdim=True)  # rates of padding do not count
            weight = module.likelihood.information(log_rates.detach()).sqrt() * exists
            for projection, inputs_of in _projections(draw, n_repeats, log_rates.shape):
                sign = torch.from_numpy(projection).to(log_rates.device)
                gradients = torch.autograd.grad(
                    (log_rates * weight * sign).sum(),
                    inputs,
                    retain_graph=True,
                    allow_unused=True,
                    materialize_grads=True,
                )
                gradient = (torch.stack(gradients).sum(0) * visible).square().sum((0, 1))
                squares += inputs_of * gradient.double().cpu().numpy()
            del log_rates
            scaled = values[1].double()  # 0 where hidden
            moments += torch.stack([scaled.sum((0, 1)), scaled.square().sum((0, 1))]).cpu().numpy()
            n_visible += visible.sum((0, 1)).cpu().numpy()
    n_visible = np.maximum(n_visible, 1)
    mean, square = moments / n_visible
    variance = np.maximum(square - mean**2, 0)
    return np.sqrt(squares * variance / (n_visible * n_repeats))


def _projections(draw: np.random.RandomState, n_repeats: int, shape: tuple):
    """Draw random signs for the log-rates of half of the neurons, with the other half as inputs.

    The expected squared gradient of a sum with random signs is the sum of all squared gradients.
    With two disjoint halves, no neuron is compared with itself.
    """
    n_neurons = shape[-1]
    for _ in range(n_repeats):
        first = np.zeros(n_neurons, dtype=np.float32)
        first[draw.permutation(n_neurons)[: n_neurons // 2]] = 1.0
        for outputs in (first, 1.0 - first):
            signs = draw.choice(np.array([-1.0, 1.0], dtype=np.float32), size=shape)
            yield signs * outputs, 1.0 - outputs
