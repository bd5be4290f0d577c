"""Files that name other files, or that would fill the memory, are refused in words."""

import contextlib
import functools
import io
import json
import sys
import types
import zlib
from datetime import UTC, datetime

import numpy as np
import pytest
from subprocesses import output_of
from test_calcium_files import write_caiman
from test_nwb_ophys import write as write_imaging

from sklearn_stndt.datasets import (
    evaluate,
    load_caiman,
    load_nlb,
    load_nwb,
    load_nwb_ophys,
    load_submission,
)

h5py = pytest.importorskip("h5py")
pynwb = pytest.importorskip("pynwb")

SECRET = b"root:x:0:0:a line of another file:/root:/bin/sh\n" * 2
MOST = 2**17  # KiB of memory for a file of a few hundred KiB

SHAPE = (2, 3, 49)


def arrays():
    """Arrays of the three kinds of HDF5 files, by the name of their group."""
    ones = np.ones(SHAPE, dtype=np.float32)
    return {
        "train_spikes_heldin": ones,
        "train_spikes_heldout": ones[..., :16],
        "eval_spikes_heldin": ones,
        "area2_bump_20": {
            "eval_rates_heldin": ones,
            "eval_rates_heldout": ones[..., :16],
            "eval_spikes_heldout": ones[..., :16],
            "eval_behavior": ones[..., :2],
        },
    }


def write_h5(path, replace=None):
    """Write a file that each loader of HDF5 reads; `replace(file)` puts something in its place."""
    with h5py.File(path, "w") as file:
        for name, value in arrays().items():
            if isinstance(value, dict):
                for key, array in value.items():
                    file[f"{name}/{key}"] = array
            else:
                file[name] = value
        if replace is not None:
            replace(file)
    return path


def write_submission(path, replace=None):
    def only_rates(file):
        for name in list(file):
            if name != "area2_bump_20":
                del file[name]
        if replace is not None:
            replace(file)

    return write_h5(path, only_rates)


def write_nwb(path, replace=None):
    """Two units, one trial and a time series."""
    file = pynwb.NWBFile("a session", "an id", datetime(2026, 1, 1, tzinfo=UTC))
    for _ in range(2):
        file.add_unit(spike_times=np.arange(0.05, 2, 0.1))
    file.add_trial(start_time=0.0, stop_time=2.0)
    file.add_acquisition(pynwb.TimeSeries(name="pos", data=np.arange(200.0), unit="cm", rate=100.0))
    with pynwb.NWBHDF5IO(path, "w") as to:
        to.write(file)
    if replace is not None:
        with h5py.File(path, "a") as file:
            replace(file)
    return path


def write_ophys(path, replace=None):
    """Four regions, fluorescence and trials."""
    write_imaging(path)
    if replace is not None:
        with h5py.File(path, "a") as file:
            replace(file)
    return path


def load_open_nwb(path, **params):
    with h5py.File(path, "r") as file:
        return load_nwb(file, **params)


def load_stream(path, **params):
    return load_nwb(io.BytesIO(path.read_bytes()), **params)


# how to write a file, how to load it, and an array that the loader needs
LOADERS = {
    "load_nlb": (write_h5, load_nlb, "train_spikes_heldin"),
    "target": (write_h5, load_nlb, "area2_bump_20/eval_spikes_heldout"),
    "load_submission": (write_submission, load_submission, "area2_bump_20/eval_rates_heldin"),
    "evaluate": (write_submission, lambda path: evaluate({}, path), "area2_bump_20/eval_behavior"),
    "load_caiman": (write_caiman, load_caiman, "estimates/F_dff"),
    "load_nwb": (write_nwb, load_nwb, "units/spike_times"),
    "series": (write_nwb, load_nwb, "acquisition/pos/data"),
    "h5py.File": (write_nwb, load_open_nwb, "units/id"),
    "stream": (write_nwb, load_stream, "intervals/trials/start_time"),
    "load_nwb_ophys": (write_ophys, load_nwb_ophys, "processing/ophys/DfOverF/plane0/rois"),
}
every_loader = pytest.mark.parametrize("loader", LOADERS)
some_loaders = pytest.mark.parametrize(
    "loader", ["load_nlb", "load_submission", "load_caiman", "load_nwb", "series", "load_nwb_ophys"]
)


def named(folder, name, write):
    """Path of a file; that of an NWB file has to end so."""
    return folder / f"{name}.{'nwb' if write in (write_nwb, write_ophys) else 'h5'}"


def put(file, key, make):
    """Replace a dataset by another one that keeps its attributes."""
    attributes = dict(file[key].attrs)
    del file[key]
    dataset = make(file, key)
    if dataset is not None:
        dataset.attrs.update(attributes)


def in_another_file(folder):
    with h5py.File(folder / "other.h5", "w") as file:
        file["x"] = np.ones(SHAPE)
    (folder / "secret").write_bytes(SECRET)
    return folder


def external_link(folder):
    other = in_another_file(folder) / "other.h5"
    return lambda file, key: file.__setitem__(key, h5py.ExternalLink(other, "x"))


def soft_link_to_external_link(folder):
    link = external_link(folder)

    def make(file, key):
        link(file, "outside")
        file[key] = h5py.SoftLink("/outside")

    return make


def external_storage(folder):
    where = in_another_file(folder) / "secret"
    return lambda file, key: file.create_dataset(
        key, shape=(48,), dtype="u1", external=[(str(where), 0, 48)]
    )


def virtual_dataset(folder):
    layout = h5py.VirtualLayout(SHAPE, dtype="f8")
    layout[...] = h5py.VirtualSource(in_another_file(folder) / "other.h5", "x", SHAPE)
    return lambda file, key: file.create_virtual_dataset(key, layout)


ELSEWHERE = {
    "external link": (external_link, "is a link to another file, '.*other.h5'"),
    "soft link to it": (soft_link_to_external_link, "is a link to another file, '.*other.h5'"),
    "external storage": (external_storage, "is stored in another file, '.*secret'"),
    "virtual dataset": (virtual_dataset, "is a virtual dataset, put together from .*other.h5"),
}


@every_loader
@pytest.mark.parametrize("kind", ELSEWHERE)
def test_what_is_in_another_file_is_not_read(tmp_path, loader, kind):
    write, load, key = LOADERS[loader]
    make, message = ELSEWHERE[kind]
    make = make(tmp_path)
    path = write(
        named(tmp_path, "session", write),
        lambda file: put(file, key, make),
    )
    with pytest.raises(ValueError, match=f"{message}.*follow_links=True; or copy") as caught:
        load(path)
    assert "line of another file" not in str(caught.value)
    if kind != "soft link to it":
        assert f"/{key} " in str(caught.value)
    assert path.name in str(caught.value) or loader == "stream"


def test_links_are_followed_on_request(tmp_path):
    path = write_submission(
        tmp_path / "submission.h5",
        lambda file: put(file, "area2_bump_20/eval_rates_heldin", external_link(tmp_path)),
    )
    content = load_submission(path, follow_links=True)
    np.testing.assert_array_equal(content["area2_bump_20"]["eval_rates_heldin"], np.ones(SHAPE))
    path = write_h5(
        tmp_path / "train.h5",
        lambda file: put(file, "train_spikes_heldin", virtual_dataset(tmp_path)),
    )
    assert load_nlb(path, follow_links=True).X_train.shape == (2, 3, 65)


def test_links_of_an_nwb_file_are_followed_on_request(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.ones(200)

    def make(file, key):
        layout = h5py.VirtualLayout((200,), dtype="f8")
        layout[...] = h5py.VirtualSource(tmp_path / "other.h5", "data", (200,))
        return file.create_virtual_dataset(key, layout)

    path = write_nwb(tmp_path / "a.nwb", lambda file: put(file, "acquisition/pos/data", make))
    with pytest.raises(ValueError, match="virtual dataset"):
        load_nwb(path)
    assert np.nanmin(load_nwb(path, follow_links=True).behavior["pos"]) == 1
    with pynwb.NWBHDF5IO(path, "r") as opened:
        assert np.nanmin(load_nwb(opened.read()).behavior["pos"]) == 1


def test_links_within_a_file_are_followed(tmp_path):
    def add(file):
        file.copy("acquisition/pos", "acquisition/same")
        del file["acquisition/same/data"]
        file["acquisition/same/data"] = h5py.SoftLink("/acquisition/pos/data")

    behavior = load_nwb(write_nwb(tmp_path / "a.nwb", add)).behavior
    np.testing.assert_array_equal(behavior["same"], behavior["pos"])


@some_loaders
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_a_circle_of_links_ends(tmp_path, loader, kind):
    write, load, key = LOADERS[loader]
    group = key.partition("/")[0] if "/" in key else "area2_bump_20"

    def close(file):
        file[f"{group}/circle"] = file[group] if kind == "hard" else h5py.SoftLink(f"/{group}")

    path = write(named(tmp_path, "session", write), close)
    with contextlib.suppress(ValueError):
        load(path)


# -- Zarr ----------


def write_zarr(folder, files):
    for name, content in {".zgroup": "{}", **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


PICKLED = json.dumps({"dtype": "|O", "filters": [{"id": "pickle", "protocol": 5}]})
LINKED = json.dumps({"zarr_link": [{"name": "x", "source": "/etc", "path": "/passwd"}]})
WITHIN = json.dumps({"zarr_link": [{"name": "x", "source": ".", "path": "/units"}]})


@pytest.fixture
def zarr_reader(monkeypatch, tmp_path):
    """Put a reader of the file of `write_nwb` in the place of hdmf-zarr."""
    path = write_nwb(tmp_path / "session.nwb")
    reader = types.SimpleNamespace(NWBZarrIO=lambda folder, mode: pynwb.NWBHDF5IO(path, mode))
    monkeypatch.setitem(sys.modules, "hdmf_zarr", reader)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("units/notes/.zarray", PICKLED, "units/notes holds pickled arrays.* runs code"),
        ("units/.zattrs", LINKED, "units is a link to another folder, '/etc'.*follow_links=True"),
        ("units/.zattrs", "{", r"units/\.zattrs is damaged"),
    ],
)
def test_zarr_folders_that_run_code_or_name_others_are_refused(
    zarr_reader, tmp_path, name, content, message
):
    folder = write_zarr(tmp_path / "a.zarr", {name: content})
    with pytest.raises(ValueError, match=message):
        load_nwb(folder)


def test_symbolic_links_out_of_a_zarr_folder_are_refused(zarr_reader, tmp_path):
    folder = write_zarr(tmp_path / "a.zarr", {"units/.zattrs": WITHIN})
    assert load_nwb(folder).spikes.shape[-1] == 2
    (folder / "outside").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="outside is a link out of the folder"):
        load_nwb(folder)
    assert load_nwb(folder, follow_links=True).spikes.shape[-1] == 2


# -- sizes ----------


def never_written(file, key):
    return file.create_dataset(key, shape=(2**20, 2**20), dtype="f8")


def never_written_chunks(file, key):
    return file.create_dataset(key, shape=(2**20, 2**20), dtype="f8", chunks=(1, 64))


def packed_twice(file, key):
    storage = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    storage.set_chunk((2**28,))
    storage.set_deflate(9)
    storage.set_deflate(9)
    space = h5py.h5s.create_simple((2**28,))
    dataset = h5py.h5d.create(file.id, key.encode(), h5py.h5t.NATIVE_DOUBLE, space, storage)
    once = zlib.compress(zlib.compress(bytes(2**24)) * 16)
    dataset.write_direct_chunk((0,), once)
    return h5py.Dataset(dataset)


@functools.cache
def bomb():
    """Return 256 KiB that unpack to 256 MiB."""
    return zlib.compress(bytes(2**28), 1)


def larger_than_its_chunk(file, key):
    dataset = file.create_dataset(key, shape=(100,), dtype="f8", chunks=(100,), compression="gzip")
    dataset.id.write_direct_chunk((0,), bomb())
    return dataset


def one_large_chunk(file, key):
    dataset = file.create_dataset(
        key, shape=(10,), maxshape=(None,), dtype="f8", chunks=(2**28,), compression="gzip"
    )
    dataset.id.write_direct_chunk((0,), zlib.compress(bytes(2**20)))
    return dataset


def large_scalar(file, key):
    return file.create_dataset(key, shape=(), dtype=f"S{2**31 - 1}")


LARGE = {
    "never written": (never_written, "8 TiB"),
    "chunks never written": (never_written_chunks, "8 TiB"),
    "packed twice": (packed_twice, "2 GiB"),
    "larger than its chunk": (larger_than_its_chunk, "unpacks to more than its 800 bytes"),
    "one large chunk": (one_large_chunk, "2 GiB"),
    "large scalar": (large_scalar, "2 GiB"),
}


@some_loaders
@pytest.mark.parametrize("kind", LARGE)
def test_memory_is_not_taken_for_what_the_file_does_not_hold(tmp_path, loader, kind):
    write, load, key = LOADERS[loader]
    make, message = LARGE[kind]
    path = write(named(tmp_path, "session", write), lambda file: put(file, key, make))
    with pytest.raises(ValueError, match=key.rpartition("/")[2]) as caught:
        load(path)
    assert message in str(caught.value)


def one_entry(file, key):
    dataset = file.create_dataset(key, shape=(1,), dtype="f8", chunks=(1,), compression="gzip")
    dataset.id.write_direct_chunk((0,), bomb())
    return dataset


def many_dates(file, key):
    return file.create_dataset(key, shape=(2**40,), dtype="S30", chunks=(64,))


@pytest.mark.parametrize(
    ("key", "make", "message"),
    [
        ("acquisition/pos/starting_time", one_entry, "unpacks to more than its 8 bytes"),
        ("file_create_date", many_dates, "30 TiB"),
    ],
)
def test_what_pynwb_reads_as_it_opens_a_file_is_checked_before(tmp_path, key, make, message):
    path = write_nwb(tmp_path / "a.nwb", lambda file: put(file, key, make))
    with pytest.raises(ValueError, match=f"a.nwb: /{key} .*{message}"):
        load_nwb(path)


READ_ALL = """
import json, re, sys
from sklearn_stndt import datasets

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])  # KiB

for files in json.loads(sys.argv[1]):
    for loader, path in files:
        try:
            getattr(datasets, loader)(path)
        except ValueError:
            pass
    print(peak())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_hostile_files_take_hardly_more_memory_than_honest_ones(tmp_path):
    def far(file, key):
        return file.create_dataset(key, data=np.array([0.1, 1e9]))

    honest, hostile = [], []
    for name in ("load_nlb", "load_submission", "load_caiman", "load_nwb", "load_nwb_ophys"):
        write, _, key = LOADERS[name]
        honest.append((name, str(write(named(tmp_path, name, write)))))
        for i, make in enumerate([far, *(make for make, _ in LARGE.values())]):
            path = named(tmp_path, f"{name}-{i}", write)
            write(path, lambda file, key=key, make=make: put(file, key, make))
            hostile.append((name, str(path)))
    before, after = map(int, output_of("-c", READ_ALL, json.dumps([honest, hostile])).split())
    assert after < min(2 * before, before + MOST)


def test_what_is_not_needed_is_not_read(tmp_path):
    def add(file):
        file.create_dataset("raw", shape=(2**20, 2**20), dtype="f8")
        file.create_dataset("area2_bump/psth", shape=(2**20, 2**20), dtype="f8")

    path = write_h5(tmp_path / "a.h5", add)
    assert load_nlb(path, name="area2_bump_20").X_train.shape == (2, 3, 65)


def test_an_array_with_many_names_is_read_once(tmp_path):
    def add(file):
        for i in range(100):
            file[f"area2_bump_20/copy {i}"] = file["area2_bump_20/eval_behavior"]

    content = load_submission(write_submission(tmp_path / "a.h5", add))["area2_bump_20"]
    assert content["copy 0"] is content["copy 99"]
