"""Calibrate on validation windows how far inferred rates deviate from each neuron's mean."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from sklearn_stndt.network import N_FOLDS, STNDT
from sklearn_stndt.network.cost import inference_batch_size
from sklearn_stndt.network.likelihood import Likelihood
from sklearn_stndt.training.net import MaskedModellingNet
from sklearn_stndt.windows.cutting import Windows

GAINS = (0.2, 2.0)  # bounds, for recordings that hardly constrain the gain
MAX_ENTRIES = 2**22  # entries of the log-rates of all folds kept to choose a gain


@torch.no_grad()
def calibrate(net: MaskedModellingNet, validation: Windows) -> dict[str, float]:
    r"""Scale the deviations of log-rates from their mean, preserving each neuron's mean rate.

    Log-rates of a network trained on few trials deviate further from the mean than unseen spikes
    support. One gain g for held-in and one for held-out neurons,

    .. math:: r \leftarrow \bar r + g\,(r - \bar r) + \delta,

    are chosen by the Poisson likelihood of hidden entries; :math:`\delta` preserves the mean rate.

    Parameters
    ----------
    net : MaskedModellingNet
        Trained net; the gain and shift of its network are modified.
    validation : Windows
        Windows not used for training.

    Returns
    -------
    dict
        Gains of the groups that have hidden spikes, under "heldin" and "heldout".
    """
    predictions = _predictions(net, validation)
    n_neurons = predictions.spikes.shape[-1]
    heldout = torch.zeros(n_neurons, dtype=torch.bool)
    heldout[torch.as_tensor(net.objective.heldout_neurons, dtype=torch.long)] = True
    center = _mean(predictions.log_rates, predictions.known)  # (n_neurons,)
    gains = {}
    module: STNDT = net.module_
    for name, group in (("heldin", ~heldout), ("heldout", heldout)):
        parts = predictions.of(group)
        if not (parts.spikes * parts.scored).any():
            continue
        best = minimize_scalar(
            _loss,
            bounds=GAINS,
            args=(module.likelihood, center[group], parts),
            method="bounded",
            options={"xatol": 1e-3},
        )
        gain = gains[name] = float(best.x)
        _, shift = _scaled(gain, center[group], parts.log_rates, parts.known)
        readout = module.readout
        index = torch.where(group)[0].to(readout.gain.device)
        readout.gain[index] *= gain
        moved = ((1 - gain) * center[group] + shift).to(readout.shift)
        readout.shift[index] = gain * readout.shift[index] + moved
    return gains


class _Predictions(NamedTuple):
    """Log-rates of windows and the counts they are scored against, on the CPU.

    Each of shape (n_folds * n_windows, n_bins, n_neurons).
    """

    log_rates: Tensor
    spikes: Tensor
    known: Tensor
    scored: Tensor  # hidden from the network and scored

    def of(self, neurons: Tensor) -> "_Predictions":
        """Select neurons."""
        return _Predictions(*(part[..., neurons] for part in self))


def _predictions(net: MaskedModellingNet, windows: Windows) -> _Predictions:
    """Log-rates with each fold hidden in turn."""
    net.module_.eval()
    n_neurons = windows.rows.shape[1]
    a_window = N_FOLDS * windows.window * n_neurons
    n_windows = min(len(windows), max(MAX_ENTRIES // a_window, 1))
    size = inference_batch_size(net.module_, windows.window, n_neurons)
    collected = []
    for start in range(0, n_windows, size):
        indices = np.arange(start, min(start + size, n_windows))
        counts = windows.__getitems__(indices)[0]
        starts = net.forecast_starts(counts, spread=True)
        batch = net.split_visible(counts, starts)
        for scored in net.objective.calibration_sets(batch, starts):
            log_rates = net.module_(batch.spikes, batch.visible & ~scored).log_rates
            parts = (log_rates, batch.spikes, batch.known, scored)
            collected.append([part.cpu() for part in parts])
    return _Predictions(*(torch.cat(parts) for parts in zip(*collected, strict=True)))


def _mean(log_rates: Tensor, known: Tensor) -> Tensor:
    """Mean log-rate of each neuron over known entries, shape (n_neurons,)."""
    total = torch.where(known, log_rates, 0.0).sum((0, 1), dtype=torch.float64)  # (n_neurons,)
    return total / known.sum((0, 1)).clamp(min=1)


def _scaled(gain: float, center: Tensor, log_rates: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Scaled log-rates, and the shift in them, (n_neurons,), that preserves each mean rate."""
    scaled = center + gain * (log_rates - center)
    before = torch.where(known, log_rates, -torch.inf).flatten(0, 1).logsumexp(0)
    after = torch.where(known, scaled, -torch.inf).flatten(0, 1).logsumexp(0)  # (n_neurons,)
    shift = torch.where(known.any(0).any(0), before - after, 0.0)
    return scaled + shift, shift


def _loss(gain: float, likelihood: Likelihood, center: Tensor, parts: _Predictions) -> float:
    scaled, _ = _scaled(gain, center, parts.log_rates, parts.known)
    nll = likelihood.nll(scaled, parts.spikes)
    return float(torch.where(parts.scored, nll, 0.0).sum(dtype=torch.float64))
