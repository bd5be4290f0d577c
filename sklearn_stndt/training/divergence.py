"""Divergence: training goes back to its last good weights, with a smaller step."""

import math
from typing import Any

import torch
from numpy.typing import NDArray
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch.optim.lr_scheduler import LambdaLR

from sklearn_stndt.training.state import capture, restore

REDUCTION = 10  # the learning rate is divided by it
MOST_RETURNS = 6  # times that training goes back
WORST_BITS = 10.0  # bits per spike below mean rates at which a training loss has diverged
# a validation score falls from at least the one to at most the other; a recording of few spikes
# may score far below 0 all the time
USUAL_BITS, COLLAPSED_BITS = -1.0, -100.0
SMALL_LR = 1e-5  # a learning rate that does not make training diverge
UPDATES_BETWEEN = 100  # updates after which weights may be kept again


class Diverged(Exception):  # noqa: N818
    """Training has diverged; the text says how it was noticed."""


class DivergenceGuard(Callback):
    """Notices that training diverges, and returns to the last good weights with a smaller step.

    Losses are numbers that the history holds anyway, so a GPU is not synchronised for this.
    Training has diverged if a loss or a score is not finite, or if the loss of an epoch is above
    that of mean rates by more than 10 bits per spike (or per entry, if these are no counts) and 10
    times that loss, or if the held-out score collapses. Kept weights are good if at least
    `UPDATES_BETWEEN` updates followed without divergence; until then, training starts again, and is
    bit-identical to one with the smaller step from the start.

    Parameters
    ----------
    mean_counts : ndarray of shape (n_neurons,), default=None
        Mean counts of the recording; None: only losses that are not finite count as divergence.
    """

    unit = "bits per spike"

    def __init__(self, mean_counts: Any = None):
        self.mean_counts = mean_counts

    def on_train_begin(self, net, **kwargs):
        self.good_: dict[str, Any] | None = None  # weights that have proved to be good
        self.candidate_: dict[str, Any] | None = None  # weights that have yet to do so
        self.n_updates_ = 0  # since the candidate was kept
        self.n_since_return_ = 0
        self.returns_: list[dict[str, Any]] = []
        self.best_bits_ = -math.inf
        self.unit = net.module_.likelihood.unit
        self.lrs_: list[float] = []
        self.mean_loss_, self.limit_ = 0.0, math.inf
        if self.mean_counts is not None:
            self.mean_loss_, self.limit_ = self.limit_of(net, self.mean_counts)

    def limit_of(self, net: NeuralNet, mean_counts: Any) -> tuple[float, float]:
        """Training loss of mean rates, and the loss from which training has diverged."""
        loss, n_spikes, size = _loss_of_mean_rates(net, mean_counts)
        return loss, loss + WORST_BITS * math.log(2) * n_spikes + 10 * size

    def on_epoch_begin(self, net, **kwargs):
        if not self.lrs_:
            groups = net.optimizer_.param_groups
            # without the schedule
            self.lrs_ = [float(group.get("initial_lr", group["lr"])) for group in groups]
        if self.candidate_ is None or self.n_updates_ >= UPDATES_BETWEEN:
            self.good_ = self.candidate_
            self.candidate_ = capture(net, without=self)
            self.candidate_["epoch"] = len(net.history) - 1
            self.n_updates_ = 0

    def on_batch_end(self, net, training=False, **kwargs):
        if not training:
            return
        loss = list.__getitem__(net.history, -1)["batches"][-1]["train_loss"]
        if not math.isfinite(loss):
            raise Diverged(f"the loss was {loss}")
        if not self.n_since_return_ and not self.returns_:
            # a network that is trained further may be bad at the start
            self.limit_ += 10 * max(loss - self.mean_loss_, 0.0)
        self.n_updates_ += 1
        self.n_since_return_ += 1

    def on_epoch_end(self, net, **kwargs):
        row = net.history[-1]
        loss = row.get("train_nll", row.get("train_loss", self.mean_loss_))
        if not loss <= self.limit_:
            raise Diverged(f"the loss was {loss:.3g}, that of mean rates is {self.mean_loss_:.3g}")
        bits = row.get("valid_bits")
        if bits is None:
            return
        collapsed = self.best_bits_ > USUAL_BITS and bits < COLLAPSED_BITS
        if collapsed or not math.isfinite(bits):
            raise Diverged(
                f"the held-out score was {bits:.3g} {self.unit} after {self.best_bits_:.3g}"
            )
        self.best_bits_ = max(self.best_bits_, bits)

    def check_weights(self, net: NeuralNet) -> None:
        """Notice a last update that made weights infinite."""
        if not _has_finite_weights(net):
            raise Diverged("the last update made weights infinite")

    def go_back(self, net: NeuralNet, diverged: Diverged) -> None:
        """Restore good weights and reduce the step.

        Raises
        ------
        FloatingPointError
            If no smaller step is left to try, or if the step is not the reason.
        """
        lr = self.lrs_[0] / REDUCTION ** len(self.returns_)
        self.returns_.append({"epoch": len(net.history), "how": str(diverged), "lr": lr})
        state = self.good_ or self.candidate_
        if state is None or not self.n_since_return_:
            raise FloatingPointError(
                f"Training failed in epoch {len(net.history)}: {diverged} in the first update, so "
                f"lr={lr:g} is not the reason. Look at what net_params and callbacks do, at "
                "temperature and contrastive_weight, and with warm_start=True at the last fit."
            ) from diverged
        if len(self.returns_) > MOST_RETURNS:
            raise FloatingPointError(
                f"Training diverged {_describe(self.returns_)}, so no network is returned. "
                f"{self._remedy(net)}"
            ) from diverged
        self.returns_[-1]["back to"] = state["epoch"]
        restore(net, state)
        del net.history[state["epoch"] :]
        net.optimizer_.state.clear()
        _set_step(net, [lr / REDUCTION ** len(self.returns_) for lr in self.lrs_])
        self.candidate_, self.n_since_return_, self.best_bits_ = None, 0, -math.inf

    def on_train_end(self, net, **kwargs):
        net.diverged_ = self.warning(net)

    def warning(self, net: NeuralNet) -> str:
        """Describe what happened; an empty text if training did not diverge."""
        if not self.returns_:
            return ""
        back_to = self.returns_[-1]["back to"]
        weights = f"the weights after epoch {back_to}" if back_to else "the initial weights"
        lr = self.lrs_[0] / REDUCTION ** len(self.returns_)
        return (
            f"Training diverged {_describe(self.returns_)}. It was continued from {weights} with "
            f"lr={lr:g}. {self._remedy(net, lr)}"
        )

    def _remedy(self, net: NeuralNet, lr: float | None = None) -> str:
        """Say what to do if a learning rate has helped, or if none has."""
        decay = net.optimizer_.param_groups[0].get("weight_decay", 0.0)
        if decay > 1 and decay * self.lrs_[0] > 1:
            return (
                f"weight_decay={decay:g} times lr={self.lrs_[0]:g} is above 1, so that each update "
                "enlarges the weights: pass a smaller weight_decay."
            )
        default = isinstance(net.optimizer_, torch.optim.AdamW)
        if lr is None and self.returns_[-1]["lr"] < SMALL_LR:
            return "So small a step cannot be the reason: look at callbacks and net_params."
        smaller = "a smaller lr" if lr is None else f"lr={lr:g} or less"
        return f"Pass {smaller}{', such as the default' if default else ''}."


def _describe(returns: list[dict[str, Any]]) -> str:
    """Say with which learning rates training diverged, and how this was noticed first."""
    first, *others = returns
    text = f"with lr={first['lr']:g} (epoch {first['epoch']}: {first['how']})"
    if others:
        text += " and with lr=" + ", ".join(f"{other['lr']:g}" for other in others)
    return text


def check_finite(net: NeuralNet) -> None:
    """Refuse a network that cannot infer rates.

    Raises
    ------
    FloatingPointError
        If a weight is not finite.
    """
    if not _has_finite_weights(net):
        raise FloatingPointError(
            "Training ended with weights that are not finite, so no network is returned. Look at "
            "callbacks and net_params, and pass a smaller lr."
        )


def _has_finite_weights(net: NeuralNet) -> bool:
    """Whether all weights are finite; a GPU is synchronised."""
    tensors = [t for t in net.module_.state_dict().values() if t.is_floating_point()]
    return bool(torch.stack([torch.isfinite(t).all() for t in tensors]).all())


def _set_step(net: NeuralNet, lrs: list[float]) -> None:
    """Set the learning rate of each group of the optimizer, before and in the schedule."""
    groups = net.optimizer_.param_groups
    for group, lr in zip(groups, lrs, strict=True):
        group["lr"] = group["initial_lr"] = lr
    for _, callback in net.callbacks_:
        schedule: Any = getattr(callback, "lr_scheduler_", None)
        if hasattr(schedule, "base_lrs"):
            schedule.base_lrs = list(lrs)
        if isinstance(schedule, LambdaLR):
            for group, lr, factor in zip(groups, lrs, schedule.lr_lambdas, strict=True):
                group["lr"] = lr * factor(schedule.last_epoch)


def _loss_of_mean_rates(net: NeuralNet, mean_counts: NDArray) -> tuple[float, float, float]:
    """Training loss of mean rates, its spikes per entry, and the sum of absolute losses.

    The spikes are 1 for each entry that is no count.
    The loss is the sum of the means over held-in neurons, held-out neurons and forecast bins.
    """
    likelihood = net.module_.likelihood.of(...)
    mean = torch.as_tensor(mean_counts, dtype=torch.float32)  # (n_neurons,)
    nll = likelihood.nll(likelihood.link(mean), mean)  # (n_neurons,)
    amount = likelihood.amount(mean, torch.ones_like(mean))
    heldout = torch.zeros(len(mean), dtype=torch.bool)
    heldout[list(net.objective.heldout_neurons)] = True
    groups = [~heldout, heldout] + [torch.ones_like(heldout)] * bool(net.objective.forecast_bins)
    groups = [group for group in groups if group.any()]
    losses = [float(nll[group].mean()) for group in groups]
    n_spikes = sum(float(amount[group].mean()) for group in groups)
    return sum(losses), n_spikes, sum(map(abs, losses))
