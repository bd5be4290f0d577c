"""Mean and standard deviation of each neuron over known entries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sklearn_stndt.network.likelihood import Gaussian, NegativeBinomial
from sklearn_stndt.training import fitting
from sklearn_stndt.training.fitting import known_statistics


@st.composite
def counts_with_gaps(draw):
    shape = draw(st.tuples(st.integers(1, 30), st.integers(1, 4)))
    X = draw(arrays(np.float64, shape, elements=st.sampled_from([0, 0, 1, 2, 9, np.nan])))
    X[0] = np.nan_to_num(X[0])
    return X


@settings(deadline=None, max_examples=60)
@given(X=counts_with_gaps())
def test_statistics_are_those_of_known_entries(X):
    mean, mean_sqrt, std_sqrt = known_statistics(X)[:3]
    n_known = (~np.isnan(X)).sum(0)
    np.testing.assert_allclose(mean, np.maximum(np.nanmean(X, 0), 0.5 / n_known), rtol=1e-12)
    np.testing.assert_allclose(mean_sqrt, np.nanmean(np.sqrt(X), 0), rtol=1e-12)
    expected = np.nanstd(np.sqrt(X), 0)
    expected[expected < 1e-6] = 1
    np.testing.assert_allclose(std_sqrt, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool, np.float16, np.float32])
def test_statistics_of_every_dtype_are_in_double_precision(dtype):
    X = (np.arange(3000).reshape(1000, 3) % 7 == 0).astype(dtype)
    if dtype == np.uint8:
        X *= 255
    for values, expected in zip(
        known_statistics(X, NegativeBinomial()),
        known_statistics(X.astype(np.float64), NegativeBinomial()),
        strict=True,
    ):
        assert values.dtype == np.float64
        assert np.array_equal(values, expected)


def test_statistics_of_silent_and_constant_neurons():
    X = np.array([[0.0, 2.0], [0.0, np.nan], [0.0, 2.0], [np.nan, 2.0]])
    mean, mean_sqrt, std_sqrt = known_statistics(X)[:3]
    np.testing.assert_allclose(mean, [0.5 / 3, 2])
    np.testing.assert_allclose(mean_sqrt, [0, 2**0.5])
    assert std_sqrt.tolist() == [1, 1]


def test_variance_and_share_are_those_of_known_entries():
    X = np.random.default_rng(0).poisson(1.0, (500, 3)) + np.array([0, 0, 1e6])
    X[::3, 0] = np.nan
    for likelihood in (NegativeBinomial(), Gaussian()):
        found = known_statistics(X, likelihood)
        np.testing.assert_allclose(found.variance, np.nanvar(X, 0), rtol=1e-3)
        np.testing.assert_allclose(found.share_positive, np.nansum(X > 0, 0) / [333, 500, 500])
    np.testing.assert_allclose(found.mean_input, np.nanmean(X, 0))
    np.testing.assert_allclose(found.std_input, np.nanstd(X, 0))


@pytest.mark.parametrize("count", [3, 255])
def test_a_constant_neuron_has_scale_1_however_long_the_recording(count):
    X = np.full((200_000, 1), count, dtype=np.uint8)
    assert known_statistics(X)[2].tolist() == [1]


def test_a_neuron_that_is_never_known_is_an_error():
    X = np.ones((240, 6))
    X[:, [2, 5]] = np.nan
    with pytest.raises(ValueError, match=r"\[2, 5\] are NaN everywhere"):
        known_statistics(X)


def test_statistics_read_rows_in_pieces(monkeypatch):
    class Watched(np.ndarray):
        def __getitem__(self, index):
            part = np.asarray(self)[index]
            sizes.append(len(part))
            return part

    sizes = []
    monkeypatch.setattr(fitting, "STATISTICS_BYTES", 300 * 24)
    known_statistics(np.ones((1000, 3)).view(Watched))
    assert [size for size in sizes if size > 1] == [300, 300, 300, 100]
