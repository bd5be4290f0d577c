"""A zip file of parts, each with a checksum in a manifest, that is read without trust."""

import hashlib
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sklearn_stndt._files import write_atomically

MANIFEST = "manifest.json"
FORMAT = 1
WHAT = "sklearn_stndt model"

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # date of every part: equal content gives equal bytes
_LARGEST_MANIFEST = 1 << 26  # bytes


class ModelFileError(ValueError):
    """A file that is not what it should be: truncated, altered, or of another kind."""


class ArchiveWriter:
    """Adds parts to an open archive.

    Parameters
    ----------
    archive : ZipFile
        Open for writing, without compression.
    """

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self._parts: dict[str, dict[str, Any]] = {}

    def add(self, name: str, content: bytes) -> None:
        """Add a part."""
        self._parts[name] = {"bytes": len(content), "blake2b": checksum(content)}
        self._write(name, content)

    def add_json(self, name: str, content: Any) -> None:
        """Add a part in JSON, on one line because large models have large ones."""
        self.add(name, json.dumps(content, allow_nan=False).encode())

    def add_array(self, name: str, values: NDArray) -> None:
        """Add a part in numpy's format."""
        buffer = io.BytesIO()
        np.save(buffer, values, allow_pickle=False)
        self.add(name, buffer.getvalue())

    def finish(self, about: dict[str, Any]) -> None:
        """Add the manifest: format, what `about` says, and the checksums of all parts."""
        manifest = {"what": WHAT, "format": FORMAT, **about, "parts": self._parts}
        self._write(MANIFEST, json.dumps(manifest, indent=1, allow_nan=False).encode())

    def _write(self, name: str, content: bytes) -> None:
        entry = zipfile.ZipInfo(name, _EARLIEST)
        entry.external_attr = 0o644 << 16
        self._archive.writestr(entry, content)


def write_archive(path: Path, fill: Callable[[ArchiveWriter], dict[str, Any]]) -> None:
    """Write an archive so that it is complete on disk, or does not exist.

    Parameters
    ----------
    path : Path
        File to write or to replace.
    fill : callable
        Adds the parts, and returns what the manifest shall say about them.
    """
    write_atomically(path, lambda file: write_parts(file, fill))


def write_parts(file: IO[bytes], fill: Callable[[ArchiveWriter], dict[str, Any]]) -> None:
    """Write an archive into an open file, as `write_archive` does."""
    # without compression, no part can be larger in memory than it is in the file
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        writer = ArchiveWriter(archive)
        writer.finish(fill(writer))


class Archive:
    """An archive that is open for reading; nothing in it is trusted.

    Parameters
    ----------
    file : Path or binary file
        The archive.
    name : str, default=None
        Name of the file in errors; None: the path.
    remedy : str
        What an error says after its reason.

    Attributes
    ----------
    manifest : dict
        Format, what was said about the parts, and the parts.
    names : set of str
        Names of the parts.

    Raises
    ------
    ModelFileError
        If the file is not an archive of this kind, is truncated or altered, or is of a newer
        format.
    """

    def __init__(
        self,
        file: Path | IO[bytes],
        name: str | None = None,
        remedy: str = "Use another copy of the file, or fit again.",
    ):
        self.name = str(file) if name is None else name
        self._remedy = remedy
        try:
            self._file = open(file, "rb") if isinstance(file, Path) else file  # noqa: SIM115
        except IsADirectoryError as error:
            raise self.damaged("it is a folder, not a file") from error
        try:
            self._entries = self._open()
            self.manifest = self._read_manifest()
        except BaseException:
            self._file.close()
            raise
        self._parts: dict[str, Any] = self.manifest["parts"]
        self.names = set(self._parts)

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._file.close()

    def read(self, name: str) -> bytes:
        """Read a part, and compare it with its checksum."""
        if name not in self._parts:
            raise self.damaged(f"it has no part {name!r}")
        content = self._read(name)
        part = self._parts[name]
        if len(content) != part.get("bytes") or checksum(content) != part.get("blake2b"):
            raise self.damaged(f"its part {name!r} is not the one that was written")
        return content

    def read_json(self, name: str) -> Any:
        """Read a part in JSON."""
        return self._parse(name, self.read(name))

    def read_array(self, name: str) -> NDArray:
        """Read a part in numpy's format."""
        content = self.read(name)
        try:
            check_array(io.BytesIO(content), len(content))
            return np.load(io.BytesIO(content), allow_pickle=False)
        except Exception as error:  # numpy raises errors of many kinds
            raise self.damaged(f"its part {name!r} is no array ({error})") from error

    def check(self) -> None:
        """Read every part, and compare it with its checksum."""
        for name in self.names:
            self.read(name)

    def copy(self, names: set[str]) -> bytes:
        """Return an archive with only these parts, as bytes."""
        about = {k: v for k, v in self.manifest.items() if k not in ("what", "format", "parts")}

        def fill(writer: ArchiveWriter) -> dict[str, Any]:
            for name in sorted(names):
                writer.add(name, self.read(name))
            return about

        buffer = io.BytesIO()
        write_parts(buffer, fill)
        return buffer.getvalue()

    def damaged(self, reason: str) -> ModelFileError:
        """Make the error for something that is wrong with the file."""
        return ModelFileError(f"{self.name} is damaged: {reason}. {self._remedy}")

    def _open(self) -> dict[str, zipfile.ZipInfo]:
        """Open the zip file, and check the sizes and names that it declares."""
        try:
            size = self._file.seek(0, os.SEEK_END)
            self._zip = zipfile.ZipFile(self._file)
        except OSError:
            raise
        except Exception as error:  # zipfile raises errors of many kinds
            raise self.damaged(
                f"it is not a zip file, as sklearn_stndt.save writes it ({error}). A pickle is "
                "read by joblib.load, which runs what is in it"
            ) from error
        try:
            return open_parts(self._zip, size)
        except ValueError as error:
            raise self.damaged(str(error)) from error

    def _read_manifest(self) -> dict[str, Any]:
        if MANIFEST not in self._entries:
            raise self.damaged(
                f"it has no part {MANIFEST!r}, which every file of sklearn_stndt.save has"
            )
        if self._entries[MANIFEST].file_size > _LARGEST_MANIFEST:
            raise self.damaged(f"its {MANIFEST} has {self._entries[MANIFEST].file_size} bytes")
        manifest = self._parse(MANIFEST, self._read(MANIFEST))
        if not isinstance(manifest, dict) or manifest.get("what") != WHAT:
            raise self.damaged(f"its {MANIFEST} does not say that it is a {WHAT}")
        found = manifest.get("format")
        if type(found) is not int or found < 1:
            raise self.damaged(f"its {MANIFEST} names the format {found!r}")
        if found > FORMAT:
            raise ModelFileError(
                f"{self.name} was written in format {found} by a newer version of sklearn_stndt, "
                f"and this version reads up to format {FORMAT}. Update sklearn_stndt."
            )
        parts = manifest.get("parts")
        if not isinstance(parts, dict) or not all(isinstance(p, dict) for p in parts.values()):
            raise self.damaged(f"its {MANIFEST} lists no parts")
        differing = sorted((self._entries.keys() - {MANIFEST}) ^ parts.keys())
        if differing:
            raise self.damaged(f"its {MANIFEST} and its parts differ in {differing[0]!r}")
        return manifest

    def _read(self, name: str) -> bytes:
        try:
            return self._zip.read(self._entries[name])
        except OSError:
            raise
        except Exception as error:
            raise self.damaged(f"its part {name!r} cannot be read ({error})") from error

    def _parse(self, name: str, content: bytes) -> Any:
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise self.damaged(f"its part {name!r} is not JSON ({error})") from error


def open_parts(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the parts of a zip file of `size` bytes, after checks of what they declare.

    Raises
    ------
    ValueError
        If a part is compressed, has an unusual name, or declares more bytes than the file has.
    """
    entries = archive.infolist()
    for entry in entries:
        if not _NAME.fullmatch(entry.filename):
            raise ValueError(f"a part has the name {entry.filename!r}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 0x1:
            raise ValueError(f"its part {entry.filename!r} is compressed or encrypted")
    by_name = {entry.filename: entry for entry in entries}
    if len(by_name) < len(entries):
        raise ValueError("it has two parts of one name")
    total = sum(entry.file_size for entry in entries)
    if total > size:
        raise ValueError(f"its parts declare {total} bytes, and the file has {size}")
    return by_name


def check_array(file: IO[bytes], size: int) -> None:
    """Compare the size that an array in numpy's format declares with that of its file.

    Raises
    ------
    ValueError
        If they differ, or if it holds objects.
    """
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = read(file)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != size - file.tell():
        raise ValueError(f"an array declares {dtype} {shape}, which does not fit its {size} bytes")


def checksum(content: bytes) -> str:
    """Return the checksum of a part."""
    return hashlib.blake2b(content, digest_size=32).hexdigest()
