"""Checkpoints of a training: after a kill it continues, and ends with the same bits."""

import hashlib
import io
import json
import pickletools
import shutil
import time
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ENOSPC
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNet
from skorch.callbacks import Callback

from sklearn_stndt._files import PARTIAL, locked, make_directory, write_atomically
from sklearn_stndt._fingerprints import (
    changed_versions,
    describe_estimator,
    fingerprint,
    versions,
)
from sklearn_stndt.training.state import capture, plain, restore

INTERVAL = 2.0  # seconds from one checkpoint to the next, at least
WRITING_SHARE = 0.02  # largest share of the time that is spent on writing
PATIENCE = 5.0  # seconds to wait for another process that may be about to end
_LARGEST = 10  # size of a checkpoint, at most, in sizes of the network
_FORMAT = 1
_RECORD, _STATE = "record.json", "state.pt"
# all that a state of tensors and plain values names in the pickle within the format of torch
_NAMED = ("collections OrderedDict", "torch._utils _rebuild_tensor_v2")


class DamagedCheckpointError(ValueError):
    """A checkpoint does not hold what it should."""


class TrainingCheckpoint:
    """File of one training: of one set of parameters on one set of counts.

    The file is a zip archive with checksums: a record in JSON, and numbers and tensors, which are
    read without executing anything. It holds no counts.

    Parameters
    ----------
    directory : Path
        Directory of the file. Other trainings have other files in it.
    described : dict of str
        Everything that determines the result, the same in every process.
    seed : int
        Seed of the training.

    Attributes
    ----------
    path : Path
        The file.
    seed : int
        As given, or, if `described` does not determine it, that of the training in the file.
    finished : bool
        Whether the training in the file has ended.
    state : dict or None
        State of the training in the file; None: there is none.
    """

    def __init__(self, directory: Path, described: dict[str, str], seed: int):
        text = json.dumps(described, sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        self.path = directory / f"training-{digest}.zip"
        self.described = described
        self.seed = seed
        self.finished = False
        self.state: dict[str, Any] | None = None

    def next(self) -> "TrainingCheckpoint":
        """Checkpoint of the training on all windows that follows this one."""
        described = self.described | {"training": "on all windows"}
        return TrainingCheckpoint(self.path.parent, described, self.seed)

    @contextmanager
    def opened(self) -> Iterator["TrainingCheckpoint"]:
        """Read the file, and lock out other processes.

        Raises
        ------
        RuntimeError
            If another process is at the same training.
        """
        make_directory(self.path.parent)
        lock = self.path.with_suffix(".lock")
        with locked(lock, self._in_use, PATIENCE):
            try:
                for leftover in self.path.parent.glob(f"{self.path.name}*{PARTIAL}"):
                    leftover.unlink(missing_ok=True)
                self._read()
                yield self
            finally:
                with suppress(OSError):  # a disk that cannot be written
                    lock.unlink(missing_ok=True)

    def _in_use(self, holder: str) -> RuntimeError:
        return RuntimeError(
            f"The same training is running already, in {holder}, and writes {self.path}. Wait for "
            "it, or pass another checkpoint_dir."
        )

    def _read(self) -> None:
        if not self.path.exists() and not self.path.is_symlink():
            return
        try:
            record, self.state = _contents(self.path)
            if record["format"] != _FORMAT:
                raise DamagedCheckpointError(f"its format is {record['format']}, not {_FORMAT}")
            if record["described"] != self.described:
                raise DamagedCheckpointError("it is the file of another training")
            self.seed, self.finished = int(record["seed"]), bool(record["finished"])
            changed = changed_versions(record["versions"])
        except Exception as error:
            self.discard(error)
            return
        if changed:
            warnings.warn(
                f"The training in {self.path} was begun with {', '.join(changed)}. The result is "
                "not bit-identical to that of one version.",
                stacklevel=7,
            )

    def discard(self, reason: Exception) -> None:
        """Warn that the file is not used."""
        self.state, self.finished = None, False
        text = str(reason).partition("\n")[0]
        warnings.warn(
            f"{self.path} is damaged and is not used, the network is trained from the start: "
            f"{type(reason).__name__}: {text}",
            stacklevel=8,
        )

    def write(self, state: dict[str, Any], *, finished: bool) -> None:
        """Replace the file in one step."""
        record = {
            "format": _FORMAT,
            "versions": versions(),
            "described": self.described,
            "seed": self.seed,
            "finished": finished,
            "n_epochs": len(state["history"]),
        }

        def write(file: IO[bytes]) -> None:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(_RECORD, json.dumps(record, indent=1))
                buffer = io.BytesIO()
                torch.save(state, buffer)
                archive.writestr(_STATE, buffer.getbuffer())

        write_atomically(self.path, write)

    def finish(self, net: NeuralNet) -> None:
        """Write the trained network, from which `restore_finished` restores it."""
        state = {
            "module": plain(net.module_.state_dict()),
            "history": plain(net.history.to_list()),
            "diverged": net.diverged_,
        }
        try:
            self.write(state, finished=True)
        except OSError as error:
            _warn_unwritten(error, "The fit is complete, but a later one has to train again.")

    def restore_finished(self, net: NeuralNet) -> None:
        """Restore a trained network.

        Raises
        ------
        DamagedCheckpointError
            If the state in the file is not that of this network.
        """
        assert self.state is not None
        try:
            net.module_.load_state_dict(self.state["module"])
            net.history[:] = self.state["history"]
            net.interrupted_, net.diverged_ = False, str(self.state["diverged"])
        except Exception as error:
            raise DamagedCheckpointError(str(error)) from error


class Checkpointing(Callback):
    """Writes the state of a training after epochs, and continues from it.

    Parameters
    ----------
    checkpoint : TrainingCheckpoint
        The file.
    """

    def __init__(self, checkpoint: TrainingCheckpoint):
        self.checkpoint = checkpoint
        self._next: float | None = None  # when to write; None: now, for the first time
        self._failed = False

    def resume(self, net: NeuralNet) -> None:
        """Restore the state in the file, if there is any.

        Raises
        ------
        DamagedCheckpointError
            If the state in the file is not that of this network.
        """
        state = self.checkpoint.state
        if state is None:
            return
        try:
            restore(net, state)
            _restore_optimizer(net, state["optimizer"])
            net.history[:] = state["history"]
        except Exception as error:
            raise DamagedCheckpointError(str(error)) from error
        self.checkpoint.state = None  # frees its memory

    def on_epoch_begin(self, net, **kwargs):
        if self._next is not None and time.monotonic() < self._next:
            return
        begun = time.monotonic()
        state = capture(net, without=self)
        state["optimizer"] = plain(net.optimizer_.state_dict())
        state["history"] = plain(net.history.to_list()[:-1])
        if self._next is None:  # an error, before work is lost
            _check_space(net, self.checkpoint.path)
            self.checkpoint.write(state, finished=False)
        else:
            try:
                self.checkpoint.write(state, finished=False)
            except OSError as error:
                if not self._failed:
                    kept = "Training goes on, but after a kill it continues from an earlier epoch."
                    _warn_unwritten(error, kept)
                self._failed = True
        ended = time.monotonic()
        self._next = ended + max(INTERVAL, (ended - begun) / WRITING_SHARE)


def open_checkpoint(
    estimator: Any,
    counts: NDArray,
    groups: NDArray | None,
    device: str,
    seed: int,
    previous: NeuralNet | None,
    core: Any = None,
    rates: NDArray | None = None,
) -> TrainingCheckpoint | None:
    """Find the file of a training; None if the estimator has no `checkpoint_dir`.

    Parameters
    ----------
    estimator : STNDTEstimator
        Its parameters.
    counts : ndarray
        The counts.
    groups : ndarray or None
        Trials of their rows.
    device : str
        Device of the training.
    seed : int
        The seed. Without a `random_state`, that of the training in the file is used instead.
    previous : NeuralNet or None
        Net whose weights are trained further.
    core : STNDTEstimator, default=None
        Fitted estimator whose core is the start; `pretrained` is described by it.
    rates : ndarray, default=None
        Rates to be learned in place of the counts.

    Raises
    ------
    ValueError
        If `net_params` replace the callback that writes the file.
    """
    if estimator.checkpoint_dir is None:
        return None
    if "callbacks" in (estimator.net_params or {}):
        raise ValueError(
            "net_params replaces all callbacks, also the one that writes to checkpoint_dir. Pass "
            "further callbacks by the parameter callbacks, or checkpoint_dir=None."
        )
    described = describe_estimator(estimator)
    del described["random_state"]  # described by the seed
    described = {k: v for k, v in described.items() if k.partition("__")[0] != "pretrained"}
    if core is not None:
        described["pretrained"] = f"{core.settings_.network} {_hash_of_weights(core.net_)}"
    described |= {
        "X": fingerprint(counts),
        "groups": fingerprint(groups),
        "device": device,
        "seed": "drawn" if estimator.random_state is None else str(seed),
        "trained further": "None" if previous is None else _hash_of_weights(previous),
    }
    if rates is not None:
        described["rates"] = fingerprint(rates)
    directory = Path(estimator.checkpoint_dir).expanduser().absolute()
    return TrainingCheckpoint(directory, described, seed)


def _hash_of_weights(net: NeuralNet) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, values in net.module_.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(values.cpu().numpy()).data)
    return digest.hexdigest()


def _contents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the record and the state of a checkpoint; any error means that it is damaged."""
    if path.is_symlink() or not path.is_file():
        raise DamagedCheckpointError("it is not a file")
    with zipfile.ZipFile(path) as archive:
        parts = {part.filename: part for part in archive.infolist()}
        for name in (_RECORD, _STATE):
            # never larger than the file itself
            if parts[name].compress_type != zipfile.ZIP_STORED:
                raise DamagedCheckpointError(f"{name} is compressed")
        record = json.loads(archive.read(_RECORD))  # read compares checksums
        content = archive.read(_STATE)
    _check_parts(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of files that torch did not write, before it refuses them
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    _check_sizes(state, len(content))
    return record, state


def _check_parts(content: bytes) -> None:
    """Refuse a state that would take more memory than its file when torch reads it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for part in archive.infolist():
            if part.compress_type != zipfile.ZIP_STORED:
                raise DamagedCheckpointError(f"{part.filename} in {_STATE} is compressed")
            if not part.filename.endswith(".pkl"):
                continue
            for operation, name, _ in pickletools.genops(archive.read(part)):
                is_storage = str(name).startswith("torch ") and str(name).endswith("Storage")
                if operation.name == "STACK_GLOBAL" or (
                    operation.name == "GLOBAL" and name not in _NAMED and not is_storage
                ):
                    raise DamagedCheckpointError(f"{_STATE} names {name}")


def _check_sizes(state: Any, n_bytes: int) -> None:
    """Refuse a state that is larger than its file, because parts of it are used repeatedly."""
    seen: set[int] = set()
    values, total = [state], 0
    while values:
        value = values.pop()
        if isinstance(value, torch.Tensor):
            total += value.numel() * value.element_size()
        elif isinstance(value, dict | list | tuple) and value:
            if id(value) in seen:
                raise DamagedCheckpointError(f"{_STATE} has one container in several places")
            seen.add(id(value))
            values.extend(value.values() if isinstance(value, dict) else value)
        if total > n_bytes:
            raise DamagedCheckpointError(f"{_STATE} holds more than its {n_bytes} bytes")


def _restore_optimizer(net: NeuralNet, state: dict[str, Any]) -> None:
    """Set the state of the optimizer; what is not in it keeps its value."""
    groups = zip(net.optimizer_.state_dict()["param_groups"], state["param_groups"], strict=True)
    state = state | {"param_groups": [now | then for now, then in groups]}
    net.optimizer_.load_state_dict(state)


def _check_space(net: NeuralNet, path: Path) -> None:
    """Refuse a disk on which later checkpoints will not fit."""
    weights = sum(t.nbytes for t in net.module_.state_dict().values())
    needed, free = 2 * _LARGEST * weights, shutil.disk_usage(path.parent).free
    if free < needed:
        raise OSError(
            ENOSPC,
            f"has too little space for a checkpoint: about {needed / 2**20:.0f} MiB are needed, "
            f"{free / 2**20:.0f} MiB are free",
            str(path.parent),
        )


def _warn_unwritten(error: OSError, consequence: str) -> None:
    warnings.warn(f"A checkpoint was not written. {consequence} {error}", stacklevel=2)
