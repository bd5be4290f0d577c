"""Train one core on several sessions, each with its own neurons."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, zip_longest
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from skorch.helper import predefined_split
from skorch.history import History
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler

from sklearn_stndt.network import STNDT, NetworkOutput, NetworkSettings
from sklearn_stndt.network.core import share_core
from sklearn_stndt.network.cost import training_chunk_size
from sklearn_stndt.network.isolation import isolated_torch
from sklearn_stndt.network.likelihood import Likelihood
from sklearn_stndt.training.calibration import (
    Calibration,
    calibrate,
    calibrate_as,
    few_trials_shares,
    fit_constants,
    groups_of,
)
from sklearn_stndt.training.callbacks import HeldOutBits
from sklearn_stndt.training.divergence import DivergenceGuard, check_finite
from sklearn_stndt.training.fitting import TrainingData, as_tensors, count_positions
from sklearn_stndt.training.memory import check_memory, reuse_memory
from sklearn_stndt.training.net import MaskedModellingNet, build_net, count_folds, network_class
from sklearn_stndt.training.readout import average_heldout
from sklearn_stndt.training.settings import LONGEST_EPOCH, DataSize, Settings
from sklearn_stndt.windows.cutting import Windows
from sklearn_stndt.windows.segments import Segments

FEWEST_IN_BATCH = 2  # windows of a session in a batch
ENOUGH_IN_BATCH = 5  # with fewer, windows are used twice in an epoch
FEWEST_VALIDATED = 5  # windows to be set aside; with fewer, a session leaves validation to others


class SessionPart(NamedTuple):
    """What a batch has of one session."""

    session: int
    spikes: Tensor  # (n_windows, window, n_neurons of the session)


class SessionWindows(Dataset):
    """Windows of several sessions, numbered one session after the other.

    A batch may have windows of several; it is returned with their numbers, by session.

    Parameters
    ----------
    sessions : sequence of Windows
        Windows of each session, with its own neurons; they are read from its own array.
    """

    def __init__(self, sessions: Sequence[Windows]):
        self.sessions = sessions
        self.sizes = [len(windows) for windows in sessions]
        self.edges = np.concatenate([[0], np.cumsum(self.sizes)])
        self.window = sessions[0].window

    def __len__(self) -> int:
        return int(self.edges[-1])

    def __getitem__(self, index: int) -> tuple[Tensor, list[SessionPart]]:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, list[SessionPart]]:
        """Return the indices of a batch, and what it has of each session."""
        rows = np.asarray(indices)
        session_of = np.searchsorted(self.edges, rows, side="right") - 1
        parts = []
        for session in np.unique(session_of):
            within = rows[session_of == session] - self.edges[session]
            spikes, _ = self.sessions[session].__getitems__(within)
            parts.append(SessionPart(int(session), spikes))
        return torch.as_tensor(rows), parts


class SessionBatches(Sampler):
    """Training batches with windows of all sessions.

    A step of the core follows the mean gradient over sessions, and the weights that belong to the
    neurons of a session are updated in as many batches as those of the largest one, unless this
    would leave less than two of its windows for a batch. Every window is used once in an epoch, or
    twice if a batch would have less than five of its session.

    Parameters
    ----------
    sizes : sequence of int
        Number of windows of each session.
    batch_size : int
        Windows of the largest session in a batch, at most.
    most : int or None, default=None
        Most batches in an epoch; if there are more, it is a random part of them.
    """

    def __init__(self, sizes: Sequence[int], batch_size: int, most: int | None = None):
        self.sizes = sizes
        self.n_batches = n_batches = -(-max(sizes) // batch_size)
        self.n_drawn = [max(size, min(2 * size, ENOUGH_IN_BATCH * n_batches)) for size in sizes]
        self.n_parts = [max(min(n_batches, n // FEWEST_IN_BATCH), 1) for n in self.n_drawn]
        self.n_used = n_batches if most is None else min(n_batches, most)

    def __len__(self) -> int:
        return self.n_used

    def __iter__(self) -> Iterator[list[int]]:
        batches: list[list[int]] = [[] for _ in range(self.n_batches)]
        edges = np.concatenate([[0], np.cumsum(self.sizes)]).tolist()
        for session in np.argsort(self.sizes)[::-1].tolist():
            size, n_drawn = self.sizes[session], self.n_drawn[session]
            if not size:
                continue
            drawn = torch.cat([torch.randperm(size), torch.randperm(size)])[:n_drawn]
            parts = (edges[session] + drawn).tensor_split(self.n_parts[session])
            # to those batches that have the fewest windows so far
            order = torch.randperm(self.n_batches).tolist()
            emptiest = sorted(order, key=lambda i: len(batches[i]))
            for i, part in zip(emptiest, parts, strict=False):
                batches[i] += part.tolist()
        for i in torch.randperm(self.n_batches)[: self.n_used].tolist():
            yield batches[i]


class SessionsInTurn(Sampler):
    """Batches for validation, each of windows of one session, in order.

    Parameters
    ----------
    sizes : sequence of int
        Number of windows of each session.
    batch_size : int
        Windows per batch, at most.
    """

    def __init__(self, sizes: Sequence[int], batch_size: int):
        edges = np.concatenate([[0], np.cumsum(sizes)])
        self.batches = [
            list(range(first, min(first + batch_size, stop)))
            for start, stop in pairwise(edges.tolist())
            for first in range(start, stop, batch_size)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


class SessionNetworks(nn.Module):
    """One network per session, with one core; calls go to the network of the present session.

    Parameters
    ----------
    n_neurons : sequence of int
        Neurons of each session.
    n_bins : int
        Bins of the windows of all sessions.
    settings : sequence of NetworkSettings
        One per session; they may differ in what does not shape the core.
    **changes
        Further parameters of :class:`~sklearn_stndt.network.STNDT`.
    """

    def __init__(
        self,
        n_neurons: Sequence[int],
        n_bins: int,
        settings: Sequence[NetworkSettings],
        **changes: Any,
    ):
        super().__init__()
        self.networks = nn.ModuleList(
            network_class(s)(n, n_bins, s, **changes)
            for n, s in zip(n_neurons, settings, strict=True)
        )
        self.session = 0
        for network in self.networks[1:]:
            share_core(cast(STNDT, network), self[0])

    def __getitem__(self, session: int) -> STNDT:
        return cast(STNDT, self.networks[session])

    @property
    def present(self) -> STNDT:
        """Network of the present session."""
        return self[self.session]

    @property
    def likelihood(self) -> Likelihood:
        """Distribution of the counts of the present session."""
        return self.present.likelihood

    @property
    def settings(self) -> NetworkSettings:
        """Settings of the network of the present session."""
        return self.present.settings

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.present.width

    @property
    def can_share_passes(self) -> bool:
        """Whether no layer of the core depends on the neurons, and all bins pass at once."""
        return self[0].mix_every is None and not self[0].settings.causal

    def forward_together(self, views: Mapping[int, tuple[Tensor, Tensor]]) -> list[NetworkOutput]:
        """Infer log-rates of several sessions in one pass through the core.

        Parameters
        ----------
        views : mapping of int to (Tensor, Tensor)
            By session: counts and visible entries, as for `forward`. Only if `can_share_passes`.

        Returns
        -------
        list of NetworkOutput
            One per session, in the order of `views`.
        """
        entered = []
        for session, (spikes, visible) in views.items():
            shown = visible.to(spikes.dtype)
            entering, values = self[session].scaling(spikes, shown)
            entered.append(self[session].before_layers(entering, values, shown))
        streams, bins_visible, neurons = zip(*entered, strict=True)
        stream, _, _ = self[0].run_layers(torch.cat(streams), torch.cat(bins_visible))
        streams = stream.split([len(x) for x in streams])
        return [
            self[session].after_layers(*of_session)
            for session, *of_session in zip(views, streams, bins_visible, neurons, strict=True)
        ]

    def embeddings(self, spikes: Tensor, visible: Tensor) -> list[Tensor]:
        """Embedded input, as of one network."""
        return self.present.embeddings(spikes, visible)

    def forward(self, spikes: Tensor, visible: Tensor) -> NetworkOutput:
        """Infer log-rates of the present session, as one network does."""
        return self.present(spikes, visible)


class MultiSessionNet(MaskedModellingNet):
    """Trains the networks of several sessions; each window of a batch counts the same.

    Parameters
    ----------
    module : type
        `SessionNetworks`.
    objectives : sequence of ObjectiveSettings
        One per session; they may differ in the held-out neurons.
    **kwargs
        Parameters of :class:`MaskedModellingNet`.
    """

    def __init__(self, module, *, objectives=(), **kwargs):
        super().__init__(module, **kwargs)
        self.objectives = objectives

    def take(self, session: int) -> None:
        """Make a session the present one."""
        self.module_.session = session
        self.objective = self.objectives[session]

    def train_step_single(self, batch, **fit_params) -> dict[str, Any]:
        """Train on a batch, with windows of several sessions, before the weights are updated."""
        indices, parts = batch
        self._set_training(True)
        shares = [len(spikes) / len(indices) for _, spikes in parts]
        together = len(parts) > 1 and self.module_.can_share_passes
        backpropagate = self.backpropagate_together if together else self.backpropagate_in_turn
        terms: dict[str, Tensor] = {}
        for share, of_session in zip(shares, backpropagate(parts, shares), strict=True):
            for name, term in of_session.items():
                terms[name] = terms.get(name, 0.0) + share * term
        return self.recorded(terms) | {"y_pred": indices}

    def backpropagate_in_turn(
        self, parts: Sequence[SessionPart], shares: Sequence[float]
    ) -> list[dict[str, Tensor]]:
        """Add the gradients of a batch, one session after the other; return terms of the losses.

        Parameters
        ----------
        parts : sequence of SessionPart
            Windows of each session.
        shares : sequence of float
            Of each session in the update.
        """
        terms = []
        for (session, spikes), share in zip(parts, shares, strict=True):
            self.take(session)
            terms.append(self.backpropagate(spikes, share=share)[0])
        return terms

    def backpropagate_together(
        self, parts: Sequence[SessionPart], shares: Sequence[float]
    ) -> list[dict[str, Tensor]]:
        """As `backpropagate_in_turn`, but all sessions pass the core at once, which is faster."""
        device = torch.device(self.device)
        # in micro-batches with windows of all sessions, so that activations of the core, and those
        # of the ends of a session, are no larger than in a micro-batch of one session
        sizes = [training_chunk_size(self.module_[i], x.shape, device) for i, x in parts]
        loads = [len(x) / size for (_, x), size in zip(parts, sizes, strict=True)]
        n_micro = math.ceil(max(*loads, sum(len(x) for _, x in parts) / max(sizes)))
        masked, terms = [], []
        for (session, spikes), share in zip(parts, shares, strict=True):
            self.take(session)
            split, starts = self.split_for_training(spikes)
            masked.append(list(self.masked_parts(split, starts, -(-len(spikes) // n_micro))))
            nll = torch.zeros((), device=device)
            terms.append({"train_nll": nll} | self.backpropagate_contrast(split, share))
        for micro_batch in zip_longest(*masked):
            present = {i: part for i, part in enumerate(micro_batch) if part is not None}
            views = {parts[i].session: part.view for i, part in present.items()}
            outputs = self.module_.forward_together(views)
            weighted = []
            for (i, part), output in zip(present.items(), outputs, strict=True):
                nll = part.loss(output.log_rates)
                weighted.append(shares[i] * nll)
                terms[i]["train_nll"] += nll.detach()
            torch.stack(weighted).sum().backward()
        return terms

    def validation_step(self, batch, **fit_params) -> dict[str, Any]:
        """Score a batch of one session."""
        _, [part] = batch
        self.take(part.session)
        return super().validation_step((part.spikes, part.session), **fit_params)


class MeanHeldOutBits(HeldOutBits):
    """Record held-out bits per spike of each session, and their mean as `valid_bits`.

    `window_nll_` weighs the windows of a session by the inverse of its spikes, or of its entries if
    these are no counts, as this mean does.
    """

    def on_epoch_begin(self, net, **kwargs):
        self.sessions_: dict[int, HeldOutBits] = {}

    def on_batch_end(self, net, training=False, evaluated=None, **kwargs):
        if training or evaluated is None:
            return
        session = net.module_.session
        if session not in self.sessions_:
            self.sessions_[session] = HeldOutBits()
            self.sessions_[session].on_epoch_begin(net)
        self.sessions_[session].on_batch_end(net, evaluated=evaluated)

    def on_epoch_end(self, net, dataset_valid=None, **kwargs):
        if dataset_valid is None:
            return
        bits = {}
        for session, score in self.sessions_.items():
            net.module_.session = session
            score.on_epoch_end(net, dataset_valid=dataset_valid)
            bits[session] = net.history[-1, "valid_bits"]
        net.history.record("session_bits", bits)
        net.history.record("valid_bits", float(np.mean(list(bits.values()))))

    @property
    def window_nll_(self) -> Tensor:
        scores = self.sessions_.values()
        parts = [score.window_nll_ / score.amount_ for score in scores]
        return torch.cat(parts)


class JointGuard(DivergenceGuard):
    """As `DivergenceGuard`, with the highest limit of all sessions.

    Parameters
    ----------
    mean_counts : sequence of ndarray of shape (n_neurons,)
        Mean counts of each session.
    """

    def limit_of(self, net, mean_counts):
        limits = []
        for session, counts in enumerate(mean_counts):
            net.take(session)
            limits.append(super().limit_of(net, counts))
        return max(loss for loss, _ in limits), max(limit for _, limit in limits)


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
