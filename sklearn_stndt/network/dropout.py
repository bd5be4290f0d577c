"""Dropout, at a fraction of the usual cost on a CPU, and stochastic depth."""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 256  # a byte decides over an entry
TABLE_SIZE = 2**22  # entries of noise, from which stretches are taken


@functools.lru_cache(maxsize=8)
def noise_table(threshold: int, size: int, dtype: torch.dtype) -> Tensor:
    """Factors of entries that are dropped (0) or kept, the same in every process.

    Parameters
    ----------
    threshold : int
        Of 256 entries, so many are dropped on average.
    size : int
        Entries, a multiple of 8.
    dtype : torch.dtype
        Of the factors.

    Returns
    -------
    Tensor, shape (size,)
    """
    generator = torch.Generator().manual_seed(0)
    draws = torch.empty(size // 8, dtype=torch.int64)
    draws.random_(-(2**63), None, generator=generator)
    kept = draws.view(torch.uint8) >= threshold
    return kept.to(dtype).mul_(LEVELS / (LEVELS - threshold))


def draw_noise(threshold: int, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Noise from the table, at an offset that torch's generator draws.

    Where the table is too short for a stretch of its own for each row (last axis), rows overlap:
    each begins at some distance behind the one before.

    Parameters
    ----------
    threshold : int
        Of 256 entries, so many are dropped on average.
    shape : torch.Size
        Shape of the result.
    dtype : torch.dtype
        Of the result.

    Returns
    -------
    Tensor, shape `shape`
        0, or the inverse of the probability that an entry is kept. A view that must not be changed.
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
    """Dropout that takes its noise from a table, at an offset that is drawn anew each time.

    The probability is rounded to 1/256, and entries that stay are scaled by its exact inverse, so
    that expectations are kept. On a GPU it is torch's own dropout.

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
        return x * draw_noise(self.threshold, x.shape, x.dtype)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class StochasticDepth(nn.Module):
    """Leaves a branch out of a part of the passes in training, for all trials at once [1]_.

    Parameters
    ----------
    p : float
        Probability that it is left out, in [0, 1).

    References
    ----------
    .. [1] G. Huang et al., "Deep networks with stochastic depth", ECCV 2016.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def draw_factor(self) -> float:
        """Factor of the branch: 0 to leave it out, else what keeps its expectation; 1 in use."""
        if not self.training or self.p == 0:
            return 1.0
        return 0.0 if float(torch.rand(())) < self.p else 1 / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"
