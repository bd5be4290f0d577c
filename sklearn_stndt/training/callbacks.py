"""Callbacks of the skorch net: held-out bits per spike, learning rate, progress."""

import math
import sys

import torch
from skorch.callbacks import Callback, EarlyStopping, GradientNormClipping
from torch import Tensor

from sklearn_stndt._progress import ProgressReport, note
from sklearn_stndt.training.summary import count_updates, outcome_text

N_ERRORS = 2  # standard errors by which weights of an earlier epoch must be better


class WarmupCosine:
    """Learning rate factor: linear warm-up, then cosine decay to 0.

    Parameters
    ----------
    n_updates : int
        Total number of updates.
    warmup : float
        Share of the updates used for warm-up.
    """

    def __init__(self, n_updates: int, warmup: float):
        self.n_updates = n_updates
        self.n_warmup = max(round(warmup * n_updates), 1)

    def __call__(self, update: int) -> float:
        if update < self.n_warmup:
            return (update + 1) / self.n_warmup
        done = (update - self.n_warmup) / max(self.n_updates - self.n_warmup, 1)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


class Clipping(GradientNormClipping):
    """Clip the norm of the gradient of all parameters, which are listed once per training."""

    def on_train_begin(self, net, **kwargs):
        self._parameters = list(net.module_.parameters())

    def on_grad_computed(self, net, named_parameters=None, **kwargs):
        super().on_grad_computed(net, ((None, p) for p in self._parameters), **kwargs)

    def on_train_end(self, net, **kwargs):
        del self._parameters


class HeldOutBits(Callback):
    """Record the score of hidden validation entries, in bits, as `valid_bits`.

    The losses of each window in the last epoch remain in `window_nll_`.

    The reference is each neuron's mean rate over these entries, as in
    :func:`sklearn_stndt.metrics.bits_per_spike`. If they contain no spike, the log-likelihood
    gain is recorded without division, so that models can still be ranked. It is in bits per spike,
    or per entry if these are no counts.
    """

    def on_epoch_begin(self, net, **kwargs):
        self.sums_: list[Tensor] = []  # of what the null model needs, and of entries
        self.window_nlls_: list[Tensor] = []

    def on_batch_end(self, net, training=False, evaluated=None, **kwargs):
        if training or evaluated is None:
            return
        nll, *sums = evaluated
        self.window_nlls_.append(nll)
        before = self.sums_ or [torch.zeros(())] * len(sums)
        self.sums_ = [total + part for total, part in zip(before, sums, strict=True)]

    def on_epoch_end(self, net, dataset_valid=None, **kwargs):
        if dataset_valid is None:
            return
        likelihood, sums = net.module_.likelihood, self.sums_ or [torch.zeros(())] * 2
        null = likelihood.null_nll(*sums).sum()
        self.amount_ = max(float(likelihood.amount(sums[0], sums[-1]).sum()), 1.0)
        nll = sum(part.sum() for part in self.window_nlls_)
        net.history.record("valid_bits", float(null - nll) / self.amount_ / math.log(2))

    @property
    def window_nll_(self) -> Tensor:
        """Loss of each validation window in this epoch, (n_windows,)."""
        return torch.cat(self.window_nlls_)


class BestWeights(EarlyStopping):
    """Choose weights by the held-out score, and mark their epoch as `kept` in the history.

    Parameters
    ----------
    patience : int or None
        Epochs without improvement after which training stops and the best weights are restored.
        None: train to the end and keep the last weights, unless those of the best epoch are better
        by more than `N_ERRORS` standard errors over validation windows. In a few windows, the best
        of many epochs is mostly a matter of chance.
    """

    def __init__(self, patience: int | None = None):
        super().__init__(
            monitor="valid_bits",
            patience=sys.maxsize if patience is None else patience,
            lower_is_better=False,
            threshold=0.0,
            threshold_mode="abs",
            load_best=True,
        )

    def on_train_begin(self, net, **kwargs):
        super().on_train_begin(net, **kwargs)
        self.best_nll_ = None

    def on_epoch_end(self, net, **kwargs):
        super().on_epoch_end(net, **kwargs)
        if self.best_epoch_ == net.history[-1, "epoch"] and self.patience == sys.maxsize:
            self.best_nll_ = self._window_nll(net)

    def on_train_end(self, net, **kwargs):
        if not len(net.history):
            return
        last = net.history[-1, "epoch"]
        if self.best_nll_ is not None and not net.interrupted_:
            excess = self._window_nll(net) - self.best_nll_  # (n_windows,)
            error = excess.std() / math.sqrt(len(excess)) if len(excess) > 1 else 0.0
            if excess.mean() <= N_ERRORS * error:  # False if the last weights diverged
                self.best_epoch_ = last
        super().on_train_end(net, **kwargs)
        for row in net.history:
            if row["epoch"] == self.best_epoch_:
                row["kept"] = True

    @staticmethod
    def _window_nll(net) -> Tensor:
        return dict(net.callbacks_)["heldout_bits"].window_nll_.double()


class Progress(Callback):
    """Show updates done, the latest scores and the time left, and describe training in words.

    Parameters
    ----------
    n_updates : int
        Updates in all epochs together.
    plan : str
        What training will do, in one line.
    """

    def __init__(self, n_updates: int, plan: str):
        self.n_updates = n_updates
        self.plan = plan

    def on_train_begin(self, net, **kwargs):
        note(f"fit: {self.plan}")
        self.report_ = ProgressReport(self.n_updates, "fit", "updates")

    def on_epoch_begin(self, net, **kwargs):
        # training may have gone back to an earlier epoch
        self.report_.move(count_updates(net.history.to_list()[:-1]))

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            self.report_.update()

    def on_epoch_end(self, net, **kwargs):
        last = net.history[-1]
        numbers = {
            "epoch": f"{last['epoch']}/{net.max_epochs}",
            "loss": f"{last['train_loss']:.4f}",
        }
        if "valid_bits" in last:
            unit = net.module_.likelihood.unit.replace(" per ", "/")
            numbers[f"held-out {unit}"] = f"{last['valid_bits']:.4f}"
        self.report_.show(numbers)

    def on_train_end(self, net, **kwargs):
        self.report_.close()
        del self.report_  # holds an output stream, which cannot be pickled
        history = [row for row in net.history.to_list() if "train_loss" in row]  # finished ones
        if history:
            note(f"fit: {outcome_text(history, net.module_.likelihood.unit)}")
