"""What a fitted estimator says about its training."""

import copy
import pickle

import numpy as np
import pytest
import sklearn
from sklearn.exceptions import FitFailedWarning, NotFittedError
from sklearn.pipeline import make_pipeline

from sklearn_stndt import BaggingEnsemble, MultiSessionEstimator, STNDTEstimator, load, save


def test_the_summary_agrees_with_the_fitted_attributes(small, spikes):
    estimator = small(max_epochs="auto", n_layers=1, lr=0.01, batch_size=12, n_iter_no_change=9)
    estimator.set_params(max_epochs=4, batch_size="auto").fit(spikes)
    summary, training = estimator.summary_, estimator.settings_.training
    assert summary.auto == {
        "batch_size": 16,
        "device": training.device,
        "dropout": estimator.settings_.network.dropout,
        "inference_passes": 4,
        "stochastic_depth": 0.0,
    }
    weights = estimator.net_.module_.state_dict()
    named = dict(estimator.net_.module_.named_parameters())
    assert summary.n_weights == sum(weights[name].numel() for name in named)
    assert summary.n_epochs == estimator.n_iter_ == 4
    assert summary.n_windows == 22
    assert summary.n_updates == 4 * 2
    assert summary.seconds == pytest.approx(sum(estimator.history_[:, "dur"]))
    (kept,) = (row for row in estimator.history_ if row.get("kept"))
    assert (summary.epoch, summary.score) == (kept["epoch"], kept["valid_bits"])


def test_the_summary_is_of_the_fit_and_not_of_later_parameters(small, spikes):
    estimator = small(max_epochs=1).fit(spikes)
    before = estimator.summary_
    assert estimator.set_params(dropout=0.3, n_layers=7).summary_ == before


def test_printing_shows_parameters_and_summary(fitted):
    printed = str(fitted)
    assert printed == f"{fitted!r}\n{fitted.summary_}"
    assert "dropout=0.2" in printed
    assert "STNDT of 3 layers, width 8, window of 20 bins" in printed
    assert f"{fitted.summary_.score:.4f} held-out bits per spike" in printed


def test_the_representation_remains_code(fitted):
    again = eval(repr(fitted), {"STNDTEstimator": STNDTEstimator})
    assert again.get_params() == fitted.get_params()
    assert str(again) == repr(again) == repr(fitted)


def test_notebooks_show_the_summary_of_a_fitted_estimator(fitted):
    unfitted = STNDTEstimator(**fitted.get_params())
    score = f"{fitted.summary_.score:.4f} held-out bits per spike"
    for shown in (fitted._repr_html_(), fitted._repr_mimebundle_()["text/html"]):
        assert "&quot;auto&quot;" in shown
        assert shown.count(f'<td style="text-align: left">{score}') == 1
    assert score not in unfitted._repr_html_()
    assert fitted._repr_mimebundle_()["text/plain"] == repr(fitted)
    with sklearn.config_context(display="text"):
        assert "text/html" not in fitted._repr_mimebundle_()


def test_an_unfitted_estimator_has_no_summary():
    assert not hasattr(STNDTEstimator(), "summary_")
    with pytest.raises(NotFittedError):
        STNDTEstimator().summary_  # noqa: B018


def test_the_summary_survives_copies_and_files(fitted, tmp_path):
    expected = fitted.summary_
    assert copy.deepcopy(fitted).summary_ == expected
    assert pickle.loads(pickle.dumps(fitted)).summary_ == expected
    pytest.importorskip("safetensors")
    save(fitted, tmp_path / "model.stndt")
    assert load(tmp_path / "model.stndt").summary_ == expected


def test_without_windows_set_aside_there_is_no_score(small, spikes):
    estimator = small(early_stopping=False).fit(spikes)
    assert estimator.summary_.score is None
    assert estimator.summary_.epoch == 3
    assert "no held-out score" in str(estimator)


def test_signals_are_scored_in_bits_per_entry(small, spikes):
    printed = str(small(max_epochs=1, likelihood="gaussian").fit(np.sqrt(spikes) - 1))
    assert "window of 20 bins, gaussian likelihood" in printed
    assert "held-out bits per entry" in printed


def test_a_second_training_on_all_windows_is_mentioned(small, spikes):
    estimator = small(refit=True).fit(spikes)
    (kept,) = (row for row in estimator.history_ if row.get("kept"))
    assert estimator.summary_.score == kept["valid_bits"]
    assert estimator.summary_.n_windows == 24
    assert "then trained again on all windows" in str(estimator)


def test_published_networks_and_causal_ones_are_described(small, spikes):
    ndt = small(max_epochs=1, attention="temporal", causal=True).fit(spikes)
    assert "causal NDT of 3 layers, width 8" in str(ndt)
    wide = small(max_epochs=1, n_layers=1, d_model=None).fit(spikes)
    assert "STNDT of 1 layer, one channel per neuron" in str(wide)


def test_members_of_several_sessions_have_summaries(small, spikes):
    together = MultiSessionEstimator(small(max_epochs=2)).fit([spikes, spikes[:12, :, :5]])
    for member, session in zip(together.estimators_, (0, 1), strict=True):
        (kept,) = (row for row in together.history_ if row.get("kept"))
        assert member.summary_.score == kept["session_bits"][session]


def test_several_sessions_print_one_training_and_the_score_of_each(small, spikes):
    base = small(max_epochs=2, batch_size="auto")
    together = MultiSessionEstimator(base).fit([spikes, spikes[:12, :, :5]])
    members = [member.summary_ for member in together.estimators_]
    assert list(together.summary_.members) == members
    printed = str(together)
    assert printed == f"{together!r}\n{together.summary_}"
    assert "2, which share a core" in printed
    assert f"{members[0].score:.4f}, {members[1].score:.4f} held-out bits per spike" in printed
    assert f"batch_size={members[0].auto['batch_size']}" in printed
    assert "which share a core" in together._repr_html_()
    assert not hasattr(MultiSessionEstimator(), "summary_")


@pytest.fixture(scope="module")
def ensemble(small, spikes):
    members = [small(max_epochs=2, batch_size="auto"), Failing()]
    ensemble = BaggingEnsemble(
        members, n_estimators=3, n_best=1, validation_fraction=0.25, random_state=0
    )
    with pytest.warns(FitFailedWarning, match="no fit"):
        return ensemble.fit(spikes)


class Failing(STNDTEstimator):
    """Its fit is an error."""

    def fit(self, X, y=None, *, groups=None):
        raise ValueError("no fit")


def test_an_ensemble_prints_its_members_and_scores(ensemble):
    summary = ensemble.summary_
    assert (summary.n_members, summary.n_failed, summary.n_selected) == (2, 1, 1)
    assert summary.seconds == pytest.approx(sum(ensemble.results_["fit_time"]))
    assert summary.best_score == summary.score == max(ensemble.scores_)
    assert summary.member == ensemble.estimators_[ensemble.selected_[0]].summary_
    printed = str(ensemble)
    assert printed == f"{ensemble!r}\n{summary}"
    assert "2 trained, 1 failed, 1 averaged" in printed
    assert f"best member {max(ensemble.scores_):.4f}" in printed
    assert "batch_size=" in printed
    assert "1 averaged" in ensemble._repr_html_()
    assert not hasattr(BaggingEnsemble(), "summary_")
    assert pickle.loads(pickle.dumps(ensemble)).summary_ == summary


def test_the_score_of_an_ensemble_is_that_of_its_mean(ensemble):
    both = copy.copy(ensemble)
    both.selected_, both._n_picks = np.array([1, 0]), np.ones(2, dtype=int)
    assert both.summary_.score == ensemble.selection_curve_[1]
    both._n_picks = np.array([2, 1])  # a greedy selection may choose a member twice
    assert both.summary_.score is None
    del both.scores_
    assert "members were not scored" in str(both.summary_)


def test_a_pipeline_shows_its_steps(small, spikes):
    pipeline = make_pipeline(small(max_epochs=1)).fit(spikes)
    assert "STNDTEstimator" in pipeline._repr_html_()
    assert "summary" not in repr(pipeline)
