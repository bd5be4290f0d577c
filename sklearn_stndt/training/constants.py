"""Fit the constants of a likelihood, such as dispersions, after training."""

import math

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from sklearn_stndt.network import N_FOLDS
from sklearn_stndt.network.likelihood import Constant, Likelihood
from sklearn_stndt.training.hidden import Predictions, predict_hidden
from sklearn_stndt.training.net import MaskedModellingNet
from sklearn_stndt.windows.cutting import Windows

N_GRID = 12  # values of a constant that are tried
MOST_CORRECTION = math.log(2)  # of constants by validation windows
MOST_STEPS = 30  # of the optimiser of constants
MAX_CONSTANT_ENTRIES = 2**21  # entries of all folds from which constants are fitted


def fit_constants(
    net: MaskedModellingNet, training: Windows, validation: Windows | None = None
) -> None:
    """Fit the numbers of each neuron that a likelihood has, with fixed expected values.

    While the network is trained, they describe entries around expected values that dropout and
    earlier weights make worse. Here, they are those that maximise the likelihood of hidden entries
    in training windows. What all neurons have in common, a factor for each `Constant`, is then
    corrected by validation windows, to whose entries the network is not fitted.

    Parameters
    ----------
    net : MaskedModellingNet
        Trained net; the likelihood of its network is modified, if it has trained parameters.
    training : Windows
        Windows used for training.
    validation : Windows or None, default=None
        Windows not used for training.
    """
    fitted: Likelihood = net.module_.likelihood
    if not any(parameter.requires_grad for parameter in fitted.parameters()):
        return
    likelihood = fitted.of(...).double().requires_grad_()
    constants = [part for part in likelihood.modules() if isinstance(part, Constant)]
    parts = _predict_some(net, training)
    for constant in constants:
        _search(likelihood, constant, parts)
    _minimize(likelihood, parts)
    likelihood.requires_grad_(False)
    if validation is not None:
        parts = _predict_some(net, validation)
        for constant in constants:
            _multiply(likelihood, constant, parts)
    for constant in constants:
        constant.settle()
    fitted.load_state_dict(likelihood.state_dict())


@torch.no_grad()
def _predict_some(net: MaskedModellingNet, windows: Windows) -> Predictions:
    """Predictions of hidden entries in windows that are spread evenly over all of them."""
    most = max(MAX_CONSTANT_ENTRIES // (windows.window * windows.rows.shape[1]), 1)
    chosen = np.linspace(0, len(windows) - 1, min(most, len(windows))).astype(int)
    n_folds = min(max(most // len(windows), 1), N_FOLDS)
    part = Windows(
        windows.rows,
        windows.starts[chosen],
        windows.lengths[chosen],
        windows.window,
        windows.final[chosen],
    )
    return predict_hidden(net, part, n_folds)[0]


@torch.no_grad()
def _search(likelihood: Likelihood, constant: Constant, parts: Predictions) -> None:
    """Give each neuron the best of its present value and of values spread over the bounds."""
    present = constant.log().clone()
    grid = torch.linspace(*constant.bounds, N_GRID, dtype=present.dtype)
    candidates = [present, *(torch.full_like(present, float(value)) for value in grid)]
    constant.change.zero_()
    losses = []
    for candidate in candidates:
        constant.start.copy_(candidate)
        nll = likelihood.nll(parts.log_rates.double(), parts.spikes.double())
        losses.append(torch.where(parts.scored, nll, 0.0).sum((0, 1)))  # (n_neurons,)
    best = torch.stack(losses).argmin(0)
    constant.start.copy_(torch.stack(candidates).gather(0, best[None])[0])


@torch.no_grad()
def _multiply(likelihood: Likelihood, constant: Constant, parts: Predictions) -> None:
    """Multiply a constant of all neurons by the most likely factor."""
    start = constant.start.clone()

    def loss(change: float) -> float:
        constant.start.copy_(start + change)
        nll = likelihood.nll(parts.log_rates.double(), parts.spikes.double())
        return float(torch.where(parts.scored, nll, 0.0).sum())

    bounds = (-MOST_CORRECTION, MOST_CORRECTION)
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-2})
    constant.start.copy_(start + best.x)


def _minimize(likelihood: Likelihood, parts: Predictions) -> None:
    """Minimise the loss of scored entries; parameters stay as they are if it is not lower."""
    parameters = list(likelihood.parameters())
    kept = [parameter.detach().clone() for parameter in parameters]
    readout, values = parts.log_rates.double(), parts.spikes.double()
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=MOST_STEPS,
        tolerance_grad=1e-3,
        tolerance_change=1e-3,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        nll = likelihood.nll(readout, values)
        return torch.where(parts.scored, nll, 0.0).sum()  # in nats

    def closure() -> float:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return float(value.detach())

    with torch.enable_grad():
        first = float(loss().detach())
        optimizer.step(closure)
        last = float(loss().detach())
    if not last <= first:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)
