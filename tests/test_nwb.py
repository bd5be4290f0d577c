"""NWB files: loaded data, and errors of broken files."""

import re
import sys
from datetime import UTC

import numpy as np
import pytest

from sklearn_stndt.datasets import (
    bin_spikes,
    evaluate,
    load_nlb,
    load_nwb,
    make_reaches,
    make_submission,
)

pynwb = pytest.importorskip("pynwb")


@pytest.fixture(scope="module")
def maze(write_nwb):
    return write_nwb()


def add_trial(file, start, stop, onset, split):
    file.add_trial(
        start_time=start,
        stop_time=stop,
        move_onset_time=onset,
        split=split,
        trial_type=0,
        trial_version=0,
    )


@pytest.fixture(scope="module")
def contents(maze):
    """Spike times, trials and velocity, read directly from the file."""
    with pynwb.NWBHDF5IO(maze, "r") as io:
        file = io.read()
        return {
            "times": [file.units["spike_times"][unit] for unit in range(12)],
            "trials": file.trials.to_dataframe(),
            "velocity": file.processing["behavior"]["hand_vel"].data[:],
        }


@pytest.mark.parametrize("bin_width", [0.005, 0.02, 0.01])
def test_aligned_trials_are_cut_from_the_binned_recording(maze, contents, bin_width):
    data = load_nwb(maze, bin_width=bin_width, align="move_onset_time", window=(-0.2, 0.4))
    whole = bin_spikes(contents["times"], bin_width, stop=30)
    assert data.spikes.shape == (20, round(0.6 / bin_width), 12)
    assert data.spikes.dtype == np.float32
    for trial, onset in enumerate(contents["trials"].move_onset_time):
        first = int(np.ceil(round((onset - 0.2) / bin_width, 6)))
        expected = whole[first : first + data.spikes.shape[1]]
        np.testing.assert_array_equal(data.spikes[trial], expected)
    assert data.time[0] == -0.2
    np.testing.assert_allclose(np.diff(data.time), bin_width)
    np.testing.assert_array_equal(data.heldout, [9, 10, 11])
    np.testing.assert_array_equal(data.unit_ids, np.arange(12))
    assert list(data.trials.split[:5]) == ["train", "train", "train", "val", "train"]
    assert set(data.trials.trial_type) == {0, 1}


def test_velocity_is_averaged_over_each_bin_and_lags(maze, contents):
    data = load_nwb(maze, bin_width=0.02, align="move_onset_time", window=(-0.2, 0.4), lag=0.1)
    velocity = contents["velocity"]
    for trial, onset in enumerate(contents["trials"].move_onset_time):
        first = 20 * int(np.ceil(round((onset - 0.1) / 0.02, 6)))
        line = velocity[first : first + 601]
        line = (line[1:] + line[:-1]) / 2  # means between samples
        expected = line.reshape(30, 20, 2).mean(axis=1)
        np.testing.assert_allclose(data.behavior["hand_vel"][trial], expected, atol=1e-9)


def test_whole_trials_are_padded_and_what_is_not_observed_is_nan(write_nwb):
    def longer(file):
        add_trial(file, 28.1, 29.6, 28.5, "none")  # after the end of observation

    data = load_nwb(write_nwb(edit=longer), bin_width=0.1)
    assert data.spikes.shape == (21, 15, 12)
    padded = np.isnan(data.spikes)
    assert padded[:20, 12:].all()
    assert not padded[:20, :12].any()
    assert padded[20].all()
    assert data.trials.split.iloc[20] == "none"


def test_the_whole_recording_is_one_array(maze, contents):
    data = load_nwb(maze, bin_width=0.02, trials=False)
    whole = bin_spikes(contents["times"], 0.02, stop=0.02 * len(data.spikes))
    known = ~np.isnan(data.spikes)
    np.testing.assert_array_equal(data.spikes[known], whole[known])
    # not observed: 20 ms of each 1.4 s, and 100 ms before the first trial
    assert np.isnan(data.spikes).any(axis=1).sum() == pytest.approx(19 + 5, abs=1)
    assert data.behavior["hand_vel"].shape == (len(data.spikes), 2)
    assert data.trials is None


def test_a_bin_that_is_observed_in_part_is_unknown(maze):
    data = load_nwb(maze, bin_width=0.05, trials=False)
    # observed from 100 to 1,480 ms, every 1,400 ms: the bin from 1,450 to 1,500 ms is cut
    ms = 50 * np.arange(len(data.spikes)) - 100
    expected = (ms < 0) | (ms % 1400 >= 1350)
    np.testing.assert_array_equal(np.isnan(data.spikes).all(axis=1), expected)
    np.testing.assert_array_equal(np.isnan(data.spikes).any(axis=1), expected)


def test_trials_without_the_event_are_left_out(write_nwb):
    def later(file):
        add_trial(file, 28.1, 28.2, np.nan, "train")

    data = load_nwb(write_nwb(edit=later), align="move_onset_time", window=(0, 0.1))
    assert len(data.spikes) == len(data.trials) == 20


def add_signals(file):
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 28, 9000))
    signals = [
        ("irregular", {"data": np.sin(times), "timestamps": times}),
        ("camera", {"data": np.sin(np.arange(840) / 30), "rate": 30.0, "starting_time": 0.0}),
        ("odd", {"data": np.sin(np.arange(9000) / 333), "rate": 333.0, "starting_time": 0.0}),
        ("scaled", {"data": np.arange(28_000), "rate": 1000.0, "conversion": 0.001, "offset": 2.0}),
    ]
    module = file.processing["behavior"]
    for name, content in signals:
        module.add(pynwb.TimeSeries(name=name, unit="a unit", **content))
    position = pynwb.behavior.Position()
    position.create_spatial_series(
        name="hand", data=np.zeros((28_000, 2)), rate=1000.0, reference_frame="screen"
    )
    module.add(position)


def test_every_kind_of_series_is_resampled_to_bins(write_nwb):
    data = load_nwb(write_nwb(edit=add_signals), bin_width=0.02, trials=False)
    centres = data.time + 0.01
    inside = (centres > 0.1) & (centres < 26)
    for name in ("irregular", "camera", "odd"):
        values = data.behavior[name][inside, 0]
        known = ~np.isnan(values)
        assert known.mean() > 0.99
        np.testing.assert_allclose(values[known], np.sin(centres[inside][known]), atol=0.02)
    ramp = data.behavior["scaled"][:1390, 0]
    np.testing.assert_allclose(ramp, 2 + centres[:1390], atol=1e-9)
    assert data.behavior["Position_hand"].shape == (len(centres), 2)
    some = load_nwb(write_nwb(edit=add_signals), behavior=["camera"], bin_width=0.02)
    assert list(some.behavior) == ["camera"]


# ---- the benchmark from NWB


def test_the_benchmark_runs_from_an_nwb_file(maze, small):
    data = load_nlb(maze, name="mc_maze_20")
    assert (len(data.X_train), len(data.X_eval)) == (15, 5)
    assert data.X_train.shape[1:] == (45, 12)
    trials = load_nwb(maze, bin_width=0.02, align="move_onset_time", window=(-0.25, 0.65), lag=0.1)
    is_train = (trials.trials.split == "train").to_numpy()
    np.testing.assert_array_equal(data.X_train, trials.spikes[is_train])
    # the benchmark takes velocity at the start of each bin
    start = load_nwb(
        maze,
        bin_width=0.02,
        align="move_onset_time",
        window=(-0.25, 0.65),
        lag=0.09,
        behavior="hand_vel",
    )
    velocity = start.behavior["hand_vel"][is_train, :35]
    np.testing.assert_allclose(data.y_train, velocity, atol=1.0)
    assert np.corrcoef(data.y_train.ravel(), velocity.ravel())[0, 1] > 0.999
    network = small(heldout_neurons=data.heldout, forecast_bins=data.n_forward, max_epochs=1)
    (scores,) = evaluate(data, make_submission(network.fit(data.X_train), data))
    assert list(scores["mc_maze_20_split"]) == ["co-bps", "vel R2", "psth R2", "fp-bps"]


def test_psths_are_the_smoothed_means_of_conditions(maze):
    data = load_nlb(maze, name="mc_maze")
    assert data.psth.shape == (2, 140, 12)
    both = load_nwb(maze, align="move_onset_time", window=(-0.25, 0.45))
    for condition in (0, 1):
        mean = both.spikes[(both.trials.trial_type == condition).to_numpy()].mean(axis=(0, 1))
        np.testing.assert_allclose(data.psth[condition].mean(axis=0), mean, rtol=0.2, atol=0.003)
    trial_type = both.trials.trial_type[both.trials.split == "val"].to_numpy()
    np.testing.assert_array_equal(data.conditions_eval, trial_type)


def test_held_back_test_trials_are_hidden(maze, write_nwb):
    def as_test(file):
        for trial in range(len(file.trials)):
            file.trials["split"].data[trial] = "test"
        file.processing["behavior"].data_interfaces.pop("hand_vel")

    # the benchmark's file of the test trials has neither held-out units nor behaviour
    test = write_nwb("test.nwb", n_trials=6, n_neurons=9, n_heldout=0, edit=as_test)
    data = load_nlb([maze, test], name="mc_maze_20")
    assert (data.X_train.shape, data.X_eval.shape) == ((20, 45, 12), (6, 45, 12))
    assert np.isnan(data.spikes_eval[..., data.heldout]).all()
    assert np.isnan(data.spikes_eval[:, 35:]).all()
    assert not np.isnan(data.X_eval[:, :35, :9]).any()
    assert data.y_train.shape == (20, 35, 2)
    assert data.y_eval is None
    assert data.target == {}


def test_reaches_with_two_decoders(write_nwb):
    def bumps(file):
        passive = np.arange(20) % 2
        file.add_trial_column("cond_dir", "direction", data=np.zeros(20))
        file.add_trial_column("ctr_hold_bump", "passive", data=passive)

    data = load_nlb(write_nwb(edit=bumps), name="area2_bump_20")
    passive = np.flatnonzero(np.arange(20) % 4 != 3) % 2 == 1
    np.testing.assert_array_equal(data.decode_mask_train, np.column_stack([~passive, passive]))
    assert data.psth.shape == (2, 30, 12)


def test_outliers_of_dmfc_rsg_have_no_behavior(write_nwb):
    def produced(file):
        go = np.array(file.trials["start_time"][:]) + 0.9
        file.trials["split"].data[0] = "none"  # its window starts before the recording
        columns = {"go_time": go, "set_time": go - 0.6, "is_outlier": np.arange(20.0) == 3}
        columns |= {name: np.full(20, 1200.0) for name in ("tp", "ts", "is_eye", "theta")}
        columns["is_short"] = np.arange(20) % 2
        for name, values in columns.items():
            file.add_trial_column(name, name, data=np.asarray(values, dtype=float))

    data = load_nlb(write_nwb(edit=produced, observe_all=True), name="dmfc_rsg_20")
    np.testing.assert_array_equal(np.isnan(data.y_eval).all(axis=1), [True, *[False] * 4])


# -- files that are broken ----------


def unsorted(file):
    file.add_unit(spike_times=[0.3, 0.2], obs_intervals=[[0.0, 28.0]], heldout=False)


def negative(file):
    file.add_unit(spike_times=[-0.3, 0.2], obs_intervals=[[0.0, 28.0]], heldout=False)


def not_finite(file):
    file.add_unit(spike_times=[0.3, np.nan], obs_intervals=[[0.0, 28.0]], heldout=False)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (unsorted, r"broken\.nwb: units\[12\]\.spike_times is not in order .* Sort"),
        (negative, r"broken\.nwb: units\[12\]\.spike_times holds negative times.* Shift"),
        (not_finite, r"broken\.nwb: units\[12\]\.spike_times is NaN or infinite 1 times.*remove"),
    ],
)
def test_errors_name_file_and_unit_of_bad_spike_times(write_nwb, edit, message):
    path = write_nwb("broken.nwb", edit=edit)
    with pytest.raises(ValueError, match=message):
        load_nwb(path)
    with pytest.raises(ValueError, match=message):
        load_nlb(path, name="mc_maze")


@pytest.fixture
def write_plain(tmp_path):
    """Write a file that contains only what `fill` adds."""

    def write(fill=lambda file: None):
        from datetime import datetime

        file = pynwb.NWBFile("a session", "an id", datetime(2026, 1, 1, tzinfo=UTC))
        fill(file)
        path = tmp_path / "plain.nwb"
        with pynwb.NWBHDF5IO(path, "w") as io:
            io.write(file)
        return path

    return write


def test_a_file_without_units_is_refused(write_plain):
    with pytest.raises(ValueError, match=r"plain\.nwb has no units.* sorted spikes"):
        load_nwb(write_plain())


def test_units_without_spike_times_are_refused(write_plain):
    def fill(file):
        file.add_unit_column("quality", "quality")
        file.add_unit(quality="good")

    with pytest.raises(ValueError, match=r"plain\.nwb: units has no column spike_times"):
        load_nwb(write_plain(fill))


def test_a_file_without_trials_is_one_recording(write_plain):
    path = write_plain(lambda file: file.add_unit(spike_times=[0.1, 0.25]))
    with pytest.raises(ValueError, match=r"plain\.nwb has no trials table.* trials=False"):
        load_nwb(path)
    assert load_nwb(path, bin_width=0.1, trials=False).spikes.ravel().tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"no column 'split'"):
        load_nlb(path, name="mc_rtt")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"align": "go_cue", "window": (0, 0.1)}, r"no column 'go_cue', only .*move_onset_time"),
        ({"align": "split", "window": (0, 0.1)}, "trials/split holds no times"),
        ({"align": "move_onset_time"}, "needs a window"),
        ({"window": (0, 0.0123)}, "not a whole number of bins"),
        ({"behavior": "eye_pos"}, r"maze\.nwb has no time series 'eye_pos', only \['hand_vel'\]"),
        ({"bin_width": 2.0}, "trial 0 lasts"),
        ({"bin_width": -1}, "bin_width must be"),
    ],
)
def test_errors_name_what_a_file_lacks(maze, params, message):
    with pytest.raises(ValueError, match=message):
        load_nwb(maze, **params)


def test_errors_name_truncated_and_missing_files(maze, tmp_path):
    half = tmp_path / "half.nwb"
    half.write_bytes(maze.read_bytes()[:20_000])
    with pytest.raises(
        ValueError,
        match=r"half\.nwb is not an HDF5 file, or is truncated .* Download or write it again",
    ):
        load_nwb(half)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        load_nwb(tmp_path / "nowhere.nwb")


def test_an_hdf5_file_that_is_not_nwb_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "other.nwb"
    with h5py.File(path, "w") as file:
        file["values"] = [1, 2]
    with pytest.raises(ValueError, match=r"other\.nwb (cannot be opened|is not an NWB file)"):
        load_nwb(path)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "cannot be inferred from the file"),
        ({"name": "mc_maze", "bin_width": 0.0005}, "whole number of milliseconds"),
        ({"name": "mc_rtt"}, "lacks|finger_vel"),
    ],
)
def test_the_benchmark_needs_a_matching_name(maze, params, message):
    with pytest.raises(ValueError, match=message):
        evaluate(load_nlb(maze, **params), {"mc_rtt": {}})


def test_without_pynwb_the_error_names_the_extra(maze, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynwb", None)
    with pytest.raises(ImportError, match=r'pip install "sklearn-stndt\[io\]"'):
        load_nwb(maze)


def test_the_reaches_in_the_file_are_those_that_were_generated(maze):
    data = make_reaches(20, 1200, 12, bin_width=0.001, random_state=0)
    loaded = load_nwb(maze, bin_width=0.1)
    counts = data.spikes.reshape(20, 12, 100, 12).sum(axis=2)
    np.testing.assert_array_equal(loaded.spikes, counts)


def test_a_unit_that_was_never_observed_is_unknown_throughout(write_nwb):
    def silent(file):
        file.add_unit(spike_times=[], obs_intervals=np.zeros((0, 2)), heldout=False)

    data = load_nwb(write_nwb(edit=silent), bin_width=0.1)
    assert np.isnan(data.spikes[..., 12]).all()
    assert not np.isnan(data.spikes[..., :12]).any()


def test_series_that_end_before_the_recording_are_unknown_after_it(write_nwb):
    def short(file):
        module = file.processing["behavior"]
        module.add(pynwb.TimeSeries(name="short", data=np.ones(5000), unit="cm", rate=1000.0))

    data = load_nwb(write_nwb(edit=short), bin_width=0.02, trials=False, behavior="short")
    known = ~np.isnan(data.behavior["short"][:, 0])
    assert known[:250].all()
    assert not known[250:].any()
    np.testing.assert_allclose(data.behavior["short"][:250], 1, atol=1e-12)


def test_widths_windows_and_lags_keep_their_unit(maze):
    pq = pytest.importorskip("quantities")
    plain = load_nwb(maze, bin_width=0.02, align="move_onset_time", window=(-0.2, 0.4), lag=0.1)
    with_units = load_nwb(
        maze,
        bin_width=20 * pq.ms,
        align="move_onset_time",
        window=(-200 * pq.ms, 400 * pq.ms),
        lag=np.timedelta64(100, "ms"),
    )
    np.testing.assert_array_equal(with_units.spikes, plain.spikes)
    np.testing.assert_array_equal(with_units.behavior["hand_vel"], plain.behavior["hand_vel"])
    assert (with_units.bin_width, with_units.lag) == (0.02, 0.1)


def test_a_clock_in_other_units_ends_before_memory_is_taken(write_plain):
    path = write_plain(lambda file: file.add_unit(spike_times=[1.0, 1e12]))
    with pytest.raises(
        ValueError, match=r"from 0 to 1e\+12 s, the end of the spikes of the unit with id"
    ):
        load_nwb(path, trials=False, bin_width=0.005)


def test_a_series_in_a_container_is_found_by_its_own_name(write_nwb):
    path = write_nwb(edit=add_signals)
    data = load_nwb(path, bin_width=0.02)
    assert "Position_hand" in data.behavior
    np.testing.assert_array_equal(data.behavior["hand"], data.behavior["Position_hand"])
    some = load_nwb(path, bin_width=0.02, behavior="hand")
    assert list(some.behavior) == ["hand"]
    np.testing.assert_array_equal(some.behavior["hand"], data.behavior["hand"])
    with pytest.raises(KeyError, match=r"no time series 'foot', only .*'Position_hand'"):
        data.behavior["foot"]
    with pytest.raises(ValueError, match="'split' is a column of the trials table"):
        load_nwb(path, behavior="split")


def test_printing_what_was_loaded_shows_shapes(write_nwb):
    data = load_nwb(write_nwb(), bin_width=0.02, trials=True)
    printed = str(data)
    assert len(printed.splitlines()) == len(data)
    n_trials = len(data.spikes)
    assert re.search(rf"^spikes +array \({n_trials}, \d+, \d+\) float32$", printed, re.M)
    assert re.search(rf"^behavior +hand_vel: array \({n_trials}, \d+, 2\)", printed, re.M)
    assert re.search(rf"^trials +table of {n_trials} rows: id, start_time", printed, re.M)
    assert re.search(r"^bin_width +0\.02$", printed, re.M)
