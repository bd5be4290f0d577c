"""What an ensemble writes down, what it resumes from, and what it refuses."""

import json
import os
import pickle
import shutil

import joblib
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.stats import uniform
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning

from sklearn_stndt import BaggingEnsemble, _checkpoints, _runs
from sklearn_stndt._checkpoints import CheckpointDirectory, MemberFile, write_atomically
from sklearn_stndt._fingerprints import describe, describe_estimator, fingerprint

FITS = []  # seed of each fit, since the last time that a test emptied it


class Scaled(TransformerMixin, BaseEstimator):
    """The mean counts times a factor that the seed draws; fits are counted."""

    def __init__(self, power=1.0, fails=False, heldout_neurons=None, random_state=None):
        self.power = power
        self.fails = fails
        self.heldout_neurons = heldout_neurons
        self.random_state = random_state

    def fit(self, X, y=None, groups=None):
        FITS.append(self.random_state)
        if self.fails == "now" or (self.fails == "once" and len(FITS) == 2):
            raise ArithmeticError("no fit")
        if self.fails == "interrupt" and len(FITS) == 3:
            raise KeyboardInterrupt
        mean = X.mean(axis=tuple(range(X.ndim - 1))) + 0.01
        self.rates_ = mean * np.random.RandomState(self.random_state).uniform(0.5, 2) ** self.power
        return self

    def transform(self, X, groups=None):
        return np.broadcast_to(self.rates_, X.shape)


@pytest.fixture(autouse=True)
def _no_fits():
    FITS.clear()


@pytest.fixture
def scaled(tmp_path):
    """Make an ensemble that writes into a directory."""

    def make(n_estimators=5, base=None, **params):
        params = {
            "param_distributions": {"power": uniform(0.5, 1)},
            "checkpoint_dir": tmp_path / "run",
            "n_best": "auto",
            "random_state": 0,
        } | params
        return BaggingEnsemble(Scaled() if base is None else base, n_estimators, **params)

    return make


def same(one, other, X):
    """Assert that two ensembles agree in every bit."""
    assert_array_equal(one.transform(X), other.transform(X))
    assert_array_equal(one.selected_, other.selected_)
    assert_array_equal(one.scores_, other.scores_)
    assert_array_equal(one.selection_curve_, other.selection_curve_)
    assert one.params_ == other.params_


# ---- resume


def test_members_on_disk_are_not_trained_again(scaled, spikes, tmp_path):
    first = scaled().fit(spikes)
    assert len(FITS) == 5
    again = scaled().fit(spikes)
    assert len(FITS) == 5
    same(again, first, spikes)
    same(again, scaled(checkpoint_dir=None).fit(spikes), spikes)
    for path in sorted((tmp_path / "run").glob("member-*"))[1:4]:
        path.unlink()
    FITS.clear()
    same(scaled().fit(spikes), first, spikes)
    assert [member.random_state for member in first][1:4] == FITS


@pytest.mark.parametrize("n_estimators", [3, 8])
def test_a_directory_serves_ensembles_of_other_sizes(scaled, spikes, n_estimators):
    scaled(5).fit(spikes)
    FITS.clear()
    ensemble = scaled(n_estimators).fit(spikes)
    assert len(FITS) == max(n_estimators - 5, 0)
    assert len(ensemble) == n_estimators
    same(ensemble, scaled(n_estimators, checkpoint_dir=None).fit(spikes), spikes)
    FITS.clear()
    scaled(8).fit(spikes)  # what a shorter run did not need is still there
    assert len(FITS) == (0 if n_estimators == 8 else 3)


def test_how_members_are_selected_may_change(scaled, spikes):
    scaled().fit(spikes)
    FITS.clear()
    for n_best in (1, "greedy"):
        same(
            scaled(n_best=n_best, n_jobs=1, verbose=0).fit(spikes),
            scaled(n_best=n_best, checkpoint_dir=None).fit(spikes),
            spikes,
        )
    assert len(FITS) == 10  # those of the ensembles without a directory


def test_what_was_not_scored_is_scored_later(scaled, spikes):
    plain = {"n_best": None, "bootstrap": True}
    scaled(**plain).fit(spikes)
    FITS.clear()
    wanted = {"n_best": 2, "bootstrap": True, "oob_score": True}
    ensemble = scaled(**wanted).fit(spikes)
    assert not FITS
    expected = scaled(**wanted, checkpoint_dir=None).fit(spikes)
    same(ensemble, expected, spikes)
    assert_array_equal(ensemble.oob_rates_, expected.oob_rates_)
    assert ensemble.oob_score_ == expected.oob_score_


def test_without_a_seed_the_directory_knows_what_was_drawn(scaled, spikes, tmp_path):
    first = scaled(4, Scaled(heldout_neurons=3), random_state=None).fit(spikes)
    (tmp_path / "run" / "member-00002.zip").unlink()
    FITS.clear()
    again = scaled(6, Scaled(heldout_neurons=3), random_state=None).fit(spikes)
    assert_array_equal(again.heldout_neurons_, first.heldout_neurons_)
    assert_array_equal(again.validation_trials_, first.validation_trials_)
    seeds = first.results_["seed"]
    assert_array_equal(again.results_["seed"][:4], seeds)
    assert len(FITS) == 3
    assert again.params_[:4] == first.params_


def test_members_that_failed_are_tried_again(scaled, spikes):
    with pytest.warns(FitFailedWarning, match="Member 1 of 5 failed"):
        scaled(base=Scaled(fails="once")).fit(spikes)
    FITS.clear()
    FITS.extend([None, None])  # the next one is the third
    ensemble = scaled(base=Scaled(fails="once")).fit(spikes)
    assert len(FITS) == 3
    assert len(ensemble) == 5


def test_an_interrupt_keeps_what_is_finished(scaled, spikes):
    base = Scaled(fails="interrupt")
    with pytest.warns(ConvergenceWarning, match="interrupted at member 2 of 5"):
        ensemble = scaled(base=base).fit(spikes)
    assert len(ensemble) == 2
    assert np.isfinite(ensemble.transform(spikes)).all()
    ensemble = scaled(base=base).fit(spikes)
    assert len(ensemble) == 5
    assert len(FITS) == 6  # the one that was interrupted has begun twice


def test_an_interrupt_before_any_member_is_passed_on(scaled, spikes):
    FITS.extend([None, None])
    with pytest.raises(KeyboardInterrupt):
        scaled(base=Scaled(fails="interrupt")).fit(spikes)


def test_an_interrupted_member_is_no_finished_member(small, spikes, tmp_path):
    from skorch.callbacks import Callback

    class PressCtrlC(Callback):
        pressed = []

        def on_batch_begin(self, net, training=None, **kwargs):
            if not self.pressed:
                self.pressed.append(True)
                raise KeyboardInterrupt

    base = small(callbacks=[PressCtrlC()])
    ensemble = BaggingEnsemble(base, 2, checkpoint_dir=tmp_path, random_state=0)
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        ensemble.fit(spikes)
    assert len(ensemble) == 1
    assert not list(tmp_path.glob("member-*.zip"))
    expected = BaggingEnsemble(small(), 2, random_state=0).fit(spikes)
    assert_array_equal(ensemble.fit(spikes).transform(spikes), expected.transform(spikes))


def test_a_warm_start_needs_not_all_that_the_directory_has(scaled, spikes):
    scaled(8).fit(spikes)
    ensemble = scaled(3, warm_start=True).fit(spikes)
    FITS.clear()
    ensemble.set_params(n_estimators=5).fit(spikes)
    assert not FITS
    same(ensemble, scaled(5, checkpoint_dir=None).fit(spikes), spikes)


@pytest.mark.parametrize("first_on_disk", [False, True])
def test_warm_start_and_a_directory_go_together(scaled, spikes, tmp_path, first_on_disk):
    directory = tmp_path / "run"
    ensemble = scaled(3, warm_start=True, checkpoint_dir=directory if first_on_disk else None)
    ensemble.fit(spikes)
    FITS.clear()
    ensemble.set_params(n_estimators=5, checkpoint_dir=directory).fit(spikes)
    assert len(FITS) == 2
    assert len(list(directory.glob("member-*.zip"))) == 5
    same(ensemble, scaled(5, checkpoint_dir=None).fit(spikes), spikes)
    FITS.clear()
    same(scaled(5).fit(spikes), ensemble, spikes)
    assert not FITS


# ---- refusals


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"random_state": 1}, "random_state drew other seeds"),
        ({"estimator__heldout_neurons": [1]}, "heldout_neurons was .*None.*and is .*1"),
        ({"bootstrap": True, "validation_fraction": 0.2}, "bootstrap was False, and is True"),
        ({"max_samples": 0.5, "validation_fraction": 0.2}, r"max_samples was 1\.0, and is 0\.5"),
        ({"n_best": None}, r"trials set aside was array \[.*\], and is array \[\]"),
        ({"param_distributions": {"power": [3.0]}}, r"power of member 0 was 0\.\d+, and is 3\.0"),
        ({"param_distributions": None, "estimator__power": 2}, "power of member 0 was .*and is 2"),
    ],
)
def test_a_directory_of_another_run_is_refused_with_the_reason(
    scaled, spikes, tmp_path, change, reason
):
    scaled(2).fit(spikes)
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    with pytest.raises(ValueError, match=rf"(?s)checkpoint_dir=.*run' holds members.*{reason}"):
        scaled(2).set_params(**change).fit(spikes)
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before
    scaled(2).fit(spikes)


def test_other_counts_are_refused(scaled, spikes, rows, groups):
    scaled(2).fit(spikes)
    changed = spikes.copy()
    changed[3, 4, 5] += 1
    with pytest.raises(ValueError, match=r"X was float64 \(24, 20, 12\) \w+, and is float64"):
        scaled(2).fit(changed)
    with pytest.raises(ValueError, match=r"X was float64 \(24, 20, 12\) \w+, and is float32"):
        scaled(2).fit(spikes.astype(np.float32))
    with pytest.raises(ValueError, match=r"X was .*, and is float64 \(480, 12\)"):
        scaled(2).fit(rows, groups=groups)


def test_other_groups_are_refused(scaled, rows, groups):
    scaled(2).fit(rows, groups=groups)
    with pytest.raises(ValueError, match=r"groups was int64 \(480,\) \w+, and is int64 \(480,\)"):
        scaled(2).fit(rows, groups=groups // 2)


def test_another_class_is_refused(scaled, spikes):
    class Other(Scaled):
        pass

    scaled(2).fit(spikes)
    with pytest.raises(ValueError, match=r"estimator of member 0 was .*\.Scaled, and is .*Other"):
        scaled(2, Other()).fit(spikes)


def test_a_directory_with_other_files_is_refused(scaled, spikes, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("all of it")
    with pytest.raises(ValueError, match=r"no manifest\.json and holds other files: thesis\.tex"):
        scaled().fit(spikes)
    assert (tmp_path / "run" / "thesis.tex").read_text() == "all of it"


def test_a_manifest_that_cannot_be_read_is_refused(scaled, spikes, tmp_path):
    scaled(2).fit(spikes)
    manifest = tmp_path / "run" / "manifest.json"
    written = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(written | {"format": 99}))
    with pytest.raises(ValueError, match="written in format 99, and this version reads format 1"):
        scaled(2).fit(spikes)
    manifest.write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json cannot be read"):
        scaled(2).fit(spikes)


def test_members_of_other_versions_are_mixed_with_a_warning(scaled, spikes, tmp_path):
    scaled(2).fit(spikes)
    manifest = tmp_path / "run" / "manifest.json"
    written = json.loads(manifest.read_text())
    written["versions"]["torch"] = "1.0"
    manifest.write_text(json.dumps(written))
    with pytest.warns(UserWarning, match=r"trained with torch 1\.0 \(now "):
        scaled(2).fit(spikes)
    assert len(FITS) == 2


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


def test_a_file_is_there_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"first"))

    def fail(file):
        file.write(b"sec")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_were_half_written_are_cleared(scaled, spikes, tmp_path):
    first = scaled().fit(spikes)
    run = tmp_path / "run"
    half = (run / "member-00001.zip").read_bytes()[:100]
    (run / "member-00001.zipabc.partial").write_bytes(half)
    (run / "member-00001.zip").unlink()
    FITS.clear()
    same(scaled().fit(spikes), first, spikes)
    assert len(FITS) == 1
    names = {path.name for path in run.iterdir()}
    members = {f"member-{i:05d}.zip" for i in range(5)}
    assert names == members | {"manifest.json", "lock"}


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
    same(again, first, spikes)


def test_a_directory_may_move(scaled, spikes, tmp_path):
    first = scaled().fit(spikes)
    rates = first.transform(spikes)
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    FITS.clear()
    moved = scaled(checkpoint_dir=str(tmp_path / "elsewhere")).fit(spikes)
    assert not FITS
    assert_array_equal(moved.transform(spikes), rates)
    with pytest.raises(FileNotFoundError, match="put the directory back, or fit again"):
        first.transform(spikes)


def test_large_counts_are_read_from_one_file(small, spikes, tmp_path, monkeypatch):
    monkeypatch.setattr(_runs, "_LARGE", 0)
    params = {"n_best": 1, "bootstrap": True, "random_state": 0}
    expected = BaggingEnsemble(small(), 2, **params).fit(spikes)
    with joblib.parallel_config("threading", n_jobs=2):
        ensemble = BaggingEnsemble(small(), 2, checkpoint_dir=tmp_path, **params).fit(spikes)
    assert_array_equal(np.load(tmp_path / "counts.npy"), spikes)
    same(ensemble, expected, spikes)


def test_a_member_that_takes_its_workers_along_fails_in_the_end(scaled, spikes, tmp_path):
    directory = CheckpointDirectory(tmp_path / "run")
    ensemble = scaled()
    begin = CheckpointDirectory.begin
    lost = {2: 3, 3: 2}  # workers that have begun with a member and were never heard of again

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
    assert len(scaled().fit(spikes)) == 5  # another run, another chance
    assert len(FITS) == 1
    assert not list(directory.path.glob("*.begun"))


def test_a_worker_does_not_train_what_another_has_finished(scaled, spikes, monkeypatch):
    first = scaled().fit(spikes)
    FITS.clear()
    # as after the loss of a worker that had written down a member and not reported it
    monkeypatch.setattr(CheckpointDirectory, "finished", lambda self: {})
    again = scaled().fit(spikes)
    assert not FITS
    same(again, first, spikes)


def test_a_directory_that_workers_do_not_share_is_an_error(scaled, spikes, monkeypatch):
    monkeypatch.setattr(_runs, "_ATTEMPTS", 1)
    monkeypatch.setattr(
        MemberFile, "write", lambda *args: None
    )  # as on the disk of another machine
    with pytest.raises(FileNotFoundError, match="a directory that all workers share"):
        scaled().fit(spikes)


# ---- members stay on disk


def test_members_are_loaded_when_they_are_needed(scaled, spikes, monkeypatch):
    loaded = []
    load = MemberFile.load
    monkeypatch.setattr(MemberFile, "load", lambda self: loaded.append(self.path) or load(self))
    ensemble = scaled(n_best=2).fit(spikes)
    assert not loaded
    ensemble.transform(spikes)
    assert len(loaded) == 2  # the others stay where they are
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
    loaded.set_params(n_estimators=7).fit(spikes)  # and writes its members down again
    assert len(FITS) == 2
    assert len(list((tmp_path / "run").glob("member-*.zip"))) == 7
    same(loaded, scaled(7, checkpoint_dir=None).fit(spikes), spikes)


def test_pickles_of_large_ensembles_hold_neither_counts_nor_held_out_rates(scaled, spikes):
    counts = np.tile(spikes, (10, 5, 1))
    for directory in ({}, {"checkpoint_dir": None}):
        ensemble = scaled(bootstrap=True, oob_score=False, **directory).fit(counts)
        assert len(pickle.dumps(ensemble)) < 0.05 * counts.nbytes


def test_clones_share_nothing_but_parameters(scaled, spikes):
    ensemble = scaled().fit(spikes)
    twin = clone(ensemble)
    assert not hasattr(twin, "estimators_")
    assert twin.checkpoint_dir == ensemble.checkpoint_dir


# ---- descriptions


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (1, 1.0),
        (True, 1),
        ("a", "b"),
        ((1, 2), (1, 3)),
        ({"a": 1}, {"a": 2}),
        (np.arange(3), np.arange(4)),
        (np.arange(1000), np.arange(1000)[::-1]),
        (np.zeros(3), np.zeros((3, 1))),
        (np.mean, np.std),
        (Scaled, BaseEstimator),
        (Scaled(), BaggingEnsemble()),
        (uniform(0, 1).dist, 3),
    ],
)
def test_descriptions_tell_values_apart(one, other):
    assert describe(one) != describe(other)
    assert describe(one) == describe(pickle.loads(pickle.dumps(one)))


def test_descriptions_of_numbers_do_not_depend_on_who_made_them():
    assert describe(np.float64(0.5)) == describe(0.5)
    assert describe(np.int32(3)) == describe(3)
    assert describe([1, 2]) == describe((1, 2))


def test_objects_that_cannot_be_pickled_are_described_by_their_class():
    class Open:
        def __reduce__(self):
            raise TypeError("open file")

    assert describe(Open()).endswith("Open")


def test_estimators_are_described_by_what_decides_their_fit():
    described = describe_estimator(BaggingEnsemble(Scaled(power=3.0), n_jobs=2, verbose=1))
    assert described["estimator__power"] == "3.0"
    assert described["random_state"] == "None"
    assert not {"n_jobs", "verbose"} & set(described)


def test_fingerprints_are_of_values_and_not_of_memory():
    values = np.arange(24.0).reshape(4, 6)
    assert fingerprint(values) == fingerprint(np.asfortranarray(values))
    assert fingerprint(values) != fingerprint(values.T)
    assert fingerprint(values) != fingerprint(values.astype(np.float32))
    assert fingerprint(np.array(["a", "b"], dtype=object)) != fingerprint(
        np.array(["a", "c"], dtype=object)
    )
    assert fingerprint(None) == "None"


def test_the_lock_works_where_posix_locks_are_missing(tmp_path, monkeypatch):
    calls = []

    class Msvcrt:
        LK_NBLCK = 2

        @staticmethod
        def locking(handle, mode, number):
            calls.append((mode, number))
            if len(calls) > 1:
                raise OSError("in use")

    monkeypatch.setattr(_checkpoints, "fcntl", None)
    monkeypatch.setitem(__import__("sys").modules, "msvcrt", Msvcrt)
    directory = CheckpointDirectory(tmp_path)
    with directory.locked():
        pass
    with pytest.raises(RuntimeError, match="in use"):
        directory.locked().__enter__()
    assert calls == [(2, 1), (2, 1)]
