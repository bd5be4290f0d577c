"""Unknown names of parameters are refused, with the nearest name as a suggestion."""

import inspect

import pytest
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_stndt import (
    BaggingEnsemble,
    BinwiseClassifier,
    BinwiseRegressor,
    MultiSessionEstimator,
    STNDTEstimator,
)

MISTYPED = [
    (STNDTEstimator, "n_layer", "n_layers"),
    (STNDTEstimator, "heldout_neuron", "heldout_neurons"),
    (STNDTEstimator, "num_heads", "n_heads"),
    (STNDTEstimator, "lrr", "lr"),
    (STNDTEstimator, "n_epochs", "max_epochs"),
    (STNDTEstimator, "learning_rate", "lr"),
    (STNDTEstimator, "seed", "random_state"),
    (BaggingEnsemble, "n_estimator", "n_estimators"),
    (BaggingEnsemble, "param_distribution", "param_distributions"),
    (MultiSessionEstimator, "n_job", "n_jobs"),
    (BinwiseRegressor, "lags", "lag"),
    (BinwiseClassifier, "histories", "history"),
]
CLASSES = [
    STNDTEstimator,
    BaggingEnsemble,
    MultiSessionEstimator,
    BinwiseRegressor,
    BinwiseClassifier,
]


@pytest.mark.parametrize(("cls", "name", "meant"), MISTYPED)
def test_the_nearest_parameter_is_suggested(cls, name, meant):
    message = rf"{cls.__name__}.__init__\(\) got an unexpected keyword argument '{name}'. Did you "
    with pytest.raises(TypeError, match=rf"{message}mean '{meant}'\?"):
        cls(**{name: 1})
    message = f"Invalid parameter '{name}' for estimator {cls.__name__}(.*). Did you "
    with pytest.raises(ValueError, match=rf"{message}mean '{meant}'\? Valid parameters are: \["):
        cls().set_params(**{name: 1})


@pytest.mark.parametrize("cls", CLASSES)
def test_nothing_is_suggested_if_no_parameter_is_near(cls):
    with pytest.raises(TypeError, match=r"'zzz'. .*get_params") as caught:
        cls(zzz=1)
    assert "Did you mean" not in str(caught.value)
    with pytest.raises(ValueError, match=r"'zzz' for estimator") as refused:
        cls().set_params(zzz=1)
    assert "Did you mean" not in str(refused.value)


def test_suggestions_reach_estimators_inside_others():
    pipeline = make_pipeline(STNDTEstimator(), BinwiseRegressor(Ridge()))
    with pytest.raises(ValueError, match=r"'n_layer' for estimator STNDT.*mean 'n_layers'"):
        pipeline.set_params(stndtestimator__n_layer=2)
    ensemble = BaggingEnsemble(STNDTEstimator())
    with pytest.raises(ValueError, match=r"'lrr' for estimator STNDT.*mean 'lr'"):
        ensemble.set_params(estimator__lrr=1)
    with pytest.raises(ValueError, match=r"'estimators' for estimator Bagging.*mean 'estimator'"):
        ensemble.set_params(estimators__lr=1)


def test_a_search_over_a_mistyped_parameter_names_the_right_one(spikes):
    search = GridSearchCV(STNDTEstimator(), {"drop_out": [0.1]}, cv=2)
    with pytest.raises(ValueError, match=r"mean 'dropout'"):
        search.fit(spikes)


@pytest.mark.parametrize("cls", CLASSES)
def test_arguments_without_a_name_are_refused(cls):
    n_allowed = sum(
        parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        for parameter in inspect.signature(cls).parameters.values()
    )
    message = rf"{cls.__name__} takes its parameters by name, got {n_allowed + 1} .*passed to fit"
    with pytest.raises(TypeError, match=message):
        cls(*[None] * (n_allowed + 1))
    assert cls(*[None] * n_allowed) is not None


@pytest.mark.parametrize("cls", CLASSES)
def test_the_signature_is_that_of_the_constructor(cls):
    names = list(inspect.signature(cls).parameters)
    assert names == list(inspect.signature(cls.__init__).parameters)[1:]
    assert sorted(names) == cls._get_param_names()
    assert "params" not in names
    assert clone(cls()).get_params() == cls().get_params()


def test_a_subclass_may_add_parameters():
    class Own(STNDTEstimator):
        def __init__(self, *, extra=1, window=None):
            super().__init__(window=window)
            self.extra = extra

    assert Own(extra=2, window=5).set_params(extra=3).get_params() == {"extra": 3, "window": 5}
    with pytest.raises(ValueError, match=r"mean 'extra'"):
        Own().set_params(extras=3)
