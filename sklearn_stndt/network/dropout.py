"""Dropout at a fraction of its usual cost on a CPU, and stochastic depth."""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 256  # one random byte per entry
TABLE_SIZE = 2**22  # entries of the noise table


@functools.lru_cache(maxsize=8)
def noise_table(threshold: int, size: int, dtype: torch.dtype) -> Tensor:
    """Random dropout factors, the same in every process.

    Parameters
    ----------
    threshold : int
        Probability that an entry is dropped, times 256.
    size : int
        Number of entries, a multiple of 8.
    dtype : torch.dtype
        Type of the factors.

    Returns
    -------
    Tensor, shape (size,)
        0, or the inverse of the probability that an entry is kept.
    """
    generator = torch.Generator().manual_seed(0)
    draws = torch.empty(size // 8, dtype=torch.int64)
    draws.random_(-(2**63), None, generator=generator)
    kept = draws.view(torch.uint8) >= threshold  # (size,)
    return kept.to(dtype).mul_(LEVELS / (LEVELS - threshold))


def draw_noise(threshold: int, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Dropout mask from the noise table, at an offset drawn from torch's generator.

    If the table is too short for separate rows (last axis), rows overlap: each starts at a fixed
    distance after the one before.

    Parameters
    ----------
    threshold : int
        Probability that an entry is dropped, times 256.
    shape : torch.Size
        Shape of the result.
    dtype : torch.dtype
        Type of the result.

    Returns
    -------
    Tensor, shape `shape`
        0, or the inverse of the probability that an entry is kept. A view: do not modify it.
    """
    n_columns = shape[-1] if shape else 1
    n_rows = math.prod(shape[:-1])
    size = TABLE_SIZE
    while n_rows + n_columns > size // 2:
        size *= 2
    step = min(n_columns, (size // 2 - n_columns) // max(n_rows, 1))
    start = int(torch.randint(size // 2, ()))
    table = noise_table(threshold, size, dtype)
    return table.as_strided((n_rows, n_columns), (step, 1), start).view(shape)


class Dropout(nn.Module):
    """Dropout whose mask comes from a noise table, at a new random offset in each pass.

    The probability is rounded to a multiple of 1/256; kept entries are scaled by the exact inverse
    of the rounded probability of being kept, which preserves expectations. On a GPU this is torch's
    own dropout.

    Parameters
    ----------
    p : float
        Probability that an entry becomes 0, in [0, 1).
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p
        self.threshold = min(round(p * LEVELS), LEVELS - 1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.threshold == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        return x * draw_noise(self.threshold, x.shape, x.dtype)  # shape of x

    def extra_repr(self) -> str:
        return f"p={self.p}"


class StochasticDepth(nn.Module):
    """Skips a residual branch in a random share of training passes, for all trials at once [1]_.

    Parameters
    ----------
    p : float
        Probability that the branch is skipped, in [0, 1).

    References
    ----------
    .. [1] G. Huang et al., "Deep networks with stochastic depth", ECCV 2016.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def draw_factor(self) -> float:
        """Factor of the branch: in training 0 (skipped) or 1 / (1 - p), at inference 1."""
        if not self.training or self.p == 0:
            return 1.0
        return 0.0 if float(torch.rand(())) < self.p else 1 / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"
