"""The part of an estimator that infers rates."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_stndt import BaggingEnsemble, BinwiseRegressor, STNDTEstimator
from sklearn_stndt._rates import infer_rates, rate_estimator
from sklearn_stndt.inspection import attention_maps, neuron_dropping_curve, neuron_importance
from sklearn_stndt.metrics import co_bps, co_smoothing_scorer

NEURONS = [2, 7]


class Doubled(TransformerMixin, BaseEstimator):
    """A step before the network that changes the counts."""

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return 2 * np.asarray(X)


def log():
    return FunctionTransformer(np.log)


def search(estimator, name, values, X, y):
    return GridSearchCV(estimator, {name: values}, cv=2).fit(X, y)


@pytest.fixture(scope="module")
def estimators(small, spikes, reaches):
    """Estimators that contain a network, or an ensemble, that infers rates."""
    network = small(max_epochs=1)
    velocity = reaches.velocity
    decoder = make_pipeline(network, log(), BinwiseRegressor(Ridge()))
    return {
        "pipeline": make_pipeline(network, BinwiseRegressor(Ridge())).fit(spikes, velocity),
        "logarithm": decoder.fit(spikes, velocity),
        "no decoder": make_pipeline(network, log()).fit(spikes),
        "nested": make_pipeline(
            make_pipeline(network, log()), "passthrough", BinwiseRegressor(Ridge())
        ).fit(spikes, velocity),
        "search": search(decoder, "binwiseregressor__lag", [0, 1], spikes, velocity),
        "search inside": make_pipeline(
            GridSearchCV(small(max_epochs=1), {"n_layers": [1, 2]}, cv=2), log()
        ).fit(spikes),
        "frozen": FrozenEstimator(make_pipeline(small(max_epochs=1), log()).fit(spikes)),
        "ensemble": make_pipeline(
            BaggingEnsemble(make_pipeline(network, log()), n_estimators=2, random_state=0), log()
        ).fit(spikes),
        "a step before": make_pipeline(Doubled(), network, log()).fit(spikes),
    }


NAMES = [
    "pipeline",
    "logarithm",
    "no decoder",
    "nested",
    "search",
    "search inside",
    "frozen",
    "ensemble",
    "a step before",
]


@pytest.mark.parametrize("name", NAMES)
def test_rates_are_those_of_the_step_that_infers_them(estimators, spikes, name):
    estimator = estimators[name]
    before, source = rate_estimator(estimator)
    assert isinstance(source, STNDTEstimator | BaggingEnsemble)
    counts = 2 * spikes if name == "a step before" else spikes
    assert len(before) == (name == "a step before")
    rates = infer_rates(estimator, spikes)
    assert_array_equal(rates, source.transform(counts))
    assert (rates > 0).all()
    with config_context(transform_output="pandas"):
        assert type(infer_rates(estimator, spikes)) is np.ndarray


@pytest.mark.parametrize("name", NAMES)
def test_the_scorer_scores_rates(estimators, spikes, name):
    hidden = spikes.copy()
    hidden[..., NEURONS] = np.nan
    expected = co_bps(spikes, infer_rates(estimators[name], hidden), NEURONS, check=False)
    assert co_smoothing_scorer(NEURONS, check=False)(estimators[name], spikes) == expected


@pytest.mark.parametrize("name", NAMES)
def test_displays_draw_rates(estimators, spikes, reaches, name):
    plt = pytest.importorskip("matplotlib.pyplot")
    from sklearn_stndt.plotting import PSTHDisplay, RatesDisplay

    rates = infer_rates(estimators[name], spikes)
    display = RatesDisplay.from_estimator(estimators[name], spikes, trial=3)
    assert_array_equal(display.rates, rates[3])
    psths = PSTHDisplay.from_estimator(estimators[name], spikes, reaches.conditions)
    first = np.unique(reaches.conditions)[0]
    np.testing.assert_allclose(psths.mean_rates[0], rates[reaches.conditions == first].mean(0))
    plt.close("all")


@pytest.mark.parametrize("name", ["logarithm", "search", "ensemble", "a step before"])
def test_inspection_uses_the_network_that_infers_rates(estimators, spikes, name):
    _, source = rate_estimator(estimators[name])
    counts = 2 * spikes if name == "a step before" else spikes
    ours, theirs = attention_maps(estimators[name], spikes), attention_maps(source, counts)
    assert_array_equal(ours.spatial[0], theirs.spatial[0])
    assert_array_equal(
        neuron_importance(estimators[name], spikes), neuron_importance(source, counts)
    )
    options = {"n_dropped": [2], "n_random": 2, "random_state": 0, "scored_neurons": NEURONS}
    ours, theirs = (
        neuron_dropping_curve(one, X, **options)
        for one, X in ((estimators[name], spikes), (source, counts))
    )
    assert_array_equal(ours.scores["bits_per_spike"], theirs.scores["bits_per_spike"])


def test_members_of_an_ensemble_are_averaged_as_rates(small, spikes):
    plain = BaggingEnsemble(small(), n_estimators=2, n_best=1, random_state=0).fit(spikes)
    logs = make_pipeline(small(), log())
    of_logs = BaggingEnsemble(logs, n_estimators=2, n_best=1, random_state=0).fit(spikes)
    for ensemble in (plain, of_logs):
        rates = [infer_rates(member, spikes) for member in ensemble.estimators_]
        assert_array_equal(ensemble.transform(spikes), rates[ensemble.selected_[0]])
    assert np.isfinite(of_logs.scores_).all()
    assert (of_logs.scores_ > -1).all()


def test_rates_of_a_target_transformer_are_those_of_its_regressor(small, rows, reaches):
    pipeline = make_pipeline(small(window=20), Ridge())
    regressor = TransformedTargetRegressor(pipeline).fit(rows, reaches.velocity.reshape(-1, 2))
    assert_array_equal(infer_rates(regressor, rows), regressor.regressor_[0].transform(rows))


def test_groups_reach_the_step_that_infers_rates(small, rows, groups):
    pipeline = make_pipeline(Doubled(), small(window=20), log()).fit(rows)
    with_groups = infer_rates(pipeline, rows, groups)
    assert_array_equal(with_groups, pipeline[1].transform(2 * rows, groups=groups))
    assert not np.array_equal(with_groups, infer_rates(pipeline, rows))


def test_output_of_other_transformers_is_rates(spikes, reaches):
    smooth = FunctionTransformer(np.sqrt).fit(spikes)
    decoder = Pipeline([("rates", smooth), ("decode", BinwiseRegressor(Ridge()))])
    decoder.fit(spikes, reaches.velocity)
    for estimator in (smooth, decoder, FrozenEstimator(decoder)):
        assert_array_equal(infer_rates(estimator, spikes), np.sqrt(spikes))


@pytest.mark.parametrize("estimator", [Ridge(), make_pipeline(Ridge())])
def test_estimators_without_rates_are_refused(estimator, spikes):
    with pytest.raises(TypeError, match="has no transform, so it infers no rates"):
        infer_rates(estimator, spikes)


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        (make_pipeline(STNDTEstimator(), Ridge()), "STNDTEstimator"),
        (GridSearchCV(STNDTEstimator(), {"n_layers": [1]}), "GridSearchCV"),
    ],
)
def test_an_estimator_that_is_not_fitted_is_named(estimator, name):
    with pytest.raises(NotFittedError, match=name):
        rate_estimator(estimator)
