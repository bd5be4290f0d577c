"""Parts of the causal network: spatial attention that changes from bin to bin, and its memory."""

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
        """Add bins to an entry.

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
        self.next[name] = at + n_kept
        return buffer[..., at - reach : at + n_bins, :]

    def forget(self, streams: Tensor | None = None) -> None:
        """Return to the state before the first bin, of all streams or of those of a mask."""
        chosen = slice(None) if streams is None else streams
        for buffer in self.buffers.values():
            buffer[chosen] = 0
        self.age[chosen] = 0


class CourseFilters(nn.Module):
    r"""Time course of each neuron up to each bin: sums that weigh the past exponentially.

    .. math:: f_{tjn} = \sum_{s=0}^{L-1} w_j(s)\,v_{t-s,n},\quad w_j(s) \propto e^{-s/\tau_j}

    with fixed time constants from half a bin to a third of the window L, and weights whose squares
    sum to 1.

    Parameters
    ----------
    n_bins : int
        Bins that a filter reaches back, the present one included.
    """

    weight: Tensor

    def __init__(self, n_bins: int):
        super().__init__()
        constants = torch.logspace(
            math.log10(SHORTEST), math.log10(max(n_bins / 3, SHORTEST)), N_FILTERS
        )
        weight = torch.exp(-torch.arange(n_bins) / constants[:, None])
        self.register_buffer("weight", weight / weight.norm(dim=1, keepdim=True), persistent=False)
        self._rows: dict[tuple[int, int], Tensor] = {}

    def forward(self, values: Tensor, n_bins: int) -> Tensor:
        """Filter the last bins.

        Parameters
        ----------
        values : Tensor, shape (batch, n_before + n_bins, n_neurons)
            Scaled counts, 0 where hidden.
        n_bins : int
            Bins at the end whose courses are returned.

        Returns
        -------
        Tensor, shape (batch, N_FILTERS, n_bins, n_neurons)
        """
        rows = self._toeplitz(n_bins, values.shape[1]).to(values)
        return (rows @ values).unflatten(1, (N_FILTERS, n_bins))

    def _toeplitz(self, n_bins: int, n_values: int) -> Tensor:
        """Weights of all values for each filter and bin, (N_FILTERS * n_bins, n_values); cached."""
        key = (n_bins, n_values)
        if key not in self._rows:
            with torch.inference_mode(False), torch.no_grad():
                self._rows = dict(list(self._rows.items())[-3:])
                bins = torch.arange(n_values, device=self.weight.device)
                back = bins[n_values - n_bins :, None] - bins  # (n_bins, n_values)
                reach = self.weight.shape[1]
                inside = (back >= 0) & (back < reach)
                rows = self.weight[:, back.clamp(0, reach - 1)] * inside
                self._rows[key] = rows.flatten(0, 1)
        return self._rows[key]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_rows": {}}


def ever_seen(shown: Tensor, n_bins: int, reach: int) -> Tensor:
    """Whether a neuron was visible in any of the last `reach` bins.

    Parameters
    ----------
    shown : Tensor, shape (batch, n_before + n_bins, n_neurons)
        1 where visible, else 0.
    n_bins : int
        Bins at the end to return.
    reach : int
        Bins to look at, the present one included.

    Returns
    -------
    Tensor, shape (batch, n_bins, n_neurons)
        1 where it was, else 0.
    """
    if n_bins == 1:
        return shown[:, -reach:].amax(1, keepdim=True)
    total = shown.cumsum(1)
    seen = total[:, -n_bins:].clone()
    first = shown.shape[1] - n_bins  # of the bins to return
    before = max(reach - first, 0)  # of these, bins all of whose past is within reach
    if before < n_bins:
        seen[:, before:] -= total[:, first + before - reach : first + n_bins - reach]
    return (seen > 0.5).to(shown.dtype)


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
