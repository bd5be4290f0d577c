"""Scores of members, and which of them are averaged."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline

from sklearn_stndt import BaggingEnsemble
from sklearn_stndt.ensemble.selection import HeldOutScore, best_first, select
from sklearn_stndt.metrics import bits_per_spike


class Noisy(TransformerMixin, BaseEstimator):
    """Rates are the mean counts with a random error; keeps its training data."""

    def __init__(self, noise=1.0, random_state=None):
        self.noise = noise
        self.random_state = random_state

    def fit(self, X, y=None, groups=None):
        self.X_ = X
        draw = np.random.RandomState(self.random_state)
        mean = X.mean(axis=tuple(range(X.ndim - 1))) + 0.01
        self.rates_ = mean * np.exp(self.noise * draw.standard_normal(X.shape[-1]))
        return self

    def transform(self, X, groups=None):
        return np.broadcast_to(self.rates_, X.shape)


SPACE = {"noise": [0.1, 0.3, 1.0]}


def noisy(n_estimators=8, **params):
    params = {"param_distributions": SPACE, "random_state": 0} | params
    return BaggingEnsemble(Noisy(), n_estimators, **params)


@pytest.fixture(scope="module")
def scored(spikes):
    return noisy(n_best=3).fit(spikes)


# ---- trials set aside


@pytest.mark.parametrize(
    ("fraction", "number", "bootstrap"),
    [(None, 5, False), (0.5, 12, False), (0.01, 1, False), (0.5, 12, True)],
)
def test_no_member_is_trained_on_trials_set_aside(spikes, fraction, number, bootstrap):
    params = {"n_best": 3, "bootstrap": bootstrap, "validation_fraction": fraction}
    ensemble = noisy(**params).fit(spikes)
    aside = ensemble.validation_trials_
    assert len(set(aside)) == number
    for member, trials in zip(ensemble, ensemble.estimators_samples_, strict=True):
        assert not set(trials) & set(aside)
        assert len(trials) == 24 - number
        assert_array_equal(member.X_, spikes[trials])


def test_no_trials_are_set_aside_without_selection(spikes):
    for ensemble in (noisy().fit(spikes), noisy(bootstrap=True, n_best=2).fit(spikes)):
        assert len(ensemble.validation_trials_) == 0
    assert not hasattr(noisy().fit(spikes), "scores_")
    for member in noisy().fit(spikes):
        assert_array_equal(member.X_, spikes)


def test_trials_set_aside_are_drawn_by_the_seed(spikes):
    def aside(seed):
        return noisy(n_best=1, random_state=seed).fit(spikes).validation_trials_

    assert_array_equal(aside(0), aside(0))
    assert len({tuple(aside(seed)) for seed in range(5)}) > 1


def test_max_samples_is_a_share_of_the_trials_not_set_aside(spikes):
    ensemble = noisy(validation_fraction=0.5, max_samples=0.5).fit(spikes)
    assert {len(trials) for trials in ensemble.estimators_samples_} == {6}


def test_rows_are_set_aside_in_whole_trials(rows, groups):
    ensemble = noisy(n_best=2).fit(rows, groups=groups)
    in_trials = noisy(n_best=2).fit(rows.reshape(24, 20, 12))
    assert_array_equal(ensemble.validation_trials_, in_trials.validation_trials_)
    for one, other in zip(ensemble, in_trials, strict=True):
        assert_array_equal(one.X_, other.X_.reshape(-1, 12))


@pytest.mark.parametrize("in_pipeline", [False, True])
def test_blocks_of_a_recording_are_set_aside(small, rows, in_pipeline):
    base = small(max_epochs=1)
    base = make_pipeline(base) if in_pipeline else base
    ensemble = BaggingEnsemble(base, 2, n_best=1, random_state=0).fit(rows)
    assert len(ensemble.validation_trials_) == 4  # of 20 blocks
    assert np.isfinite(ensemble.scores_).all()
    assert np.isfinite(ensemble.transform(rows)).all()


# ---- scores


def test_scores_are_of_hidden_entries_of_trials_set_aside(scored, spikes):
    held_out = spikes[scored.validation_trials_]
    expected = [bits_per_spike(held_out, member.transform(held_out)) for member in scored]
    assert_allclose(scored.scores_, expected, atol=1e-6)
    assert len(set(scored.scores_)) == 8


def test_scores_equal_those_of_the_score_method(small, spikes):
    for base in (small(), small(heldout_neurons=3)):
        ensemble = BaggingEnsemble(base, 2, n_best=1, random_state=0).fit(spikes)
        held_out = spikes[ensemble.validation_trials_]
        expected = [member.score(held_out) for member in ensemble]
        assert_allclose(ensemble.scores_, expected, atol=1e-6)


# ---- selection


def test_the_best_are_averaged(scored, spikes):
    order = np.argsort(-scored.scores_)
    assert_array_equal(scored.selected_, order[:3])
    assert_array_equal(scored.weights_, np.full(3, 1 / 3))
    of_best = [scored[i].transform(spikes) for i in order[:3]]
    assert_allclose(scored.transform(spikes), np.mean(of_best, axis=0), rtol=1e-6)
    assert_allclose(scored.rate_std(spikes), np.std(of_best, axis=0), rtol=1e-6)
    assert len(scored) == 8  # the others are kept


def test_the_score_curve_starts_with_the_best_member(scored, spikes):
    curve = scored.score_curve(spikes)
    assert curve.shape == (3,)
    best = scored[scored.selected_[0]]
    assert curve[0] == pytest.approx(bits_per_spike(spikes, best.transform(spikes)), abs=1e-6)
    assert curve[-1] == scored.score(spikes)


def test_auto_selects_the_number_with_the_best_score(spikes):
    ensemble = noisy(12, n_best="auto").fit(spikes)
    curve = ensemble.selection_curve_
    assert curve.shape == (12,)
    number = len(ensemble.selected_)
    assert curve[number - 1] == curve.max()
    assert 1 < number < 12  # good members improve the mean, bad ones do not
    held_out = spikes[ensemble.validation_trials_]
    assert bits_per_spike(held_out, ensemble.transform(held_out)) == pytest.approx(curve.max())
    for k in (1, 5, 12):
        twin = noisy(12, n_best=k).fit(spikes)
        score = bits_per_spike(held_out, twin.transform(held_out))
        assert score == pytest.approx(curve[k - 1], abs=1e-6)


def test_greedy_selection_beats_the_best_k_on_trials_set_aside(spikes):
    ensemble = noisy(12, n_best="greedy").fit(spikes)
    held_out = spikes[ensemble.validation_trials_]
    score = bits_per_spike(held_out, ensemble.transform(held_out))
    assert score >= ensemble.selection_curve_.max()
    assert ensemble.weights_.sum() == pytest.approx(1)
    assert (np.diff(ensemble.weights_) <= 0).all()
    assert len(ensemble.selected_) == len(set(ensemble.selected_)) == len(ensemble.weights_)
    rates = [ensemble[i].transform(spikes) for i in ensemble.selected_]
    mean = np.average(rates, axis=0, weights=ensemble.weights_)
    assert_allclose(ensemble.transform(spikes), mean, rtol=1e-6)
    variance = np.average(np.square(rates - mean), axis=0, weights=ensemble.weights_)
    assert_allclose(ensemble.rate_std(spikes), np.sqrt(variance), rtol=1e-6, atol=1e-12)
    assert ensemble.score_curve(spikes)[-1] == ensemble.score(spikes)


@pytest.fixture
def trials_and_rates():
    """Counts of 40 trials, and rates of 6 members, of which the first three are accurate."""
    draw = np.random.RandomState(0)
    truth = draw.gamma(2.0, 0.5, size=(40, 5, 3))
    spikes = draw.poisson(truth).astype(float)
    noise = np.array([0.2, 0.2, 0.2, 0.5, 0.5, 0.5])
    rates = [truth * np.exp(s * draw.standard_normal(truth.shape)) for s in noise]
    return spikes, np.array(rates)


def test_greedy_selection_weights_members_by_repetition():
    draw = np.random.RandomState(0)
    truth = draw.gamma(2.0, 0.5, size=(80, 10, 5))
    spikes = draw.poisson(truth).astype(float)
    # independent errors of different size: the better one needs a larger weight, below 1
    rates = [
        truth * np.exp(noise * draw.standard_normal(truth.shape) - noise**2 / 2)
        for noise in (0.5, 0.8)
    ]
    score = HeldOutScore(spikes, [np.arange(80)] * 2, lambda member: rates[member])
    _, curve, selected, picks = select(score, "greedy")
    assert_array_equal(selected, [0, 1])
    assert picks[0] > picks[1] >= 1
    mean = np.average(rates, axis=0, weights=picks)
    assert bits_per_spike(spikes, mean) > curve.max() + 0.005


def test_out_of_bag_scores_do_not_depend_on_how_easy_the_trials_are(trials_and_rates):
    spikes, rates = trials_and_rates
    spikes = spikes.copy()
    spikes[:20] = np.random.RandomState(1).poisson(1.0, size=spikes[:20].shape)
    rates[:, :20] = 1.0  # counts that cannot be predicted: good members score as badly as bad ones
    hard, easy = np.arange(25), np.arange(15, 40)
    rows = [hard, hard, hard, easy, easy, easy]
    alone = [bits_per_spike(spikes[r], rates[m][r]) for m, r in enumerate(rows)]
    assert max(alone[:3]) < min(alone[3:])  # the wrong order
    score = HeldOutScore(spikes, rows, lambda member: rates[member][rows[member]])
    assert_array_equal(np.sort(best_first(score.of_each())[:3]), [0, 1, 2])


def test_members_with_the_same_trials_have_their_bits_per_spike(trials_and_rates):
    spikes, rates = trials_and_rates
    rows = [np.arange(10, 30)] * 6
    score = HeldOutScore(spikes, rows, lambda member: rates[member][rows[member]])
    expected = [bits_per_spike(spikes[10:30], r[10:30]) for r in rates]
    assert_allclose(score.of_each(), expected, rtol=1e-12)
    mean = bits_per_spike(spikes[10:30], rates[[2, 4]].mean(0)[10:30])
    assert score.of_best(np.array([2, 4]))[-1] == pytest.approx(mean)


def test_a_member_without_trials_comes_last(trials_and_rates):
    spikes, rates = trials_and_rates
    rows = [np.arange(0), *[np.arange(40)] * 5]
    score = HeldOutScore(spikes, rows, lambda member: rates[member][rows[member]])
    scores, _, selected, _ = select(score, 5)
    assert np.isnan(scores[0])
    assert 0 not in selected
    assert score.choose_greedily(selected)[0] == 0


def test_the_best_score_comes_first_and_undefined_scores_last():
    assert_array_equal(best_first(np.array([0.1, np.nan, 0.3, 0.1])), [2, 0, 3, 1])


# ---- out of bag


@pytest.mark.parametrize("how", [{"bootstrap": True}, {"max_samples": 0.5}])
@pytest.mark.parametrize("ndim", [2, 3])
def test_out_of_bag_rates_are_of_members_that_have_not_seen_the_trial(
    small, spikes, rows, groups, how, ndim
):
    X, keywords = (spikes, {}) if ndim == 3 else (rows, {"groups": groups})
    ensemble = BaggingEnsemble(small(), 4, oob_score=True, random_state=0, **how)
    ensemble.fit(X, **keywords)
    rates = ensemble.oob_rates_.reshape(spikes.shape)
    assert ensemble.oob_rates_.shape == X.shape
    n_unseen = 0
    for trial in range(24):
        unseen = [
            member.transform(spikes[[trial]])[0]
            for member, drawn in zip(ensemble, ensemble.estimators_samples_, strict=True)
            if trial not in drawn
        ]
        if unseen:
            assert_allclose(rates[trial], np.mean(unseen, axis=0), rtol=1e-5)
        else:
            assert np.isnan(rates[trial]).all()
        n_unseen += len(unseen)
    assert n_unseen > 20
    assert np.isfinite(ensemble.oob_score_)
    assert len(ensemble.scores_) == 4


def test_out_of_bag_score_is_of_held_out_neurons(small, spikes):
    base = small(heldout_neurons=3)
    ensemble = BaggingEnsemble(base, 4, bootstrap=True, oob_score=True, random_state=0).fit(spikes)
    known = np.isfinite(ensemble.oob_rates_[:, 0, 0])
    of_heldout = (slice(None), slice(None), ensemble.heldout_neurons_)
    score = bits_per_spike(spikes[known][of_heldout], ensemble.oob_rates_[known][of_heldout])
    assert ensemble.oob_score_ == pytest.approx(score, abs=1e-6)


def test_out_of_bag_score_is_near_that_of_new_trials(spikes):
    class Memory(Noisy):
        """Recognises the trials that it was trained on."""

        def transform(self, X, groups=None):
            rates = super().transform(X).copy()
            for trial, counts in enumerate(X):
                same = (np.isnan(counts) | (counts == self.X_)).all(axis=(1, 2))
                if same.any():
                    rates[trial] = self.X_[np.argmax(same)] + 0.01
            return rates

    ensemble = BaggingEnsemble(Memory(0.1), 20, bootstrap=True, oob_score=True, random_state=0)
    ensemble.fit(spikes[:16])
    assert ensemble.score(spikes[:16]) > 0.5
    assert ensemble.oob_score_ == pytest.approx(ensemble.score(spikes[16:]), abs=0.1)


@pytest.mark.parametrize("n_best", [2, "auto", "greedy"])
def test_members_are_selected_out_of_bag(spikes, n_best):
    ensemble = noisy(12, n_best=n_best, bootstrap=True, oob_score=True).fit(spikes)
    assert len(ensemble.validation_trials_) == 0
    noise = np.array([member.noise for member in ensemble])
    assert noise[ensemble.selected_].mean() < noise.mean()
    assert noise[np.argmin(ensemble.scores_)] == 1.0
    assert ensemble.oob_rates_.shape == spikes.shape


def test_trials_set_aside_take_precedence_over_out_of_bag(spikes):
    ensemble = noisy(n_best=2, bootstrap=True, oob_score=True, validation_fraction=0.25).fit(spikes)
    held_out = spikes[ensemble.validation_trials_]
    expected = [bits_per_spike(held_out, member.transform(held_out)) for member in ensemble]
    assert_allclose(ensemble.scores_, expected, atol=1e-6)
    assert np.isfinite(ensemble.oob_rates_[ensemble.validation_trials_]).all()


def test_precision_of_out_of_bag_rates_is_that_of_the_counts(spikes):
    for dtype in (np.float32, np.float64):
        ensemble = noisy(bootstrap=True, oob_score=True).fit(spikes.astype(dtype))
        assert ensemble.oob_rates_.dtype == dtype


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"oob_score": True}, "oob_score=True needs trials that members are not trained on"),
        ({"n_best": 9}, "n_best=9 is more than n_estimators=8"),
        ({"n_best": 2, "validation_fraction": 0.99}, "leaves none to train on"),
        ({"n_best": "best"}, "'n_best' parameter"),
        ({"n_best": 0}, "'n_best' parameter"),
        ({"validation_fraction": 1.0}, "'validation_fraction' parameter"),
        ({"param_distributions": 3}, "'param_distributions' parameter"),
        ({"error_score": "ignore"}, "'error_score' parameter"),
        ({"checkpoint_dir": 3}, "'checkpoint_dir' parameter"),
    ],
)
def test_incompatible_parameters_are_refused(spikes, params, message):
    with pytest.raises(ValueError, match=message):
        noisy(**params).fit(spikes)


def test_one_trial_cannot_be_set_aside(spikes):
    with pytest.raises(ValueError, match="of 1 trials or blocks leaves none to train on"):
        noisy(n_best=2).fit(spikes[:1])
