"""Log-rates of entries that are hidden from a trained network."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklearn_stndt.network import N_FOLDS
from sklearn_stndt.network.cost import inference_batch_size
from sklearn_stndt.network.likelihood import Likelihood
from sklearn_stndt.training.net import MaskedModellingNet
from sklearn_stndt.windows.cutting import Windows

MAX_ENTRIES = 2**22  # entries of the log-rates of all folds that are kept


class Predictions(NamedTuple):
    """Log-rates of windows and the counts they are scored against, on the CPU.

    Each of shape (n_folds * n_windows, n_bins, n_neurons).
    """

    log_rates: Tensor
    spikes: Tensor
    known: Tensor
    scored: Tensor  # hidden from the network and scored
    shown: Tensor  # visible to the network

    def of(self, neurons: Tensor) -> "Predictions":
        """Select neurons."""
        return Predictions(*(part[..., neurons] for part in self))


class Rows(NamedTuple):
    """What the rows of predictions are: a window with one fold hidden.

    Attributes
    ----------
    window : Tensor of int, shape (n_folds * n_windows,)
        Number of the window.
    bin_visible : Tensor of bool, shape (n_folds * n_windows, n_bins, 1)
        Bins with an entry that was visible.
    """

    window: Tensor
    bin_visible: Tensor


def predict_hidden(
    net: MaskedModellingNet, windows: Windows, n_folds: int = N_FOLDS
) -> tuple[Predictions, Rows]:
    """Infer each fold of the entries while it is hidden, from the others.

    Parameters
    ----------
    net : MaskedModellingNet
        Trained net.
    windows : Windows
        Those after the first `MAX_ENTRIES` entries, of all folds, are left out.
    n_folds : int, default=N_FOLDS
        The first folds alone, if fewer.

    Returns
    -------
    predictions : Predictions
    rows : Rows
    """
    net.module_.eval()
    n_neurons = windows.rows.shape[1]
    a_window = n_folds * windows.window * n_neurons
    n_windows = min(len(windows), max(MAX_ENTRIES // a_window, 1))
    size = inference_batch_size(net.module_, windows.window, n_neurons)
    collected, window_of, seen = [], [], []
    for start in range(0, n_windows, size):
        indices = np.arange(start, min(start + size, n_windows))
        counts = windows.__getitems__(indices)[0]
        starts = net.forecast_starts(counts, spread=True)
        batch = net.split_visible(counts, starts)
        for scored in net.objective.calibration_sets(batch, starts)[:n_folds]:
            shown = batch.visible & ~scored
            log_rates = net.infer(batch.spikes, shown).log_rates
            parts = (log_rates, batch.spikes, batch.known, scored, shown)
            collected.append([part.cpu() for part in parts])
            window_of.append(torch.as_tensor(indices))
            seen.append(shown.any(2, keepdim=True).cpu())
    predictions = Predictions(*(torch.cat(parts) for parts in zip(*collected, strict=True)))
    return predictions, Rows(torch.cat(window_of), torch.cat(seen))


def window_losses(
    likelihood: Likelihood, log_rates: Tensor, parts: Predictions, rows: Rows
) -> Tensor:
    """Negative log-likelihood of the scored entries of each window that has any.

    Parameters
    ----------
    likelihood : Likelihood
        Of the neurons, on the CPU.
    log_rates : Tensor, shape (n_folds * n_windows, n_bins, n_neurons)
        Log-rates in place of those of `parts`.
    parts : Predictions
    rows : Rows

    Returns
    -------
    Tensor, shape (n_scored_windows,)
    """
    counted = torch.zeros(int(rows.window.max()) + 1, dtype=torch.bool)
    counted[rows.window[parts.scored.flatten(1).any(1)]] = True
    nll = likelihood.nll(log_rates, parts.spikes)
    of_rows = torch.where(parts.scored, nll, 0.0).sum((1, 2), dtype=torch.float64)
    return of_rows.new_zeros(len(counted)).index_add(0, rows.window, of_rows)[counted]
