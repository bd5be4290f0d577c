"""Importance of neurons by attention, gradient, hiding and permutation."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter1d
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline

from sklearn_stndt import BaggingEnsemble, BinwiseRegressor, STNDTEstimator
from sklearn_stndt._scoring import entry_folds
from sklearn_stndt.inspection import attention_maps, neuron_dropping_curve, neuron_importance
from sklearn_stndt.inspection._gradient import gradient_importance
from sklearn_stndt.metrics import bits_per_spike
from sklearn_stndt.windows.segments import as_segments

METHODS = ["attention", "gradient", "hiding", "permutation"]


@pytest.fixture(scope="module")
def heldout(small, perturbed, spikes):
    """A network with two held-out neurons, with noise added to all weights."""
    return perturbed(small(heldout_neurons=[1, 5]).fit(spikes), 0.1)


def with_nan(spikes, neuron):
    counts = spikes.copy()
    counts[..., neuron] = np.nan
    return counts


@pytest.mark.parametrize("method", METHODS)
def test_neurons_that_are_not_shown_have_no_importance(heldout, spikes, method):
    importance = neuron_importance(heldout, with_nan(spikes, 7), method, random_state=0)
    assert importance.shape == (12,)
    assert_array_equal(np.flatnonzero(np.isnan(importance)), [1, 5, 7])


@pytest.mark.parametrize("method", METHODS)
def test_counts_of_a_neuron_that_the_weights_ignore_do_not_matter(perturbed, small, spikes, method):
    # with more passes, some bins are visible in this neuron alone; calibration adds other weights
    params = {"attention": "temporal", "inference_passes": 1, "calibration": False}
    network = perturbed(small(**params).fit(spikes))
    if method == "attention":
        with pytest.raises(ValueError, match=r"'temporal' has none.*method='hiding'"):
            neuron_importance(network, spikes, method)
        return
    with torch.no_grad():
        network.net_.module_.embed.weight[:, 4] = 0
    importance = neuron_importance(network, spikes, method, random_state=0)
    assert importance[4] == pytest.approx(0, abs=1e-7)
    assert (np.abs(np.delete(importance, 4)) > 1e-6).all()


@pytest.mark.parametrize("form", ["default", "published"])
def test_attention_is_what_a_neuron_receives_in_the_first_map(small, perturbed, spikes, form):
    params = {"published": {"spatial_layers": "all", "d_model": None}}.get(form, {})
    network = perturbed(small(**params).fit(spikes))
    importance = neuron_importance(network, spikes)
    assert_allclose(importance, attention_maps(network, spikes).spatial[0].mean(0), atol=1e-6)
    assert importance.sum() == pytest.approx(1)
    assert np.ptp(importance) > 0.01


def test_hiding_is_the_decrease_in_bits_of_the_heldout_neurons(heldout, spikes):
    importance = neuron_importance(heldout, spikes, "hiding")
    for neuron in (0, 6):
        without = heldout.transform(with_nan(spikes, neuron))[..., [1, 5]]
        loss = heldout.score(spikes) - bits_per_spike(spikes[..., [1, 5]], without)
        assert importance[neuron] == pytest.approx(loss, abs=1e-7)


def test_without_heldout_neurons_the_others_are_scored_while_hidden(perturbed, fitted, spikes):
    network = perturbed(fitted)
    folds = entry_folds(spikes.shape)
    others = np.delete(np.arange(12), 3)
    bits = []
    for counts in (spikes, with_nan(spikes, 3)):
        rates = np.empty(spikes.shape)
        for fold in range(5):
            hidden = folds == fold
            rates[hidden] = network.transform(np.where(hidden, np.nan, counts))[hidden]
        bits.append(bits_per_spike(spikes[..., others], rates[..., others]))
    importance = neuron_importance(network, spikes, "hiding")
    assert importance[3] == pytest.approx(bits[0] - bits[1], abs=1e-6)


@pytest.mark.parametrize("form", ["trials", "rows", "ragged"])
def test_permutation_keeps_the_counts_of_a_neuron(heldout, spikes, rows, ragged, form, monkeypatch):
    counts = {"trials": spikes, "rows": rows, "ragged": ragged}[form]
    seen = []
    infer = heldout._infer

    def watch(X, groups):
        seen.append(X.copy())
        return infer(X, groups)

    monkeypatch.setattr(heldout, "_infer", watch)
    neuron_importance(heldout, counts, "permutation", n_repeats=2, random_state=0)
    assert len(seen) == 1 + 10 * 2
    original, changed = seen[0], seen[1]  # of neuron 0
    assert_array_equal(changed[..., 1:], original[..., 1:])
    assert not np.array_equal(changed[..., 0], original[..., 0], equal_nan=True)
    assert np.isnan(changed[np.isnan(original)]).all()
    if form != "ragged":
        assert_array_equal(
            np.sort(changed[..., 0], axis=None), np.sort(original[..., 0], axis=None)
        )
    if form == "trials":
        assert {*map(tuple, changed[..., 0])} == {*map(tuple, original[..., 0])}


def test_importance_can_be_repeated(heldout, spikes):
    for method in ("permutation", "gradient"):
        first, again, other = (
            neuron_importance(heldout, spikes, method, random_state=seed) for seed in (0, 0, 1)
        )
        assert_array_equal(first, again)
        assert not np.array_equal(first, other, equal_nan=True)


def test_gradient_importance_equals_finite_differences(perturbed, small, spikes):
    """Compare many random projections with finite differences of each input."""
    counts = spikes[:2, :6, :5] + 1.0  # the square root has no derivative at 0
    params = {"window": 6, "spatial_layers": "all", "d_model": None, "calibration": False}
    network = perturbed(small(**params).fit(counts))
    importance = gradient_importance(network, as_segments(counts), 800, 0)
    module = network.net_.module_.double()
    spikes = torch.tensor(counts)
    visible = torch.ones_like(spikes, dtype=torch.bool)
    with torch.no_grad():
        rates = module(spikes, visible).log_rates.exp()
        _, scaled = module.scaling(spikes, visible.double())
        squares = np.zeros(5)
        for neuron in range(5):
            for time in range(6):
                step = torch.zeros_like(spikes)
                step[:, time, neuron] = 1e-4
                sides = [module(spikes + side * step, visible).log_rates for side in (1, -1)]
                moved = [module.scaling(spikes + s * step, visible.double())[1] for s in (1, -1)]
                width = (moved[0] - moved[1])[:, time, neuron]  # (trials,)
                slope = (sides[0] - sides[1]) / width[:, None, None]
                slope[..., neuron] = 0
                squares[neuron] += (rates * slope.square()).sum()
    # a random half of the five neurons, without the neuron itself
    expected = scaled.numpy().std((0, 1)) * np.sqrt(squares / 2 / (2 * 6))
    assert_allclose(importance, expected, rtol=0.15)


def test_gradient_importance_does_not_change_the_network(heldout, spikes):
    before = heldout.transform(spikes)
    neuron_importance(heldout, spikes, "gradient", random_state=0)
    assert all(weights.grad is None for weights in heldout.net_.module_.parameters())
    assert not any(part._forward_pre_hooks for part in heldout.net_.module_.modules())
    assert_array_equal(heldout.transform(spikes), before)


@pytest.mark.parametrize("method", ["attention", "hiding"])
def test_padding_does_not_matter(heldout, spikes, method):
    ragged = spikes.copy()
    ragged[:, -4:] = np.nan
    padded = np.concatenate([ragged, np.full((24, 30, 12), np.nan)], axis=1)
    first, again = (neuron_importance(heldout, X, method) for X in (ragged, padded))
    assert_allclose(again, first, atol=1e-5)


@pytest.mark.parametrize("method", ["attention", "gradient"])
def test_importance_of_an_ensemble_is_the_mean_over_members(small, perturbed, spikes, method):
    ensemble = BaggingEnsemble(small(), n_estimators=2, random_state=0).fit(spikes)
    ensemble.estimators_[1] = perturbed(ensemble.estimators_[1])
    importance = neuron_importance(ensemble, spikes, method, random_state=0)
    members = [neuron_importance(m, spikes, method, random_state=0) for m in ensemble]
    assert_allclose(importance, np.mean(members, axis=0), rtol=1e-6)


def test_hiding_in_an_ensemble_is_that_of_its_mean_rates(small, spikes):
    ensemble = BaggingEnsemble(small(heldout_neurons=2), n_estimators=2, random_state=0)
    ensemble.fit(spikes)
    heldout = ensemble.heldout_neurons_
    neuron = np.setdiff1d(np.arange(12), heldout)[0]
    without = ensemble.transform(with_nan(spikes, neuron))[..., heldout]
    loss = ensemble.score(spikes) - bits_per_spike(spikes[..., heldout], without)
    importance = neuron_importance(ensemble, spikes, "hiding")
    assert importance[neuron] == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_importance_in_a_pipeline_is_that_of_its_network(small, spikes, reaches, method):
    pipeline = make_pipeline(small(heldout_neurons=3), BinwiseRegressor(Ridge()))
    pipeline.fit(spikes, reaches.velocity)
    ours, theirs = (
        neuron_importance(one, spikes, method, random_state=0) for one in (pipeline, pipeline[0])
    )
    assert_array_equal(ours, theirs)


def test_integers_and_groups_are_accepted(heldout, spikes, rows, groups):
    for method in ("attention", "hiding"):
        of_trials = neuron_importance(heldout, spikes.astype(int), method)
        of_rows = neuron_importance(heldout, rows, method, groups=groups)
        assert_allclose(of_rows, of_trials, atol=1e-6)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"method": "shap"}, "one of attention, gradient, hiding, permutation, got 'shap'"),
        ({"n_repeats": 0}, "n_repeats must be a whole number, at least 1, got 0"),
    ],
)
def test_wrong_parameters_are_refused(fitted, spikes, params, message):
    with pytest.raises(ValueError, match=message):
        neuron_importance(fitted, spikes, **params)


def test_one_neuron_cannot_be_ranked(fitted, spikes):
    with pytest.raises(ValueError, match="visible neurons is 1"):
        neuron_importance(fitted, with_nan(spikes, list(range(11))))


# ---- planted neurons


@pytest.fixture(scope="module")
def planted():
    """Counts of 52 neurons: 8 depend strongly on latents, 32 weakly, and 12 are held out."""
    rng = np.random.default_rng(0)
    latents = gaussian_filter1d(rng.standard_normal((90, 60, 3)), 4, axis=1)[:, 15:-15]
    latents /= latents.std()
    important = np.sort(rng.permutation(40)[:8])
    depth = np.full((52, 1), 0.2)
    depth[important], depth[40:] = 1.0, 0.7
    loadings = rng.standard_normal((52, 3))
    loadings *= depth / np.linalg.norm(loadings, axis=1, keepdims=True)
    rates = rng.uniform(0.2, 0.6, 52) * np.exp(latents @ loadings.T)
    return rng.poisson(rates), np.isin(np.arange(40), important)


@pytest.fixture(scope="module")
def trained(planted):
    """STNDT and NDT of default size, trained on two thirds of the trials."""
    spikes, _ = planted
    params = {"heldout_neurons": np.arange(40, 52), "random_state": 0, "max_epochs": 60}
    return {
        attention: STNDTEstimator(attention=attention, **params).fit(spikes[:60])
        for attention in ("spatiotemporal", "temporal")
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attention", "method", "least"),
    [
        ("spatiotemporal", "attention", 0.6),  # chance: 0.2
        ("spatiotemporal", "hiding", 0.6),
        ("spatiotemporal", "permutation", 0.8),
        ("spatiotemporal", "gradient", 0.95),
        ("temporal", "hiding", 0.6),
        ("temporal", "permutation", 0.8),
        ("temporal", "gradient", 0.95),
    ],
)
def test_planted_neurons_are_found(planted, trained, attention, method, least):
    spikes, important = planted
    importance = neuron_importance(trained[attention], spikes[60:], method, random_state=0)
    precision = average_precision_score(important, importance[:40])
    print(f"average precision of {method} in {attention} attention: {precision:.3f}")
    assert precision > least


@pytest.mark.slow
@pytest.mark.parametrize("method", ["attention", "gradient"])
def test_planted_neurons_matter_more_than_random_ones(planted, trained, method):
    spikes, _ = planted
    curve = neuron_dropping_curve(
        trained["spatiotemporal"], spikes[60:], ranking=method, n_dropped=[4, 8], random_state=0
    )
    control = neuron_dropping_curve(trained["temporal"], spikes[60:], ranking=curve)
    for one in (curve, control):
        margin = one.random_mean["bits_per_spike"] - one.scores["bits_per_spike"]
        errors = margin[1:] / one.random_2se["bits_per_spike"][1:]
        print(f"{method}: {errors.round(1)} times two standard errors")
        assert (errors > 1).all()
