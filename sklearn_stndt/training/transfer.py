"""Train a network that starts with the core of another: how its ends find their place."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from skorch.callbacks import Callback

from sklearn_stndt.network import STNDT
from sklearn_stndt.network.core import copy_core, core_parameters
from sklearn_stndt.training.net import MaskedModellingNet, build_net
from sklearn_stndt.training.settings import DataSize, Settings
from sklearn_stndt.windows.cutting import Windows
from sklearn_stndt.windows.segments import Segments

FROZEN_SHARE = 0.2  # share of the updates during which the core does not change
CORE_RATE = 0.3  # steps of the core, relative to those of training from nothing
N_STARTS = 3  # ends that are tried
START_UPDATES = 40  # updates of each of them, at most
START_SHARE = 0.6  # and at most this share of the updates that follow
FEWEST_SET_ASIDE = 30  # windows; fewer are worth more as training data


class SlowerCore(Callback):
    """Keep the core fixed at first, then take smaller steps for it than for the ends.

    The ends have to find out how neurons map to the core's stream, while the core keeps what it
    knows. Steps are scaled after the optimizer has taken them, so that this works for every
    optimizer.

    Parameters
    ----------
    core_rate : float
        Factor of the steps of the core.
    n_frozen : int or inf, default=0
        Number of updates during which the core is fixed.
    """

    def __init__(self, core_rate: float, n_frozen: float = 0):
        self.core_rate = core_rate
        self.n_frozen = n_frozen

    def on_train_begin(self, net, **kwargs):
        self._core = list(core_parameters(net.module_))
        self.n_updates_ = 0

    def on_batch_begin(self, net, training=False, **kwargs):
        if training:  # each time, because training may go back, or continue from a checkpoint
            self._freeze(self.n_updates_ < self.n_frozen)

    def on_grad_computed(self, net, training=False, **kwargs):
        if training:
            moved = [weight for weight in self._core if weight.grad is not None]
            self._before = [(weight, weight.detach().clone()) for weight in moved]

    @torch.no_grad()
    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            for weight, before in self._before:
                weight.copy_(torch.lerp(before, weight, self.core_rate))
            self.n_updates_ += 1

    def on_train_end(self, net, **kwargs):
        self._freeze(False)
        del self._core
        self.__dict__.pop("_before", None)

    def _freeze(self, frozen: bool) -> None:
        for weight in self._core:
            weight.requires_grad_(not frozen)


def start_callbacks(settings: Settings, size: DataSize) -> list[tuple[str, Callback]]:
    """Callbacks of a net that starts with the core of another."""
    n_frozen = round(FROZEN_SHARE * settings.training.max_epochs * _n_batches(settings, size))
    return [("slower_core", SlowerCore(CORE_RATE, n_frozen))]


def _n_batches(settings: Settings, size: DataSize) -> int:
    """Batches of an epoch."""
    batch_size = settings.training.batch_size
    return -(-size.epoch_windows(batch_size) // batch_size)


def take_core(
    net: MaskedModellingNet,
    core: STNDT,
    settings: Settings,
    size: DataSize,
    windows: Windows,
    statistics: Sequence[torch.Tensor | None],
) -> None:
    """Give a net the core of another network, and ends that suit it.

    With a fixed core, training of the ends often settles on a map of the neurons that is far from
    the best. So several are begun, and the one with the smallest training loss is kept.

    Parameters
    ----------
    net : MaskedModellingNet
        Initialised net, whose weights are replaced.
    core : STNDT
        Network whose core is the start.
    settings : Settings
        Settings of the net.
    size : DataSize
        Size of the training data.
    windows : Windows
        Training windows.
    statistics : sequence of Tensor or None
        Statistics of the neurons, as for :meth:`STNDT.set_statistics`.
    """
    n_epochs = math.ceil(START_UPDATES / _n_batches(settings, size))
    n_epochs = min(n_epochs, math.ceil(START_SHARE * settings.training.max_epochs))
    training = replace(settings.training, max_epochs=n_epochs, verbose=0, callbacks=None)
    smallest, best = math.inf, None
    for _ in range(N_STARTS):
        begun = build_net(
            replace(settings, training=training),
            size.n_neurons,
            windows,
            None,
            n_positions=len(net.module_.positions.weight),
            callbacks=[("slower_core", SlowerCore(CORE_RATE, math.inf))],
        ).initialize()
        begun.module_.set_statistics(*statistics)
        copy_core(begun.module_, core)
        begun.partial_fit(windows)
        if begun.interrupted_:
            raise KeyboardInterrupt
        loss = float(np.mean(begun.history[-max(n_epochs // 4, 1) :, "train_loss"]))
        if best is None or loss < smallest:
            smallest, best = loss, begun.module_.state_dict()
    net.module_.load_state_dict(best)


def enough_to_set_aside(segments: Segments, window: int, validation_fraction: float) -> bool:
    """Whether windows should be set aside for early stopping, or all be used for training."""
    return round(validation_fraction * segments.n_windows(window)) >= FEWEST_SET_ASIDE
