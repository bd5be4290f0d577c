"""What comes in goes out: pynapple, xarray, pandas and polars."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer

from sklearn_stndt import BaggingEnsemble, BinwiseRegressor
from sklearn_stndt._containers import runs
from sklearn_stndt._rates import infer_rates
from sklearn_stndt.inspection import attention_maps, neuron_dropping_curve, neuron_importance
from sklearn_stndt.metrics import bits_per_spike, co_smoothing_scorer, velocity_scorer
from sklearn_stndt.plotting import EnsembleCurveDisplay, RatesDisplay

nap = pytest.importorskip("pynapple")
xr = pytest.importorskip("xarray")
pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

BIN_WIDTH = 0.02
NAMES = [f"unit {i}" for i in range(12)]
DTYPES = ["float32", "float64", "int64", "uint8"]


@pytest.fixture(scope="module")
def window(small):
    """Make an estimator of rows with a window of one trial."""
    return lambda **params: small(**({"window": 20, "max_epochs": 1} | params))


def frame(rows, dtype="float64", jumps=(), **keywords):
    """A TsdFrame; before each row of `jumps`, an epoch ends and ten seconds are missing."""
    t = BIN_WIDTH * (np.arange(len(rows)) + 0.5)
    for row in jumps:
        t[row:] += 10
    edges = [0, *jumps, len(rows)]
    support = nap.IntervalSet(
        [t[row] - BIN_WIDTH / 2 for row in edges[:-1]],
        [t[row - 1] + BIN_WIDTH / 2 for row in edges[1:]],
    )
    keywords = {"columns": NAMES, "time_support": support} | keywords
    return nap.TsdFrame(t=t, d=rows.astype(dtype), **keywords)


def tensor(spikes, dtype="float64"):
    """A TsdTensor as `nap.compute_perievent` returns it: (time, trial, neuron)."""
    t = BIN_WIDTH * np.arange(-5, spikes.shape[1] - 5)
    return nap.TsdTensor(t=t, d=np.moveaxis(spikes, 1, 0).astype(dtype))


def data_array(counts, dtype="float64"):
    dims = ("trial", "time", "neuron")[-counts.ndim :]
    coords = {
        "time": BIN_WIDTH * np.arange(counts.shape[-2]),
        "neuron": NAMES,
        "area": ("neuron", ["M1", "PMd"] * 6),
    }
    if counts.ndim == 3:
        coords["condition"] = ("trial", np.arange(len(counts)) % 3)
    attrs = {"units": "spikes per bin", "animal": "synthetic"}
    return xr.DataArray(counts.astype(dtype), coords, dims, "counts", attrs)


# --- what goes in comes out


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tsdframe_comes_back_on_its_clock(window, rows, dtype):
    X = frame(rows, dtype, metadata={"area": ["M1", "PMd"] * 6})
    before = copy.deepcopy(X)
    network = window()
    rates = network.fit_transform(X)
    assert type(rates) is nap.TsdFrame
    assert_array_equal(rates.t, X.t)
    assert_array_equal(rates.time_support.values, X.time_support.values)
    assert list(rates.columns) == NAMES
    assert rates.metadata.equals(X.metadata)
    assert_array_equal(rates.d, window().fit_transform(rows.astype(dtype)))
    assert rates.d.dtype == ("float32" if dtype == "float32" else "float64")
    assert_array_equal(X.d, before.d)  # the caller's object is unchanged
    assert X.d.dtype == dtype
    assert_array_equal(network.feature_names_in_, NAMES)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tsdtensor_is_time_by_trials_by_neurons(small, spikes, dtype):
    X = tensor(spikes, dtype)
    network = small(max_epochs=1).fit(X)
    rates = network.transform(X)
    assert type(rates) is nap.TsdTensor
    assert rates.shape == X.shape == (20, 24, 12)
    assert_array_equal(rates.t, X.t)
    of_array = small(max_epochs=1).fit(spikes.astype(dtype))
    assert_array_equal(np.moveaxis(rates.d, 1, 0), of_array.transform(spikes.astype(dtype)))
    assert network.score(X) == of_array.score(spikes.astype(dtype))
    assert network.window_ == 20


def test_a_single_bin_comes_back_too(window, rows):
    network = window().fit(frame(rows))
    rates = network.transform(frame(rows)[:1])
    assert rates.shape == (1, 12)
    assert_array_equal(rates.d, network.transform(frame(rows[:1])).d)


def test_counts_around_events_are_a_tsdtensor_that_transform_takes(small, rows):
    X = nap.compute_perievent(frame(rows), nap.Ts([2.0, 4.0, 6.0]), (-0.2, 0.4))
    assert small(max_epochs=1).fit_transform(X).shape == X.shape == (31, 3, 12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_dataarray_keeps_dimensions_coordinates_and_attributes(window, spikes, rows, ndim, dtype):
    counts = rows if ndim == 2 else spikes
    X = data_array(counts, dtype)
    before = X.copy(deep=True)
    network = window()
    rates = network.fit_transform(X)
    assert rates.dims == X.dims
    assert rates.coords.to_dataset().identical(X.coords.to_dataset())
    assert rates.attrs == X.attrs
    assert rates.name == "rates"
    assert rates.dtype == ("float32" if dtype == "float32" else "float64")
    assert_array_equal(rates.data, window().fit_transform(counts.astype(dtype)))
    assert_array_equal(network.feature_names_in_, NAMES)
    assert X.identical(before)
    rates.attrs["animal"] = "another"
    rates.coords["area"].data[0] = "?"
    assert X.identical(before)


def test_rates_of_stored_integers_are_not_stored_as_integers(small, spikes):
    X = data_array(spikes)
    X.encoding = {"dtype": "int16", "_FillValue": -1}
    assert small(max_epochs=1).fit_transform(X).encoding == {}
    assert X.encoding["dtype"] == "int16"


@pytest.mark.parametrize(
    "make", [frame, data_array, lambda rows: pd.DataFrame(rows), lambda rows: pl.DataFrame(rows)]
)
@pytest.mark.parametrize(("output", "kind"), [("pandas", pd.DataFrame), ("polars", pl.DataFrame)])
def test_set_output_decides_for_every_container(window, rows, make, output, kind):
    network = window().set_output(transform=output)
    assert type(network.fit_transform(make(rows))) is kind
    assert type(infer_rates(network, make(rows))) is np.ndarray
    with config_context(transform_output=output):
        assert type(window().fit_transform(make(rows))) is kind


@pytest.mark.parametrize(
    "make", [pd.DataFrame, pl.DataFrame, np.ma.masked_array, np.ndarray.tolist]
)
def test_tables_masked_arrays_and_lists_give_arrays(window, rows, make):
    rates = window().fit_transform(make(rows))
    assert type(rates) is np.ndarray
    assert_array_equal(rates, window().fit_transform(rows))


@pytest.mark.parametrize("make", [frame, data_array])
def test_a_list_of_trials_gives_an_array(small, spikes, make):
    rates = small(max_epochs=1).fit_transform([make(trial) for trial in spikes])
    assert_array_equal(rates, small(max_epochs=1).fit_transform(spikes))


def test_a_memory_map_inside_a_container_is_read_as_one(window, rows, tmp_path, monkeypatch):
    np.save(tmp_path / "counts.npy", rows)
    mapped = np.load(tmp_path / "counts.npy", mmap_mode="r")
    monkeypatch.setattr("sklearn_stndt.windows.out_of_core.LARGE_RESULT", 1)
    t = BIN_WIDTH * np.arange(len(rows))
    for X in (
        nap.TsdFrame(t=t, d=mapped, load_array=False),
        xr.DataArray(mapped, dims=("time", "unit")),
    ):
        rates = window().fit_transform(X)
        assert type(rates) is type(X)
        assert_array_equal(np.asarray(rates), window().fit_transform(mapped))


def test_hidden_entries_of_a_container_stay_hidden(window, rows):
    counts = rows.copy()
    counts[30:50, 3] = np.nan
    rates = window().fit(frame(rows)).transform(frame(counts))
    assert_array_equal(rates.d, window().fit(rows).transform(counts))
    assert not np.isnan(rates.d).any()


@pytest.mark.parametrize("make", [frame, data_array])
def test_disagreement_of_members_has_the_container_of_the_rates(window, rows, make):
    ensemble = BaggingEnsemble(window(), n_estimators=2, random_state=0).fit(make(rows))
    std = ensemble.rate_std(make(rows))
    assert type(std) is type(ensemble.transform(make(rows))) is type(make(rows))
    of_array = BaggingEnsemble(window(), n_estimators=2, random_state=0).fit(rows)
    assert_array_equal(np.asarray(std), of_array.rate_std(rows))
    assert_array_equal(ensemble.score_curve(make(rows)), of_array.score_curve(rows))


# --- names of neurons


@pytest.mark.parametrize("make", [frame, data_array])
def test_neurons_in_another_order_are_refused(window, rows, make):
    network = window().fit(make(rows))
    other = rows[:, ::-1]
    X = (
        frame(other, columns=NAMES[::-1])
        if make is frame
        else data_array(other).assign_coords(neuron=NAMES[::-1])
    )
    with pytest.raises(ValueError, match="feature names"):
        network.transform(X)


@pytest.mark.parametrize("names", [range(12), [*range(11), "last"]])
def test_names_that_are_not_all_strings_are_ignored(window, rows, names):
    names = list(names)
    mixed = data_array(rows).assign_coords(neuron=pd.Index(names, dtype=object))
    for X in (frame(rows, columns=pd.Index(names, dtype=object)), mixed):
        network = window().fit(X)
        assert not hasattr(network, "feature_names_in_")
        assert network.n_features_in_ == 12


# --- gaps in the clock


EPOCHS = np.repeat([0, 1, 2], [200, 80, 200])
JUMPS = (200, 280)


def stacked(rows):
    """Trials of 20 bins one below the other, time starting again with each."""
    return (
        data_array(rows.reshape(-1, 20, 12))
        .stack(bins=("trial", "time"))
        .transpose("bins", "neuron")
    )


def with_gap(rows):
    """A DataArray without epochs, whose clock jumps."""
    return data_array(rows).assign_coords(time=frame(rows, jumps=JUMPS).t)


def with_dates(rows):
    start = np.datetime64("2026-01-01", "ns")
    times = start + (1e9 * frame(rows, jumps=JUMPS).t).astype("timedelta64[ns]")
    return data_array(rows).assign_coords(time=times)


def touching(rows):
    """Epochs without a gap between them."""
    t = BIN_WIDTH * (np.arange(len(rows)) + 0.5)
    edges = BIN_WIDTH * np.array([0, 200, 280, 480])
    support = nap.IntervalSet(edges[:-1], edges[1:] - 1e-4)
    return nap.TsdFrame(t=t, d=rows, columns=NAMES, time_support=support)


CLOCKS = {
    "epochs": (lambda rows: frame(rows, jumps=JUMPS), EPOCHS),
    "touching epochs": (touching, EPOCHS),
    "times": (with_gap, EPOCHS),
    "dates": (with_dates, EPOCHS),
    "stacked trials": (stacked, np.arange(480) // 20),
}


@pytest.fixture(params=CLOCKS)
def clocked(request, rows):
    make, groups = CLOCKS[request.param]
    return make(rows), groups


def test_windows_never_span_a_gap_in_the_clock(window, rows, clocked):
    X, groups = clocked
    network, of_array = window().fit(X), window().fit(rows, groups=groups)
    expected = of_array.transform(rows, groups=groups)
    assert_array_equal(np.asarray(network.transform(X)), expected)
    assert network.score(X) == of_array.score(rows, groups=groups)
    assert not np.array_equal(expected, of_array.transform(rows))
    assert_array_equal(infer_rates(network, X), expected)


def test_groups_are_divided_at_gaps(window, rows, groups):
    X = frame(rows, jumps=(50,), columns=range(12))  # within the third trial
    divided = 2 * groups + (np.arange(480) >= 50)
    network = window().fit(rows)
    expected = network.transform(rows, groups=divided)
    assert_array_equal(infer_rates(network, X, groups), expected)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        network.transform(X, groups=groups[1:])


def test_epochs_are_trials_for_the_choice_of_the_window_and_gaps_are_not(small, rows):
    make = {"max_epochs": 1, "attention": "temporal"}
    of_groups = small(**make).fit(rows, groups=EPOCHS)
    assert small(**make).fit(frame(rows, jumps=JUMPS)).window_ == of_groups.window_ == 200
    rest = frame(rows)[np.r_[0:100, 200:480]]  # as in cross-validation
    assert small(**make).fit(rest).window_ == small(**make).fit(rows).window_ == 128


def test_a_curve_of_a_decoder_takes_epochs(window, rows, reaches):
    X = frame(rows, jumps=JUMPS)
    y = reaches.velocity.reshape(len(rows), -1)
    decoder = make_pipeline(window(), Ridge()).fit(X, y)
    curve = neuron_dropping_curve(
        decoder, X, y, scorers="r2", n_steps=1, n_random=2, random_state=0
    )
    assert_allclose(curve.scores["r2"][0], decoder.score(X, y))


def test_an_ensemble_never_joins_epochs(window, rows):
    X = frame(rows, jumps=JUMPS)
    params = {"n_estimators": 2, "bootstrap": True, "oob_score": True, "random_state": 0}
    ensemble = BaggingEnsemble(window(), **params).fit(X)
    shown = ensemble.transform(X)
    parts = [np.asarray(ensemble.transform(frame(rows[epoch == EPOCHS]))) for epoch in range(3)]
    assert_allclose(shown.d, np.concatenate(parts), atol=1e-6)
    # blocks are drawn within epochs, so that there are not only three trials to draw from
    n_drawn = max(drawn.max() for drawn in ensemble.estimators_samples_) + 1
    assert n_drawn > 10


def test_members_that_take_no_groups_refuse_gaps(window, rows):
    members = make_pipeline(FunctionTransformer(), window())
    ensemble = BaggingEnsemble(members, n_estimators=2, random_state=0)
    with pytest.raises(ValueError, match=r"fit of Pipeline does not take groups"):
        ensemble.fit(frame(rows, jumps=JUMPS))
    assert ensemble.fit(frame(rows)).transform(frame(rows)).shape == rows.shape


def test_inspection_and_displays_see_the_gaps(window, rows):
    pytest.importorskip("matplotlib").use("Agg")
    X = frame(rows, jumps=JUMPS)
    network = window(heldout_neurons=[11]).fit(X)
    table = pd.DataFrame(rows, columns=NAMES)
    maps = attention_maps(network, X)
    assert_array_equal(maps.trials, attention_maps(network, table, groups=EPOCHS).trials)
    importance = [
        neuron_importance(network, data, "hiding", groups=groups, random_state=0)
        for data, groups in ((X, None), (table, EPOCHS))
    ]
    assert_array_equal(*importance)
    scorer = co_smoothing_scorer([11])
    curves = [
        neuron_dropping_curve(
            network, data, scorers=scorer, groups=groups, n_steps=1, n_random=2, random_state=0
        )
        for data, groups in ((X, None), (table, EPOCHS))
    ]
    (name,) = curves[0].scores
    assert_array_equal(curves[0].scores[name], curves[1].scores[name])
    rates = RatesDisplay.from_estimator(network, X).rates
    assert_array_equal(rates, infer_rates(network, table, EPOCHS))
    ensemble = BaggingEnsemble(window(), n_estimators=2, random_state=0).fit(X)
    alone = EnsembleCurveDisplay.from_estimator(ensemble, X).member_scores
    assert alone[0] == ensemble.estimators_[0].score(rows, groups=EPOCHS)


def test_rows_out_of_order_are_refused(window, rows):
    X = frame(rows)
    draw = np.random.default_rng(0).permutation(len(rows))
    for scrambled in (X[draw], X[np.sort(draw[:100])], data_array(rows)[draw]):
        with pytest.raises(ValueError, match="not consecutive bins in order of time"):
            window().fit(scrambled)


def test_a_gap_within_trials_is_refused(small, spikes):
    bins = [*range(5), *range(8, 20)]
    trials = [frame(trial, jumps=(8,)) for trial in spikes]
    for X in (tensor(spikes)[bins], data_array(spikes).isel(time=bins), trials):
        with pytest.raises(ValueError, match="gap within trials"):
            small().fit(X)


def test_a_clock_with_jitter_has_no_gaps(rows):
    t = BIN_WIDTH * (np.arange(len(rows)) + np.random.default_rng(0).uniform(0, 0.2, len(rows)))
    assert runs(nap.TsdFrame(t=t, d=rows)) is None
    assert runs(frame(rows)[:1]) is None
    assert runs(rows) is None


# --- forecasts


def test_a_forecast_continues_the_clock(window, rows):
    network = window(forecast_bins=3).fit(rows)
    expected = network.forecast(rows, 3)
    later = network.forecast(frame(rows, columns=range(12)), 3)
    assert_array_equal(later.d, expected)
    assert_allclose(later.t, BIN_WIDTH * (480.5 + np.arange(3)))
    assert_allclose(later.time_support.values, BIN_WIDTH * np.array([[480, 483]]))
    X = data_array(rows).drop_vars("neuron").assign_coords(speed=("time", np.zeros(480)))
    array = network.forecast(X, 3)
    assert_array_equal(array.data, expected)
    assert_allclose(array.coords["time"], BIN_WIDTH * (480 + np.arange(3)))
    assert set(array.coords) == {"time", "area"}  # the speed of later bins is not known


def test_a_forecast_of_trials_continues_their_clock(small, spikes):
    network = small(forecast_bins=2, max_epochs=1).fit(spikes)
    expected = network.forecast(spikes, 2)
    later = network.forecast(tensor(spikes), 2)
    assert_array_equal(np.moveaxis(later.d, 1, 0), expected)
    assert_allclose(later.t, BIN_WIDTH * np.array([15, 16]))
    array = network.forecast(data_array(spikes).drop_vars("neuron"), 2)
    assert_array_equal(array.data, expected)
    assert "condition" in array.coords


@pytest.mark.parametrize("bins", [1, 7])
def test_a_forecast_ignores_what_was_before_a_gap(window, rows, bins):
    network = window(forecast_bins=3).fit(rows)
    X = frame(rows, jumps=(480 - bins,), columns=range(12))
    assert_array_equal(np.asarray(network.forecast(X, 3)), network.forecast(rows[-bins:], 3))


# --- with scikit-learn


@pytest.mark.parametrize("make", [frame, data_array])
def test_pipelines_and_searches_take_containers(window, rows, reaches, make):
    y = reaches.velocity.reshape(len(rows), -1)
    X = make(rows)
    pipeline = make_pipeline(window(), Ridge())
    predicted = pipeline.fit(X, y).predict(X)
    assert type(predicted) is np.ndarray
    assert_array_equal(predicted, make_pipeline(window(), Ridge()).fit(rows, y).predict(rows))
    search = GridSearchCV(pipeline, {"ridge__alpha": [1, 10]}, cv=3, error_score="raise")
    assert np.isfinite(search.fit(X, y).best_score_)
    assert make_union(window(), window()).fit_transform(X).shape == (480, 24)


@pytest.mark.parametrize("make", [frame, data_array])
def test_rows_are_cut_by_cross_validation_with_their_clock(window, rows, make):
    scores = cross_val_score(window(), make(rows), cv=KFold(3), error_score="raise")
    expected = []
    for train, test in KFold(3).split(rows):
        part = np.cumsum(np.diff(train, prepend=train[0] - 1) > 1)
        fitted = window().fit(rows[train], groups=part)
        expected.append(fitted.score(rows[test]))
    assert_array_equal(scores, expected)


def test_trials_of_a_dataarray_are_cut_by_cross_validation(small, spikes):
    scores = [
        cross_val_score(small(max_epochs=1), X, cv=3, error_score="raise")
        for X in (data_array(spikes), spikes)
    ]
    assert_array_equal(*scores)


def test_a_shuffled_split_of_a_tsdframe_is_noticed(window, rows):
    cv = KFold(5, shuffle=True, random_state=0)
    with pytest.raises(ValueError, match="split at random"):
        cross_val_score(window(), frame(rows), cv=cv, error_score="raise")


@pytest.mark.parametrize("make", [tensor, data_array])
def test_scorers_decoders_and_displays_take_trials_in_containers(small, spikes, reaches, make):
    pytest.importorskip("matplotlib").use("Agg")
    network = small(max_epochs=1).fit(make(spikes))
    of_array = small(max_epochs=1).fit(spikes)
    X = make(spikes)
    scorer = co_smoothing_scorer([1, 4])
    assert scorer(network, X) == scorer(of_array, spikes)
    velocity = velocity_scorer()
    assert velocity(network, X, reaches.velocity) == velocity(of_array, spikes, reaches.velocity)
    rates = network.transform(X)
    expected = of_array.transform(spikes)
    assert_array_equal(RatesDisplay.from_estimator(network, X, trial=3).rates, expected[3])
    assert bits_per_spike(X, rates) == bits_per_spike(spikes, expected)
    decoders = [
        make_pipeline(small(max_epochs=1), BinwiseRegressor(Ridge(), lag=2)).fit(data, target)
        for data, target in ((X, reaches.velocity), (spikes, reaches.velocity))
    ]
    assert_array_equal(decoders[0].predict(X), decoders[1].predict(spikes))


def test_behaviour_may_be_a_tsdtensor_too(spikes, reaches):
    y = nap.TsdTensor(t=tensor(spikes).t, d=np.moveaxis(reaches.velocity, 1, 0))
    with_lag = BinwiseRegressor(Ridge(), lag=2)
    predicted = with_lag.fit(tensor(spikes), y).predict(tensor(spikes))
    assert_array_equal(predicted, with_lag.fit(spikes, reaches.velocity).predict(spikes))


def test_scorers_hide_neurons_within_epochs(window, rows):
    X = frame(rows, jumps=JUMPS)
    network = window().fit(X)
    table = pd.DataFrame(rows, columns=NAMES)
    scorer = co_smoothing_scorer([1, 4])
    assert scorer(network, X) == scorer(network, table, groups=EPOCHS)


def test_a_fitted_estimator_is_pickled_without_the_container(window, rows):
    network = window().fit(frame(rows, jumps=JUMPS))
    assert b"pynapple" not in pickle.dumps(network)


# --- what is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: data_array(c).transpose("neuron", "time", "trial"), "'trial', 'time', 'neuron'"),
        (lambda c: data_array(c)[0].T, r"Pass X.transpose\('time', 'neuron'\)"),
        (
            lambda c: data_array(c).rename(trial="stimulus").transpose("time", "stimulus", ...),
            "'stimulus', 'time', 'neuron'",
        ),
        (lambda c: data_array(c)[:, 0], "Pass an array with these dimensions"),
        (lambda c: data_array(c).to_dataset(), r"such as X\['counts'\]"),
        (lambda c: nap.TsGroup({0: nap.Ts([0.1, 0.2])}), r"units.count\(bin_size\)"),
        (lambda c: nap.Ts([0.1, 0.2]), "spike times"),
        (lambda c: dict(enumerate(c)), r"list\(X.values\(\)\)"),
    ],
)
def test_what_is_no_array_of_counts_is_refused_with_a_remedy(small, spikes, make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        small().fit(make(spikes))


@pytest.mark.parametrize(
    "dims", [("stimulus_presentation_id", "time_relative_to_onset", "unit_id"), ("a", "b", "c")]
)
def test_dimensions_may_have_other_names(small, spikes, dims):
    X = xr.DataArray(spikes, dims=dims)
    assert small(max_epochs=1).fit_transform(X).dims == dims


def test_nothing_is_imported_for_other_objects():
    code = (
        "import sys, numpy as np\n"
        "from sklearn_stndt import STNDTEstimator\n"
        "X = np.random.default_rng(0).poisson(1, (40, 5))\n"
        "STNDTEstimator(d_model=8, n_heads=2, max_epochs=1).fit(X).transform(X)\n"
        "print(sorted({'polars', 'pynapple', 'xarray'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_object_of_the_users_own_class_is_treated_as_its_base(window, rows):
    class Counts(nap.TsdFrame):
        pass

    X = Counts(t=BIN_WIDTH * np.arange(len(rows)), d=rows)
    assert isinstance(window().fit_transform(X), nap.TsdFrame)
