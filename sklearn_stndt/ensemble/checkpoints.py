"""A directory of finished members: complete files of a single run, for one process at a time."""

import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sklearn_stndt._files import PARTIAL, locked, make_directory, write_atomically
from sklearn_stndt._fingerprints import changed_versions, versions

try:
    import cloudpickle
except ImportError:  # joblib up to 1.5 contains a copy
    from joblib.externals import cloudpickle

MANIFEST, LOCK, COUNTS = "manifest.json", "lock", "counts.npy"
_BEGUN = ".begun"
_FORMAT = 1


class MemberFile:
    """A finished member on disk: its record, its arrays and the fitted estimator, in one file.

    A pickle of this object contains the estimator and no longer needs the file.
    """

    def __init__(self, path: Path):
        self.path = path
        self._pickled: bytes | None = None

    def write(self, record: dict[str, Any], member: Any, arrays: dict[str, NDArray]) -> None:
        """Write everything about a member in one step."""

        def write(file: IO[bytes]) -> None:
            with zipfile.ZipFile(file, "w") as archive:  # with a checksum of each part
                archive.writestr("record.json", json.dumps(record, indent=1))
                # cloudpickle also pickles classes defined in a script or a notebook
                archive.writestr("member.pickle", cloudpickle.dumps(member))
                for name, values in arrays.items():
                    buffer = io.BytesIO()
                    np.save(buffer, values, allow_pickle=False)
                    archive.writestr(f"{name}.npy", buffer.getvalue())

        write_atomically(self.path, write)

    def read_record(self) -> dict[str, Any] | None:
        """Read the record of the member; None if the file is damaged."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                if archive.testzip() is None:
                    return json.loads(archive.read("record.json"))
        except (zipfile.BadZipFile, KeyError, ValueError, EOFError):
            pass
        return None

    def load_array(self, name: str) -> NDArray | None:
        """Load an array by its name; None if it was not written."""
        if self._pickled is not None:
            return None
        with zipfile.ZipFile(self.path) as archive:
            if f"{name}.npy" not in archive.namelist():
                return None
            return np.load(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)

    def load(self) -> Any:
        """Load the fitted estimator."""
        return pickle.loads(self._member_bytes())

    def _member_bytes(self) -> bytes:
        if self._pickled is not None:
            return self._pickled
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read("member.pickle")
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"The file of an ensemble member, {self.path}, is missing. With checkpoint_dir, "
                "members stay on disk: put the directory back, or fit again."
            ) from error

    def __getstate__(self):
        return {"path": self.path, "_pickled": self._member_bytes()}


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
    """Finished members of one run."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path).expanduser().absolute()

    def file(self, index: int) -> MemberFile:
        """File of a member, which need not exist yet."""
        return MemberFile(self.path / f"member-{index:05d}.zip")

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

    def open(self) -> dict[str, Any] | None:
        """Read the manifest of the directory, and delete incomplete files.

        Returns
        -------
        dict or None
            Description of the run; None if the directory is new.
        """
        for leftover in [*self.path.glob(f"*{PARTIAL}"), *self.path.glob(f"*{_BEGUN}")]:
            leftover.unlink(missing_ok=True)
        try:
            manifest = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError:
            others = sorted(p.name for p in self.path.iterdir() if p.name != LOCK)
            if others:
                raise ValueError(
                    f"checkpoint_dir={str(self.path)!r} has no {MANIFEST} and holds other files: "
                    f"{', '.join(others[:3])}. Pass an empty directory, or a new one."
                ) from None
            return None
        except ValueError as error:
            raise ValueError(
                f"{self.path / MANIFEST} cannot be read: {error}. Pass another checkpoint_dir."
            ) from error
        if manifest["format"] != _FORMAT:
            raise ValueError(
                f"checkpoint_dir={str(self.path)!r} was written in format {manifest['format']}, "
                f"and this version reads format {_FORMAT}. Pass another directory."
            )
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

    def finished(self) -> dict[int, tuple[MemberFile, dict[str, Any]]]:
        """Find the files of finished members and their records, by index."""
        found = {}
        for path in sorted(self.path.glob("member-*.zip")):
            file = MemberFile(path)
            record = file.read_record()
            if record is None:
                warnings.warn(
                    f"{path} is damaged and is not used: its member is trained again.",
                    stacklevel=7,
                )
                continue
            found[record["index"]] = file, record
        return found

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock out other processes and threads, at most until this process ends."""
        make_directory(self.path)
        with locked(self.path / LOCK, self._in_use):
            yield

    def _in_use(self, holder: str) -> RuntimeError:
        return RuntimeError(
            f"checkpoint_dir={str(self.path)!r} is in use by {holder}. Wait for it, or pass "
            "another directory."
        )
