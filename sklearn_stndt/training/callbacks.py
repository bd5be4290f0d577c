"""Callbacks of the skorch net: held-out bits per spike, learning rate, progress bar."""

import math

import torch
from skorch.callbacks import Callback, EarlyStopping
from tqdm.auto import tqdm


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


class HeldOutBits(Callback):
    """Record bits per spike of hidden validation entries as `valid_bits`.

    The reference is each neuron's mean rate over these entries, as in
    :func:`sklearn_stndt.metrics.bits_per_spike`. If they contain no spike, the log-likelihood
    gain is recorded without division, so that models can still be ranked.
    """

    def on_epoch_begin(self, net, **kwargs):
        self.nll_ = self.n_spikes_ = self.n_entries_ = torch.zeros(())

    def on_batch_end(self, net, training=False, evaluated=None, **kwargs):
        if training or evaluated is None:
            return
        nll, n_spikes, n_entries = evaluated
        self.nll_ = self.nll_ + nll
        self.n_spikes_ = self.n_spikes_ + n_spikes
        self.n_entries_ = self.n_entries_ + n_entries

    def on_epoch_end(self, net, dataset_valid=None, **kwargs):
        if dataset_valid is None:
            return
        null = net.module_.likelihood.null_nll(self.n_spikes_, self.n_entries_).sum()
        total = max(float(self.n_spikes_.sum()), 1.0)
        net.history.record("valid_bits", float(null - self.nll_) / total / math.log(2))


class BestWeights(EarlyStopping):
    """Early stopping on held-out bits per spike that restores the best weights."""

    def __init__(self, patience: int):
        super().__init__(
            monitor="valid_bits",
            patience=patience,
            lower_is_better=False,
            threshold=0.0,
            threshold_mode="abs",
            load_best=True,
        )


class Progress(Callback):
    """Progress bar with updates per second, time left and the latest scores."""

    def __init__(self, n_updates: int):
        self.n_updates = n_updates

    def on_train_begin(self, net, **kwargs):
        self.bar_ = tqdm(total=self.n_updates, unit=" updates", desc="fit")

    def on_epoch_begin(self, net, **kwargs):
        # training may have gone back to an earlier epoch
        self.bar_.n = sum(row["train_batch_count"] for row in net.history.to_list()[:-1])

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            self.bar_.update()

    def on_epoch_end(self, net, **kwargs):
        last = net.history[-1]
        scores = {"loss": f"{last['train_loss']:.4f}"}
        if "valid_bits" in last:
            scores["held-out bits/spike"] = f"{last['valid_bits']:.4f}"
        self.bar_.set_postfix(scores, refresh=False)

    def on_train_end(self, net, **kwargs):
        self.bar_.close()
        del self.bar_  # holds an output stream, which cannot be pickled
