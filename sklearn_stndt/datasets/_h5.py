"""Read and write HDF5 files: what may be read, and how much. Errors name file, object and remedy.

A file can name other files (external links, external storage, virtual datasets), and can declare
arrays that are far larger than itself. Whatever reads an HDF5 file checks both here first.
"""

import math
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sklearn_stndt.datasets._checks import check_memory, reading, size_of

# One pass of zlib packs at most 1,032 bytes into one.
_RATIO = 1100
_FREE = 2**26  # bytes, 64 MiB, that any file may unpack to
_VLEN_AT_ONCE = 64
_REMEDY = "If the file is right, read it with h5py and pass the arrays."
_DEFLATE, _FLETCHER32 = 1, 3  # numbers of filters in the format


def import_h5py() -> Any:
    """Return h5py, or raise an ImportError that says how to install it."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            'HDF5 files need h5py. Install it with: pip install "sklearn-stndt[io]"'
        ) from error
    return h5py


@contextmanager
def open_h5(path: str | os.PathLike, *, follow_links: bool = False) -> Iterator["H5Group"]:
    """Open a file for reading, check its links, and yield its content."""
    with open_file(path) as file:
        if not follow_links:
            check_links(file, str(path))
        yield H5Group(file, str(path))


def open_file(path: str | os.PathLike) -> Any:
    """Return an h5py.File, open for reading, whose links are not checked."""
    h5py = import_h5py()
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{path!r} is a {type(path).__name__}; pass the path of an HDF5 file.")
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Check the path.")
    try:
        return h5py.File(path, "r")
    except PermissionError as error:
        raise PermissionError(f"{path} cannot be read: {error.strerror or error}.") from error
    except BlockingIOError as error:
        raise ValueError(
            f"{path} is open for writing in another process ({error}). Close it there."
        ) from error
    except Exception as error:
        raise ValueError(
            f"{path} is not an HDF5 file, or is truncated ({error}). Download or write it again."
        ) from error


class H5Group(Mapping):
    """Arrays and groups of a file by name; an array is read when it is asked for."""

    def __init__(self, group: Any, path: str, known: "_Known | None" = None) -> None:
        self._group = group
        self._path = path
        self._known = known or _Known()

    def __iter__(self) -> Iterator[str]:
        with reading(self._path):
            names = list(self._group)
        for name in names:
            if not isinstance(name, str):  # h5py leaves what is no UTF-8 as bytes
                raise ValueError(
                    f"{self._path}: {self._group.name} holds the name {name!r}, which is no text. "
                    "The file is damaged. Download or write it again."
                )
            yield name

    def __len__(self) -> int:
        return len(self._group)

    def __contains__(self, name: object) -> bool:  # that of Mapping would read the array
        return name in self._group

    def __getitem__(self, name: str) -> Any:
        h5py = import_h5py()
        key = f"{self._group.name.rstrip('/')}/{name}"
        where = f"{self._path}: {key}"
        with reading(self._path, key):
            item = self._group[name]
            if isinstance(item, h5py.Group):
                return H5Group(item, self._path, self._known)
            if not isinstance(item, h5py.Dataset):
                raise ValueError(f"{where} is a data type, not an array. Write the file again.")
            info = h5py.h5o.get_info(item.id)
            place = (item.file.filename, info.addr)
            if place not in self._known.arrays:
                check_dataset(item, where)
                self._known.n_stored += item.id.get_storage_size()
                n_file = bytes_on_disk(item.file)
                if item.file.id == self._group.file.id and self._known.n_stored > n_file:
                    raise ValueError(
                        f"{where}: the arrays so far take {size_of(self._known.n_stored)} in a "
                        f"file of {size_of(n_file)}: they overlap. Write the file again."
                    )
                array = item[()]
                if info.rc == 1:
                    return array
                self._known.arrays[place] = array  # it has several names
            return self._known.arrays[place]

    def groups(self) -> set[str]:
        """Return the names of the groups in this one."""
        h5py = import_h5py()
        with reading(self._path):
            return {name for name in self if self._group.get(name, getclass=True) is h5py.Group}


@dataclass
class _Known:
    """What was read from a file so far."""

    arrays: dict[tuple[str, int], Any] = field(default_factory=dict)
    n_stored: int = 0  # bytes in the file


# -- what a file may name ----------


def check_links(file: Any, name: str, *, first_reads: bool = False) -> None:
    """Raise an error if anything in a file is stored in another one.

    Soft links, which stay in the file, are not followed, as their targets have a link of their own.
    With `first_reads`, also check the arrays that pynwb reads when it opens a file.
    """
    with reading(name):
        for dataset, where in _datasets_of(file, name):
            _check_storage(dataset, name, where)
            if first_reads:
                _check_first_reads(dataset, name, where)


def _check_first_reads(dataset: Any, name: str, where: str) -> None:
    """Check an array if pynwb reads it, or an entry of it, before anyone asks for it."""
    h5py = import_h5py()
    is_number = dataset.get_type().get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT)
    shape = dataset.get_space().get_simple_extent_dims()  # None if it is empty
    # rows of another table, which are compared with its length; and dates
    if h5py.h5a.exists(dataset, b"table") or where == "/file_create_date":
        check_dataset(h5py.Dataset(dataset), f"{name}: {where}")
    elif not is_number or shape in ((), (1,)):
        check_part(h5py.Dataset(dataset), f"{name}: {where}")


def _datasets_of(file: Any, name: str) -> Iterator[tuple[Any, str]]:
    """Yield each dataset of a file, as a DatasetID, and its path; refuse links out of the file."""
    h5py = import_h5py()
    seen = set()
    groups = [(file.id, "")]
    while groups:
        group, path = groups.pop()
        for key in group:
            where = f"{path}/{key.decode(errors='replace')}"
            link = group.links.get_info(key)
            if link.type == h5py.h5l.TYPE_SOFT:
                continue
            if link.type == h5py.h5l.TYPE_EXTERNAL:
                other = group.links.get_val(key)[0].decode(errors="replace")
                raise _elsewhere(name, where, f"is a link to another file, {other!r}")
            if link.type != h5py.h5l.TYPE_HARD:
                raise _elsewhere(name, where, "is a link of a kind that is not known")
            item = h5py.h5o.open(group, key)
            info = h5py.h5o.get_info(item)
            if (info.fileno, info.addr) in seen:
                continue
            seen.add((info.fileno, info.addr))
            if isinstance(item, h5py.h5g.GroupID):
                groups.append((item, where))
            elif isinstance(item, h5py.h5d.DatasetID):
                yield item, where


def _check_storage(dataset: Any, name: str, where: str) -> None:
    h5py = import_h5py()
    storage = dataset.get_create_plist()
    if storage.get_external_count():
        other = os.fsdecode(storage.get_external(0)[0])
        raise _elsewhere(name, where, f"is stored in another file, {other!r}")
    if storage.get_layout() == h5py.h5d.VIRTUAL:
        others = {storage.get_virtual_filename(i) for i in range(storage.get_virtual_count())}
        raise _elsewhere(name, where, f"is a virtual dataset, put together from {sorted(others)}")


def _elsewhere(name: str, where: str, what: str) -> ValueError:
    return ValueError(
        f"{name}: {where} {what}, which is not read unless you ask for it. If you trust the file, "
        "pass follow_links=True; or copy all into one file with h5repack or h5copy."
    )


# -- how much may be read ----------


def check_dataset(dataset: Any, name: str, remedy: str = "") -> None:
    """Raise an error if reading an array would take far more memory than its file contains.

    Parameters
    ----------
    dataset : h5py.Dataset
        Array that will be read.

    name : str
        File and object, with which an error starts.

    remedy : str, default=""
        What to do if the file is right.
    """
    remedy = remedy or _REMEDY
    n_bytes = _product(dataset.shape or ()) * dataset.dtype.itemsize
    check_memory(n_bytes, f"{name} of shape {dataset.shape} and type {dataset.dtype}", remedy)
    if not _is_elsewhere(dataset):
        _check_ratio(n_bytes, dataset, name, remedy)
        check_part(dataset, name, remedy)
        if import_h5py().check_dtype(vlen=dataset.dtype) is not None:
            _check_lengths(dataset, name, remedy)


def check_part(dataset: Any, name: str, remedy: str = "") -> None:
    """Raise an error if reading a single entry would take far more memory than its file contains.

    To read any part of a chunk, all of it is unpacked.
    """
    if _is_elsewhere(dataset):
        return
    remedy = remedy or _REMEDY
    n_bytes = _product(dataset.chunks or ()) * dataset.dtype.itemsize
    _check_ratio(n_bytes, dataset, name, remedy)
    if dataset.chunks is not None:
        _check_chunks(dataset, n_bytes, name, remedy)


def _check_ratio(n_bytes: int, dataset: Any, name: str, remedy: str) -> None:
    n_stored = min(dataset.id.get_storage_size(), bytes_on_disk(dataset.file))
    if n_bytes > _FREE + _RATIO * n_stored:
        raise ValueError(
            f"{name} of shape {dataset.shape} and type {dataset.dtype} would take "
            f"{size_of(n_bytes)} of memory, but the file holds only {size_of(n_stored)} for it: "
            f"most of it was never written, or the file is made to fill the memory. {remedy}"
        )


def _is_elsewhere(dataset: Any) -> bool:
    """Whether an array is stored in other files, so that its size in the file says nothing."""
    storage = dataset.id.get_create_plist()
    return storage.get_layout() == import_h5py().h5d.VIRTUAL or storage.get_external_count() > 0


def _product(shape: tuple[int, ...]) -> int:
    return math.prod(int(length) for length in shape)


def bytes_on_disk(file: Any) -> int:
    """Bytes that an h5py.File takes; holes in it take none."""
    if file.mode != "r":  # it is being written
        return 2**62
    size = int(file.id.get_filesize())
    try:
        holes = os.stat(file.filename).st_blocks * 512
    except (AttributeError, OSError, TypeError, ValueError):  # Windows, or a file in memory
        return size
    return min(size, holes) if holes else size  # some file systems report 0


def _check_chunks(dataset: Any, chunk: int, name: str, remedy: str) -> None:
    """Raise an error if a chunk unpacks to more than its size says, or if chunks overlap."""
    filters = dataset.id.get_create_plist()
    kinds = [filters.get_filter(i)[0] for i in range(filters.get_nfilters())]
    if not kinds or not hasattr(dataset.id, "chunk_iter"):  # HDF5 before 1.12.3
        return
    n_file = bytes_on_disk(dataset.file)
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"{name} is packed twice by one filter, as no program does. {remedy}")
    chunks: list[Any] = []
    dataset.id.chunk_iter(lambda info: chunks.append(info))
    n_packed = sum(info.size for info in chunks)
    if n_packed > n_file:
        raise ValueError(
            f"{name} has chunks of {size_of(n_packed)} in a file of {size_of(n_file)}: they "
            f"overlap. {remedy}"
        )
    if _DEFLATE not in kinds or set(kinds[kinds.index(_DEFLATE) + 1 :]) - {_FLETCHER32}:
        return
    for info in chunks:
        if info.filter_mask or info.size * _RATIO <= _FREE:
            continue
        _, raw = dataset.id.read_direct_chunk(info.chunk_offset)
        unpacker = zlib.decompressobj()
        unpacked = unpacker.decompress(raw, chunk + 64)
        if len(unpacked) > chunk + 32:
            raise ValueError(
                f"{name} has a chunk that unpacks to more than its {size_of(chunk)}. {remedy}"
            )


def _check_lengths(dataset: Any, name: str, remedy: str) -> None:
    """Raise an error if arrays of variable length take more memory than the file contains."""
    n_file = bytes_on_disk(dataset.file)
    total = 0
    length, *rest = dataset.shape or (0,)
    step = max(_VLEN_AT_ONCE // max(_product(tuple(rest)), 1), 1)
    for first in range(0, length, step):
        rows = np.asarray(dataset[first : first + step]).ravel()
        total += sum(_bytes_of(row) for row in rows)
        if total > _FREE + 2 * n_file:
            raise ValueError(
                f"{name} would take more than {size_of(total)} of memory, but the file has only "
                f"{size_of(n_file)}: its entries share one place in the file. {remedy}"
            )


def _bytes_of(row: Any) -> int:
    return row.nbytes if isinstance(row, np.ndarray) else len(row)


def write_h5(content: Mapping[str, Mapping[str, Any]], path: str | os.PathLike) -> None:
    """Write a dictionary of dictionaries of arrays; floats are written as float32.

    If that fails, a file of that name stays as it was.
    """
    h5py = import_h5py()
    path = Path(path).expanduser()
    part = path.with_name(path.name + ".part")
    try:
        with h5py.File(part, "w") as file:
            for name, arrays in content.items():
                group = file.create_group(name)
                for key, array in arrays.items():
                    array = np.asarray(array)
                    if array.dtype.kind == "f":
                        array = array.astype(np.float32)
                    group.create_dataset(
                        key, data=array, compression="gzip" if array.ndim else None
                    )
        part.replace(path)
    except OSError as error:
        raise OSError(
            f"{path} cannot be written ({error}). Is the disk full, or is there no such folder?"
        ) from error
    finally:
        part.unlink(missing_ok=True)
