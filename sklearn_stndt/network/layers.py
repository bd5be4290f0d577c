"""Parts that the temporal and the spatial half of the network share, and the temporal layer."""

import math

import torch
from torch import Tensor, nn

from sklearn_stndt.network.attention import TemporalAttention
from sklearn_stndt.network.dropout import Dropout


def sinusoids(n_positions: int, width: int) -> Tensor:
    """Sinusoidal positions, shape (n_positions, width), for any width."""
    position = torch.arange(n_positions)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(1e4) / width))
    angle = position * frequency  # (n_positions, ceil(width / 2))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]


def feed_forward(d_model: int, width: int, dropout: float) -> nn.Sequential:
    """Pre-norm feed-forward branch of a residual stream, which starts at zero.

    So training begins with attention alone, a smoother, and adds as much as the data call for.
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


class TemporalLayer(nn.Module):
    """Pre-norm attention over bins, then a feed-forward: NDT's layer."""

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        dim_feedforward: int,
        dropout: float,
        local_bins: int | None,
    ):
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.attention = TemporalAttention(d_model, n_heads, dropout, local_bins)
        self.drop = Dropout(dropout)
        self.feed_forward = feed_forward(d_model, dim_feedforward, dropout)

    def forward(
        self,
        x: Tensor,
        allowed: Tensor | None,
        return_weights: bool,
        band: tuple[int, int] | None,
    ) -> tuple[Tensor, Tensor | None]:
        attended, weights = self.attention(self.norm(x), allowed, return_weights, band)
        x = x + self.drop(attended)  # (batch, n_bins, d_model)
        return x + self.feed_forward(x), weights
