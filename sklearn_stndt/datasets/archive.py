"""The benchmark's recordings from the DANDI archive."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from sklearn.datasets import get_data_home

from ._nlb_sets import SETS, split_key

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

    Files that are there already are not downloaded again, and each new one is compared with the
    archive's checksum.

    Parameters
    ----------
    name : str
        Data set, such as "mc_maze_small".

    data_home : path, default=None
        Where to keep the files, in a folder ``nlb/<name>``. None: scikit-learn's data home, see
        :func:`sklearn.datasets.get_data_home`.

    download_if_missing : bool, default=True
        False: raise an error rather than download.

    version : str, default=None
        Version of the dandiset. None: the newest published one.

    api_url : str, default=None
        Another archive's API. None: the DANDI archive, or what the environment variable
        DANDI_INSTANCE names.

    Returns
    -------
    paths : list of Path
        NWB files, that of the training trials before that of the test trials, for
        ``load_nlb(paths, name=name)``.

    Raises
    ------
    ImportError
        Without dandi, if something is to be downloaded.
    OSError
        If files are missing and `download_if_missing` is False; if the archive cannot be reached,
        has no such files, or sends other bytes than it promises.
    ValueError
        If there is no such data set.

    Examples
    --------
    >>> from sklearn_stndt.datasets import fetch_nlb, load_nlb
    >>> paths = fetch_nlb("mc_maze_small")  # doctest: +SKIP
    >>> data = load_nlb(paths[0], name="mc_maze_small")  # doctest: +SKIP
    """
    name, _ = split_key(name)
    folder = Path(get_data_home(data_home)) / "nlb" / name
    index = folder / _INDEX
    if index.is_file():
        content = json.loads(index.read_text())
        paths = [folder / file for file in content["files"]]
        complete = all(
            path.is_file() and path.stat().st_size == size
            for path, size in zip(paths, content["files"].values(), strict=True)
        )
        if complete and version in (None, content["version"]):
            return paths
    if not download_if_missing:
        raise OSError(
            f"{folder} does not hold all files of {name}. Pass download_if_missing=True, or put "
            "data_home where they are."
        )
    client = _connect(api_url)
    with client:
        files, version = _download(client, name, version, folder)
    index.write_text(json.dumps({"version": version, "files": files}, indent=1))
    return [folder / file for file in files]


def _connect(api_url: str | None) -> Any:
    try:
        from dandi.dandiapi import DandiAPIClient
    except ImportError as error:
        raise ImportError(
            "Downloads from the DANDI archive need its client. Install it with: "
            "pip install sklearn-stndt[dandi]"
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
    """Download what is missing; return names and sizes of the files, and the version."""
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
    # the test trials' file comes last
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
        raise OSError(f"The download of {asset.path} broke off ({error}). Try again.") from error
    if part.stat().st_size != asset.size or digest not in (None, _sha256(part)):
        part.unlink()
        raise OSError(
            f"The download of {asset.path} has another size or checksum than the archive says. "
            "Try again."
        )
    part.replace(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
