"""Groups of trials in cross-validation: they define folds and do not influence rates."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn import config_context
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_stndt import BaggingEnsemble, BinwiseRegressor
from sklearn_stndt._rates import infer_rates
from sklearn_stndt.inspection import attention_maps, neuron_importance
from sklearn_stndt.metrics import co_smoothing_scorer, velocity_scorer

RECORDING_SESSIONS = np.repeat(["monday", "tuesday", "friday"], 8)  # of each of 24 trials


@pytest.fixture(scope="module")
def estimators(small):
    network = small(max_epochs=1)
    return {
        "network": network,
        "pipeline": make_pipeline(network, BinwiseRegressor(Ridge())),
        "a step before": make_pipeline(FunctionTransformer(), network, BinwiseRegressor(Ridge())),
        "ensemble": BaggingEnsemble(network, n_estimators=2, random_state=0),
        "ensemble of pipelines": BaggingEnsemble(
            make_pipeline(FunctionTransformer(), network), n_estimators=2, random_state=0
        ),
    }


NAMES = ["network", "pipeline", "a step before", "ensemble", "ensemble of pipelines"]


@pytest.fixture(autouse=True)
def routing():
    with config_context(enable_metadata_routing=True):
        yield


@pytest.mark.parametrize("name", NAMES)
def test_trials_of_a_session_stay_together(estimators, spikes, reaches, name):
    estimator, cv = estimators[name], GroupKFold(3)
    y = reaches.velocity if hasattr(estimator, "predict") else None
    by_params = cross_val_score(
        estimator,
        spikes,
        y,
        cv=cv,
        params={"groups": RECORDING_SESSIONS},
        error_score="raise",
    )
    folds = list(cv.split(spikes, groups=RECORDING_SESSIONS))
    without = cross_val_score(estimator, spikes, y, cv=folds, error_score="raise")
    assert_array_equal(by_params, without)


@pytest.mark.parametrize("name", ["network", "pipeline", "ensemble"])
def test_searches_accept_groups(estimators, spikes, reaches, name):
    grid = {
        "network": {"n_layers": [1, 2]},
        "pipeline": {"stndtestimator__n_layers": [1, 2]},
        "ensemble": {"estimator__n_layers": [1, 2]},
    }[name]
    y = reaches.velocity if name == "pipeline" else None
    search = GridSearchCV(estimators[name], grid, cv=GroupKFold(3), error_score="raise")
    search.fit(spikes, y, groups=RECORDING_SESSIONS)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize(
    "scorer", [co_smoothing_scorer([1, 2], check=False), velocity_scorer()], ids=["co", "velocity"]
)
@pytest.mark.parametrize("name", ["network", "pipeline", "ensemble of pipelines"])
def test_scorers_accept_groups(estimators, spikes, reaches, scorer, name):
    scores = cross_val_score(
        estimators[name],
        spikes,
        reaches.velocity,
        scoring=scorer,
        cv=GroupKFold(3),
        params={"groups": RECORDING_SESSIONS},
        error_score="raise",
    )
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", ["network", "ensemble", "ensemble of pipelines"])
def test_groups_do_not_influence_rates_and_scores(estimators, spikes, name):
    plain = estimators[name].fit(spikes)
    rates, score = plain.transform(spikes), plain.score(spikes)
    fitted = estimators[name].fit(spikes, groups=RECORDING_SESSIONS)
    assert_array_equal(fitted.transform(spikes, groups=RECORDING_SESSIONS), rates)
    assert fitted.score(spikes, groups=RECORDING_SESSIONS) == score
    assert_array_equal(infer_rates(fitted, spikes, RECORDING_SESSIONS), rates)
    if name != "network":
        assert fitted.rate_std(spikes, groups=RECORDING_SESSIONS).shape == rates.shape


def test_inspection_accepts_groups(fitted, spikes):
    assert_array_equal(
        attention_maps(fitted, spikes, groups=RECORDING_SESSIONS).spatial[0],
        attention_maps(fitted, spikes).spatial[0],
    )
    assert_array_equal(
        neuron_importance(fitted, spikes, groups=RECORDING_SESSIONS),
        neuron_importance(fitted, spikes),
    )
