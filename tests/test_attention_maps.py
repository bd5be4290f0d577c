"""Attention maps: attention from bins and neurons to those that are visible."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_stndt import BaggingEnsemble, BinwiseRegressor, STNDTEstimator
from sklearn_stndt.inspection import attention as module
from sklearn_stndt.inspection import attention_maps, neuron_importance


@pytest.fixture(scope="module")
def counts(spikes):
    """Trials in which neurons, bins, ends and entries are hidden."""
    counts = spikes.copy()
    counts[:, :, 3] = np.nan
    counts[:5, :, 8] = np.nan
    counts[2, 4:7] = np.nan
    counts[:, -3:] = np.nan
    counts[6, 9:] = np.nan
    return counts


@pytest.mark.parametrize("average", [True, False])
def test_rows_sum_to_one_over_what_is_visible(network, counts, average):
    maps = attention_maps(network, counts, average=average)
    assert len(maps.temporal) == 3
    for weights in maps.temporal:
        assert weights.shape[-3:] == (2, 20, 20)
        if average or network.context is None:  # a band may contain no visible bin
            assert_allclose(weights[..., :17, :].sum(-1), 1, atol=1e-5)
        assert (weights[..., -3:] == 0).all()  # keys that are hidden in all trials
    for weights in maps.spatial:
        assert weights.shape[-2:] == (12, 12)
        assert_allclose(weights.sum(-1), 1, atol=1e-5)
        assert (weights[..., 3] == 0).all()
    if not average:
        assert all((weights[2, ..., 4:7] == 0).all() for weights in maps.temporal)
        assert all((weights[:5, :, 8] == 0).all() for weights in maps.spatial)
        assert all((weights[5:, :, 8] > 0).all() for weights in maps.spatial)


def test_there_is_a_spatial_map_for_each_spatial_attention(network):
    n_mixings = {"temporal": 0}.get(network.attention, 3 if network.spatial_layers == "all" else 1)
    maps = attention_maps(network, np.ones((2, 20, 12)))
    assert len(maps.spatial) == n_mixings


def test_maps_do_not_depend_on_the_other_trials(network, counts):
    maps = attention_maps(network, counts, average=False)
    for trial in (0, 6):
        alone = attention_maps(network, counts[[trial]], average=False)
        for name in ("temporal", "spatial"):
            for weights, of_trial in zip(maps[name], alone[name], strict=True):
                assert_allclose(of_trial[0], weights[trial], atol=2e-6)


def test_maps_do_not_depend_on_the_batch_size(network, counts, monkeypatch):
    whole = attention_maps(network, counts)
    sizes = []

    def tiny(*args):
        sizes.append(args)
        return 3 * 5

    monkeypatch.setattr(module, "inference_batch_size", tiny)
    parts = attention_maps(network, counts)
    assert sizes
    for name in ("temporal", "spatial"):
        for weights, again in zip(whole[name], parts[name], strict=True):
            assert_allclose(again, weights, atol=2e-6)


def test_average_is_the_mean_of_the_windows(fitted, spikes):
    mean, every = (attention_maps(fitted, spikes, average=average) for average in (True, False))
    assert every.temporal[1].shape == (24, 2, 20, 20)
    assert_allclose(mean.temporal[1], every.temporal[1].mean(0), atol=1e-6)
    assert_allclose(mean.spatial[0], every.spatial[0].mean(0), atol=1e-6)


def test_a_trial_without_visible_counts_is_not_averaged(perturbed, fitted, spikes):
    network, counts = perturbed(fitted), spikes.copy()
    counts[0] = np.nan
    maps, without = attention_maps(network, counts), attention_maps(network, spikes[1:])
    assert_allclose(maps.spatial[0], without.spatial[0], atol=1e-6)
    assert_allclose(maps.temporal[0], without.temporal[0], atol=1e-6)


def test_hidden_counts_have_no_influence(perturbed, small, spikes):
    network = perturbed(small(heldout_neurons=[1, 5]).fit(spikes))
    changed = spikes.copy()
    changed[..., [1, 5]] += 40
    maps, again = attention_maps(network, spikes), attention_maps(network, changed)
    assert_array_equal(again.spatial[0], maps.spatial[0])
    assert_array_equal(again.temporal[0], maps.temporal[0])


def test_heldout_neurons_receive_no_attention_and_can_be_left_out(small, spikes):
    network = small(heldout_neurons=[1, 5]).fit(spikes)
    every = attention_maps(network, spikes)
    assert (every.spatial[0][:, [1, 5]] == 0).all()
    assert_allclose(every.spatial[0][[1, 5]].sum(1), 1, atol=1e-6)  # but they attend to others
    heldin = attention_maps(network, spikes, heldin_only=True)
    kept = np.setdiff1d(np.arange(12), [1, 5])
    assert_array_equal(heldin.neurons, kept)
    assert_array_equal(heldin.spatial[0], every.spatial[0][np.ix_(kept, kept)])


def test_a_layer_can_be_chosen(small, spikes):
    network = small(spatial_layers="all").fit(spikes)
    every = attention_maps(network, spikes)
    for layer in (0, 2, -2):
        one = attention_maps(network, spikes, layer=layer)
        assert len(one.temporal) == len(one.spatial) == 1
        assert_array_equal(one.temporal[0], every.temporal[layer])
        assert_array_equal(one.spatial[0], every.spatial[layer])
    with pytest.raises(ValueError, match=r"layer=3, but there are 3 layers.* from -3 to 2"):
        attention_maps(network, spikes, layer=3)


def test_a_single_spatial_map_is_returned_for_every_layer(fitted, spikes):
    every, last = attention_maps(fitted, spikes), attention_maps(fitted, spikes, layer=2)
    assert_array_equal(last.spatial[0], every.spatial[0])
    assert_array_equal(last.temporal[0], every.temporal[2])


# ---- windows


def test_long_trials_are_cut_into_windows(small, spikes):
    network = small(window=8).fit(spikes)
    maps = attention_maps(network, spikes[:3], average=False)
    assert_array_equal(maps.starts, [0, 4, 8, 12] * 3)
    assert_array_equal(maps.trials, np.repeat([0, 1, 2], 4))
    alone = attention_maps(network, spikes[1:2, 8:16], average=False)
    assert_allclose(maps.spatial[0][6], alone.spatial[0][0], atol=1e-6)


def test_groups_divide_rows_into_trials(fitted, spikes, rows, groups):
    maps = attention_maps(fitted, spikes, average=False)
    of_rows = attention_maps(fitted, rows, groups=groups, average=False)
    assert_array_equal(of_rows.spatial[0], maps.spatial[0])
    assert_array_equal(maps.starts, np.zeros(24))
    assert_array_equal(of_rows.starts, 20 * np.arange(24))
    assert_array_equal(of_rows.trials, maps.trials)


def test_windows_of_a_recording_start_at_rows(small, rows):
    maps = attention_maps(small(window=16).fit(rows), rows[:50], average=False)
    assert_array_equal(maps.starts, [0, 8, 16, 24, 32, 34])
    assert_array_equal(maps.trials, np.zeros(6))


def test_short_trials_have_small_maps(fitted, spikes):
    maps = attention_maps(fitted, spikes[:, :7])
    assert maps.temporal[0].shape == (2, 7, 7)
    assert_allclose(maps.temporal[0].sum(-1), 1, atol=1e-6)


# ---- estimators


@pytest.mark.parametrize("average", [True, False])
def test_maps_of_an_ensemble_are_the_mean_over_members(small, perturbed, spikes, average):
    ensemble = BaggingEnsemble(small(), n_estimators=3, random_state=0).fit(spikes)
    ensemble.estimators_ = [perturbed(member, 0.1 * i) for i, member in enumerate(ensemble)]
    maps = attention_maps(ensemble, spikes, average=average)
    members = [attention_maps(member, spikes, average=average) for member in ensemble]
    mean = np.mean([member.spatial[0] for member in members], axis=0)
    assert_allclose(maps.spatial[0], mean, atol=1e-6)
    mean = np.mean([member.temporal[2].mean(-3, keepdims=True) for member in members], axis=0)
    assert_allclose(maps.temporal[2], mean, atol=1e-6)


def test_members_without_a_map_are_not_averaged(small, spikes):
    ensemble = BaggingEnsemble(small(), n_estimators=3, random_state=0).fit(spikes)
    ensemble.estimators_[1] = small(attention="temporal", n_layers=1).fit(spikes)
    maps = attention_maps(ensemble, spikes)
    first, _, third = (attention_maps(member, spikes) for member in ensemble)
    assert_allclose(maps.spatial[0], (first.spatial[0] + third.spatial[0]) / 2, atol=1e-6)
    assert len(maps.temporal) == 3
    heads = (first.temporal[2].mean(0) + third.temporal[2].mean(0)) / 2
    assert_allclose(maps.temporal[2][0], heads, atol=1e-6)
    last = attention_maps(ensemble, spikes, layer=2)
    assert_allclose(last.temporal[0], maps.temporal[2], atol=1e-6)


def test_members_with_different_windows_are_refused(small, spikes):
    ensemble = BaggingEnsemble(small(), n_estimators=2, random_state=0).fit(spikes)
    ensemble.estimators_[1] = small(window=10).fit(spikes)
    with pytest.raises(ValueError, match=r"windows of \[10, 20\] bins.*one of the members"):
        attention_maps(ensemble, spikes)


def test_maps_of_a_search_are_those_of_its_network(small, spikes, reaches):
    pipeline = make_pipeline(small(), BinwiseRegressor(Ridge()))
    search = GridSearchCV(pipeline, {"stndtestimator__n_layers": [1]}, cv=2)
    search.fit(spikes, reaches.velocity)
    maps = attention_maps(search, spikes)
    network = search.best_estimator_[0]
    assert_array_equal(maps.spatial[0], attention_maps(network, spikes).spatial[0])


def test_names_of_neurons_are_checked(small, rows):
    pandas = pytest.importorskip("pandas")
    names = [f"unit {i}" for i in range(12)]
    table = pandas.DataFrame(rows, columns=names)
    network = small().fit(table)
    maps = attention_maps(network, table)
    assert_array_equal(maps.spatial[0], attention_maps(small().fit(rows), rows).spatial[0])
    with pytest.raises(ValueError, match="feature names"):
        attention_maps(network, table[names[::-1]])


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (Ridge(), "got Ridge"),
        (
            make_pipeline(FunctionTransformer(), Ridge()),
            "got Pipeline of FunctionTransformer, Ridge",
        ),
    ],
)
def test_estimators_without_a_network_are_refused(estimator, message):
    with pytest.raises(TypeError, match=message):
        attention_maps(estimator, np.ones((20, 12)))


def test_an_ensemble_of_other_estimators_is_refused(spikes):
    ensemble = BaggingEnsemble(FunctionTransformer(), n_estimators=2).fit(spikes)
    with pytest.raises(TypeError, match="no member that is an STNDTEstimator"):
        attention_maps(ensemble, spikes)


def test_an_unfitted_estimator_is_refused(spikes):
    with pytest.raises(NotFittedError):
        attention_maps(STNDTEstimator(), spikes)


@pytest.mark.parametrize(
    "inspect",
    [attention_maps, lambda network, X: neuron_importance(network, X, "gradient")],
    ids=["maps", "gradients"],
)
def test_inspection_computes_in_the_precision_of_the_network(small, spikes, inspect):
    network = small(max_epochs=1, precision="bfloat16").fit(spikes)
    used = []
    network.net_.module_.norm.register_forward_hook(
        lambda *_: used.append(torch.get_float32_matmul_precision())
    )
    inspect(network, spikes)
    assert used
    assert set(used) == {"medium"}
