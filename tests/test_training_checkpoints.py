"""A training that was killed continues and ends with the same bits."""

import errno
import io
import json
import os
import pickle
import shutil
import signal
import sys
import zipfile

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from same_ensembles import assert_same_ensembles
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, KFold
from skorch.callbacks import Callback
from subprocesses import kill, started, wait_until

from sklearn_stndt import BaggingEnsemble
from sklearn_stndt.network.core import core_parameters
from sklearn_stndt.training import checkpointing, divergence, net
from sklearn_stndt.training import settings as training_settings

posix = pytest.mark.skipif(os.name != "posix", reason="signals and links of POSIX")


class Killed(BaseException):
    """Ends a fit as a kill would, as far as files are concerned."""


class Dies(Callback):
    """Kills the fit in an epoch; counts updates in an attribute that is kept."""

    when = None  # hook and epoch, for all instances: what a parameter says must not change

    def on_train_begin(self, net, **kwargs):
        self.n_updates_ = 0

    def _hook(self, name, net):
        if Dies.when == (name, len(net.history)):
            raise Killed

    def on_epoch_begin(self, net, **kwargs):
        self._hook("epoch begins", net)

    def on_batch_end(self, net, training=False, **kwargs):
        self.n_updates_ += training
        self._hook("update" if training else "validation", net)

    def on_epoch_end(self, net, **kwargs):
        net.history.record("n_updates", self.n_updates_)
        self._hook("epoch ends", net)

    def on_train_end(self, net, **kwargs):
        self._hook("training ends", net)


@pytest.fixture(autouse=True)
def at_every_epoch(monkeypatch):
    """Write after every epoch, however short."""
    monkeypatch.setattr(checkpointing, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpointing, "WRITING_SHARE", np.inf)
    yield
    Dies.when = None


@pytest.fixture
def dying(small, tmp_path):
    def make(**params):
        return small(**({"checkpoint_dir": tmp_path / "run", "callbacks": [Dies()]} | params))

    return make


def die(estimator, X, hook, epoch, **params):
    """Fit until the estimator is killed."""
    Dies.when = hook, epoch
    with pytest.raises(Killed):
        estimator.fit(X, **params)
    Dies.when = None


class Draws(np.random.RandomState):
    """A random state whose next integer is known."""

    def __init__(self, seed):
        super().__init__()
        self.seed = seed

    def randint(self, *args, **kwargs):
        return self.seed


def files(directory):
    return sorted(path.name for path in directory.iterdir())


def rows_of(estimator):
    """History without times."""
    return [{k: v for k, v in row.items() if k != "dur"} for row in estimator.history_]


def assert_same_fits(one, other, X):
    weights = other.net_.module_.state_dict()
    for name, values in one.net_.module_.state_dict().items():
        assert torch.equal(values, weights[name]), name
    assert rows_of(one) == rows_of(other)
    assert one.n_iter_ == other.n_iter_
    assert_array_equal(one.transform(X), other.transform(X))


# ---- continuing

FORMS = {
    "defaults": {},
    "AdamW": {"optimizer": "adamw"},
    "no validation": {"early_stopping": False},
    "early stop": {"n_iter_no_change": 3, "lr": 0.05, "max_epochs": 8},
    "published loss": {
        "token_ratio": 0.8,
        "random_ratio": 0.5,
        "contrastive_weight": 0.1,
        "stochastic_depth": 0.5,
    },
    "held out": {"heldout_neurons": 3, "forecast_bins": 2},
    "momentum": {"net_params": {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9}},
    "no seed": {"random_state": None},
}


@pytest.mark.parametrize("params", FORMS.values(), ids=FORMS)
def test_a_killed_training_ends_with_the_same_bits(dying, spikes, tmp_path, params):
    params = {"max_epochs": 4} | params
    for hook, epoch in [
        ("epoch begins", 1),
        ("update", 2),
        ("epoch ends", 3),
        ("training ends", 4),
    ]:
        if hook != "training ends" or params["max_epochs"] == 4:  # the other one stops earlier
            die(dying(**params), spikes, hook, epoch)
    continued = dying(**params).fit(spikes)
    assert len(files(tmp_path / "run")) == 1
    whole = dying(**params, checkpoint_dir=None)
    if whole.random_state is None:
        whole.set_params(random_state=Draws(continued.settings_.training.random_state))
    assert_same_fits(continued, whole.fit(spikes), spikes)


def test_epochs_before_the_kill_are_not_trained_again(dying, spikes, monkeypatch):
    die(dying(max_epochs=5), spikes, "update", 4)
    begun = []
    monkeypatch.setattr(
        Dies, "on_epoch_begin", lambda self, net, **kwargs: begun.append(len(net.history))
    )
    dying(max_epochs=5).fit(spikes)
    assert begun == [4, 5]


def test_epochs_of_a_random_part_of_the_windows_continue(dying, spikes, monkeypatch):
    for module in (net, training_settings):
        monkeypatch.setattr(module, "LONGEST_EPOCH", 1)
    params = {"batch_size": 8, "max_epochs": 6}
    whole = dying(**params, checkpoint_dir=None).fit(spikes)
    die(dying(**params), spikes, "update", 5)
    assert_same_fits(dying(**params).fit(spikes), whole, spikes)


def test_further_training_continues(dying, spikes):
    whole = dying(warm_start=True, checkpoint_dir=None).fit(spikes).fit(spikes)
    estimator = dying(warm_start=True).fit(spikes)
    die(estimator, spikes, "update", 3)
    assert estimator.n_iter_ == 3
    again = dying(warm_start=True).fit(spikes)  # as in a new process
    assert again.n_iter_ == 3
    assert_same_fits(again.fit(spikes), whole, spikes)


@pytest.mark.parametrize("hook", ["epoch begins", "update"])
def test_a_training_that_has_diverged_continues(dying, spikes, monkeypatch, hook):
    monkeypatch.setattr(divergence, "UPDATES_BETWEEN", 1)
    params = {"lr": 1e3, "max_epochs": 4}
    with pytest.warns(ConvergenceWarning) as caught:
        whole = dying(**params, checkpoint_dir=None).fit(spikes)
    die(dying(**params), spikes, hook, 3)
    with pytest.warns(ConvergenceWarning) as again:
        continued = dying(**params).fit(spikes)
    assert_same_fits(continued, whole, spikes)
    assert str(again[0].message) == str(caught[0].message)
    with pytest.warns(ConvergenceWarning, match="diverged with lr=1000"):
        dying(**params).fit(spikes)  # read, not trained


def test_ctrl_c_keeps_what_was_written(dying, spikes, monkeypatch):
    whole = dying(max_epochs=5, checkpoint_dir=None).fit(spikes)

    def interrupt(self, name, net):
        if name == "update" and len(net.history) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Dies, "_hook", interrupt)
        with pytest.warns(ConvergenceWarning, match="interrupted in epoch 4"):
            dying(max_epochs=5).fit(spikes)
    assert_same_fits(dying(max_epochs=5).fit(spikes), whole, spikes)


@posix
@pytest.mark.slow
def test_a_process_that_is_killed_leaves_what_it_has_written(small, spikes, tmp_path):
    script = """
import sys
from sklearn_stndt import STNDTEstimator
from sklearn_stndt.datasets import make_reaches
from sklearn_stndt.training import checkpointing
checkpointing.INTERVAL = 0.0
spikes = make_reaches(n_trials=24, n_bins=20, n_neurons=12, random_state=0).spikes.astype(float)
params = {"d_model": 8, "n_heads": 2, "max_epochs": 40, "random_state": 0}
STNDTEstimator(**params, n_iter_no_change=40, checkpoint_dir=sys.argv[1]).fit(spikes)
"""
    directory = tmp_path / "run"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}

    def n_epochs():
        try:
            with zipfile.ZipFile(next(directory.glob("*.zip"))) as archive:
                return json.loads(archive.read("record.json"))["n_epochs"]
        except StopIteration:
            return 0

    with started("-c", script, str(directory), env=environment) as process:
        wait_until(lambda: n_epochs() > 2, process)
        kill(process)
        assert process.wait() == -signal.SIGKILL
    params = {"max_epochs": 40, "n_iter_no_change": 40}
    continued = small(**params, checkpoint_dir=directory).fit(spikes)
    assert_same_fits(continued, small(**params).fit(spikes), spikes)
    assert len(files(directory)) == 1


# ---- which training


def test_a_finished_fit_is_read_and_not_trained_again(dying, spikes, monkeypatch):
    first = dying().fit(spikes)
    monkeypatch.setattr(Dies, "on_train_begin", lambda *args, **kwargs: pytest.fail("trained"))
    again = dying(verbose=1).fit(spikes)
    assert_same_fits(again, first, spikes)
    assert again.history_[0] == first.history_[0]
    assert again.score(spikes) == first.score(spikes)
    assert pickle.loads(pickle.dumps(again)).n_iter_ == 3


def test_other_parameters_or_counts_have_their_own_file(dying, spikes, groups, rows, tmp_path):
    run = tmp_path / "run"
    others = [
        (spikes, {}, {"lr": 0.01}),
        (spikes, {}, {"random_state": 1}),
        (spikes, {}, {"random_state": None}),
        (spikes, {}, {"callbacks": None}),
        (spikes.astype(np.float32), {}, {}),
        (np.minimum(spikes, 2), {}, {}),
        (rows, {}, {"window": 20}),
        (rows, {"groups": groups}, {"window": 20}),
    ]
    first = dying(max_epochs=1).fit(spikes)
    for number, (X, passed, params) in enumerate(others, start=2):
        dying(**({"max_epochs": 1} | params)).fit(X, **passed)
        assert len(files(run)) == number
    assert_same_fits(dying(max_epochs=1).fit(spikes), first, spikes)
    assert len(files(run)) == len(others) + 1


def test_a_search_shares_a_directory(dying, spikes, tmp_path):
    def search(**params):
        cv = KFold(2)
        grid = {"lr": [0.001, 0.01]}
        return GridSearchCV(dying(max_epochs=1, **params), grid, cv=cv).fit(spikes)

    expected = search(checkpoint_dir=None)
    for _ in range(2):  # trained, and then read
        found = search()
        assert_array_equal(
            found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
        )
    assert len(files(tmp_path / "run")) == 2 * 2 + 1


@pytest.mark.parametrize("ensemble_dir", [None, "run"])
def test_members_of_an_ensemble_share_a_directory(dying, spikes, tmp_path, ensemble_dir):
    if ensemble_dir is not None:
        ensemble_dir = tmp_path / ensemble_dir

    def make(**params):
        member = dying(**params)
        return BaggingEnsemble(member, 2, checkpoint_dir=ensemble_dir, random_state=0)

    expected = BaggingEnsemble(dying(checkpoint_dir=None), 2, random_state=0).fit(spikes)
    die(make(), spikes, "update", 2)
    ensemble = make().fit(spikes)
    assert_same_ensembles(ensemble, expected, spikes)
    assert_same_ensembles(make().fit(spikes), expected, spikes)
    assert len(list((tmp_path / "run").glob("training-*.zip"))) == 2


def test_the_same_training_runs_once_at_a_time(dying, spikes):
    class Fit(Dies):
        def on_epoch_begin(self, net, **kwargs):
            dying(callbacks=[Fit()]).fit(spikes)

    with pytest.raises(RuntimeError, match=f"running already, in process {os.getpid()}"):
        dying(callbacks=[Fit()]).fit(spikes)


def test_the_home_directory_may_be_abbreviated(dying, spikes, tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    dying(checkpoint_dir="~/run", max_epochs=1).fit(spikes)
    assert files(tmp_path) == ["run"]


def test_what_cannot_be_a_directory_is_refused(dying, spikes, tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(ValueError, match="is a file"):
        dying().fit(spikes)


def test_replaced_callbacks_are_refused(dying, spikes):
    with pytest.raises(ValueError, match="replaces all callbacks"):
        dying(net_params={"callbacks": []}).fit(spikes)


def test_another_version_is_named(dying, spikes, monkeypatch):
    die(dying(), spikes, "update", 2)
    monkeypatch.setattr(checkpointing, "changed_versions", lambda then: ["torch 1.0 (now 2.0)"])
    with pytest.warns(UserWarning, match=r"begun with torch 1\.0 \(now 2\.0\)"):
        dying().fit(spikes)


# ---- files


def test_files_hold_no_counts(dying, small, spikes, tmp_path):
    die(dying(), spikes, "update", 3)
    (path,) = (tmp_path / "run").iterdir()
    contents = path.read_bytes()
    dying().fit(spikes)
    contents += path.read_bytes()
    for dtype in (np.float64, np.float32, np.uint8):
        assert spikes[0, 3:6].astype(dtype).tobytes() not in contents


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def rewritten(path, change):
    """Change the parts of a zip file."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def change_record(**entries):
    def change(parts):
        parts["record.json"] = json.dumps(json.loads(parts["record.json"]) | entries)

    return change


def change_state(make):
    def change(parts):
        state = torch.load(io.BytesIO(parts["state.pt"]), weights_only=True)
        buffer = io.BytesIO()
        torch.save(make(state), buffer)
        parts["state.pt"] = buffer.getvalue()

    return change


def flip(path):
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 255
    path.write_bytes(contents)


def compressed(path):
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def linked(path):
    shutil.move(path, path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def compressed_within(parts):
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(parts["state.pt"])) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    parts["state.pt"] = packed.getvalue()


def expanded(state):
    """A tensor of one number in the file, and of 16 TiB in memory."""
    large = torch.zeros(1).expand(2**42)
    state["optimizer"]["state"][0]["exp_avg"] = large
    return state


def repeated(state):
    """A list that is 2^60 numbers long when it is copied."""
    values = [0.0]
    for _ in range(60):
        values = [values, values]
    name = next(iter(state["callbacks"]))
    state["callbacks"][name] = ({"more_": values}, {})
    return state


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "flipped byte": flip,
    "no zip": lambda path: path.write_bytes(b"PK\x03\x04 but no zip"),
    "no state": lambda path: rewritten(path, lambda parts: parts.pop("state.pt")),
    "record of another form": lambda path: rewritten(
        path, lambda parts: parts.update({"record.json": "[1, 2]"})
    ),
    "another format": lambda path: rewritten(path, change_record(format=99)),
    "another training": lambda path: rewritten(path, change_record(described={})),
    "no seed": lambda path: rewritten(path, change_record(seed="none")),
    "bomb": lambda path: rewritten(
        path, lambda parts: parts.update({"state.pt": pickle.dumps(Bomb())})
    ),
    "bomb of torch": lambda path: rewritten(path, change_state(lambda state: Bomb())),
    "state of another form": lambda path: rewritten(path, change_state(lambda state: [state])),
    "other weights": lambda path: rewritten(
        path, change_state(lambda state: state | {"module": {"weight": torch.ones(3)}})
    ),
    "other optimizer": lambda path: rewritten(
        path, change_state(lambda state: state | {"optimizer": {"param_groups": []}})
    ),
    "compressed": compressed,
    "compressed within": lambda path: rewritten(path, compressed_within),
    "expanded tensor": lambda path: rewritten(path, change_state(expanded)),
    "repeated list": lambda path: rewritten(path, change_state(repeated)),
    "function of torch": lambda path: rewritten(path, change_state(lambda state: torch.Size([3]))),
    "link": pytest.param(linked, marks=posix),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_said_and_the_network_trained_again(dying, spikes, tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    die(dying(), spikes, "update", 3)
    (path,) = (tmp_path / "run").iterdir()
    damage(path)
    with pytest.warns(UserWarning, match=r"training-.*\.zip is damaged and is not used"):
        again = dying().fit(spikes)
    assert not (tmp_path / "exploded").exists()
    assert_same_fits(again, dying(checkpoint_dir=None).fit(spikes), spikes)
    assert files(tmp_path / "run") == [path.name]
    assert not path.is_symlink()


def test_a_damaged_finished_fit_is_trained_again(dying, spikes, tmp_path):
    first = dying().fit(spikes)
    (path,) = (tmp_path / "run").iterdir()
    rewritten(path, change_state(lambda state: state | {"module": {}}))
    with pytest.warns(UserWarning, match=r"training-.*\.zip is damaged"):
        assert_same_fits(dying().fit(spikes), first, spikes)


def fail_to_write(monkeypatch, n_written):
    """Let files be written this many times before the disk is full."""
    write, done = checkpointing.write_atomically, []

    def write_or_fail(path, write_to):
        done.append(path)
        if len(done) <= n_written:
            return write(path, write_to)

        def fail(file):
            file.write(b"half a")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return write(path, fail)

    monkeypatch.setattr(checkpointing, "write_atomically", write_or_fail)


def test_a_disk_that_cannot_be_written_is_an_error_before_training(
    dying, spikes, tmp_path, monkeypatch
):
    monkeypatch.setattr(Dies, "on_batch_end", lambda *args, **kwargs: pytest.fail("trained"))
    estimator = dying()
    with monkeypatch.context() as patch:
        fail_to_write(patch, 0)
        with pytest.raises(OSError, match=r"No space left.*nothing was written.*training-"):
            estimator.fit(spikes)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OSError, match="too little space for a checkpoint"):
        estimator.fit(spikes)
    assert not hasattr(estimator, "net_")
    assert files(tmp_path / "run") == []


@pytest.mark.parametrize("n_written", [2, 4])
def test_a_disk_that_fills_up_ends_no_training(dying, spikes, tmp_path, monkeypatch, n_written):
    whole = dying(max_epochs=4, checkpoint_dir=None).fit(spikes)
    with monkeypatch.context() as patch:
        fail_to_write(patch, n_written)
        with pytest.warns(UserWarning, match=r"not written\. .*No space left.*training-"):
            fitted = dying(max_epochs=4).fit(spikes)
    assert_same_fits(fitted, whole, spikes)
    assert len(files(tmp_path / "run")) == 1
    # what was written before is complete
    assert_same_fits(dying(max_epochs=4).fit(spikes), whole, spikes)


def test_a_finished_fit_is_read_from_a_disk_that_cannot_be_written(
    dying, spikes, tmp_path, monkeypatch
):
    first = dying().fit(spikes)
    real = open

    def read_only(path, mode="r", *args, **kwargs):
        if str(path).startswith(str(tmp_path)) and set(mode) & set("wax+"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, mode, *args, **kwargs)

    monkeypatch.setattr("builtins.open", read_only)
    assert_same_fits(dying().fit(spikes), first, spikes)
    with pytest.raises(OSError, match="Read-only file system"):
        dying(lr=0.01).fit(spikes)


def test_a_folder_in_place_of_the_file_is_an_error(dying, spikes, tmp_path):
    die(dying(), spikes, "update", 1)
    (path,) = (tmp_path / "run").iterdir()
    path.unlink()
    path.mkdir()
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(OSError, match=r"nothing was written.*training-.*\.zip"),
    ):
        dying().fit(spikes)


def test_leftovers_of_a_kill_are_removed(dying, spikes, tmp_path):
    die(dying(), spikes, "update", 2)
    (path,) = (tmp_path / "run").iterdir()
    path.with_name(f"{path.name}.0123.partial").write_bytes(b"half a")
    path.with_suffix(".lock").touch()
    dying().fit(spikes)
    assert files(tmp_path / "run") == [path.name]


def test_checkpoints_are_written_at_most_every_few_seconds(dying, spikes, monkeypatch):
    monkeypatch.setattr(checkpointing, "INTERVAL", 3600.0)
    written = []
    write = checkpointing.TrainingCheckpoint.write
    monkeypatch.setattr(
        checkpointing.TrainingCheckpoint,
        "write",
        lambda self, state, finished: (
            written.append((len(state["history"]), finished)),
            write(self, state, finished=finished),
        ),
    )
    dying(max_epochs=5).fit(spikes)
    assert written == [(0, False), (5, True)]


@pytest.mark.parametrize("epoch", [2, 7])
def test_an_adaptation_that_dies_with_a_fixed_or_a_free_core_continues(dying, small, spikes, epoch):
    start = small().fit(spikes)
    few = spikes[:8, :, :7]
    adaptation = {"pretrained": start, "max_epochs": 10}  # the core is fixed in the first 2
    dying_one = dying(**adaptation)
    die(dying_one, few, "update", epoch)
    dying_one.fit(few)
    whole = small(callbacks=[Dies()], **adaptation).fit(few)
    assert_same_fits(dying_one, whole, few)
    weights = core_parameters(dying_one.net_.module_)
    assert all(weight.requires_grad for weight in weights)


def test_a_start_from_another_core_has_another_file(small, spikes, tmp_path):
    few = spikes[:8, :, :7]
    starts = [small(random_state=seed).fit(spikes) for seed in (0, 1)]
    for start in (*starts, pickle.loads(pickle.dumps(starts[0]))):
        small(pretrained=FrozenEstimator(start), checkpoint_dir=tmp_path, max_epochs=1).fit(few)
    assert len(files(tmp_path)) == 2
