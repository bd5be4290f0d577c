"""NWB files: what can be passed, which rows and series are loaded, and whose clock is wrong."""

import io
import re
import sys
import types
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from sklearn_stndt import BinwiseRegressor
from sklearn_stndt.datasets import load_nwb

pynwb = pytest.importorskip("pynwb")
h5py = pytest.importorskip("h5py")

WIDTH = 0.1
STARTS = 2.0 * np.arange(20)  # of trials, s


def make_file(*, trains=None, trials=True, scale=1.0):
    """Four units that fire at 10 Hz for 40 s, and 20 trials of 1 s."""
    file = pynwb.NWBFile("a session", "an id", datetime(2026, 1, 1, tzinfo=UTC))
    file.add_unit_column("quality", "quality")
    file.add_unit_column("snr", "signal to noise")
    rng = np.random.default_rng(0)
    if trains is None:
        trains = [np.sort(rng.uniform(0, 40, 400)) for _ in range(4)]
    for unit, times in enumerate(trains):
        quality = ("good", "mua", "good", "noise")[unit % 4]
        file.add_unit(spike_times=np.asarray(times) * scale, quality=quality, snr=float(unit))
    if trials:
        file.add_trial_column("cue_time", "cue")
        for start in STARTS:
            file.add_trial(start_time=start, stop_time=start + 1, cue_time=start + 0.3)
    return file


def series(name="pos", data=None, **params):
    data = np.sin(np.arange(4000) / 100) if data is None else data
    params = {"unit": "cm", "rate": 100.0} | params
    return pynwb.TimeSeries(name=name, data=data, **params)


def write(file, path):
    with pynwb.NWBHDF5IO(path, "w") as to:
        to.write(file)
    return path


@pytest.fixture
def save(tmp_path):
    return lambda file: write(file, tmp_path / "session.nwb")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = make_file()
    file.add_acquisition(series())
    return write(file, tmp_path_factory.mktemp("nwb") / "session.nwb")


@pytest.fixture(scope="module")
def expected(path):
    return load_nwb(path, bin_width=WIDTH)


# -- which units ----------


@pytest.mark.parametrize(
    ("units", "rows"),
    [
        ([2, 0], [2, 0]),
        (np.array([-1]), [3]),
        (1, [1]),
        ([True, False, False, True], [0, 3]),
        ({"quality": "good"}, [0, 2]),
        ({"quality": ["good", "mua"], "snr": 1.0}, [1]),
        ({"id": [1, 3]}, [1, 3]),
        ("quality == 'good' and snr > 1", [2]),
        ("quality in ['good', 'mua']", [0, 1, 2]),
        (lambda table: table.snr >= 2, [2, 3]),
        (lambda table: np.argsort(-table.snr.to_numpy())[:2], [3, 2]),
    ],
)
def test_units_are_chosen_by_rows_or_by_columns(path, expected, units, rows):
    data = load_nwb(path, bin_width=WIDTH, units=units)
    np.testing.assert_array_equal(data.spikes, expected.spikes[..., rows])
    np.testing.assert_array_equal(data.unit_ids, rows)
    assert list(data.units.snr) == rows


@pytest.mark.parametrize(
    ("units", "error", "message"),
    [
        ([4], ValueError, "contains 4, but the units table has rows 0 to 3"),
        ([0, 0], ValueError, "twice"),
        ([], ValueError, "chooses none of the 4 units"),
        ([True, False], ValueError, r"mask in units has shape \(2,\)"),
        ([0.5], TypeError, "units must be row numbers"),
        ({"depth": 3}, ValueError, r"no column 'depth', only \['id', 'quality', 'snr'\]"),
        ({"quality": "best"}, ValueError, "chooses none"),
        ("depth > 3", ValueError, r"cannot be evaluated .*'quality', 'snr'"),
        ("snr", ValueError, "is no condition"),
    ],
)
def test_units_that_are_not_there_are_named(path, units, error, message):
    with pytest.raises(error, match=message):
        load_nwb(path, units=units)


# -- rows that are broken ----------

GOOD = np.arange(0.05, 40, 0.1)
FAULTS = {
    "negative": ([-0.3, 0.2], "holds negative times, the lowest is -0.3"),
    "reset": ([10.0, 20.0, 1.0], "not in order of time: 1 s follows 20 s at index 2"),
    "nan": ([0.1, np.nan], "NaN or infinite 1 times"),
    "infinite": ([0.1, np.inf], "NaN or infinite 1 times"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_unit_is_skipped_or_not_chosen(save, fault):
    times, message = FAULTS[fault]
    path = save(make_file(trains=[GOOD, times, GOOD]))
    with pytest.raises(ValueError, match=rf"units\[1\].*{message}.*on_error='skip'") as caught:
        load_nwb(path)
    assert "np." not in str(caught.value)
    with pytest.warns(UserWarning, match=rf"units\[1\] is left out: spike_times.*{message}"):
        data = load_nwb(path, bin_width=WIDTH, on_error="skip")
    np.testing.assert_array_equal(data.unit_ids, [0, 2])
    assert data.spikes.shape == (20, 10, 2)
    assert (data.spikes == 1).all()
    np.testing.assert_array_equal(load_nwb(path, units=[0, 2]).unit_ids, [0, 2])


def test_a_file_whose_units_are_all_broken_is_refused(save):
    path = save(make_file(trains=[[-1.0]]))
    with pytest.raises(ValueError, match=r"no unit is left.*units\[0\].*negative"):
        load_nwb(path, on_error="skip")


@pytest.mark.parametrize(
    ("start", "stop", "message"),
    [
        (39.0, 38.0, "stop_time is before start_time"),
        (38.51, 38.59, "shorter than a bin of 0.1 s"),
        (38.0, 38.0, "shorter than a bin"),
    ],
)
def test_a_broken_trial_is_skipped_and_named(save, start, stop, message):
    file = make_file(trains=[GOOD])
    file.add_trial(start_time=np.nan, stop_time=1.0, cue_time=0.0)
    file.add_trial(start_time=start, stop_time=stop, cue_time=np.nan)
    path = save(file)
    with pytest.raises(ValueError, match=f"trial 21 lasts from .*{message}"):
        load_nwb(path, bin_width=WIDTH)
    with (
        pytest.warns(UserWarning, match=rf"trials\[21\] left out: {message}"),
        pytest.warns(UserWarning, match=r"trials\[20\] left out: .*NaN"),
    ):
        data = load_nwb(path, bin_width=WIDTH, on_error="skip")
    np.testing.assert_array_equal(data.trials.start_time, STARTS)
    assert data.spikes.shape == (20, 10, 1)


def test_the_remedy_for_a_reversed_trial_is_not_a_narrower_bin(save):
    file = make_file(trains=[GOOD])
    file.add_trial(start_time=39.0, stop_time=38.0, cue_time=np.nan)
    with pytest.raises(ValueError, match="Correct the file") as caught:
        load_nwb(save(file))
    assert "narrower" not in str(caught.value)


def test_a_trial_without_a_stop_is_left_out_aloud(save):
    file = make_file(trains=[GOOD])
    file.add_trial(start_time=39.0, stop_time=np.nan, cue_time=39.1)
    with pytest.warns(UserWarning, match=r"trials\[20\] left out"):
        assert len(load_nwb(save(file), bin_width=WIDTH).spikes) == 20


@pytest.mark.parametrize("column", ["start_time", "stop_time"])
def test_a_column_of_nan_is_named(save, column):
    file = make_file(trains=[GOOD])
    file.trials[column].data[:] = [np.nan] * 20
    with pytest.raises(ValueError, match=f"{column} is missing .* in all 20 rows"):
        load_nwb(save(file))


def test_events_that_are_all_nan_are_named(save):
    file = make_file(trains=[GOOD])
    file.trials["cue_time"].data[:] = [np.nan] * 20
    with pytest.raises(ValueError, match="no trial has a time in cue_time: it is NaN in all 20"):
        load_nwb(save(file), align="cue_time", window=(0, 0.5))


def test_on_error_is_checked(path):
    with pytest.raises(ValueError, match='on_error must be "raise" or "skip", got \'ignore\''):
        load_nwb(path, on_error="ignore")


# -- what can be passed ----------


def same(data, expected):
    np.testing.assert_array_equal(data.spikes, expected.spikes)
    np.testing.assert_array_equal(data.behavior["pos"], expected.behavior["pos"])


def test_strings_and_paths_are_read(path, expected):
    same(load_nwb(str(path), bin_width=WIDTH), expected)
    same(load_nwb(Path(path), bin_width=WIDTH), expected)


def test_open_objects_are_read_and_stay_open(path, expected):
    with pynwb.NWBHDF5IO(path, "r") as opened:
        file = opened.read()
        same(load_nwb(file, bin_width=WIDTH), expected)
        same(load_nwb(opened, bin_width=WIDTH), expected)
        assert len(file.units["spike_times"][0]) == 400
    with h5py.File(path, "r") as file:
        same(load_nwb(file, bin_width=WIDTH), expected)
        assert "units" in file
    with open(path, "rb") as on_disk:
        for stream in (on_disk, io.BytesIO(path.read_bytes())):
            same(load_nwb(stream, bin_width=WIDTH), expected)
            assert not stream.closed


def test_files_of_fsspec_are_read(path, expected):
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open(f"file://{path}", "rb") as stream:
        same(load_nwb(stream, bin_width=WIDTH), expected)


def test_a_file_that_was_never_written_is_read(expected):
    file = make_file()
    file.add_acquisition(series())
    same(load_nwb(file, bin_width=WIDTH), expected)
    wrapped = make_file()
    values = pynwb.H5DataIO(np.sin(np.arange(4000) / 100), compression="gzip")
    wrapped.add_acquisition(series(data=values))
    wrapped.add_acquisition(series("listed", data=list(range(4000))))
    data = load_nwb(wrapped, bin_width=WIDTH)
    same(data, expected)
    assert "listed" in data.behavior


def closed_file(path):
    with pynwb.NWBHDF5IO(path, "r") as opened:
        return opened.read()


def closed_h5py(path):
    with h5py.File(path, "r") as file:
        return file


def closed_stream(path):
    with open(path, "rb") as stream:
        return stream


@pytest.mark.parametrize("closed", [closed_file, closed_h5py, closed_stream])
def test_what_is_closed_is_refused(path, closed):
    with pytest.raises(ValueError, match="is closed"):
        load_nwb(closed(path))


def test_other_files_and_objects_are_refused(path, tmp_path):
    with open(__file__) as text, pytest.raises(ValueError, match=r"open as text.*'rb'"):
        load_nwb(text)
    with pytest.raises(ValueError, match=r"BytesIO cannot be opened .* not an HDF5 file"):
        load_nwb(io.BytesIO(b"no HDF5"))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["values"] = [1, 2]
        with pytest.raises(ValueError, match="is not an NWB file"):
            load_nwb(file)
    with pytest.raises(TypeError, match="path is a list; pass the path"):
        load_nwb([path])


@pytest.mark.parametrize(
    "url",
    [
        "https://host/session.nwb",
        "s3://bucket/session.nwb",
        "HTTP://host/x.nwb",
        Path("https://host/session.nwb"),
    ],
)
def test_a_url_is_refused_in_words(url):
    with pytest.raises(ValueError, match=r"is a URL.* Download the file, or pass an open file"):
        load_nwb(url)


def test_a_zarr_folder_needs_hdmf_zarr(path, expected, tmp_path, monkeypatch):
    by_name, by_content = tmp_path / "session.nwb.zarr", tmp_path / "session.nwb"
    by_name.mkdir()
    by_content.mkdir()
    (by_content / ".zgroup").write_text("{}")
    monkeypatch.setitem(sys.modules, "hdmf_zarr", None)
    for folder in (by_name, by_content):
        with pytest.raises(ImportError, match=r"is a Zarr folder.* pip install hdmf-zarr"):
            load_nwb(folder)
    opened = []

    def reader(folder, mode):
        opened.append((folder, mode))
        return pynwb.NWBHDF5IO(path, mode)

    monkeypatch.setitem(sys.modules, "hdmf_zarr", types.SimpleNamespace(NWBZarrIO=reader))
    same(load_nwb(by_name, bin_width=WIDTH), expected)
    assert opened == [(str(by_name), "r")]


def test_another_folder_is_named(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"):
        load_nwb(tmp_path)


# -- time series ----------


def behaviour_module(file):
    return file.create_processing_module("behavior", "behaviour")


def test_series_of_the_same_name_all_arrive(save):
    file = make_file()
    module = behaviour_module(file)
    file.add_acquisition(series("lick", np.zeros(4000)))
    module.add(series("lick", np.ones(4000)))
    file.add_stimulus(series("light", np.full(4000, 2.0)))
    # the short name of a series in a container can be that of another series
    position = pynwb.behavior.Position(name="eye")
    position.create_spatial_series(
        name="x", data=np.full(4000, 3.0), rate=100.0, reference_frame="screen"
    )
    module.add(position)
    file.add_analysis(series("eye_x", np.full(4000, 4.0)))
    path = save(file)
    values = {name: v[0, 0, 0] for name, v in load_nwb(path, bin_width=WIDTH).behavior.items()}
    assert values == pytest.approx(
        {
            "acquisition/lick": 0,
            "processing/behavior/lick": 1,
            "light": 2,
            "processing/behavior/eye/x": 3,
            "analysis/eye_x": 4,
        }
    )
    one = load_nwb(path, bin_width=WIDTH, behavior=["processing/behavior/lick", "light"])
    assert list(one.behavior) == ["processing/behavior/lick", "light"]
    assert list(load_nwb(path, behavior="stimulus/presentation/light").behavior) == [
        "stimulus/presentation/light"
    ]
    with pytest.raises(ValueError, match=r"has 2 time series 'lick': \['acquisition/lick', "):
        load_nwb(path, behavior="lick")


def test_booleans_are_0_and_1(save):
    file = make_file()
    ttl = np.arange(4000) % 100 < 50  # on in the first half of each second
    file.add_acquisition(series("ttl", ttl, unit="n/a"))
    licks = STARTS + 0.05
    file.add_acquisition(
        series("licks", np.ones(20, dtype=bool), rate=None, timestamps=licks, unit="n/a")
    )
    data = load_nwb(save(file), bin_width=0.5)
    np.testing.assert_allclose(data.behavior["ttl"][1:, :, 0], [[1, 0]] * 19, atol=0.6)
    assert (data.behavior["licks"][:-1, 0] == 1).all()


def test_series_that_cannot_be_loaded_are_reported(save):
    file = make_file()
    add = file.add_acquisition
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # new files should not contain these
        add(pynwb.misc.AnnotationSeries(name="notes", data=["a", "b"], timestamps=[1.0, 2.0]))
        add(pynwb.misc.IntervalSeries(name="runs", data=[1, -1], timestamps=[1.0, 2.0]))
    add(series("words", ["a", "b"], unit="n/a"))
    add(series("volume", np.zeros((10, 2, 2))))
    add(series("nothing", np.zeros(0)))
    add(series())
    path = save(file)
    with pytest.warns(UserWarning, match="not loaded") as caught:
        data = load_nwb(path, bin_width=WIDTH)
    assert list(data.behavior) == ["pos"]
    messages = " ".join(str(warning.message) for warning in caught)
    for words in (
        "'notes' holds text",
        "'words' holds text",
        "'volume' has 3 dimensions",
        "'nothing' is empty",
        "'runs' holds starts and ends of intervals",
    ):
        assert words in messages
    assert {warning.filename for warning in caught} == {__file__}
    with pytest.raises(ValueError, match="notes is not a numeric time series: it holds text"):
        load_nwb(path, behavior="notes")
    assert list(load_nwb(path, behavior="pos").behavior) == ["pos"]  # without a warning


def test_electrophysiology_by_name_is_refused_in_words(save):
    file = make_file()
    group = file.create_electrode_group(
        "shank", description="-", location="M1", device=file.create_device("probe")
    )
    file.add_electrode(group=group, location="M1")
    lfp = pynwb.ecephys.ElectricalSeries(
        name="lfp",
        data=np.zeros((10, 1)),
        rate=10.0,
        electrodes=file.create_electrode_table_region([0], "-"),
    )
    file.add_acquisition(lfp)
    path = save(file)
    assert load_nwb(path).behavior == {}
    with pytest.raises(ValueError, match="lfp is an ElectricalSeries"):
        load_nwb(path, behavior="lfp")


# -- tables of intervals ----------


def test_other_tables_hold_trials_too(save):
    file = make_file()
    for start in STARTS[:5]:
        file.add_epoch(start, start + 0.5, ["a", "b"])
    stimuli = pynwb.epoch.TimeIntervals(name="gratings", description="gratings")
    stimuli.add_column("angle", "angle")
    for start in STARTS[:3]:
        stimuli.add_interval(start_time=start, stop_time=start + 0.2, angle=90.0)
    file.add_time_intervals(stimuli)
    module = behaviour_module(file)
    bouts = pynwb.epoch.TimeIntervals(name="bouts", description="bouts")
    bouts.add_interval(start_time=1.0, stop_time=2.0)
    module.add(bouts)
    path = save(file)
    sizes = {"epochs": (5, 5), "gratings": (3, 2), "bouts": (1, 10), "trials": (20, 10)}
    for table, size in sizes.items():
        assert load_nwb(path, bin_width=WIDTH, trials=table).spikes.shape == (*size, 4)
    angles = load_nwb(path, trials="gratings", align="start_time", window=(0, 0.1)).trials.angle
    assert list(angles) == [90.0] * 3
    with pytest.raises(ValueError, match=r"no table of intervals 'cues', only \['bouts', 'epochs"):
        load_nwb(path, trials="cues")


def test_a_file_without_trials_lists_its_tables(save):
    file = make_file(trials=False)
    file.add_epoch(0.0, 1.0, ["a"])
    with pytest.raises(ValueError, match=r"no trials table.* one of its tables \['epochs'\]"):
        load_nwb(save(file))


def test_a_table_without_rows_is_named():
    file = make_file(trials=False)
    file.add_trial_column("cue_time", "cue")
    with pytest.raises(ValueError, match="table 'trials' has no rows"):
        load_nwb(file)


# -- clocks ----------


def test_spikes_in_milliseconds_are_noticed(save):
    path = save(make_file(scale=1000.0))
    message = r"session\.nwb: spikes range from .* to (39,9..|40,000) s, trials from 0 to 39 s"
    with pytest.warns(UserWarning, match=message):
        load_nwb(path, bin_width=WIDTH)
    with pytest.warns(UserWarning, match=message):
        load_nwb(path, bin_width=1.0, trials=False)
    path = save(make_file(scale=1000.0, trials=False))
    with pytest.warns(UserWarning, match="are shorter than 1 s") as caught:
        load_nwb(path, bin_width=1.0, trials=False)
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize("change", [lambda t: 1000 * t, lambda t: t + 1e5], ids=["ms", "offset"])
def test_trials_on_another_clock_are_noticed(change):
    file = make_file()
    for column in ("start_time", "stop_time"):
        file.trials[column].data[:] = list(change(np.array(file.trials[column].data)))
    with pytest.warns(UserWarning, match="different clocks.*(19|20) of 20 lie far"):
        load_nwb(file, bin_width=1.0)


def test_behaviour_on_another_clock_is_noticed():
    file = make_file(trials=False)
    times = np.arange(0, 40_000, 20.0)  # milliseconds
    file.add_acquisition(series(data=np.sin(times), rate=None, timestamps=times))
    with pytest.warns(UserWarning, match=r"spikes and 'pos' may be on .* to 39980 s"):
        load_nwb(file, bin_width=1.0, trials=False)


@pytest.mark.parametrize(
    "change", [lambda cue, start: cue - start, lambda cue, start: 1000 * cue], ids=["own", "ms"]
)
def test_events_outside_of_their_own_trials_are_noticed(save, change):
    file = make_file()
    cues = np.array(file.trials["cue_time"].data)
    file.trials["cue_time"].data[:] = list(change(cues, STARTS))
    with pytest.warns(UserWarning, match=r"(19|20) of 20 times in .*cue_time lie"):
        load_nwb(save(file), bin_width=WIDTH, align="cue_time", window=(-0.2, 0.5))


def test_few_trials_in_a_long_recording_are_fine():
    rng = np.random.default_rng(0)
    file = make_file(trains=[np.sort(rng.uniform(0, 7200, 36_000))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_nwb(file, bin_width=WIDTH, align="cue_time", window=(-0.2, 0.5))


# -- what comes back ----------


def test_what_the_file_says_comes_back(save):
    file = make_file()
    group = file.create_electrode_group(
        "shank", description="-", location="M1", device=file.create_device("probe")
    )
    for depth in range(3):
        file.add_electrode(group=group, location=f"layer {depth}")
    file.add_acquisition(series(conversion=0.01, unit="m"))
    uneven = np.sort(np.random.default_rng(0).uniform(0, 40, 4000))
    file.add_acquisition(series("eye", rate=None, timestamps=uneven))
    data = load_nwb(save(file), bin_width=WIDTH, align="cue_time", window=(-0.3, 0.7))
    assert list(data.units.columns) == ["id", "quality", "snr"]
    assert list(data.electrodes.location) == ["layer 0", "layer 1", "layer 2"]
    assert list(data.electrodes.group) == ["shank"] * 3
    assert data.behavior_units == {"pos": "m", "eye": "cm"}
    assert data.sampling_rates["pos"] == 100
    assert 50 < data.sampling_rates["eye"] < 500
    np.testing.assert_allclose(data.clock, STARTS[:, None] + np.arange(10) * WIDTH)
    assert data.reference_time == datetime(2026, 1, 1, tzinfo=UTC)
    whole = load_nwb(save(file), bin_width=WIDTH, trials=False)
    np.testing.assert_allclose(whole.clock, whole.time)


def test_tables_hold_nothing_of_the_closed_file(save):
    file = pynwb.NWBFile("a session", "an id", datetime(2026, 1, 1, tzinfo=UTC))
    group = file.create_electrode_group(
        "shank", description="-", location="M1", device=file.create_device("probe")
    )
    for _ in range(3):
        file.add_electrode(group=group, location="M1")
    for electrodes in ([0, 1], [2]):
        file.add_unit(
            spike_times=GOOD,
            electrodes=electrodes,
            electrode_group=group,
            waveform_mean=np.zeros((5, 2)),
            obs_intervals=[[0.0, 40.0]],
        )
    pos = series()
    file.add_acquisition(pos)
    file.add_trial(start_time=0.0, stop_time=1.0, timeseries=[pos])
    data = load_nwb(save(file), bin_width=WIDTH)
    assert list(data.trials.columns) == ["id", "start_time", "stop_time"]
    assert list(map(list, data.units.electrodes)) == [[0, 1], [2]]
    assert list(data.units.electrode_group) == ["shank"] * 2
    assert data.units.waveform_mean[0].shape == (5, 2)
    assert "spike_times" not in data.units


def test_progress_is_shown_on_demand(path, capsys):
    load_nwb(path, bin_width=WIDTH)
    assert not capsys.readouterr().err
    load_nwb(path, bin_width=WIDTH, verbose=True)
    shown = capsys.readouterr().err
    for what in ("units", "behaviour", "binning behaviour"):
        (last,) = re.findall(rf"^{what}: (\d+)/\1 ", shown, re.MULTILINE)
        assert int(last) >= 1


def test_a_whole_recording_is_decoded_where_behaviour_is_known(save, small):
    file = make_file()
    file.add_acquisition(series(data=np.sin(np.arange(3000) / 100)))  # ends 10 s early
    data = load_nwb(save(file), bin_width=WIDTH, trials=False)
    y = data.behavior["pos"]
    assert np.isnan(y).any()
    decoder = make_pipeline(small(max_epochs=1), BinwiseRegressor(Ridge()))
    assert np.isfinite(decoder.fit(data.spikes, y).predict(data.spikes)).all()
