"""STNDTEstimator as an estimator: shapes and types, saving, tables, devices."""

import copy
import io
import pickle

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklearn_stndt import BaggingEnsemble, STNDTEstimator


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.float64, np.float64),
        (np.float32, np.float32),
        (np.float16, np.float32),
        (np.int64, np.float64),
        (np.uint8, np.float64),
        (bool, np.float64),
    ],
)
@pytest.mark.parametrize("ndim", [2, 3])
def test_rates_have_the_shape_and_precision_of_the_counts(
    small, spikes, rows, ndim, dtype, expected
):
    counts = (spikes if ndim == 3 else rows).astype(dtype)
    rates = small(max_epochs=1).fit_transform(counts)
    assert rates.shape == counts.shape
    assert rates.dtype == expected


def test_rates_do_not_depend_on_the_dtype_of_counts(fitted, spikes):
    from_float32 = fitted.transform(spikes.astype(np.float32))
    assert_array_equal(fitted.transform(spikes), from_float32.astype(np.float64))
    assert_array_equal(fitted.transform(spikes.astype(np.uint8)), fitted.transform(spikes))


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 45)),
    share_hidden=st.floats(0, 1),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 99),
    flat=st.booleans(),
)
def test_any_counts_of_any_length_get_rates(fitted, shape, share_hidden, dtype, seed, flat):
    rng = np.random.RandomState(seed)
    counts = rng.poisson(1.0, size=(*shape, 12)).astype(dtype)
    counts[rng.rand(*counts.shape) < share_hidden] = np.nan
    counts[0, 0, 0] = 1  # at least one count is visible
    counts = counts[0] if flat else counts
    rates = fitted.transform(counts)
    assert rates.shape == counts.shape
    assert rates.dtype == dtype
    assert np.isfinite(rates).all()
    assert (rates > 0).all()


def test_y_is_ignored(small, fitted, spikes):
    with_y = small().fit(spikes, y=["no", "number"])
    assert_array_equal(with_y.transform(spikes), fitted.transform(spikes))


# ---- saving, cloning, parameters and tables


def through_pickle(estimator):
    return pickle.loads(pickle.dumps(estimator))


def through_joblib(estimator):
    file = io.BytesIO()
    joblib.dump(estimator, file)
    file.seek(0)
    return joblib.load(file)


@pytest.mark.parametrize("saved", [through_pickle, through_joblib, copy.deepcopy])
@pytest.mark.parametrize("params", [{}, {"verbose": 1}, {"heldout_neurons": 2, "forecast_bins": 3}])
def test_saved_estimators_give_identical_rates(small, spikes, saved, params):
    estimator = small(**params).fit(spikes)
    loaded = saved(estimator)
    assert_array_equal(loaded.transform(spikes), estimator.transform(spikes))
    assert loaded.score(spikes) == estimator.score(spikes)
    assert loaded.history_ == estimator.history_
    assert repr(loaded.get_params()) == repr(estimator.get_params())


def test_a_clone_is_unfitted_and_trains_to_identical_rates(fitted, spikes):
    copied = clone(fitted)
    assert not hasattr(copied, "net_")
    assert copied.get_params() == fitted.get_params()
    assert_array_equal(copied.fit_transform(spikes), fitted.transform(spikes))


def test_the_constructor_does_not_change_parameters():
    context = [5, 5]
    estimator = STNDTEstimator(context=context).set_params(window=30)
    assert estimator.get_params()["context"] is context
    assert estimator.get_params()["window"] == 30


def test_parameters_may_be_lists(small, spikes):
    lists = small(context=[5, 5], mask_ratio=[0.1, 0.5]).fit(spikes)
    tuples = small(context=(5, 5), mask_ratio=(0.1, 0.5)).fit(spikes)
    assert_array_equal(lists.transform(spikes), tuples.transform(spikes))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_tables_keep_their_names(small, rows, library):
    frames = pytest.importorskip(library)
    names = [f"unit {i}" for i in range(12)]
    table = frames.DataFrame(dict(zip(names, rows.T, strict=True)))
    estimator = small().set_output(transform=library)
    rates = estimator.fit_transform(table)
    assert isinstance(rates, frames.DataFrame)
    assert list(rates.columns) == list(estimator.get_feature_names_out())
    if library == "pandas":  # names of polars are read only by some versions
        assert list(estimator.feature_names_in_) == list(rates.columns) == names
    assert_array_equal(rates.to_numpy(), small().fit_transform(rows))
    assert isinstance(estimator.score(table), float)


def test_pandas_output_keeps_the_index(small, rows):
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(rows, columns=list("abcdefghijkl"), index=np.arange(len(rows)) * 0.02)
    rates = small().set_output(transform="pandas").fit_transform(table)
    assert rates.index.equals(table.index)


def test_tables_with_the_neurons_in_another_order_are_refused(small, rows):
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(rows, columns=list("abcdefghijkl"))
    estimator = small().fit(table)
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.transform(table[table.columns[::-1]])


@pytest.mark.parametrize(
    ("estimator_class", "method"),
    [
        (STNDTEstimator, "transform"),
        (STNDTEstimator, "score"),
        (STNDTEstimator, "forecast"),
        (BaggingEnsemble, "transform"),
        (BaggingEnsemble, "score"),
        (BaggingEnsemble, "score_curve"),
        (BaggingEnsemble, "rate_std"),
    ],
)
def test_methods_before_fit_are_refused(spikes, estimator_class, method):
    arguments = (spikes, 3) if method == "forecast" else (spikes,)
    with pytest.raises(NotFittedError, match=f"This {estimator_class.__name__} instance is not"):
        getattr(estimator_class(), method)(*arguments)


@pytest.mark.gpu
def test_a_gpu_is_used_if_available(small, spikes):
    estimator = small(device="auto").fit(spikes)
    assert estimator.device_ == "cuda"
    assert next(estimator.net_.module_.parameters()).is_cuda
    assert np.isfinite(estimator.transform(spikes)).all()
    assert estimator.score(spikes) == pytest.approx(
        small(device="cpu").fit(spikes).score(spikes), abs=0.05
    )
