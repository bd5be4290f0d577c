"""Mixing of neurons by attention between them, once or in every layer."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sklearn_stndt.network.attention import SpatialAttention
from sklearn_stndt.network.dropout import Dropout
from sklearn_stndt.network.layers import feed_forward, sinusoids


class CourseNorm(nn.Module):
    """Layer normalisation of each neuron's time course over the bins that show anything."""

    def __init__(self, n_bins: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(n_bins))
        self.shift = nn.Parameter(torch.zeros(n_bins))

    def forward(self, courses: Tensor, bin_visible: Tensor) -> Tensor:
        # courses (batch, n_neurons, n_bins), bin_visible (batch, n_bins)
        n_first = int(bin_visible[0].sum())
        if n_first and bin_visible[:, :n_first].all() and not bin_visible[:, n_first:].any():
            # the usual case: nothing but a forecast is hidden, and one kernel does it
            gain, shift = self.gain[:n_first], self.shift[:n_first]
            normed = F.layer_norm(courses[..., :n_first], (n_first,), gain, shift)
            return F.pad(normed, (0, courses.shape[-1] - n_first))
        seen = bin_visible[:, None].to(courses.dtype)
        n_seen = seen.sum(-1, keepdim=True).clamp(min=1)
        centred = (courses - (courses * seen).sum(-1, keepdim=True) / n_seen) * seen
        variance = centred.square().sum(-1, keepdim=True) / n_seen
        return (centred * torch.rsqrt(variance + 1e-5) * self.gain + self.shift) * seen


class SpatialMixing(nn.Module):
    r"""Spatial attention weights, applied to the temporal stream: :math:`A_S Z_T^T`.

    A stream that has one channel a neuron is mixed as it is. Any other width goes to neuron space
    by the weights of the read-out, so that what is mixed are departures of log-rates, and back by
    a linear map that starts at zero, so that training begins with the temporal network.
    """

    def __init__(
        self,
        n_neurons: int,
        n_bins: int,
        d_model: int | None,
        n_heads: int,
        width: int,
        dropout: float,
    ):
        super().__init__()
        self.norm = nn.LayerNorm(n_neurons if d_model is None else d_model)
        self.attention = SpatialAttention(n_bins, n_heads, width, dropout)
        self.drop = Dropout(dropout)
        self.from_neurons: nn.Module | None = None
        if d_model is not None:
            back = nn.Linear(n_neurons, d_model)
            nn.init.zeros_(back.weight)
            nn.init.zeros_(back.bias)
            self.from_neurons = back

    def to_neurons(self, x: Tensor, readout: Tensor) -> Tensor:
        """Channels of the neurons, (batch, n_bins, n_neurons)."""
        return x if self.from_neurons is None else F.linear(x, readout)

    def forward(
        self, x: Tensor, courses: Tensor, neuron_visible: Tensor, readout: Tensor
    ) -> tuple[Tensor, Tensor]:
        # courses (batch, n_neurons, n_bins), readout (n_neurons, d_model)
        # returns what is to be added to the stream, and the map
        weights = self.attention(courses, neuron_visible)  # (batch, n_neurons, n_neurons)
        channels = self.to_neurons(self.norm(x), readout)  # (batch, n_bins, n_neurons)
        mixed = channels @ weights.transpose(-1, -2)  # (batch, n_bins, n_neurons)
        if self.from_neurons is not None:
            mixed = self.from_neurons(mixed)  # (batch, n_bins, d_model)
        return self.drop(mixed), weights


class PublishedSpatialPart(nn.Module):
    """The spatial half of every layer as published: weights from the layer's own input.

    The first layer sees the counts through an embedding of time courses, the others see the
    stream. Each mixing is followed by a feed-forward.
    """

    def __init__(self, n_layers: int, shape: tuple, dim_feedforward: int):
        super().__init__()
        n_neurons, n_bins, d_model, *_, dropout = shape
        width = n_neurons if d_model is None else d_model
        self.embed_courses = nn.Linear(n_bins, n_bins)
        self.positions = nn.Parameter(0.5 * sinusoids(n_neurons, n_bins))
        self.mixings = nn.ModuleList(SpatialMixing(*shape) for _ in range(n_layers))
        self.norms = nn.ModuleList(CourseNorm(n_bins) for _ in range(n_layers))
        self.feed_forwards = nn.ModuleList(
            feed_forward(width, dim_feedforward, dropout) for _ in range(n_layers)
        )

    def courses(
        self, i: int, x: Tensor, values: Tensor, bin_visible: Tensor, readout: Tensor
    ) -> Tensor:
        """Neuron tokens of layer i, (batch, n_neurons, n_bins)."""
        if i == 0:
            courses = self.embed_courses(values.transpose(1, 2)) + self.positions
        else:
            mixing = cast(SpatialMixing, self.mixings[i])
            courses = mixing.to_neurons(x, readout).transpose(1, 2)
        return self.norms[i](courses, bin_visible)

    def forward(
        self,
        i: int,
        x: Tensor,
        courses: Tensor,
        neuron_visible: Tensor,
        readout: Tensor,
        factor: float,
    ) -> tuple[Tensor, Tensor]:
        mixed, weights = self.mixings[i](x, courses, neuron_visible, readout)
        x = torch.add(x, mixed, alpha=factor)
        return torch.add(x, self.feed_forwards[i](x), alpha=factor), weights
