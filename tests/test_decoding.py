import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn import config_context
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin, clone
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags

from sklearn_stndt.decoding import BinwiseClassifier, BinwiseRegressor


class Mirror(RegressorMixin, BaseEstimator):
    """Keeps the arguments of fit and predicts the features of each row."""

    def fit(self, X, y, sample_weight=None):
        self.X_, self.y_, self.sample_weight_ = X, y, sample_weight
        return self

    def predict(self, X):
        return X


def naive_rows(X, lag, history, first, last):
    """Features of every bin of one trial, and whether its source bin is in the trial."""
    rows, inside = [], []
    for t in range(len(X)):
        source = t - lag
        inside.append(first <= source <= last)
        source = min(max(source, first), last)
        row = []
        for step in range(history + 1):
            row.extend(X[max(source - step, first)])
        rows.append(row)
    return rows, inside


@st.composite
def ragged_trials(draw):
    """Trials of unequal length, padded with NaN on both sides, with unknown targets."""
    n_trials, n_bins, n_features = draw(st.tuples(*[st.integers(1, n) for n in (4, 7, 3)]))
    lag = draw(st.integers(-n_bins + 1, n_bins - 1))
    history = draw(st.integers(0, n_bins + 1))
    X = np.arange(n_trials * n_bins * n_features, dtype=float)
    X = X.reshape(n_trials, n_bins, n_features)
    extents = []
    for trial in X:
        first = draw(st.integers(0, n_bins - 1))
        last = draw(st.integers(first, n_bins - 1))
        trial[:first] = np.nan
        trial[last + 1 :] = np.nan
        extents.append((first, last))
    n_targets = n_features * (history + 1)
    y = -np.arange(n_trials * n_bins * n_targets, dtype=float).reshape(n_trials, n_bins, -1)
    unknown = draw(st.lists(st.tuples(st.integers(0, n_trials - 1), st.integers(0, n_bins - 1))))
    for trial, bin_ in unknown:
        y[trial, bin_, draw(st.integers(0, n_targets - 1))] = np.nan
    return X, y, lag, history, extents


@settings(deadline=None)
@given(ragged_trials())
def test_lag_and_history_agree_with_a_loop_over_trials_and_bins(data):
    X, y, lag, history, extents = data
    fit_rows, fit_targets, predicted = [], [], []
    for trial, targets, (first, last) in zip(X, y, extents, strict=True):
        rows, inside = naive_rows(trial, lag, history, first, last)
        predicted.append(rows)
        for row, target, is_inside in zip(rows, targets, inside, strict=True):
            if is_inside and not np.isnan(target).any():
                fit_rows.append(row)
                fit_targets.append(target)

    decoder = BinwiseRegressor(Mirror(), lag=lag, history=history)
    if not fit_rows:
        with pytest.raises(ValueError, match=r"No bin is left|every bin"):
            decoder.fit(X, y)
        return
    decoder.fit(X, y)
    np.testing.assert_array_equal(decoder.estimator_.X_, fit_rows)
    np.testing.assert_array_equal(decoder.estimator_.y_, fit_targets)
    np.testing.assert_array_equal(decoder.predict(X), predicted)


def delayed_behaviour(delay, n_trials=12, n_bins=60, n_targets=2, seed=0):
    """Independent rates, and behaviour that is linear in the rates `delay` bins earlier."""
    rng = np.random.default_rng(seed)
    margin = abs(delay)
    rates = rng.gamma(2.0, size=(n_trials, n_bins + 2 * margin, 5))
    behaviour = rates @ rng.normal(size=(5, n_targets)) + 3.0
    now = slice(margin, margin + n_bins)
    then = slice(margin - delay, margin - delay + n_bins)
    return rates[:, now], behaviour[:, then]


@pytest.mark.parametrize("delay", [-4, 0, 3])
def test_the_right_lag_decodes_and_a_wrong_one_does_not(delay):
    X, y = delayed_behaviour(delay, n_bins=150)
    right = cross_val_score(BinwiseRegressor(LinearRegression(), lag=delay), X, y, cv=4)
    # The edge bins, at most 4 of 150, repeat a prediction and keep the score below 1.
    assert right.mean() > (0.999 if delay == 0 else 0.9)
    for wrong in (delay - 1, delay + 1, -delay or 5):
        decoder = BinwiseRegressor(LinearRegression(), lag=wrong)
        assert cross_val_score(decoder, X, y, cv=4).max() < 0.1


@pytest.mark.parametrize("delay", [-4, 3])
def test_bins_with_a_source_are_decoded_exactly(delay):
    X, y = delayed_behaviour(delay)
    y_pred = BinwiseRegressor(LinearRegression(), lag=delay).fit(X, y).predict(X)
    with_source = slice(delay, None) if delay > 0 else slice(None, delay)
    np.testing.assert_allclose(y_pred[:, with_source], y[:, with_source], atol=1e-9)
    first, nearest = (0, delay) if delay > 0 else (-1, delay - 1)
    np.testing.assert_array_equal(y_pred[:, first], y_pred[:, nearest])


def test_grid_search_over_trials_finds_the_lag_and_reaches_nested_parameters():
    X, y = delayed_behaviour(2)
    grid = {"lag": [0, 1, 2, 3], "estimator__alpha": [1e-6, 1e6]}
    search = GridSearchCV(BinwiseRegressor(Ridge()), grid, cv=KFold(3)).fit(X, y)
    assert search.best_params_ == {"lag": 2, "estimator__alpha": 1e-6}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_history_decodes_what_depends_on_past_bins():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(10, 50, 4))
    weights = rng.normal(size=(3, 4))
    y = sum(np.roll(X, step, axis=1) @ weights[step] for step in range(3))
    y[:, :2] = np.nan  # np.roll wraps around there
    scores = [
        cross_val_score(BinwiseRegressor(LinearRegression(), history=history), X, y, cv=5).mean()
        for history in range(3)
    ]
    assert scores[2] > 0.999
    assert scores[0] < scores[1] - 0.1


@pytest.mark.parametrize(("lag", "history"), [(0, 0), (3, 0), (-2, 2), (1, 4)])
def test_a_trial_does_not_influence_the_prediction_of_another(lag, history):
    X, y = delayed_behaviour(1, n_trials=5, n_bins=12)
    decoder = BinwiseRegressor(lag=lag, history=history).fit(X, y)
    changed = X.copy()
    changed[2] = 1e6
    before, after = decoder.predict(X), decoder.predict(changed)
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(after[others], before[others])
    assert not np.array_equal(after[2], before[2])


@pytest.mark.parametrize(("lag", "history"), [(0, 0), (2, 0), (-2, 0), (0, 3), (1, 2)])
def test_a_recording_is_treated_as_one_trial(lag, history):
    X, y = delayed_behaviour(1, n_trials=1)
    trials = BinwiseRegressor(lag=lag, history=history).fit(X, y)
    recording = clone(trials).fit(X[0], y[0])
    np.testing.assert_allclose(recording.predict(X[0]), trials.predict(X)[0], rtol=1e-12)
    assert recording.score(X[0], y[0]) == pytest.approx(trials.score(X, y), rel=1e-12)


@pytest.mark.parametrize("n_targets", [None, 1, 2])
def test_2d_data_are_passed_to_the_inner_regressor(n_targets):
    X, y = (array[0] for array in delayed_behaviour(0, n_trials=1, n_targets=n_targets or 1))
    y = y[:, 0] if n_targets is None else y
    ridge = Ridge(alpha=3.0).fit(X, y)
    decoder = BinwiseRegressor(Ridge(alpha=3.0)).fit(X, y)
    np.testing.assert_array_equal(decoder.predict(X), ridge.predict(X).reshape(y.shape))
    assert decoder.score(X, y) == ridge.score(X, y)


def test_the_inner_regressor_gets_data_frames():
    X, y = (array[0] for array in delayed_behaviour(0, n_trials=1))
    frame = pd.DataFrame(X, columns=list("abcde"))
    y = pd.DataFrame(y, columns=["x", "y"])
    y.iloc[3] = np.nan
    inner = make_pipeline(ColumnTransformer([("kept", "passthrough", ["b", "d"])]), Ridge())
    decoder = BinwiseRegressor(inner).fit(frame, y)
    assert decoder.feature_names_in_.tolist() == list("abcde")
    known = np.arange(len(X)) != 3
    expected = Ridge().fit(X[known][:, [1, 3]], y[known])
    np.testing.assert_allclose(decoder.predict(frame), expected.predict(X[:, [1, 3]]))


@pytest.mark.parametrize("shape", [(), (1,), (3,)])
@pytest.mark.parametrize("leading", [(40,), (4, 10)])
@pytest.mark.parametrize("lag", [0, 1])
def test_predictions_have_the_shape_of_the_targets(shape, leading, lag):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(*leading, 3)), rng.normal(size=leading + shape)
    decoder = BinwiseRegressor(lag=lag).fit(X, y)
    assert isinstance(decoder.estimator_, Ridge)
    assert decoder.predict(X).shape == y.shape
    assert decoder.n_features_in_ == 3


def test_a_regressor_that_needs_columns_of_targets_gets_them():
    X, y = delayed_behaviour(0, n_targets=1)
    decoder = BinwiseRegressor(MultiOutputRegressor(Ridge())).fit(X, y)
    np.testing.assert_allclose(decoder.predict(X), BinwiseRegressor(Ridge()).fit(X, y).predict(X))


@pytest.mark.parametrize("ndim", [2, 3])
def test_rates_of_bins_with_a_nan_target_do_not_matter(ndim):
    X, y = delayed_behaviour(0, n_trials=6, n_bins=10)
    unknown = np.random.default_rng(1).random(y.shape[:2]) < 0.3
    y[unknown, 0] = np.nan  # the other target of the bin is left out too
    changed_X, changed_y = X.copy(), y.copy()
    changed_X[unknown] = np.nan
    changed_y[unknown, 1] = 1e9
    arrays = X, y, changed_X, changed_y
    X, y, changed_X, changed_y = (a.reshape(60, -1) if ndim == 2 else a for a in arrays)
    original = BinwiseRegressor().fit(X, y)
    changed = BinwiseRegressor().fit(changed_X, changed_y)
    np.testing.assert_array_equal(changed.estimator_.coef_, original.estimator_.coef_)
    assert changed.score(X, changed_y) == original.score(X, y)


@pytest.mark.parametrize(("lag", "history"), [(0, 0), (2, 1), (-2, 1)])
def test_padding_does_not_change_predictions(lag, history):
    X, y = delayed_behaviour(1, n_trials=5, n_bins=12)
    lengths = [12, 7, 9, 12, 5]
    padded_X, padded_y = X.copy(), y.copy()
    for trial, length in enumerate(lengths):
        padded_X[trial, length:] = np.nan
        padded_y[trial, length:] = np.nan
    before = padded_X.tobytes(), padded_y.tobytes()
    decoder = BinwiseRegressor(lag=lag, history=history).fit(padded_X, padded_y)
    y_pred = decoder.predict(padded_X)
    for trial, length in enumerate(lengths):
        alone = decoder.predict(X[[trial], :length])[0]
        np.testing.assert_allclose(y_pred[trial, :length], alone, rtol=1e-12)
    assert np.isfinite(decoder.score(padded_X, padded_y))
    assert (padded_X.tobytes(), padded_y.tobytes()) == before


def test_score_is_r2_over_the_known_bins_of_all_trials():
    X, y = delayed_behaviour(1)
    y = y + np.random.default_rng(0).normal(size=y.shape)
    y[0, 5:9, 1] = np.nan
    y[3] = np.nan
    decoder = BinwiseRegressor(lag=1).fit(X, y)
    known = ~np.isnan(y).any(axis=-1)
    expected = r2_score(y[known], decoder.predict(X)[known], multioutput="uniform_average")
    assert decoder.score(X, y) == expected
    assert 0.5 < expected < 0.95
    two_trials = decoder.score(X, y, sample_weight=[0, 0, 0, 0, 1, 1] + [0] * 6)
    assert two_trials == pytest.approx(decoder.score(X[4:6], y[4:6]), rel=1e-12)


def test_nan_is_passed_to_a_regressor_that_accepts_it():
    X, y = delayed_behaviour(0, n_targets=1)
    y = y[..., 0]
    X[:, 5, 1] = np.nan
    decoder = BinwiseRegressor(HistGradientBoostingRegressor(max_iter=5)).fit(X, y)
    assert np.isfinite(decoder.predict(X)).all()
    with pytest.raises(ValueError, match="Ridge does not accept missing values"):
        BinwiseRegressor().fit(X, y)


@pytest.mark.parametrize("inner", [Ridge(), HistGradientBoostingRegressor()])
def test_tags_allow_2d_and_3d_and_follow_the_inner_regressor(inner):
    tags, expected = get_tags(BinwiseRegressor(inner)), get_tags(inner)
    assert tags.input_tags.three_d_array
    assert tags.input_tags.two_d_array
    assert tags.input_tags.allow_nan == expected.input_tags.allow_nan
    assert tags.target_tags.multi_output == expected.target_tags.multi_output


def test_fit_clone_and_pickle_do_not_change_the_given_regressor():
    X, y = delayed_behaviour(1)
    ridge = Ridge(alpha=7.0)
    decoder = BinwiseRegressor(ridge, lag=1, history=2).fit(X, y)
    assert decoder.estimator is ridge
    assert not hasattr(ridge, "coef_")
    copy = clone(decoder)
    assert copy.get_params()["estimator__alpha"] == 7.0
    assert copy.estimator is not ridge
    copy = pickle.loads(pickle.dumps(decoder))
    np.testing.assert_array_equal(copy.predict(X), decoder.predict(X))


class Grouped(TransformerMixin, BaseEstimator):
    """A transformer whose fit requires the groups of its rows."""

    def fit(self, X, y=None, *, groups):
        return self

    def transform(self, X, *, groups=None):
        assert groups is None or len(groups) == len(X)
        return X

    def fit_transform(self, X, y=None, *, groups):
        return self.fit(X, y, groups=groups).transform(X, groups=groups)


@pytest.mark.parametrize("ndim", [2, 3])
def test_decoders_follow_a_transformer_that_needs_groups(ndim):
    X, y = delayed_behaviour(0, n_trials=6)
    if ndim == 2:
        X, y = X.reshape(-1, X.shape[-1]), y.reshape(-1, y.shape[-1])
    groups = np.arange(len(X))
    with config_context(enable_metadata_routing=True):
        transformer = Grouped().set_fit_request(groups=True).set_transform_request(groups=True)
        pipeline = make_pipeline(transformer, BinwiseRegressor(Ridge()))
        pipeline.fit(X, y, groups=groups)
        assert pipeline.predict(X, groups=groups).shape == y.shape
        assert pipeline.score(X, y, groups=groups) > 0.99
        scores = cross_val_score(pipeline, X, y, cv=3, params={"groups": groups})
        assert scores.min() > 0.99


@pytest.mark.parametrize("shape", [(6,), (6, 10)])
def test_routed_weights_are_those_of_their_bins(shape):
    X, y = delayed_behaviour(0, n_trials=6, n_bins=10)
    y[2, 3:5] = np.nan
    weight = np.arange(1.0, np.prod(shape) + 1).reshape(shape)
    of_bin = np.broadcast_to(weight.reshape(6, -1), (6, 10))
    known = ~np.isnan(y).any(axis=-1)
    known[:, :2] = False  # no source bin
    with config_context(enable_metadata_routing=True):
        inner = Mirror().set_fit_request(sample_weight=True)
        decoder = BinwiseRegressor(inner, lag=2).fit(X, y, sample_weight=weight)
        recording = BinwiseRegressor(inner).fit(X[0], y[0], sample_weight=of_bin[0])
    np.testing.assert_array_equal(decoder.estimator_.sample_weight_, of_bin[known])
    np.testing.assert_array_equal(recording.estimator_.sample_weight_, of_bin[0])


def test_metadata_without_routing_are_refused():
    X, y = delayed_behaviour(0)
    with pytest.raises(ValueError, match=r"got \['sample_weight'\].*enable_metadata_routing"):
        BinwiseRegressor().fit(X, y, sample_weight=np.ones(len(X)))


X3, Y3 = np.ones((4, 6, 2)), np.ones((4, 6, 3))


@pytest.mark.parametrize(
    ("X", "y", "error", "message"),
    [
        (X3, Y3[:3], ValueError, r"y has shape \(3, 6, 3\).*= \(4, 6\)"),
        (X3, Y3[:, :5], ValueError, r"y has shape \(4, 5, 3\).*expected.*\(4, 6, n_targets\)"),
        (X3, np.ones(4), ValueError, r"y has shape \(4,\)"),
        (X3, np.ones((4, 6, 0)), ValueError, r"y has shape \(4, 6, 0\)"),
        (X3[0], np.ones(5), ValueError, r"y has shape \(5,\).*\(n_bins\) = \(6\)"),
        (X3, None, ValueError, "requires y to be passed"),
        (np.ones(6), np.ones(6), ValueError, r"got a 1D array of shape \(6,\). Reshape your data"),
        (np.ones((2, 2, 2, 2)), np.ones((2, 2)), ValueError, "got a 4D array"),
        (np.ones((0, 6, 2)), np.ones((0, 6)), ValueError, r"0 sample\(s\)"),
        (np.ones((4, 0, 2)), np.ones((4, 0)), ValueError, "0 bins in a trial"),
        (np.ones((4, 6, 0)), np.ones((4, 6)), ValueError, r"0 feature\(s\)"),
        (sparse.csr_matrix(X3[0]), Y3[0], TypeError, "Sparse data was passed"),
        (X3 * 1j, Y3, ValueError, "Complex data not supported"),
        (X3.astype(str), Y3, ValueError, "Convert your data"),
        (X3 * np.inf, Y3, ValueError, "Input X contains infinity"),
        (X3, np.full(Y3.shape, np.nan), ValueError, "NaN among the targets of every bin"),
        (np.full(X3.shape, np.nan), Y3, ValueError, "NaN in every bin of 4 of 4 trials"),
    ],
)
def test_bad_input_is_refused(X, y, error, message):
    with pytest.raises(error, match=message):
        BinwiseRegressor().fit(X, y)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("dtype", [str, object])
def test_labels_are_refused(ndim, dtype):
    y = np.where(Y3 > 0, "left", "right").astype(dtype)
    X, y = (X3, y) if ndim == 3 else (X3[0], y[0])
    with pytest.raises(ValueError, match=r"y holds strings.*BinwiseClassifier predicts labels"):
        BinwiseRegressor().fit(X, y)


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        make_pipeline(StandardScaler(), LogisticRegression()),
        GridSearchCV(make_pipeline(LogisticRegression()), {}),
        OneVsRestClassifier(LogisticRegression()),
        FrozenEstimator(LogisticRegression()),
        BinwiseClassifier(),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_classifiers_are_refused_in_fit(estimator):
    decoder = BinwiseRegressor(estimator)
    name = type(estimator).__name__
    message = f"needs a regressor, but {name} is of type 'classifier'. BinwiseClassifier predicts"
    with pytest.raises(TypeError, match=message):
        decoder.fit(X3, Y3[..., 0])


def test_clusterers_are_refused():
    with pytest.raises(TypeError, match=r"KMeans is of type 'clusterer'\. Pass a regressor"):
        BinwiseRegressor(KMeans()).fit(X3, Y3)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lag": 6}, "lag=6 leaves no bin with a source: X has n_bins=6"),
        ({"lag": -6}, "lag=-6 leaves no bin with a source"),
        ({"lag": 1.5}, "'lag' parameter of BinwiseRegressor must be an int"),
        ({"history": -1}, "'history' parameter of BinwiseRegressor must be an int in the range"),
        ({"estimator": "ridge"}, "'estimator' parameter of BinwiseRegressor must be an object"),
    ],
)
@pytest.mark.parametrize("ndim", [2, 3])
def test_bad_parameters_are_refused_in_fit(params, message, ndim):
    X, y = (X3, Y3) if ndim == 3 else (X3[0], Y3[0])
    with pytest.raises(ValueError, match=message):
        BinwiseRegressor(**params).fit(X, y)


def test_predict_and_score_refuse_other_shapes_than_in_fit():
    X, y = delayed_behaviour(0)
    decoder = BinwiseRegressor(lag=2).fit(X, y)
    with pytest.raises(ValueError, match="X has 4 features, but BinwiseRegressor is expecting 5"):
        decoder.predict(X[..., :4])
    with pytest.raises(ValueError, match="lag=2 leaves no bin"):
        decoder.predict(X[:, :2])
    with pytest.raises(ValueError, match=r"y has 1 targets, .* fitted with 2"):
        decoder.score(X, y[..., :1])
    with pytest.raises(ValueError, match="y has shape"):
        decoder.score(X, y[:, :-1])


@pytest.mark.parametrize(
    ("X_shape", "y_shape", "hint"),
    [
        ((30, 4), (600, 2), r"another rate .*datasets\.bin_signals"),
        ((30, 4), (2, 30), r"axes are reversed: pass y\.T"),
        ((10, 30, 4), (10, 600, 2), r"another rate .*datasets\.align_signals"),
        ((10, 30, 4), (2, 30, 10), r"axes are reversed: pass y\.T"),
        ((10, 30, 4), (10,), r"one number for each trial, average rates over bins"),
        ((10, 30, 4), (12, 29, 2), r"n_targets\)\.$"),
    ],
)
def test_targets_of_another_shape_are_refused_with_a_hint(X_shape, y_shape, hint):
    random = np.random.default_rng(0)
    with pytest.raises(ValueError, match=hint):
        BinwiseRegressor().fit(random.normal(size=X_shape), random.normal(size=y_shape))
