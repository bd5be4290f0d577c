"""Losses: masked modelling, and a contrastive loss between corrupted views."""

import torch
import torch.nn.functional as F
from torch import Tensor


def loss_weights(
    masked: Tensor,
    heldout: Tensor | None = None,
    forecast: Tensor | None = None,
    totals: Tensor | None = None,
) -> Tensor:
    """Weight of each entry in the masked modelling loss.

    Masked held-in entries, held-out neurons and forecast bins are averaged separately and then
    summed with equal weight, so that a few held-out neurons count as much as the many held-in
    entries.

    Parameters
    ----------
    masked : Tensor of bool, shape (batch, n_bins, n_neurons)
        Held-in entries that were masked.
    heldout : Tensor of bool, same shape, default=None
        Entries of held-out neurons that have a known count.
    forecast : Tensor of bool, same shape, default=None
        Entries of forecast bins that have a known count.
    totals : Tensor, shape (3,), default=None
        Group sizes in the whole batch, from `group_sizes`, if this is a micro-batch; None: this
        is the whole batch.

    Returns
    -------
    Tensor, shape (batch, n_bins, n_neurons)
        Sums to 1 over each non-empty group of the batch.
    """
    if totals is None:
        totals = group_sizes(masked, heldout, forecast)
    weights = torch.zeros(masked.shape, device=masked.device)
    for group, total in zip((masked, heldout, forecast), totals, strict=True):
        if group is not None:
            weights.addcmul_(group.float(), 1 / total.clamp(min=1))
    return weights


def group_sizes(masked: Tensor, heldout: Tensor | None, forecast: Tensor | None) -> Tensor:
    """Entries in each group of `loss_weights`, shape (3,); sizes of micro-batches add up."""
    none = torch.zeros((), dtype=torch.long, device=masked.device)
    groups = (masked, heldout, forecast)
    sizes = [none if group is None else torch.count_nonzero(group) for group in groups]
    return torch.stack(sizes).float()  # without waiting for a GPU


def masked_modelling_loss(nll: Tensor, weights: Tensor) -> Tensor:
    """Weighted loss of the entries hidden from the network.

    Parameters
    ----------
    nll : Tensor, shape (batch, n_bins, n_neurons)
        Negative log-likelihood of each entry, finite.
    weights : Tensor, same shape
        From `loss_weights`, so that losses of micro-batches add up to that of the batch.

    Returns
    -------
    Tensor, shape ()
    """
    return (nll * weights).sum()


def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Contrastive loss between two corrupted views of the same trials (NT-Xent).

    Each view must identify the other view of its trial among all other views in the batch, by
    cosine similarity.

    Parameters
    ----------
    first, second : Tensor, shape (batch, n_features)
        Representations of the two views; row i of both is trial i.
    temperature : float
        Divides the similarities; small values emphasise the nearest neighbours.

    Returns
    -------
    Tensor, shape ()
        Mean cross-entropy over both views.

    References
    ----------
    T. Chen, S. Kornblith, M. Norouzi, G. Hinton, "A simple framework for contrastive learning of
    visual representations", ICML 2020.
    """
    n = len(first)
    views = torch.cat([first, second])  # (2 * batch, n_features)
    products = views @ views.T  # (2 * batch, 2 * batch)
    # cosines from inner products: normalising the views would copy them, and they may be large
    scale = products.diagonal().clamp(min=1e-24).rsqrt()  # (2 * batch,)
    similarity = products * scale * scale[:, None] / temperature
    itself = torch.eye(2 * n, dtype=torch.bool, device=views.device)
    similarity = similarity.masked_fill(itself, -torch.inf)
    partner = torch.arange(2 * n, device=views.device).roll(n)  # (2 * batch,)
    return F.cross_entropy(similarity, partner)
