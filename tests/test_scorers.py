"""Scorers in cross-validation, search and pipelines."""

import pickle

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_stndt import BinwiseClassifier, BinwiseRegressor
from sklearn_stndt.metrics import co_bps, co_smoothing_scorer, velocity_scorer

NEURONS = [10, 11]


def hidden(spikes):
    counts = spikes.copy()
    counts[..., NEURONS] = np.nan
    return counts


def test_the_scorer_is_co_bps_of_neurons_that_it_hides(fitted, spikes, rows):
    scorer = co_smoothing_scorer(NEURONS)
    for X in (spikes, rows):
        expected = co_bps(X, fitted.transform(hidden(X)), NEURONS)
        assert scorer(fitted, X) == expected
        assert scorer(fitted, X.astype(int)) == expected


def test_hidden_counts_cannot_be_copied(spikes):
    with pytest.raises(ValueError, match="NaN or infinite"):
        co_smoothing_scorer(NEURONS)(FunctionTransformer().fit(spikes), spikes)


def test_scorers_do_not_change_the_data(fitted, spikes, reaches):
    before = spikes.tobytes()
    co_smoothing_scorer(NEURONS)(fitted, spikes)
    velocity_scorer(neurons=NEURONS)(fitted, spikes, reaches.velocity)
    assert spikes.tobytes() == before


@pytest.mark.parametrize("scorer", [co_smoothing_scorer(NEURONS), velocity_scorer(lag=2)])
def test_scorers_can_be_pickled_and_show_their_parameters(fitted, spikes, reaches, scorer):
    copy = pickle.loads(pickle.dumps(scorer))
    assert copy(fitted, spikes, reaches.velocity) == scorer(fitted, spikes, reaches.velocity)
    assert repr(copy) == repr(scorer)
    assert "10, 11" in repr(scorer) or "lag=2" in repr(scorer)


def test_search_with_both_scorers_over_trials(small, spikes, reaches):
    pipeline = make_pipeline(small(max_epochs=1), BinwiseRegressor(Ridge()))
    search = GridSearchCV(
        pipeline,
        {"binwiseregressor__lag": [0, 2]},
        scoring={"co_bps": co_smoothing_scorer(NEURONS), "velocity": velocity_scorer()},
        refit="velocity",
        cv=2,
    ).fit(spikes, reaches.velocity)
    results = search.cv_results_
    assert np.isfinite(results["mean_test_velocity"]).all()
    # co-bps does not depend on the lag of the decoder
    assert results["mean_test_co_bps"][0] == results["mean_test_co_bps"][1]
    assert results["mean_test_velocity"][0] != results["mean_test_velocity"][1]


def test_the_better_network_has_the_better_score(small, spikes):
    search = GridSearchCV(
        small(early_stopping=False),
        {"max_epochs": [1, 60]},
        scoring=co_smoothing_scorer(NEURONS),
        cv=2,
    ).fit(spikes)
    assert search.best_params_ == {"max_epochs": 60}


def test_cross_validation_over_rows_scores_the_test_rows(small, rows, reaches):
    velocity, network = reaches.velocity.reshape(-1, 2), small(window=20)
    scorers = {"co_bps": co_smoothing_scorer(NEURONS), "velocity": velocity_scorer()}
    scores = cross_validate(network, rows, velocity, scoring=scorers, cv=3)
    for fold, (train, test) in enumerate(KFold(3).split(rows)):
        fitted = clone(network).fit(rows[train])
        expected = co_bps(rows[test], fitted.transform(hidden(rows[test])), NEURONS)
        assert scores["test_co_bps"][fold] == expected
        decoder = GridSearchCV(Ridge(), {"alpha": np.logspace(-4, 0, 9)}, cv=5)
        rates = fitted.transform(rows[test])
        decoded = cross_val_predict(decoder, rates, velocity[test], cv=KFold(5))
        assert scores["test_velocity"][fold] == pytest.approx(r2_score(velocity[test], decoded))


def test_groups_reach_transform_with_metadata_routing(small, rows, groups):
    with config_context(enable_metadata_routing=True):
        routed, plain = (
            cross_val_score(
                small(window=20).set_fit_request(groups=True),
                rows,
                scoring=co_smoothing_scorer(NEURONS),
                params=params,
                cv=2,
                error_score="raise",
            )
            for params in ({"groups": groups}, {})
        )
    assert np.isfinite(routed).all()
    assert (routed != plain).all()


def test_predictions_are_scored_where_behaviour_is_known(spikes, reaches):
    decoder = BinwiseRegressor(Ridge()).fit(spikes, reaches.velocity)
    velocity = reaches.velocity.copy()
    velocity[:5] = np.nan
    velocity[5, :3, 0] = np.nan
    known = ~np.isnan(velocity).any(axis=-1)
    expected = r2_score(velocity[known], decoder.predict(spikes)[known])
    assert velocity_scorer()(decoder, spikes, velocity) == pytest.approx(expected)
    one = BinwiseRegressor(Ridge()).fit(spikes, reaches.velocity[..., 0])
    assert velocity_scorer()(one, spikes, reaches.velocity[..., 0]) == pytest.approx(
        one.score(spikes, reaches.velocity[..., 0])
    )


def test_neurons_are_hidden_from_the_decoder_too(network, spikes, reaches):
    pipeline = make_pipeline(network, BinwiseRegressor(Ridge()))
    pipeline[-1].fit(network.transform(spikes), reaches.velocity)
    assert velocity_scorer(neurons=NEURONS)(
        pipeline, spikes, reaches.velocity
    ) == velocity_scorer()(pipeline, hidden(spikes), reaches.velocity)


def test_rates_are_decoded_from_other_trials(spikes, reaches):
    identity = FunctionTransformer().fit(spikes)
    score = velocity_scorer(lag=2)(identity, spikes, reaches.velocity)
    assert 0.1 < score < 0.9
    # a decoder that was trained on the same trials would recognise them
    labels = np.zeros((24, 20, 24))
    labels[np.arange(24), :, np.arange(24)] = 1
    of_trial = np.repeat(np.random.default_rng(0).normal(size=(24, 1, 1)), 20, axis=1)
    assert velocity_scorer()(identity, labels, of_trial) < 0.1


@pytest.mark.parametrize(
    "estimator",
    [
        BinwiseClassifier(),
        make_pipeline(FunctionTransformer(), BinwiseClassifier()),
        GridSearchCV(BinwiseClassifier(), {"lag": [0]}),
        LogisticRegression(),
        KMeans(),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_classifiers_are_refused_by_the_velocity_scorer(spikes, estimator):
    message = f"velocity_scorer compares numbers, but {type(estimator).__name__} is of type"
    with pytest.raises(TypeError, match=message):
        velocity_scorer()(estimator, spikes, np.arange(24) % 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f, s, v: co_smoothing_scorer(NEURONS)(Ridge(), s), TypeError, "has no transform"),
        (lambda f, s, v: co_smoothing_scorer([12])(f, s), ValueError, "between 0 and 11"),
        (lambda f, s, v: co_smoothing_scorer(NEURONS)(f, s[None]), ValueError, "n_trials, n_bins"),
        (lambda f, s, v: velocity_scorer()(f, s, v[:, :19]), ValueError, "behaviour of each bin"),
        (lambda f, s, v: velocity_scorer()(f, s[:1], v[:1]), ValueError, "1 trial to score"),
        (
            lambda f, s, v: velocity_scorer(lag=2)(BinwiseRegressor().fit(s, v), s, v),
            ValueError,
            "lag of the decoder",
        ),
        (
            lambda f, s, v: velocity_scorer()(BinwiseRegressor().fit(s, v), s, v[..., 0]),
            ValueError,
            "y has shape",
        ),
    ],
)
def test_misuse_raises_an_error(fitted, spikes, reaches, call, error, message):
    with pytest.raises(error, match=message):
        call(fitted, spikes, reaches.velocity)
