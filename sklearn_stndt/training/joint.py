"""Train one core on several sessions, each with its own neurons."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from skorch.helper import predefined_split
from skorch.history import History

from sklearn_stndt.network.isolation import isolated_torch
from sklearn_stndt.training.calibration import (
    Calibration,
    calibrate,
    calibrate_as,
    few_trials_shares,
    groups_of,
)
from sklearn_stndt.training.constants import fit_constants
from sklearn_stndt.training.divergence import check_finite
from sklearn_stndt.training.fitting import TrainingData, as_tensors, count_positions
from sklearn_stndt.training.joint_batches import (
    SessionBatches,
    SessionsInTurn,
    SessionWindows,
)
from sklearn_stndt.training.joint_net import (
    JointGuard,
    MeanHeldOutBits,
    MultiSessionNet,
    SessionNetworks,
)
from sklearn_stndt.training.memory import check_memory, reuse_memory
from sklearn_stndt.training.net import MaskedModellingNet, build_net, count_folds
from sklearn_stndt.training.readout import average_heldout
from sklearn_stndt.training.settings import LONGEST_EPOCH, DataSize, Settings
from sklearn_stndt.windows.cutting import Windows
from sklearn_stndt.windows.segments import Segments

FEWEST_VALIDATED = 5  # windows to be set aside; with fewer, a session leaves validation to others


def mean_size(sizes: Sequence[DataSize]) -> DataSize:
    """Mean size of the sessions, from which "auto" settings of the core follow."""
    n_sessions, n_bins = len(sizes), sum(size.n_bins for size in sizes)
    return DataSize(
        n_bins=round(n_bins / n_sessions),
        n_neurons=max(size.n_neurons for size in sizes),
        n_windows=math.ceil(sum(size.n_windows for size in sizes) / n_sessions),
        window=sizes[0].window,
        spikes_per_bin=sum(size.spikes_per_bin * size.n_bins for size in sizes) / n_bins,
    )


def train_together(
    sessions: Sequence[TrainingData], settings: Sequence[Settings]
) -> tuple[list[MaskedModellingNet], History]:
    """Train networks with a shared core.

    Parameters
    ----------
    sessions : sequence of TrainingData
        Windows of each session, all of the same number of bins.
    settings : sequence of Settings
        One per session. They differ only in the held-out neurons and in stochastic depth.

    Returns
    -------
    nets : list of MaskedModellingNet
        One trained net per session, trimmed for prediction. Their networks hold the same modules
        as their core.
    history : History
        Of the joint training; `valid_bits` is the mean over sessions.
    """
    training = settings[0].training
    windows = SessionWindows([data.windows for data in sessions])
    batches = SessionBatches(windows.sizes, training.batch_size, most=LONGEST_EPOCH)
    changes: dict[str, Any] = {
        "module": SessionNetworks,
        "module__n_neurons": [data.size.n_neurons for data in sessions],
        "module__settings": [s.network for s in settings],
        "objectives": [s.objective for s in settings],
        "iterator_train__shuffle": False,
        "iterator_train__sampler": None,
        "iterator_train__batch_sampler": batches,
        "iterator_train__batch_size": 1,
        "callbacks__divergence": JointGuard([data.statistics.mean for data in sessions]),
    }
    scored = [data.validation for data in sessions if data.validation is not None]
    if scored:
        # all sessions are listed, so that they keep their numbers; some may have no windows
        validation = SessionWindows(
            [
                data.validation or Windows(data.windows.rows, [], [], windows.window)
                for data in sessions
            ]
        )
        n_entries = sum(len(part) * part.window * part.rows.shape[1] for part in scored)
        changes |= {
            "train_split": predefined_split(validation),
            "n_scored_folds": count_folds(n_entries, len(validation), len(windows)),
            "iterator_valid__batch_sampler": SessionsInTurn(validation.sizes, training.batch_size),
            "iterator_valid__batch_size": 1,
            "callbacks__heldout_bits": MeanHeldOutBits(),
        }
    with isolated_torch(
        training.n_threads, training.random_state, training.device, training.precision
    ):
        net = build_net(
            settings[0],
            max(data.size.n_neurons for data in sessions),
            sessions[0].windows,
            scored[0] if scored else None,
            kind=MultiSessionNet,
            n_updates=training.max_epochs * len(batches),
            n_positions=count_positions(settings[0], sessions),
            **changes,
        ).initialize()
        for session, data in enumerate(sessions):
            network = net.module_[session]
            if torch.device(training.device).type == "cpu":
                check_memory(network, data.size.window, data.size.n_neurons)
            network.set_statistics(*as_tensors(data.statistics))
        reuse_memory()
        net.partial_fit(windows)
        nets = [
            _net_of_session(net, i, data, s)
            for i, (data, s) in enumerate(zip(sessions, settings, strict=True))
        ]
        _calibrate_together(nets, sessions, settings[0])
        return nets, net.history


def enough_to_validate(segments: Segments, window: int, validation_fraction: float) -> bool:
    """Whether a session has windows enough to set some of them aside, beside other sessions."""
    return round(validation_fraction * segments.n_windows(window)) >= FEWEST_VALIDATED


def _net_of_session(
    net: MaskedModellingNet, session: int, data: TrainingData, settings: Settings
) -> MaskedModellingNet:
    """Net of one session with its trained network."""
    own = build_net(settings, data.size.n_neurons, data.windows, data.validation).initialize()
    own.module_ = net.module_[session]
    own.history = _history_of_session(net.history, session)
    own.interrupted_, own.diverged_ = net.interrupted_, net.diverged_
    return own


def _calibrate_together(
    nets: Sequence[MaskedModellingNet], sessions: Sequence[TrainingData], settings: Settings
) -> None:
    """Calibrate the network of each session; without validation, as the mean of the others.

    The posterior, which matters more the fewer trials there are, then has `few_trials_shares`.
    """
    validated = [data.validation is not None for data in sessions]
    found: list[Calibration] = []
    if settings.training.calibration:
        for net, data in zip(nets, sessions, strict=True):
            if data.validation is not None:
                found.append(calibrate(net, data.validation, data.windows))
    for net, data, is_validated in zip(nets, sessions, validated, strict=True):
        if found and not is_validated:
            width = float(np.mean([one.width for one in found]))
            gain = torch.ones(data.size.n_neurons)
            for name, group in groups_of(net).items():
                known = [one.gains[name] for one in found if name in one.gains]
                gain[group] = float(np.mean(known)) if known else 1.0
            calibrate_as(net, width, gain, data.windows, few_trials_shares(data.windows))
        if settings.training.calibration:
            average_heldout(net, data.windows)
        fit_constants(net, data.windows, data.validation)
        check_finite(net)
        history = copy.copy(net.history)  # trimming drops it
        net.trim_for_prediction()
        net.history = history


def _history_of_session(history: History, session: int) -> History:
    """Epochs of the joint training, with the held-out bits per spike of one session."""
    rows = History()
    for epoch in history:
        row = copy.copy(epoch) | {"batches": []}
        row.pop("valid_bits", None)
        bits = row.pop("session_bits", {})
        if session in bits:
            row["valid_bits"] = bits[session]
        rows.append(row)
    return rows
