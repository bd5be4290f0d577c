"""Layers shared by the temporal and the spatial part of the network."""

import math

import torch
from torch import Tensor, nn

from sklearn_stndt.network.dropout import Dropout

HIDDEN_SCORE = 1e6  # subtracted from scores of hidden bins and neurons: exp(-1e6) is 0


def certainly(condition: Tensor) -> bool:
    """Whether a condition holds that merely allows a faster way.

    False while the network is exported, when there are no values yet.
    """
    return not torch.compiler.is_compiling() and bool(condition)


def sinusoids(n_positions: int, width: int) -> Tensor:
    """Sinusoidal position encoding, shape (n_positions, width), for any width."""
    position = torch.arange(n_positions)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(1e4) / width))
    angle = position * frequency  # (n_positions, ceil(width / 2))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]


class GaussianSmoothing(nn.Module):
    """Gaussian smoothing along bins at inference, with a width set after training.

    Attributes
    ----------
    width : Tensor, shape ()
        Standard deviation in bins; 0: no smoothing.
    """

    width: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("width", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        # (batch, n_bins, n_neurons)
        if self.training or not (torch.compiler.is_compiling() or self.width):
            return x  # an export has no values, and leaves out a width of 0 beforehand
        return smoothing_kernel(x.shape[1], self.width).to(x.dtype) @ x


def smoothing_kernel(n_bins: int, width: Tensor) -> Tensor:
    """Gaussian kernel of each bin, normalised within the window, shape (n_bins, n_bins).

    Parameters
    ----------
    n_bins : int
        Bins of the window.
    width : Tensor, shape ()
        Standard deviation in bins, above 0.
    """
    bins = torch.arange(n_bins, device=width.device)
    distance = (bins[:, None] - bins) / width
    return torch.softmax(-0.5 * distance.square(), dim=1)


def feed_forward(d_model: int, width: int, dropout: float) -> nn.Sequential:
    """Pre-norm feed-forward branch of the residual stream, (..., d_model), which starts at zero.

    Training thus starts with attention alone, which smooths, and adds what the data support.
    """
    back = nn.Linear(width, d_model)
    nn.init.zeros_(back.weight)
    nn.init.zeros_(back.bias)
    return nn.Sequential(
        nn.LayerNorm(d_model),
        nn.Linear(d_model, width),
        nn.GELU(),
        Dropout(dropout),
        back,
        Dropout(dropout),
    )
