"""How far the log-rates of other neurons follow the counts of a neuron."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sklearn_stndt.estimator import STNDTEstimator
from sklearn_stndt.inspection.attention import map_windows
from sklearn_stndt.training.net import inference_batch_size
from sklearn_stndt.training.seeding import isolated_torch
from sklearn_stndt.training.windows import Segments


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
        Random projections, pairs of complementary ones.
    seed : int
        Draws them.

    Returns
    -------
    ndarray of shape (n_neurons,)
        0 for a neuron that is hidden everywhere.
    """
    windows, _ = map_windows(network, segments)
    net, module = network.net_, network.net_.module_
    n_neurons = windows.rows.shape[1]
    size = inference_batch_size(module, windows.window, n_neurons)
    size = max(size // (4 * len(module.layers)), 1)  # activations wait for the way back
    squares, moments, n_visible = np.zeros(n_neurons), np.zeros((2, n_neurons)), np.zeros(n_neurons)
    draw = np.random.RandomState(seed)
    for start in range(0, len(windows), size):
        batch = windows.__getitems__(np.arange(start, min(start + size, len(windows))))[0]
        with isolated_torch(network.n_threads, device=net.device):
            net._set_training(False)
            spikes, known, visible = net.split_visible(batch)
            inputs = _Inputs(module)
            try:
                log_rates = module(spikes, visible).log_rates  # (batch, n_bins, n_neurons)
            finally:
                inputs.release()
            # the information that a change of a log-rate carries grows with the rate
            exists = known.any(2, keepdim=True)  # padding has no rates that matter
            weight = (log_rates.detach() / 2).exp() * exists
            for projection, inputs_of in _projections(draw, n_repeats, log_rates.shape):
                sign = torch.from_numpy(projection).to(log_rates.device)
                gradient = inputs.gradient((log_rates * weight * sign).sum())
                gradient = (gradient * visible).square().sum((0, 1))
                squares += inputs_of * gradient.double().cpu().numpy()
            del log_rates
            _, values = module.scaled_input(spikes, visible)
            values = values.detach().double()  # 0 where hidden
            moments += torch.stack([values.sum((0, 1)), values.square().sum((0, 1))]).cpu().numpy()
            n_visible += visible.sum((0, 1)).cpu().numpy()
    n_visible = np.maximum(n_visible, 1)
    mean, square = moments / n_visible
    variance = np.maximum(square - mean**2, 0)
    return np.sqrt(squares * variance / (n_visible * n_repeats))


def _projections(draw: np.random.RandomState, n_repeats: int, shape: tuple):
    """Random signs of the log-rates of one half of the neurons, and the other half as inputs.

    The expected square of a gradient of randomly signed sums is the sum of the squares of all
    gradients; of two halves, one is never the other's neuron itself.
    """
    n_neurons = shape[-1]
    for _ in range(n_repeats):
        first = np.zeros(n_neurons, dtype=np.float32)
        first[draw.permutation(n_neurons)[: n_neurons // 2]] = 1.0
        for outputs in (first, 1.0 - first):
            signs = draw.choice(np.array([-1.0, 1.0], dtype=np.float32), size=shape)
            yield signs * outputs, 1.0 - outputs


class _Inputs:
    """Takes hold of the scaled counts where they enter a network: as bins, and as time courses."""

    def __init__(self, module):
        self.leaves: list[tuple[Tensor, bool]] = []
        entrances = [(module.embed, 0, False)]
        if module.mix_last is not None:
            entrances.append((module.mix_last, 1, True))
        if module.mix_every is not None:
            entrances.append((module.mix_every.embed_courses, 0, True))
        self.handles = [
            part.register_forward_pre_hook(self._hook(position, transposed))
            for part, position, transposed in entrances
        ]

    def _hook(self, position: int, transposed: bool):
        def take(_, inputs):
            leaf = inputs[position].detach().requires_grad_()
            self.leaves.append((leaf, transposed))
            return (*inputs[:position], leaf, *inputs[position + 1 :])

        return take

    def release(self) -> None:
        for handle in self.handles:
            handle.remove()

    def gradient(self, output: Tensor) -> Tensor:
        """Gradient by the scaled counts, (batch, n_bins, n_neurons): the sum of all entrances."""
        gradients = torch.autograd.grad(
            output, [leaf for leaf, _ in self.leaves], retain_graph=True, materialize_grads=True
        )
        parts = [
            gradient.transpose(1, 2) if transposed else gradient
            for gradient, (_, transposed) in zip(gradients, self.leaves, strict=True)
        ]
        return torch.stack(parts).sum(0)
