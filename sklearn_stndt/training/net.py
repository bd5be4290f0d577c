"""The skorch net that trains the network on what it hides."""

import copy
import math
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import (
    Callback,
    EarlyStopping,
    GradientNormClipping,
    LRScheduler,
    PassthroughScoring,
)
from skorch.helper import predefined_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler

from sklearn_stndt.network import (
    N_FOLDS,
    STNDT,
    corrupt,
    draw_mask,
    group_sizes,
    info_nce,
    loss_weights,
    masked_modelling_loss,
    speckled_folds,
)
from sklearn_stndt.network.cost import training_chunk_size
from sklearn_stndt.training.callbacks import BestWeights, HeldOutBits, Progress, WarmupCosine
from sklearn_stndt.windows.cutting import Windows

HIDDEN_ENTRIES = 2**17  # that are scored are enough to choose weights by


class MaskedModellingNet(NeuralNet):
    """Learns to predict counts that it does not see.

    Parameters
    ----------
    module : type
        Network, called with counts and what is visible of them.
    mask_ratio : float or (float, float)
        Share of the visible entries that a training step masks; of a range, drawn per trial.
    token_ratio, random_ratio : float
        What becomes of masked entries, see :func:`sklearn_stndt.network.corrupt`.
    heldout_neurons : ndarray of int
        Neurons that are never shown.
    forecast_bins : int
        Bins at the end of a window that are never shown.
    n_scored_folds : int
        Of the five masks of a validation without held-out neurons, how many are scored.
    contrastive_weight, temperature : float
        Weight of the contrastive loss between two further corrupted views, and its temperature.
    contrastive_at : {"encoder", "embedding"}
        What the loss compares: the mean output of the encoder, or the embedded input.
    contrastive_mask_ratio, contrastive_token_ratio, contrastive_random_ratio
        Corruption of the two views; None: as that of the masked modelling.
    **kwargs
        Parameters of :class:`skorch.NeuralNet`.
    """

    def __init__(
        self,
        module,
        *,
        criterion=nn.Identity,  # skorch demands one; the objective is in `train_step_single`
        mask_ratio=(0.0, 0.8),
        token_ratio=1.0,
        random_ratio=0.0,
        heldout_neurons=(),
        forecast_bins=0,
        n_scored_folds=N_FOLDS,
        contrastive_weight=0.0,
        temperature=0.07,
        contrastive_at="encoder",
        contrastive_mask_ratio=None,
        contrastive_token_ratio=None,
        contrastive_random_ratio=None,
        **kwargs,
    ):
        super().__init__(module, criterion=criterion, **kwargs)
        self.mask_ratio = mask_ratio
        self.token_ratio = token_ratio
        self.random_ratio = random_ratio
        self.heldout_neurons = heldout_neurons
        self.forecast_bins = forecast_bins
        self.n_scored_folds = n_scored_folds
        self.contrastive_weight = contrastive_weight
        self.temperature = temperature
        self.contrastive_at = contrastive_at
        self.contrastive_mask_ratio = contrastive_mask_ratio
        self.contrastive_token_ratio = contrastive_token_ratio
        self.contrastive_random_ratio = contrastive_random_ratio

    def split_visible(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split a batch, NaN where missing, into counts, what is known, and what may be shown."""
        batch = batch.to(self.device)  # (batch, n_bins, n_neurons)
        known = ~torch.isnan(batch)
        spikes = batch.masked_fill(~known, 0.0)
        visible = known.clone()
        visible[:, :, self.heldout_neurons] = False
        visible[:, batch.shape[1] - self.forecast_bins :] = False
        return spikes, known, visible

    def always_hidden(self, known: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Known entries of held-out neurons, and of forecast bins; None where there are none."""
        heldout = forecast = None
        observed = known.shape[1] - self.forecast_bins
        if len(self.heldout_neurons):
            heldout = torch.zeros_like(known)
            heldout[:, :observed, self.heldout_neurons] = known[:, :observed, self.heldout_neurons]
        if self.forecast_bins:
            forecast = known.clone()
            forecast[:, :observed] = False
        return heldout, forecast

    def contrast(self, spikes: Tensor, visible: Tensor) -> Tensor:
        """Contrastive loss between two corrupted views."""
        own = (
            self.contrastive_mask_ratio,
            self.contrastive_token_ratio,
            self.contrastive_random_ratio,
        )
        default = (self.mask_ratio, self.token_ratio, self.random_ratio)
        ratio, token_ratio, random_ratio = (
            d if o is None else o for o, d in zip(own, default, strict=True)
        )
        # part after part of the batch, as below; what is compared is of all of it
        size = training_chunk_size(self.module_, spikes.shape, spikes.device)
        largest, compared = spikes.max(), []
        for _ in range(2):
            parts = []
            for counts, shown in zip(spikes.split(size), visible.split(size), strict=True):
                masked = draw_mask(shown, ratio)
                view = corrupt(counts, shown, masked, token_ratio, random_ratio, largest)
                if self.contrastive_at == "embedding":
                    parts.append(self.module_.embeddings(*view))
                else:
                    parts.append([self.module_(*view).encoded])
            compared.append([torch.cat(of_all) for of_all in zip(*parts, strict=True)])
        pairs = zip(*compared, strict=True)
        losses = [info_nce(first, second, self.temperature) for first, second in pairs]
        return torch.stack(losses).sum()

    def train_step_single(self, batch, **fit_params) -> dict[str, Any]:
        """Mask, infer, and take the gradient of the loss of what was masked."""
        self._set_training(True)
        spikes, known, visible = self.split_visible(batch[0])
        # part after part: the activations of one are gone before those of the next are made
        size = training_chunk_size(self.module_, spikes.shape, spikes.device)
        ratios, largest = (self.token_ratio, self.random_ratio), spikes.max()
        masks = [draw_mask(part, self.mask_ratio) for part in visible.split(size)]
        groups = [
            (masked, *self.always_hidden(part))
            for masked, part in zip(masks, known.split(size), strict=True)
        ]
        totals = torch.stack([group_sizes(*group) for group in groups]).sum(0)
        nll, log_rates = torch.zeros((), device=spikes.device), []
        parts = zip(spikes.split(size), visible.split(size), groups, strict=True)
        for counts, shown, group in parts:
            output = self.module_(*corrupt(counts, shown, group[0], *ratios, largest))
            weights = loss_weights(*group, totals)
            entry_nll = self.module_.likelihood.nll(output.log_rates, counts)
            part_nll = masked_modelling_loss(entry_nll, weights)
            part_nll.backward()
            nll += part_nll.detach()
            log_rates.append(output.log_rates.detach())
        loss = nll
        if self.contrastive_weight:
            contrast = self.contrast(spikes, visible)
            (self.contrastive_weight * contrast).backward()
            self.history.record_batch("train_nll", nll.item())
            self.history.record_batch("train_contrast", contrast.item())
            loss = nll + self.contrastive_weight * contrast.detach()
        return {"loss": loss, "y_pred": torch.cat(log_rates)}

    @torch.no_grad()
    def validation_step(self, batch, **fit_params) -> dict[str, Any]:
        """Score what is always hidden, or else every entry once, fold after fold."""
        self._set_training(False)
        spikes, known, visible = self.split_visible(batch[0])
        heldout, _ = self.always_hidden(known)
        if heldout is not None:
            hidden = heldout[None]
        else:
            folds = speckled_folds(tuple(spikes.shape), spikes.device)
            hidden = torch.stack([visible & (folds == fold) for fold in range(self.n_scored_folds)])
        nll = torch.zeros(())
        n_spikes, n_entries = torch.zeros(2, spikes.shape[2])
        # as many folds at once as suit the processor: few windows would hardly occupy it
        size = training_chunk_size(self.module_, spikes.shape, spikes.device)
        for part in hidden.split(max(size // len(spikes), 1)):  # (folds, batch, bins, neurons)
            shown = (visible & ~part).flatten(0, 1)
            output = self.module_(spikes.repeat(len(part), 1, 1), shown)
            log_rates = output.log_rates.unflatten(0, part.shape[:2])
            entry_nll = self.module_.likelihood.nll(log_rates, spikes)
            nll += torch.where(part, entry_nll, 0.0).sum().cpu()
            n_spikes += torch.where(part, spikes, 0.0).sum((0, 1, 2)).cpu()
            n_entries += part.sum((0, 1, 2)).cpu()
        loss = nll / n_entries.sum().clamp(min=1)
        return {"loss": loss, "y_pred": log_rates[-1], "evaluated": (nll, n_spikes, n_entries)}

    def fit_loop(self, *args, **kwargs):
        """Train; remember whether a KeyboardInterrupt from outside ended it."""
        self.interrupted_ = False
        try:
            return super().fit_loop(*args, **kwargs)
        except KeyboardInterrupt:
            by_itself = any(
                isinstance(c, EarlyStopping) and c.misses_ >= c.patience for _, c in self.callbacks_
            )
            self.interrupted_ = not by_itself
            raise


def keep_batch(batch):
    """Collate nothing: the windows come as a batch."""
    return batch


def build_net(
    module_params: dict[str, Any],
    *,
    max_epochs: int,
    batch_size: int,
    n_train: int,
    validation: Windows | None,
    patience: int,
    lr: float,
    warmup: float,
    weight_decay: float,
    device: str,
    verbose: int,
    callbacks: list[Callback],
    net_params: dict[str, Any],
    n_epoch: int | None = None,
    **objective,
) -> MaskedModellingNet:
    """Assemble the net with schedule, clipping, early stopping and progress.

    Parameters
    ----------
    module_params : dict
        Parameters of :class:`sklearn_stndt.network.STNDT`.
    max_epochs, batch_size, n_train : int
        Length of training, size of a batch, and number of training windows.
    validation : Windows or None
        Windows on which to stop early; None: train to the end.
    patience : int
        Epochs without a better score until training stops.
    lr, weight_decay : float
        Parameters of AdamW.
    warmup : float
        Share of the updates in which the learning rate rises.
    device : str
        Where to train.
    verbose : int
        1: a progress bar; 2: skorch's table too.
    callbacks : list of skorch callbacks
        Added behind our own.
    net_params : dict
        Merged last into the parameters of the net.
    n_epoch : int, default=None
        Windows of an epoch, drawn anew for each; None: all.
    **objective
        Parameters of :class:`MaskedModellingNet`.
    """
    net_params = copy.deepcopy(net_params)  # training changes callbacks and lists of them
    max_epochs = net_params.get("max_epochs", max_epochs)
    batch_size = net_params.get("batch_size", batch_size)
    n_epoch = n_epoch or n_train
    n_updates = max_epochs * -(-n_epoch // batch_size)
    own: list[tuple[str, Callback]] = [
        ("clipping", GradientNormClipping(1.0)),
        (
            "schedule",
            LRScheduler(
                torch.optim.lr_scheduler.LambdaLR,
                lr_lambda=WarmupCosine(n_updates, warmup),
                step_every="batch",
            ),
        ),
        ("heldout_bits", HeldOutBits()),
    ]
    if objective.get("contrastive_weight"):
        terms = ("train_nll", "train_contrast")
        own += [(term, PassthroughScoring(term, on_train=True)) for term in terms]
    if validation is not None:
        own.append(("early_stopping", BestWeights(patience)))
        n_entries = len(validation) * validation.window * validation.rows.shape[1]
        n_folds = math.ceil(N_FOLDS * HIDDEN_ENTRIES / max(n_entries, 1))
        objective = {"n_scored_folds": min(n_folds, N_FOLDS)} | objective
    if verbose:
        own.append(("progress", Progress(n_updates)))
    params = {f"module__{name}": value for name, value in module_params.items()}
    params |= {
        "max_epochs": max_epochs,
        "batch_size": batch_size,
        "optimizer": torch.optim.AdamW,
        "lr": lr,
        "optimizer__weight_decay": weight_decay,
        "iterator_train": DataLoader,
        "iterator_train__shuffle": True,
        "iterator_train__collate_fn": keep_batch,
        "iterator_valid__collate_fn": keep_batch,
        "train_split": None if validation is None else predefined_split(validation),
        "device": device,
        "verbose": max(verbose - 1, 0),
        "callbacks": own + copy.deepcopy(callbacks),
        "module": STNDT,
    }
    if n_epoch < n_train:
        part = RandomSampler(range(n_train), num_samples=n_epoch)
        params |= {"iterator_train__shuffle": False, "iterator_train__sampler": part}
    if "optimizer" not in net_params:
        params["optimizer__fused"] = torch.device(device).type in ("cpu", "cuda")
    return MaskedModellingNet(**(objective | params | net_params))
