"""psth_r2 and tp_corr."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import r2_score

from sklearn_stndt.metrics import psth_r2, tp_corr


@pytest.fixture
def averages():
    rng = np.random.default_rng(0)
    psth = rng.gamma(1.0, size=(3, 20, 4))
    labels = np.arange(12) % 3
    return psth, psth[labels] + 0.1 * rng.normal(size=(12, 20, 4)), labels


def test_psth_r2_is_that_of_the_mean_rates(averages):
    psth, rates, labels = averages
    means = np.stack([rates[labels == condition].mean(axis=0) for condition in range(3)])
    expected = r2_score(psth.reshape(60, 4), means.reshape(60, 4))
    assert psth_r2(psth, rates, labels) == pytest.approx(expected, abs=1e-12)
    lists = [np.flatnonzero(labels == condition) for condition in range(3)]
    ragged = np.empty(3, dtype=object)
    ragged[:] = lists
    for form in (lists, ragged, np.array(lists), labels.tolist()):
        assert psth_r2(psth, rates, form) == pytest.approx(expected, abs=1e-12)


def test_conditions_without_trials_and_bins_without_psth_are_left_out(averages):
    psth, rates, labels = averages
    expected = psth_r2(psth[:2, 5:], rates[labels < 2][:, 5:], labels[labels < 2])
    psth = psth.copy()
    psth[:, :5] = np.nan
    without = np.where(labels == 2, -1, labels)
    assert psth_r2(psth, rates, without) == pytest.approx(expected, abs=1e-12)
    psth[:, :5, 1:] = 0  # NaN in the first neuron is enough
    assert psth_r2(psth, rates, without) == pytest.approx(expected, abs=1e-12)
    others = np.where(labels == 2, -1, (labels + 1) % 2 + 1)  # the first condition has no trial
    expected = psth_r2(psth[[2, 1]], rates, without)
    assert psth_r2(psth, rates, others) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_psth_r2_leaves_out_trials_without_a_condition(averages, missing):
    psth, rates, labels = averages
    expected = psth_r2(psth, rates[4:], labels[4:])
    conditions = [missing] * 4 + labels[4:].tolist()
    for form in (conditions, np.array(conditions, dtype=object), pd.Series(conditions)):
        assert psth_r2(psth, rates, form) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("sign", [1, -1])
def test_jitter_is_undone(averages, sign):
    psth, rates, labels = averages
    jitter = sign * (np.arange(12) % 4)
    moved = np.stack(
        [np.roll(trial, -shift, axis=0) for trial, shift in zip(rates, jitter, strict=True)]
    )
    psth = psth.copy()
    known = slice(3, None) if sign > 0 else slice(0, -3)
    unknown = slice(0, 3) if sign > 0 else slice(-3, None)
    expected = psth_r2(psth[:, known], rates[:, known], labels)
    psth[:, unknown] = np.nan
    assert psth_r2(psth, moved, labels, jitter=jitter) == pytest.approx(expected, abs=1e-12)
    assert psth_r2(psth, moved, labels) < expected - 0.1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rates": np.ones((12, 20, 3))}, ValueError, "same bins and neurons"),
        ({"rates": np.ones((12, 20, 5))}, ValueError, "same bins and neurons"),
        ({"rates": np.ones((12, 4)), "psth": np.ones((3, 4))}, ValueError, "same bins and neurons"),
        ({"conditions": np.zeros(11, int)}, ValueError, "11 entries"),
        ({"conditions": np.zeros(13, int)}, ValueError, "13 entries"),
        ({"conditions": np.full(12, 0.5)}, ValueError, "whole number"),
        ({"conditions": ["a"] * 12}, ValueError, "whole number"),
        ({"conditions": [True] * 12}, ValueError, "entries of bool"),
        ({"conditions": [None] * 12}, ValueError, "nothing to compare"),
        ({"conditions": np.full(12, 3)}, ValueError, "goes up to 3"),
        ({"conditions": np.full(12, 5)}, ValueError, "goes up to 5"),
        ({"conditions": np.full(12, -1)}, ValueError, "nothing to compare"),
        ({"conditions": [[0, 1], [2]]}, ValueError, "3 lists"),
        ({"conditions": [[0, 1], [2], [3], [4]]}, ValueError, "3 lists"),
        ({"conditions": [[0, 1], [2], [12]]}, ValueError, "trials of condition 2 .* 0 to 11, got"),
        ({"conditions": [[0, 1], [2], [14]]}, ValueError, "trials of condition 2"),
        ({"conditions": [[0, 1], [2], [-1]]}, ValueError, "trials of condition 2"),
        ({"conditions": [[0, 1], [2], [3.0]]}, ValueError, "trials of condition 2"),
        ({"jitter": np.ones(11)}, ValueError, "one number per trial"),
        ({"jitter": np.ones(13)}, ValueError, "one number per trial"),
        ({"jitter": np.full(12, 0.5)}, TypeError, "divide times by the bin width"),
        ({"jitter": np.ones(12)}, ValueError, "NaN in bins whose PSTH is known"),
    ],
)
def test_bad_arguments_of_psth_r2_are_refused(averages, change, error, message):
    psth, rates, labels = averages
    with pytest.raises(error, match=message):
        psth_r2(**({"psth": psth, "rates": rates, "conditions": labels} | change))


# ---- produced time


@pytest.fixture
def intervals():
    """Trials that follow one trajectory at a speed of 1 / produced time, in two conditions."""
    rng = np.random.default_rng(0)
    produced = rng.uniform(0.5, 1.0, size=40)
    phase = 0.05 * np.arange(30) / produced[:, None]
    return produced, 2 + np.stack([np.sin(phase), np.cos(phase)], axis=-1), np.arange(40) % 2


def test_tp_corr_is_negative_where_short_times_go_with_speed(intervals):
    assert tp_corr(*intervals) < -0.95
    produced, rates, labels = intervals
    assert tp_corr(-produced, rates, labels) > 0.95


def test_speed_is_the_mean_distance_between_bins():
    rates = np.zeros((5, 3, 2))
    rates[0, 1:] = [3, 4]  # distances 5 and 0
    rates[1] = [[0, 0], [3, 0], [6, 0]]  # 3 and 3
    rates[2] = [[0, 0], [0, 1], [0, 2]]  # 1 and 1
    assert tp_corr([2.5, 3, 1], rates[:3], [0, 0, 0]) == pytest.approx(1)
    # two trials are a condition; speeds 1 and 2, and two bins
    rates[4] = [[0, 0], [2, 0], [9, 9]]
    mask = np.array([[True, True, False]] * 5)
    conditions = [0, 0, 0, 1, 1]
    rates[3] = [[0, 0], [0, 1], [9, 9]]
    score = tp_corr([5, 3, 1, 7, 8], rates, conditions, mask=mask)
    assert score == pytest.approx((1 + 1) / 2)
    score = tp_corr([5, 3, 1, 8, 7], rates, conditions, mask=mask)
    assert score == pytest.approx((1 - 1) / 2)


def test_tp_corr_measures_speed_only_within_the_mask(intervals):
    produced, rates, labels = intervals
    mask = np.arange(30) >= np.arange(40)[:, None] % 10  # starts differ between trials
    noisy = np.where(mask[..., None], rates, np.random.default_rng(0).normal(size=rates.shape))
    expected = tp_corr(produced, rates, labels, mask=mask)
    assert tp_corr(produced, noisy, labels, mask=mask) == expected
    assert tp_corr(produced, noisy, labels) > expected + 0.3
    rates = np.where(mask[..., None], rates, np.nan)
    assert tp_corr(produced, rates, labels, mask=mask) == expected


def test_tp_corr_correlates_within_conditions(intervals):
    produced, rates, _ = intervals
    far = np.concatenate([produced, 10 * produced])  # unrelated to rates across conditions
    both = np.concatenate([rates, rates])
    labels = np.column_stack([np.repeat([0, 1], 40), np.zeros(80)])
    assert tp_corr(far, both, labels) == pytest.approx(tp_corr(produced, rates, np.zeros(40)))


def test_trials_with_nan_are_left_out(intervals):
    produced, rates, labels = intervals
    expected = tp_corr(produced[:30], rates[:30], labels[:30])
    produced = produced.copy()
    produced[30:35] = np.nan
    labels = labels.astype(float)
    labels[35:] = np.nan
    rates = rates.copy()
    rates[30:] = np.nan
    assert tp_corr(produced, rates, labels) == expected


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_tp_corr_accepts_any_labels_and_leaves_out_missing_ones(intervals, missing):
    produced, rates, labels = intervals
    expected = tp_corr(produced[5:], rates[5:], labels[5:])
    for names in (["eye", "hand"], [1, "hand"], [False, True]):
        conditions = [missing] * 5 + [names[label] for label in labels[5:]]
        assert tp_corr(produced, rates, conditions) == pytest.approx(expected)
        rows = [[600, condition] for condition in conditions]
        assert tp_corr(produced, rates, rows) == pytest.approx(expected)


def test_a_single_trial_of_a_condition_is_left_out_with_a_warning(intervals):
    produced, rates, labels = intervals
    labels = labels.copy()
    for other in (7, -7):
        labels[0] = other
        with pytest.warns(UserWarning, match="1 conditions with a single trial") as caught:
            score = tp_corr(produced, rates, labels)
        assert caught[0].filename == __file__
        assert score == tp_corr(produced[1:], rates[1:], labels[1:])
        assert score == tp_corr(produced, rates, labels, check=False)


def test_a_constant_time_has_no_correlation(intervals):
    _, rates, labels = intervals
    assert np.isnan(tp_corr(np.ones(40), rates, labels))


def test_a_constant_speed_has_no_correlation(intervals):
    produced, _, labels = intervals
    assert np.isnan(tp_corr(produced, np.ones((40, 30, 2)), labels))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"produced": np.ones(39)}, "one time and one condition per trial"),
        ({"produced": np.ones(41)}, "one time and one condition per trial"),
        ({"conditions": np.ones(39)}, "one time and one condition per trial"),
        ({"conditions": np.ones(41)}, "one time and one condition per trial"),
        ({"conditions": np.ones((40, 1, 1))}, "one time and one condition per trial"),
        ({"conditions": np.arange(40)}, "two trials with a known time"),
        ({"rates": np.ones((40, 30))}, "n_trials, n_bins, n_neurons"),
        ({"rates": np.ones((40, 30, 2, 1))}, "n_trials, n_bins, n_neurons"),
        ({"mask": np.ones((40, 30))}, r"True and False, of shape \(40, 30\), got float64"),
        ({"mask": np.ones((39, 30), bool)}, "True and False"),
        ({"mask": np.ones((41, 30), bool)}, "True and False"),
        ({"mask": np.eye(40, 30) > 0}, "Trial 0 has 1 bins"),
        ({"rates": np.full((40, 30, 2), np.nan)}, "NaN in bins of trial 0"),
    ],
)
def test_bad_arguments_of_tp_corr_are_refused(intervals, change, message):
    params = dict(zip(("produced", "rates", "conditions"), intervals, strict=True))
    with pytest.raises(ValueError, match=message):
        tp_corr(**(params | change))
