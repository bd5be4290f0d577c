"""Arrays from an NWB file equal those of the benchmark's own pipeline.

That pipeline, and so these tests, need pandas below 3.
"""

import numpy as np
import pytest

from sklearn_stndt.datasets import load_nlb

pandas = pytest.importorskip("pandas")
pytestmark = [
    pytest.mark.skipif(
        int(pandas.__version__.split(".")[0]) >= 3,
        reason=f"nlb-tools' pipeline needs pandas<3, installed is {pandas.__version__}",
    ),
    pytest.mark.filterwarnings("ignore"),  # from nlb-tools
]
tensors = pytest.importorskip("nlb_tools.make_tensors", reason="nlb-tools is not installed")


def by_reference(path, name, bin_ms):
    from nlb_tools.nwb_interface import NWBDataset

    dataset = NWBDataset(str(path), split_heldout=True)
    dataset.resample(bin_ms)
    common = {"save_file": False, "return_dict": True}
    train = tensors.make_train_input_tensors(
        dataset, name, "train", include_behavior=True, include_forward_pred=True, **common
    )
    test = tensors.make_eval_input_tensors(dataset, name, "val", **common)
    target = tensors.make_eval_target_tensors(
        dataset, name, "train", "val", include_psth=name != "mc_rtt", **common
    )
    return train | test, next(iter(target.values()))


def assert_close(ours, theirs):
    np.testing.assert_allclose(
        np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float), rtol=1e-9, atol=1e-9
    )


def check(path, name, bin_ms, n_heldin):
    inputs, target = by_reference(path, name, bin_ms)
    data = load_nlb(path, name=name, bin_width=bin_ms / 1000)
    ours = data.target[name if bin_ms == 5 else f"{name}_{bin_ms}"]
    n_bins = inputs["train_spikes_heldin"].shape[1]
    assert_close(data.X_train[:, :n_bins, :n_heldin], inputs["train_spikes_heldin"])
    assert_close(data.X_train[:, :n_bins, n_heldin:], inputs["train_spikes_heldout"])
    assert_close(data.X_train[:, n_bins:, :n_heldin], inputs["train_spikes_heldin_forward"])
    assert_close(data.X_train[:, n_bins:, n_heldin:], inputs["train_spikes_heldout_forward"])
    assert_close(data.y_train, inputs["train_behavior"])
    assert_close(data.X_eval[:, :n_bins, :n_heldin], inputs["eval_spikes_heldin"])
    if name != "dmfc_rsg":
        assert_close(data.spikes_eval[:, :n_bins, n_heldin:], inputs["eval_spikes_heldout"])
    assert set(ours) == set(target)
    for key, theirs in target.items():
        if key.endswith("cond_idx"):
            for our_trials, their_trials in zip(ours[key], theirs, strict=True):
                np.testing.assert_array_equal(our_trials, np.asarray(their_trials, dtype=int))
        else:
            assert_close(ours[key], theirs)
    return data


@pytest.mark.parametrize("bin_ms", [5, 20])
@pytest.mark.parametrize("seed", [0, 1])
def test_mc_maze_tensors_are_the_same(write_nwb, bin_ms, seed):
    data = check(write_nwb(seed=seed), "mc_maze_small", bin_ms, 9)
    assert not np.isnan(data.X_train).any()
    assert len(data.psth) == 2


def test_mc_maze_tensors_are_the_same_at_the_size_of_the_benchmark(write_nwb):
    path = write_nwb(n_trials=100, n_neurons=142, n_heldout=35)
    data = check(path, "mc_maze_small", 5, 107)
    assert data.X_train.shape == (75, 180, 142)


@pytest.mark.parametrize("bin_ms", [5, 20])
def test_mc_rtt_tensors_are_the_same(write_nwb, bin_ms):
    def finger(file):
        series = file.processing["behavior"]["hand_vel"]
        file.processing["behavior"].add(
            type(series)(
                name="finger_vel",
                data=series.data,
                unit="cm/s",
                timestamps=series.timestamps,
                comments=series.comments,
            )
        )

    data = check(write_nwb(edit=finger), "mc_rtt", bin_ms, 9)
    assert data.psth is None


@pytest.mark.parametrize("bin_ms", [5, 20])
def test_area2_bump_tensors_are_the_same(write_nwb, bin_ms):
    def bumps(file):
        file.add_trial_column("cond_dir", "direction", data=np.arange(20.0) // 10)
        file.add_trial_column("ctr_hold_bump", "passive", data=np.arange(20.0) % 2)

    data = check(write_nwb(edit=bumps), "area2_bump", bin_ms, 9)
    assert data.decode_mask_train.shape == (15, 2)


@pytest.mark.parametrize("bin_ms", [5, 20])
def test_dmfc_rsg_tensors_are_the_same(write_nwb, bin_ms):
    def intervals(file):
        """Add set and go times to each trial, at random intervals."""
        rng = np.random.default_rng(0)
        file.trials["split"].data[0] = "none"  # its window would start before the recording
        go = np.array(file.trials["start_time"][:]) + 0.9
        columns = {
            "go_time": go,
            "set_time": go - rng.uniform(0.5, 0.8, 20).round(3),
            "tp": rng.uniform(1150, 1600, 20).round(),
            "ts": np.repeat([640.0, 800.0], 10),
            "is_eye": np.arange(20.0) % 2,
            "theta": np.zeros(20),
            "is_short": np.ones(20),
            "is_outlier": (np.arange(20) == 3).astype(float),
        }
        for name, values in columns.items():
            file.add_trial_column(name, name, data=values)

    data = check(write_nwb(edit=intervals, observe_all=True), "dmfc_rsg", bin_ms, 9)
    assert data.jitter_train.max() > 0
    assert np.isnan(data.target[data.name if bin_ms == 5 else "dmfc_rsg_20"]["psth"]).any()
