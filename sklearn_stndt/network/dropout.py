"""Dropout at a fraction of the usual cost on a CPU, where drawing random numbers dominates."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 256  # a byte decides over an entry


class Dropout(nn.Module):
    """Dropout that decides by random bytes, eight of which come with one draw.

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
        n = x.numel()
        draws = torch.empty(-(-n // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = draws.view(torch.uint8)[:n].view(x.shape) >= self.threshold
        return x * (kept * (LEVELS / (LEVELS - self.threshold)))

    def extra_repr(self) -> str:
        return f"p={self.p}"
