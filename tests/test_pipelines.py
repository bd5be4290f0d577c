"""The estimators in pipelines, cross-validation and searches of scikit-learn."""

import io

import joblib
import numpy as np
import pytest
import sklearn
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from subprocesses import joblib_processes

from sklearn_stndt import (
    BaggingEnsemble,
    BinwiseClassifier,
    BinwiseRegressor,
    STNDTEstimator,
)
from sklearn_stndt.inspection import neuron_dropping_curve


@pytest.fixture(scope="module")
def pipelines(small, reaches, spikes):
    """Pipelines with their data: name -> (pipeline, X, y)."""
    velocity = reaches.velocity
    recording = spikes.reshape(-1, 12), velocity.reshape(-1, 2)
    return {
        "a recording": (make_pipeline(small(window=20), Ridge(0.01)), *recording),
        "trials": (make_pipeline(small(), BinwiseRegressor(Ridge(0.01))), spikes, velocity),
    }


@pytest.fixture(params=["a recording", "trials"])
def case(request, pipelines):
    return pipelines[request.param]


@pytest.fixture
def n_fits(monkeypatch):
    """List of the number of trials or rows in each fit of an STNDTEstimator."""
    fits, fit = [], STNDTEstimator.fit

    def counting_fit(self, X, *args, **kwargs):
        fits.append(len(X))
        return fit(self, X, *args, **kwargs)

    monkeypatch.setattr(STNDTEstimator, "fit", counting_fit)
    return fits


def test_predictions_have_the_shape_of_the_behaviour(case):
    pipeline, X, y = case
    fitted = clone(pipeline).set_params(stndtestimator__max_epochs=60).fit(X, y)
    assert fitted.predict(X).shape == y.shape
    assert fitted.score(X, y) > 0.2  # its own training data
    assert cross_val_predict(pipeline, X, y, cv=KFold(3)).shape == y.shape


def test_a_pipeline_equals_its_steps_one_after_the_other(case):
    pipeline, X, y = case
    rates = clone(pipeline[0]).fit_transform(X)
    prediction = clone(pipeline[1]).fit(rates, y).predict(rates)
    assert_array_equal(clone(pipeline).fit(X, y).predict(X), prediction)


@pytest.fixture(scope="module")
def two_processes():
    with joblib_processes():
        yield


@pytest.mark.usefixtures("two_processes")
def test_cross_validation_does_not_depend_on_the_number_of_jobs(case):
    pipeline, X, y = case
    scores = cross_val_score(pipeline, X, y, cv=3)
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()
    assert_array_equal(cross_val_score(pipeline, X, y, cv=3, n_jobs=2), scores)
    with joblib.parallel_config("threading", n_jobs=2):
        assert_array_equal(cross_val_score(pipeline, X, y, cv=3), scores)


def test_folds_are_trials(pipelines, n_fits):
    pipeline, X, y = pipelines["trials"]
    result = cross_validate(pipeline, X, y, cv=4, return_indices=True)
    tested = np.concatenate(result["indices"]["test"])
    assert_array_equal(np.sort(tested), np.arange(len(X)))
    assert n_fits == [18, 18, 18, 18]


@pytest.mark.usefixtures("two_processes")
def test_search_over_parameters_of_both_steps(case):
    pipeline, X, y = case
    decoder = pipeline.steps[1][0]
    alpha = "ridge__alpha" if decoder == "ridge" else "binwiseregressor__estimator__alpha"
    grid = {"stndtestimator__d_model": [6, 8], alpha: [0.1, 1e6]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2, error_score="raise").fit(X, y)
    assert search.best_params_.keys() == grid.keys()
    assert search.predict(X).shape == y.shape
    serial = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    scores = serial.cv_results_["mean_test_score"]
    assert_array_equal(search.cv_results_["mean_test_score"], scores)
    assert len(set(scores)) == 4


def test_search_over_the_transformer_by_its_own_score(small, spikes):
    search = GridSearchCV(small(), {"attention": ["temporal", "spatiotemporal"]}, cv=3)
    search.fit(spikes)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.transform(spikes).shape == spikes.shape


def test_memory_trains_the_network_once_per_fold(case, n_fits, tmp_path):
    pipeline, X, y = case
    decoder = pipeline.steps[1][0]
    alpha = "ridge__alpha" if decoder == "ridge" else "binwiseregressor__estimator__alpha"
    grid = {alpha: [0.1, 1.0, 10.0]}
    plain = GridSearchCV(pipeline, grid, cv=3).fit(X, y)
    assert len(n_fits) == 10
    n_fits.clear()
    cached = clone(pipeline).set_params(memory=str(tmp_path))
    search = GridSearchCV(cached, grid, cv=3).fit(X, y)
    assert len(n_fits) == 4
    scores = plain.cv_results_["mean_test_score"]
    assert_array_equal(search.cv_results_["mean_test_score"], scores)


def test_a_saved_pipeline_gives_identical_predictions(case):
    pipeline, X, y = case
    fitted = clone(pipeline).fit(X, y)
    file = io.BytesIO()
    joblib.dump(fitted, file)
    file.seek(0)
    assert_array_equal(joblib.load(file).predict(X), fitted.predict(X))


def test_an_ensemble_works_in_a_pipeline(small, pipelines):
    _, X, y = pipelines["trials"]
    ensemble = BaggingEnsemble(small(), n_estimators=2, random_state=0)
    pipeline = make_pipeline(ensemble, BinwiseRegressor(Ridge()))
    assert np.isfinite(cross_val_score(pipeline, X, y, cv=2)).all()
    grid = {"baggingensemble__estimator__d_model": [4, 8]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    assert search.predict(X).shape == y.shape


def test_the_stimulus_of_a_trial_is_decoded(small, reaches, spikes):
    labels = np.where(reaches.conditions < 4, "upper", "lower")
    pipeline = make_pipeline(small(max_epochs=30), BinwiseClassifier(LogisticRegression()))
    late = spikes[:, 8:]
    scores = cross_val_score(pipeline, late, labels, cv=3, error_score="raise")
    assert scores.mean() > 0.6
    proba = cross_val_predict(pipeline, late, labels, cv=3, method="predict_proba")
    assert proba.shape == (*late.shape[:2], 2)
    grid = {"binwiseclassifier__estimator__C": [0.01, 1.0], "stndtestimator__d_model": [4]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(late, labels)
    assert search.predict(late).shape == late.shape[:2]
    curve = neuron_dropping_curve(search.best_estimator_, late, labels, n_random=2, n_steps=1)
    assert curve.scores["score"][0] == search.best_estimator_.score(late, labels)


# ---- trials of unequal length as rows with groups


@pytest.fixture(scope="module")
def unequal_trials(reaches, spikes):
    """Rows, their velocity, and the trial of each of them."""
    lengths = 12 + np.arange(24) % 9
    kept = np.arange(20) < lengths[:, None]  # (trials, bins)
    return spikes[kept], reaches.velocity[kept], np.nonzero(kept)[0]


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("transformer", ["one network", "an ensemble"])
def test_groups_are_routed_through_a_pipeline(small, unequal_trials, transformer):
    X, y, groups = unequal_trials
    step = small(window=20)
    if transformer == "an ensemble":
        step = BaggingEnsemble(step, n_estimators=2, random_state=0)
    pipeline = make_pipeline(step, Ridge()).fit(X, y, groups=groups)
    rates = clone(step).fit(X, groups=groups).transform(X, groups=groups)
    ridge = Ridge().fit(rates, y)
    assert_array_equal(pipeline.predict(X, groups=groups), ridge.predict(rates))
    assert pipeline.score(X, y, groups=groups) == ridge.score(rates, y)
    assert not np.array_equal(pipeline.predict(X), ridge.predict(rates))  # groups matter


@pytest.mark.usefixtures("routing")
def test_groups_are_routed_through_cross_validation(small, unequal_trials):
    X, y, groups = unequal_trials
    pipeline = make_pipeline(small(window=20), Ridge())
    result = cross_validate(
        pipeline,
        X,
        y,
        cv=GroupKFold(3),
        params={"groups": groups},
        return_estimator=True,
        return_indices=True,
        error_score="raise",
    )
    for fitted, train, test in zip(result["estimator"], *result["indices"].values(), strict=True):
        assert not set(groups[train]) & set(groups[test])
        alone = clone(pipeline).fit(X[train], y[train], groups=groups[train])
        expected = alone.predict(X[test], groups=groups[test])
        assert_array_equal(fitted.predict(X[test], groups=groups[test]), expected)
    scores = cross_val_score(pipeline, X, y, cv=GroupKFold(3), params={"groups": groups})
    assert_array_equal(scores, result["test_score"])
    assert np.isfinite(scores).all()


@pytest.mark.usefixtures("routing")
def test_groups_are_routed_through_a_search(small, unequal_trials):
    X, y, groups = unequal_trials
    pipeline = make_pipeline(small(window=20), Ridge())
    search = GridSearchCV(pipeline, {"ridge__alpha": [0.1, 1e6]}, cv=GroupKFold(3))
    search.fit(X, y, groups=groups)
    alone = clone(search.best_estimator_).fit(X, y, groups=groups)
    assert_array_equal(search.predict(X), alone.predict(X))


def test_without_routing_groups_are_passed_by_the_name_of_the_step(small, unequal_trials):
    X, y, groups = unequal_trials
    pipeline = make_pipeline(small(window=20), Ridge())
    pipeline.fit(X, y, stndtestimator__groups=groups)
    alone = small(window=20).fit(X, groups=groups)
    assert_array_equal(pipeline[0].transform(X), alone.transform(X))
