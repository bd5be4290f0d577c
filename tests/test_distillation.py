"""Distillation of an ensemble into one network."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_stndt import BaggingEnsemble, STNDTEstimator, load, save
from sklearn_stndt.ensemble.bagging import STUDENT
from sklearn_stndt.training.distillation import N_DRAWS, Lesson, TaughtWindows, draw_lessons
from sklearn_stndt.windows.cutting import cut
from sklearn_stndt.windows.segments import as_segments
from tests.small_nets import SMALL, draw_counts_with_gaps, spying_net

TINY = SMALL | {"max_epochs": 1}


def counts_of(n_trials=8, n_bins=10, n_neurons=5, seed=0):
    return np.random.RandomState(seed).poisson(1.0, (n_trials, n_bins, n_neurons))


def ensemble_of(X, groups=None, n_estimators=2, **params):
    estimator = STNDTEstimator(**(TINY | params))
    return BaggingEnsemble(estimator, n_estimators, random_state=0).fit(X, groups=groups)


def test_a_student_is_an_ordinary_fitted_estimator():
    X = counts_of().astype(float)
    X[0, 3:5] = np.nan
    X[1, :, 2] = np.nan
    ensemble = ensemble_of(X, heldout_neurons=2, forecast_bins=2)
    student = ensemble.distill(X, dropout=0.0)
    assert type(student) is STNDTEstimator
    assert (student.dropout, student.d_model) == (0.0, SMALL["d_model"])
    own = {"max_epochs": TINY["max_epochs"], "dropout": 0.0}
    assert {name: getattr(student, name) for name in STUDENT} == STUDENT | own
    assert student.net_.inference_passes == 1
    assert len(student.history_) == 1
    assert_array_equal(student.heldout_neurons_, ensemble.heldout_neurons_)
    assert np.isfinite(student.score(X))
    assert student.forecast(X[:, :8], 2).shape == (8, 2, 5)
    rates = student.transform(X)
    assert np.isfinite(rates).all()
    assert_array_equal(rates, pickle.loads(pickle.dumps(student)).transform(X))
    assert_array_equal(rates, ensemble.distill(X, dropout=0.0).transform(X))
    clone(student).fit(X)


def test_parameters_of_the_ensemble_and_those_that_are_passed_have_priority():
    X = counts_of()
    ensemble = ensemble_of(X, mask_ratio=0.3, inference_passes=2)
    student = ensemble.distill(X, early_stopping=True)
    assert (student.mask_ratio, student.net_.inference_passes) == (0.3, 2)
    assert "valid_loss" in student.history_[0]
    assert "valid_loss" not in ensemble.distill(X).history_[0]


def test_a_continuous_recording_and_its_saved_student(tmp_path):
    pytest.importorskip("safetensors")
    X = counts_of(1, 70, 4)[0].astype(float)
    X[20:25] = np.nan
    ensemble = ensemble_of(X, window=10)
    student = ensemble.distill(X)
    assert student.net_.module_.posterior is not None
    rates = student.transform(X)
    assert np.isfinite(rates).all()
    save(student, tmp_path / "student")
    assert_array_equal(load(tmp_path / "student").transform(X), rates)


@pytest.mark.parametrize("causal", [False, True])
def test_a_recording_with_trials_of_unequal_length(causal):
    X = counts_of(1, 70, 4)[0]
    groups = np.repeat(np.arange(8), [9, 8, 10, 3, 10, 10, 10, 10])
    ensemble = ensemble_of(X, groups)
    student = ensemble.distill(X, groups=groups, causal=causal)
    assert student.window_ == 10
    assert np.isfinite(student.transform(X, groups=groups)).all()


@pytest.mark.parametrize("refit", [False, True])
def test_a_student_has_a_posterior_with_fixed_shares(refit):
    X = counts_of()
    ensemble = ensemble_of(X, heldout_neurons=[1], refit=refit)
    network = ensemble.distill(X).net_.module_
    expected = [0.3] * X.shape[2]
    expected[1] = 0.1
    assert network.posterior.weight.tolist() == pytest.approx(expected)
    assert float(network.smoothing.width) == 0
    assert (network.readout.gain == 1).all()
    causal = ensemble.distill(X, causal=True).net_.module_
    assert causal.posterior.weight.tolist() == pytest.approx(expected)
    for params in ({"calibration": False}, {"context": (2, 2)}):
        assert ensemble.distill(X, **params).net_.module_.posterior is None


def test_rates_are_learned_and_counts_are_not():
    X = counts_of(16)
    far = X.mean((0, 1)) * [0.5, 1, 2, 3, 4]
    lesson = Lesson(X.reshape(-1, 5), np.broadcast_to(far, X.shape).reshape(-1, 5))
    student = STNDTEstimator(
        **SMALL,
        max_epochs=80,
        lr=0.03,
        early_stopping=False,
        calibration=False,
        heldout_neurons=[4],
        random_state=0,
    )
    student._fit_to(X, [lesson], None)
    assert_allclose(student.transform(X).mean((0, 1)), far, rtol=0.1)


def test_the_loss_is_that_of_all_known_entries_against_the_rates():
    net = spying_net(heldout_neurons=(1,), forecast_bins=2)
    batch, rates = draw_counts_with_gaps(), torch.rand(6, 12, 5)
    loss = net.train_step_single((batch, rates))["loss"]
    nll = np.exp(0.5) - 0.5 * rates
    known, before, heldin = ~batch.isnan(), torch.arange(12)[:, None] < 10, torch.arange(5) != 1
    parts = known & before & heldin, known & before & ~heldin, known & ~before
    torch.testing.assert_close(loss, sum(nll[part].mean() for part in parts))
    (_, shown, *_), visible = net.module_.calls[0], parts[0]
    assert not (shown & ~visible).any()
    assert (shown != visible).any()


def test_a_window_and_its_rates_are_of_the_same_lesson():
    X = counts_of(1, 27, 4)[0]
    lessons = [Lesson(X + 10.0 * i, X + 10.0 * i + 0.5) for i in range(3)]
    windows = TaughtWindows(cut(as_segments(X, np.repeat([0, 1], [20, 7])), 10, 5), lessons)
    torch.manual_seed(0)
    counts, rates = windows.__getitems__(np.tile(np.arange(len(windows)), 10))
    known = ~counts.isnan()
    assert_array_equal(rates[known], counts[known] + 0.5)
    assert not rates[~known].any()
    assert (~known).any()
    lesson = (counts[:, 0] // 10)[:, 0].numpy()
    assert_array_equal(np.unique(lesson), [0, 1, 2])
    expected = cut(as_segments(X, np.repeat([0, 1], [20, 7])), 10, 5)
    original, _ = expected.__getitems__(np.tile(np.arange(len(windows)), 10))
    assert_array_equal(counts, original + 10 * torch.as_tensor(lesson)[:, None, None])


def test_counts_are_drawn_from_the_rates_and_missing_where_counts_are():
    X = np.ones((4, 500, 2))
    X[0, :10] = np.nan
    shown = []

    def infer(counts):
        shown.append(counts)
        return np.full(counts.shape, [2.0, 5.0])

    lessons = draw_lessons(infer, X, np.random.RandomState(0))
    assert len(lessons) == N_DRAWS
    assert shown[0] is X
    for lesson, counts in zip(lessons, shown[1:], strict=True):
        assert_array_equal(lesson.counts, counts.reshape(-1, 2))
        assert_array_equal(lesson.rates, infer(counts).reshape(-1, 2))
    for counts in shown[1 : 1 + N_DRAWS]:
        assert_array_equal(np.isnan(counts), np.isnan(X))
        assert_allclose(np.nanmean(counts, (0, 1)), [2, 5], rtol=0.1)
        assert_allclose(np.nanvar(counts, (0, 1)), [2, 5], rtol=0.2)
    assert not np.array_equal(shown[1], shown[2], equal_nan=True)


def test_a_recording_too_large_to_draw_is_learned_itself(monkeypatch):
    monkeypatch.setattr("sklearn_stndt.training.distillation.MOST_BYTES", 8 * 60 - 1)
    X = np.ones((4, 5, 3))
    (lesson,) = draw_lessons(lambda counts: 2 * counts, X, np.random.RandomState(0))
    assert_array_equal(lesson.counts, X.reshape(-1, 3))
    assert_array_equal(lesson.rates, 2 * X.reshape(-1, 3))


def test_a_checkpoint_of_an_ordinary_fit_is_not_used(tmp_path):
    X = counts_of()
    ensemble = ensemble_of(X)
    student = ensemble.distill(X)
    expected = student.transform(X)
    clone(student).set_params(checkpoint_dir=tmp_path).fit(X)
    for _ in range(2):  # trained, then read
        student = ensemble.distill(X, checkpoint_dir=tmp_path)
        assert_array_equal(student.transform(X), expected)


def test_refusals_say_what_to_do():
    X = counts_of()
    with pytest.raises(NotFittedError):
        BaggingEnsemble().distill(X)
    ensemble = ensemble_of(X, n_estimators=1)
    with pytest.raises(ValueError, match="fit an ensemble with these"):
        ensemble.distill(X, heldout_neurons=2)
    with pytest.raises(ValueError, match="dropout"):
        ensemble.distill(X, dropout=2.0)
    with pytest.raises(ValueError, match="features"):
        ensemble.distill(X[:, :, 1:])
    ensemble.estimator = make_pipeline(FunctionTransformer(), STNDTEstimator())
    with pytest.raises(TypeError, match=r"must be an STNDTEstimator, but is a Pipeline"):
        ensemble.distill(X)
