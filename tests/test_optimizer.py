"""Muon: directions, sizes and parameters of its updates."""

import copy
import math

import numpy as np
import pytest
import torch

from sklearn_stndt import STNDTEstimator
from sklearn_stndt.network import STNDT
from sklearn_stndt.training.net import HIDDEN_MATRICES, MUON_LR
from sklearn_stndt.training.optimizer import Muon, orthogonalize

SHAPES = [(6, 4), (4, 4), (4, 12), (5, 9), (4, 12), (1, 3)]


def draw(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_singular_values_are_about_1_and_singular_vectors_stay(scale):
    for matrix, result in zip(draw(SHAPES), orthogonalize(draw(SHAPES)), strict=True):
        assert result.shape == matrix.shape
        u, values, v = torch.linalg.svd(scale * matrix, full_matrices=False)
        (scaled,) = orthogonalize([scale * matrix])
        torch.testing.assert_close(scaled, result, rtol=1e-3, atol=1e-3)
        in_its_basis = u.mT @ result @ v.mT
        found = in_its_basis.diagonal()
        clear = values > 0.05 * values.max()  # values near 0 need more steps to reach 1
        assert ((found > 0.5) & (found < 1.3))[clear].all()
        torch.testing.assert_close(in_its_basis, found.diag(), rtol=0, atol=1e-3)


def test_matrices_do_not_influence_each_other():
    alone = [orthogonalize([matrix])[0] for matrix in draw(SHAPES)]
    for one, together in zip(alone, orthogonalize(draw(SHAPES)), strict=True):
        torch.testing.assert_close(one, together)


def test_a_zero_matrix_stays_zero():
    (zero,) = orthogonalize([torch.zeros(3, 5)])
    assert torch.equal(zero, torch.zeros(3, 5))


def steps(optimizer, params, grads):
    for of_step in grads:
        for p, grad in zip(params, of_step, strict=True):
            p.grad = grad.clone()
        optimizer.step()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_updates_of_matrices_are_those_of_the_formula(weight_decay):
    (weights,) = draw([(8, 2)], seed=1)
    p = torch.nn.Parameter(weights.clone())
    optimizer = Muon(
        [{"params": [p], "lr": 0.3, "orthogonal": True}], weight_decay=weight_decay, momentum=0.9
    )
    momentum = torch.zeros(8, 2)
    for i in range(3):
        (grad,) = draw([(8, 2)], seed=10 + i)
        steps(optimizer, [p], [[grad]])
        momentum = 0.9 * momentum + grad
        (direction,) = orthogonalize([grad + 0.9 * momentum])
        weights = (1 - 0.3 * weight_decay) * weights - 0.3 * math.sqrt(8 / 2) * direction
        torch.testing.assert_close(p.data, weights)


def test_other_parameters_are_updated_by_adamw():
    grads = [draw([(3, 2), (4,)], seed=s) for s in range(4)]
    updated = []
    for kind in (Muon, torch.optim.AdamW):
        params = [torch.nn.Parameter(p) for p in draw([(3, 2), (4,)], seed=9)]
        matrix = torch.nn.Parameter(torch.eye(2))
        groups = [{"params": params}]
        if kind is Muon:
            groups.append({"params": [matrix], "orthogonal": True})
        steps(kind(groups, lr=0.1, betas=(0.5, 0.9)), params, grads)
        updated.append(params)
        assert torch.equal(matrix, torch.eye(2)), "a parameter without gradient is left alone"
    for ours, theirs in zip(*updated, strict=True):
        assert torch.equal(ours, theirs)


def test_the_state_can_be_stored_and_restored():
    grads = [draw([(4, 3)], seed=s) for s in range(4)]
    p = torch.nn.Parameter(torch.ones(4, 3))
    optimizer = Muon([{"params": [p], "orthogonal": True}], lr=0.1)
    steps(optimizer, [p], grads[:2])
    clone = torch.nn.Parameter(p.detach().clone())
    other = Muon([{"params": [clone], "orthogonal": True}], lr=0.1)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(optimizer, [p], grads[2:])
    steps(other, [clone], grads[2:])
    assert torch.equal(p, clone)


def test_a_closure_is_called_with_gradients():
    p = torch.nn.Parameter(torch.eye(3))
    optimizer = Muon([{"params": [p], "orthogonal": True}], lr=0.1)

    def closure():
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3
    assert not torch.equal(p, torch.eye(3))


@pytest.mark.parametrize("spatial_layers", ["last", "all"])
def test_muon_trains_the_matrices_between_hidden_units(spatial_layers):
    found = {}

    class Spy(Muon):
        def __init__(self, params, **kwargs):
            super().__init__(params, **kwargs)
            found.update(groups=self.param_groups)

    X = np.random.default_rng(0).poisson(1.0, (8, 5, 6))
    names = {}
    params = {"n_layers": 2, "d_model": 8, "n_heads": 2, "max_epochs": 1, "lr": 0.004}
    module = STNDT(
        6, 5, n_layers=2, d_model=8, n_heads=2, dim_feedforward=32, spatial_layers=spatial_layers
    )
    for name, p in module.named_parameters():
        names[name] = tuple(p.shape)
    net_params = {
        "optimizer": Spy,
        "optimizer__param_groups": [(name, {"orthogonal": True}) for name in HIDDEN_MATRICES],
    }
    STNDTEstimator(**params, spatial_layers=spatial_layers, net_params=net_params).fit(X)
    shapes = [tuple(p.shape) for g in found["groups"] if g.get("orthogonal") for p in g["params"]]
    hidden = [
        shape
        for name, shape in names.items()
        if len(shape) == 2 and ("layers." in name or "feed_forward" in name)
        if not any(part in name for part in ("mixings", "norms"))
    ]
    assert sorted(shapes) == sorted(hidden)
    assert len(shapes) == 2 * 4 + (2 * 2 if spatial_layers == "all" else 0)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_the_history_records_the_learning_rate_of_adamw(optimizer):
    X = np.random.default_rng(0).poisson(1.0, (8, 5, 6))
    params = {"n_layers": 1, "d_model": 4, "n_heads": 1, "max_epochs": 2, "lr": 0.01}
    estimator = STNDTEstimator(**params, optimizer=optimizer, batch_size=2, warmup=0.2).fit(X)
    rates = [b["event_lr"] for e in estimator.history_ for b in e["batches"] if "event_lr" in b]
    assert max(rates) == pytest.approx(0.01)
    assert MUON_LR > 1
