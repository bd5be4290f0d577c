"""Which entries the network does not see, and what stands in their place."""

import torch
from torch import Tensor


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
    return visible & (torch.rand(visible.shape, device=visible.device) < per_trial)


def corrupt(
    spikes: Tensor, visible: Tensor, masked: Tensor, token_ratio: float, random_ratio: float
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

    Returns
    -------
    spikes, visible : Tensor
        What the network is given.
    """
    if token_ratio >= 1:
        return spikes, visible & ~masked
    draw = torch.rand(spikes.shape, device=spikes.device)
    as_token = masked & (draw < token_ratio)
    as_random = masked & ~as_token & (draw < token_ratio + (1 - token_ratio) * random_ratio)
    random_counts = torch.floor(torch.rand_like(spikes) * (spikes.max() + 1))
    return torch.where(as_random, random_counts, spikes), visible & ~as_token


def speckled_folds(
    shape: tuple[int, ...], n_folds: int, seed: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Deal all entries to complementary folds, so that hiding fold after fold hides each once.

    Parameters
    ----------
    shape : tuple of int
        Shape of the data.
    n_folds : int
        Number of folds.
    seed : int
        The same seed and shape give the same folds; no global generator is touched.
    device : torch.device or str, default="cpu"
        Where the result lives.

    Returns
    -------
    Tensor of uint8, shape `shape`
        The fold of each entry, from 0 to n_folds - 1.
    """
    generator = torch.Generator().manual_seed(seed)
    folds = torch.randint(n_folds, shape, generator=generator, dtype=torch.uint8)
    return folds.to(device)
