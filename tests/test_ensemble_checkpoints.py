"""Files of a checkpoint directory, and access to them."""

import os
import pickle
import shutil
from pathlib import Path

import joblib
import numpy as np
import pytest
from counted_fits import FITS, Scaled
from numpy.testing import assert_array_equal
from same_ensembles import assert_same_ensembles
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning

from sklearn_stndt import BaggingEnsemble
from sklearn_stndt.ensemble import runs
from sklearn_stndt.ensemble.checkpoints import CheckpointDirectory, MemberFile
from sklearn_stndt.ensemble.trials import Recording

# ---- one process at a time


def test_a_directory_is_used_by_one_fit_at_a_time(scaled, spikes, tmp_path):
    directory = CheckpointDirectory(tmp_path / "run")
    with (
        directory.locked(),
        pytest.raises(RuntimeError, match=f"in use by process {os.getpid()}.*another directory"),
    ):
        scaled().fit(spikes)
    scaled().fit(spikes)


def test_an_error_releases_the_directory(scaled, spikes):
    for _ in range(2):
        with pytest.raises(ArithmeticError):
            scaled(base=Scaled(fails="now"), error_score="raise").fit(spikes)


# ---- files


def test_partial_files_are_removed(scaled, spikes, tmp_path):
    first = scaled().fit(spikes)
    run = tmp_path / "run"
    half = (run / "member-00001.zip").read_bytes()[:100]
    (run / "member-00001.zipabc.partial").write_bytes(half)
    (run / "manifest.jsonabc.partial").write_text("{")
    of_a_training = "training-0123.zipabc.partial"  # which may be going on
    (run / of_a_training).write_bytes(half)
    (run / "member-00001.zip").unlink()
    FITS.clear()
    assert_same_ensembles(scaled().fit(spikes), first, spikes)
    assert len(FITS) == 1
    names = {path.name for path in run.iterdir()}
    members = {f"member-{i:05d}.zip" for i in range(5)}
    assert names == members | {"manifest.json", "lock", of_a_training}


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 but no zip", None])
def test_a_damaged_member_is_trained_again(scaled, spikes, tmp_path, damage):
    first = scaled().fit(spikes)
    path = tmp_path / "run" / "member-00001.zip"
    if damage is None:
        damage = bytearray(path.read_bytes())
        damage[len(damage) // 2] ^= 255
    path.write_bytes(damage)
    FITS.clear()
    with pytest.warns(UserWarning, match=r"member-00001\.zip is damaged"):
        again = scaled().fit(spikes)
    assert len(FITS) == 1
    assert_same_ensembles(again, first, spikes)


def test_a_directory_can_be_moved(scaled, spikes, tmp_path):
    first = scaled().fit(spikes)
    rates = first.transform(spikes)
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    FITS.clear()
    moved = scaled(checkpoint_dir=str(tmp_path / "elsewhere")).fit(spikes)
    assert not FITS
    assert_array_equal(moved.transform(spikes), rates)
    with pytest.raises(FileNotFoundError, match="put the directory back, or fit again"):
        first.transform(spikes)


def test_the_home_directory_may_be_abbreviated(scaled, spikes, tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    scaled(checkpoint_dir="~/run").fit(spikes)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_large_counts_are_shared_in_one_file(small, spikes, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "_LARGE", 0)
    params = {"n_best": 1, "bootstrap": True, "random_state": 0}
    expected = BaggingEnsemble(small(), 2, **params).fit(spikes)
    read = []
    opened = Recording.opened

    def open_and_note(self):
        if isinstance(self.X, Path):
            read.append(np.load(self.X))
        return opened(self)

    monkeypatch.setattr(Recording, "opened", open_and_note)
    with joblib.parallel_config("threading", n_jobs=2):
        ensemble = BaggingEnsemble(small(), 2, checkpoint_dir=tmp_path, **params)
        ensemble.fit(spikes)
        assert len(read) >= 2
        assert_array_equal(read[0], spikes)
        assert_same_ensembles(ensemble, expected, spikes)
        names = {"lock", "manifest.json", "member-00000.zip", "member-00001.zip"}
        assert {path.name for path in tmp_path.iterdir()} == names
        read.clear()
        ensemble.fit(spikes)
        assert not read  # no member is trained, so no worker needs the counts


def test_a_member_that_kills_its_workers_fails_after_several_attempts(scaled, spikes, tmp_path):
    directory = CheckpointDirectory(tmp_path / "run")
    ensemble = scaled()
    begin = CheckpointDirectory.begin
    lost = {2: 3, 3: 2}  # member: number of workers that are lost while they train it

    def begin_after_losses(self, index):
        for _ in range(lost.pop(index, 0)):
            begin(self, index)
        return begin(self, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointDirectory, "begin", begin_after_losses)
        with pytest.warns(FitFailedWarning, match="Member 2 of 5 .*3 workers were lost"):
            ensemble.fit(spikes)
    assert len(ensemble) == 4
    FITS.clear()
    assert len(scaled().fit(spikes)) == 5  # a new run tries again
    assert len(FITS) == 1
    assert not list(directory.path.glob("*.begun"))


def test_a_worker_does_not_train_what_another_has_finished(scaled, spikes, monkeypatch):
    first = scaled().fit(spikes)
    FITS.clear()
    # as if a worker was lost after it had written a member, before it reported it
    monkeypatch.setattr(CheckpointDirectory, "finished", lambda self, plans: {})
    again = scaled().fit(spikes)
    assert not FITS
    assert_same_ensembles(again, first, spikes)


def test_workers_must_share_the_directory(scaled, spikes, monkeypatch):
    monkeypatch.setattr(runs, "_ATTEMPTS", 1)
    monkeypatch.setattr(
        MemberFile, "write", lambda *args: None
    )  # as if it was written to the disk of another machine
    with pytest.raises(FileNotFoundError, match="a directory that all workers share"):
        scaled().fit(spikes)


# ---- members stay on disk


def test_members_are_loaded_on_demand(scaled, spikes, monkeypatch):
    loaded = []
    load = MemberFile.load
    monkeypatch.setattr(MemberFile, "load", lambda self: loaded.append(self.path) or load(self))
    ensemble = scaled(n_best=2).fit(spikes)
    assert not loaded
    ensemble.transform(spikes)
    assert len(loaded) == 2  # the others are not loaded
    assert len(ensemble) == len(list(ensemble)) == 5
    assert isinstance(ensemble[0], Scaled)
    assert ensemble[0] is not ensemble[0]
    assert len(ensemble[1:3]) == 2
    assert repr(ensemble.estimators_) == "<5 members on disk>"
    with pytest.raises(IndexError):
        ensemble[5]


def test_a_pickle_needs_no_directory(scaled, spikes, tmp_path):
    ensemble = scaled(warm_start=True).fit(spikes)
    rates, score = ensemble.transform(spikes), ensemble.score(spikes)
    pickled = pickle.dumps(ensemble)
    shutil.rmtree(tmp_path / "run")
    loaded = pickle.loads(pickled)
    assert_array_equal(loaded.transform(spikes), rates)
    assert loaded.score(spikes) == score
    assert_array_equal(pickle.loads(pickle.dumps(loaded)).transform(spikes), rates)
    FITS.clear()
    loaded.set_params(n_estimators=7).fit(spikes)  # and writes its members again
    assert len(FITS) == 2
    assert len(list((tmp_path / "run").glob("member-*.zip"))) == 7
    assert_same_ensembles(loaded, scaled(7, checkpoint_dir=None).fit(spikes), spikes)


def test_pickles_hold_neither_counts_nor_rates(scaled, spikes):
    counts = np.tile(spikes, (10, 5, 1))
    for directory in ({}, {"checkpoint_dir": None}):
        ensemble = scaled(bootstrap=True, oob_score=False, **directory).fit(counts)
        assert len(pickle.dumps(ensemble)) < 0.05 * counts.nbytes


def test_clones_share_nothing_but_parameters(scaled, spikes):
    ensemble = scaled().fit(spikes)
    twin = clone(ensemble)
    assert not hasattr(twin, "estimators_")
    assert twin.checkpoint_dir == ensemble.checkpoint_dir
