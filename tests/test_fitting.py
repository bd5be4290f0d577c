"""Training on segments: validation scores, the weights that are kept, and warm starts."""

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping
from small_segments import padded_and_not

from sklearn_stndt import STNDTEstimator
from sklearn_stndt.inference.rates import infer
from sklearn_stndt.metrics import bits_per_spike
from sklearn_stndt.network import speckled_folds
from sklearn_stndt.training.callbacks import WarmupCosine
from sklearn_stndt.training.fitting import prepare, train
from sklearn_stndt.training.settings import resolve
from sklearn_stndt.training.splitting import split
from sklearn_stndt.windows.segments import Segments, as_segments

N_TRIALS, N_BINS, N_NEURONS = 24, 10, 6
SMALL = {
    "n_layers": 1,
    "n_heads": 2,
    "d_model": 8,
    "d_spatial": 4,
    "dropout": 0.0,
    "max_epochs": 4,
    "batch_size": 8,
    "validation_fraction": 0.25,
    "calibration": False,
    "inference_passes": 1,  # as in validation
}


def recording(n_trials=N_TRIALS, n_bins=N_BINS, missing=0.05):
    """Trials in which all neurons follow one fast sine, each with another weight."""
    rng = np.random.default_rng(0)
    course = np.sin(np.arange(n_bins) * 0.9 + rng.uniform(0, 6, (n_trials, 1)))[..., None]
    spikes = rng.poisson(np.exp(1.5 * course * np.linspace(-1, 1, N_NEURONS)))
    return np.where(rng.random(spikes.shape) < missing, np.nan, spikes).astype(np.float32)


def fit(X, *, seed=0, heldout=(), previous=None, window=N_BINS, **params):
    estimator = STNDTEstimator(**(SMALL | params))
    data = prepare(
        X if isinstance(X, Segments) else as_segments(X),
        window=window,
        forecast_bins=estimator.forecast_bins,
        validation_fraction=estimator.validation_fraction if estimator.early_stopping else None,
        seed=seed,
    )
    settings = resolve(
        estimator, data.size, heldout_neurons=tuple(heldout), device="cpu", seed=seed
    )
    return train(data, settings, previous)


def rates_of(net, X, window=N_BINS):
    return infer(net, as_segments(X), window, 1).reshape(X.shape)


def weights_of(net):
    return [tensor.clone() for tensor in net.module_.state_dict().values()]


def same_bits(first, second):
    return all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def history_of(net, name):
    return [epoch[name] for epoch in net.history if name in epoch]


def validation_bits(net, X, heldout=(), seed=0, batch_size=8):
    """Bits per spike of the validation trials, from rates of counts that are NaN where scored."""
    parts = split(as_segments(X), N_BINS, 0.25, np.random.RandomState(seed))
    _, validation = parts
    rows = [np.arange(*p) for p in zip(validation.starts, validation.stops, strict=True)]
    trials = validation.rows[np.concatenate(rows)].reshape(-1, N_BINS, N_NEURONS)
    if len(heldout):
        hidden = np.zeros(trials.shape, dtype=bool)
        hidden[..., list(heldout)] = True
        spikes = np.where(hidden, trials, np.nan)
        return bits_per_spike(spikes, rates_of(net, np.where(hidden, np.float32("nan"), trials)))
    rates = np.full(trials.shape, np.nan)
    for start in range(0, len(trials), batch_size):
        batch = trials[start : start + batch_size]
        folds = speckled_folds(tuple(batch.shape)).numpy()
        for fold in range(net.n_scored_folds):
            hidden = folds == fold
            shown = np.where(hidden, np.float32("nan"), batch)
            rates[start : start + batch_size][hidden] = rates_of(net, shown)[hidden]
    return bits_per_spike(np.where(np.isnan(rates), np.nan, trials), rates)


class Spoil(Callback):
    """Makes the weights worse from an epoch on; raises an error, if one is given."""

    def __init__(self, epoch, error=None):
        self.epoch = epoch
        self.error = error

    def on_batch_end(self, net, training=False, **kwargs):
        if training and len(net.history) >= self.epoch:
            with torch.no_grad():
                net.module_.readout.bias += 0.1
            if self.error is not None:
                raise self.error


# ---- validation scores and the best weights


@pytest.mark.parametrize("heldout", [(), (1, 4)])
@pytest.mark.parametrize("batch_size", [8, 4])
def test_valid_bits_are_bits_per_spike_of_hidden_entries(heldout, batch_size):
    X = recording()
    net = fit(X, heldout=heldout, max_epochs=1, batch_size=batch_size)
    (recorded,) = history_of(net, "valid_bits")
    expected = validation_bits(net, X, heldout, batch_size=batch_size)
    assert recorded == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("heldout", [(), (1, 4)])
def test_the_best_weights_are_restored(heldout):
    X = recording()
    net = fit(X, heldout=heldout, callbacks=[Spoil(3)])
    bits = history_of(net, "valid_bits")
    assert len(bits) == 4
    assert np.argmax(bits) < 2
    assert max(bits) - bits[-1] > 0.1
    assert validation_bits(net, X, heldout) == pytest.approx(max(bits), abs=1e-5)
    assert not net.interrupted_


@pytest.mark.parametrize("epoch", [2, 3])
def test_interrupting_training_keeps_the_best_weights(epoch):
    X = recording()
    net = fit(X, callbacks=[Spoil(epoch, KeyboardInterrupt())])
    assert net.interrupted_
    assert len(net.history) == epoch
    bits = history_of(net, "valid_bits")
    assert len(bits) == epoch - 1
    assert validation_bits(net, X) == pytest.approx(max(bits), abs=1e-5)


def test_early_stopping_is_not_an_interruption():
    X = recording()
    net = fit(X, callbacks=[Spoil(2)], n_iter_no_change=2, max_epochs=20)
    bits = history_of(net, "valid_bits")
    assert np.argmax(bits) == 0
    assert len(bits) == 3
    assert not net.interrupted_
    assert validation_bits(net, X) == pytest.approx(bits[0], abs=1e-5)


def test_early_stopping_by_a_callback_is_not_an_interruption():
    stop = EarlyStopping(monitor="train_loss", threshold=1e9, threshold_mode="abs", patience=2)
    net = fit(recording(), callbacks=[stop], max_epochs=20)
    assert len(net.history) < 20
    assert not net.interrupted_


@pytest.mark.parametrize("params", [{"early_stopping": False}, {"window": N_TRIALS * N_BINS}])
def test_without_validation_training_lasts_for_all_epochs(params):
    X = recording().reshape(-1, N_NEURONS)
    net = fit(X, n_iter_no_change=1, callbacks=[Spoil(2)], **params)
    assert len(net.history) == 4
    assert history_of(net, "valid_bits") == history_of(net, "valid_loss") == []
    assert not net.interrupted_


def test_training_learns_to_predict_hidden_from_visible_entries():
    net = fit(recording(n_trials=60), max_epochs=60, n_iter_no_change=60, lr=0.01, d_model=16)
    bits = history_of(net, "valid_bits")
    # the true rates score 0.34
    assert bits[0] < 0.1
    assert max(bits) > 0.15


# ---- warm start and what is kept


def test_a_trained_net_keeps_its_history_but_not_its_optimizer():
    net = fit(recording())
    assert len(net.history) == 4
    assert net.optimizer_ is None


def test_training_continues_from_the_weights_of_a_previous_net():
    X = recording()
    first = fit(X, max_epochs=3)
    learned, n_epochs = weights_of(first), len(first.history)
    second = fit(X, previous=first, max_epochs=2, lr=1e-9, warmup=0.3)
    assert same_bits(weights_of(first), learned)
    assert len(first.history) == n_epochs
    assert [epoch["epoch"] for epoch in second.history] == [1, 2, 3, 4, 5]
    for after, before in zip(weights_of(second), learned, strict=True):
        torch.testing.assert_close(after, before, atol=1e-6, rtol=0)
    # the schedule starts again
    batches = [batch for epoch in second.history[3:] for batch in epoch["batches"]]
    rates = [batch["event_lr"] for batch in batches if "event_lr" in batch]
    schedule = WarmupCosine(len(rates), 0.3)
    assert rates == pytest.approx([1e-9 * schedule(i) for i in range(len(rates))])


# ---- padding


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_padding_of_long_trials_does_not_influence_training(early_stopping, seed):
    # with a validation block that holds nothing but padding, every epoch would score 0
    lengths = [5, 12, 25, 31, 18, 40]
    segments = padded_and_not(recording(len(lengths), 45), lengths)
    first, second = (fit(s, seed=seed, early_stopping=early_stopping) for s in segments)
    assert same_bits(weights_of(first), weights_of(second))
    assert history_of(first, "valid_bits") == history_of(second, "valid_bits")
