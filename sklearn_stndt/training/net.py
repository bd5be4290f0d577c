"""The skorch net that trains the network by masked modelling."""

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from numbers import Integral
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from skorch import NeuralNet
from skorch.callbacks import (
    Callback,
    EarlyStopping,
    LRScheduler,
    PassthroughScoring,
)
from skorch.helper import predefined_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler

from sklearn_stndt.network import (
    N_FOLDS,
    STNDT,
    CausalSTNDT,
    NetworkOutput,
    NetworkSettings,
    corrupt,
    draw_mask,
    group_sizes,
    inference_masks,
    info_nce,
    loss_weights,
    masked_modelling_loss,
)
from sklearn_stndt.network.cost import training_chunk_size
from sklearn_stndt.training.callbacks import (
    BestWeights,
    Clipping,
    HeldOutBits,
    Progress,
    WarmupCosine,
)
from sklearn_stndt.training.checkpointing import Checkpointing, TrainingCheckpoint
from sklearn_stndt.training.divergence import Diverged, DivergenceGuard
from sklearn_stndt.training.objective import Batch, ObjectiveSettings
from sklearn_stndt.training.optimizer import Muon
from sklearn_stndt.training.settings import LONGEST_EPOCH, SKORCH_NAMES, Settings
from sklearn_stndt.training.summary import plan_text
from sklearn_stndt.windows.cutting import Windows

HIDDEN_ENTRIES = 2**17  # scored entries that suffice to choose weights
VALIDATION_SHARE = 4  # validate at most about one window for this many training windows
MUON_LR = 10 / 3  # learning rate of the hidden matrices, relative to that of AdamW
# matrices from hidden units to hidden units, by their names in the network
HIDDEN_MATRICES = (
    "*layers.*.query_key_value.weight",
    "*layers.*.out.weight",
    "*feed_forward*.[14].weight",
)

_DEFAULT_OBJECTIVE = ObjectiveSettings()


class MaskedPart(NamedTuple):
    """Windows of a training step, with masks.

    Attributes
    ----------
    view : (Tensor, Tensor), shape (n_windows, n_bins, n_neurons)
        Counts and visible entries, for the network.
    target, weights : Tensor, same shape
        What is to be predicted, and the weight of each entry in the loss.
    loss_of : callable
        Loss of each entry, from log-rates and target.
    """

    view: tuple[Tensor, Tensor]
    target: Tensor
    weights: Tensor
    loss_of: Callable[[Tensor, Tensor], Tensor]

    def loss(self, log_rates: Tensor) -> Tensor:
        """Loss of log-rates of these windows, shape ()."""
        return masked_modelling_loss(self.loss_of(log_rates, self.target), self.weights)


class MaskedModellingNet(NeuralNet):
    """Trains a network to predict hidden counts.

    Parameters
    ----------
    module : type
        Network, called with counts and the mask of visible entries.
    objective : ObjectiveSettings, default=ObjectiveSettings()
        Which entries are hidden, and the losses.
    n_scored_folds : int, default=N_FOLDS
        Number of complementary folds to score in validation, if there are no held-out neurons.
    inference_passes : int, default=1
        Passes over which `infer` averages.
    **kwargs
        Parameters of :class:`skorch.NeuralNet`.
    """

    def __init__(
        self,
        module,
        *,
        criterion=nn.Identity,  # skorch requires one; the loss is in `train_step_single`
        objective=_DEFAULT_OBJECTIVE,
        n_scored_folds=N_FOLDS,
        inference_passes=1,
        **kwargs,
    ):
        super().__init__(module, criterion=criterion, **kwargs)
        self.objective = objective
        self.n_scored_folds = n_scored_folds
        self.inference_passes = inference_passes

    def split_visible(self, windows: Tensor, starts: Tensor | None = None) -> Batch:
        """Split windows, NaN where missing, into counts and masks of known and visible entries.

        `starts` as in `ObjectiveSettings.split`; None: the end of a window is hidden, or, in a
        causal network, nothing is.
        """
        if starts is None and self.module_.settings.causal:
            starts = torch.full((len(windows), 1), windows.shape[1])
        return self.objective.split(windows.to(self.device), starts)

    def split_for_training(self, windows: Tensor) -> tuple[Batch, Tensor | None]:
        """As `split_visible`, with the first bins of forecasts, which are also returned."""
        starts = self.forecast_starts(windows, spread=False)
        return self.split_visible(windows, starts), starts

    def infer(self, spikes: Tensor, visible: Tensor) -> NetworkOutput:
        """Output of the network: mean log-rates and latents of `inference_passes` passes.

        Parameters
        ----------
        spikes, visible : Tensor, shape (batch, n_bins, n_neurons)
            As for the network.
        """
        n_bins, n_neurons = spikes.shape[1:]
        masks = inference_masks(n_bins, n_neurons, self.inference_passes).to(visible.device)
        return self.module_.infer(spikes, visible, masks)

    def forecast_starts(self, windows: Tensor, *, spread: bool) -> Tensor | None:
        """First bins of the forecasts of a causal network; None: of another one."""
        if not (self.module_.settings.causal and self.objective.forecast_bins):
            return None
        return self.objective.forecast_starts(len(windows), windows.shape[1], spread)

    def contrast(self, spikes: Tensor, visible: Tensor) -> Tensor:
        """Contrastive loss between two corrupted views of (batch, n_bins, n_neurons), shape ()."""
        objective = self.objective
        ratios = objective.contrastive_token_ratio, objective.contrastive_random_ratio
        # in micro-batches, as below; the loss compares the views of the whole batch
        size = training_chunk_size(self.module_, spikes.shape, spikes.device)
        largest, compared = spikes.max(), []
        for _ in range(2):
            parts = []
            for counts, shown in zip(spikes.split(size), visible.split(size), strict=True):
                masked = draw_mask(shown, objective.contrastive_mask_ratio)
                is_count = self.module_.likelihood.counts
                view = corrupt(counts, shown, masked, *ratios, largest, is_count)
                if objective.contrastive_at == "embedding":
                    parts.append(self.module_.embeddings(*view))
                else:
                    parts.append([self.module_(*view).encoded])
            compared.append([torch.cat(of_all) for of_all in zip(*parts, strict=True)])
        pairs = zip(*compared, strict=True)
        losses = [info_nce(first, second, objective.temperature) for first, second in pairs]
        return torch.stack(losses).sum()

    def _set_training(self, training: bool = True) -> None:
        if self.module_.training != training:  # to go through all modules takes a while
            super()._set_training(training)

    def train_step_single(self, batch, **fit_params) -> dict[str, Any]:
        """Mask entries, run the forward pass, and backpropagate the loss of the hidden entries.

        Windows that come with rates (`TaughtWindows`): the loss of all entries, against the rates.
        """
        self._set_training(True)
        terms, log_rates = self.backpropagate(*batch)
        return self.recorded(terms) | {"y_pred": log_rates}

    def backpropagate(
        self, windows: Tensor, rates: Any = None, share: float = 1.0
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Add the gradients of a batch, times its share; return terms of the loss, and log-rates.

        Parameters
        ----------
        windows : Tensor of shape (n_windows, n_bins, n_neurons)
            Counts, NaN where hidden.
        rates : Tensor of the same shape, optional
            Rates to be learned; anything else is ignored.
        share : float, default=1
            Of these windows in an update. The terms that are returned are not multiplied by it.
        """
        split, starts = self.split_for_training(windows)
        # in micro-batches: activations of one are freed before those of the next are computed
        size = training_chunk_size(self.module_, windows.shape, split.spikes.device)
        nll, log_rates = torch.zeros((), device=split.spikes.device), []
        for part in self.masked_parts(split, starts, size, rates):
            output = self.module_(*part.view)
            part_nll = part.loss(output.log_rates)
            (share * part_nll).backward()
            nll += part_nll.detach()
            log_rates.append(output.log_rates.detach())
        terms = {"train_nll": nll} | self.backpropagate_contrast(split, share)
        return terms, torch.cat(log_rates)

    def masked_parts(
        self, split: Batch, starts: Tensor | None, size: int, rates: Any = None
    ) -> Iterator[MaskedPart]:
        """Draw masks of a batch; iterate over its parts of `size` windows, with their losses.

        Parameters
        ----------
        split : Batch
            Counts, and known and visible entries.
        starts : Tensor or None
            From `forecast_starts`.
        size : int
            Windows of a part.
        rates : Tensor of shape (n_windows, n_bins, n_neurons), optional
            Rates to be learned; anything else is ignored.
        """
        spikes, known, visible = split
        objective = self.objective
        ratios, largest = (objective.token_ratio, objective.random_ratio), spikes.max()
        masks = [objective.draw_mask(part) for part in visible.split(size)]
        of_parts = [None] * len(masks) if starts is None else starts.split(size)
        groups: list[tuple[Tensor, Tensor | None, Tensor | None]] = [
            (masked, *objective.always_hidden(part, first))
            for masked, part, first in zip(masks, known.split(size), of_parts, strict=True)
        ]
        likelihood = self.module_.likelihood
        targets, loss_of = spikes, likelihood.nll
        if torch.is_tensor(rates) and rates.shape == spikes.shape:
            targets, loss_of = rates.to(spikes.device), likelihood.cross_entropy
            groups = [
                (part, *group[1:]) for part, group in zip(visible.split(size), groups, strict=True)
            ]
        totals = torch.stack([group_sizes(*group) for group in groups]).sum(0)
        inputs = zip(spikes.split(size), visible.split(size), masks, strict=True)
        for (counts, shown, masked), group, target in zip(
            inputs, groups, targets.split(size), strict=True
        ):
            view = corrupt(counts, shown, masked, *ratios, largest, likelihood.counts)
            yield MaskedPart(view, target, loss_weights(*group, totals), loss_of)

    def backpropagate_contrast(self, split: Batch, share: float) -> dict[str, Tensor]:
        """Add the gradients of the contrastive loss of a batch; return it, if it has a weight."""
        weight = self.objective.contrastive_weight
        if not weight:
            return {}
        contrast = self.contrast(split.spikes, split.visible)
        (share * weight * contrast).backward()
        return {"train_contrast": contrast.detach()}

    def recorded(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sum terms of the loss; if there are several, record each in the history."""
        loss = terms["train_nll"]
        if "train_contrast" in terms:
            numbers = torch.stack([*terms.values()]).cpu().tolist()
            for name, term in zip(terms, numbers, strict=True):
                self.history.record_batch(name, term)
            loss = loss + self.objective.contrastive_weight * terms["train_contrast"]
        return {"loss": loss}

    @torch.no_grad()
    def validation_step(self, batch, **fit_params) -> dict[str, Any]:
        """Score held-out neurons and forecast, or, without held-out neurons, each fold in turn."""
        self._set_training(False)
        starts = self.forecast_starts(batch[0], spread=True)
        split = self.split_visible(batch[0], starts)
        spikes, visible = split.spikes, split.visible
        hidden = self.objective.validation_sets(split, self.n_scored_folds, starts)
        nll = spikes.new_zeros(len(spikes))  # of each window
        likelihood = self.module_.likelihood
        summary = likelihood.summary(spikes)
        *sums, n_entries = spikes.new_zeros(len(summary) + 1, spikes.shape[2])
        # several folds per forward pass, since few windows would underuse the processor
        size = training_chunk_size(self.module_, spikes.shape, spikes.device)
        for part in hidden.split(max(size // len(spikes), 1)):  # (folds, batch, bins, neurons)
            shown = (visible & ~part).flatten(0, 1)  # (folds * batch, bins, neurons)
            output = self.module_(spikes.repeat(len(part), 1, 1), shown)
            log_rates = output.log_rates.unflatten(0, part.shape[:2])
            entry_nll = likelihood.nll(log_rates, spikes)
            nll += torch.where(part, entry_nll, 0.0).sum((0, 2, 3))
            for total, of_entries in zip(sums, summary, strict=True):
                total += torch.where(part, of_entries, 0.0).sum((0, 1, 2))
            n_entries += part.sum((0, 1, 2))
        nll, n_entries, *sums = (x.cpu() for x in (nll, n_entries, *sums))
        loss = nll.sum() / n_entries.sum().clamp(min=1)
        return {"loss": loss, "y_pred": log_rates[-1], "evaluated": (nll, *sums, n_entries)}

    def fit_loop(self, X, y=None, epochs=None, **kwargs):
        """Train; record whether a KeyboardInterrupt not due to early stopping ended it."""
        self.interrupted_, self.diverged_ = False, ""
        n_epochs = len(self.history) + (self.max_epochs if epochs is None else epochs)
        guard = next((c for _, c in self.callbacks_ if isinstance(c, DivergenceGuard)), None)
        for _, callback in self.callbacks_:
            if isinstance(callback, Checkpointing):
                callback.resume(self)
        try:
            while True:
                try:
                    super().fit_loop(X, y, n_epochs - len(self.history), **kwargs)
                    if guard is not None:
                        guard.check_weights(self)
                    return self
                except Diverged as diverged:
                    assert guard is not None
                    guard.go_back(self, diverged)
        except KeyboardInterrupt:
            by_itself = any(
                isinstance(c, EarlyStopping) and c.misses_ >= c.patience for _, c in self.callbacks_
            )
            self.interrupted_ = not by_itself
            raise


def keep_batch(batch):
    """Collate function that returns its input, because windows are read as a batch."""
    return batch


def network_class(settings: NetworkSettings) -> type[STNDT]:
    """Class of the network that has these settings."""
    return CausalSTNDT if settings.causal else STNDT


def count_folds(n_entries: int, n_validation: int, n_training: int) -> int:
    """Folds to score in validation, by its entries and windows and by the training windows."""
    n_folds = math.ceil(N_FOLDS * HIDDEN_ENTRIES / max(n_entries, 1))
    affordable = math.ceil(n_training / (VALIDATION_SHARE * n_validation))
    return min(n_folds, affordable, N_FOLDS)


def check_net_params(net_params: Mapping[str, Any], settings: Settings) -> None:
    """Refuse names that the net does not have, and numbers of passes that are none.

    Raises
    ------
    ValueError
        If there is no such parameter; the error has the names that are nearest. If
        `inference_passes` is not a whole number from 1 on.
    """
    n_passes = net_params.get("inference_passes", 1)
    if not isinstance(n_passes, Integral) or n_passes < 1:
        raise ValueError(
            f"inference_passes must be a whole number from 1 on, got {n_passes!r} in net_params."
        )
    known = {field.name for field in fields(settings.objective)}
    for cls in (NeuralNet, MaskedModellingNet):
        known |= inspect.signature(cls).parameters.keys() - {"kwargs"}
    parts = ["module", "criterion", "optimizer", *NeuralNet.prefixes_]
    of_estimator = {f.name for kind in (settings.network, settings.training) for f in fields(kind)}
    for name in net_params:
        part, in_part, rest = str(name).partition("__")
        if name in known or (in_part and part in parts):
            continue
        near = [f"{close}__{rest}" for close in get_close_matches(part, parts) if in_part]
        near += get_close_matches(str(name), sorted(known), cutoff=0.5)
        if name in of_estimator:
            advice = f"{name} is a parameter of the estimator: pass it there."
        elif near:
            advice = f"Did you mean {' or '.join(map(repr, near[:3]))}?"
        else:
            advice = f"It has {', '.join(sorted(known))}."
        raise ValueError(
            f"net_params={dict(net_params)!r}: the skorch net has no parameter {name!r}. {advice} "
            f"Names that begin with {', '.join(part + '__' for part in parts)} go to its parts."
        )


def build_net(
    settings: Settings,
    n_neurons: int,
    windows: Windows,
    validation: Windows | None,
    *,
    mean_counts: NDArray | None = None,
    checkpoint: TrainingCheckpoint | None = None,
    n_positions: int | None = None,
    kind: type[MaskedModellingNet] = MaskedModellingNet,
    n_updates: int | None = None,
    callbacks: Sequence[tuple[str, Callback]] = (),
    **changes: Any,
) -> MaskedModellingNet:
    """Build the net with learning rate schedule, gradient clipping, early stopping and progress.

    Parameters
    ----------
    settings : Settings
        Settings of network, objective and training.
    n_neurons : int
        Number of neurons.
    windows : Windows
        Training windows.
    validation : Windows or None
        Validation windows for early stopping; None: train for all epochs.
    mean_counts : ndarray of shape (n_neurons,), default=None
        Mean counts, with which a training that diverges is compared.
    checkpoint : TrainingCheckpoint, default=None
        File from which to continue, and to write; None: none.
    n_positions : int or None, default=None
        Bins of a window that have a position of their own; None: all.
    kind : type, default=MaskedModellingNet
        Class of the net.
    n_updates : int or None, default=None
        Updates in all epochs together; None: one for each `batch_size` windows.
    callbacks : sequence of (str, Callback)
        Further callbacks, placed after those that are always there.
    **changes
        Parameters of the net that override those made here, but not `net_params`. Of these, what
        `resolve` has put into the settings is taken from there.
    """
    training, objective = settings.training, settings.objective
    # training modifies callbacks and lists of them
    net_params = copy.deepcopy(training.net_params or {})
    check_net_params(net_params, settings)
    n_epoch = min(len(windows), LONGEST_EPOCH * training.batch_size)
    if n_updates is None:
        n_updates = training.max_epochs * -(-n_epoch // training.batch_size)
    own: list[tuple[str, Callback]] = [
        ("clipping", Clipping(1.0)),
        (
            "schedule",
            LRScheduler(
                torch.optim.lr_scheduler.LambdaLR,
                lr_lambda=WarmupCosine(n_updates, training.warmup),
                step_every="batch",
            ),
        ),
        ("heldout_bits", HeldOutBits()),
    ]
    if objective.contrastive_weight:
        terms = ("train_nll", "train_contrast")
        own += [(term, PassthroughScoring(term, on_train=True)) for term in terms]
    own.append(("divergence", DivergenceGuard(mean_counts)))  # before weights are chosen as best
    if checkpoint is not None:
        own.append(("checkpoint", Checkpointing(checkpoint)))
    params: dict[str, Any] = {
        "module": network_class(settings.network),
        "module__n_neurons": n_neurons,
        "module__n_bins": training.window,
        "module__settings": settings.network,
        "module__n_positions": n_positions,
        "objective": objective,
        "max_epochs": training.max_epochs,
        "batch_size": training.batch_size,
        "optimizer": Muon if training.optimizer == "muon" else torch.optim.AdamW,
        "lr": training.lr,
        "inference_passes": training.inference_passes,
        "optimizer__weight_decay": training.weight_decay,
        "iterator_train": DataLoader,
        "iterator_train__shuffle": True,
        "iterator_train__collate_fn": keep_batch,
        "iterator_valid__collate_fn": keep_batch,
        "train_split": None if validation is None else predefined_split(validation),
        "device": training.device,
        "verbose": max(training.verbose - 1, 0),
    }
    if validation is not None:
        own.append(("early_stopping", BestWeights(training.n_iter_no_change)))
        n_entries = len(validation) * validation.window * n_neurons
        params["n_scored_folds"] = count_folds(n_entries, len(validation), len(windows))
    if training.verbose:
        own.append(("progress", Progress(n_updates, plan_text(settings))))
    params["callbacks"] = [*own, *callbacks, *copy.deepcopy(training.callbacks or [])]
    if n_epoch < len(windows):
        part = RandomSampler(range(len(windows)), num_samples=n_epoch)
        params |= {"iterator_train__shuffle": False, "iterator_train__sampler": part}
    if "optimizer" not in net_params:
        params["optimizer__fused"] = torch.device(training.device).type in ("cpu", "cuda")
        if training.optimizer == "muon":
            matrices = {"lr": MUON_LR * training.lr, "orthogonal": True}
            params["optimizer__param_groups"] = [(name, matrices) for name in HIDDEN_MATRICES]
    # these are in the settings already, and a second, shorter training changes them there
    resolved = {*SKORCH_NAMES, *(field.name for field in fields(objective))}
    given = {k: v for k, v in net_params.items() if k not in resolved}
    return kind(**(params | changes | given))
