"""Which entries the network does not see, and what stands in their place."""

import torch
from torch import Tensor

LEVELS = 2**16  # two random bytes decide over an entry
N_FOLDS = 5  # complementary masks that hide every entry once


def draw_levels(shape: torch.Size, device: torch.device) -> Tensor:
    """Random whole numbers from -LEVELS / 2 to LEVELS / 2 - 1, a quarter of the cost of floats.

    Parameters
    ----------
    shape : torch.Size
        Shape of the result.
    device : torch.device
        Where it lives.

    Returns
    -------
    Tensor of int16
    """
    n = shape.numel()
    draws = torch.empty(-(-n // 4), dtype=torch.int64, device=device).random_(-(2**63), None)
    return draws.view(torch.int16)[:n].view(shape)


def below(levels: Tensor, share: float | Tensor) -> Tensor:
    """Choose entries with a probability, rounded to 1 / LEVELS; 0 and 1 are exact.

    Parameters
    ----------
    levels : Tensor of int16
        From `draw_levels`.
    share : float or Tensor that broadcasts
        The probability.

    Returns
    -------
    Tensor of bool
    """
    share = torch.as_tensor(share, device=levels.device)
    last = (share * LEVELS).round() - LEVELS // 2 - 1  # the highest level that is chosen
    chosen = levels <= last.clamp(min=-LEVELS // 2).to(torch.int16)
    return chosen & (last >= -LEVELS // 2)


def draw_mask(visible: Tensor, ratio: float | tuple[float, float]) -> Tensor:
    """Choose single entries at random among those that are visible.

    Parameters
    ----------
    visible : Tensor of bool, shape (batch, n_bins, n_neurons)
        Entries that may be chosen.
    ratio : float or (float, float)
        Share of the visible entries to choose; of a range, each trial draws its own share.

    Returns
    -------
    Tensor of bool, shape (batch, n_bins, n_neurons)
        True where an entry was chosen.
    """
    low, high = ratio if isinstance(ratio, tuple) else (ratio, ratio)
    per_trial = low + (high - low) * torch.rand(len(visible), 1, 1, device=visible.device)
    return visible & below(draw_levels(visible.shape, visible.device), per_trial)


def corrupt(
    spikes: Tensor,
    visible: Tensor,
    masked: Tensor,
    token_ratio: float,
    random_ratio: float,
    largest: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Hide masked entries from the network, as BERT does.

    Of the masked entries, a share `token_ratio` is hidden; of the rest, a share `random_ratio`
    is replaced by a count drawn from 0 to the largest count in the batch; the others keep their
    value, so that a visible entry is no proof of its value.

    Parameters
    ----------
    spikes : Tensor, shape (batch, n_bins, n_neurons)
        Counts, 0 where missing.
    visible, masked : Tensor of bool, same shape
        Entries that may be shown; entries among them that are to be predicted.
    token_ratio, random_ratio : float
        Shares as above, in [0, 1].
    largest : Tensor, shape (), default=None
        Largest count of the batch, where this is a part of it; None: this is the batch.

    Returns
    -------
    spikes, visible : Tensor
        What the network is given.
    """
    if token_ratio >= 1:
        return spikes, visible & ~masked
    levels = draw_levels(spikes.shape, spikes.device)
    as_token = masked & below(levels, token_ratio)
    corrupted = below(levels, token_ratio + (1 - token_ratio) * random_ratio)
    as_random = (masked & corrupted & ~as_token).to(spikes.dtype)
    share = draw_levels(spikes.shape, spikes.device).to(spikes.dtype) / LEVELS + 0.5  # in [0, 1)
    random_counts = torch.floor(share * ((spikes.max() if largest is None else largest) + 1))
    # factors in place of torch.where, which takes ten times as long on a CPU
    return spikes * (1 - as_random) + random_counts * as_random, visible & ~as_token


def speckled_folds(shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """Deal all entries to complementary folds, so that hiding fold after fold hides each once.

    Scores, validation and calibration all use these folds. The same shape gives the same folds,
    and no global generator is touched.

    Parameters
    ----------
    shape : tuple of int
        Shape of the data.
    device : torch.device or str, default="cpu"
        Where the result lives.

    Returns
    -------
    Tensor of uint8, shape `shape`
        The fold of each entry, from 0 to N_FOLDS - 1.
    """
    generator = torch.Generator().manual_seed(0)
    return torch.randint(N_FOLDS, shape, generator=generator, dtype=torch.uint8).to(device)
