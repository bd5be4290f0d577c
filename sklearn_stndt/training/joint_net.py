"""Networks of several sessions that share a core, as one skorch net."""

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_stndt.network import STNDT, NetworkOutput, NetworkSettings
from sklearn_stndt.network.core import share_core
from sklearn_stndt.network.cost import training_chunk_size
from sklearn_stndt.network.likelihood import Likelihood
from sklearn_stndt.training.callbacks import HeldOutBits
from sklearn_stndt.training.divergence import DivergenceGuard
from sklearn_stndt.training.joint_batches import SessionPart
from sklearn_stndt.training.net import MaskedModellingNet, network_class


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
