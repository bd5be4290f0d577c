"""A warning if training has learnt nothing."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from sklearn_stndt import MultiSessionEstimator
from sklearn_stndt.network.likelihood import Gaussian, Poisson
from sklearn_stndt.training.verdict import (
    count_spikes,
    has_learnt_nothing,
    score_hidden_counts,
    warn_if_nothing_learnt,
)
from sklearn_stndt.windows.cutting import Windows

NOTHING = "Training has learnt nothing"


@pytest.mark.parametrize(
    ("score", "n_spikes", "n_neurons", "expected"),
    [
        (0.2, 1000, 20, False),
        (-0.01, 950, 20, False),  # mean rates of the scored counts themselves gain .015
        (-0.04, 950, 20, True),
        (-0.02, 1500, 20, True),
        (-0.006, 1500, 20, False),
        (-0.1, 100, 20, False),  # 0.04 after the gain, which chance explains
        (-0.3, 100, 20, True),
        (-0.1, 1000, 100, True),
        (-0.05, 1000, 100, False),
        (0.0, 0, 20, False),
    ],
)
def test_the_verdict_allows_for_chance(score, n_spikes, n_neurons, expected):
    assert has_learnt_nothing(score, n_spikes, n_neurons) is expected


@pytest.mark.parametrize("neurons", [[], [0, 3]])
def test_spikes_are_counted_where_they_are_known(neurons):
    rows = np.random.default_rng(0).poisson(1.0, (200, 4)).astype(float)
    rows[::7, 1] = np.nan
    starts = np.arange(0, 200, 2)
    windows = Windows(rows, starts, np.full(100, 2), 3)
    expected = np.nansum(rows[:, neurons or slice(None)])
    assert count_spikes(windows, np.array(neurons, dtype=int)) == expected


@pytest.fixture(scope="module")
def noise():
    """Counts without any structure."""
    return np.random.default_rng(0).poisson(3.0, (24, 20, 12)).astype(float)


@pytest.mark.parametrize(
    ("n_updates", "has_core", "warns"),
    [(129, False, False), (130, False, True), (45, True, False), (46, True, True)],
)
def test_a_trial_run_does_not_warn(noise, n_updates, has_core, warns):
    rows = noise.reshape(-1, 12)
    validation = Windows(rows, [0, 20], [20, 20], 20)
    history = [{"epoch": 1, "valid_bits": -0.5, "train_batch_count": n_updates, "kept": True}]
    trained_on = {"n_neurons": 12, "n_bins": 440, "spikes_per_bin": 36.0}
    neurons = np.array([], dtype=int)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_if_nothing_learnt(
            history, validation, neurons, trained_on, Poisson(), has_core=has_core
        )
        warn_if_nothing_learnt(history, validation, neurons, trained_on, Gaussian())
    assert len(caught) == warns


def test_a_fit_of_noise_warns_and_says_what_to_check(small, noise):
    estimator = small(attention="temporal", n_layers=1, max_epochs=150, validation_fraction=0.5)
    with pytest.warns(ConvergenceWarning, match=NOTHING) as caught:
        estimator.fit(noise)
    (message,) = (str(warning.message) for warning in caught)
    assert f"{estimator.summary_.score:.3g} bits per spike" in message
    for hint in ("last axis of X, here 12;", "order of time", "here a neuron has 3 spikes per bin"):
        assert hint in message
    assert caught[0].filename == __file__


def test_a_fit_of_structure_does_not_warn(small, spikes):
    estimator = small(attention="temporal", n_layers=1, max_epochs=75).fit(spikes)
    assert estimator.summary_.n_updates == 150
    assert estimator.summary_.score > 0


def test_calibrated_rates_that_are_better_than_mean_rates_are_no_reason_to_warn(small, spikes):
    fitted = small(attention="temporal", n_layers=1, max_epochs=75, heldout_neurons=[2, 5])
    fitted.fit(spikes)
    n_trials, n_bins, n_neurons = spikes.shape
    starts, lengths = n_bins * np.arange(n_trials), np.full(n_trials, n_bins)
    rows = np.asarray(spikes, dtype=float).reshape(-1, n_neurons)
    windows = Windows(rows, starts, lengths, n_bins)
    history = [{"epoch": 1, "valid_bits": -5.0, "train_batch_count": 200, "kept": True}]
    neurons, size = fitted.heldout_neurons_, fitted._trained_on
    score = score_hidden_counts(fitted.net_, windows, neurons)
    assert score == pytest.approx(fitted.score(spikes), abs=0.1)  # with fewer visible counts
    assert score > 0
    warn_if_nothing_learnt(history, windows, neurons, size, Poisson(), fitted.net_)
    fitted.net_.module_.readout.gain.fill_(-3.0)
    with pytest.warns(ConvergenceWarning, match=NOTHING):
        warn_if_nothing_learnt(history, windows, neurons, size, Poisson(), fitted.net_)
    one = Windows(rows, starts[:1], lengths[:1], n_bins)
    with pytest.warns(ConvergenceWarning, match=r"may have .* single window .* tells little"):
        warn_if_nothing_learnt(history, one, neurons, size, Poisson(), fitted.net_)


def test_several_sessions_are_judged_one_by_one(small, spikes, noise, monkeypatch):
    verdict = "sklearn_stndt.training.verdict"
    monkeypatch.setattr(f"{verdict}.N_UPDATES", (1, 1))
    monkeypatch.setattr(f"{verdict}.has_learnt_nothing", lambda *of_session: of_session[2] == 5)
    with pytest.warns(ConvergenceWarning, match=NOTHING) as caught:
        MultiSessionEstimator(small(max_epochs=1)).fit([spikes, noise[..., :5]])
    (message,) = (str(warning.message) for warning in caught)
    assert message.startswith(f"{NOTHING} from session 1, X[1]:")
    assert "here a neuron has 3 spikes per bin" in message
    assert caught[0].filename == __file__
