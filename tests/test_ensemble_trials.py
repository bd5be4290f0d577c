import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from sklearn_stndt import BaggingEnsemble
from sklearn_stndt.ensemble.plans import EnsembleSettings, draw_plans
from sklearn_stndt.ensemble.trials import Recording, row_trials, take

ROWS = np.arange(100.0).reshape(50, 2)
LABELS = np.repeat(["b", "a", "c"], [10, 25, 15])


def test_trials_of_a_3d_array_are_its_first_axis():
    assert row_trials(np.zeros((4, 5, 2)), None) is None


def test_trials_of_rows_are_runs_of_equal_labels():
    assert_array_equal(row_trials(ROWS, LABELS), np.repeat([0, 1, 2], [10, 25, 15]))
    # a label that occurs again is another trial
    assert_array_equal(row_trials(ROWS[:5], np.array([7, 7, 3, 7, 7])), [0, 0, 1, 2, 2])


@settings(deadline=None)
@given(n_rows=st.integers(1, 300))
def test_a_recording_is_cut_into_blocks_of_equal_length(n_rows):
    trials = row_trials(np.zeros((n_rows, 3)), None)
    assert len(trials) == n_rows
    assert (np.diff(trials) >= 0).all()
    lengths = np.bincount(trials)
    assert len(lengths) == min(20, n_rows)
    assert np.ptp(lengths) <= 1


@pytest.mark.parametrize("groups", [None, LABELS])
@pytest.mark.parametrize("takes_groups", [False, True])
def test_all_trials_in_order_are_not_copied(groups, takes_groups):
    trials = row_trials(ROWS, groups)
    drawn = np.arange(trials[-1] + 1)
    X, labels = take(ROWS, groups, trials, drawn, takes_groups)
    assert X is ROWS
    assert labels is groups


def test_trials_of_a_3d_array_are_taken_whole():
    trials = ROWS.reshape(5, 10, 2)
    X, labels = take(trials, None, None, np.array([0, 3, 3]), True)
    assert_array_equal(X, trials[[0, 3, 3]])
    assert labels is None


def test_a_trial_that_was_drawn_twice_is_two_trials():
    trials = row_trials(ROWS, LABELS)
    X, labels = take(ROWS, LABELS, trials, np.array([0, 0, 2]), True)
    assert_array_equal(X, np.concatenate([ROWS[:10], ROWS[:10], ROWS[35:]]))
    assert_array_equal(labels, np.repeat([0, 1, 2], [10, 10, 15]))


@pytest.mark.parametrize("takes_groups", [False, True])
def test_blocks_get_groups_if_the_estimator_takes_groups(takes_groups):
    trials = row_trials(ROWS[:40], None)  # blocks of 2 rows
    X, labels = take(ROWS[:40], None, trials, np.array([1, 4, 4]), takes_groups)
    assert_array_equal(X, ROWS[[2, 3, 8, 9, 8, 9]])
    if takes_groups:
        assert_array_equal(labels, [0, 0, 1, 1, 2, 2])
    else:
        assert labels is None


def test_trials_and_seeds_of_a_member_are_drawn_independently():
    settings = EnsembleSettings(**BaggingEnsemble(bootstrap=True).get_params(deep=False))
    plans = draw_plans(settings, Recording.of(np.ones((1000, 2, 3)), None), None)
    for plan in plans.members:
        from_the_seed = np.random.RandomState(plan.seed).choice(1000, 1000)
        assert not np.array_equal(plan.drawn, np.sort(from_the_seed))
