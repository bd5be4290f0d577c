"""Neuron dropping curves: scores of the same neurons while more and more others are hidden."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from sklearn_stndt import BaggingEnsemble, BinwiseRegressor
from sklearn_stndt._scoring import entry_folds
from sklearn_stndt.inspection import neuron_dropping_curve, neuron_importance
from sklearn_stndt.metrics import bits_per_spike, velocity_scorer

HELDOUT = [1, 5, 9]


@pytest.fixture(scope="module")
def heldout(small, perturbed, spikes):
    """A network with held-out neurons, with noise added to all weights."""
    return perturbed(small(heldout_neurons=HELDOUT).fit(spikes), 0.1)


@pytest.fixture(scope="module")
def curve(heldout, spikes):
    return neuron_dropping_curve(heldout, spikes, n_steps=3, n_random=4, random_state=0)


def hide(spikes, neurons):
    counts = spikes.copy()
    counts[..., neurons] = np.nan
    return counts


def test_curve_hides_the_most_important_neurons_first(heldout, spikes, curve):
    importance = neuron_importance(heldout, spikes)
    assert_array_equal(curve.importances, importance)
    assert_array_equal(curve.order, np.argsort(-importance)[:9])
    assert_array_equal(curve.n_dropped, [0, 2, 3, 5])
    assert_array_equal(curve.scored_neurons, HELDOUT)
    for k, score in zip(curve.n_dropped, curve.scores["bits_per_spike"], strict=True):
        rates = heldout.transform(hide(spikes, curve.order[:k]))
        expected = bits_per_spike(spikes[..., HELDOUT], rates[..., HELDOUT])
        assert score == pytest.approx(expected, abs=1e-7)


def test_random_curves_hide_random_neurons(heldout, spikes, curve):
    assert curve.random_orders.shape == (4, 9)
    for order, scores in zip(
        curve.random_orders, curve.random_scores["bits_per_spike"], strict=True
    ):
        assert_array_equal(np.sort(order), np.setdiff1d(np.arange(12), HELDOUT))
        rates = heldout.transform(hide(spikes, order[:5]))
        expected = bits_per_spike(spikes[..., HELDOUT], rates[..., HELDOUT])
        assert scores[3] == pytest.approx(expected, abs=1e-7)
    assert len({tuple(order) for order in curve.random_orders}) == 4


def test_random_curves_have_a_mean_and_two_standard_errors(curve):
    scores = curve.random_scores["bits_per_spike"]
    assert_allclose(curve.random_mean["bits_per_spike"], scores.mean(0))
    assert_allclose(curve.random_2se["bits_per_spike"], 2 * scores.std(0, ddof=1) / 2)
    assert curve.random_2se["bits_per_spike"][0] == 0
    assert (curve.random_2se["bits_per_spike"][1:] > 0).all()


def test_at_least_one_neuron_stays_visible(small, spikes):
    network = small(heldout_neurons=HELDOUT).fit(spikes)
    curve = neuron_dropping_curve(
        network, spikes, n_dropped=[8], ranking=-np.arange(12.0), n_random=2, random_state=0
    )
    assert_array_equal(curve.order, np.setdiff1d(np.arange(12), HELDOUT))
    assert_array_equal(curve.n_dropped, [0, 8])
    with pytest.raises(ValueError, match=r"between 0 and 8, because 9 neurons may be.*0 to 9"):
        neuron_dropping_curve(network, spikes, n_dropped=[0, 9])


def test_the_table_makes_a_data_frame(curve):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(curve.table)
    assert list(table.n_dropped) == [0, 2, 3, 5]
    assert set(table.scorer) == {"bits_per_spike"}
    assert_array_equal(table.important, curve.scores["bits_per_spike"])
    assert_array_equal(table.random_mean, curve.random_mean["bits_per_spike"])
    assert_array_equal(table.random_2se, curve.random_2se["bits_per_spike"])


def test_without_heldout_neurons_some_are_chosen_to_be_scored(perturbed, fitted, spikes):
    network = perturbed(fitted, 0.1)
    curve = neuron_dropping_curve(network, spikes, n_steps=1, n_random=2, random_state=0)
    assert len(curve.scored_neurons) == 3
    assert not set(curve.scored_neurons) & set(curve.order)
    assert np.isnan(curve.importances[curve.scored_neurons]).all()
    # each entry of them is scored while it is hidden and the others are visible
    folds = entry_folds(spikes.shape)
    counts = hide(spikes, curve.order[: curve.n_dropped[1]])
    rates = np.empty(spikes.shape)
    scored = np.isin(np.arange(12), curve.scored_neurons)
    for fold in range(5):
        hidden = (folds == fold) & scored
        rates[hidden] = network.transform(np.where(hidden, np.nan, counts))[hidden]
    expected = bits_per_spike(spikes[..., scored], rates[..., scored])
    assert curve.scores["bits_per_spike"][1] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("wanted", "number"), [(2, 2), (0.5, 6), ([3, -1], 2), (np.arange(12) < 4, 4)]
)
def test_scored_neurons_can_be_chosen(fitted, spikes, wanted, number):
    curve = neuron_dropping_curve(
        fitted, spikes, n_steps=1, n_random=2, scored_neurons=wanted, random_state=0
    )
    assert len(curve.scored_neurons) == number
    assert len(curve.order) == 12 - number
    if number == 2 and wanted != 2:
        assert_array_equal(curve.scored_neurons, [3, 11])


def test_a_second_estimator_can_use_the_ranking_of_the_first(small, spikes, curve):
    ndt = small(attention="temporal", heldout_neurons=HELDOUT).fit(spikes)
    control = neuron_dropping_curve(ndt, spikes, ranking=curve)
    for name in ("n_dropped", "order", "random_orders", "scored_neurons", "importances"):
        assert_array_equal(control[name], curve[name])
    rates = ndt.transform(hide(spikes, curve.order[:5]))[..., HELDOUT]
    expected = bits_per_spike(spikes[..., HELDOUT], rates)
    assert control.scores["bits_per_spike"][3] == pytest.approx(expected, abs=1e-7)
    importances = neuron_dropping_curve(ndt, spikes, ranking=curve.importances, n_random=2)
    assert_array_equal(importances.order, curve.order)


def test_all_scorers_get_the_same_hidden_counts(small, spikes, reaches):
    pipeline = make_pipeline(small(heldout_neurons=HELDOUT), BinwiseRegressor(Ridge()))
    pipeline.fit(spikes, reaches.velocity)
    seen = []

    def share_of_nan(estimator, X, y):
        assert estimator is pipeline
        seen.append(X)
        return np.isnan(X).mean()

    scorers = {
        "hidden": share_of_nan,
        "velocity": velocity_scorer(),
        "own": "score",
        "co-bps": "bits_per_spike",
    }
    curve = neuron_dropping_curve(
        pipeline, spikes, reaches.velocity, scorers=scorers, n_dropped=[3], n_random=2
    )
    assert list(curve.scores) == list(scorers)
    assert_allclose(curve.scores["hidden"], [0, 3 / 12])
    assert_allclose(curve.random_scores["hidden"], [[0, 3 / 12]] * 2)
    hidden = hide(spikes, curve.order[:3])
    assert_array_equal(seen[1], hidden)
    assert curve.scores["own"][1] == pytest.approx(pipeline.score(hidden, reaches.velocity))
    default = neuron_dropping_curve(pipeline, spikes, reaches.velocity, n_dropped=[3], n_random=2)
    assert list(default.scores) == ["bits_per_spike", "score"]
    assert default.scores["score"][1] == curve.scores["own"][1]
    assert default.scores["bits_per_spike"][1] == curve.scores["co-bps"][1]


def test_scorers_of_scikit_learn_can_be_named(small, rows, groups, reaches):
    velocity = reaches.velocity.reshape(-1, 2)
    pipeline = make_pipeline(small(heldout_neurons=HELDOUT, window=20), Ridge())
    pipeline.fit(rows, velocity)
    curve = neuron_dropping_curve(
        pipeline, rows, velocity, scorers=["r2", "score"], n_steps=1, n_random=2
    )
    assert_allclose(curve.scores["r2"], curve.scores["score"])


def test_groups_reach_rates_and_scorers(heldout, spikes, rows, groups):
    def mean_rate(estimator, X, y, groups=None):
        return estimator.transform(X, groups=groups).mean()

    params = {"scorers": ["bits_per_spike", mean_rate], "n_steps": 1, "n_random": 2}
    of_trials = neuron_dropping_curve(heldout, spikes, random_state=0, **params)
    of_rows = neuron_dropping_curve(heldout, rows, groups=groups, random_state=0, **params)
    for name, scores in of_trials.scores.items():
        assert_allclose(of_rows.scores[name], scores, rtol=1e-6)


def test_tables_keep_the_names_of_neurons(small, rows):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(rows, columns=[f"unit {i}" for i in range(12)])
    network = small(heldout_neurons=HELDOUT, window=20).fit(table)

    def names(estimator, X, y):
        return float(X.columns[3] == "unit 3" and X.index.equals(table.index))

    curve = neuron_dropping_curve(
        network, table, scorers={"names": names, "own": "score"}, n_steps=1, n_random=2
    )
    assert (curve.scores["names"] == 1).all()
    assert curve.scores["own"][0] == pytest.approx(network.score(table))


def test_an_ensemble_is_scored_by_its_mean_rates(small, spikes):
    ensemble = BaggingEnsemble(small(heldout_neurons=HELDOUT), n_estimators=2, random_state=0)
    ensemble.fit(spikes)
    curve = neuron_dropping_curve(ensemble, spikes, n_dropped=[4], n_random=2, random_state=0)
    assert curve.scores["bits_per_spike"][0] == pytest.approx(ensemble.score(spikes), abs=1e-6)
    assert_array_equal(curve.importances, neuron_importance(ensemble, spikes))


def test_the_input_is_unchanged(heldout, spikes):
    before = spikes.copy()
    neuron_dropping_curve(heldout, spikes, n_steps=1, n_random=2)
    assert_array_equal(spikes, before)


def test_curves_can_be_repeated(fitted, spikes):
    first, again, other = (
        neuron_dropping_curve(fitted, spikes, n_steps=1, n_random=2, random_state=seed)
        for seed in (0, 0, 1)
    )
    assert_array_equal(first.random_scores["bits_per_spike"], again.random_scores["bits_per_spike"])
    assert not np.array_equal(first.scored_neurons, other.scored_neurons)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_random": 1}, "at least 2 for a standard error, got 1"),
        ({"n_steps": 0}, "n_steps must be a whole number, at least 1, got 0"),
        ({"n_dropped": 3}, "list of whole numbers, got 3"),
        ({"n_dropped": [-1, 2]}, "got -1 to 2"),
        ({"ranking": np.arange(5.0)}, r"shape \(12,\).*got shape \(5,\)"),
        ({"ranking": "size"}, "one of attention.*got 'size'"),
        ({"scorers": []}, "scorers is empty"),
        ({"scored_neurons": 12}, "would score 12 of the 12 neurons"),
        ({"scored_neurons": [12]}, "between 0 and 11"),
        ({"scored_neurons": list(range(12))}, "0 neurons may be hidden"),
    ],
)
def test_wrong_parameters_are_refused(fitted, spikes, params, message):
    with pytest.raises(ValueError, match=message):
        neuron_dropping_curve(fitted, spikes, **params)


def test_a_ranking_of_hidden_neurons_is_refused(small, spikes):
    network = small(heldout_neurons=HELDOUT).fit(spikes)
    with pytest.raises(ValueError, match=r"includes neurons \[4\], which are always hidden"):
        neuron_dropping_curve(network, hide(spikes, 4), ranking=np.arange(12.0))
