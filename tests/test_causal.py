"""Causal rates: each bin's from this bin and earlier ones alone."""

import pickle

import numpy as np
import pytest
import torch
from conftest import FORMS
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import toeplitz
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from sklearn_stndt import BaggingEnsemble, BinwiseRegressor, STNDTEstimator
from sklearn_stndt.datasets import make_reaches
from sklearn_stndt.inference import causal as inference
from sklearn_stndt.inspection import attention_maps, neuron_importance
from sklearn_stndt.network import CausalSTNDT
from sklearn_stndt.training.objective import ObjectiveSettings

N_BINS, N_NEURONS = 20, 12
CAUSAL = {
    **FORMS,
    "all layers, narrow": {"spatial_layers": "all", "n_spatial_heads": 2},
    "no past": {"context": (0, 5)},
    "forecast": {"forecast_bins": 3, "heldout_neurons": 2},
}
counts_or_nan = st.sampled_from([0.0, 1.0, 3.0, 50.0, np.nan])


@pytest.fixture(scope="module", params=CAUSAL)
def network(request, small, perturbed, spikes):
    """A fitted causal estimator of each form, with noise added to all weights."""
    return perturbed(small(causal=True, max_epochs=1, **CAUSAL[request.param]).fit(spikes))


@pytest.fixture(scope="module")
def of_recording(small, perturbed, spikes):
    """A causal estimator of a continuous recording."""
    rows = spikes.reshape(-1, N_NEURONS)
    return perturbed(small(causal=True, max_epochs=1, window=16).fit(rows))


def changed_after(X, cut, future):
    """A copy of X whose bins from `cut` on have other counts."""
    X = np.array(X, dtype=float)
    X[..., cut:, :] = future[: X.shape[-2] - cut]
    return X


@given(
    cut=st.integers(1, N_BINS),
    future=arrays(float, (N_BINS, N_NEURONS), elements=counts_or_nan),
)
@settings(max_examples=10)
def test_no_rate_depends_on_the_future(network, spikes, cut, future):
    rates = network.transform(spikes[:3])
    after = network.transform(changed_after(spikes[:3], cut, future))
    assert_allclose(after[:, :cut], rates[:, :cut], rtol=2e-5)


def test_other_counts_in_the_future_change_no_bit(network, spikes):
    rates = network.transform(spikes)
    after = network.transform(changed_after(spikes, 9, spikes[::-1][0] + 5))
    assert_array_equal(after[:, :9], rates[:, :9])
    assert (after[:, 9:] != rates[:, 9:]).any(axis=(1, 2)).all()


@given(cut=st.integers(1, 60), future=arrays(float, (60, N_NEURONS), elements=counts_or_nan))
@settings(max_examples=10)
def test_a_recording_may_be_cut_or_continued_anywhere(of_recording, spikes, cut, future):
    X = spikes.reshape(-1, N_NEURONS)[:60]
    rates = of_recording.transform(X)
    assert_allclose(of_recording.transform(X[:cut]), rates[:cut], rtol=2e-5)
    after = of_recording.transform(changed_after(X, cut, future))
    assert_allclose(after[:cut], rates[:cut], rtol=2e-5)


@pytest.mark.parametrize("part", [1, 7])
def test_parts_of_a_recording_are_inferred_as_one(network, spikes, part, monkeypatch):
    """Bins within reach are remembered from part to part."""
    X = spikes.reshape(-1, N_NEURONS)[: 50 * part]
    rates = network.transform(X)
    monkeypatch.setattr(inference, "PART", part)
    monkeypatch.setattr(network, "window_", 1)  # so that parts may be shorter than the window
    assert_allclose(network.transform(X), rates, rtol=5e-5)


def test_segments_of_different_lengths_are_inferred_as_each_alone(network, spikes):
    X, groups = spikes.reshape(-1, N_NEURONS)[:150], np.repeat([3, 1, 2, 0], [5, 70, 41, 34])
    rates = network.transform(X, groups=groups)
    for group in np.unique(groups):
        alone = network.transform(X[groups == group])
        assert_allclose(rates[groups == group], alone, rtol=2e-5)


def test_trials_have_the_same_rates_with_padding_and_as_rows(network, ragged):
    rates = network.transform(ragged)
    for trial, of_trial in zip(ragged[:8], rates, strict=False):
        known = ~np.isnan(trial).all(axis=1)
        assert_allclose(network.transform(trial[known]), of_trial[known], rtol=2e-5)


def test_attention_reaches_back_over_several_layers(small, perturbed, spikes):
    """The past has an influence, also from beyond one window, but not without end."""
    X = spikes.reshape(-1, N_NEURONS).astype(float)
    of_recording = perturbed(
        small(causal=True, attention="temporal", window=16, max_epochs=1).fit(X)
    )
    reach = sum(of_recording.net_.module_.back)
    assert reach == 3 * 15
    rates = of_recording.transform(X)
    changed = X.copy()
    changed[100] += 4
    moved = np.flatnonzero((np.abs(of_recording.transform(changed) / rates - 1) > 1e-4).any(axis=1))
    assert moved[0] == 100
    assert 116 < moved[-1] <= 100 + reach


def test_context_limits_the_past(small, perturbed, spikes):
    estimator = small(causal=True, attention="temporal", context=(4, 9), max_epochs=1, n_layers=2)
    estimator = perturbed(estimator.fit(spikes))
    assert estimator.settings_.network.context == (4, 0)
    assert estimator.net_.module_.back == [2, 2]
    changed = spikes.copy()
    changed[:, 5] += 4
    moved = (estimator.transform(changed) != estimator.transform(spikes)).any(axis=(0, 2))
    assert_array_equal(np.flatnonzero(moved), [5, 6, 7, 8, 9])


def test_positions_are_those_of_whole_trials(small, spikes):
    """Windows of a recording begin anywhere, so a position in them means nothing."""
    rows = spikes.reshape(-1, N_NEURONS)
    groups = np.repeat(np.arange(len(spikes)), N_BINS)
    for X, params, n_positions in [
        (spikes, {}, N_BINS),
        (rows, {"groups": groups}, N_BINS),
        (rows, {}, 1),
    ]:
        module = (
            small(causal=True, max_epochs=1, early_stopping=False).fit(X, **params).net_.module_
        )
        assert len(module.positions.weight) == n_positions
    module = small(causal=True, max_epochs=1, window=8).fit(spikes).net_.module_
    assert len(module.positions.weight) == 1


def test_trials_longer_than_in_fit_keep_the_last_position(network, spikes):
    longer = np.concatenate([spikes, spikes], axis=1)
    rates = network.transform(longer)
    assert_allclose(rates[:, :N_BINS], network.transform(spikes), rtol=2e-5)
    assert np.isfinite(rates).all()


def test_ensembles_and_pipelines_are_causal(small, spikes):
    velocity = np.random.default_rng(0).normal(size=(*spikes.shape[:2], 2))
    member = small(causal=True, max_epochs=1)
    ensemble = BaggingEnsemble(member, 2, random_state=0)
    decoder = make_pipeline(ensemble, BinwiseRegressor(Ridge(), lag=1, history=2))
    decoder.fit(spikes, velocity)
    changed = changed_after(spikes, 11, spikes[-1] + 3)
    rates, after = (decoder[0].transform(X) for X in (spikes, changed))
    assert_array_equal(after[:, :11], rates[:, :11])
    assert_array_equal(decoder.predict(changed)[:, :12], decoder.predict(spikes)[:, :12])


@pytest.mark.parametrize("n_before", [1, 9, 20, 50])
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_forecast_is_what_transform_infers_for_hidden_bins(
    small, perturbed, spikes, n_before, ndim
):
    estimator = perturbed(small(causal=True, forecast_bins=4, max_epochs=1).fit(spikes))
    before = np.concatenate([spikes] * 3, axis=1)[:, :n_before].astype(float)
    before = before if ndim == 3 else before[0]
    forecast = estimator.forecast(before, 4)
    hidden = np.full_like(before[..., :1, :].repeat(4, axis=-2), np.nan)
    rates = estimator.transform(np.concatenate([before, hidden], axis=-2))
    assert_allclose(forecast, rates[..., n_before:, :], rtol=2e-5)
    assert forecast.shape == (*before.shape[:-2], 4, N_NEURONS)


def test_no_bin_is_hidden_after_training(small, perturbed, spikes):
    estimator = perturbed(small(causal=True, forecast_bins=4, max_epochs=1).fit(spikes))
    changed = spikes.copy()
    changed[:, -1] += 5
    moved = estimator.transform(changed) != estimator.transform(spikes)
    assert moved[:, -1].any(axis=1).all()


@pytest.mark.parametrize("n_bins", [7, 30])
@pytest.mark.parametrize("forecast_bins", [1, 5, 6])
def test_training_forecasts_from_any_bin(n_bins, forecast_bins, torch_seed):
    objective = ObjectiveSettings(forecast_bins=forecast_bins, heldout_neurons=(1,))
    windows = torch.ones(300, n_bins, 3)
    windows[0, 2] = torch.nan
    end = n_bins - forecast_bins
    for spread in (True, False):
        starts = objective.forecast_starts(300, n_bins, spread)
        first, second = starts.T
        assert set(first.tolist()) == set(range(1, end + 1))
        if end > 1:
            assert 0.4 < (first == end).float().mean() < 0.7  # from all bins before
        assert (second[first <= end - forecast_bins] == end).all()
        assert (second == first)[first > end - forecast_bins].all()  # none is longer
        batch = objective.split(windows, starts)
        heldout, forecast = objective.always_hidden(batch.known, starts)
        for window, of_window in zip(forecast[1:].any(2), starts[1:], strict=True):
            expected = torch.zeros(n_bins, dtype=torch.bool)
            for start in of_window:
                expected[start : start + forecast_bins] = True
            assert torch.equal(window, expected)
        assert not (batch.visible & (forecast | heldout)).any()
        assert ((batch.visible | forecast | heldout) == batch.known).all()
    fixed = [objective.forecast_starts(9, n_bins, spread=True) for _ in range(2)]
    assert torch.equal(*fixed)  # validation does not depend on the random generator


def test_attention_is_to_the_past(network, spikes):
    maps = attention_maps(network, spikes)
    for weights in maps.temporal:
        assert np.abs(np.triu(weights, 1)).max() == 0
        assert_allclose(weights.sum(-1)[:, 1:], 1, rtol=1e-5)
    for weights in maps.spatial:
        assert_allclose(weights.sum(-1), 1, rtol=1e-4)
        assert np.abs(weights[:, network.heldout_neurons_]).max(initial=0) == 0
        assert weights.std() > 0


@pytest.mark.parametrize("method", ["gradient", "attention"])
def test_importance_of_neurons(network, spikes, method):
    if method == "attention" and network.attention == "temporal":
        return
    values = np.delete(neuron_importance(network, spikes, method=method), network.heldout_neurons_)
    assert np.isfinite(values).all()
    assert values.std() > 0


@pytest.mark.parametrize("form", ["default", "published"])
def test_training_continues(small, spikes, form):
    estimator = small(causal=True, warm_start=True, max_epochs=1, **FORMS[form]).fit(spikes)
    before = estimator.transform(spikes)
    estimator.fit(spikes.reshape(-1, N_NEURONS))  # windows are the same, though not trials
    assert estimator.n_iter_ == 2
    assert (estimator.transform(spikes) != before).any()


def test_hidden_counts_have_no_influence(network):
    module = network.net_.module_
    assert isinstance(module, CausalSTNDT)
    generator = torch.Generator().manual_seed(0)
    spikes = torch.randint(0, 3, (2, N_BINS, N_NEURONS), generator=generator).float()
    visible = torch.rand(spikes.shape, generator=generator) < 0.6
    visible[0, 3:6] = False
    other = torch.where(visible, spikes, torch.nan)
    with torch.no_grad():
        assert torch.equal(module(spikes, visible).log_rates, module(other, visible).log_rates)


def test_a_copy_infers_the_same(network, spikes):
    copied = pickle.loads(pickle.dumps(network))
    assert_array_equal(copied.transform(spikes), network.transform(spikes))


@pytest.mark.slow
def test_causal_rates_and_forecasts_are_better_than_smoothing():
    """On reaches: the best half Gaussian, and the last rate held, as forecast."""
    data = make_reaches(n_trials=100, n_bins=25, n_neurons=40, random_state=0)
    train, test = slice(0, 70), slice(70, None)
    estimator = STNDTEstimator(causal=True, forecast_bins=5, max_epochs=60, random_state=0)
    estimator.fit(data.spikes[train])
    rates = estimator.transform(data.spikes[test])

    def error(inferred, bins=slice(None)):
        return np.square(inferred - data.rates[test][:, bins]).mean()

    halves = []
    for width in (1, 2, 3, 4, 6, 9):
        weights = np.exp(-0.5 * (np.arange(25) / width) ** 2)
        past = toeplitz(weights, np.zeros(25))
        past /= past.sum(axis=1, keepdims=True)
        halves.append(error(past @ data.spikes[test]))
    assert error(rates) < 0.8 * min(halves)
    mean = error(data.spikes[train].mean(axis=(0, 1)))
    assert error(rates) < 0.7 * mean
    errors = []
    for begin in (12, 15, 18, 20):
        later, last = slice(begin, begin + 5), slice(begin - 1, begin)
        ahead = estimator.forecast(data.spikes[test][:, :begin], 5)
        errors.append([error(ahead, later), error(rates[:, last], later)])
    forecast, held = np.mean(errors, axis=0)
    assert forecast < 0.9 * held
