"""An estimator that is fitted, changed, copied and failed in any order keeps its promises."""

import copy
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from odd_values import examples
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklearn_stndt import STNDTEstimator, load, save

pytest.importorskip("safetensors")
pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(0)
DATA = {
    "trials": RNG.poisson(0.7, size=(6, 8, 4)).astype(np.float64),
    "rows": RNG.poisson(0.7, size=(40, 4)).astype(np.float64),
    "gaps": np.where(RNG.random((6, 8, 4)) < 0.2, np.nan, RNG.poisson(0.7, size=(6, 8, 4))),
    "more neurons": RNG.poisson(0.7, size=(6, 8, 5)).astype(np.float64),
}
REFUSED = {  # with a word of the error
    "negative": ("negative", -np.ones((6, 8, 4))),
    "empty": ("minimum of 1", np.zeros((0, 8, 4))),
    "all hidden": ("nan everywhere", np.full((6, 8, 4), np.nan)),
    "text": ("numeric|convert", np.array([["a"]])),
    "4D": ("dimensions", np.zeros((1, 1, 1, 1))),
}
CHANGES = {
    "lr": [1e-3, 1e-2],
    "n_layers": [1, 2],
    "max_epochs": [1, 2],
    "heldout_neurons": [None, [1]],
    "early_stopping": [True, False],
    "window": [None, 4],
}


def fitted_attributes(estimator):
    return {key: value for key, value in vars(estimator).items() if key.endswith("_")}


class Life(RuleBasedStateMachine):
    @initialize()
    def make(self):
        self.estimator = STNDTEstimator(
            d_model=8,
            n_heads=2,
            n_layers=1,
            dim_feedforward=8,
            d_spatial=4,
            max_epochs=1,
            random_state=0,
        )
        self.is_fitted = False
        self.rates = None  # of the last fit

    def remember(self, name):
        self.is_fitted, self.name = True, name
        self.rates = self.estimator.transform(DATA[name])

    @rule(name=st.sampled_from(sorted(DATA)))
    def fit(self, name):
        assert self.estimator.set_params(warm_start=False).fit(DATA[name]) is self.estimator
        self.remember(name)
        again = clone(self.estimator).fit(DATA[name])
        np.testing.assert_array_equal(again.transform(DATA[name]), self.rates)

    @precondition(lambda self: self.is_fitted)
    @rule(name=st.sampled_from(sorted(DATA)))
    def continue_fit(self, name):
        self.estimator.set_params(warm_start=True)
        before = fitted_attributes(self.estimator)
        try:
            self.estimator.fit(DATA[name])
        except ValueError:  # other neurons, or other parameters
            assert fitted_attributes(self.estimator) == before
        else:
            self.remember(name)

    @rule(name=st.sampled_from(sorted(REFUSED)))
    def fail_by_data(self, name):
        self.estimator.set_params(warm_start=False)
        with pytest.raises(ValueError, match=f"(?i){REFUSED[name][0]}"):
            self.estimator.fit(REFUSED[name][1])

    @rule(params=st.sampled_from([{"lr": -1.0}, {"n_layers": 0}, {"heldout_neurons": [9]}]))
    def fail_by_parameters(self, params):
        before = {key: getattr(self.estimator, key) for key in params}
        self.estimator.set_params(**params, warm_start=False)
        with pytest.raises(ValueError, match=next(iter(params))):
            self.estimator.fit(DATA["trials"])
        self.estimator.set_params(**before)

    @rule(name=st.sampled_from(sorted(CHANGES)), data=st.data())
    def change(self, name, data):
        self.estimator.set_params(**{name: data.draw(st.sampled_from(CHANGES[name]))})

    @rule()
    def pickle_and_back(self):
        self.estimator = pickle.loads(pickle.dumps(self.estimator))

    @rule()
    def save_and_load(self):
        with tempfile.TemporaryDirectory() as folder:
            save(self.estimator, Path(folder) / "model.stndt")
            self.estimator = load(Path(folder) / "model.stndt")

    @rule()
    def copy_deeply(self):
        self.estimator = copy.deepcopy(self.estimator)

    @rule()
    def clone(self):
        copied = clone(self.estimator)
        assert not fitted_attributes(copied)
        assert copied.get_params() == self.estimator.get_params()

    @precondition(lambda self: self.is_fitted)
    @rule()
    def transform_something_else(self):
        with pytest.raises(ValueError, match=r"features|neurons"):
            self.estimator.transform(np.ones((3, 8, 7)))

    @invariant()
    def attributes_are_those_of_the_last_fit(self):
        if not self.is_fitted:
            assert not fitted_attributes(self.estimator)
            with pytest.raises(NotFittedError):
                self.estimator.transform(DATA["trials"])
            return
        X = DATA[self.name]
        assert self.estimator.n_features_in_ == X.shape[-1]
        assert len(self.estimator.net_.history) == len(self.estimator.history_)
        np.testing.assert_array_equal(self.estimator.transform(X), self.rates)


TestLife = Life.TestCase
TestLife.settings = settings(examples(6), stateful_step_count=12)
