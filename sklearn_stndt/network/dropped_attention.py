"""Attention over bins with dropout of its weights, in blocks that fit a processor's caches."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sklearn_stndt.network.dropout import draw_noise

CACHED_ENTRIES = 2**18  # attention weights per block: three such tensors fit a core's cache
KEPT_ENTRIES = 2**22  # weights per call up to which they are stored for the backward pass
SHORTEST_BLOCK = 64  # queries per block, at least


def query_blocks(
    n_bins: int, n_keys: int, n_heads: int, band: tuple[int, int] | None
) -> list[tuple[slice, slice]]:
    """Split queries into blocks, each with the keys within its reach.

    Parameters
    ----------
    n_bins, n_keys, n_heads : int
        Number of queries, of keys, which are the first bins, and of heads.
    band : (int, int) or None
        Bins back and ahead that a bin may attend to; None: no limit.

    Returns
    -------
    list of (slice, slice)
        Queries and keys of each block. With a narrow band, the cost is linear in the bins.
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
    r"""Scaled dot-product attention with dropout of the weights, computed block by block.

    .. math:: (\mathrm{softmax}(Q K^T / \sqrt{w} + B + H) \odot N) V

    with the bias B, the constant H that excludes keys, and the dropout mask N. The weights are the
    largest tensors of the network. On a CPU, torch's fused kernels have no dropout, and operations
    on the weights of a whole batch are limited by memory bandwidth; those of a few trials, or of a
    part of a long one, stay in the cache. Large weights are recomputed in the backward pass instead
    of stored, to save memory.
    """

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        bias: Tensor | None,
        excluded: Tensor | None,
        band: tuple[int, int] | None,
        n_keys: int,
        n_heads: int,
        threshold: int,
    ) -> Tensor:
        """Attend over bins.

        Parameters
        ----------
        ctx : object
            Stores what the backward pass needs.
        qkv : Tensor, shape (batch, n_bins, 3 * n_heads * head_width)
            Queries, keys and values, concatenated.
        bias : Tensor, broadcastable to (batch, n_heads, n_bins, n_bins), or None
            Added to the scores.
        excluded : Tensor, broadcastable to the same shape, or None
            Added to the scores as well, without a gradient: -inf for keys that are excluded.
        band : (int, int) or None
            Bins back and ahead beyond which every key is excluded; None: no limit.
        n_keys : int
            Number of keys, which are the first bins; all bins if there is a band.
        n_heads : int
            Number of heads.
        threshold : int
            Probability that a weight is dropped, times 256.

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
            _add_biases(scores, (bias, excluded), trials, rows, columns)
            if keeps:
                weights = torch.softmax(scores, -1)
                kept.append(weights)
            else:
                torch.softmax(scores, -1, out=weights)
            if threshold:
                noises.append(draw_noise(threshold, weights.shape, weights.dtype))
                weights = torch.mul(weights, noises[-1], out=scores)
            out[trials, :, rows] = weights @ value[trials, :, columns]
        ctx.save_for_backward(query, key, value, bias, excluded)
        ctx.noises, ctx.kept, ctx.band, ctx.n_keys = noises, kept, band, n_keys
        return out.transpose(1, 2).reshape(batch, n_bins, inner // 3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of `qkv` and `bias`, in their shapes; `grad` has the shape of the output."""
        query, key, value, bias, excluded = ctx.saved_tensors
        batch, n_heads, n_bins, width = query.shape
        # (batch, n_heads, n_bins, width)
        grad = grad.view(batch, n_bins, n_heads, width).transpose(1, 2).contiguous()
        grads = query.new_zeros(3, *query.shape)  # (3, batch, n_heads, n_bins, width)
        grad_bias = torch.zeros_like(bias) if ctx.needs_input_grad[1] else None
        blocks = enumerate(_blocks(query, ctx.band, ctx.n_keys, 2))
        for i, (trials, rows, columns, scores, grad_weights) in blocks:
            q, g = query[trials, :, rows], grad[trials, :, rows]
            k, v = key[trials, :, columns], value[trials, :, columns]
            if ctx.kept:
                softmax = ctx.kept[i]
            else:
                _attend(q, k, scores)
                _add_biases(scores, (bias, excluded), trials, rows, columns)
                softmax = torch.softmax(scores, -1)
            _attend(g, v, grad_weights)
            used = softmax
            if ctx.noises:
                used = torch.mul(softmax, ctx.noises[i], out=scores)
                grad_weights *= ctx.noises[i]
            grads[2, trials, :, columns] += used.mT @ g
            # by autograd, the first call would take a third of a second for an import of torch
            grad_scores = torch._softmax_backward_data(grad_weights, softmax, -1, softmax.dtype)
            if grad_bias is not None:
                part = grad_bias[trials] if len(grad_bias) > 1 else grad_bias
                part = of_block(part, rows, columns)
                part += grad_scores.sum_to_size(part.shape)
            grads[0, trials, :, rows] = grad_scores @ k
            grads[1, trials, :, columns] += grad_scores.mT @ q
        grads[0] /= math.sqrt(width)
        grad_qkv = grads.permute(1, 3, 0, 2, 4).reshape(batch, n_bins, 3 * n_heads * width)
        return grad_qkv, grad_bias, None, None, None, None, None


def _blocks(
    query: Tensor, band: tuple[int, int] | None, n_keys: int, n_buffers: int
) -> Iterator[tuple]:
    """Slices of trials, queries and keys, and buffers of shape (trials, heads, queries, keys)."""
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


def _attend(query: Tensor, key: Tensor, scores: Tensor) -> None:
    """Write the products of queries and keys into `scores`, (trials, n_heads, queries, keys)."""
    torch.bmm(query.flatten(0, 1), key.flatten(0, 1).mT, out=scores.flatten(0, 1))


def _add_biases(
    scores: Tensor,
    biases: tuple[Tensor | None, ...],
    trials: slice,
    rows: slice,
    columns: slice,
) -> None:
    for bias in biases:
        if bias is not None:
            bias = bias[trials] if len(bias) > 1 else bias
            scores += of_block(bias, rows, columns)


def of_block(bias: Tensor, rows: slice, columns: slice) -> Tensor:
    """Part of a bias, broadcastable to (batch, n_heads, n_bins, n_bins), for a block of weights."""
    bias = bias[:, :, rows] if bias.shape[2] > 1 else bias
    return bias[..., columns] if bias.shape[3] > 1 else bias
