"""Rates and behaviour bin by bin: those of `transform` and `predict`, at every step."""

import copy
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import FORMS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter1d
from sklearn.base import clone
from sklearn.cluster import DBSCAN
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_stndt import BaggingEnsemble, BinwiseClassifier, BinwiseRegressor
from sklearn_stndt.streaming import RateStream

N_NEURONS = 12
CLOSE = {"rtol": 5e-5}


@pytest.fixture(scope="module", params=[*FORMS, "all layers"])
def network(request, small, perturbed, spikes):
    """A fitted causal estimator of each form, with noise added to all weights."""
    form = FORMS.get(request.param, {"spatial_layers": "all"})
    return perturbed(small(causal=True, max_epochs=1, **form).fit(spikes))


@pytest.fixture(scope="module")
def causal(small, perturbed, spikes):
    return perturbed(small(causal=True, max_epochs=1, forecast_bins=3).fit(spikes))


@pytest.fixture(scope="module")
def of_recording(small, perturbed, rows):
    return perturbed(small(causal=True, max_epochs=1, window=8).fit(rows))


@pytest.fixture(scope="module")
def ensemble(small, perturbed, spikes):
    ensemble = BaggingEnsemble(small(causal=True, max_epochs=1), 2, random_state=0).fit(spikes)
    ensemble.estimators_ = [perturbed(member) for member in ensemble.estimators_]
    return ensemble


def pickle_copy(value):
    return pickle.loads(pickle.dumps(value))


def with_losses(X, share=0.2, seed=0):
    """Counts with lost entries, a lost bin, and a channel that is lost from the 5th bin on."""
    rng = np.random.default_rng(seed)
    X = np.where(rng.random(X.shape) < share, np.nan, X)
    X[..., 4, :] = np.nan
    X[..., 5:, 1] = np.nan
    return X


def steps(stream, X):
    """Results of all bins, the axis of bins before the last."""
    bins = np.moveaxis(X, -2, 0)
    return np.array([stream.step(counts) for counts in bins])


def test_rates_are_those_of_transform_at_every_step(network, spikes):
    X = with_losses(spikes[0])
    stream = RateStream(network)
    for bin_, counts in enumerate(X):
        rates = stream.step(counts)
        assert rates.shape == (N_NEURONS,)
        assert rates.dtype == np.float64
        assert_allclose(rates, network.transform(X[: bin_ + 1])[-1], **CLOSE)


def test_a_stream_goes_on_beyond_any_buffer(of_recording, network, rows):
    for estimator in (of_recording, network):
        assert_allclose(
            steps(RateStream(estimator), rows[:130]), estimator.transform(rows)[:130], **CLOSE
        )


@given(cut=st.integers(0, 59), seed=st.integers(0, 9))
@settings(max_examples=5)
def test_warm_up_takes_in_the_bins_before(of_recording, rows, cut, seed):
    X = with_losses(rows[:60], seed=seed)
    stream = RateStream(of_recording).warm_up(X[:cut])
    assert_allclose(steps(stream, X[cut:]), of_recording.transform(X)[cut:], **CLOSE)


def test_reset_begins_anew(network, spikes):
    stream = RateStream(network)
    first = steps(stream, spikes[0])
    assert (steps(stream, spikes[0]) != first).any()
    assert_array_equal(steps(stream.reset(), spikes[0]), first)
    assert_array_equal(steps(stream.reset().warm_up(spikes[1]).reset(), spikes[0]), first)


def test_several_streams_are_independent(causal, spikes):
    X = with_losses(spikes[:3])
    stream = RateStream(causal, n_streams=3)
    rates = steps(stream, X)
    assert rates.shape == (20, 3, N_NEURONS)
    assert_allclose(rates.swapaxes(0, 1), causal.transform(X), **CLOSE)
    for chosen in ([1], np.array([False, True, False])):
        stream.reset().warm_up(spikes[3:6])
        stream.reset(chosen)
        rates = steps(stream, X)
        assert_allclose(rates[:, 1], causal.transform(X[1]), **CLOSE)
        both = np.concatenate([spikes[3:6], X], axis=1)
        assert_allclose(rates[:, 0], causal.transform(both)[0, 20:], **CLOSE)


def test_rates_ahead_are_those_of_forecast(causal, spikes):
    stream = RateStream(causal, ahead=3)
    for bin_, counts in enumerate(spikes[0]):
        rates = stream.step(counts)
        assert rates.shape == (4, N_NEURONS)
        assert_allclose(rates[0], causal.transform(spikes[0])[bin_], **CLOSE)
        assert_allclose(rates[1:], causal.forecast(spikes[0, : bin_ + 1], 3), **CLOSE)
    several = RateStream(causal, n_streams=2, ahead=1)
    assert several.step(spikes[:2, 0]).shape == (2, 2, N_NEURONS)


def test_more_bins_ahead_than_trained_are_unreliable(causal, network):
    with pytest.warns(UserWarning, match="trained with forecast_bins=3; the other 2 of 5 bins"):
        RateStream(causal, ahead=5)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, bool, float])
def test_rates_have_the_type_of_transform(causal, spikes, dtype):
    X = (spikes[0] > 0).astype(dtype)
    rates = RateStream(causal).step(X[0])
    assert rates.dtype == (np.float32 if dtype == np.float32 else np.float64)
    assert_allclose(rates, causal.transform(X)[0], **CLOSE)


def test_an_ensemble_is_averaged(ensemble, spikes):
    assert_allclose(steps(RateStream(ensemble), spikes[0]), ensemble.transform(spikes[0]), **CLOSE)


def test_heldout_neurons_stay_hidden(small, perturbed, spikes):
    estimator = perturbed(small(causal=True, max_epochs=1, heldout_neurons=[2, 5]).fit(spikes))
    X = spikes[0].copy()
    rates = steps(RateStream(estimator), X)
    assert_allclose(rates, estimator.transform(X), **CLOSE)
    X[:, [2, 5]] += 3
    assert_array_equal(steps(RateStream(estimator), X), rates)


@pytest.mark.parametrize("n_streams", [None, 2])
@pytest.mark.parametrize(
    "decoder",
    [
        Ridge(),
        BinwiseRegressor(),
        BinwiseRegressor(lag=2),
        BinwiseRegressor(lag=1, history=3),
        GridSearchCV(Ridge(), {"alpha": [0.1, 10.0]}, cv=2),
        TransformedTargetRegressor(Ridge(), transformer=StandardScaler()),
    ],
    ids=["Ridge", "binwise", "lag", "lag and history", "search", "target"],
)
def test_a_pipeline_gives_behaviour(ensemble, rows, reaches, n_streams, decoder):
    rates, velocity = ensemble.transform(rows), reaches.velocity.reshape(-1, 2)
    pca = PCA(4).fit(rates)
    pipeline = make_pipeline(ensemble, pca, clone(decoder).fit(pca.transform(rates), velocity))
    X = rows[:60] if n_streams is None else rows[:60].reshape(2, 30, -1)
    stream = RateStream(pipeline, n_streams)
    for warm in (0, 5):
        stream.reset().warm_up(X[..., :warm, :])
        predicted = steps(stream, X[..., warm:, :])
        if n_streams is None:
            expected = pipeline.predict(X)[warm:]
        else:
            each = [pipeline.predict(x)[warm:] for x in X]
            expected = np.stack(each, axis=1)
        assert predicted.shape == expected.shape
        assert_allclose(predicted, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("decoder", [LogisticRegression(), BinwiseClassifier(lag=1, history=1)])
def test_a_pipeline_gives_labels(causal, rows, decoder):
    labels = np.where(np.arange(len(rows)) % 40 < 20, "left", "right")
    pipeline = make_pipeline(causal, decoder.fit(causal.transform(rows), labels))
    assert_array_equal(steps(RateStream(pipeline), rows[:50]), pipeline.predict(rows)[:50])


def test_behaviour_ahead_is_decoded_from_rates_ahead(causal, rows, reaches):
    decoder = BinwiseRegressor(lag=1, history=1)
    decoder.fit(causal.transform(rows), reaches.velocity.reshape(-1, 2))
    pipeline = make_pipeline(causal, decoder)
    X = rows[:12]
    predicted = RateStream(pipeline, ahead=3).warm_up(X[:-1]).step(X[-1])
    hidden = np.concatenate([X, np.full((3, N_NEURONS), np.nan)])
    assert_allclose(predicted, pipeline.predict(hidden)[-4:], rtol=1e-3, atol=1e-4)


def twice(X):
    return 2 * X


def test_steps_around_the_network_and_names_of_neurons(small, perturbed, spikes, rows):
    """Tables in fit, arrays in the loop; and a transformer of counts before the network."""
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(rows, columns=[f"unit {i}" for i in range(N_NEURONS)])
    pipeline = make_pipeline(
        FunctionTransformer(twice),
        small(causal=True, max_epochs=1),
        Ridge(),
    ).set_output(transform="pandas")
    pipeline.fit(table, rows[:, :2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predicted = steps(RateStream(pipeline), rows[:20])
    assert_allclose(predicted, pipeline.predict(table.iloc[:20]), rtol=1e-3, atol=1e-4)


def test_a_search_gives_its_best_estimator(small, rows):
    search = GridSearchCV(small(causal=True, max_epochs=1, window=20), {"lr": [1e-3]}, cv=2)
    search.fit(rows)
    rates = steps(RateStream(search), rows[:10])
    assert_allclose(rates, search.transform(rows[:10]), **CLOSE)


def test_what_is_not_causal_is_refused(fitted, causal, rows, spikes):
    with pytest.raises(ValueError, match=r"depend on later bins.*STNDTEstimator\(causal=True\)"):
        RateStream(fitted)
    with pytest.raises(ValueError, match=r"depend on later bins"):
        RateStream(make_pipeline(fitted, Ridge()))
    rates = causal.transform(rows)
    with pytest.raises(ValueError, match=r"lag=-1.*rates of later ones"):
        RateStream(make_pipeline(causal, BinwiseRegressor(lag=-1).fit(rates, rates)))
    outside = TransformedTargetRegressor(make_pipeline(causal, Ridge()))
    outside.regressor_ = make_pipeline(causal, Ridge().fit(rates, rates))
    with pytest.raises(TypeError, match="Put it last into the pipeline"):
        RateStream(outside)
    with pytest.raises(TypeError, match="Expected a fitted STNDTEstimator"):
        RateStream(make_pipeline(PCA(), Ridge()))
    with pytest.raises(TypeError, match=r"DBSCAN, the last step .* neither predict nor transform"):
        RateStream(make_pipeline(causal, DBSCAN()))


@pytest.mark.parametrize("decoder", [Ridge(), BinwiseRegressor(Ridge()), StandardScaler()])
def test_steps_that_are_not_fitted_are_refused_before_the_loop(causal, decoder):
    with pytest.raises(NotFittedError, match=f"This {type(decoder).__name__} .* is not fitted yet"):
        RateStream(make_pipeline(causal, decoder))


def smooth(X):
    return gaussian_filter1d(np.asarray(X, dtype=float), 1, axis=0)


def test_steps_that_mix_bins_are_refused(causal, rows):
    mixing = FunctionTransformer(smooth).fit(rows)
    ridge = Ridge().fit(causal.transform(rows), rows[:, :2])
    for pipeline in (
        make_pipeline(causal, mixing, ridge),
        make_pipeline(causal, mixing),
        make_pipeline(mixing, causal, ridge),
    ):
        with pytest.raises(ValueError, match=r"FunctionTransformer.* depends on other bins"):
            RateStream(pipeline)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_streams": 0}, r"n_streams must be a whole number of at least 1, got 0"),
        ({"n_streams": 1.5}, r"n_streams must be .* got 1\.5"),
        ({"ahead": -1}, r"ahead must be a whole number of at least 0, got -1"),
        ({"ahead": None}, r"ahead must be .* got None"),
    ],
)
def test_parameters_are_checked(causal, params, message):
    with pytest.raises(ValueError, match=message):
        RateStream(causal, **params)


@pytest.mark.parametrize("n_streams", [None, 2])
def test_counts_are_checked(causal, n_streams):
    stream = RateStream(causal, n_streams)
    good = np.ones(stream.step(np.ones((2, N_NEURONS)[n_streams is None :])).shape)
    for bad, message in [
        (good[..., 1:], r"counts has shape .* is expected: one bin of all 12 neurons"),
        (np.stack([good] * 3), r"counts has shape \(3, "),
        (-good, r"counts holds values that are not spikes per bin, .*: -1, -1"),
        (np.inf * good, "counts holds values that are not spikes per bin, .*: inf"),
        (1e9 * good, r"from 0 to 3,269,017: 1e\+09"),
        ([[1], [1, 2]], "counts is not a rectangular array"),
    ]:
        with pytest.raises(ValueError, match=message):
            stream.step(bad)
    for bad in (good.astype(complex), good.astype(str), good.astype("m8[s]"), None):
        with pytest.raises((TypeError, ValueError), match=r"counts has (dtype|shape)"):
            stream.step(bad)
    with pytest.raises(ValueError, match=r"X has shape .*n_bins, 12"):
        stream.warm_up(good[..., None])
    with pytest.raises(ValueError, match="X holds values that are not spikes per bin"):
        stream.warm_up(-good[..., None, :])


def test_counts_may_be_lists_tables_and_masked_arrays(causal, spikes):
    pd = pytest.importorskip("pandas")
    counts = spikes[0, 0].astype(float)
    hidden = np.where(np.arange(N_NEURONS) == 3, np.nan, counts)
    expected = RateStream(causal).step(hidden)
    masked = np.ma.masked_array(counts, mask=np.isnan(hidden))
    for same in (hidden.tolist(), pd.Series(hidden), pd.Series(hidden).astype("Int64"), masked):
        assert_array_equal(RateStream(causal).step(same), expected)


def test_neurons_of_a_table_have_the_names_and_the_order_of_fit(small, rows):
    pd = pytest.importorskip("pandas")
    names = [f"unit {i}" for i in range(N_NEURONS)]
    network = small(causal=True, max_epochs=1).fit(pd.DataFrame(rows, columns=names))
    counts = pd.Series(rows[0], index=names)
    assert_array_equal(RateStream(network).step(counts), RateStream(network).step(rows[0]))
    with pytest.raises(ValueError, match="have other names, or another order, than in fit"):
        RateStream(network).step(counts[::-1])


def test_only_streams_that_exist_are_reset(causal, spikes):
    stream = RateStream(causal, n_streams=3)
    for wrong in ([3], -4, [True, False], True, [1.0], "all"):
        with pytest.raises(ValueError, match="streams must be indices from 0 to 2, or a mask of 3"):
            stream.reset(wrong)
    first = stream.step(spikes[:3, 0])
    assert (stream.reset([]).step(spikes[:3, 0]) != first).all()
    assert_allclose(stream.reset([0, -1]).step(spikes[:3, 0])[[0, 2]], first[[0, 2]], **CLOSE)


@pytest.mark.parametrize(("name", "value"), [("n_streams", 2), ("ahead", 1), ("n_neurons", 3)])
def test_the_form_of_a_stream_cannot_be_changed(causal, name, value):
    stream = RateStream(causal)
    with pytest.raises(AttributeError, match=f"{name} of a RateStream cannot be changed"):
        setattr(stream, name, value)


@pytest.mark.parametrize("copied", [pickle_copy, copy.deepcopy])
def test_a_copy_continues_from_the_same_bin(causal, rows, copied):
    decoder = BinwiseRegressor(Ridge(), lag=1, history=2).fit(causal.transform(rows), rows[:, :2])
    stream = RateStream(make_pipeline(causal, decoder))
    steps(stream, rows[:7])
    other = copied(stream)
    assert_array_equal(steps(other, rows[7:15]), steps(stream, rows[7:15]))


def test_streams_in_threads_do_not_disturb_each_other(causal, spikes):
    with ThreadPoolExecutor(3) as pool:
        rates = list(pool.map(lambda trial: steps(RateStream(causal), trial), spikes[:3]))
    assert_allclose(rates, causal.transform(spikes[:3]), **CLOSE)


def test_a_refused_bin_leaves_the_stream_as_it_was(causal, spikes):
    stream = RateStream(causal)
    stream.step(spikes[0, 0])
    with pytest.raises(ValueError, match="not spikes per bin"):
        stream.step(-np.ones(N_NEURONS))
    assert_allclose(stream.step(spikes[0, 1]), causal.transform(spikes[0])[1], **CLOSE)


def test_a_stream_does_not_change_the_estimator(causal, spikes):
    before = causal.transform(spikes)
    stream = RateStream(causal)
    causal_rates = steps(stream, spikes[0])
    assert_array_equal(causal.transform(spikes), before)
    assert_allclose(causal_rates, before[0], **CLOSE)


def test_memory_does_not_grow(of_recording, rows):
    stream = RateStream(of_recording, ahead=0)
    memory = stream._networks[0][2].memory

    def n_bytes():
        return sum(buffer.nbytes for buffer in memory.buffers.values())

    before = n_bytes()
    where = [buffer.data_ptr() for buffer in memory.buffers.values()]
    steps(stream, rows[:200])
    assert n_bytes() == before
    assert [buffer.data_ptr() for buffer in memory.buffers.values()] == where
