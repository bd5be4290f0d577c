"""Fingerprints of data and parameters: equal for equal values, in every process."""

import pickle

import numpy as np
import pytest
from scipy.stats import uniform
from sklearn.base import BaseEstimator

from sklearn_stndt import BaggingEnsemble, STNDTEstimator
from sklearn_stndt._fingerprints import describe, describe_estimator, fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (1, 1.0),
        (True, 1),
        ("a", "b"),
        ((1, 2), (1, 3)),
        ({"a": 1}, {"a": 2}),
        (np.arange(3), np.arange(4)),
        (np.arange(1000), np.arange(1000)[::-1]),
        (np.zeros(3), np.zeros((3, 1))),
        (np.mean, np.std),
        (STNDTEstimator, BaseEstimator),
        (STNDTEstimator(), BaggingEnsemble()),
        (uniform(0, 1).dist, 3),
    ],
)
def test_different_values_have_different_descriptions(one, other):
    assert describe(one) != describe(other)
    assert describe(one) == describe(pickle.loads(pickle.dumps(one)))


def test_descriptions_of_numpy_and_python_numbers_agree():
    assert describe(np.float64(0.5)) == describe(0.5)
    assert describe(np.int32(3)) == describe(3)
    assert describe([1, 2]) == describe((1, 2))


def test_objects_that_cannot_be_pickled_are_described_by_their_class():
    class Open:
        def __reduce__(self):
            raise TypeError("open file")

    assert describe(Open()).endswith("Open")


def test_estimators_are_described_by_parameters_that_influence_the_fit():
    described = describe_estimator(BaggingEnsemble(STNDTEstimator(lr=3.0), n_jobs=2, verbose=1))
    assert described["estimator__lr"] == "3.0"
    assert described["random_state"] == "None"
    assert not {"n_jobs", "verbose"} & set(described)


def test_fingerprints_depend_on_values_and_not_on_memory_order():
    values = np.arange(24.0).reshape(4, 6)
    assert fingerprint(values) == fingerprint(np.asfortranarray(values))
    assert fingerprint(values) != fingerprint(values.T)
    assert fingerprint(values) != fingerprint(values.astype(np.float32))
    assert fingerprint(np.array(["a", "b"], dtype=object)) != fingerprint(
        np.array(["a", "c"], dtype=object)
    )
    assert fingerprint(None) == "None"
