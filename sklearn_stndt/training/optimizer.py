"""Muon for the hidden matrices of the network, AdamW for all other parameters."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

# coefficients of the quintic iteration, whose slope at 0 is as steep as convergence to about 1
# allows (Jordan et al. 2024), and its number of steps, there 5
A, B, C = 3.4445, -4.7750, 2.0315
N_STEPS = 3


def _without_compiler(method: Any) -> Any:
    """Method of an optimizer without the decorator of torch that imports its compiler.

    The import takes a second of processor time, a tenth or more of a usual fit.
    """
    return getattr(method, "__wrapped__", method)


class Muon(AdamW):
    r"""Muon for matrices, AdamW for the rest.

    The momentum of a matrix is replaced by the nearest semi-orthogonal matrix, approximately, so
    that all directions are learned at the same rate [1]_. In parameter groups with
    `orthogonal=True`, for a matrix W of r rows and c columns with momentum M and gradient G,

    .. math:: M \leftarrow \mu M + G,\quad
        W \leftarrow (1 - \eta \lambda) W - \eta \sqrt{\max(1, r / c)}\,
        \mathrm{orthogonalize}(G + \mu M)

    with learning rate :math:`\eta` and weight decay :math:`\lambda`. All other groups are updated
    by AdamW.

    Parameters
    ----------
    params : iterable of dict
        Parameter groups. Those with `orthogonal=True` contain matrices only.
    momentum : float, default=0.95
        Momentum of matrices.
    betas : (float, float), default=(0.9, 0.98)
        Of AdamW. The second is below that of torch, because a training of a few hundred updates is
        no longer than the memory of .999.
    **kwargs
        Further parameters of :class:`torch.optim.AdamW`.

    References
    ----------
    .. [1] K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    """

    add_param_group = _without_compiler(AdamW.add_param_group)
    zero_grad = _without_compiler(AdamW.zero_grad)
    state_dict = _without_compiler(AdamW.state_dict)
    load_state_dict = _without_compiler(AdamW.load_state_dict)

    def __init__(
        self,
        params,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        **kwargs: Any,
    ):
        self.momentum = momentum
        # the first group is the one whose learning rate is recorded in the history
        super().__init__(sorted(params, key=_is_orthogonal), betas=betas, **kwargs)

    def step(self, closure=None):
        """Update all parameters that have a gradient; return what the closure returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        try:
            self.param_groups = [g for g in groups if not _is_orthogonal(g)]
            with torch.no_grad():
                _without_compiler(AdamW.step)(self)
        finally:
            self.param_groups = groups
        self._update_matrices([g for g in groups if _is_orthogonal(g)])
        return loss

    @torch.no_grad()
    def _update_matrices(self, groups: list[dict[str, Any]]) -> None:
        members = [(p, group) for group in groups for p in group["params"] if p.grad is not None]
        if not members:
            return
        matrices = [p for p, _ in members]
        grads = [p.grad for p in matrices]
        for p in matrices:
            if not self.state[p]:
                # AdamW expects a step in each state that is loaded
                self.state[p].update(momentum=torch.zeros_like(p), step=torch.zeros(()))
        momenta = [self.state[p]["momentum"] for p in matrices]
        torch._foreach_mul_(momenta, self.momentum)
        torch._foreach_add_(momenta, grads)
        updates = orthogonalize(torch._foreach_add(grads, momenta, alpha=self.momentum))
        decays = [1 - group["lr"] * group["weight_decay"] for _, group in members]
        sizes = [-group["lr"] * max(1.0, len(p) / p.shape[1]) ** 0.5 for p, group in members]
        torch._foreach_mul_(matrices, decays)
        torch._foreach_mul_(updates, sizes)
        torch._foreach_add_(matrices, updates)


def _is_orthogonal(group: dict[str, Any]) -> bool:
    return group.get("orthogonal", False)


def orthogonalize(matrices: Sequence[Tensor]) -> list[Tensor]:
    r"""Nearest semi-orthogonal matrices, approximately.

    Singular values above about .02 of the Frobenius norm become 0.7 to 1.2, smaller ones less.

    The Newton-Schulz iteration :math:`X \leftarrow (a + b X X^T + c (X X^T)^2) X` is followed for
    :math:`X X^T`, which is smaller than X and has the same shape in many matrices.

    Parameters
    ----------
    matrices : sequence of Tensor, shape (n_rows, n_columns)
        A zero matrix stays zero.

    Returns
    -------
    list of Tensor, of the same shapes
    """
    wide = [m if m.shape[0] <= m.shape[1] else m.mT for m in matrices]
    results = list(wide)
    sides = [len(m) for m in wide]
    for side in sorted(set(sides)):
        chosen = [i for i, of in enumerate(sides) if of == side]
        grams = torch.stack([wide[i] @ wide[i].mT for i in chosen])  # (n_chosen, side, side)
        # divided by their trace, the squared Frobenius norm, so that singular values are below 1
        traces = grams.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].clamp(min=1e-24)
        grams = grams / traces
        product = traces.rsqrt()
        for step in range(N_STEPS):
            factor = torch.baddbmm(grams, grams, grams, beta=B, alpha=C)
            factor.diagonal(dim1=1, dim2=2).add_(A)  # (n_chosen, side, side), symmetric
            product = factor @ product if step else factor * product
            if step + 1 < N_STEPS:
                grams = factor @ grams @ factor
        for i, map_ in zip(chosen, product, strict=True):
            results[i] = map_ @ wide[i]
    pairs = zip(matrices, results, strict=True)
    return [r if m.shape[0] <= m.shape[1] else r.mT for m, r in pairs]
