"""Download the recordings of the Neural Latents Benchmark from the DANDI archive."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from sklearn.datasets import get_data_home

from sklearn_stndt.datasets._nlb_sets import SETS, split_key

__all__ = ["fetch_nlb"]

_INDEX = "files.json"


def fetch_nlb(
    name: str,
    *,
    data_home: str | os.PathLike | None = None,
    download_if_missing: bool = True,
    version: str | None = None,
    api_url: str | None = None,
) -> list[Path]:
    """Download a recording of the Neural Latents Benchmark from the DANDI archive.

    Existing files are not downloaded again. New files are verified with the archive's checksum.

    Parameters
    ----------
    name : str
        Data set, such as "mc_maze_small".

    data_home : path, default=None
        Folder for the files, which are stored in its subfolder ``nlb/<name>``. None: scikit-learn's
        data home, see :func:`sklearn.datasets.get_data_home`.

    download_if_missing : bool, default=True
        If False, raise an OSError when files are missing instead of downloading them.

    version : str, default=None
        Version of the dandiset. None: the latest published version.

    api_url : str, default=None
        URL of another archive's API. None: the DANDI archive, or the instance in the environment
        variable DANDI_INSTANCE.

    Returns
    -------
    paths : list of Path
        NWB files, to be loaded with ``load_nlb(paths, name=name)``. The file of the training
        trials comes before the file of the test trials.

    Raises
    ------
    ImportError
        If files must be downloaded and dandi is not installed.
    OSError
        If files are missing and `download_if_missing` is False; if the archive cannot be reached or
        has no such files; or if a download does not match its size or checksum in the archive.
    ValueError
        If the benchmark has no data set `name`.

    Examples
    --------
    >>> from sklearn_stndt.datasets import fetch_nlb, load_nlb
    >>> paths = fetch_nlb("mc_maze_small")  # doctest: +SKIP
    >>> data = load_nlb(paths[0], name="mc_maze_small")  # doctest: +SKIP
    """
    name, _ = split_key(name)
    folder = Path(get_data_home(data_home)) / "nlb" / name
    index = folder / _INDEX
    known = _read_index(index)
    if known is not None:
        files, downloaded = known
        paths = [folder / file for file in files]
        complete = all(
            path.is_file() and path.stat().st_size == size
            for path, size in zip(paths, files.values(), strict=True)
        )
        if complete and version in (None, downloaded):
            return paths
    if not download_if_missing:
        raise OSError(
            f"{folder} does not hold all files of {name}. Pass download_if_missing=True, or set "
            "data_home to the folder that does."
        )
    client = _connect(api_url)
    with client:
        files, version = _download(client, name, version, folder)
    index.write_text(json.dumps({"version": version, "files": files}, indent=1))
    return [folder / file for file in files]


def _read_index(path: Path) -> tuple[dict[str, int], str] | None:
    """Return file sizes by name, and the version; None if there is no index, or a damaged one."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        files, version = content["files"], content["version"]
    except (ValueError, KeyError, TypeError):
        return None
    names = files if isinstance(files, dict) else {}
    if not names or any(Path(name).name != name for name in names):  # files of this folder alone
        return None
    return files, version


def _connect(api_url: str | None) -> Any:
    try:
        from dandi.dandiapi import DandiAPIClient
    except ImportError as error:
        raise ImportError(
            "Downloads from the DANDI archive need its client. Install it with: "
            'pip install "sklearn-stndt[dandi]"'
        ) from error
    try:
        return DandiAPIClient(api_url)
    except Exception as error:
        raise OSError(
            f"The DANDI archive cannot be reached ({error}). Check the connection"
            f"{'' if api_url is None else f' and api_url={api_url!r}'}, and try again."
        ) from error


def _download(
    client: Any, name: str, version: str | None, folder: Path
) -> tuple[dict[str, int], str]:
    """Download missing files; return file sizes by file name, and the version."""
    spec = SETS[name]
    try:
        dandiset = client.get_dandiset(spec.dandiset, version, lazy=False)
        assets = [
            asset
            for asset in dandiset.get_assets()
            if asset.path.endswith(".nwb") and (not spec.file or f"ses-{spec.file}" in asset.path)
        ]
    except Exception as error:
        raise OSError(
            f"Dandiset {spec.dandiset} of {name} cannot be listed ({error}). Check the connection "
            "and the version, and try again."
        ) from error
    if not assets:
        raise OSError(
            f"Dandiset {spec.dandiset} holds no NWB file of {name} in version "
            f"{dandiset.version_id}. Pass another version."
        )
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    # the file of the test trials comes last
    for asset in sorted(assets, key=lambda asset: ("test" in asset.path, asset.path)):
        path = folder / Path(asset.path).name
        files[path.name] = int(asset.size)
        _download_file(asset, path)
    return files, str(dandiset.version_id)


def _download_file(asset: Any, path: Path) -> None:
    digest = asset.get_raw_metadata().get("digest", {}).get("dandi:sha2-256")
    if path.is_file() and path.stat().st_size == asset.size and digest in (None, _sha256(path)):
        return
    part = path.with_name(path.name + ".part")
    try:
        asset.download(part)
    except Exception as error:
        part.unlink(missing_ok=True)
        raise OSError(f"The download of {asset.path} failed ({error}). Try again.") from error
    if part.stat().st_size != asset.size or digest not in (None, _sha256(part)):
        part.unlink()
        raise OSError(
            f"The download of {asset.path} does not match the size or checksum in the archive. "
            "Try again."
        )
    part.replace(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
