"""Which entries are hidden from the network, and what replaces them."""

import torch
from torch import Tensor

LEVELS = 2**16  # two random bytes per entry
NEURON_WINDOWS = 0.5  # share of windows in which whole neurons are masked
N_FOLDS = 5  # complementary masks that together hide every entry once


def draw_levels(shape: torch.Size, device: torch.device) -> Tensor:
    """Random integers from -LEVELS / 2 to LEVELS / 2 - 1, at a quarter of the cost of floats.

    Parameters
    ----------
    shape : torch.Size
        Shape of the result.
    device : torch.device
        Device of the result.

    Returns
    -------
    Tensor of int16, shape `shape`
    """
    n = shape.numel()
    draws = torch.empty(-(-n // 4), dtype=torch.int64, device=device).random_(-(2**63), None)
    return draws.view(torch.int16)[:n].view(shape)


def below(levels: Tensor, share: float | Tensor) -> Tensor:
    """Select entries with a probability, rounded to 1 / LEVELS; 0 and 1 are exact.

    Parameters
    ----------
    levels : Tensor of int16, any shape
        From `draw_levels`.
    share : float or Tensor, broadcastable to the shape of levels
        The probability.

    Returns
    -------
    Tensor of bool, shape of levels
    """
    share = torch.as_tensor(share, device=levels.device)
    last = (share * LEVELS).round() - LEVELS // 2 - 1  # the highest level that is selected
    chosen = levels <= last.clamp(min=-LEVELS // 2).to(torch.int16)
    return chosen & (last >= -LEVELS // 2)


def draw_mask(visible: Tensor, ratio: float | tuple[float, float]) -> Tensor:
    """Mask single entries at random among those that are visible.

    Parameters
    ----------
    visible : Tensor of bool, shape (batch, n_bins, n_neurons)
        Entries that may be masked.
    ratio : float or (float, float)
        Share of the visible entries to mask; from a range, each trial draws its own share.

    Returns
    -------
    Tensor of bool, shape (batch, n_bins, n_neurons)
        True where an entry is masked.
    """
    low, high = ratio if isinstance(ratio, tuple) else (ratio, ratio)
    # (batch, 1, 1)
    per_trial = low + (high - low) * torch.rand(len(visible), 1, 1, device=visible.device)
    return visible & below(draw_levels(visible.shape, visible.device), per_trial)


def mask_neurons(masked: Tensor, visible: Tensor, ratio: float | tuple[float, float]) -> Tensor:
    """In half of the windows, mask whole neurons instead of single entries.

    Parameters
    ----------
    masked : Tensor of bool, shape (batch, n_bins, n_neurons)
        Masked single entries, from `draw_mask`.
    visible : Tensor of bool, same shape
        Entries that may be masked.
    ratio : float or (float, float)
        Share of the neurons to mask; from a range, each window draws its own share.

    Returns
    -------
    Tensor of bool, shape (batch, n_bins, n_neurons)
        True where an entry is masked.
    """
    neurons = draw_mask(torch.ones_like(visible[:, :1]), ratio)  # (batch, 1, n_neurons)
    chosen = torch.rand(len(visible), 1, 1, device=visible.device) < NEURON_WINDOWS
    return torch.where(chosen, visible & neurons, masked)


def corrupt(
    spikes: Tensor,
    visible: Tensor,
    masked: Tensor,
    token_ratio: float,
    random_ratio: float,
    largest: Tensor | None = None,
    counts: bool = True,
) -> tuple[Tensor, Tensor]:
    """Corrupt masked entries, as BERT does.

    Of the masked entries, a share `token_ratio` is hidden; of the rest, a share `random_ratio`
    is replaced by a count drawn from 0 to the largest count in the batch; the others keep their
    count, so that the network cannot tell which visible counts are true. Entries that are no counts
    are replaced by those of the same neuron in another bin of the batch.

    Parameters
    ----------
    spikes : Tensor, shape (batch, n_bins, n_neurons)
        Counts, 0 where missing.
    visible, masked : Tensor of bool, same shape
        Entries that may be shown; those among them that are to be predicted.
    token_ratio, random_ratio : float
        Shares as above, in [0, 1].
    largest : Tensor, shape (), default=None
        Largest count of the whole batch, if this is a micro-batch; None: this is the batch.
    counts : bool, default=True
        Whether entries are counts.

    Returns
    -------
    spikes, visible : Tensor, same shape
        Input of the network.
    """
    if token_ratio >= 1:
        return spikes, visible & ~masked
    levels = draw_levels(spikes.shape, spikes.device)
    as_token = masked & below(levels, token_ratio)
    corrupted = below(levels, token_ratio + (1 - token_ratio) * random_ratio)
    as_random = (masked & corrupted & ~as_token).to(spikes.dtype)
    if counts:
        # in [0, 1)
        share = draw_levels(spikes.shape, spikes.device).to(spikes.dtype) / LEVELS + 0.5
        random_counts = torch.floor(share * ((spikes.max() if largest is None else largest) + 1))
    else:
        rows = spikes.flatten(0, 1)  # (batch * n_bins, n_neurons)
        order = torch.randperm(len(rows), device=rows.device)
        random_counts = rows[order].view(spikes.shape)
    # products instead of torch.where, which takes ten times as long on a CPU
    return spikes * (1 - as_random) + random_counts * as_random, visible & ~as_token


def inference_masks(n_bins: int, n_neurons: int, n_passes: int) -> Tensor:
    """Which entries of a window are shown in each pass: all in the first, then all but a part.

    The others hide parts that are equal and do not overlap, or a half if there is only one. The
    same for all windows, so that a window's rates do not depend on others, and for each neuron, so
    that they do not depend on neurons that are added.

    Parameters
    ----------
    n_bins, n_neurons : int
        Shape of a window.
    n_passes : int
        Number of passes.

    Returns
    -------
    Tensor of bool, shape (n_passes, n_bins, n_neurons)
    """
    generator = torch.Generator().manual_seed(1)  # not the folds of scores
    n_parts = max(n_passes - 1, 2)
    part = torch.randint(n_parts, (n_neurons, n_bins), generator=generator).T
    return part + 1 != torch.arange(n_passes)[:, None, None]


def speckled_folds(shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """Assign entries to complementary folds; hiding each fold in turn hides every entry once.

    Scores, validation and calibration all use these folds. The same shape gives the same folds,
    and global random generators are not used.

    Parameters
    ----------
    shape : tuple of int
        Shape of the data.
    device : torch.device or str, default="cpu"
        Device of the result.

    Returns
    -------
    Tensor of uint8, shape `shape`
        The fold of each entry, from 0 to N_FOLDS - 1.
    """
    generator = torch.Generator().manual_seed(0)
    return torch.randint(N_FOLDS, shape, generator=generator, dtype=torch.uint8).to(device)
