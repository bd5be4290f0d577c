import copy
import pickle

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping

from sklearn_stndt import STNDTEstimator
from sklearn_stndt.inference.rates import infer
from sklearn_stndt.metrics import bits_per_spike
from sklearn_stndt.network import N_FOLDS, speckled_folds
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
}


def recording(n_trials=N_TRIALS, n_bins=N_BINS, missing=0.05):
    """Trials of neurons that share a fast common course, which hidden entries betray."""
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
    """Bits per spike on the validation trials, by inference on counts that were made NaN."""
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
        for fold in range(N_FOLDS):
            hidden = folds == fold
            shown = np.where(hidden, np.float32("nan"), batch)
            rates[start : start + batch_size][hidden] = rates_of(net, shown)[hidden]
    return bits_per_spike(trials, rates)


class Spoil(Callback):
    """Spoils the weights from an epoch on; may then end training from outside."""

    def __init__(self, epoch, error=None):
        self.epoch = epoch
        self.error = error

    def on_batch_end(self, net, training=False, **kwargs):
        if training and len(net.history) >= self.epoch:
            with torch.no_grad():
                net.module_.readout.bias += 1.0
            if self.error is not None:
                raise self.error


# ---------------------------------------------------------------------- scores of training


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
def test_an_interrupt_leaves_the_best_weights(epoch):
    X = recording()
    net = fit(X, callbacks=[Spoil(epoch, KeyboardInterrupt())])
    assert net.interrupted_
    assert len(net.history) == epoch
    bits = history_of(net, "valid_bits")
    assert len(bits) == epoch - 1
    assert validation_bits(net, X) == pytest.approx(max(bits), abs=1e-5)


def test_an_interrupt_in_the_first_epoch_leaves_a_net_that_works():
    net = fit(recording(), callbacks=[Spoil(1, KeyboardInterrupt())])
    assert net.interrupted_
    assert np.isfinite(rates_of(net, recording())).all()


def test_patience_is_no_interrupt():
    X = recording()
    net = fit(X, callbacks=[Spoil(2)], n_iter_no_change=2, max_epochs=20)
    bits = history_of(net, "valid_bits")
    assert np.argmax(bits) == 0
    assert len(bits) == 3
    assert not net.interrupted_
    assert validation_bits(net, X) == pytest.approx(bits[0], abs=1e-5)


def test_early_stopping_of_the_user_is_no_interrupt():
    stop = EarlyStopping(monitor="train_loss", threshold=1e9, threshold_mode="abs", patience=2)
    net = fit(recording(), callbacks=[stop], max_epochs=20)
    assert len(net.history) < 20
    assert not net.interrupted_


@pytest.mark.parametrize("params", [{"early_stopping": False}, {"window": N_TRIALS * N_BINS}])
def test_without_validation_training_goes_on_to_the_end(params):
    X = recording().reshape(-1, N_NEURONS)
    net = fit(X, n_iter_no_change=1, callbacks=[Spoil(2)], **params)
    assert len(net.history) == 4
    assert history_of(net, "valid_bits") == history_of(net, "valid_loss") == []
    assert not net.interrupted_


def test_training_learns_what_hidden_entries_share_with_the_visible():
    net = fit(recording(n_trials=60), max_epochs=60, n_iter_no_change=60, lr=0.01, d_model=16)
    bits = history_of(net, "valid_bits")
    # the true rates have 0.34
    assert bits[0] < 0.1
    assert max(bits) > 0.15


# ---------------------------------------------------------------------- repeatability


def test_the_seed_decides_every_bit():
    X = recording()
    before = torch.random.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = fit(X, seed=1, dropout=0.2)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    second = fit(X, seed=1, dropout=0.2)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert same_bits(weights_of(first), weights_of(second))
    assert history_of(first, "valid_bits") == history_of(second, "valid_bits")
    assert np.array_equal(rates_of(first, X), rates_of(second, X))
    assert not same_bits(weights_of(first), weights_of(fit(X, seed=2, dropout=0.2)))


def test_data_and_parameters_stay_as_they_were():
    X = recording()
    callbacks, net_params = [Spoil(3)], {"max_epochs": 2}
    fit(X, callbacks=callbacks, net_params=net_params)
    assert np.array_equal(X, recording(), equal_nan=True)
    assert len(callbacks) == 1
    assert net_params == {"max_epochs": 2}


def test_callbacks_of_the_user_stay_as_they_were():
    class Count(Callback):
        def initialize(self):
            self.n_epochs_ = 0
            return self

        def on_epoch_end(self, net, **kwargs):
            self.n_epochs_ += 1

    count, stop = Count(), EarlyStopping(monitor="valid_bits", lower_is_better=False)
    before = copy.deepcopy(vars(stop))
    fit(recording(), callbacks=[("count", count), ("stop", stop)])
    assert vars(count) == {}
    assert vars(stop) == before


def test_the_net_is_small_and_keeps_its_history():
    net = fit(recording())
    copied = pickle.loads(pickle.dumps(net))
    assert [epoch["valid_bits"] for epoch in copied.history] == history_of(net, "valid_bits")
    assert len(net.history) == 4
    assert net.optimizer_ is None
    X = recording()
    assert np.array_equal(rates_of(copied, X), rates_of(net, X))


@pytest.mark.parametrize(
    "net_params",
    [
        {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
        {"max_epochs": 2},
        {"callbacks__clipping__gradient_clip_value": 0.01},
        {"optimizer__betas": (0.5, 0.9)},
    ],
)
def test_net_params_have_the_last_word(net_params):
    X = recording()
    default, net = fit(X), fit(X, net_params=net_params)
    assert len(net.history) == net_params.get("max_epochs", 4)
    assert not same_bits(weights_of(default), weights_of(net))


def test_training_goes_on_from_the_weights_of_a_previous_net():
    X = recording()
    first = fit(X, max_epochs=3)
    learned, n_epochs = weights_of(first), len(first.history)
    second = fit(X, previous=first, max_epochs=2, lr=1e-9, warmup=0.3)
    assert same_bits(weights_of(first), learned)
    assert len(first.history) == n_epochs
    assert [epoch["epoch"] for epoch in second.history] == [1, 2, 3, 4, 5]
    for after, before in zip(weights_of(second), learned, strict=True):
        torch.testing.assert_close(after, before, atol=1e-6, rtol=0)
    # the schedule begins again
    batches = [batch for epoch in second.history[3:] for batch in epoch["batches"]]
    rates = [batch["event_lr"] for batch in batches if "event_lr" in batch]
    schedule = WarmupCosine(len(rates), 0.3)
    assert rates == pytest.approx([1e-9 * schedule(i) for i in range(len(rates))])


def test_a_changed_network_cannot_go_on():
    first = fit(recording())
    with pytest.raises(ValueError, match="the network has changed"):
        fit(recording(), previous=first, d_model=9)


# ---------------------------------------------------------------------- padding


def padded_and_not():
    """Trials of several windows and unequal lengths: padded, and as rows with their trials."""
    lengths = [5, 12, 25, 31, 18, 40]
    X = recording(n_trials=len(lengths), n_bins=45)
    for trial, length in zip(X, lengths, strict=True):
        trial[length - 1] = np.nan_to_num(trial[length - 1])
        trial[length:] = np.nan
    rows = np.concatenate([trial[:length] for trial, length in zip(X, lengths, strict=True)])
    groups = np.repeat(np.arange(len(lengths)), lengths)
    return as_segments(X), as_segments(rows, groups), lengths


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_padding_of_long_trials_does_not_take_part_in_training(early_stopping, seed):
    # validation blocks that are all padding would give every epoch the score 0
    padded, rows, _ = padded_and_not()
    first, second = (
        fit(segments, seed=seed, early_stopping=early_stopping) for segments in (padded, rows)
    )
    assert same_bits(weights_of(first), weights_of(second))
    assert history_of(first, "valid_bits") == history_of(second, "valid_bits")


def test_padding_of_long_trials_changes_no_rate(net):
    padded, rows, lengths = padded_and_not()
    rates = infer(net, padded, N_BINS, 1).reshape(len(lengths), -1, N_NEURONS)
    assert np.isfinite(rates).all()
    assert (rates > 0).all()
    visible = np.concatenate([trial[:n] for trial, n in zip(rates, lengths, strict=True)])
    np.testing.assert_allclose(visible, infer(net, rows, N_BINS, 1), rtol=1e-5)


# ---------------------------------------------------------------------- inference


@pytest.fixture(scope="module")
def net():
    return fit(recording())


def test_a_trial_of_a_window_has_the_rates_of_the_network(net):
    X = recording()
    spikes = torch.from_numpy(X)
    visible = ~spikes.isnan()
    with torch.no_grad():
        expected = net.module_(spikes.nan_to_num(0), visible).log_rates.exp()
    rates = rates_of(net, X)
    assert rates.dtype == np.float32
    np.testing.assert_allclose(rates, expected.numpy(), rtol=1e-5)


def test_trials_together_and_alone_have_the_same_rates(net):
    X = recording()
    alone = np.concatenate([rates_of(net, X[[i]]) for i in range(len(X))])
    np.testing.assert_allclose(rates_of(net, X), alone, rtol=1e-5)


@pytest.mark.parametrize("n_bins", [1, 4, 9])
def test_shorter_trials_are_trials_whose_end_is_missing(net, n_bins):
    X = recording()
    padded = X.copy()
    padded[:, n_bins:] = np.nan
    short = rates_of(net, np.ascontiguousarray(X[:, :n_bins]))
    np.testing.assert_allclose(short, rates_of(net, padded)[:, :n_bins], rtol=1e-5)


@pytest.mark.parametrize("n_bins", [11, 15, 37])
def test_longer_trials_get_a_rate_everywhere(net, n_bins):
    X = recording(n_bins=n_bins)
    rates = rates_of(net, X)
    assert np.isfinite(rates).all()
    # the first half window is seen by the first window alone
    head = rates_of(net, np.ascontiguousarray(X[:, :N_BINS]))
    n_alone = min(N_BINS // 2, n_bins - N_BINS)
    np.testing.assert_allclose(rates[:, :n_alone], head[:, :n_alone], rtol=1e-5)


def test_missing_entries_get_a_rate():
    X = recording()
    X[0, :, 2] = X[1, 3] = X[2] = np.nan
    rates = rates_of(fit(X), X)
    assert np.isfinite(rates).all()
    assert (rates > 0).all()


@pytest.mark.parametrize(("heldout", "n_forecast"), [((1, 4), 0), ((), 3), ((1, 4), 3)])
def test_held_out_values_do_not_influence_rates(heldout, n_forecast):
    X = recording()
    net = fit(X, heldout=heldout, forecast_bins=n_forecast)
    rates = rates_of(net, X)
    assert np.isfinite(rates).all()
    other = X.copy()
    other[..., list(heldout)] = 7
    other[:, N_BINS - n_forecast :] = 7
    assert np.array_equal(rates_of(net, other), rates)
    other[..., list(heldout)] = np.nan
    assert np.array_equal(rates_of(net, other), rates)
    seen = X.copy()
    seen[0, 0, 0] = 7
    assert not np.array_equal(rates_of(net, seen), rates)


def test_inference_leaves_gradients_and_generators_alone(net):
    before = torch.random.get_rng_state()
    rates_of(net, recording())
    assert torch.is_grad_enabled()
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_torch_runs_on_the_threads_that_were_asked_for(monkeypatch, net, n_threads):
    used = []

    def remember(*args):
        used.append(torch.get_num_threads())
        return iter(())

    monkeypatch.setattr("sklearn_stndt.inference.rates.iterate_rates", remember)
    infer(net, as_segments(recording()), N_BINS, n_threads)
    assert used == [n_threads]
