"""Temporal attention over bins, and spatial attention over neurons."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sklearn_stndt.network.dropout import Dropout


def layer_bands(context: tuple[int, int] | None, n_layers: int) -> list[tuple[int, int] | None]:
    """Share the bins that a bin may look back and ahead among the layers.

    Each layer reaches further by its own band, so the bands of all layers add up to `context`.

    Parameters
    ----------
    context : (int, int) or None
        Bins back and ahead that may influence a bin in the whole network; None: all.
    n_layers : int
        Number of layers.

    Returns
    -------
    list of (int, int) or None, length n_layers
    """
    if context is None:
        return [None] * n_layers

    def share(total: int) -> list[int]:
        return [total // n_layers + (layer < total % n_layers) for layer in range(n_layers)]

    return list(zip(share(context[0]), share(context[1]), strict=True))


def allowed_keys(bin_visible: Tensor, band: tuple[int, int] | None) -> Tensor | None:
    """Which bins each bin may look at: those in the band that show at least one entry.

    Parameters
    ----------
    bin_visible : Tensor of bool, shape (batch, n_bins)
        False where nothing of the bin is visible: padding, forecast bins, all-NaN bins.
    band : (int, int) or None
        Bins back and ahead; None: no limit.

    Returns
    -------
    Tensor of bool, shape (batch or 1, 1, n_bins, n_bins), or None
        True where query (row) may look at key (column); None where nothing is forbidden.
    """
    everything_visible = bool(bin_visible.all())
    if band is None:
        return None if everything_visible else bin_visible[:, None, None, :]
    bins = torch.arange(bin_visible.shape[1], device=bin_visible.device)
    ahead = bins[None, :] - bins[:, None]  # (n_bins, n_bins), key minus query
    in_band = ((ahead >= -band[0]) & (ahead <= band[1]))[None, None]
    return in_band if everything_visible else in_band & bin_visible[:, None, None, :]


class TemporalAttention(nn.Module):
    r"""Multi-head attention over the bins of a trial.

    Where `local_bins` is given, a learned penalty grows with the distance between bins,

    .. math:: \mathrm{softmax}(Q K^T / \sqrt{w} - |t - t'| / \lambda_h)

    with a length :math:`\lambda_h` of each head that starts between 2 bins and a third of the
    window. So every head starts as a smoothing kernel, which is what few trials call for.

    Parameters
    ----------
    d_model : int
        Width of the stream; it need not be a multiple of n_heads.
    n_heads : int
        Number of heads, each of width ceil(d_model / n_heads).
    dropout : float
        Dropout of the attention weights.
    local_bins : int or None, default=None
        Bins of the window, if distance is to be penalised; None: it is not, as published.

    References
    ----------
    O. Press, N. A. Smith, M. Lewis, "Train short, test long: attention with linear biases enables
    input length extrapolation", ICLR 2022; there the lengths are fixed.
    """

    def __init__(self, d_model: int, n_heads: int, dropout: float, local_bins: int | None = None):
        super().__init__()
        self.n_heads = n_heads
        self.head_width = math.ceil(d_model / n_heads)
        inner = n_heads * self.head_width
        self.query_key_value = nn.Linear(d_model, 3 * inner)
        self.out = nn.Linear(inner, d_model)
        self.drop = Dropout(dropout)
        self.log_length = None
        if local_bins is not None:
            shortest, longest = math.log(2), math.log(max(local_bins / 3, 2))
            self.log_length = nn.Parameter(torch.linspace(shortest, longest, n_heads))

    def forward(
        self, x: Tensor, allowed: Tensor | None, return_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Parameters
        ----------
        x : Tensor, shape (batch, n_bins, d_model)
            The stream.
        allowed : Tensor of bool, broadcast to (batch, 1, n_bins, n_bins), or None
            Keys (last axis) that each query may look at. A query without any gets zeros.
        return_weights : bool, default=False
            Return the weights too, at the cost of the fused kernel.

        Returns
        -------
        out : Tensor, shape (batch, n_bins, d_model)
        weights : Tensor, shape (batch, n_heads, n_bins, n_bins), or None
        """
        batch, n_bins, _ = x.shape
        qkv = self.query_key_value(x)  # (batch, n_bins, 3 * n_heads * head_width)
        qkv = qkv.view(batch, n_bins, 3, self.n_heads, self.head_width)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (batch, n_heads, n_bins, head_width)
        has_key = None
        if allowed is not None:
            has_key = allowed.any(-1, keepdim=True)  # (batch or 1, 1, n_bins or 1, 1)
            allowed = allowed | ~has_key  # a softmax over nothing would be NaN
        penalty = self._penalty(n_bins, allowed)
        weights = None
        if return_weights or (self.training and self.drop.p > 0):
            scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_width)
            if penalty is not None:
                scores = scores + penalty
            weights = scores.softmax(-1)  # (batch, n_heads, n_bins, n_bins)
            if has_key is not None:
                weights = weights * has_key
            attended = self.drop(weights) @ value
        else:
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=penalty)
            if has_key is not None:
                attended = attended * has_key
        attended = attended.transpose(1, 2).reshape(batch, n_bins, -1)  # (batch, n_bins, inner)
        return self.out(attended), weights

    def _penalty(self, n_bins: int, allowed: Tensor | None) -> Tensor | None:
        """What is added to the scores, (batch or 1, n_heads or 1, n_bins or 1, n_bins), or None."""
        penalty = None
        if self.log_length is not None:
            bins = torch.arange(n_bins, device=self.log_length.device)
            distance = (bins[:, None] - bins).abs()  # (n_bins, n_bins)
            penalty = -distance * torch.exp(-self.log_length)[None, :, None, None]
        if allowed is None:
            return penalty
        if penalty is None:
            penalty = torch.zeros((), device=allowed.device)
        return penalty.masked_fill(~allowed, -torch.inf)


class SpatialAttention(nn.Module):
    r"""Attention weights between neurons, computed from their time courses.

    .. math:: A_S = \mathrm{softmax}(Q_S K_S^T / \sqrt{w})

    of shape n_neurons x n_neurons, averaged over heads. There are no values: the weights are
    applied to the temporal stream by the caller.

    Parameters
    ----------
    n_bins : int
        Length of a neuron's time course, the window.
    n_heads : int
        Number of heads, whose maps are averaged.
    width : int
        Width of queries and keys of all heads together; need not be a multiple of n_heads.
    dropout : float
        Dropout of the weights.
    """

    def __init__(self, n_bins: int, n_heads: int, width: int, dropout: float):
        super().__init__()
        self.n_heads = n_heads
        self.head_width = math.ceil(width / n_heads)
        self.query_key = nn.Linear(n_bins, 2 * n_heads * self.head_width)
        self.drop = Dropout(dropout)

    def forward(self, courses: Tensor, neuron_visible: Tensor) -> Tensor:
        """Weights that each neuron gives to the others.

        Parameters
        ----------
        courses : Tensor, shape (batch, n_neurons, n_bins)
            Time courses, 0 where nothing is visible.
        neuron_visible : Tensor of bool, shape (batch, n_neurons)
            False for neurons of which nothing is visible in the window: they get no weight.

        Returns
        -------
        Tensor, shape (batch, n_neurons, n_neurons)
            Rows (queries) sum to 1 over the visible neurons.
        """
        batch, n_neurons, _ = courses.shape
        query_key = self.query_key(courses)  # (batch, n_neurons, 2 * n_heads * head_width)
        query_key = query_key.view(batch, n_neurons, 2, self.n_heads, self.head_width)
        query, key = query_key.permute(2, 0, 3, 1, 4)  # (batch, n_heads, n_neurons, head_width)
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_width)
        # a large negative number, not -inf: a trial that is hidden as a whole stays finite
        hidden = ~neuron_visible[:, None, None, :]
        scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1).masked_fill(hidden, 0.0)
        return self.drop(weights.mean(1))  # (batch, n_neurons, n_neurons)
