"""Parameters that differ between members, members that fail, and warm starts."""

import io
from contextlib import redirect_stderr

import joblib
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.stats import randint, uniform
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import FitFailedWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import check_random_state

from sklearn_stndt import BaggingEnsemble, STNDTEstimator


class Constant(TransformerMixin, BaseEstimator):
    """Rates are the mean counts times a factor; may fail."""

    def __init__(self, factor=1.0, label="a", fails=False, random_state=None):
        self.factor = factor
        self.label = label
        self.fails = fails
        self.random_state = random_state

    def fit(self, X, y=None, groups=None):
        if self.fails:
            raise ArithmeticError(f"no fit with factor {self.factor}")
        self.mean_ = self.factor * np.nanmean(X, axis=tuple(range(X.ndim - 1)))
        self.X_ = X
        return self

    def transform(self, X, groups=None):
        return np.broadcast_to(self.mean_, X.shape).astype(float)


class Other(Constant):
    """Another class with the same behaviour."""


SPACE = {"factor": uniform(0.5, 1), "label": ["a", "b", "c"]}


def drawn(n_estimators=6, estimator=None, **params):
    base = Constant() if estimator is None else estimator
    params = {"param_distributions": SPACE, "random_state": 0} | params
    return BaggingEnsemble(base, n_estimators, **params)


# ---- hyperparameters


def test_parameters_are_drawn_from_the_distributions(spikes):
    ensemble = drawn(40).fit(spikes)
    factors = [member.factor for member in ensemble]
    assert len(set(factors)) == 40
    assert min(factors) >= 0.5
    assert max(factors) <= 1.5
    assert np.ptp(factors) > 0.8  # 40 draws cover most of the range of 1
    assert {member.label for member in ensemble} == {"a", "b", "c"}
    for member, params in zip(ensemble, ensemble.params_, strict=True):
        assert params == {"factor": member.factor, "label": member.label}
        assert type(params["factor"]) is float  # a Python number, which is printed without its type


def test_draws_of_a_member_depend_only_on_its_seed(spikes):
    few, many = drawn(2).fit(spikes), drawn(6).fit(spikes)
    assert few.params_ == many.params_[:2]
    assert drawn(2, random_state=1).fit(spikes).params_ != few.params_
    before = check_random_state(None).get_state()[1].copy()
    drawn(2).fit(spikes)
    assert_array_equal(check_random_state(None).get_state()[1], before)


def test_draws_of_parameters_do_not_change_seeds_and_trials(spikes):
    plain = drawn(4, param_distributions=None, bootstrap=True).fit(spikes)
    ensemble = drawn(4, bootstrap=True).fit(spikes)
    for one, other in zip(plain, ensemble, strict=True):
        assert one.random_state == other.random_state
        assert_array_equal(one.X_, other.X_)


def test_each_member_draws_from_one_of_several_search_spaces(spikes):
    spaces = [{"factor": [1.0]}, {"label": ["z"]}]
    ensemble = drawn(20, param_distributions=spaces).fit(spikes)
    assert {tuple(params) for params in ensemble.params_} == {("factor",), ("label",)}
    column = ensemble.results_["param_factor"]
    assert_array_equal(column.mask, ["factor" not in params for params in ensemble.params_])


def test_tuples_and_integers_can_be_drawn(small, spikes):
    space = {"context": [(2, 2), (4, 4)], "n_layers": randint(1, 3), "dropout": uniform(0, 0.4)}
    ensemble = BaggingEnsemble(
        small(max_epochs=1), n_estimators=4, param_distributions=space, random_state=0
    ).fit(spikes)
    for member, params in zip(ensemble, ensemble.params_, strict=True):
        assert member.context == params["context"]
        assert member.n_layers == params["n_layers"] in (1, 2)
        assert member.net_.module_ is not None
    column = ensemble.results_["param_context"]
    assert column.shape == (4,)
    assert column[0] == ensemble.params_[0]["context"]
    assert ensemble.results_["param_n_layers"].dtype.kind == "i"
    assert ensemble.results_["param_dropout"].dtype == float


def test_nested_parameters_can_be_drawn(spikes):
    base = make_pipeline(FunctionTransformer(), Constant())
    ensemble = drawn(3, base, param_distributions={"constant__factor": uniform(0, 1)}).fit(spikes)
    for member, params in zip(ensemble, ensemble.params_, strict=True):
        assert member[-1].factor == params["constant__factor"]
    assert len({member[-1].factor for member in ensemble}) == 3


def test_a_seed_can_be_drawn(spikes):
    ensemble = drawn(3, param_distributions={"random_state": [7]}).fit(spikes)
    assert [member.random_state for member in ensemble] == [7, 7, 7]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"width": [1]}, "names 'width', which is not a parameter of Constant.*'factor'"),
        ({"factor": []}, "factor"),
        ({"factor": 3}, "factor"),
        ({"pipeline__heldout_neurons": [[0]]}, "draws 'pipeline__heldout_neurons'.*same neurons"),
    ],
)
def test_impossible_search_spaces_are_refused(spikes, space, message):
    with pytest.raises((ValueError, TypeError), match=message):
        drawn(param_distributions=space).fit(spikes)


# ---- lists of estimators


def test_estimators_of_a_list_take_turns(spikes):
    bases = [Constant(), Other(2.0)]
    ensemble = drawn(5, bases, param_distributions=None).fit(spikes)
    assert [type(member) for member in ensemble] == [Constant, Other, Constant, Other, Constant]
    assert [member.factor for member in ensemble] == [1, 2, 1, 2, 1]
    assert len({member.random_state for member in ensemble}) == 5
    assert not hasattr(bases[0], "mean_")
    clone(ensemble).fit(spikes)


def test_bad_lists_of_estimators_are_refused(spikes):
    with pytest.raises(ValueError, match=r"item 1 of the list is 3, which lacks fit"):
        drawn(2, [Constant(), 3]).fit(spikes)
    with pytest.raises(ValueError, match="n_estimators=2 members cannot be made of a list of 3"):
        drawn(2, [Constant(), Constant(), Constant()]).fit(spikes)
    with pytest.raises(ValueError, match="n_estimators=2 members cannot be made of a list of 0"):
        drawn(2, []).fit(spikes)


def test_estimators_of_a_list_hold_out_the_same_neurons(small, spikes):
    bases = [small(heldout_neurons=3, max_epochs=1), small(heldout_neurons=3, max_epochs=1)]
    ensemble = BaggingEnsemble(bases, n_estimators=2, random_state=0).fit(spikes)
    assert len(ensemble.heldout_neurons_) == 3
    for member in ensemble:
        assert_array_equal(member.heldout_neurons_, ensemble.heldout_neurons_)
    bases[1] = small()
    with pytest.raises(ValueError, match=r"position 1 of the list holds out \[\]"):
        BaggingEnsemble(bases, n_estimators=2, random_state=0).fit(spikes)


# ---- members that fail

FAILING = {"fails": [False, True], "factor": uniform(0.5, 1)}


def test_members_that_fail_are_left_out(spikes):
    ensemble = drawn(8, param_distributions=FAILING, n_best=3)
    with pytest.warns(FitFailedWarning) as warned:
        ensemble.fit(spikes)
    table = ensemble.results_
    failed = np.flatnonzero([params["fails"] for params in table["params"]])
    assert 0 < len(failed) < 8
    assert len(warned) == len(failed)
    assert len(ensemble) == len(ensemble.scores_) == len(ensemble.params_) == 8 - len(failed)
    assert len(ensemble.estimators_samples_) == len(ensemble)
    first = table["params"][failed[0]]
    message = str(warned[0].message)
    assert f"Member {failed[0]} of 8 failed with 'ArithmeticError: no fit with" in message
    assert f"seed {table['seed'][failed[0]]}, parameters {first}" in message
    assert_array_equal(table["member"][failed], -1)
    assert_array_equal(np.delete(table["member"], failed), np.arange(len(ensemble)))
    assert np.isnan(table["test_score"][failed]).all()
    assert_array_equal(np.delete(table["test_score"], failed), ensemble.scores_)
    assert "Traceback" in table["error"][failed[0]]
    assert (table["rank_test_score"][failed] == 8 - len(failed) + 1).all()
    assert np.isfinite(ensemble.transform(spikes)).all()


def test_failed_members_get_the_error_score(spikes):
    ensemble = drawn(8, param_distributions=FAILING, n_best=1, error_score=-5)
    with pytest.warns(FitFailedWarning):
        ensemble.fit(spikes)
    failed = ensemble.results_["member"] == -1
    assert (ensemble.results_["test_score"][failed] == -5).all()


def test_a_failure_can_stop_the_ensemble(spikes):
    with pytest.raises(ArithmeticError, match="no fit with factor"):
        drawn(8, param_distributions=FAILING, error_score="raise").fit(spikes)
    ensemble = drawn(2, n_best=1, error_score="raise").fit(spikes)  # none fails
    assert_array_equal(ensemble.results_["test_score"], ensemble.scores_)


def test_an_ensemble_whose_members_all_fail_raises_an_error(spikes):
    ensemble = drawn(3, Constant(fails=True), param_distributions=None)
    with (
        pytest.warns(FitFailedWarning),
        pytest.raises(ValueError, match=r"(?s)All 3 members failed.*ArithmeticError: no fit"),
    ):
        ensemble.fit(spikes)


# ---- warm start


@pytest.mark.parametrize("n_best", [None, "auto"])
@pytest.mark.parametrize("bootstrap", [False, True])
def test_warm_start_gives_the_members_of_a_longer_fit(small, spikes, bootstrap, n_best):
    params = {
        "param_distributions": {"dropout": uniform(0, 0.4)},
        "bootstrap": bootstrap,
        "n_best": n_best,
        "random_state": 0,
    }
    base = small(heldout_neurons=3)
    ensemble = BaggingEnsemble(base, 2, warm_start=True, **params).fit(spikes)
    first = ensemble.estimators_[0]
    ensemble.set_params(n_estimators=4).fit(spikes)
    assert ensemble.estimators_[0] is first
    at_once = BaggingEnsemble(base, 4, **params).fit(spikes)
    assert_array_equal(ensemble.heldout_neurons_, at_once.heldout_neurons_)
    assert ensemble.params_ == at_once.params_
    assert_array_equal(ensemble.selected_, at_once.selected_)
    assert_array_equal(ensemble.transform(spikes), at_once.transform(spikes))
    if n_best is not None:
        assert_array_equal(ensemble.scores_, at_once.scores_)


def test_warm_start_without_a_seed_adds_new_members(small, spikes):
    base = small(heldout_neurons=3, max_epochs=1)
    ensemble = BaggingEnsemble(base, 2, warm_start=True).fit(spikes)
    heldout = ensemble.heldout_neurons_
    seeds = [member.random_state for member in ensemble.set_params(n_estimators=5).fit(spikes)]
    assert len(set(seeds)) == 5
    assert_array_equal(ensemble.heldout_neurons_, heldout)
    for member in ensemble:
        assert_array_equal(member.heldout_neurons_, heldout)


def test_warm_start_may_add_members_of_another_class(spikes):
    ensemble = drawn(2, warm_start=True).fit(spikes)
    ensemble.set_params(n_estimators=4, estimator=Other()).fit(spikes)
    assert [type(member) for member in ensemble] == [Constant, Constant, Other, Other]


def test_without_warm_start_everything_is_fitted_again(spikes):
    ensemble = drawn(3, n_best=1, bootstrap=True, oob_score=True).fit(spikes)
    ensemble.set_params(n_estimators=2, n_best=None, bootstrap=False, oob_score=False).fit(spikes)
    assert len(ensemble) == 2
    for name in ("scores_", "selection_curve_", "oob_rates_", "oob_score_"):
        assert not hasattr(ensemble, name)


def test_warm_start_retries_members_that_failed(spikes):
    ensemble = drawn(8, param_distributions=FAILING, warm_start=True)
    with pytest.warns(FitFailedWarning):
        ensemble.fit(spikes)
    n_failed = 8 - len(ensemble)
    with pytest.warns(FitFailedWarning) as warned:
        ensemble.fit(spikes)
    assert len(warned) == n_failed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_estimators": 2}, "n_estimators=2 is below the 3 members of the last fit"),
        ({"bootstrap": True}, "bootstrap was False, and is True"),
        ({"validation_fraction": 0.5}, "trials set aside was"),
    ],
)
def test_warm_start_refuses_incompatible_changes(spikes, change, message):
    ensemble = drawn(3, warm_start=True).fit(spikes)
    seeds = ensemble.results_["seed"].tolist()
    with pytest.raises(ValueError, match=message):
        ensemble.set_params(**change).fit(spikes)
    assert ensemble.results_["seed"].tolist() == seeds


def test_warm_start_refuses_other_data(spikes):
    ensemble = drawn(2, warm_start=True).fit(spikes)
    ensemble.set_params(n_estimators=3)
    with pytest.raises(ValueError, match=r"X was float64 \(24, 20, 12\) \w+, and is float64"):
        ensemble.fit(spikes + 1)


def test_warm_start_without_new_members_warns(spikes):
    ensemble = drawn(2, warm_start=True).fit(spikes)
    with pytest.warns(UserWarning, match="n_estimators=2 as before: no member is trained"):
        ensemble.fit(spikes)


# ---- results, indexing and output


def test_results_make_a_data_frame(spikes):
    pd = pytest.importorskip("pandas")
    ensemble = drawn(5, n_best=2).fit(spikes)
    frame = pd.DataFrame(ensemble.results_)
    assert len(frame) == 5
    assert list(frame["param_factor"]) == [params["factor"] for params in ensemble.params_]
    assert_array_equal(frame["test_score"], ensemble.scores_)
    best = frame.sort_values("rank_test_score")["member"].to_numpy()
    assert_array_equal(best[:2], ensemble.selected_)
    assert frame["weight"].sum() == pytest.approx(1)
    assert (frame["weight"] > 0).sum() == 2
    assert (frame[["fit_time", "score_time"]] >= 0).all(axis=None)


def test_members_can_be_indexed(spikes):
    ensemble = drawn(3).fit(spikes)
    assert ensemble[1] is ensemble.estimators_[1]
    assert ensemble[-1] is ensemble.estimators_[2]
    assert ensemble[1:] == ensemble.estimators_[1:]


@pytest.mark.parametrize("backend", ["sequential", "threading"])
def test_progress_shows_members_and_the_best_score(spikes, backend):
    out = io.StringIO()
    ensemble = drawn(4, n_best=1, verbose=1, n_jobs=2)
    with redirect_stderr(out), joblib.parallel_config(backend):
        ensemble.fit(spikes)
    last = out.getvalue().splitlines()[-1]
    assert last == f"ensemble: 4/4 members, best score {ensemble.scores_.max():.4f}"


def test_nothing_is_printed_by_default(spikes, capsys):
    drawn(2).fit(spikes)
    assert capsys.readouterr() == ("", "")


def test_members_train_with_one_blas_thread(spikes):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    seen = []

    class Counting(Constant):
        def fit(self, X, y=None):
            pools = threadpoolctl.threadpool_info()
            seen.extend(p["num_threads"] for p in pools if p["user_api"] == "blas")
            return super().fit(X)

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        with joblib.parallel_config("threading", n_jobs=2):
            BaggingEnsemble(Counting(), 4, random_state=0).fit(spikes)
        after = {
            p["num_threads"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"
        }
    assert set(seen) == {1}
    assert after == {2}


def test_the_default_estimator_is_stndt(spikes):
    space = {"max_epochs": [1], "d_model": [8], "n_heads": [2]}
    ensemble = BaggingEnsemble(n_estimators=1, param_distributions=space, random_state=0)
    assert type(ensemble.fit(spikes)[0]) is STNDTEstimator
