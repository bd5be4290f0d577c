"""Open what a user passes as an NWB file."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from sklearn_stndt.datasets._h5 import check_links, open_file
from sklearn_stndt.datasets._zarr import check_folder

# at least two letters, because "C:/" is a drive; pathlib shortens "https://" to "https:/"
_URL = re.compile(r"^[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
_ZARR_FILES = (".zgroup", ".zmetadata", "zarr.json")


def import_pynwb() -> Any:
    """Return pynwb, or raise an ImportError that says how to install it."""
    try:
        import pynwb
    except ImportError as error:
        raise ImportError(
            'NWB files need pynwb. Install it with: pip install "sklearn-stndt[io]"'
        ) from error
    return pynwb


@contextmanager
def opened(source: Any, follow_links: bool = False) -> Iterator[tuple[Any, str, bool]]:
    """Open `source` and yield its NWBFile, its name in messages, and whether it is trusted.

    Objects that the user has opened stay open. What pynwb has opened for the user is trusted, and
    any file with `follow_links`.
    """
    pynwb = import_pynwb()
    if isinstance(source, pynwb.NWBFile):
        yield _open_file(source, _name_of(source)), _name_of(source), True
    elif isinstance(source, str | os.PathLike):
        path = _path_of(source)
        if path.is_dir():
            with _io_of_folder(path, follow_links) as io:
                yield _read(io, str(source)), str(source), True
        else:
            with (
                open_file(path) as file,
                _io_of_h5py(file, str(source), pynwb, follow_links) as io,
            ):
                yield _read(io, str(source)), str(source), follow_links
    elif _is_h5py_file(source):
        name = f"h5py.File {source.filename!r}" if source else "h5py.File"
        if not source:
            raise ValueError(f"{name} is closed. Pass it while it is open.")
        with _io_of_h5py(source, name, pynwb, follow_links) as io:
            yield _read(io, name), name, follow_links
    elif hasattr(source, "seek") and hasattr(source, "read"):
        with (
            _h5py_of_stream(source) as (file, name),
            _io_of_h5py(file, name, pynwb, follow_links) as io,
        ):
            yield _read(io, name), name, follow_links
    elif hasattr(source, "read") and hasattr(source, "close"):  # NWBHDF5IO, NWBZarrIO
        file = _read(source, type(source).__name__)
        yield file, _name_of(file), True
    else:
        raise TypeError(
            f"path is a {type(source).__name__}; pass the path of an NWB file, or an open NWBFile, "
            "h5py.File or binary file."
        )


def _path_of(source: str | os.PathLike) -> Path:
    if _URL.match(str(source)):
        raise ValueError(
            f"{source} is a URL, but load_nwb reads local files. Download the file, or pass an "
            "open file, such as that of fsspec.open(url).open()."
        )
    return Path(source).expanduser()


def _io_of_folder(path: Path, follow_links: bool) -> Any:
    if path.suffix != ".zarr" and not any((path / name).is_file() for name in _ZARR_FILES):
        raise IsADirectoryError(
            f"{path} is a folder, neither an NWB file nor a Zarr folder. Pass the path of one file."
        )
    try:
        hdmf_zarr = import_module("hdmf_zarr")  # no dependency of this package
    except ImportError as error:
        raise ImportError(
            f"{path} is a Zarr folder, which needs hdmf-zarr. Install it with: "
            "pip install hdmf-zarr"
        ) from error
    check_folder(path, follow_links)
    try:
        return hdmf_zarr.NWBZarrIO(str(path), "r")
    except Exception as error:
        raise ValueError(
            f"{path} cannot be opened as a Zarr folder ({error}). Download it again."
        ) from error


def _io_of_h5py(file: Any, name: str, pynwb: Any, follow_links: bool) -> Any:
    if not follow_links:
        check_links(file, name, first_reads=True)

    class Borrowed(pynwb.NWBHDF5IO):
        """Leaves the file open, which belongs to someone else."""

        def close(self, close_links: bool = True) -> None:
            if close_links:
                self.close_linked_files()

        def is_open(self) -> bool:
            return False

    try:
        return Borrowed(file=file, mode="r")
    except Exception as error:
        raise ValueError(f"{name} is not an NWB file that pynwb can read ({error}).") from error


@contextmanager
def _h5py_of_stream(stream: Any) -> Iterator[tuple[Any, str]]:
    import h5py

    name = f"{type(stream).__name__} {getattr(stream, 'name', '')!r}".removesuffix(" ''")
    if getattr(stream, "closed", False):
        raise ValueError(f"{name} is closed. Pass it while it is open.")
    if hasattr(stream, "encoding"):
        raise ValueError(f"{name} is open as text. Open it as binary: open(path, 'rb').")
    try:
        file = h5py.File(stream, "r")
    except Exception as error:
        raise ValueError(
            f"{name} cannot be opened ({error}): it is not an HDF5 file, or is truncated."
        ) from error
    with file:
        yield file, name


def _read(io: Any, name: str) -> Any:
    try:
        return io.read()
    except Exception as error:
        raise ValueError(
            f"{name} is not an NWB file that pynwb can read ({error}). Check it with "
            "pynwb-validate, or download it again."
        ) from error


def _open_file(file: Any, name: str) -> Any:
    if file.units is not None and _is_closed(file.units.id.data):
        raise ValueError(
            f"{name} was read from a file that is closed by now. Call load_nwb while the file is "
            "open."
        )
    return file


def _is_closed(data: Any) -> bool:
    import h5py

    return isinstance(data, h5py.Dataset) and not data


def _is_h5py_file(source: Any) -> bool:
    import h5py

    return isinstance(source, h5py.File)


def _name_of(file: Any) -> str:
    return str(file.container_source or f"NWBFile {file.identifier!r}")
