"""Checkpoint directories that are damaged, altered, full or read-only."""

import json
import os
import pickle
import shutil
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from changed_models import parts_of, rewrite
from counted_fits import FITS
from numpy.testing import assert_array_equal
from same_ensembles import assert_same_ensembles

from sklearn_stndt import BaggingEnsemble
from sklearn_stndt.persistence import ModelFileError, extras


class Bomb:
    """Makes a folder if a pickle of it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def networks(small, tmp_path):
    """Make an ensemble of networks that writes to a directory."""

    def make(n_estimators=2, **params):
        base = small(max_epochs=1, n_layers=1)
        params = {"checkpoint_dir": tmp_path / "run", "n_best": 1, "random_state": 0} | params
        return BaggingEnsemble(base, n_estimators, **params)

    return make


def member(tmp_path, index):
    return tmp_path / "run" / f"member-{index:05d}.zip"


# ---- members


def test_a_member_in_place_of_another_is_not_counted_twice(scaled, spikes, tmp_path):
    first = scaled().fit(spikes)
    shutil.copy(member(tmp_path, 0), member(tmp_path, 3))
    FITS.clear()
    with pytest.warns(UserWarning, match=r"member-00003.* with index 0, not 3.*trained again"):
        again = scaled().fit(spikes)
    assert len(FITS) == 1
    assert_same_ensembles(again, first, spikes)


def test_a_worker_does_not_take_a_member_for_another(scaled, spikes, tmp_path, monkeypatch):
    from sklearn_stndt.ensemble.checkpoints import CheckpointDirectory

    first = scaled().fit(spikes)
    shutil.copy(member(tmp_path, 0), member(tmp_path, 3))
    FITS.clear()
    monkeypatch.setattr(CheckpointDirectory, "finished", lambda self, plans: {})
    assert_same_ensembles(scaled().fit(spikes), first, spikes)
    assert len(FITS) == 1


def test_a_member_of_other_data_is_not_used(scaled, spikes, tmp_path):
    first = scaled().fit(spikes)
    scaled(checkpoint_dir=tmp_path / "other").fit(spikes + 1)
    shutil.copy(tmp_path / "other" / member(tmp_path, 2).name, member(tmp_path, 2))
    with pytest.warns(UserWarning, match=r"member-00002.* another member, with recording"):
        again = scaled().fit(spikes)
    assert_same_ensembles(again, first, spikes)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: [],
        lambda record: None,
        lambda record: record | {"index": "1"},
        lambda record: record | {"described": {"seed": 3}},
        lambda record: record | {"score": "high"},
        lambda record: {k: v for k, v in record.items() if k != "evaluated"},
    ],
)
def test_a_record_of_another_form_is_damage(scaled, spikes, tmp_path, change):
    first = scaled().fit(spikes)
    parts, manifest = parts_of(member(tmp_path, 1))
    parts["record.json"] = json.dumps(change(json.loads(parts["record.json"]))).encode()
    rewrite(member(tmp_path, 1), parts, manifest)
    FITS.clear()
    with pytest.warns(UserWarning, match=r"member-00001\.zip is damaged: .*trained again"):
        again = scaled().fit(spikes)
    assert len(FITS) == 1
    assert_same_ensembles(again, first, spikes)


def test_a_folder_in_place_of_a_member_is_moved(scaled, spikes, tmp_path):
    first = scaled().fit(spikes)
    member(tmp_path, 1).unlink()
    member(tmp_path, 1).mkdir()
    (member(tmp_path, 1) / "note.txt").write_text("keep")
    with pytest.warns(UserWarning, match="it is a folder, not a file"):
        again = scaled().fit(spikes)
    assert_same_ensembles(again, first, spikes)
    (kept,) = (tmp_path / "run").glob("member-00001.damaged-*/note.txt")
    assert kept.read_text() == "keep"


@pytest.mark.parametrize("make", ["scaled", "networks"])
def test_altered_bytes_of_a_member_are_found(make, spikes, tmp_path, request):
    make = request.getfixturevalue(make)
    first = make(2).fit(spikes)
    path = member(tmp_path, 1)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    n_found = 0
    for place in rng.integers(len(content), size=10):
        altered = bytearray(content)
        altered[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(altered)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            again = make(2).fit(spikes)
        assert [w for w in warned if "member-00001.zip is damaged" not in str(w.message)] == []
        n_found += len(warned)
        # unless it is damaged, only dates and other fields without a meaning here differ
        assert (path.read_bytes() == bytes(altered)) == (not warned)
        assert_same_ensembles(again, first, spikes)
    assert n_found > 5


def test_a_member_that_is_damaged_after_fit_is_named(networks, spikes, tmp_path):
    pytest.importorskip("safetensors")
    ensemble = networks().fit(spikes)
    for index in (0, 1):
        member(tmp_path, index).write_bytes(b"PK")
    with pytest.raises(ModelFileError, match=r"member-0000\d\.zip is damaged: .*fit again"):
        ensemble.transform(spikes)


@pytest.mark.parametrize("old_form", [False, True])
def test_no_pickle_of_a_network_is_loaded(networks, spikes, tmp_path, old_form):
    pytest.importorskip("safetensors")
    first = networks().fit(spikes)
    parts, manifest = parts_of(member(tmp_path, 1))
    parts = {n: part for n, part in parts.items() if not n.startswith(("model", "weights"))}
    parts["member.pickle"] = pickle.dumps(Bomb(tmp_path / "exploded"))
    rewrite(member(tmp_path, 1), parts, manifest)
    if old_form:
        with zipfile.ZipFile(member(tmp_path, 1), "w") as file:
            for name, part in parts.items():
                file.writestr(name, part)
    with pytest.warns(UserWarning, match=r"member-00001\.zip is damaged"):
        again = networks().fit(spikes)
    assert_same_ensembles(again, first, spikes)
    assert not (tmp_path / "exploded").exists()


def test_members_written_with_the_extra_are_not_lost_without_it(
    networks, spikes, tmp_path, monkeypatch
):
    pytest.importorskip("safetensors")
    networks().fit(spikes)
    before = member(tmp_path, 0).read_bytes()
    monkeypatch.setattr(extras, "_PACKAGES", ("a_package_that_is_missing",))
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r'pip install "sklearn-stndt\[save\]"'):
        networks().fit(spikes)
    assert member(tmp_path, 0).read_bytes() == before


def test_members_are_pickled_without_the_extra(networks, spikes, tmp_path, monkeypatch):
    first = networks(checkpoint_dir=None).fit(spikes)
    monkeypatch.setattr(extras, "_PACKAGES", ("a_package_that_is_missing",))
    for _ in range(2):
        assert_same_ensembles(networks().fit(spikes), first, spikes)
    assert "member.pickle" in parts_of(member(tmp_path, 0))[0]


# ---- manifests


def test_a_damaged_manifest_is_written_again(scaled, spikes, tmp_path):
    first = scaled().fit(spikes)
    path = tmp_path / "run" / "manifest.json"
    manifest = json.loads(path.read_text())
    run = manifest["run"]
    for damaged in [
        "{",
        "null",
        "[]",
        "[" * 100_000,
        json.dumps({"format": "2"}),
        json.dumps({"format": 2, "versions": {}, "run": []}),
        json.dumps(manifest | {"versions": 3}),
        json.dumps(manifest | {"run": run | {"seeds": [-1]}}),
        json.dumps(manifest | {"run": run | {"heldout_neurons": None}}),
        json.dumps(manifest | {"run": {"data": {}}}),
    ]:
        path.write_text(damaged)
        FITS.clear()
        with pytest.warns(UserWarning, match=r"manifest\.json is damaged and is written again"):
            again = scaled().fit(spikes)
        assert not FITS
        assert_same_ensembles(again, first, spikes)
        assert json.loads(path.read_text()) == manifest


def test_a_damaged_manifest_is_refused_if_only_it_has_the_seeds(scaled, spikes, tmp_path):
    scaled(2, random_state=None).fit(spikes)
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").glob("member*")}
    (tmp_path / "run" / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match=r"damaged, and without a random_state .*Pass another"):
        scaled(2, random_state=None).fit(spikes)
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").glob("member*")} == before


@pytest.mark.parametrize("name", ["manifest.json", "lock"])
def test_a_folder_in_place_of_another_file_is_named(scaled, spikes, tmp_path, name):
    scaled(2).fit(spikes)
    (tmp_path / "run" / name).unlink()
    (tmp_path / "run" / name).mkdir()
    with pytest.raises((ValueError, OSError), match=rf"{name}.* directory|directory.*{name}"):
        scaled(2).fit(spikes)


def test_a_file_in_place_of_the_directory_is_refused(scaled, spikes, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match=r"checkpoint_dir='.*run' is a file"):
        scaled(2).fit(spikes)


def test_members_of_an_older_version_are_trained_again(scaled, spikes, tmp_path):
    first = scaled(3).fit(spikes)
    path = tmp_path / "run" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 1}))
    for index in range(3):
        with zipfile.ZipFile(member(tmp_path, index), "w") as file:
            file.writestr("record.json", "{}")
            file.writestr("member.pickle", pickle.dumps(Bomb(tmp_path / "exploded")))
    FITS.clear()
    with pytest.warns(UserWarning, match="older version .* trained again, and replaced") as warned:
        again = scaled(3).fit(spikes)
    assert len(warned) == 1
    assert len(FITS) == 3
    assert_same_ensembles(again, first, spikes)
    assert not (tmp_path / "exploded").exists()
    FITS.clear()
    scaled(3).fit(spikes)
    assert not FITS


# ---- disks


@pytest.fixture
def read_only():
    """Make a directory that cannot be written to, and a user whom that concerns."""
    if os.name != "posix":
        pytest.skip("permissions of POSIX")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    was_root = os.geteuid() == 0

    def forbid():
        for path in folder.rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
        if was_root:
            os.seteuid(65534)  # root may write everywhere

    yield folder, forbid
    if was_root:
        os.seteuid(0)
    for path in folder.rglob("*"):
        path.chmod(0o755)
    shutil.rmtree(folder)


def test_a_finished_run_is_read_from_a_read_only_directory(scaled, spikes, read_only):
    folder, forbid = read_only
    first = scaled(3, checkpoint_dir=folder / "run").fit(spikes)
    rates = first.transform(spikes)
    forbid()
    FITS.clear()
    again = scaled(3, checkpoint_dir=folder / "run").fit(spikes)
    assert_array_equal(again.transform(spikes), rates)
    assert len(scaled(2, checkpoint_dir=folder / "run").fit(spikes)) == 2
    with pytest.raises(PermissionError, match=r"lacks 1 members \(of index 3\).*run"):
        scaled(4, checkpoint_dir=folder / "run").fit(spikes)
    with pytest.raises(PermissionError, match="other"):
        scaled(2, checkpoint_dir=folder / "run" / "other").fit(spikes)
    assert not FITS


def test_a_full_disk_is_an_error_that_names_the_file(scaled, spikes, tmp_path, monkeypatch):
    first = scaled(3).fit(spikes)
    member(tmp_path, 1).unlink()

    def full(self, *args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OSError, match=r"No space left.*member-00001\.zip") as info:
        scaled(3).fit(spikes)
    assert info.value.errno == 28
    monkeypatch.undo()
    assert not list((tmp_path / "run").glob("*.partial"))
    FITS.clear()
    assert_same_ensembles(scaled(3).fit(spikes), first, spikes)
    assert len(FITS) == 1
