"""Read and write HDF5 files. Errors name the file and the problem."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def import_h5py() -> Any:
    """Return h5py, or raise an ImportError that says how to install it."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "HDF5 files need h5py. Install it with: pip install sklearn-stndt[io]"
        ) from error
    return h5py


def read_h5(path: str | os.PathLike) -> dict[str, Any]:
    """Read all arrays of a file into nested dictionaries."""
    h5py = import_h5py()
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Check the path.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(
            f"{path} is not an HDF5 file, or is truncated ({error}). Download or write it again."
        ) from error
    with file:
        return _read_group(file, path, h5py)


def _read_group(group: Any, path: Path, h5py: Any) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key in group:
        try:
            item = group[key]
            content[key] = _read_group(item, path, h5py) if _is_group(item, h5py) else item[()]
        except (OSError, KeyError, RuntimeError) as error:
            raise ValueError(
                f"{path}: {group.name.rstrip('/')}/{key} cannot be read ({error}); the file is "
                "damaged. Download or write it again."
            ) from error
    return content


def _is_group(item: Any, h5py: Any) -> bool:
    return isinstance(item, h5py.Group)


def write_h5(content: Mapping[str, Mapping[str, Any]], path: str | os.PathLike) -> None:
    """Write a dictionary of dictionaries of arrays; floats are written as float32."""
    h5py = import_h5py()
    with h5py.File(Path(path).expanduser(), "w") as file:
        for name, arrays in content.items():
            group = file.create_group(name)
            for key, array in arrays.items():
                array = np.asarray(array)
                if array.dtype.kind == "f":
                    array = array.astype(np.float32)
                group.create_dataset(key, data=array, compression="gzip")
