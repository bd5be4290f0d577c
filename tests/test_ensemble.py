import pickle

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import check_random_state
from skorch.callbacks import Callback

from sklearn_stndt import BaggingEnsemble
from sklearn_stndt.metrics import bits_per_spike


class Recorder(TransformerMixin, BaseEstimator):
    """Keeps its training data; rates are their mean."""

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, X, y=None, groups=None):
        self.X_, self.groups_ = X, groups
        return self

    def transform(self, X, groups=None):
        return np.broadcast_to(self.X_.mean(axis=tuple(range(self.X_.ndim - 1))), X.shape)


@pytest.fixture(scope="module")
def ensemble(small, spikes):
    return BaggingEnsemble(small(), n_estimators=3, random_state=0).fit(spikes)


@pytest.fixture(scope="module")
def heldout_ensemble(small, spikes):
    base = small(heldout_neurons=3, random_state=None)
    return BaggingEnsemble(base, n_estimators=3, random_state=0).fit(spikes)


# ---- rates and scores


@pytest.mark.parametrize("ndim", [2, 3])
def test_rates_are_the_mean_of_the_members_rates(ensemble, spikes, rows, groups, ndim):
    X, keywords = (spikes, {}) if ndim == 3 else (rows, {"groups": groups})
    of_members = [member.transform(X, **keywords) for member in ensemble.estimators_]
    assert len(of_members) == 3
    assert_allclose(ensemble.transform(X, **keywords), np.mean(of_members, axis=0), rtol=1e-6)
    std = ensemble.rate_std(X, **keywords)
    assert_allclose(std, np.std(of_members, axis=0), rtol=1e-5, atol=1e-9)
    assert (std > 0).all()


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(np.float64, np.float64), (np.float32, np.float32), (np.uint8, np.float64)],
)
def test_rates_and_their_spread_keep_shape_and_precision(ensemble, spikes, dtype, expected):
    counts = spikes.astype(dtype)
    for values in (ensemble.transform(counts), ensemble.rate_std(counts)):
        assert values.shape == counts.shape
        assert values.dtype == expected


def test_the_rates_of_one_member_have_no_spread(small, spikes):
    lone = BaggingEnsemble(small(), n_estimators=1, random_state=0).fit(spikes)
    assert_array_equal(lone.transform(spikes), lone.estimators_[0].transform(spikes))
    assert_array_equal(lone.rate_std(spikes), np.zeros(spikes.shape))


@pytest.mark.parametrize("kind", ["ensemble", "heldout_ensemble"])
def test_score_curve_runs_from_the_first_member_to_the_ensemble(request, spikes, kind):
    ensemble = request.getfixturevalue(kind)
    curve = ensemble.score_curve(spikes)
    assert curve.shape == (3,)
    assert curve[-1] == ensemble.score(spikes) == ensemble.score(spikes)
    assert curve[0] == pytest.approx(ensemble.estimators_[0].score(spikes), abs=1e-6)


def test_score_is_of_the_mean_rates_of_held_out_neurons(heldout_ensemble, spikes):
    heldout = heldout_ensemble.heldout_neurons_
    rates = heldout_ensemble.transform(spikes)[..., heldout]
    score = bits_per_spike(spikes[..., heldout], rates)
    assert heldout_ensemble.score(spikes) == pytest.approx(score, abs=1e-6)


def test_hidden_counts_get_rates(ensemble, spikes):
    counts = spikes.copy()
    counts[..., 2] = np.nan
    counts[:, -5:] = np.nan
    rates = ensemble.transform(counts)
    assert np.isfinite(rates).all()
    assert (rates > 0).all()
    assert np.isfinite(ensemble.rate_std(counts)).all()


def test_length_and_iteration_are_over_members(ensemble):
    assert len(ensemble) == 3
    assert list(ensemble) == ensemble.estimators_


# ---- seeds


def test_members_differ_only_by_their_seeds(ensemble, small, spikes):
    seeds = [member.random_state for member in ensemble]
    assert len(set(seeds)) == 3
    for member in ensemble:
        twin = small(random_state=member.random_state).fit(spikes)
        assert_array_equal(twin.transform(spikes), member.transform(spikes))
        assert member.get_params() | {"random_state": 0} == small().get_params()


def test_the_seed_determines_the_rates(ensemble, small, spikes):
    def rates(seed):
        twin = BaggingEnsemble(small(random_state=seed), n_estimators=3, random_state=seed)
        return twin.fit_transform(spikes)

    assert_array_equal(rates(0), ensemble.transform(spikes))
    assert not np.array_equal(rates(1), ensemble.transform(spikes))


def test_the_global_generator_is_unchanged(small, spikes):
    before = check_random_state(None).get_state()
    BaggingEnsemble(small(), n_estimators=2, bootstrap=True, random_state=0).fit(spikes)
    for value, value_before in zip(check_random_state(None).get_state(), before, strict=True):
        assert_array_equal(value, value_before)


def test_held_out_neurons_are_drawn_once_for_all_members(heldout_ensemble):
    heldout = heldout_ensemble.heldout_neurons_
    assert len(heldout) == 3
    for member in heldout_ensemble:
        assert_array_equal(member.heldout_neurons_, heldout)
    assert heldout_ensemble.estimator.heldout_neurons == 3  # the base estimator is unchanged
    assert not hasattr(heldout_ensemble.estimator, "net_")


# ---- trials of each member


def recorded(X, groups=None, **params):
    params = {"n_estimators": 4, "random_state": 0} | params
    return BaggingEnsemble(Recorder(), **params).fit(X, groups=groups)


def test_by_default_members_see_all_trials(spikes, rows, groups):
    for member in recorded(spikes):
        assert_array_equal(member.X_, spikes)
    for member in recorded(rows, groups):
        assert_array_equal(member.X_, rows)
        assert_array_equal(member.groups_, groups)


@pytest.mark.parametrize("bootstrap", [False, True])
@pytest.mark.parametrize(("max_samples", "n_drawn"), [(5, 5), (0.5, 12), (0.01, 1), (1.0, 24)])
def test_members_see_the_trials_drawn_for_them(spikes, bootstrap, max_samples, n_drawn):
    ensemble = recorded(spikes, bootstrap=bootstrap, max_samples=max_samples)
    for member, drawn in zip(ensemble, ensemble.estimators_samples_, strict=True):
        assert len(drawn) == n_drawn
        assert_array_equal(member.X_, spikes[drawn])
        assert bootstrap or len(set(drawn)) == n_drawn
    if bootstrap and n_drawn >= 12:  # with replacement, some trials are drawn twice
        assert any(len(set(drawn)) < n_drawn for drawn in ensemble.estimators_samples_)
    if bootstrap or n_drawn < 24:
        assert len({tuple(drawn) for drawn in ensemble.estimators_samples_}) > 1


@pytest.mark.parametrize("bootstrap", [False, True])
def test_groups_of_rows_are_drawn_as_trials(rows, bootstrap):
    groups = np.repeat(["a", "b", "c", "d", "e"], [100, 80, 60, 40, 200])
    ensemble = recorded(rows, groups, bootstrap=bootstrap, max_samples=4)
    for member, drawn in zip(ensemble, ensemble.estimators_samples_, strict=True):
        assert len(drawn) == 4
        trials = [rows[groups == "abcde"[trial]] for trial in drawn]
        assert_array_equal(member.X_, np.concatenate(trials))
        # a trial that is drawn twice counts as two trials
        starts = np.flatnonzero(np.diff(member.groups_)) + 1
        assert_array_equal(starts, np.cumsum([len(t) for t in trials])[:-1])


@pytest.mark.parametrize("n_rows", [480, 470, 7])
def test_blocks_of_a_recording_are_drawn_as_trials(rows, n_rows):
    recording = rows[:n_rows]
    n_blocks = min(20, n_rows)
    ensemble = recorded(recording, bootstrap=True)
    for member, drawn in zip(ensemble, ensemble.estimators_samples_, strict=True):
        assert len(drawn) == n_blocks
        assert set(drawn) <= set(range(n_blocks))
        n_labels = 1 + np.count_nonzero(np.diff(member.groups_))
        assert n_labels == n_blocks
        assert abs(len(member.X_) - n_rows) <= n_blocks  # blocks differ by at most one row
        first = member.groups_ == member.groups_[0]
        where = np.flatnonzero((recording == member.X_[0]).all(axis=1))
        candidates = [recording[i : i + first.sum()] for i in where]
        assert any(np.array_equal(member.X_[first], block) for block in candidates)


def test_resampling_a_recording_keeps_the_default_window(small, rows):
    recording = np.tile(rows, (12, 1))  # blocks of 288 bins
    base = small(max_epochs=1)
    plain = BaggingEnsemble(base, n_estimators=1, random_state=0).fit(recording)
    resampled = BaggingEnsemble(base, n_estimators=1, bootstrap=True, random_state=0)
    assert plain.estimators_[0].window_ == 128
    assert resampled.fit(recording).estimators_[0].window_ == 128


class Passing(TransformerMixin, BaseEstimator):
    """Has a parameter with the name of one of STNDTEstimator."""

    def __init__(self, window=None):
        self.window = window

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X


def test_parameters_of_other_steps_are_unchanged(small, rows):
    base = make_pipeline(Passing(), small(max_epochs=1))
    ensemble = BaggingEnsemble(base, n_estimators=1, random_state=0).fit(rows)
    # for a recording, the ensemble sets `window` of STNDTEstimator, but not of other steps
    assert ensemble.estimators_[0][0].window is None


@pytest.mark.parametrize("max_samples", [25, 1000])
def test_more_trials_than_there_are_is_an_error(spikes, max_samples):
    with pytest.raises(ValueError, match=rf"max_samples={max_samples} is more than the 24 trials"):
        recorded(spikes, max_samples=max_samples)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"estimator": 3}, "'estimator' parameter"),
        ({"n_estimators": 0}, "'n_estimators' parameter"),
        ({"max_samples": 1.5}, "'max_samples' parameter.*Got 1.5"),
        ({"max_samples": 0}, "'max_samples' parameter.*Got 0"),
        ({"bootstrap": "yes"}, "'bootstrap' parameter"),
        ({"n_jobs": 1.5}, "'n_jobs' parameter"),
        ({"n_estimators": True}, "'n_estimators' parameter.*takes a number, got True"),
        ({"max_samples": True}, "'max_samples' parameter.*takes a number, got True"),
        ({"n_jobs": True}, "'n_jobs' parameter.*takes a number, got True"),
    ],
)
def test_bad_parameters_are_refused(spikes, params, message):
    with pytest.raises(ValueError, match=message):
        BaggingEnsemble(**({"estimator": Recorder()} | params)).fit(spikes)


def test_bad_held_out_neurons_are_refused(small, spikes):
    with pytest.raises(ValueError, match="heldout_neurons=12 would hide 12 of 12"):
        BaggingEnsemble(small(heldout_neurons=12), n_estimators=2).fit(spikes)


# ---- interruption


class InterruptMember(Callback):
    """Raises KeyboardInterrupt in the second epoch of a member, counted from 1."""

    seen = []  # shared by all copies: nets of the members that have started

    def __init__(self, member):
        self.member = member

    def on_train_begin(self, net, **kwargs):
        self.seen.append(net)

    def on_batch_begin(self, net, training=None, **kwargs):
        if training and len(self.seen) == self.member and len(net.history) == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("in_pipeline", [False, True])
@pytest.mark.parametrize("member", [1, 2])
def test_interrupting_fit_keeps_the_members_so_far(ensemble, small, spikes, member, in_pipeline):
    InterruptMember.seen.clear()
    base = small(callbacks=[InterruptMember(member)])
    base = make_pipeline(base) if in_pipeline else base
    interrupted = BaggingEnsemble(base, n_estimators=3, random_state=0)
    with (
        pytest.warns(ConvergenceWarning, match="interrupted in epoch 2 of 3"),
        pytest.warns(ConvergenceWarning, match=f"interrupted at member {member} of 3.*so far"),
    ):
        interrupted.fit(spikes)
    assert len(InterruptMember.seen) == len(interrupted) == member  # no other has started
    of_members = [m.transform(spikes) for m in interrupted]
    assert_allclose(interrupted.transform(spikes), np.mean(of_members, axis=0), rtol=1e-6)
    assert np.isfinite(interrupted.rate_std(spikes)).all()
    assert interrupted.score_curve(spikes).shape == (member,)
    if member == 2 and not in_pipeline:  # earlier members are the same as without the interruption
        assert_array_equal(of_members[0], ensemble.estimators_[0].transform(spikes))


# ---- cloning, parameters and tables


@pytest.mark.parametrize("bootstrap", [False, True])
def test_pipelines_are_members(small, spikes, bootstrap):
    base = make_pipeline(FunctionTransformer(np.sqrt), small(heldout_neurons=0.25))
    ensemble = BaggingEnsemble(base, n_estimators=2, bootstrap=bootstrap, random_state=0)
    rates = ensemble.fit_transform(spikes)
    of_members = [member.transform(spikes) for member in ensemble]
    assert_allclose(rates, np.mean(of_members, axis=0), rtol=1e-6)
    assert not np.array_equal(*of_members)
    for member in ensemble:
        assert_array_equal(member[-1].heldout_neurons_, ensemble.heldout_neurons_)


def test_pipelines_are_members_for_resampled_rows(small, rows):
    base = make_pipeline(small(max_epochs=1))
    ensemble = BaggingEnsemble(base, n_estimators=2, bootstrap=True, random_state=0).fit(rows)
    assert np.isfinite(ensemble.transform(rows)).all()


def test_clone_and_pickle(ensemble, spikes):
    copied = clone(ensemble)
    assert not hasattr(copied, "estimators_")
    loaded = pickle.loads(pickle.dumps(ensemble))
    assert_array_equal(loaded.transform(spikes), ensemble.transform(spikes))
    assert loaded.score(spikes) == ensemble.score(spikes)


def test_nested_parameters_can_be_set(small):
    ensemble = BaggingEnsemble(small(), n_estimators=2).set_params(estimator__d_model=5)
    assert ensemble.get_params()["estimator__d_model"] == 5


def test_tables_keep_their_names(small, rows):
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(rows, columns=list("abcdefghijkl"), index=np.arange(len(rows)) * 0.02)
    ensemble = BaggingEnsemble(small(), n_estimators=2, random_state=0)
    expected = clone(ensemble).fit_transform(rows)
    with sklearn.config_context(transform_output="pandas"):
        rates = ensemble.fit(table).transform(table)
        assert list(rates.columns) == list(ensemble.get_feature_names_out()) == list(table)
        assert rates.index.equals(table.index)
        assert isinstance(ensemble.rate_std(table), np.ndarray)
        assert isinstance(ensemble.score(table), float)
    assert_array_equal(rates.to_numpy(), expected)


def test_global_pandas_output_does_not_change_arrays_of_trials(ensemble, spikes):
    pytest.importorskip("pandas")
    with sklearn.config_context(transform_output="pandas"):
        assert ensemble.rate_std(spikes).shape == spikes.shape
        assert np.isfinite(ensemble.score(spikes))


def test_trials_cannot_be_returned_as_a_table(ensemble, spikes):
    to_table = clone(ensemble).set_output(transform="pandas").fit(spikes)
    with pytest.raises(ValueError, match=r"pandas output is for a 2D X.*\(24, 20, 12\)"):
        to_table.transform(spikes)


@pytest.mark.parametrize("method", ["transform", "rate_std", "score", "score_curve"])
def test_bad_counts_are_refused(ensemble, spikes, method):
    with pytest.raises(ValueError, match="Negative values in data passed to BaggingEnsemble"):
        getattr(ensemble, method)(spikes - 1)
    with pytest.raises(ValueError, match="X has 5 features, but BaggingEnsemble is expecting 12"):
        getattr(ensemble, method)(spikes[..., :5])
    with pytest.raises(ValueError, match="one group per trial"):
        getattr(ensemble, method)(spikes, groups=np.arange(23))
