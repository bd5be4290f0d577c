"""Calibration: how far rates deviate from their mean, scaled after training."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from sklearn_stndt import STNDTEstimator
from sklearn_stndt.datasets import make_reaches
from sklearn_stndt.metrics import bits_per_spike
from sklearn_stndt.network import speckled_folds
from sklearn_stndt.network.likelihood import Poisson
from sklearn_stndt.training import calibration, hidden
from sklearn_stndt.training.calibration import GAINS, calibrate
from sklearn_stndt.training.hidden import Predictions, Rows, predict_hidden, window_losses
from sklearn_stndt.windows.cutting import cut
from sklearn_stndt.windows.segments import as_segments

SMALL = {
    "n_layers": 1,
    "d_model": 16,
    "optimizer": "adamw",
    "max_epochs": 20,
    "random_state": 0,
    "calibration": False,
}
N_BINS = 25


@pytest.fixture(scope="module")
def data():
    return make_reaches(90, N_BINS, 12, mean_rate=25, random_state=0)


@pytest.fixture
def trained(data):
    """Train a net without calibration on the first 60 trials."""

    def fit(**params):
        return STNDTEstimator(**SMALL | params).fit(data.spikes[:60]).net_

    return fit


def windows_of(spikes):
    return cut(as_segments(spikes.astype(float)), N_BINS, N_BINS)


def log_rates_of(net, spikes):
    """Log-rates of entries while they are hidden, (n_trials, n_bins, n_neurons)."""
    counts, _, visible = net.split_visible(torch.as_tensor(spikes, dtype=torch.float32))
    folds = speckled_folds(tuple(spikes.shape))
    net.module_.eval()
    with torch.no_grad():
        each = [net.infer(counts, visible & (folds != k)).log_rates for k in range(5)]
    return torch.stack(each).gather(0, folds[None].long())[0].double().numpy()


def exaggerate(net, factor, neurons=slice(None)):
    """Increase the deviations of these neurons' log-rates from a level near their mean."""
    module = net.module_
    level = module.readout.bias.detach()[neurons]
    module.readout.gain[neurons] *= factor
    module.readout.shift[neurons] = factor * module.readout.shift[neurons] + (1 - factor) * level


@pytest.fixture
def no_smoothing(monkeypatch):
    monkeypatch.setattr(calibration, "WIDTHS", (0.0,))


@pytest.mark.usefixtures("no_smoothing")
@pytest.mark.parametrize("share_missing", [0.0, 0.3])
@pytest.mark.parametrize("most_likely", [True, False])
def test_the_gain_is_that_of_a_grid_search(trained, data, share_missing, most_likely, monkeypatch):
    if most_likely:
        monkeypatch.setattr(calibration, "N_ERRORS", 0.0)
    net, validation = trained(), data.spikes[60:].astype(float)
    validation[np.random.default_rng(0).random(validation.shape) < share_missing] = np.nan
    exaggerate(net, 2.0)
    before = log_rates_of(net, validation)
    gain = calibrate(net, windows_of(validation)).gains["heldin"]
    assert 0.5 < gain < 1.5  # within its bounds
    known = np.where(np.isnan(validation), np.nan, before)
    center = np.nanmean(known, axis=(0, 1))

    def score(g):
        scale = np.nanmean(np.exp(known), (0, 1)) / np.nanmean(
            np.exp(center + g * (known - center)), (0, 1)
        )
        return bits_per_spike(validation, scale * np.exp(center + g * (before - center)))

    grid = np.linspace(*GAINS, 200)
    best = grid[np.argmax([score(g) for g in grid])]
    assert gain == pytest.approx(best, abs=0.02) if most_likely else best - 0.15 < gain < best
    # the network applies the gain that was chosen
    after = np.exp(log_rates_of(net, validation))
    assert bits_per_spike(validation, after) == pytest.approx(score(gain), abs=1e-3)


@pytest.mark.usefixtures("no_smoothing")
@pytest.mark.parametrize("factor", [1.5, 2.5])
def test_exaggerated_rates_are_scaled_back(trained, data, factor):
    net, windows = trained(), windows_of(data.spikes[60:])
    calibrate(net, windows)
    reference = log_rates_of(net, data.spikes[:10])
    exaggerate(net, factor)
    assert calibrate(net, windows).gains["heldin"] == pytest.approx(1 / factor, rel=0.05)
    departures = [x - x.mean((0, 1)) for x in (log_rates_of(net, data.spikes[:10]), reference)]
    np.testing.assert_allclose(*departures, atol=0.1)


@pytest.mark.usefixtures("no_smoothing")
def test_each_neuron_keeps_its_mean_rate(trained, data):
    net, windows = trained(), windows_of(data.spikes[60:])
    exaggerate(net, 3.0)
    before = predict_hidden(net, windows)[0].log_rates.exp().mean((0, 1))
    assert calibrate(net, windows).gains["heldin"] < 0.8
    after = predict_hidden(net, windows)[0].log_rates.exp().mean((0, 1))
    torch.testing.assert_close(after, before, rtol=1e-3, atol=0)


@pytest.mark.parametrize("target", [GAINS[0], 1.0])
@pytest.mark.parametrize("n_windows", [1, 2, 30])
def test_a_gain_is_at_the_edge_of_what_errors_allow(n_windows, target):
    parts, rows = rough_predictions(n_windows, 0.8), rows_of(n_windows)
    center = calibration._mean(parts.log_rates, parts.known)

    def losses(gain):
        scaled, _ = calibration._scaled(gain, Poisson(), center, parts)
        return window_losses(Poisson(), scaled, parts, rows)

    grid = np.linspace(*GAINS, 500)
    best = grid[np.argmin([float(losses(g).sum()) for g in grid])]
    gain = calibration._gain_toward(target, best, Poisson(), center, parts, rows)
    if n_windows == 1:  # no standard error
        assert gain == best
        return
    allowed = [g for g in grid if calibration._within_errors(losses(g), losses(best))]
    edge = min(allowed) if target < best else min(max(allowed), target)
    assert gain == pytest.approx(edge, abs=0.005)
    assert gain != best


def test_heldout_neurons_have_their_own_gain(trained, data):
    heldout = np.array([2, 5, 9])
    net, windows = trained(heldout_neurons=heldout), windows_of(data.spikes[60:])
    calibrate(net, windows)
    exaggerate(net, 2.0, heldout)
    gains = calibrate(net, windows).gains
    assert gains["heldin"] == pytest.approx(1, abs=0.05)
    assert 0.45 < gains["heldout"] < 0.7  # the nearest to 1 that errors allow


@pytest.mark.parametrize("heldout", [None, [2, 5]])
def test_every_entry_of_a_group_has_the_same_weight(trained, data, heldout):
    net = trained(forecast_bins=5, heldout_neurons=heldout, max_epochs=1)
    scored = predict_hidden(net, windows_of(data.spikes[60:]))[0].scored
    times = scored.unflatten(0, (5, -1)).sum(0).sum(0)  # (n_bins, n_neurons)
    n_windows = len(data.spikes[60:])
    heldin = np.setdiff1d(np.arange(12), heldout or [])
    assert (times[:, heldin] == n_windows).all()  # once each, also in the forecast bins
    if heldout:
        assert (times[:, heldout] == 5 * n_windows).all()


def test_trials_without_counts_do_not_influence_the_gain(trained, data):
    spikes = data.spikes[60:].astype(float)
    spikes[-6:] = np.nan
    gains = []
    for X in (spikes, spikes[:-6]):
        net = trained()
        exaggerate(net, 2.0)
        gains.append(calibrate(net, windows_of(X)).gains["heldin"])
    assert 0.5 < gains[0] < 1.5
    assert gains[0] == pytest.approx(gains[1], abs=2e-3)


@pytest.mark.usefixtures("no_smoothing")
@pytest.mark.parametrize("missing", ["a neuron", "last bins"])
def test_rates_of_missing_entries_do_not_influence_the_gain(trained, data, missing):
    spikes = data.spikes[60:].astype(float)
    spikes[np.s_[..., 7] if missing == "a neuron" else np.s_[:, -16:]] = np.nan
    net, changed = trained(), trained()
    for n in (net, changed):
        exaggerate(n, 2.0)  # so that the gain is within its bounds
    with torch.no_grad():  # parameters that only the rates of missing entries depend on
        if missing == "a neuron":
            changed.module_.readout.bias[7] += 3
        else:
            changed.module_.positions.weight[-16:] *= -20
    rates, other_rates = (np.exp(log_rates_of(n, spikes)) for n in (net, changed))
    differ = np.abs(other_rates / rates - 1) > 1e-3
    assert differ.any()
    assert not differ[~np.isnan(spikes)].any()
    gains = [calibrate(n, windows_of(spikes)).gains["heldin"] for n in (net, changed)]
    assert gains[0] == pytest.approx(gains[1], abs=2e-3)
    assert 0.5 < gains[0] < 1.5


def test_a_recording_without_a_hidden_spike_changes_nothing(trained):
    net = trained()
    before = net.module_.readout.gain.clone(), net.module_.readout.shift.clone()
    assert calibrate(net, windows_of(np.zeros((4, N_BINS, 12)))).gains == {}
    assert torch.equal(net.module_.readout.gain, before[0])
    assert torch.equal(net.module_.readout.shift, before[1])


def test_the_number_of_stored_log_rates_is_bounded(trained, data, monkeypatch):
    net, windows = trained(), windows_of(data.spikes)
    monkeypatch.setattr(hidden, "MAX_ENTRIES", 5 * N_BINS * 12 * 7)
    predictions, rows = predict_hidden(net, windows)
    assert predictions.log_rates.shape == (5 * 7, N_BINS, 12)
    assert sorted(rows.window.tolist()) == sorted(5 * list(range(7)))


def test_calibration_is_the_default_and_raises_the_score_of_few_trials(data):
    few = {**SMALL, "d_model": 64, "max_epochs": 150, "dropout": 0.0, "validation_fraction": 0.3}
    scores = {}
    for on in (False, True):
        estimator = STNDTEstimator(**few | {"calibration": on, "n_iter_no_change": 150})
        scores[on] = estimator.fit(data.spikes[:24]).score(data.spikes[60:])
    assert scores[True] > scores[False]
    assert STNDTEstimator().calibration


def test_without_validation_rates_are_not_scaled(data):
    params = SMALL | {"max_epochs": 3, "early_stopping": False}
    first, second = (
        STNDTEstimator(**params | {"calibration": on}).fit(data.spikes).transform(data.spikes)
        for on in (False, True)
    )
    assert np.array_equal(first, second)


# ---- smoothing


def predictions_of(log_rates, spikes):
    everywhere = torch.ones(spikes.shape, dtype=torch.bool)
    return Predictions(log_rates, spikes, *[everywhere] * 3)


def rough_predictions(n_windows, roughness, n_spikes=1.0, seed=0):
    """Log-rates of slow rates plus noise of each bin, and counts drawn from the rates."""
    generator = torch.Generator().manual_seed(seed)
    phases = 6.28 * torch.rand(n_windows, 1, 8, generator=generator)
    rates = torch.sin(torch.arange(40)[None, :, None] / 6 + phases)  # (windows, bins, neurons)
    spikes = torch.poisson(n_spikes * rates.exp(), generator=generator)
    noise = roughness * torch.randn(rates.shape, generator=generator)
    return predictions_of(rates + math.log(n_spikes) + noise, spikes)


def rows_of(n_windows):
    return Rows(torch.arange(n_windows), torch.ones(n_windows, 40, 1, dtype=bool))


def test_rough_rates_are_smoothed_and_smooth_ones_are_not():
    windows = rows_of(30)
    width, log_rates = calibration._smoothed(rough_predictions(30, 0.5), windows, Poisson())
    assert 1 <= width <= 3.2
    predictions = rough_predictions(30, 0.5)
    expected = gaussian_filter1d(predictions.log_rates.numpy(), width, axis=1, truncate=8)
    np.testing.assert_allclose(log_rates[:, 15:25], expected[:, 15:25], rtol=1e-4, atol=1e-4)
    width, _ = calibration._smoothed(rough_predictions(30, 0.0), windows, Poisson())
    assert width < 1


def test_a_difference_within_the_noise_does_not_smooth():
    predictions = rough_predictions(2, 0.05, n_spikes=0.02)
    assert calibration._smoothed(predictions, rows_of(2), Poisson())[0] == 0
    # one window has no standard error
    assert calibration._smoothed(rough_predictions(1, 0.5), rows_of(1), Poisson())[0] == 0


def test_windows_without_counts_do_not_influence_the_width():
    predictions = rough_predictions(12, 0.3)
    expected, _ = calibration._smoothed(predictions, rows_of(12), Poisson())
    padded = [torch.cat([part, part[:6]]) for part in predictions]
    padded[3][12:] = False
    found, _ = calibration._smoothed(Predictions(*padded), rows_of(18), Poisson())
    assert found == expected > 0


def test_the_network_smooths_at_inference_only(trained, data):
    net = trained(max_epochs=1)
    module, spikes = net.module_, torch.as_tensor(data.spikes[:3], dtype=torch.float32)
    visible = torch.ones(spikes.shape, dtype=torch.bool)
    visible[1, 20:] = False
    module.eval()
    with torch.no_grad():
        rough = module(spikes, visible).log_rates
        module.smoothing.width.fill_(1.5)
        smooth = module(spikes, visible).log_rates
    seen = visible.any(2, keepdim=True)
    for trial, n_bins in ((0, N_BINS), (1, 20)):
        alone = calibration._smooth(rough[[trial], :n_bins], seen[[trial], :n_bins], 1.5)
        torch.testing.assert_close(smooth[trial, :n_bins], alone[0])
    torch.testing.assert_close(smooth[1, 20:], rough[1, 20:])
    assert smooth.diff(dim=1).square().sum() < 0.6 * rough.diff(dim=1).square().sum()
    assert torch.equal(module.smoothing.train()(rough, seen), rough)


def test_a_limited_context_is_not_widened_by_smoothing(data, monkeypatch):
    monkeypatch.setattr(calibration, "WIDTHS", (1.0,))
    widths = {}
    for context in (None, (4, 4)):
        params = SMALL | {"max_epochs": 1, "calibration": True, "context": context}
        estimator = STNDTEstimator(**params).fit(data.spikes)
        widths[context] = float(estimator.net_.module_.smoothing.width)
    assert widths == {None: 1, (4, 4): 0}
