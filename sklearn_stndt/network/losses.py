"""Losses: masked modelling, and a contrast between corrupted views."""

import torch
import torch.nn.functional as F
from torch import Tensor


def loss_weights(
    masked: Tensor,
    heldout: Tensor | None = None,
    forecast: Tensor | None = None,
    totals: Tensor | None = None,
) -> Tensor:
    """How much each entry counts in the loss of masked modelling.

    Masked held-in entries, held-out neurons and forecast bins are averaged each on their own and
    then added with equal weight, so that a few held-out neurons count as much as the many held-in
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
        Entries of the groups, from `group_sizes`, where these are a part of a batch; None: they
        are the batch.

    Returns
    -------
    Tensor, shape (batch, n_bins, n_neurons)
        Sums to 1 over each group of the batch that has entries.
    """
    if totals is None:
        totals = group_sizes(masked, heldout, forecast)
    weights = torch.zeros(masked.shape, device=masked.device)
    for group, total in zip((masked, heldout, forecast), totals, strict=True):
        if group is not None:
            weights.addcmul_(group.float(), 1 / total.clamp(min=1))
    return weights


def group_sizes(masked: Tensor, heldout: Tensor | None, forecast: Tensor | None) -> Tensor:
    """Entries of each group of `loss_weights`, shape (3,); sizes of parts add up."""
    groups = (masked, heldout, forecast)
    sizes = [0 if group is None else torch.count_nonzero(group) for group in groups]
    return torch.as_tensor(sizes, dtype=torch.float32, device=masked.device)


def masked_modelling_loss(nll: Tensor, weights: Tensor) -> Tensor:
    """Loss of what the network did not see.

    Parameters
    ----------
    nll : Tensor, shape (batch, n_bins, n_neurons)
        Negative log-likelihood of each entry, finite.
    weights : Tensor, same shape
        From `loss_weights`. A weighted sum: losses of the parts of a batch add up to its own.

    Returns
    -------
    Tensor, shape ()
    """
    return (nll * weights).sum()


def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Contrast between two corrupted views of the same trials (NT-Xent).

    Each view of a trial has to be told from all other views in the batch as the partner of the
    trial's other view, by cosine similarity.

    Parameters
    ----------
    first, second : Tensor, shape (batch, n_features)
        Representations of the two views; row i of both is trial i.
    temperature : float
        Similarities are divided by it; small values look at the nearest neighbours only.

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
    views = torch.cat([first, second])  # (2 batch, n_features)
    products = views @ views.T  # (2 batch, 2 batch)
    # cosines from products: to normalise the views would copy them, and they may be long
    scale = products.diagonal().clamp(min=1e-24).rsqrt()
    similarity = products * scale * scale[:, None] / temperature
    itself = torch.eye(2 * n, dtype=torch.bool, device=views.device)
    similarity = similarity.masked_fill(itself, -torch.inf)
    partner = torch.arange(2 * n, device=views.device).roll(n)
    return F.cross_entropy(similarity, partner)
