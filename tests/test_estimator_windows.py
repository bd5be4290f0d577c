"""Trials of any length, padding, recordings, and the windows that are cut from them."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal


@pytest.mark.parametrize(
    ("n_bins", "n_padding"),
    [(13, 7), (13, 2), (20, 30), (33, 10), (40, 5)],
)
def test_padding_does_not_change_rates(network, spikes, n_bins, n_padding):
    trials = np.concatenate([spikes, spikes[::-1]], axis=1)[:, :n_bins]
    padded = np.pad(trials, [(0, 0), (0, n_padding), (0, 0)], constant_values=np.nan)
    rates = network.transform(padded)
    assert_allclose(rates[:, :n_bins], network.transform(trials), rtol=1e-4)


@pytest.mark.parametrize("forecast_bins", [5, 19])
@pytest.mark.parametrize(("n_bins", "n_padding"), [(13, 7), (18, 30), (3, 60), (50, 1)])
def test_padding_does_not_change_rates_of_networks_that_forecast(
    perturbed, small, spikes, forecast_bins, n_bins, n_padding
):
    estimator = perturbed(small(forecast_bins=forecast_bins, max_epochs=1).fit(spikes))
    trials = np.concatenate([spikes] * 3, axis=1)[:, :n_bins]
    padded = np.pad(trials, [(0, 0), (0, n_padding), (0, 0)], constant_values=np.nan)
    rates = estimator.transform(padded)
    assert (rates > 0).all()
    assert_allclose(rates[:, :n_bins], estimator.transform(trials), rtol=1e-4)


def test_ragged_trials_together_equal_each_alone(network, spikes, ragged):
    together = network.transform(ragged)
    for trial, rates, i in zip(spikes, together, range(len(spikes)), strict=True):
        n_bins = 20 - i % 8
        assert_allclose(network.transform(trial[None, :n_bins])[0], rates[:n_bins], rtol=1e-4)


@pytest.mark.parametrize("forecast_bins", [0, 5])
def test_longer_trials_have_no_jumps_between_windows(small, spikes, forecast_bins):
    params = {"forecast_bins": forecast_bins, "max_epochs": 1, "calibration": False}
    estimator = small(**params).fit(spikes)
    # rates rise within each window, so without blending they drop where the next one starts
    rise = torch.linspace(-2, 2, 20)[:, None] * torch.randn(
        1, 8, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        estimator.net_.module_.positions.weight.copy_(rise)
        estimator.net_.module_.readout.weight.mul_(10)
    constant = np.ones((1, 200, 12))
    rise_of_a_window = np.ptp(np.log(estimator.transform(constant[:, :20])), axis=1).max()
    log_rates = np.log(estimator.transform(constant)[0])
    steps = np.abs(np.diff(log_rates, axis=0))[20:-20].max(axis=1)  # (bins,)
    assert rise_of_a_window > 0.5
    assert steps.max() < 0.3 * rise_of_a_window


def test_hidden_ends_of_windows_are_replaced_by_windows_that_saw_the_bins(perturbed, small, spikes):
    estimator = perturbed(small(forecast_bins=5, max_epochs=1).fit(spikes))
    longer = np.concatenate([spikes] * 3, axis=1)
    rates = estimator.transform(longer)
    with torch.no_grad():
        estimator.net_.module_.positions.weight[15:] *= -3  # rates at the ends of windows
    changed = estimator.transform(longer)
    assert_allclose(changed[:, :-5], rates[:, :-5], rtol=1e-3)
    assert np.abs(changed[:, -5:] / rates[:, -5:] - 1).max() > 0.1


@pytest.mark.parametrize("n_bins", [1, 7, 19, 21, 30, 55])
def test_trials_of_another_length_than_in_fit_get_rates(network, spikes, n_bins):
    trials = np.concatenate([spikes] * 3, axis=1)[:, :n_bins]
    rates = network.transform(trials)
    assert rates.shape == trials.shape
    assert np.isfinite(rates).all()


def test_fit_accepts_trials_of_unequal_length(small, spikes, ragged):
    estimator = small().fit(ragged)
    assert estimator.window_ == 20
    assert np.isfinite(estimator.transform(spikes)).all()


@pytest.mark.parametrize(
    "labels", [np.asarray, lambda g: [f"trial {i}" for i in g]], ids=["numbers", "strings"]
)
def test_rows_with_groups_equal_trials(small, fitted, spikes, rows, groups, labels):
    estimator = small(window=20).fit(rows, groups=labels(groups))
    rates = fitted.transform(spikes).reshape(rows.shape)
    assert_array_equal(estimator.transform(rows, groups=labels(groups)), rates)
    assert_array_equal(small(window=20).fit_transform(rows, groups=groups), rates)
    assert estimator.score(rows, groups=groups) == pytest.approx(fitted.score(spikes), abs=1e-9)


def test_a_window_never_spans_two_trials(fitted, rows):
    lengths = [13, 27, 20, 45]  # shorter than, longer than and equal to a window
    rows, groups = rows[: sum(lengths)], np.repeat(range(4), lengths)
    rates = fitted.transform(rows, groups=groups)
    for trial in range(4):
        changed = rows.copy()
        changed[groups == trial] += 3
        same = (fitted.transform(changed, groups=groups) == rates).all(axis=1)
        assert_array_equal(same, groups != trial)
        # without groups the change spreads
        same = (fitted.transform(changed) == fitted.transform(rows)).all(axis=1)
        assert not same[groups != trial].all()


def test_rows_of_unequal_trials_equal_trials_padded_with_nan(small, ragged):
    visible = ~np.isnan(ragged).all(axis=2)  # (trials, bins)
    rows, groups = ragged[visible], np.nonzero(visible)[0]
    of_trials, of_rows = small().fit(ragged), small().fit(rows, groups=groups)
    rates = of_trials.transform(ragged)[visible]
    assert_array_equal(of_rows.transform(rows, groups=groups), rates)


@pytest.mark.parametrize(
    ("shape", "grouped", "window", "expected"),
    [
        ((24, 20), False, None, 20),
        ((24, 20), False, 8, 8),
        ((24, 20), False, 100, 20),
        ((480,), False, None, 128),
        ((480,), True, None, 20),
        ((480,), False, 100, 100),
        ((30,), False, None, 30),
    ],
)
def test_the_window_depends_on_the_data(small, rows, shape, grouped, window, expected):
    counts = rows[: np.prod(shape)].reshape(*shape, 12)
    groups = np.arange(480) // 20 if grouped else None
    estimator = small(window=window, max_epochs=1).fit(counts, groups=groups)
    assert estimator.window_ == expected
