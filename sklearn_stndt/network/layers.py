"""Layers shared by the temporal and the spatial part of the network."""

import math

import torch
from torch import Tensor, nn

from sklearn_stndt.network.dropout import Dropout

HIDDEN_SCORE = 1e6  # subtracted from scores of hidden bins and neurons: exp(-1e6) is 0


def at_hand(values: Tensor) -> bool:
    """Whether values can be looked at: they exist, and nothing waits for them.

    False while the network is exported, when there are no values yet, and on a GPU, which works
    on while Python prepares the next operations.
    """
    return not torch.compiler.is_compiling() and values.device.type == "cpu"


def certainly(condition: Tensor) -> bool:
    """Whether a condition holds, and is at hand, that merely allows a faster way."""
    return at_hand(condition) and bool(condition)


def sinusoids(n_positions: int, width: int) -> Tensor:
    """Sinusoidal position encoding, shape (n_positions, width), for any width."""
    position = torch.arange(n_positions)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(1e4) / width))
    angle = position * frequency  # (n_positions, ceil(width / 2))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]


class GaussianSmoothing(nn.Module):
    """Gaussian smoothing along the visible bins at inference, with a width set after training.

    Bins without visible entries are left as they are and do not influence others.

    Attributes
    ----------
    width : Tensor, shape ()
        Standard deviation in bins; 0: no smoothing.
    """

    width: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("width", torch.zeros(()))

    def forward(self, x: Tensor, bin_visible: Tensor) -> Tensor:
        # x (batch, n_bins, n_neurons), bin_visible (batch, n_bins, 1)
        if self.training or (at_hand(self.width) and not self.width):
            return x  # an export leaves out a width of 0 beforehand
        return smoothing_kernel(bin_visible, self.width).to(x.dtype) @ x


def smoothing_kernel(bin_visible: Tensor, width: Tensor) -> Tensor:
    """Gaussian kernel of each bin, normalised over the visible bins of the window.

    Parameters
    ----------
    bin_visible : Tensor, shape (batch, n_bins, 1)
        Whether a bin has a visible entry, True or above 0. The kernel of other bins is 1 at the bin
        itself.
    width : Tensor, shape ()
        Standard deviation in bins; 0: each bin by itself.

    Returns
    -------
    Tensor, shape (batch, n_bins, n_bins)
    """
    seen = bin_visible > 0
    bins = torch.arange(bin_visible.shape[1], device=width.device)
    distance = bins[:, None] - bins  # (n_bins, n_bins)
    reached = (seen & seen.mT) | (distance == 0)  # (batch, n_bins, n_bins)
    scores = -0.5 * (distance / width.clamp(min=1e-6)).square()
    return torch.softmax(scores.masked_fill(~reached, -torch.inf), dim=-1)


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
