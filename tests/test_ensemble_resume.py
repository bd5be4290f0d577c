"""Resuming from a checkpoint directory, and directories that are refused."""

import json

import numpy as np
import pytest
from counted_fits import FITS, Scaled
from numpy.testing import assert_array_equal
from same_ensembles import assert_same_ensembles
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning

from sklearn_stndt import BaggingEnsemble

# ---- resume


def test_members_on_disk_are_not_trained_again(scaled, spikes, tmp_path):
    first = scaled().fit(spikes)
    assert len(FITS) == 5
    again = scaled().fit(spikes)
    assert len(FITS) == 5
    assert_same_ensembles(again, first, spikes)
    assert_same_ensembles(again, scaled(checkpoint_dir=None).fit(spikes), spikes)
    for path in sorted((tmp_path / "run").glob("member-*"))[1:4]:
        path.unlink()
    FITS.clear()
    assert_same_ensembles(scaled().fit(spikes), first, spikes)
    assert [member.random_state for member in first][1:4] == FITS


@pytest.mark.parametrize("n_estimators", [3, 8])
def test_the_size_of_the_ensemble_may_change(scaled, spikes, n_estimators):
    scaled(5).fit(spikes)
    FITS.clear()
    ensemble = scaled(n_estimators).fit(spikes)
    assert len(FITS) == max(n_estimators - 5, 0)
    assert len(ensemble) == n_estimators
    assert_same_ensembles(ensemble, scaled(n_estimators, checkpoint_dir=None).fit(spikes), spikes)
    FITS.clear()
    scaled(8).fit(spikes)  # members that a smaller ensemble did not need are still there
    assert len(FITS) == (0 if n_estimators == 8 else 3)


def test_the_selection_of_members_may_change(scaled, spikes):
    scaled().fit(spikes)
    FITS.clear()
    for n_best in (1, "greedy"):
        assert_same_ensembles(
            scaled(n_best=n_best, n_jobs=1, verbose=0).fit(spikes),
            scaled(n_best=n_best, checkpoint_dir=None).fit(spikes),
            spikes,
        )
    assert len(FITS) == 10  # those of the ensembles without a directory


def test_members_without_scores_are_scored_later(scaled, spikes):
    plain = {"n_best": None, "bootstrap": True}
    scaled(**plain).fit(spikes)
    FITS.clear()
    wanted = {"n_best": 2, "bootstrap": True, "oob_score": True}
    ensemble = scaled(**wanted).fit(spikes)
    assert not FITS
    expected = scaled(**wanted, checkpoint_dir=None).fit(spikes)
    assert_same_ensembles(ensemble, expected, spikes)
    assert_array_equal(ensemble.oob_rates_, expected.oob_rates_)
    assert ensemble.oob_score_ == expected.oob_score_


def test_without_a_seed_draws_are_read_from_the_directory(scaled, spikes, tmp_path):
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


def test_members_that_failed_are_trained_again(scaled, spikes):
    with pytest.warns(FitFailedWarning, match="Member 1 of 5 failed"):
        scaled(base=Scaled(fails="once")).fit(spikes)
    FITS.clear()
    FITS.extend([None, None])  # the next one is the third
    ensemble = scaled(base=Scaled(fails="once")).fit(spikes)
    assert len(FITS) == 3
    assert len(ensemble) == 5


def test_interrupting_fit_keeps_finished_members(scaled, spikes):
    base = Scaled(fails="interrupt")
    with pytest.warns(ConvergenceWarning, match="interrupted at member 2 of 5"):
        ensemble = scaled(base=base).fit(spikes)
    assert len(ensemble) == 2
    assert np.isfinite(ensemble.transform(spikes)).all()
    ensemble = scaled(base=base).fit(spikes)
    assert len(ensemble) == 5
    assert len(FITS) == 6  # the interrupted one has started twice


def test_interrupting_the_first_member_raises_keyboard_interrupt(scaled, spikes):
    FITS.extend([None, None])
    with pytest.raises(KeyboardInterrupt):
        scaled(base=Scaled(fails="interrupt")).fit(spikes)


def test_an_interrupted_member_is_not_written(small, spikes, tmp_path):
    from skorch.callbacks import Callback

    class InterruptOnce(Callback):
        interrupted = []

        def on_batch_begin(self, net, training=None, **kwargs):
            if not self.interrupted:
                self.interrupted.append(True)
                raise KeyboardInterrupt

    base = small(callbacks=[InterruptOnce()])
    ensemble = BaggingEnsemble(base, 2, checkpoint_dir=tmp_path, random_state=0)
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        ensemble.fit(spikes)
    assert len(ensemble) == 1
    assert not list(tmp_path.glob("member-*.zip"))
    expected = BaggingEnsemble(small(), 2, random_state=0).fit(spikes)
    assert_array_equal(ensemble.fit(spikes).transform(spikes), expected.transform(spikes))


def test_warm_start_takes_new_members_from_the_directory(scaled, spikes):
    scaled(8).fit(spikes)
    ensemble = scaled(3, warm_start=True).fit(spikes)
    FITS.clear()
    ensemble.set_params(n_estimators=5).fit(spikes)
    assert not FITS
    assert_same_ensembles(ensemble, scaled(5, checkpoint_dir=None).fit(spikes), spikes)


@pytest.mark.parametrize("first_on_disk", [False, True])
def test_warm_start_and_a_directory_can_be_combined(scaled, spikes, tmp_path, first_on_disk):
    directory = tmp_path / "run"
    ensemble = scaled(3, warm_start=True, checkpoint_dir=directory if first_on_disk else None)
    ensemble.fit(spikes)
    FITS.clear()
    ensemble.set_params(n_estimators=5, checkpoint_dir=directory).fit(spikes)
    assert len(FITS) == 2
    assert len(list(directory.glob("member-*.zip"))) == 5
    assert_same_ensembles(ensemble, scaled(5, checkpoint_dir=None).fit(spikes), spikes)
    FITS.clear()
    assert_same_ensembles(scaled(5).fit(spikes), ensemble, spikes)
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
def test_a_directory_of_another_run_is_refused(scaled, spikes, tmp_path, change, reason):
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
    with pytest.raises(ValueError, match="written in format 99, and this version reads format 2"):
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
