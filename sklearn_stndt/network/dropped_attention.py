"""Attention over bins with dropout of its weights, in a form that suits a processor's caches."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sklearn_stndt.network.dropout import draw_noise

CACHED_ENTRIES = 2**18  # weights at once: three such tensors stay near a core
KEPT_ENTRIES = 2**22  # weights of a call up to which they are kept for the backward pass
SHORTEST_BLOCK = 64  # queries at once, if a trial's weights are more


def query_blocks(
    n_bins: int, n_keys: int, n_heads: int, band: tuple[int, int] | None
) -> list[tuple[slice, slice]]:
    """Queries that attend at once, and the keys that are in their reach.

    Parameters
    ----------
    n_bins, n_keys, n_heads : int
        Queries, the keys among them, which come first, and heads of a trial.
    band : (int, int) or None
        Bins back and ahead that a bin may look; None: no limit.

    Returns
    -------
    list of (slice, slice)
        Together all queries; the cost grows in proportion to the bins where a band is narrow.
    """
    reach = n_keys if band is None else min(sum(band), n_keys)
    size = max(CACHED_ENTRIES // (n_heads * max(reach, 1)) - (reach if band else 0), SHORTEST_BLOCK)
    if band is not None:  # the wider a block, the more of its weights lie outside the band
        size = min(size, max(reach, SHORTEST_BLOCK))
    back, ahead = (n_bins, n_bins) if band is None else band
    blocks = []
    for start in range(0, n_bins, size):
        stop = min(start + size, n_bins)
        blocks.append((slice(start, stop), slice(max(start - back, 0), min(stop + ahead, n_keys))))
    return blocks


class DroppedAttention(torch.autograd.Function):
    r"""Scaled dot-product attention whose weights are dropped at random, block after block.

    .. math:: (\mathrm{softmax}(Q K^T / \sqrt{w} + B) \odot N) V

    The weights are the largest tensors of the network. torch's fused kernels know no dropout on a
    CPU, and operations on the weights of a whole batch spend their time on moving them to and from
    memory; those of a few trials, or of a part of a long one, stay in the cache. Where they are
    many they are not kept for the backward pass but computed once more, for the sake of memory.
    """

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        bias: Tensor | None,
        band: tuple[int, int] | None,
        n_keys: int,
        n_heads: int,
        threshold: int,
    ) -> Tensor:
        """Attend.

        Parameters
        ----------
        ctx : object
            Carries what the backward pass needs.
        qkv : Tensor, shape (batch, n_bins, 3 * n_heads * head_width)
            Queries, keys and values, one after the other.
        bias : Tensor, broadcast to (batch, n_heads, n_bins, n_bins), or None
            Added to the scores.
        band : (int, int) or None
            Bins back and ahead beyond which the bias forbids everything; None: no limit.
        n_keys : int
            Bins that may be looked at, the first ones; all of them where there is a band.
        n_heads : int
            Number of heads.
        threshold : int
            Weights out of 256 that are dropped.

        Returns
        -------
        Tensor, shape (batch, n_bins, n_heads * head_width)
        """
        batch, n_bins, inner = qkv.shape
        by_head = qkv.unflatten(2, (3, n_heads, -1)).permute(2, 0, 3, 1, 4)
        by_head = by_head.clone(memory_format=torch.contiguous_format)
        query, key, value = by_head  # each (batch, n_heads, n_bins, head_width)
        query /= math.sqrt(query.shape[-1])
        out, noises, kept = torch.empty_like(value), [], []
        keeps = batch * n_heads * n_bins * n_keys <= KEPT_ENTRIES
        for trials, rows, columns, scores, weights in _blocks(query, band, n_keys, 2):
            _attend(query[trials, :, rows], key[trials, :, columns], scores)
            _add_bias(scores, bias, trials, rows, columns)
            if keeps:
                kept.append(_softmax(scores))
                weights = kept[-1][1].detach()
            else:
                torch.softmax(scores, -1, out=weights)
            if threshold:
                noises.append(draw_noise(threshold, weights.shape, weights.dtype))
                weights = torch.mul(weights, noises[-1], out=scores)
            out[trials, :, rows] = weights @ value[trials, :, columns]
        ctx.save_for_backward(query, key, value, bias)
        ctx.noises, ctx.kept, ctx.band, ctx.n_keys = noises, kept, band, n_keys
        return out.transpose(1, 2).reshape(batch, n_bins, inner // 3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of queries, keys and values, and of the bias."""
        query, key, value, bias = ctx.saved_tensors
        batch, n_heads, n_bins, width = query.shape
        grad = grad.view(batch, n_bins, n_heads, width).transpose(1, 2).contiguous()
        grads = query.new_zeros(3, *query.shape)
        grad_bias = torch.zeros_like(bias) if ctx.needs_input_grad[1] else None
        blocks = enumerate(_blocks(query, ctx.band, ctx.n_keys, 2))
        for i, (trials, rows, columns, scores, grad_weights) in blocks:
            q, g = query[trials, :, rows], grad[trials, :, rows]
            k, v = key[trials, :, columns], value[trials, :, columns]
            if ctx.kept:
                leaf, softmax = ctx.kept[i]
            else:
                _attend(q, k, scores)
                _add_bias(scores, bias, trials, rows, columns)
                leaf, softmax = _softmax(scores)
            _attend(g, v, grad_weights)
            used = softmax.detach()
            if ctx.noises:
                used = torch.mul(used, ctx.noises[i], out=scores)
                grad_weights *= ctx.noises[i]
            grads[2, trials, :, columns] += used.mT @ g
            (grad_scores,) = torch.autograd.grad(softmax, leaf, grad_weights, retain_graph=True)
            if grad_bias is not None:
                part = grad_bias[trials] if len(grad_bias) > 1 else grad_bias
                part = of_block(part, rows, columns)
                part += grad_scores.sum_to_size(part.shape)
            grads[0, trials, :, rows] = grad_scores @ k
            grads[1, trials, :, columns] += grad_scores.mT @ q
        grads[0] /= math.sqrt(width)
        grad_qkv = grads.permute(1, 3, 0, 2, 4).reshape(batch, n_bins, 3 * n_heads * width)
        return grad_qkv, grad_bias, None, None, None, None


def _blocks(
    query: Tensor, band: tuple[int, int] | None, n_keys: int, n_buffers: int
) -> Iterator[tuple]:
    """Slices of trials, queries and keys, and tensors to write the weights of these into."""
    batch, n_heads, n_bins, _ = query.shape
    blocks = query_blocks(n_bins, n_keys, n_heads, band)
    largest = max((r.stop - r.start) * (c.stop - c.start) for r, c in blocks) * n_heads
    size = min(max(CACHED_ENTRIES // max(largest, 1), 1), batch)
    buffers = query.new_empty(n_buffers, size * largest)
    for start in range(0, batch, size):
        n_trials = min(size, batch - start)
        for rows, columns in blocks:
            shape = (n_trials, n_heads, rows.stop - rows.start, columns.stop - columns.start)
            tensors = (buffer[: math.prod(shape)].view(shape) for buffer in buffers)
            yield slice(start, start + n_trials), rows, columns, *tensors


def _softmax(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over keys that can be differentiated, and what by; it keeps its own result alone."""
    leaf = scores.detach().requires_grad_()
    with torch.enable_grad():
        return leaf, torch.softmax(leaf, -1)


def _attend(query: Tensor, key: Tensor, scores: Tensor) -> None:
    """Write products of queries and keys into a tensor that is there."""
    torch.bmm(query.flatten(0, 1), key.flatten(0, 1).mT, out=scores.flatten(0, 1))


def _add_bias(
    scores: Tensor, bias: Tensor | None, trials: slice, rows: slice, columns: slice
) -> None:
    if bias is not None:
        bias = bias[trials] if len(bias) > 1 else bias
        scores += of_block(bias, rows, columns)


def of_block(bias: Tensor, rows: slice, columns: slice) -> Tensor:
    """Of a tensor that broadcasts to all weights, what belongs to a block of them."""
    bias = bias[:, :, rows] if bias.shape[2] > 1 else bias
    return bias[..., columns] if bias.shape[3] > 1 else bias
