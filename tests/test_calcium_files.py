"""suite2p's folders and CaImAn's files: what is read, and what is refused."""

import datetime
import os
import pathlib
import pickle

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_values import ODD_VALUES, examples, outcome
from scipy.ndimage import gaussian_filter1d, maximum_filter1d, minimum_filter1d

from sklearn_stndt.datasets import load_caiman, load_suite2p

FPS = 30.0


def traces(n_neurons=4, n_frames=120, seed=0):
    rng = np.random.default_rng(seed)
    return (100 + 5 * rng.random((n_neurons, n_frames))).astype(np.float32)


def settings(**more):
    """As suite2p saves them: numbers, text, paths, dates, and large arrays of images."""
    return {
        "fs": FPS,
        "data_path": [pathlib.PurePosixPath("/data/a mouse")],
        "date_proc": datetime.datetime(2026, 1, 1, 12),
        "meanImg": np.ones((4, 5), np.float32),
        "yrange": np.array([0, 5]),
        "tau": np.float64(1.25),
        "nested": {"run": (True, None, {1, 2})},
        **more,
    }


def write_plane(folder, *, n_neurons=4, n_frames=120, seed=0, ops=None):
    folder.mkdir(parents=True, exist_ok=True)
    F = traces(n_neurons, n_frames, seed)
    cells = (np.arange(n_neurons) != 1).astype(float)  # the second is none
    arrays = {
        "F": F,
        "Fneu": 0.2 * F[::-1],
        "spks": np.maximum(F - 102, 0),
        "iscell": np.column_stack([cells, np.linspace(1, 0, n_neurons)]),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "ops.npy", ops or settings(), allow_pickle=True)
    return folder


@pytest.fixture
def plane(tmp_path):
    return write_plane(tmp_path / "suite2p" / "plane0")


# -- suite2p ----------


def test_dff_of_suite2p_is_its_definition(plane):
    data = load_suite2p(plane)
    F, neuropil = np.load(plane / "F.npy"), np.load(plane / "Fneu.npy")
    corrected = (F - 0.7 * neuropil)[[0, 2, 3]]
    size = 2 * 120  # the window is cut to twice the recording
    smooth = gaussian_filter1d(corrected, 10, axis=1, mode="nearest")
    lowest = minimum_filter1d(smooth, size, axis=1, mode="nearest")
    baseline = maximum_filter1d(lowest, size, axis=1, mode="nearest")
    np.testing.assert_allclose(data.signals.T, (corrected - baseline) / baseline, atol=1e-5)
    assert data.signals.dtype == np.float32
    np.testing.assert_array_equal(data.neuron_ids, [0, 2, 3])
    np.testing.assert_array_equal(data.planes, [0, 0, 0])
    np.testing.assert_allclose(data.cell_probability, [1, 1 / 3, 0])
    np.testing.assert_allclose(data.time, np.arange(120) / FPS)
    assert (data.fps, data.bin_width, data.signal) == (FPS, 1 / FPS, "dff")


def test_dff_follows_transients_and_not_slow_drift(tmp_path):
    frames = np.arange(6000)
    F = 100 * (1 + frames / 12000) + np.zeros((2, 1))  # bleaching backwards
    F[1, 3000:3030] *= 1.5
    np.save(tmp_path / "F.npy", F)
    data = load_suite2p(tmp_path, fps=30, only_cells=False, neuropil=0, baseline_window=20)
    assert np.abs(data.signals[:, 0]).max() < 0.06
    assert data.signals[3000:3030, 1].min() == pytest.approx(0.5, abs=0.06)


def test_signals_of_suite2p(plane):
    spks = load_suite2p(plane, signal="spks", only_cells=False).signals
    np.testing.assert_array_equal(spks, np.load(plane / "spks.npy").T)
    F = load_suite2p(plane, signal="F", neuropil=0, only_cells=False).signals
    np.testing.assert_array_equal(F, np.load(plane / "F.npy").T)


def test_planes_are_joined(plane):
    write_plane(plane.parent / "plane10", n_neurons=2, seed=1)
    write_plane(plane.parent / "plane2", n_neurons=3, n_frames=119, seed=2)
    write_plane(plane.parent / "combined", n_neurons=9)
    with pytest.warns(UserWarning, match="119 to 120 frames"):
        data = load_suite2p(plane.parent.parent)
    assert data.signals.shape == (119, 3 + 2 + 1)
    np.testing.assert_array_equal(data.planes, [0, 0, 0, 2, 2, 10])
    np.testing.assert_array_equal(data.neuron_ids, [0, 2, 3, 0, 2, 0])
    combined = load_suite2p(plane.parent / "combined")
    np.testing.assert_array_equal(combined.planes, np.full(8, -1))


def test_planes_with_other_frame_rates_are_refused(plane):
    write_plane(plane.parent / "plane1", ops=settings(fs=10.0))
    with pytest.raises(ValueError, match="plane0 30 Hz, plane1 10 Hz"):
        load_suite2p(plane.parent)
    assert load_suite2p(plane.parent, fps=15).fps == 15


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("rate", [30.0, 30, np.float64(30), np.float32(30), np.int64(30)])
def test_frame_rates_of_all_kinds_of_pickles(plane, protocol, rate):
    write_settings(plane, pickle.dumps(np.array(settings(fs=rate), dtype=object), protocol))
    assert load_suite2p(plane).fps == FPS


def test_settings_of_new_versions(plane):
    (plane / "ops.npy").unlink()
    np.save(plane.parent / "settings.npy", {"fs": 12.5}, allow_pickle=True)
    assert load_suite2p(plane).fps == 12.5


def test_low_baselines_are_divided_by_that_of_f(plane):
    F, neuropil = np.load(plane / "F.npy"), np.load(plane / "Fneu.npy")
    neuropil[2] = 1.5 * F[2]
    np.save(plane / "Fneu.npy", neuropil)
    with pytest.warns(UserWarning, match=r"1 of 3 neurons \(2\) falls below a tenth"):
        signals = load_suite2p(plane).signals
    assert np.abs(signals).max() < 1


# -- what is wrong with a folder ----------


def write_settings(folder, content):
    """Write a pickle where numpy expects one."""
    with open(folder / "ops.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        file.write(content)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("where", ["value", "key", "only"])
def test_settings_never_run_code(plane, tmp_path, where):
    bomb = Bomb(tmp_path / "exploded")
    content = {"value": settings(bad=bomb), "key": {bomb: 1, "fs": 1}, "only": bomb}[where]
    np.save(plane / "ops.npy", content, allow_pickle=True)
    with pytest.raises(ValueError, match=r"ops\.npy names \w+.mkdir.*Nothing was run.*fps=") as e:
        load_suite2p(plane)
    assert not (tmp_path / "exploded").exists()
    assert load_suite2p(plane, fps=30).fps == 30  # the file is not read
    assert "could run code" in str(e.value)
    with pytest.raises(FileExistsError):  # the bomb works
        [pickle.loads(pickle.dumps(bomb)) for _ in range(2)]


BUILTINS = [b"eval", b"getattr", b"__import__", b"exec", b"open"]


@pytest.mark.parametrize("name", BUILTINS)
@pytest.mark.parametrize("module", [b"builtins", b"__builtin__"])
def test_no_function_of_python_is_found(plane, module, name):
    write_settings(plane, b"c" + module + b"\n" + name + b"\n(S'1'\ntR.")
    with pytest.raises(ValueError, match="which does not belong in a file of settings"):
        load_suite2p(plane)


@pytest.mark.parametrize(
    "content",
    [
        b"r\xff\xff\xff\x7fN.",  # a table of 2 GiB
        b"\x96\x00\x00\x00\x00\x10\x00\x00\x00.",  # a bytearray of 64 GiB
        b"\x8e\x00\x00\x00\x00\x10\x00\x00\x00.",  # bytes of 64 GiB
        b"\x95\x00\x00\x00\x00\x10\x00\x00\x00N.",  # a frame of 64 GiB
        b"\x82\x01.",  # an extension
        b"Pelsewhere\n.",  # a persistent id
        b"cnumpy\ndtype\n(S'f8'\ntRcnumpy.core.multiarray\nscalar\nb.",
        b"cbuiltins\nset\n}(S'__call__'\nNub.",
        b"})" + 200_000 * b"\x85" + b"Ns.",  # a key that is too deep
        b"",
        b"N",
        b".",
    ],
)
def test_odd_pickles_end_in_words(plane, content):
    write_settings(plane, content)
    with pytest.raises(ValueError, match=r"ops\.npy"):
        load_suite2p(plane)


@examples(80)
@given(data=st.data())
def test_flipped_bytes_of_settings(tmp_path_factory, data):
    folder = write_plane(tmp_path_factory.mktemp("flipped"))
    content = bytearray((folder / "ops.npy").read_bytes())
    places = st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255))
    for place, value in data.draw(st.lists(places, min_size=1, max_size=3)):
        content[place] = value
    (folder / "ops.npy").write_bytes(bytes(content))
    result = outcome(load_suite2p, folder)
    assert not isinstance(result, Exception) or str(folder) in str(result)


@pytest.mark.parametrize("name", ["F", "Fneu", "iscell"])
@examples(25)
@given(data=st.data())
def test_flipped_and_missing_bytes_of_arrays(tmp_path_factory, name, data):
    folder = write_plane(tmp_path_factory.mktemp("flipped"))
    path = folder / f"{name}.npy"
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, 127))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    result = outcome(load_suite2p, folder)
    assert not isinstance(result, Exception) or str(folder) in str(result)


@pytest.mark.parametrize("name", ["F", "Fneu", "spks", "iscell"])
@examples(40)
@given(value=st.sampled_from(sorted(ODD_VALUES)))
def test_odd_arrays_of_suite2p(tmp_path_factory, name, value):
    folder = write_plane(tmp_path_factory.mktemp("odd"))
    try:
        np.save(folder / f"{name}.npy", ODD_VALUES[value], allow_pickle=True)
    except Exception:  # what cannot be pickled
        return
    signal = "spks" if name == "spks" else "F"
    result = outcome(load_suite2p, folder, signal=signal)
    if isinstance(result, Exception):
        assert str(folder) in str(result)
    else:
        assert np.isfinite(result.signals).all()


@pytest.mark.parametrize("name", ["folder", "signal", "fps", "only_cells", "neuropil"])
@examples(30)
@given(value=st.sampled_from(sorted(ODD_VALUES)))
def test_odd_arguments_of_load_suite2p(tmp_path_factory, name, value):
    folder = write_plane(tmp_path_factory.mktemp("odd"))
    outcome(load_suite2p, **({"folder": folder} | {name: ODD_VALUES[value]}))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("F", traces()[0], r"F\.npy is an array of float32 of shape \(120,\); expected"),
        ("F", np.array([{}]), r"F\.npy is an array of object"),
        ("F", np.full((4, 120), np.nan), r"F\.npy is NaN or infinite in 360 of 360"),
        ("F", np.full((4, 120), 1e300), r"F\.npy holds numbers beyond 1e38"),
        ("F", np.zeros((4, 120)), "the baseline of neurons 0, 2, 3 is 0, negative or NaN"),
        ("Fneu", traces(5), r"Fneu\.npy has shape \(5, 120\) and F.npy \(4, 120\)"),
        ("iscell", np.ones((5, 2)), r"iscell\.npy has shape \(5, 2\), but there are 4"),
        ("iscell", np.full((4, 2), 0.5), r"iscell\.npy, column 0 holds 0.5"),
        ("iscell", np.zeros((4, 2)), "0 neurons.*only_cells=False"),
        ("ops", {"tau": 1}, "no ops.npy or settings.npy with the frames per second"),
        ("ops", {"fs": 0.0}, r'ops\.npy: "fs": fps must be finite, above 0 and .*Pass fps='),
        ("ops", [1], r"ops\.npy is an array of int64"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(plane, name, value, message):
    np.save(plane / f"{name}.npy", value, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        load_suite2p(plane)


@pytest.mark.parametrize("name", ["F", "Fneu", "iscell"])
def test_missing_files_are_named(plane, name):
    (plane / f"{name}.npy").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name}\.npy"):
        load_suite2p(plane)


def test_deconvolution_that_did_not_run_is_said(plane):
    np.save(plane / "spks.npy", np.zeros((4, 120)))
    with pytest.raises(ValueError, match="only zeros: suite2p ran without deconvolution"):
        load_suite2p(plane, signal="spks")
    np.save(plane / "spks.npy", -traces())
    with pytest.raises(ValueError, match="below 0"):
        load_suite2p(plane, signal="spks")


def test_an_array_larger_than_its_file_takes_no_memory(plane):
    with open(plane / "F.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (4, 2**40)}
        )
        file.write(b"abcd")
    with pytest.raises(ValueError, match=r"F\.npy should hold .* but ends after 4 of"):
        load_suite2p(plane)


# -- CaImAn ----------


def write_caiman(path, replace=None):
    """As `cnmf.save` writes it: None is text, `A` is a group."""
    C = traces(3, 50) - 100
    with h5py.File(path, "w") as file:
        file["estimates/C"] = C.astype(float)
        file["estimates/YrA"] = 0.1 * np.ones((3, 50))
        file["estimates/S"] = np.maximum(C - 2, 0).astype(float)
        file["estimates/F_dff"] = C / 10
        file["estimates/idx_components"] = np.array([0, 2])
        file["estimates/R"] = "NoneType"
        file["estimates/A/data"] = np.ones(3)
        file["params/data/fr"] = 20
        file["params/data/decay_time"] = 0.4
        if replace is not None:
            replace(file)
    return path


def test_signals_of_caiman(tmp_path):
    path = write_caiman(tmp_path / "a.hdf5")
    C = traces(3, 50) - 100
    expected = {"C": C, "F": C + 0.1, "spks": np.maximum(C - 2, 0), "dff": C / 10}
    for signal, values in expected.items():
        data = load_caiman(path, signal=signal)
        np.testing.assert_allclose(data.signals, values[[0, 2]].T, rtol=1e-6, atol=1e-6)
        assert data.signals.dtype == np.float32
        np.testing.assert_array_equal(data.neuron_ids, [0, 2])
        np.testing.assert_allclose(data.time, np.arange(50) / 20)
        assert data.fps == 20
    assert load_caiman(path, only_cells=False, fps=7).signals.shape == (50, 3)


def put(key, value):
    def replace(file):
        del file[key]
        if value is not None:
            file[key] = value

    return replace


def test_without_evaluation_all_components_are_loaded(tmp_path):
    for value in (None, "NoneType"):
        path = write_caiman(tmp_path / "a.hdf5", put("estimates/idx_components", value))
        assert load_caiman(path).signals.shape == (50, 3)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("estimates", None, r"no group 'estimates', only \['params'\]"),
        ("estimates", np.ones(3), "no group 'estimates'"),
        ("estimates/F_dff", "NoneType", r"no estimates/F_dff. Call estimates.detrend_df_f\(\)"),
        ("estimates/F_dff", None, r"such as \['spks', 'F', 'C'\]"),
        ("estimates/F_dff", np.ones(4), r"shape \(4,\); expected traces of shape"),
        ("estimates/F_dff", np.full((3, 50), np.nan), "is NaN or infinite in 150"),
        ("estimates/F_dff", np.full((3, 50), 1e300), "holds numbers beyond 1e38"),
        ("estimates/idx_components", np.array([0, 3]), "holds 3; expected whole numbers from 0"),
        ("estimates/idx_components", np.array([0, 0]), "names a component twice"),
        ("estimates/idx_components", np.array([]), "0 neurons and 50 frames are left"),
        ("params/data/fr", None, r"no frame rate \(params/data/fr\). Pass fps="),
        ("params/data/fr", "fast", "params/data/fr is .*Pass fps="),
        ("params/data/fr", -1.0, "above 0 and .*, got -1.0. Pass fps="),
        ("params/data/fr", np.ones(2), "params/data/fr is no number. Pass fps="),
    ],
)
def test_what_is_wrong_with_a_file_of_caiman_is_said(tmp_path, key, value, message):
    path = write_caiman(tmp_path / "a.hdf5", put(key, value))
    with pytest.raises(ValueError, match=message) as caught:
        load_caiman(path)
    assert "a.hdf5" in str(caught.value)


def test_shapes_of_caiman_must_fit(tmp_path):
    path = write_caiman(tmp_path / "a.hdf5", put("estimates/YrA", np.ones((3, 49))))
    with pytest.raises(ValueError, match=r"\(3, 50\) and \(3, 49\); expected the same"):
        load_caiman(path, signal="F")
    path = write_caiman(tmp_path / "a.hdf5", put("estimates/S", -np.ones((3, 50))))
    with pytest.raises(ValueError, match="estimates/S is below 0"):
        load_caiman(path, signal="spks")
