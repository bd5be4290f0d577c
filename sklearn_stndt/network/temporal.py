"""The temporal part of the network: attention over bins, and NDT's layer."""

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sklearn_stndt.network.dropout import Dropout
from sklearn_stndt.network.dropped_attention import DroppedAttention, of_block, query_blocks
from sklearn_stndt.network.layers import HIDDEN_SCORE, at_hand, certainly, sinusoids

LONGEST_WHOLE = 256  # bins up to which one call is faster than several within the band


def layer_bands(context: tuple[int, int] | None, n_layers: int) -> list[tuple[int, int] | None]:
    """Divide the context of the network among its layers.

    Each layer extends the reach by its own band, so the bands of all layers add up to `context`.

    Parameters
    ----------
    context : (int, int) or None
        Bins back and ahead, within the window, that temporal attention reaches through all layers;
        None: all.
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
    """Keys that each query may attend to: bins in the band with at least one visible entry.

    Parameters
    ----------
    bin_visible : Tensor of bool, shape (batch, n_bins)
        False for bins without visible entries: padding, forecast bins, all-NaN bins.
    band : (int, int) or None
        Bins back and ahead; None: no limit.

    Returns
    -------
    Tensor of bool, shape (batch or 1, 1, n_bins or 1, n_bins), or None
        True where a query (row) may attend to a key (column); None: no restriction.
    """
    everything_visible = certainly(bin_visible.all())
    if certainly((bin_visible == bin_visible[:1]).all()):
        bin_visible = bin_visible[:1]  # one mask for all trials, as for forecast bins
    if band is None:
        return None if everything_visible else bin_visible[:, None, None, :]
    bins = torch.arange(bin_visible.shape[1], device=bin_visible.device)
    ahead = bins[None, :] - bins[:, None]  # (n_bins, n_bins), key minus query
    in_band = ((ahead >= -band[0]) & (ahead <= band[1]))[None, None]  # (1, 1, n_bins, n_bins)
    return in_band if everything_visible else in_band & bin_visible[:, None, None, :]


class TemporalAttention(nn.Module):
    r"""Multi-head attention over the bins of a trial.

    With `local_bins`, a learned penalty grows with the distance between bins,

    .. math:: \mathrm{softmax}(Q K^T / \sqrt{w} - |t - t'| / \lambda_h)

    with a length :math:`\lambda_h` per head, initialised between 2 bins and a third of the window.
    Every head thus starts as a smoothing kernel, which suits few trials.

    Parameters
    ----------
    d_model : int
        Width of the residual stream; need not be a multiple of n_heads.
    n_heads : int
        Number of heads, each of width ceil(d_model / n_heads).
    dropout : float
        Dropout of the attention weights.
    local_bins : int or None, default=None
        Bins of the window, to penalise distance; None: no penalty, as published.

    References
    ----------
    O. Press, N. A. Smith, M. Lewis, "Train short, test long: attention with linear biases enables
    input length extrapolation", ICLR 2022, where the lengths are fixed.
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
        self,
        x: Tensor,
        allowed: Tensor | None,
        return_weights: bool = False,
        band: tuple[int, int] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend over bins.

        Parameters
        ----------
        x : Tensor, shape (batch, n_bins, d_model)
            Residual stream, normalised.
        allowed : Tensor of bool, broadcastable to (batch, 1, n_bins, n_bins), or None
            Keys (last axis) that each query may attend to. A query without keys gets zeros.
        return_weights : bool, default=False
            Also return the attention weights, without the fused kernel.
        band : (int, int) or None, default=None
            Bins back and ahead beyond which `allowed` excludes every key, so that computation
            there can be skipped.

        Returns
        -------
        out : Tensor, shape (batch, n_bins, d_model)
        weights : Tensor, shape (batch, n_heads, n_bins, n_bins), or None
        """
        n_bins = n_keys = x.shape[1]
        has_key = bias = excluded = None
        if not return_weights and allowed is not None and allowed.shape[:3] == (1, 1, 1):
            n_first = int(allowed.sum()) if at_hand(allowed) else 0
            if n_first and allowed[..., :n_first].all():
                n_keys, allowed = n_first, None  # the usual case: only forecast bins are excluded
        if allowed is not None:
            has_key = allowed.any(-1, keepdim=True)  # (batch or 1, 1, n_bins or 1, 1)
            # no -inf for queries without keys: their softmax would be NaN
            excluded = torch.zeros(allowed.shape, dtype=x.dtype, device=x.device)
            excluded = excluded.masked_fill(has_key & ~allowed, -torch.inf)
        if self.log_length is not None:
            bias = distance_penalty(n_bins, self.log_length)  # (1, n_heads, n_bins, n_bins)
        qkv = self.query_key_value(x)  # (batch, n_bins, 3 * n_heads * head_width)
        if torch.is_grad_enabled() and x.device.type == "cpu" and not return_weights:
            threshold = self.drop.threshold if self.training else 0
            attended = DroppedAttention.apply(
                qkv, bias, excluded, band, n_keys, self.n_heads, threshold
            )
            weights = None
        else:
            if excluded is not None:
                bias = excluded if bias is None else bias + excluded
            attended, weights = self._attend(qkv, bias, band, n_keys, return_weights)
        if has_key is not None and not certainly(has_key.all()):  # queries without keys get zeros
            attended = attended * has_key[:, 0].to(x.dtype)  # (batch, n_bins, inner)
            weights = None if weights is None else weights * has_key
        return self.out(attended), weights

    def advance(
        self, x: Tensor, extend: Callable[[str, Tensor], Tensor], keys: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Attend to the bins before, which are remembered, and to the present one.

        Parameters
        ----------
        x : Tensor, shape (batch, n_bins, d_model)
            Residual stream of the next bins, normalised.
        extend : callable
            Takes "keys" or "values" of these bins, (batch, n_heads, n_bins, head_width), and
            returns them after those of the bins before, (batch, n_heads, n_keys, head_width).
        keys : (Tensor, Tensor)
            From `visible_keys`.

        Returns
        -------
        Tensor, shape (batch, n_bins, d_model)
        """
        qkv = self.query_key_value(x).unflatten(2, (3, self.n_heads, self.head_width))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (batch, n_heads, n_bins, head_width)
        key, value = extend("keys", key), extend("values", value)
        n_bins, n_keys = query.shape[2], key.shape[2]
        distance, blocked = look_back(n_bins, n_keys - n_bins, x.device)
        bias = keys[0][..., -n_keys:] + blocked  # (batch, 1, n_bins, n_keys)
        has_key = keys[1]
        if n_keys < keys[0].shape[-1]:  # a layer with a shorter reach
            has_key = (bias.amax(-1) > -HIDDEN_SCORE / 2)[:, 0, :, None].to(x.dtype)
        if self.log_length is not None:
            bias = bias - distance * torch.exp(-self.log_length)[:, None, None]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        # (batch, n_bins, inner); queries without keys get zeros
        return self.out(attended.transpose(1, 2).flatten(2) * has_key)

    def _attend(
        self,
        qkv: Tensor,
        bias: Tensor | None,
        band: tuple[int, int] | None,
        n_keys: int,
        return_weights: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend by torch's fused kernels, or explicitly if the weights are requested.

        Returns attended values, (batch, n_bins, n_heads * head_width), and weights as `forward`.
        """
        by_head = qkv.unflatten(2, (3, self.n_heads, self.head_width))
        query, key, value = by_head.permute(2, 0, 3, 1, 4)  # each (batch, n_heads, n_bins, width)
        weights = None
        if return_weights:
            scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_width)
            scores = scores if bias is None else scores + bias
            weights = scores.softmax(-1)  # (batch, n_heads, n_bins, n_bins)
            attended = self.drop(weights) @ value
        else:
            n_bins = query.shape[2]
            blocks = [(slice(0, n_bins), slice(0, n_keys))]
            if band is not None and n_bins > LONGEST_WHOLE:
                blocks = query_blocks(n_bins, n_keys, self.n_heads, band)
            parts = [
                F.scaled_dot_product_attention(
                    query[:, :, rows],
                    key[:, :, columns],
                    value[:, :, columns],
                    attn_mask=None if bias is None else of_block(bias, rows, columns),
                    dropout_p=self.drop.p if self.training else 0.0,
                )
                for rows, columns in blocks
            ]
            # (batch, n_heads, n_bins, width)
            attended = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
        return attended.transpose(1, 2).flatten(2), weights


def distance_penalty(n_bins: int, log_length: Tensor) -> Tensor:
    """Penalty on the distance between bins, to be added to the scores.

    Parameters
    ----------
    n_bins : int
        Bins of the window.
    log_length : Tensor, shape (n_heads,)
        Logarithm of the number of bins over which the penalty grows by 1.

    Returns
    -------
    Tensor, shape (1, n_heads, n_bins, n_bins)
    """
    return distances(n_bins, log_length.device) * -torch.exp(-log_length)[None, :, None, None]


@functools.lru_cache(maxsize=2)
def distances(n_bins: int, device: torch.device) -> Tensor:
    """Distance between bins, shape (n_bins, n_bins); cached."""
    with torch.inference_mode(False):  # training cannot use a tensor created in inference mode
        bins = torch.arange(n_bins, dtype=torch.float32, device=device)
        return (bins[:, None] - bins).abs()


@functools.lru_cache(maxsize=8)
def look_back(n_bins: int, reach: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Distances from each of `n_bins` bins to these and to the `reach` bins before; cached.

    Returns
    -------
    distance : Tensor, shape (n_bins, reach + n_bins)
        Bins from a key (column) to a query (row); 0 where the key is out of reach.
    blocked : Tensor, same shape
        `-HIDDEN_SCORE` where the key is later than the query, or out of reach; else 0.
    """
    with torch.inference_mode(False):
        bins = torch.arange(reach + n_bins, device=device)
        distance = reach + bins[:n_bins, None] - bins
        within = (distance >= 0) & (distance <= reach)
        return (distance * within).float(), (~within).float() * -HIDDEN_SCORE


def visible_keys(visible: Tensor, n_bins: int) -> tuple[Tensor, Tensor]:
    """Bias of keys, and whether a query has any, for `TemporalAttention.advance`.

    Parameters
    ----------
    visible : Tensor, shape (batch, n_keys, 1)
        1 for bins with a visible entry, else 0; the last `n_bins` are also queries.
    n_bins : int
        Number of queries.

    Returns
    -------
    bias : Tensor, shape (batch, 1, 1, n_keys)
        `-HIDDEN_SCORE` for hidden keys, else 0.
    has_key : Tensor, shape (batch, n_bins, 1)
        1 for queries with a visible key in reach, else 0.
    """
    bias = ((visible - 1) * HIDDEN_SCORE).mT[:, None]
    n_keys = visible.shape[1]
    if n_bins == 1:
        return bias, visible.amax(1, keepdim=True)
    reachable = (look_back(n_bins, n_keys - n_bins, visible.device)[1] == 0).to(visible.dtype)
    return bias, (reachable @ visible).clamp(max=1)


class Positions(nn.Module):
    """Learned position encoding of the first `n_bins` bins, added to the residual stream.

    Later bins have the position of the last of them.
    """

    def __init__(self, n_bins: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(0.5 * sinusoids(n_bins, width))

    def forward(self, x: Tensor, age: Tensor | None = None) -> Tensor:
        """Add the encoding.

        Parameters
        ----------
        x : Tensor, shape (batch, n_bins, width)
            Residual stream.
        age : Tensor of int, shape (batch,), default=None
            Position of the first bin of each stream; None: 0.
        """
        if age is None and x.shape[1] == len(self.weight):
            return x + self.weight
        position = torch.arange(x.shape[1], device=x.device)
        if age is not None:
            position = age[:, None] + position  # (batch, n_bins)
        return x + self.weight[position.clamp(max=len(self.weight) - 1)]


class TemporalLayer(nn.Module):
    """Layer of NDT: pre-norm attention over bins, then a feed-forward branch."""

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        dropout: float,
        local_bins: int | None,
        feed_forward: Callable[[], nn.Module],
    ):
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.attention = TemporalAttention(d_model, n_heads, dropout, local_bins)
        self.drop = Dropout(dropout)
        self.feed_forward = feed_forward()

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

    def advance(
        self, x: Tensor, extend: Callable[[str, Tensor], Tensor], keys: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Update the residual stream of the next bins; parameters as in the attention."""
        x = x + self.attention.advance(self.norm(x), extend, keys)
        return x + self.feed_forward(x)  # (batch, n_bins, d_model)
