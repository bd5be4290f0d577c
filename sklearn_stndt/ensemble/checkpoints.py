"""A directory of finished members: complete files of a single run, for one process at a time."""

import io
import json
import os
import pickle
import secrets
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sklearn_stndt._files import PARTIAL, locked, make_directory, write_atomically
from sklearn_stndt._fingerprints import changed_versions, versions
from sklearn_stndt.ensemble.plans import Plan
from sklearn_stndt.persistence.archive import (
    Archive,
    ArchiveWriter,
    ModelFileError,
    write_archive,
)
from sklearn_stndt.persistence.extras import extra
from sklearn_stndt.persistence.files import read_model, write_model
from sklearn_stndt.persistence.registry import register
from sklearn_stndt.persistence.values import MODEL

try:
    import cloudpickle
except ImportError:  # joblib up to 1.5 contains a copy
    from joblib.externals import cloudpickle

MANIFEST, LOCK, COUNTS = "manifest.json", "lock", "counts.npy"
NUMBERS = ("score", "fit_time", "score_time")  # in the record of a member; None if unknown
RECORD, PICKLE = "record.json", "member.pickle"
_BEGUN = ".begun"
_FORMAT = 2


class MemberFile:
    """A finished member on disk: its record, its arrays and the fitted estimator, in one file.

    A pickle of this object contains the estimator and no longer needs the file.

    Parameters
    ----------
    path : Path
        The file, which need not exist yet.
    pickled : bool
        Whether the estimator is a pickle, because `save` cannot hold it. If not, no pickle is
        loaded, whatever the file holds.
    """

    def __init__(self, path: Path, pickled: bool):
        self.path = path
        self.pickled = pickled
        self._content: bytes | None = None

    def write(self, record: dict[str, Any], member: Any, arrays: dict[str, NDArray]) -> None:
        """Write everything about a member in one step."""

        def fill(writer: ArchiveWriter) -> dict[str, Any]:
            writer.add_json(RECORD, record)
            for name, values in arrays.items():
                writer.add_array(f"{name}.npy", values)
            if not self.pickled:
                return write_model(writer, member)
            # cloudpickle also pickles classes defined in a script or a notebook
            writer.add(PICKLE, cloudpickle.dumps(member))
            return {"versions": versions()}

        write_archive(self.path, fill)

    def read_record(self, expected: dict[str, Any]) -> dict[str, Any]:
        """Read the record of the member, and check the whole file.

        Parameters
        ----------
        expected : dict
            Items that the record of this member has.

        Raises
        ------
        ModelFileError
            If the file is damaged, or is that of another member.
        """
        with Archive(self.path, remedy="Its member is trained again.") as archive:
            archive.check()
            record = archive.read_json(RECORD)
            if not _is_record(record):
                raise archive.damaged(f"its {RECORD} does not describe a member")
            for name, value in expected.items():
                if record[name] != value:
                    raise archive.damaged(
                        f"it is the file of another member, with {name} {record[name]}, not {value}"
                    )
            if not self.pickled and MODEL not in archive.names:
                raise archive.damaged("it holds a pickle, which is not loaded")
            if self.pickled and PICKLE not in archive.names:
                extra("safetensors")  # an error names the extra
                raise archive.damaged("it holds no pickle")
        return record

    def load_array(self, name: str, trials: str) -> NDArray | None:
        """Load an array of the member.

        Parameters
        ----------
        name : str
        trials : str
            Description of the trials that the array has to be of.

        Returns
        -------
        ndarray or None
            None if there is none of these trials.
        """
        if self._content is not None:
            return None
        with Archive(self.path) as archive:
            if f"{name}.npy" not in archive.names:
                return None
            if archive.read_json(RECORD)["evaluated"] != trials:
                return None
            return archive.read_array(f"{name}.npy")

    def load(self) -> Any:
        """Load the fitted estimator."""
        with self._open() as archive:
            if self.pickled:
                return pickle.loads(archive.read(PICKLE))
            return read_model(archive, trusted=True)

    def _open(self) -> Archive:
        if self._content is not None:
            return Archive(io.BytesIO(self._content), name="The pickle of the ensemble")
        try:
            return Archive(self.path)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"The file of an ensemble member, {self.path}, is missing. With checkpoint_dir, "
                "members stay on disk: put the directory back, or fit again."
            ) from error

    def __getstate__(self):
        content = self._content
        if content is None:
            with self._open() as archive:
                arrays = {name for name in archive.names if name.endswith(".npy")}
                content = archive.copy(archive.names - arrays - {RECORD})
        return {"path": self.path, "pickled": self.pickled, "_content": content}


register(MemberFile, instead=MemberFile.load)


@register
class StoredMembers(Sequence):
    """Fitted members, each loaded from its file whenever it is accessed."""

    def __init__(self, members: list[Any]):
        self._members = members  # files, or estimators without a file

    def __len__(self):
        return len(self._members)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        member = self._members[index]
        return member.load() if isinstance(member, MemberFile) else member

    def __repr__(self):
        return f"<{len(self)} members on disk>"


class CheckpointDirectory:
    """Finished members of one run.

    Parameters
    ----------
    path : str or PathLike
        The directory.

    Attributes
    ----------
    path : Path
        Absolute.
    read_only : OSError or None
        Why nothing can be written to the directory.
    outdated : bool
        Whether its members were written by an older version, and are not read.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path).expanduser().absolute()
        self.read_only: OSError | None = None
        self.outdated = False

    def file(self, plan: Plan) -> MemberFile:
        """File of a member, which need not exist yet."""
        return MemberFile(self.path / f"member-{plan.index:05d}.zip", plan.pickled)

    def begin(self, index: int) -> int:
        """Record that a worker starts a member; return how often it was started before."""
        path = self._begun(index)
        with open(path, "ab") as file:
            n_before = file.seek(0, os.SEEK_END)
            file.write(b".")
        return n_before

    def end(self, index: int) -> None:
        """Record that a worker is done with a member, successfully or not."""
        self._begun(index).unlink(missing_ok=True)

    def _begun(self, index: int) -> Path:
        return self.path / f"member-{index:05d}{_BEGUN}"

    def open(self, seeded: bool) -> dict[str, Any] | None:
        """Read the manifest of the directory, and delete incomplete files.

        Parameters
        ----------
        seeded : bool
            Whether the seeds of the members are known without the manifest.

        Returns
        -------
        dict or None
            Description of the run; None if the directory is new, or if its manifest is damaged.
        """
        if self.read_only is None:
            # those of other names may be a training's, which has a lock of its own
            names = ("member-*", MANIFEST + "*")
            patterns = (*(name + PARTIAL for name in names), f"*{_BEGUN}", COUNTS)
            for leftover in [path for p in patterns for path in self.path.glob(p)]:
                leftover.unlink(missing_ok=True)
        path = self.path / MANIFEST
        manifest: Any = None
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            others = sorted(p.name for p in self.path.iterdir() if p.name != LOCK)
            if others:
                raise ValueError(
                    f"checkpoint_dir={str(self.path)!r} has no {MANIFEST} and holds other files: "
                    f"{', '.join(others[:3])}. Pass an empty directory, or a new one."
                ) from None
            return None
        except OSError as error:
            raise ValueError(
                f"{path} cannot be read: {error.strerror}. Pass another checkpoint_dir."
            ) from error
        except (ValueError, RecursionError):
            pass
        if not _is_manifest(manifest):
            if not seeded:
                raise ValueError(
                    f"{path} is damaged, and without a random_state only this file has the seeds "
                    "of the members. Pass another checkpoint_dir."
                )
            warnings.warn(
                f"{path} is damaged and is written again. Members in the directory are used if "
                "they are of the same parameters and data.",
                stacklevel=6,
            )
            return None
        if manifest["format"] > _FORMAT:
            raise ValueError(
                f"checkpoint_dir={str(self.path)!r} was written in format {manifest['format']}, "
                f"and this version reads format {_FORMAT}. Pass another directory."
            )
        if manifest["format"] < _FORMAT:
            self.outdated = True
            warnings.warn(
                f"checkpoint_dir={str(self.path)!r} was written by an older version of "
                "sklearn_stndt, whose members are not read: they are trained again, and replaced.",
                stacklevel=6,
            )
            return manifest["run"]
        changed = changed_versions(manifest["versions"])
        if changed:
            warnings.warn(
                f"Members in {str(self.path)!r} were trained with {', '.join(changed)}. New ones "
                "are added, but the ensemble is not bit-identical to one trained with one version.",
                stacklevel=6,
            )
        return manifest["run"]

    def describe(self, run: dict[str, Any]) -> None:
        """Write the manifest, which distinguishes this run from others."""
        manifest = {"format": _FORMAT, "versions": versions(), "run": run}
        text = json.dumps(manifest, indent=1).encode()
        write_atomically(self.path / MANIFEST, lambda file: file.write(text))

    def finished(self, plans: list[Plan]) -> dict[int, tuple[MemberFile, dict[str, Any]]]:
        """Find the files of finished members and their records, by index."""
        found: dict[int, tuple[MemberFile, dict[str, Any]]] = {}
        for plan in plans:
            file = self.file(plan)
            if self.outdated or not file.path.exists():
                continue
            try:
                found[plan.index] = file, file.read_record(plan.identity)
            except ModelFileError as error:
                if file.path.is_dir() and self.read_only is None:  # a file cannot replace it
                    file.path.rename(file.path.with_suffix(f".damaged-{secrets.token_hex(4)}"))
                warnings.warn(str(error), stacklevel=7)
        return found

    def check_writable(self, missing: list[Plan]) -> None:
        """Raise an error before members are trained that could not be written."""
        if self.read_only is not None:
            indices = ", ".join(str(plan.index) for plan in missing[:5])
            raise OSError(
                self.read_only.errno,
                f"{self.read_only.strerror}, and it lacks {len(missing)} members (of index "
                f"{indices}{', ...' if len(missing) > 5 else ''}). Pass a checkpoint_dir that can "
                "be written to",
                str(self.path),
            )

    def remove_counts(self) -> None:
        """Remove the counts that workers have read."""
        if self.read_only is None:
            (self.path / COUNTS).unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock out other processes and threads, at most until this process ends."""
        make_directory(self.path)
        with locked(self.path / LOCK, self._in_use) as self.read_only:
            if self.read_only is not None and not (self.path / MANIFEST).exists():
                raise self.read_only
            yield

    def _in_use(self, holder: str) -> RuntimeError:
        return RuntimeError(
            f"checkpoint_dir={str(self.path)!r} is in use by {holder}. Wait for it, or pass "
            "another directory."
        )


def _is_manifest(found: Any) -> bool:
    """Whether JSON has the form of a manifest."""
    if not isinstance(found, dict) or type(found.get("format")) is not int:
        return False
    if found["format"] > _FORMAT:
        return True  # of a form that is not known here
    run = found.get("run")
    return (
        _are_texts(found.get("versions"))
        and isinstance(run, dict)
        and run.keys() == {"data", "heldout_neurons", "seeds"}
        and _are_texts(run["data"])
        and _are_numbers(run["heldout_neurons"])
        and _are_numbers(run["seeds"])
    )


def _is_record(found: Any) -> bool:
    """Whether JSON has the form of the record of a member."""
    return (
        isinstance(found, dict)
        and found.keys() >= {"recording", "evaluated"}
        and _are_numbers([found.get("index"), found.get("seed")])
        and _are_texts(found.get("described"))
        and all(isinstance(found.get(n, ""), Real | None) for n in NUMBERS)
    )


def _are_texts(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(text, str) for text in found.values())


def _are_numbers(found: Any) -> bool:
    """Whether JSON is a list of numbers that may be seeds or indices."""
    return isinstance(found, list) and all(type(n) is int and 0 <= n < 2**32 for n in found)
