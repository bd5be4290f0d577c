"""A fit that fails does not change the estimator."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from skorch.callbacks import Callback

from sklearn_stndt import BaggingEnsemble, BinwiseClassifier, BinwiseRegressor


class Fail(Callback):
    def on_epoch_begin(self, net, **kwargs):
        raise OSError("the disk is full")


class FailingRidge(Ridge):
    def fit(self, X, y):
        raise OSError("the disk is full")


class FailingLogisticRegression(LogisticRegression):
    def fit(self, X, y):
        raise OSError("the disk is full")


# function that makes it, and parameters that make its fit fail
CASES = {
    "network": (lambda small: small(), {"callbacks": [Fail()]}),
    "ensemble": (
        lambda small: BaggingEnsemble(small(), n_estimators=2, random_state=0),
        {"estimator__callbacks": [Fail()], "error_score": "raise"},
    ),
    "regressor": (lambda small: BinwiseRegressor(Ridge()), {"estimator": FailingRidge()}),
    "classifier": (
        lambda small: BinwiseClassifier(LogisticRegression()),
        {"estimator": FailingLogisticRegression()},
    ),
}


@pytest.fixture(params=CASES)
def case(request, small, spikes, reaches):
    make, failing = CASES[request.param]
    y = {"regressor": reaches.velocity, "classifier": reaches.conditions % 2}.get(request.param)
    return make(small), failing, spikes, y


def fitted_state(estimator):
    parameters = estimator.get_params(deep=False)
    return {name: value for name, value in vars(estimator).items() if name not in parameters}


def outputs(estimator, X):
    return (estimator.predict if hasattr(estimator, "predict") else estimator.transform)(X)


def test_an_estimator_is_not_fitted_after_a_failed_fit(case):
    estimator, failing, X, y = case
    estimator.set_params(**failing)
    with pytest.raises((OSError, RuntimeError), match="disk is full"):
        estimator.fit(X, y)
    assert fitted_state(estimator) == {}
    with pytest.raises(NotFittedError):
        outputs(estimator, X)


def test_a_failed_second_fit_keeps_the_first_one(case):
    estimator, failing, X, y = case
    estimator.fit(X, y)
    before, was = outputs(estimator, X), fitted_state(estimator)
    estimator.set_params(**failing)
    shorter = X[:, :12, :7]  # another window, other neurons
    with pytest.raises((OSError, RuntimeError), match="disk is full"):
        estimator.fit(shorter, y if y is None or y.ndim == 1 else y[:, :12])
    now = fitted_state(estimator)
    assert now.keys() == was.keys()
    assert all(now[name] is was[name] for name in was)
    assert_array_equal(outputs(estimator, X), before)


@pytest.mark.parametrize("params", [{"forecast_bins": 20}, {"heldout_neurons": [12]}])
def test_a_refused_parameter_changes_nothing(small, spikes, params):
    estimator = small().fit(spikes)
    rates = estimator.transform(spikes)
    with pytest.raises(ValueError, match=next(iter(params))):
        estimator.set_params(**params).fit(spikes)
    assert_array_equal(estimator.transform(spikes), rates)


def test_a_failed_warm_start_keeps_the_weights(small, spikes):
    estimator = small(warm_start=True).fit(spikes)
    rates = estimator.transform(spikes)
    with pytest.raises(OSError, match="disk is full"):
        estimator.set_params(callbacks=[Fail()]).fit(spikes)
    assert_array_equal(estimator.transform(spikes), rates)
    assert estimator.n_iter_ == 3
    estimator.set_params(callbacks=None).fit(spikes)
    assert estimator.n_iter_ == 6


def test_bad_counts_change_nothing(small, spikes):
    estimator = small()
    with pytest.raises(ValueError, match="NaN everywhere"):
        estimator.fit(np.full_like(spikes, np.nan))
    assert fitted_state(estimator) == {}
