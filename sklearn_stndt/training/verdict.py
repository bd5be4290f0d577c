"""Whether training has learnt anything, judged by the windows set aside."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from sklearn_stndt.metrics import bits_per_spike
from sklearn_stndt.network.isolation import isolated_torch
from sklearn_stndt.network.likelihood import Likelihood
from sklearn_stndt.training.hidden import predict_hidden
from sklearn_stndt.training.net import MaskedModellingNet
from sklearn_stndt.training.settings import LEAST_UPDATES, N_UPDATES
from sklearn_stndt.training.summary import count_updates, kept_row
from sklearn_stndt.windows.cutting import Windows

MANY_SPIKES = 1_000  # in the windows set aside: their score is hardly a matter of chance
NOISE = 0.5  # bits per spike by which a score from n spikes varies, times the square root of n
_AT_ONCE = 64  # windows that are read


def count_spikes(windows: Windows, neurons: NDArray) -> float:
    """Count the spikes of some neurons, or of all if `neurons` is empty, in windows."""
    total = 0.0
    for start in range(0, len(windows), _AT_ONCE):
        counts = windows.read(windows.rows, np.arange(start, min(start + _AT_ONCE, len(windows))))
        total += float(np.nansum(counts[..., neurons] if len(neurons) else counts))
    return total


def has_learnt_nothing(score: float, n_spikes: float, n_neurons: int) -> bool:
    """Whether a score says that hidden counts are not predicted better than by mean rates.

    The score is compared with mean rates that were computed from the scored counts themselves,
    which is worth half a nat per neuron to them. This is added, and with few spikes a score must be
    below 0 by more than chance.

    Parameters
    ----------
    score : float
        Held-out bits per spike.
    n_spikes : float
        Spikes that were scored.
    n_neurons : int
        Neurons that they are of.
    """
    if n_spikes < 1:
        return False
    gain = score + 0.5 * n_neurons / n_spikes / math.log(2)
    return gain <= (0 if n_spikes >= MANY_SPIKES else -NOISE / math.sqrt(n_spikes))


@torch.no_grad()
def score_hidden_counts(net: MaskedModellingNet, windows: Windows, neurons: NDArray) -> float:
    """Bits per spike of hidden counts of some neurons, or of all if `neurons` is empty.

    Other than the score of an epoch, it is that of a calibrated network, with its posterior.
    """
    with isolated_torch(1, device=net.device):
        parts = predict_hidden(net, windows)[0]
    if len(neurons):
        parts = parts.of(torch.as_tensor(neurons, dtype=torch.long))
    rates = net.module_.likelihood.of(neurons if len(neurons) else ...).mean(parts.log_rates)
    spikes = torch.where(parts.scored, parts.spikes, torch.nan)
    return bits_per_spike(spikes.numpy(), rates.numpy())


def warn_if_nothing_learnt(
    history: Sequence[Mapping[str, Any]],
    validation: Windows | None,
    neurons: NDArray,
    trained_on: Mapping[str, Any],
    likelihood: Likelihood,
    net: MaskedModellingNet | None = None,
    *,
    has_core: bool = False,
    where: str = "",
) -> None:
    """Warn if training has learnt nothing, and say what to check first.

    Parameters
    ----------
    history : History
        Epochs of the training.
    validation : Windows or None
        Windows set aside; None: there is nothing to judge by.
    neurons : ndarray of int
        Neurons that are scored; all, if empty.
    trained_on : dict
        The `DataSize` of the training data.
    likelihood : Likelihood
        Entries that are no counts are not judged.
    net : MaskedModellingNet, default=None
        The trained net. There is no warning if its rates, after calibration, are better than mean
        rates. None: the history alone is judged.
    has_core : bool, default=False
        Whether training started with the core of another network. With fewer updates than "auto"
        makes at least, there is no warning.
    where : str, default=""
        Which of several sessions this is about.
    """
    score = kept_row(history).get("valid_bits")
    least = LEAST_UPDATES if has_core else N_UPDATES[0]
    if not likelihood.counts or validation is None or score is None:
        return
    if count_updates(history) < least:
        return
    n_neurons, n_bins = trained_on["n_neurons"], trained_on["n_bins"]
    if not has_learnt_nothing(score, count_spikes(validation, neurons), len(neurons) or n_neurons):
        return
    if net is not None and score_hidden_counts(net, validation, neurons) > 0:
        return
    n_spikes = trained_on["spikes_per_bin"] * n_bins
    few = len(validation) == 1
    outcome, windows = ("may have", "single window") if few else ("has", "windows")
    advice = "One window tells little: score other trials, too. " if few else ""
    warnings.warn(
        f"Training {outcome} learnt nothing{where}: on the {windows} set aside, the held-out score "
        f"is {score:.3g} bits per spike, and 0 is the score of each neuron's mean rate. {advice}"
        "Check first: "
        f"(1) neurons are the last axis of X, here {n_neurons:,}; (2) bins are in order of time, "
        "not shuffled; (3) bins are neither too narrow nor too wide, 5 to 50 ms suit most "
        f"recordings, here a neuron has {n_spikes / n_bins / n_neurons:.2g} spikes per bin; (4) "
        f"there are enough spikes, here {n_spikes:,.0f} for training; at least several thousand "
        "are needed.",
        ConvergenceWarning,
        stacklevel=5,
    )
