"""What a Zarr folder may name, before hdmf-zarr opens it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_METADATA = (".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")


def check_folder(folder: Path, follow_links: bool) -> None:
    """Raise an error if a folder names other files, or holds arrays that are pickled.

    Reading a pickled array runs code that the folder contains.
    """
    for path in _files(folder, follow_links):
        if path.name not in _METADATA:
            continue
        try:
            content = json.loads(path.read_bytes())
        except ValueError as error:
            raise ValueError(
                f"{folder}: {path.relative_to(folder)} is damaged ({error}). Download it again."
            ) from error
        for entry in _dictionaries(content):
            where = f"{folder}: {path.relative_to(folder).parent}"
            if "pickle" in (entry.get("id"), entry.get("name")):
                raise ValueError(
                    f"{where} holds pickled arrays, and reading these runs code. If you trust the "
                    "folder, open it yourself and pass NWBZarrIO(path, 'r').read()."
                )
            other = entry.get("source", ".") if "path" in entry else "."
            if other != "." and not follow_links:
                raise ValueError(
                    f"{where} is a link to another folder, {other!r}, which is not read unless you "
                    "ask for it. If you trust the folder, pass follow_links=True."
                )


def _files(folder: Path, follow_links: bool) -> Iterator[Path]:
    for directory, subfolders, files in os.walk(folder):
        for name in subfolders + files:
            path = Path(directory) / name
            if path.is_symlink() and not follow_links:
                raise ValueError(
                    f"{folder}: {path.relative_to(folder)} is a link out of the folder, which is "
                    "not followed unless you ask for it. If you trust the folder, pass "
                    "follow_links=True."
                )
        yield from (Path(directory) / name for name in files)


def _dictionaries(content: Any) -> Iterator[dict[str, Any]]:
    """Yield all dictionaries in the content of a JSON file."""
    rest = [content]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            yield value
            rest += value.values()
        elif isinstance(value, list):
            rest += value
