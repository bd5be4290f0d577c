"""Parts of the causal network: spatial attention that changes from bin to bin, and its memory."""

import functools
import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from sklearn_stndt.network.dropout import Dropout
from sklearn_stndt.network.layers import HIDDEN_SCORE, sinusoids
from sklearn_stndt.network.spatial import Mixing

N_FILTERS = 6  # time constants of the time courses, from half a bin to a third of the window
SHORTEST = 0.5  # bins


class Memory:
    """What a causal network keeps of the bins that it has seen, for streams of a batch.

    Every entry is a tensor whose last axes are bins and features: keys and values of each layer,
    visible bins, and time courses. An entry holds as many bins as the network reaches back, in a
    buffer that is allocated once.

    Parameters
    ----------
    shapes : dict
        Of each entry, (axes between streams and bins, bins to keep, features).
    n_streams : int
        Size of the batch.
    longest : int
        Most bins that are added at once.
    device : torch.device or str, default="cpu"
        Device of the buffers.
    """

    def __init__(
        self,
        shapes: dict[str, tuple[tuple[int, ...], int, int]],
        n_streams: int,
        longest: int,
        device: torch.device | str = "cpu",
    ):
        self.reach = {name: n_kept for name, (_, n_kept, _) in shapes.items()}
        self.buffers = {
            name: torch.zeros(
                n_streams, *axes, n_kept + max(n_kept, longest), n_features, device=device
            )
            for name, (axes, n_kept, n_features) in shapes.items()
        }
        self.next = dict(self.reach)  # where the next bin is written
        self.age = torch.zeros(n_streams, dtype=torch.long, device=device)

    def extend(self, name: str, new: Tensor, n_kept: int) -> Tensor:
        """Add bins to an entry; with none, only return the bins before.

        Parameters
        ----------
        name : str
            The entry.
        new : Tensor, shape (n_streams, ..., n_bins, n_features)
            The next bins.
        n_kept : int
            How many of them to keep; the others are returned, and then forgotten.

        Returns
        -------
        Tensor, shape (n_streams, ..., reach + n_bins, n_features)
            The bins before, zeros before the first, and the new ones; valid until the next call.
        """
        buffer, reach, at = self.buffers[name], self.reach[name], self.next[name]
        n_bins = new.shape[-2]
        if at + n_bins > buffer.shape[-2]:
            buffer[..., :reach, :] = buffer[..., at - reach : at, :].clone()
            at = reach
        buffer[..., at : at + n_bins, :] = new
        self.next[name] = at + min(n_kept, n_bins)
        return buffer[..., at - reach : at + n_bins, :]

    def forget(self, streams: Tensor) -> None:
        """Return to the state before the first bin, for streams of a mask, (n_streams,)."""
        for buffer in self.buffers.values():
            buffer[streams] = 0
        self.age[streams] = 0
        if streams.all():
            self.next = dict(self.reach)  # results are then the same to the last bit


class CourseFilters(nn.Module):
    r"""Time course of each neuron up to each bin: sums that weigh the past exponentially.

    .. math:: f_{tjn} = \sum_{s \ge 0} w_j\,a_j^s\,v_{t-s,n},\quad a_j = e^{-1/\tau_j}

    with fixed time constants :math:`\tau_j` from half a bin to a third of the window, and weights
    whose squares sum to 1 over a window. The courses of a bin are all that later ones need.

    Parameters
    ----------
    n_bins : int
        Bins of the window.
    """

    weight: Tensor

    def __init__(self, n_bins: int):
        super().__init__()
        longest = max(n_bins / 3, SHORTEST)
        constants = torch.logspace(math.log10(SHORTEST), math.log10(longest), N_FILTERS)
        self.log_decay = (-1 / constants).tolist()
        weight = torch.exp(-torch.arange(n_bins) / constants[:, None])
        # (N_FILTERS, 1)
        self.register_buffer("weight", 1 / weight.norm(dim=1, keepdim=True), persistent=False)

    def forward(self, values: Tensor, before: Tensor | None = None) -> Tensor:
        """Filter bins.

        Parameters
        ----------
        values : Tensor, shape (batch, n_bins, n_neurons)
            Scaled counts, 0 where hidden.
        before : Tensor, shape (batch, N_FILTERS, 1, n_neurons), default=None
            Courses of the bin before; None: there is none.

        Returns
        -------
        Tensor, shape (batch, N_FILTERS, n_bins, n_neurons)
        """
        n_bins = values.shape[1]
        past, fading = decays(n_bins, tuple(self.log_decay), values.device)
        rows = (self.weight[:, :, None] * past).flatten(0, 1)  # (N_FILTERS * n_bins, n_bins)
        if n_bins == 1:
            courses = values[:, None] * self.weight[:, :, None]
        else:
            courses = (rows @ values).unflatten(1, (N_FILTERS, n_bins))
        return courses if before is None else torch.addcmul(courses, before, fading)


@functools.lru_cache(maxsize=8)
def decays(
    n_bins: int, log_decay: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Decay of values and of earlier courses until each bin; cached.

    Returns
    -------
    past : Tensor, shape (n_filters, n_bins, n_bins)
        From the bin of a value (last axis) to later ones; 0 to earlier ones.
    fading : Tensor, shape (n_filters, n_bins, 1)
        From the bin before the first one.
    """
    with torch.inference_mode(False):
        bins = torch.arange(n_bins, device=device)
        back = bins[:, None] - bins
        rate = torch.tensor(log_decay, device=device)[:, None, None]
        past = torch.exp(rate * back.clamp(min=0)) * (back >= 0)
        return past, torch.exp(rate * (bins[:, None] + 1))


class CausalSpatialAttention(nn.Module):
    r"""Attention weights between neurons in each bin, from their time courses up to this bin.

    .. math:: A_t = \mathrm{softmax}_d(Q_t)\,\mathrm{softmax}_n(K_t)^T

    of shape n_neurons x n_neurons, averaged over heads. This form [1]_ is never computed as a
    matrix: the stream is pooled over neurons by the keys, and the pools are mixed by the queries,
    so that the cost of a bin is linear in neurons.

    Parameters
    ----------
    n_heads : int
        Number of heads, whose attention weights are averaged.
    width : int
        Total width of queries and keys over heads; need not be a multiple of n_heads.
    dropout : float
        Dropout of the weights of keys.

    References
    ----------
    .. [1] Z. Shen et al., "Efficient attention: attention with linear complexities", WACV 2021.
    """

    def __init__(self, n_heads: int, width: int, dropout: float):
        super().__init__()
        self.n_heads = n_heads
        self.head_width = math.ceil(width / n_heads)
        self.query_key = nn.Linear(N_FILTERS, 2 * n_heads * self.head_width)
        self.drop = Dropout(dropout)

    def forward(self, courses: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of queries and keys.

        Parameters
        ----------
        courses : Tensor, shape (batch, N_FILTERS, n_bins, n_neurons)
            From `CourseFilters`.
        seen : Tensor, shape (batch, n_bins, n_neurons)
            0 for neurons that have not been visible: they get no weight.

        Returns
        -------
        query, key : Tensor, shape (batch, n_heads * head_width, n_bins, n_neurons)
            Queries sum to 1 over the second axis, keys over neurons.
        """
        linear = self.query_key
        scores = linear.weight @ courses.flatten(2) + linear.bias[:, None]
        scores = scores.view(len(courses), 2, self.n_heads, self.head_width, *courses.shape[2:])
        query = scores[:, 0].softmax(2) / self.n_heads
        # not -inf, so that the softmax is finite before anything was visible
        key = (scores[:, 1] + ((seen - 1) * HIDDEN_SCORE)[:, None, None]).softmax(-1)
        key = key * seen.amax(-1, keepdim=True)[:, None, None]
        return query.flatten(1, 2), self.drop(key).flatten(1, 2)


class CausalMixing(Mixing):
    """Spatial attention of each bin, applied to the residual stream of this bin."""

    def make_attention(
        self, n_bins: int, n_heads: int, width: int | None, dropout: float
    ) -> nn.Module:
        return CausalSpatialAttention(n_heads, N_FILTERS if width is None else width, dropout)

    def forward(
        self,
        x: Tensor,
        courses: Tensor,
        neuron_visible: Tensor,
        readout: Tensor,
        return_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Mix neurons.

        Parameters
        ----------
        x : Tensor, shape (batch, n_bins, width)
            Residual stream.
        courses : Tensor, shape (batch, N_FILTERS, n_bins, n_neurons)
            Time courses up to each bin.
        neuron_visible : Tensor, shape (batch, n_bins, n_neurons)
            1 for neurons that have been visible, else 0.
        readout : Tensor, shape (n_neurons, width)
            Weights of the readout.
        return_weights : bool, default=False
            Also return the attention weights.

        Returns
        -------
        update : Tensor, shape (batch, n_bins, width)
            Update of the residual stream.
        weights : Tensor, shape (batch, n_neurons, n_neurons), or None
            Mean over the bins in which anything had been visible.
        """
        query, key = self.attention(courses, neuron_visible)
        channels = self.to_neurons(self.norm(x), readout)  # (batch, n_bins, n_neurons)
        pools = (key * channels[:, None]).sum(-1, keepdim=True)  # (batch, pools, n_bins, 1)
        mixed = (query * pools).sum(1)  # (batch, n_bins, n_neurons)
        if self.from_neurons is not None:
            mixed = self.from_neurons(mixed)  # (batch, n_bins, d_model)
        weights = None
        if return_weights:
            # (batch, n_neurons, pools * n_bins) times (batch, pools * n_bins, n_neurons)
            weights = query.flatten(1, 2).transpose(1, 2) @ key.flatten(1, 2)
            weights = weights / neuron_visible.amax(-1).sum(1).clamp(min=1)[:, None, None]
        return self.drop(mixed), weights


class CausalSpatialPart(nn.Module):
    """Spatial part of every layer: weights of each bin from the layer's own input up to this bin.

    The causal form of the published part: time courses are embedded counts in the first layer, and
    the residual stream in the others; each mixing is followed by a feed-forward branch.
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
        self.embed_courses = nn.Linear(N_FILTERS, N_FILTERS)
        self.positions = nn.Parameter(0.5 * sinusoids(n_neurons, N_FILTERS))
        self.mixings = nn.ModuleList(
            CausalMixing(
                n_neurons,
                n_bins,
                d_model=d_model,
                n_heads=n_heads,
                d_spatial=d_spatial,
                dropout=dropout,
            )
            for _ in range(n_layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(N_FILTERS) for _ in range(n_layers))
        self.feed_forwards = nn.ModuleList(feed_forward() for _ in range(n_layers))

    def embed(self, courses: Tensor) -> Tensor:
        """Embed filtered counts, (batch, N_FILTERS, n_bins, n_neurons), in the first layer."""
        last = courses.permute(0, 2, 3, 1)  # (batch, n_bins, n_neurons, N_FILTERS)
        return (self.embed_courses(last) + self.positions).permute(0, 3, 1, 2)

    def input_of(self, i: int, x: Tensor, bin_visible: Tensor, readout: Tensor) -> Tensor:
        """Stream from which layer i > 0 takes its time courses, (batch, n_bins, n_neurons)."""
        mixing = cast(CausalMixing, self.mixings[i])
        return mixing.to_neurons(x, readout) * bin_visible

    def normed(self, i: int, courses: Tensor) -> Tensor:
        """Neuron tokens of layer i, (batch, N_FILTERS, n_bins, n_neurons)."""
        return self.norms[i](courses.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def forward(
        self,
        i: int,
        x: Tensor,
        courses: Tensor,
        neuron_visible: Tensor,
        readout: Tensor,
        factor: float,
        return_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        # shapes as in CausalMixing
        mixed, weights = self.mixings[i](x, courses, neuron_visible, readout, return_weights)
        x = torch.add(x, mixed, alpha=factor)
        return torch.add(x, self.feed_forwards[i](x), alpha=factor), weights
