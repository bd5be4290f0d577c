"""Real recordings: what generated data do not have goes through, and something is learned."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline

pytestmark = pytest.mark.real_data


def test_held_out_neurons_of_motor_cortex_are_predicted(small, real_data):
    spikes = np.load(real_data / "datahigh" / "datahigh_20ms.npz")["ex1_spikes"]
    order = np.random.RandomState(0).permutation(len(spikes))
    train, test = spikes[order[42:]], spikes[order[:42]]
    params = {"d_model": 32, "max_epochs": 30, "heldout_neurons": 0.25}
    assert small(**params).fit(train).score(test) > 0.15  # bits per spike


def test_trials_of_unequal_length_at_5_ms(small, real_data):
    maze = np.load(real_data / "mc_maze" / "mc_maze_two_trials_5ms.npz")
    trials = [maze[name] for name in sorted(maze) if name.startswith("spikes")]
    lengths = [len(trial) for trial in trials]
    assert sorted(lengths) == [647, 713]
    padded = np.full((2, max(lengths), 182), np.nan, dtype=np.float32)
    for row, trial in zip(padded, trials, strict=True):
        row[: len(trial)] = trial
    estimator = small(window=100, max_epochs=1).fit(padded)
    rates = estimator.transform(padded)
    assert np.isfinite(rates).all()
    assert (rates > 0).all()
    # the mean rate of a trial is about that of its spikes
    for trial, of_trial in zip(trials, rates, strict=True):
        assert of_trial[: len(trial)].mean() == pytest.approx(trial.mean(), rel=0.2)


def test_position_is_decoded_from_a_continuous_recording(small, real_data):
    track = np.load(real_data / "nelpy" / "nelpy_linear-track_25ms.npz")
    step = np.diff(gaussian_filter1d(track["pos_px"], 10, axis=0), axis=0, prepend=0)
    speed = np.linalg.norm(step, axis=1)
    running = np.flatnonzero(speed > np.quantile(speed, 0.75))[:8000]
    spikes, position = track["spikes"][running], track["pos_px"][running, :1]
    network = small(window=50, d_model=16, max_epochs=10)
    decode = make_pipeline(network, Ridge(0.01))
    scores = cross_val_score(decode, spikes, position, cv=KFold(2))
    of_counts = cross_val_score(Ridge(), spikes, position, cv=KFold(2))
    assert (scores > of_counts + 0.15).all()


def test_many_bursty_neurons_get_finite_rates(small, real_data):
    spikes = np.load(real_data / "retina" / "stafford2009_500ms.npz")["spikes"][:1000]
    assert spikes.shape[1] == 477
    assert spikes.max() > 5
    estimator = small(max_epochs=2).fit(spikes)
    rates = estimator.transform(spikes)
    assert np.isfinite(rates).all()
    assert (rates > 0).all()
    assert estimator.score(spikes) > 0  # silence and waves alternate
