"""The spatial part of the network: attention between neurons, once or in every layer."""

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sklearn_stndt.network.dropout import Dropout
from sklearn_stndt.network.layers import HIDDEN_SCORE, at_hand, sinusoids
from sklearn_stndt.network.population import FromNeurons


class SpatialAttention(nn.Module):
    r"""Attention weights between neurons, computed from their time courses.

    .. math:: A_S = \mathrm{softmax}(Q_S K_S^T / \sqrt{w})

    of shape n_neurons x n_neurons, averaged over heads. There are no values: the caller applies
    the weights to the residual stream.

    Parameters
    ----------
    n_bins : int
        Bins of a neuron's time course, that is of the window.
    n_heads : int
        Number of heads, whose attention maps are averaged.
    width : int
        Total width of queries and keys over heads; need not be a multiple of n_heads.
    dropout : float
        Dropout of the attention weights.
    """

    def __init__(self, n_bins: int, n_heads: int, width: int, dropout: float):
        super().__init__()
        self.n_heads = n_heads
        self.head_width = math.ceil(width / n_heads)
        self.query_key = nn.Linear(n_bins, 2 * n_heads * self.head_width)
        self.drop = Dropout(dropout)

    def forward(self, courses: Tensor, neuron_visible: Tensor) -> Tensor:
        """Attention weights between neurons.

        Parameters
        ----------
        courses : Tensor, shape (batch, n_neurons, n_bins)
            Time courses, 0 where hidden.
        neuron_visible : Tensor of bool, shape (batch, n_neurons)
            False for neurons without visible entries in the window: they get no weight.

        Returns
        -------
        Tensor, shape (batch, n_neurons, n_neurons)
            Rows (queries) sum to 1 over the visible neurons.
        """
        batch, n_neurons, _ = courses.shape
        query_key = self.query_key(courses)  # (batch, n_neurons, 2 * n_heads * head_width)
        query_key = query_key.view(batch, n_neurons, 2, self.n_heads, self.head_width)
        query, key = query_key.permute(2, 0, 3, 1, 4)  # (batch, n_heads, n_neurons, head_width)
        # scores (batch, n_heads, n_neurons, n_neurons)
        scores = (query / math.sqrt(self.head_width)) @ key.transpose(-1, -2)
        seen = neuron_visible.to(scores.dtype)  # (batch, n_neurons)
        # not -inf, so that the softmax is finite in a trial without visible entries
        scores += ((seen - 1) * HIDDEN_SCORE)[:, None, None, :]
        weights = scores.softmax(-1).sum(1)  # (batch, n_neurons, n_neurons)
        # mean over heads; all zero in a trial without visible entries
        weights = weights * (seen.amax(1) / self.n_heads)[:, None, None]
        return self.drop(weights)  # (batch, n_neurons, n_neurons)


class CourseNorm(nn.Module):
    """Layer normalisation of each neuron's time course over the visible bins."""

    def __init__(self, n_bins: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(n_bins))
        self.shift = nn.Parameter(torch.zeros(n_bins))

    def forward(self, courses: Tensor, bin_visible: Tensor) -> Tensor:
        # courses (batch, n_neurons, n_bins), bin_visible (batch, n_bins)
        n_first = int(bin_visible[0].sum()) if at_hand(bin_visible) else 0
        if n_first and bin_visible[:, :n_first].all() and not bin_visible[:, n_first:].any():
            # the usual case: only forecast bins are hidden, so a single kernel suffices
            gain, shift = self.gain[:n_first], self.shift[:n_first]
            normed = F.layer_norm(courses[..., :n_first], (n_first,), gain, shift)
            return F.pad(normed, (0, courses.shape[-1] - n_first))  # (batch, n_neurons, n_bins)
        seen = bin_visible[:, None].to(courses.dtype)  # (batch, 1, n_bins)
        n_seen = seen.sum(-1, keepdim=True).clamp(min=1)  # (batch, 1, 1)
        centred = (courses - (courses * seen).sum(-1, keepdim=True) / n_seen) * seen
        variance = centred.square().sum(-1, keepdim=True) / n_seen  # (batch, n_neurons, 1)
        return (centred * torch.rsqrt(variance + 1e-5) * self.gain + self.shift) * seen


class Mixing(nn.Module):
    """Base class of parts that apply spatial attention weights to the residual stream.

    With one channel per neuron, the stream is mixed directly. With any other width, it is mapped to
    neuron space by the weights of the readout, so that deviations of log-rates are mixed, and back
    by a linear map initialised to zero, so that training starts with the temporal network.
    """

    def __init__(
        self,
        n_neurons: int,
        n_bins: int,
        *,
        d_model: int | None,
        n_heads: int,
        d_spatial: int | None,
        dropout: float,
    ):
        super().__init__()
        self.norm = nn.LayerNorm(n_neurons if d_model is None else d_model)
        self.attention = self.make_attention(n_bins, n_heads, d_spatial, dropout)
        self.drop = Dropout(dropout)
        self.from_neurons = None if d_model is None else FromNeurons(n_neurons, d_model)

    def make_attention(
        self, n_bins: int, n_heads: int, width: int | None, dropout: float
    ) -> nn.Module:
        """Attention between neurons, whose weights are applied."""
        raise NotImplementedError

    def to_neurons(self, x: Tensor, readout: Tensor) -> Tensor:
        """Residual stream in neuron space, (batch, n_bins, n_neurons)."""
        return x if self.from_neurons is None else F.linear(x, readout)


class SpatialMixing(Mixing):
    r"""Spatial attention weights, applied to the residual stream: :math:`A_S Z_T^T`."""

    def make_attention(
        self, n_bins: int, n_heads: int, width: int | None, dropout: float
    ) -> nn.Module:
        return SpatialAttention(n_bins, n_heads, n_bins if width is None else width, dropout)

    def forward(
        self, x: Tensor, courses: Tensor, neuron_visible: Tensor, readout: Tensor
    ) -> tuple[Tensor, Tensor]:
        # x (batch, n_bins, width), courses (batch, n_neurons, n_bins), readout (n_neurons, width)
        # returns the update of the residual stream and the attention weights
        weights = self.attention(courses, neuron_visible)  # (batch, n_neurons, n_neurons)
        channels = self.to_neurons(self.norm(x), readout)  # (batch, n_bins, n_neurons)
        mixed = channels @ weights.transpose(-1, -2)  # (batch, n_bins, n_neurons)
        if self.from_neurons is not None:
            mixed = self.from_neurons(mixed)  # (batch, n_bins, d_model)
        return self.drop(mixed), weights


class PublishedSpatialPart(nn.Module):
    """Spatial part of every layer as published: attention weights from the layer's own input.

    Time courses are embedded counts in the first layer, and the residual stream in the others.
    Each mixing is followed by a feed-forward branch.
    """

    def __init__(
        self,
        n_neurons: int,
        n_bins: int,
        *,
        n_layers: int,
        d_model: int | None,
        n_heads: int,
        d_spatial: int | None,
        dropout: float,
        feed_forward: Callable[[], nn.Module],
    ):
        super().__init__()
        self.embed_courses = nn.Linear(n_bins, n_bins)
        self.positions = nn.Parameter(0.5 * sinusoids(n_neurons, n_bins))
        self.mixings = nn.ModuleList(
            SpatialMixing(
                n_neurons,
                n_bins,
                d_model=d_model,
                n_heads=n_heads,
                d_spatial=d_spatial,
                dropout=dropout,
            )
            for _ in range(n_layers)
        )
        self.norms = nn.ModuleList(CourseNorm(n_bins) for _ in range(n_layers))
        self.feed_forwards = nn.ModuleList(feed_forward() for _ in range(n_layers))

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
        # x (batch, n_bins, width), courses (batch, n_neurons, n_bins), readout (n_neurons, width)
        mixed, weights = self.mixings[i](x, courses, neuron_visible, readout)
        x = torch.add(x, mixed, alpha=factor)
        return torch.add(x, self.feed_forwards[i](x), alpha=factor), weights
