"""Real recordings: their shapes are accepted, and rates are better than chance."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from subprocesses import joblib_processes

from sklearn_stndt import BaggingEnsemble, STNDTEstimator, presets
from sklearn_stndt.datasets import evaluate, load_nlb, make_submission
from sklearn_stndt.metrics import co_bps

pytestmark = pytest.mark.real_data


def test_held_out_neurons_of_motor_cortex_are_predicted(small, real_data):
    spikes = np.load(real_data / "datahigh" / "datahigh_20ms.npz")["ex1_spikes"]
    order = np.random.RandomState(0).permutation(len(spikes))
    train, test = spikes[order[42:]], spikes[order[:42]]
    params = {"d_model": 32, "max_epochs": 30, "heldout_neurons": 0.25}
    assert small(**params).fit(train).score(test) > 0.15  # bits per spike


def test_a_published_ensemble_is_identical_in_two_processes(real_data):
    spikes = np.load(real_data / "datahigh" / "datahigh_20ms.npz")["ex2_spikes_first1s"]
    published = {
        "estimator": STNDTEstimator(heldout_neurons=0.25, max_epochs=3),
        "n_estimators": 12,
        "param_distributions": presets.paper_search_space("mc_maze"),
        "n_best": "auto",
        "random_state": 0,
    }
    with joblib_processes():
        alone, together = (BaggingEnsemble(**published, n_jobs=n).fit(spikes) for n in (1, 2))
    assert np.array_equal(alone.scores_, together.scores_)
    assert np.array_equal(alone.selected_, together.selected_)
    assert np.array_equal(alone.transform(spikes), together.transform(spikes))
    assert len({params["lr"] for params in alone.params_}) == 12


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
    # the mean rate of a trial is near that of its spikes
    for trial, of_trial in zip(trials, rates, strict=True):
        assert of_trial[: len(trial)].mean() == pytest.approx(trial.mean(), rel=0.2)


@pytest.mark.parametrize(
    ("calibration", "decoder", "margin"),
    [
        (False, Ridge(0.01), 0.3),
        # with so few bins, position loses a little by factor analysis, and least in log-rates
        (True, make_pipeline(FunctionTransformer(np.log), Ridge()), 0.3),
    ],
)
def test_position_is_decoded_from_a_continuous_recording(
    calibration, decoder, margin, small, real_data
):
    track = np.load(real_data / "nelpy" / "nelpy_linear-track_25ms.npz")
    step = np.diff(gaussian_filter1d(track["pos_px"], 10, axis=0), axis=0, prepend=0)
    speed = np.linalg.norm(step, axis=1)
    running = np.flatnonzero(speed > np.quantile(speed, 0.75))[:8000]
    spikes, position = track["spikes"][running], track["pos_px"][running, :1]
    network = small(window=50, d_model=16, max_epochs=40, calibration=calibration)
    scores = cross_val_score(make_pipeline(network, decoder), spikes, position, cv=KFold(2))
    of_counts = cross_val_score(Ridge(), spikes, position, cv=KFold(2))
    assert (scores > of_counts + margin).all()


def test_many_bursty_neurons_get_finite_rates(small, real_data):
    spikes = np.load(real_data / "retina" / "stafford2009_500ms.npz")["spikes"][:1000]
    assert spikes.shape[1] == 477
    assert spikes.max() > 5
    estimator = small(max_epochs=2).fit(spikes)
    rates = estimator.transform(spikes)
    assert np.isfinite(rates).all()
    assert (rates > 0).all()
    assert estimator.score(spikes) > 0  # silence and waves alternate


def test_mc_maze_passes_through_the_benchmark(small, real_data):
    """Two trials of MC_Maze are cut into six of 140 bins and 40 to forecast."""
    maze = np.load(real_data / "mc_maze" / "mc_maze_two_trials_5ms.npz")
    pieces = {
        kind: np.concatenate(
            [
                maze[name][: len(maze[name]) // 180 * 180].reshape(-1, 180, maze[name].shape[1])
                for name in sorted(maze)
                if name.startswith(kind)
            ]
        )
        for kind in ("spikes", "hand_vel")
    }
    order = [0, 2, 3, 5, 1, 4]  # parts of both trials in training and evaluation
    spikes, velocity = pieces["spikes"][order], pieces["hand_vel"][order]
    assert spikes.shape == (6, 180, 182)
    arrays = {}
    for prefix, trials in (("train", spikes[:4]), ("eval", spikes[4:])):
        for suffix, bins in (("", slice(140)), ("_forward", slice(140, None))):
            arrays[f"{prefix}_spikes_heldin{suffix}"] = trials[:, bins, :137]
            arrays[f"{prefix}_spikes_heldout{suffix}"] = trials[:, bins, 137:]
    target = {key: arrays.pop(key) for key in list(arrays) if key.startswith("eval")}
    arrays["eval_spikes_heldin"] = target.pop("eval_spikes_heldin")
    target |= {"train_behavior": velocity[:4, :140], "eval_behavior": velocity[4:, :140]}
    data = load_nlb([arrays, {"mc_maze": target}])
    assert (data.name, data.bin_width, data.n_forward, len(data.heldout)) == (
        "mc_maze",
        0.005,
        40,
        45,
    )
    network = small(heldout_neurons=data.heldout, forecast_bins=40, max_epochs=5)
    rates = network.fit(data.X_train).transform(data.X_eval)
    assert rates.shape == (2, 180, 182)
    (scores,) = evaluate(data, make_submission(network, data))
    assert list(scores["mc_maze_split"]) == ["co-bps", "vel R2", "fp-bps"]
    assert np.isfinite(list(scores["mc_maze_split"].values())).all()
    # after five epochs on four trials, rates are near the mean rates of the training trials
    heldout = data.spikes_eval[:, :140, 137:]
    mean = np.broadcast_to(data.X_train[..., 137:].mean(axis=(0, 1)), heldout.shape)
    assert scores["mc_maze_split"]["co-bps"] > co_bps(heldout, mean) - 0.05
