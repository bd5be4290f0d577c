"""BinwiseClassifier: labels of bins and of trials."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import accuracy_score
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.utils import get_tags

from sklearn_stndt import BinwiseClassifier, BinwiseRegressor

N_TRIALS, N_BINS = 24, 10
NAMES = {
    "strings": ["left", "none", "right"],
    "integers": [-3, 0, 7],
    "floats": [0.0, 1.0, 2.0],
    "booleans": [False, True, True],
}


@pytest.fixture
def trials():
    """Noisy rates that encode a stimulus, and the number of the stimulus in each trial."""
    rng = np.random.default_rng(0)
    stimulus = np.arange(N_TRIALS) % 3
    rates = rng.normal(size=(N_TRIALS, N_BINS, 4))
    rates[..., :3] += 1.3 * np.eye(3)[stimulus][:, None]
    return rates, stimulus


def of_bins(labels):
    return np.repeat(np.asarray(labels)[:, None], N_BINS, axis=1)


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("dtype", [None, object])
@pytest.mark.parametrize("form", ["trials", "bins", "recording"])
def test_predictions_are_those_of_the_inner_classifier(trials, kind, dtype, form):
    X, stimulus = trials
    y = np.array(NAMES[kind], dtype=dtype)[stimulus]
    rows, labels = X.reshape(-1, 4), np.array(NAMES[kind])[np.repeat(stimulus, N_BINS)]
    inner = LogisticRegression().fit(rows, labels)
    X, y = {"trials": (X, y), "bins": (X, of_bins(y)), "recording": (rows, of_bins(y).ravel())}[
        form
    ]
    decoder = BinwiseClassifier().fit(X, y)
    assert decoder.classes_.tolist() == sorted(set(NAMES[kind]))
    assert type(decoder.classes_.tolist()[0]) is type(NAMES[kind][0])
    prediction = decoder.predict(X)
    assert prediction.shape == X.shape[:-1]
    np.testing.assert_array_equal(prediction.ravel(), inner.predict(rows))
    for method in ("predict_proba", "predict_log_proba", "decision_function"):
        expected = getattr(inner, method)(rows)
        output = getattr(decoder, method)(X)
        assert output.shape == X.shape[:-1] + expected.shape[1:]
        np.testing.assert_array_equal(output.ravel(), expected.ravel())
    assert decoder.score(X, y) == inner.score(rows, labels)
    assert 0.6 < decoder.score(X, y) < 1


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("form", ["trials", "bins", "recording"])
def test_bins_without_a_label_are_left_out_of_fit_and_score(trials, kind, missing, form):
    X, stimulus = trials
    y = np.array(NAMES[kind], dtype=object)[stimulus]
    kept = np.arange(N_TRIALS) >= 5
    expected = BinwiseClassifier().fit(X[kept], np.array(NAMES[kind])[stimulus[kept]])
    score = expected.score(X[kept], np.array(NAMES[kind])[stimulus[kept]])
    y[~kept] = missing
    X[~kept, 1:] = 1e9  # rates of bins without a label do not matter
    if form != "trials":
        y = of_bins(y)
    if form == "recording":
        X, y = X.reshape(-1, 4), y.ravel()
    forms = [y, y.tolist(), pd.DataFrame(y) if form == "bins" else pd.Series(y.ravel())]
    for labels in forms:
        decoder = BinwiseClassifier().fit(X, labels)
        assert decoder.classes_.tolist() == sorted(set(NAMES[kind]))
        np.testing.assert_allclose(decoder.estimator_.coef_, expected.estimator_.coef_)
        assert decoder.score(X, labels) == score


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "string", "category", float])
def test_columns_of_a_table_are_labels_of_trials(trials, dtype):
    X, stimulus = trials
    labels = pd.Series(stimulus > 0)
    labels = labels.astype(str) if dtype == "string" else labels.astype(int)
    labels = labels.astype(dtype)
    labels[:3] = None
    decoder = BinwiseClassifier().fit(X, labels)
    assert len(decoder.classes_) == 2
    assert decoder.score(X, labels) == decoder.score(X[3:], labels[3:])
    masked = np.ma.array(stimulus > 0, mask=np.arange(N_TRIALS) < 3)
    np.testing.assert_array_equal(
        BinwiseClassifier().fit(X, masked).estimator_.coef_, decoder.estimator_.coef_
    )


@pytest.mark.parametrize(("lag", "history"), [(0, 0), (2, 1), (-2, 1)])
def test_padding_of_a_labelled_trial_has_no_label(trials, lag, history):
    X, stimulus = trials
    lengths = 5 + np.arange(N_TRIALS) % 6
    inside = np.arange(N_BINS) < lengths[:, None]
    X[~inside] = np.nan
    per_bin = np.where(inside, of_bins(stimulus), np.nan)
    decoder = BinwiseClassifier(lag=lag, history=history)
    of_trials, of_each_bin = clone(decoder).fit(X, stimulus), clone(decoder).fit(X, per_bin)
    np.testing.assert_array_equal(of_trials.estimator_.coef_, of_each_bin.estimator_.coef_)
    prediction = of_trials.predict(X)
    expected = accuracy_score(of_bins(stimulus)[inside], prediction[inside])
    assert of_trials.score(X, stimulus) == of_each_bin.score(X, per_bin) == expected
    assert expected != accuracy_score(of_bins(stimulus).ravel(), prediction.ravel())


def test_score_is_the_weighted_accuracy_over_known_bins(trials):
    X, stimulus = trials
    decoder = BinwiseClassifier().fit(X, stimulus)
    correct = decoder.predict(X) == stimulus[:, None]
    assert decoder.score(X, stimulus) == pytest.approx(correct.mean())
    weight = np.random.default_rng(0).random((N_TRIALS, N_BINS))
    for w in (weight, weight[:, 0]):
        expected = np.average(correct, weights=np.broadcast_to(w.reshape(N_TRIALS, -1), (24, 10)))
        assert decoder.score(X, stimulus, sample_weight=w) == pytest.approx(expected)
    y = of_bins(stimulus).astype(float)
    y[:, 4:] = np.nan
    assert decoder.score(X, y, sample_weight=weight) == pytest.approx(
        np.average(correct[:, :4], weights=weight[:, :4])
    )


@pytest.mark.parametrize("delay", [-2, 3])
def test_a_grid_search_over_trials_finds_the_lag(delay):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 60, 3))
    y = np.where(np.roll(X[..., 0], delay, axis=1) > 0, "go", "stop")
    grid = {"lag": [-2, 0, 3], "estimator__C": [1e-6, 1.0]}
    search = GridSearchCV(BinwiseClassifier(LogisticRegression()), grid, cv=3).fit(X, y)
    assert search.best_params_ == {"lag": delay, "estimator__C": 1.0}
    assert search.best_score_ > 0.9
    assert search.predict_proba(X).shape == (12, 60, 2)


def test_history_decodes_what_depends_on_past_bins():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 60, 3))
    y = X[..., 0] + np.roll(X[..., 0], 1, axis=1) > 0
    scores = [
        cross_val_score(BinwiseClassifier(history=history), X, y, cv=KFold(3)).mean()
        for history in (0, 1)
    ]
    assert scores[1] > scores[0] + 0.1


def test_folds_of_labelled_trials_are_stratified(trials):
    X, stimulus = trials
    order = np.argsort(stimulus, kind="stable")  # in blocks: folds of KFold lack a class
    X, y = X[order], np.array(NAMES["strings"])[stimulus[order]]
    decoder = BinwiseClassifier()
    scores = cross_val_score(decoder, X, y, cv=4, error_score="raise")
    np.testing.assert_array_equal(scores, cross_val_score(decoder, X, y, cv=StratifiedKFold(4)))
    assert scores.min() > 0.5
    assert cross_val_predict(decoder, X, y, cv=4).shape == (N_TRIALS, N_BINS)
    folds = list(StratifiedKFold(4).split(X, y))
    for method in ("predict_proba", "predict_log_proba", "decision_function"):
        output = cross_val_predict(decoder, X, y, cv=4, method=method)
        for train, test in folds:
            expected = getattr(clone(decoder).fit(X[train], y[train]), method)(X[test])
            np.testing.assert_allclose(output[test], expected)


@pytest.mark.parametrize("kind", ["strings", "integers", "booleans"])
@pytest.mark.parametrize("dtype", [None, object])
def test_folds_of_labelled_bins_are_whole_trials(trials, kind, dtype):
    X, stimulus = trials
    y = of_bins(np.array(NAMES[kind], dtype=dtype)[stimulus])
    decoder = BinwiseClassifier()
    scores = cross_val_score(decoder, X, y, cv=4, error_score="raise")
    np.testing.assert_array_equal(scores, cross_val_score(decoder, X, y, cv=KFold(4)))
    assert cross_val_predict(decoder, X, y, cv=4).shape == y.shape
    unknown = y.astype(object)
    unknown[::5, 3] = None
    scores = cross_val_score(decoder, X, unknown, cv=KFold(4), error_score="raise")
    assert scores.min() > 0.4


@pytest.mark.parametrize(
    ("inner", "methods"),
    [
        (LogisticRegression(), {"predict_proba", "predict_log_proba", "decision_function"}),
        (LinearSVC(), {"decision_function"}),
        (KNeighborsClassifier(), {"predict_proba"}),
        (make_pipeline(StandardScaler(), LinearSVC()), {"decision_function"}),
        (GridSearchCV(LinearSVC(), {"C": [1.0]}, cv=2), {"decision_function"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_methods_are_those_of_the_inner_classifier(trials, inner, methods):
    X, stimulus = trials
    decoder = BinwiseClassifier(inner)
    for estimator in (decoder, clone(decoder).fit(X, stimulus)):
        for method in ("predict_proba", "predict_log_proba", "decision_function"):
            assert hasattr(estimator, method) == (method in methods)
    with pytest.raises(NotFittedError):
        decoder.predict(X)


def test_a_decision_function_of_pairs_of_classes_keeps_its_shape():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(16, 5, 3)), np.arange(16) % 4
    decoder = BinwiseClassifier(SVC(decision_function_shape="ovo")).fit(X, y)
    assert decoder.decision_function(X).shape == (16, 5, 6)


@pytest.mark.parametrize("inner", [LogisticRegression(), HistGradientBoostingClassifier()])
def test_tags_follow_the_inner_classifier(inner):
    tags, expected = get_tags(BinwiseClassifier(inner)), get_tags(inner)
    assert tags.estimator_type == "classifier"
    assert tags.input_tags.three_d_array
    assert tags.input_tags.allow_nan == expected.input_tags.allow_nan
    assert not get_tags(BinwiseClassifier(KNeighborsClassifier())).target_tags.multi_output


@pytest.mark.parametrize("shape", [(6,), (6, N_BINS)])
def test_weights_are_routed_to_the_fit_and_the_score(trials, shape):
    X, stimulus = trials
    X, stimulus = X[:6], stimulus[:6]
    weight = np.random.default_rng(0).random(shape)
    of_bin = np.broadcast_to(weight.reshape(6, -1), (6, N_BINS))
    with config_context(enable_metadata_routing=True):
        inner = LogisticRegression().set_fit_request(sample_weight=True)
        decoder = BinwiseClassifier(inner).set_score_request(sample_weight=True)
        fitted = clone(decoder).fit(X, stimulus, sample_weight=weight)
        expected = LogisticRegression().fit(
            X.reshape(-1, 4), np.repeat(stimulus, N_BINS), sample_weight=of_bin.ravel()
        )
        np.testing.assert_allclose(fitted.estimator_.coef_, expected.coef_)
        search = GridSearchCV(decoder, {"lag": [0, 1]}, cv=2, error_score="raise")
        search.fit(X, stimulus, sample_weight=weight)
    with pytest.raises(ValueError, match=r"BinwiseClassifier.fit got \['sample_weight'\]"):
        BinwiseClassifier().fit(X, stimulus, sample_weight=weight)


def test_copies_predict_the_same_and_the_given_classifier_is_unchanged(trials):
    X, stimulus = trials
    inner = LogisticRegression(C=3.0)
    decoder = BinwiseClassifier(inner, lag=1).fit(X, stimulus)
    assert not hasattr(inner, "coef_")
    assert clone(decoder).get_params()["estimator__C"] == 3.0
    copy = pickle.loads(pickle.dumps(decoder))
    np.testing.assert_array_equal(copy.predict_proba(X), decoder.predict_proba(X))


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (Ridge(), "Ridge is of type 'regressor'. BinwiseRegressor"),
        (make_pipeline(StandardScaler(), Ridge()), "Pipeline is of type 'regressor'"),
        (GridSearchCV(Ridge(), {"alpha": [1]}), "GridSearchCV is of type 'regressor'"),
        (
            TransformedTargetRegressor(LinearRegression()),
            "TransformedTargetRegressor is of type 'regressor'",
        ),
        (BinwiseRegressor(), "BinwiseRegressor is of type 'regressor'"),
        (KMeans(), "KMeans is of type 'clusterer'. Pass a classifier"),
    ],
)
def test_estimators_that_are_not_classifiers_are_refused(trials, estimator, message):
    with pytest.raises(TypeError, match=f"BinwiseClassifier needs a classifier, but {message}"):
        BinwiseClassifier(estimator).fit(*trials)


@pytest.mark.parametrize("form", [(24, 1), (24, N_BINS, 1), (240, 1)])
def test_a_column_of_labels_is_accepted_with_a_warning(trials, form):
    X, stimulus = trials
    y = stimulus if form == (24, 1) else of_bins(stimulus)
    X = X.reshape(-1, 4) if form == (240, 1) else X
    expected = BinwiseClassifier().fit(trials[0], stimulus)
    with pytest.warns(DataConversionWarning, match="column-vector"):
        decoder = BinwiseClassifier().fit(X, y.reshape(form))
    np.testing.assert_array_equal(decoder.estimator_.coef_, expected.estimator_.coef_)


X3 = np.ones((4, 6, 2))


@pytest.mark.parametrize(
    ("X", "y", "error", "message"),
    [
        (X3, None, ValueError, "requires y to be passed, but the target y is None"),
        (X3, np.zeros(6), ValueError, r"y has shape \(6,\).*one for each trial, of shape \(4,\)"),
        (X3, np.zeros((4, 5)), ValueError, r"y has shape \(4, 5\).*each bin, of shape \(4, 6\)"),
        (X3[0], np.zeros(5), ValueError, r"= \(6\); expected .* each bin, of shape \(6,\)\."),
        (X3, np.zeros((4, 6, 2)), ValueError, "several labels for each bin.*predicts one"),
        (X3[0], np.zeros((6, 2)), ValueError, "several labels for each bin.*predicts one"),
        (X3, np.arange(4) / 3, ValueError, "Unknown label type: continuous.*BinwiseRegressor"),
        (X3, [0.5, None, 0.1, 2], ValueError, "Unknown label type: continuous"),
        (X3, ["a", 1, "b", 2], ValueError, "labels of type int, str; pass labels of one type"),
        (X3, np.array(["a", "b", np.nan, "a"]), ValueError, "holds the string 'nan'"),
        (X3, [None, np.nan, None, None], ValueError, "holds no known label"),
        (X3, ["a"] * 4, ValueError, "at least 2 classes in the data"),
        (X3, [1, 2, np.inf, 1], ValueError, "Input y contains infinity"),
        (X3, np.arange(4) * 1j, ValueError, "Complex data not supported"),
        (X3, [["a", "b"], ["a"], ["b"], ["a"]], ValueError, "lists of labels of unequal lengths"),
        (X3, sparse.csr_matrix(np.ones((4, 6))), TypeError, "y must be an array"),
        (X3 * np.nan, np.arange(4) % 2, ValueError, "NaN in every bin of 4 of 4 trials"),
    ],
)
def test_bad_labels_are_refused(X, y, error, message):
    with pytest.raises(error, match=message):
        BinwiseClassifier().fit(X, y)
