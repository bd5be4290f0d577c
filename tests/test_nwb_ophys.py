"""Calcium imaging in NWB files."""

import shutil
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_values import examples, outcome

from sklearn_stndt.datasets import align_signals, load_nwb, load_nwb_ophys

pynwb = pytest.importorskip("pynwb")
h5py = pytest.importorskip("h5py")

N_FRAMES, FPS = 60, 10.0


def dff(n_rois=4, seed=0):
    return np.random.default_rng(seed).normal(size=(N_FRAMES, n_rois))


def write(path, *, kinds=("DfOverF",), n_planes=1, iscell=True, unit=False, invalid=False):
    """Write a session with planes of four regions each, the second of which is no cell."""
    from pynwb.ophys import DfOverF, Fluorescence, ImageSegmentation, OpticalChannel

    file = pynwb.NWBFile("a session", "an id", datetime(2026, 1, 1, tzinfo=UTC))
    device = file.create_device("microscope")
    channel = OpticalChannel(name="green", description="green", emission_lambda=500.0)
    plane = file.create_imaging_plane(
        name="plane",
        optical_channel=channel,
        description="a plane",
        device=device,
        excitation_lambda=900.0,
        indicator="GCaMP6f",
        location="M1",
    )
    module = file.create_processing_module("ophys", "calcium imaging")
    segmentation = ImageSegmentation()
    module.add(segmentation)
    table = segmentation.create_plane_segmentation(
        name="cells", description="regions", imaging_plane=plane
    )
    n_rois = 4 * n_planes
    for roi in range(n_rois):
        table.add_roi(pixel_mask=[(roi, roi, 1.0)])
    if iscell:
        flags = np.column_stack([np.arange(n_rois) != 1, np.full(n_rois, 0.5)])
        table.add_column("iscell", "suite2p's classifier", flags)
    for kind in kinds:
        container = {"DfOverF": DfOverF}.get(kind, Fluorescence)(name=kind)
        module.add(container)
        for i in range(n_planes):
            region = table.create_roi_table_region("a plane", region=list(range(4 * i, 4 * i + 4)))
            container.create_roi_response_series(
                name=f"plane{i}", data=dff(seed=i), rois=region, unit="dF/F", rate=FPS
            )
    for start in (1.0, 3.0):
        file.add_trial(start_time=start, stop_time=start + 1)
    wheel = pynwb.TimeSeries(name="wheel", data=np.arange(600.0) / 100, unit="cm", rate=100.0)
    file.add_acquisition(wheel)
    if unit:
        file.add_unit(spike_times=[0.5, 1.5])
    if invalid:
        file.add_invalid_time_interval(start_time=2.0, stop_time=2.5)
    with pynwb.NWBHDF5IO(path, "w") as to:
        to.write(file)
    return path


def test_signals_trials_and_behaviour(tmp_path):
    data = load_nwb_ophys(write(tmp_path / "a.nwb"))
    np.testing.assert_allclose(data.signals, dff()[:, [0, 2, 3]], rtol=1e-6)
    assert data.signals.dtype == np.float32
    np.testing.assert_allclose(data.time, np.arange(N_FRAMES) / FPS)
    np.testing.assert_array_equal(data.neuron_ids, [0, 2, 3])
    assert list(data.rois["id"]) == [0, 2, 3]
    assert "pixel_mask" not in data.rois
    assert (data.fps, data.signal, data.unit) == (FPS, "DfOverF", "dF/F")
    assert set(data.behavior) == {"wheel"}
    centres = data.time[:-1, None] + 0.5 / FPS  # wheel = time
    np.testing.assert_allclose(data.behavior["wheel"][:-1], centres, atol=1e-6)
    X = align_signals(data.signals, data.time, data.trials["start_time"], (0, 1), 0.1, how="sum")
    np.testing.assert_allclose(X[1], data.signals[30:40])


def test_all_regions_on_request_or_if_the_file_does_not_say(tmp_path):
    path = write(tmp_path / "a.nwb")
    assert load_nwb_ophys(path, only_cells=False).signals.shape[1] == 4
    assert load_nwb_ophys(write(tmp_path / "b.nwb", iscell=False)).signals.shape[1] == 4
    assert load_nwb_ophys(path, trials=False).trials is None


def test_planes_are_joined(tmp_path):
    path = write(tmp_path / "a.nwb", n_planes=2)
    data = load_nwb_ophys(path)
    both = np.concatenate([dff()[:, [0, 2, 3]], dff(seed=1)], axis=1)
    np.testing.assert_allclose(data.signals, both, rtol=1e-6)
    np.testing.assert_array_equal(data.neuron_ids, [0, 2, 3, 4, 5, 6, 7])
    one = load_nwb_ophys(path, "processing/ophys/DfOverF/plane1")
    np.testing.assert_array_equal(one.neuron_ids, [4, 5, 6, 7])
    np.testing.assert_array_equal(load_nwb_ophys(path, "plane1").signals, one.signals)


def test_the_signal_is_chosen_by_name(tmp_path):
    path = write(tmp_path / "a.nwb", kinds=("Fluorescence", "DfOverF", "Deconvolved"))
    assert load_nwb_ophys(path).signal == "DfOverF"
    assert load_nwb_ophys(path, "Deconvolved").signal == "Deconvolved"
    path = write(tmp_path / "b.nwb", kinds=("Fluorescence", "Deconvolved"))
    with pytest.raises(ValueError, match=r"b\.nwb has several series: .*Deconvolved/plane0"):
        load_nwb_ophys(path)
    with pytest.raises(ValueError, match=r"not one 'plane0': .*Fluorescence/plane0"):
        load_nwb_ophys(path, "plane0")


def test_invalid_times_are_nan(tmp_path):
    data = load_nwb_ophys(write(tmp_path / "a.nwb", invalid=True))
    hidden = (data.time >= 2.0) & (data.time < 2.5)
    np.testing.assert_array_equal(np.isnan(data.signals), np.repeat(hidden[:, None], 3, axis=1))


def test_each_loader_names_the_other(tmp_path):
    with pytest.raises(ValueError, match=r"no units.*load that with load_nwb_ophys"):
        load_nwb(write(tmp_path / "a.nwb"))
    file = pynwb.NWBFile("a session", "an id", datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match=r"no RoiResponseSeries.*load_nwb\."):
        load_nwb_ophys(file)


DATA = "processing/ophys/DfOverF/plane0/data"
ROIS = "processing/ophys/DfOverF/plane0/rois"
CELLS = "processing/ophys/ImageSegmentation/cells/iscell"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write(tmp_path_factory.mktemp("ophys") / "a.nwb")


def replaced(original, folder, key, value):
    path = folder / "replaced.nwb"
    shutil.copy(original, path)
    with h5py.File(path, "a") as file:
        attributes = dict(file[key].attrs)
        del file[key]
        file[key] = value
        file[key].attrs.update(attributes)
    return path


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (DATA, np.zeros((4, 60)), r"shape \(4, 60\) for 4 regions .* It is transposed"),
        (DATA, np.zeros((60, 5)), r"shape \(60, 5\) for 4 regions of interest; expected"),
        (DATA, np.full((60, 4), np.inf), "holds infinite numbers"),
        (ROIS, np.array([0, 1, 2, 9]), r"index|rois"),
        (CELLS, np.full((4, 2), 0.5), "iscell holds 0.5; expected .* Pass only_cells=False"),
        (CELLS, np.zeros((4, 2)), "0 neurons and 60 frames are left. Pass only_cells=False"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*(does not match|oriented):UserWarning")
def test_what_is_wrong_is_said(original, tmp_path, key, value, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_nwb_ophys(replaced(original, tmp_path, key, value))
    assert "replaced.nwb" in str(caught.value)


VALUES = {
    "no entries": np.zeros(0),
    "scalar": 3.0,
    "not finite": np.full((60, 4), np.nan),
    "huge": np.full((60, 4), 1e300),
    "text": np.array([b"a"] * 4),
    "complex": np.full((60, 4), 1j),
    "3d": np.zeros((2, 2, 2)),
    "records": np.zeros(4, dtype=[("a", "f8")]),
    "unsorted": np.array([3, 0, 1, 2]),
    "negative": np.array([-1, 0, 1, 2]),
}


@pytest.mark.filterwarnings("ignore")
@examples(25)
@given(
    key=st.sampled_from([DATA, ROIS, CELLS, "acquisition/wheel/data"]),
    value=st.sampled_from(sorted(VALUES)),
)
def test_odd_fields(original, tmp_path_factory, key, value):
    path = replaced(original, tmp_path_factory.mktemp("odd"), key, VALUES[value])
    result = outcome(load_nwb_ophys, path)
    if isinstance(result, Exception):
        assert path.name in str(result)
    else:
        assert result.signals.dtype == np.float32
        assert len(result.time) == len(result.signals)


def test_external_links_are_refused(original, tmp_path):
    shutil.copy(original, tmp_path / "a.nwb")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros((60, 4))
    with h5py.File(tmp_path / "a.nwb", "a") as file:
        attributes = dict(file[DATA].attrs)
        del file[DATA]
        layout = h5py.VirtualLayout((60, 4), dtype="f8")
        layout[...] = h5py.VirtualSource(tmp_path / "other.h5", "x", (60, 4))
        file.create_virtual_dataset(DATA, layout).attrs.update(attributes)
    with pytest.raises(ValueError, match=r"virtual dataset.*follow_links=True"):
        load_nwb_ophys(tmp_path / "a.nwb")
    assert load_nwb_ophys(tmp_path / "a.nwb", follow_links=True).signals.max() == 0
