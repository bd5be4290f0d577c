"""fetch_nlb, with a local server in place of the archive."""

import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sklearn_stndt.datasets import fetch_nlb, load_nlb

TRAIN = "sub-Jenkins/sub-Jenkins_ses-small_desc-train_behavior+ecephys.nwb"
TEST = "sub-Jenkins/sub-Jenkins_ses-small_desc-test_ecephys.nwb"


class Archive:
    """A server with the part of the archive's API that a download needs."""

    def __init__(self, files, checksum=None):
        self.files = dict(enumerate(files.items()))
        self.checksum = checksum
        self.requests = []
        archive = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                archive.requests.append(self.path)
                content = archive.answer(self.path.split("?")[0].removeprefix("/api"))
                is_bytes = isinstance(content, bytes)
                body = content if is_bytes else json.dumps(content).encode()
                self.send_response(404 if content is None else 200)
                kind = "application/octet-stream" if is_bytes else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/api"

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def answer(self, path):
        when = "2026-01-01T00:00:00Z"
        version = {
            "version": "0.220113.0408",
            "name": "MC_Maze_Small",
            "asset_count": len(self.files),
            "size": 1,
            "created": when,
            "modified": when,
            "status": "Valid",
        }
        if path == "/info/":
            service = {"url": self.url}
            return {
                "schema_version": "0.6.0",
                "version": "0.1",
                "services": {"api": service, "webui": service, "jupyterhub": service},
                "cli-minimal-version": "0.14.2",
                "cli-bad-versions": [],
            }
        if path == "/dandisets/000140/":
            return {
                "identifier": "000140",
                "created": when,
                "modified": when,
                "contact_person": "nobody",
                "embargo_status": "OPEN",
                "draft_version": version | {"version": "draft"},
                "most_recent_published_version": version,
            }
        if path == "/dandisets/000140/versions/0.220113.0408/assets/":
            results = [self.asset(number, when) for number in self.files]
            return {"count": len(results), "next": None, "previous": None, "results": results}
        for number, (_, content) in self.files.items():
            asset = f"/assets/{self.identifier(number)}"
            if path in (
                asset + "/download/",
                f"/dandisets/000140/versions/0.220113.0408{asset}/download/",
            ):
                return content
            if path.endswith(asset + "/"):
                digest = self.checksum or hashlib.sha256(content).hexdigest()
                return {"digest": {"dandi:sha2-256": digest}}
        return None

    def identifier(self, number):
        return f"00000000-0000-0000-0000-{number:012d}"

    def asset(self, number, when):
        path, content = self.files[number]
        return {
            "asset_id": self.identifier(number),
            "blob": self.identifier(number),
            "path": path,
            "size": len(content),
            "created": when,
            "modified": when,
        }

    @property
    def downloads(self):
        return sum("/download/" in request for request in self.requests)


@pytest.fixture
def serve(monkeypatch):
    pytest.importorskip("dandi", reason="dandi is not installed (the extra dandi)")
    monkeypatch.setenv("DANDI_NO_ET", "1")  # no online check for a newer version of dandi
    archives = []

    def start(*args, **params):
        archives.append(Archive(*args, **params))
        return archives[-1]

    yield start
    for archive in archives:
        archive.close()


@pytest.fixture
def files(write_nwb):
    def as_test(file):
        file.trials["split"].data[:] = ["test"] * len(file.trials)

    return {
        TEST: write_nwb(n_trials=4, edit=as_test).read_bytes(),
        "dandiset.yaml": b"no recording",
        "sub-Jenkins/sub-Jenkins_ses-large_desc-train.nwb": b"another session",
        TRAIN: write_nwb(n_trials=8).read_bytes(),
    }


pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:(dandi|pydantic|zarr)")


def test_files_are_downloaded_once_and_loaded(serve, files, tmp_path):
    archive = serve(files)
    params = {"data_home": tmp_path, "api_url": archive.url}
    paths = fetch_nlb("mc_maze_small", **params)
    assert [path.name for path in paths] == [TRAIN.split("/")[1], TEST.split("/")[1]]
    assert all(path.parent == tmp_path / "nlb" / "mc_maze_small" for path in paths)
    assert [path.read_bytes() for path in paths] == [files[TRAIN], files[TEST]]
    assert archive.downloads == 2
    before = len(archive.requests)
    assert fetch_nlb("mc_maze_small", **params) == paths
    assert len(archive.requests) == before
    data = load_nlb(paths, name="mc_maze_small")
    assert (len(data.X_train), len(data.X_eval)) == (8, 4)


def test_missing_or_damaged_files_are_downloaded_again(serve, files, tmp_path):
    archive = serve(files)
    params = {"data_home": tmp_path, "api_url": archive.url}
    train, test = fetch_nlb("mc_maze_small", **params)
    test.unlink()
    assert fetch_nlb("mc_maze_small", **params) == [train, test]
    assert archive.downloads == 3
    train.write_bytes(b"half")
    fetch_nlb("mc_maze_small", **params)
    assert archive.downloads == 4
    assert train.read_bytes() == files[TRAIN]


def test_a_wrong_checksum_is_refused(serve, files, tmp_path):
    archive = serve(files, checksum="0" * 64)
    with pytest.raises(OSError, match="does not match the size or checksum"):
        fetch_nlb("mc_maze_small", data_home=tmp_path, api_url=archive.url)
    assert not list((tmp_path / "nlb" / "mc_maze_small").glob("*"))


def test_errors_name_an_archive_without_the_files(serve, tmp_path):
    archive = serve({"dandiset.yaml": b"no recording"})
    with pytest.raises(OSError, match="000140 holds no NWB file of mc_maze_small"):
        fetch_nlb("mc_maze_small", data_home=tmp_path, api_url=archive.url)
    with pytest.raises(OSError, match="000138 of mc_maze_large cannot be listed"):
        fetch_nlb("mc_maze_large", data_home=tmp_path, api_url=archive.url)


def test_nothing_is_downloaded_without_permission(tmp_path):
    with pytest.raises(OSError, match="download_if_missing=True"):
        fetch_nlb("mc_rtt", data_home=tmp_path, download_if_missing=False)


def test_downloaded_files_are_found_without_dandi(tmp_path, monkeypatch):
    folder = tmp_path / "nlb" / "mc_rtt"
    folder.mkdir(parents=True)
    (folder / "a.nwb").write_bytes(b"12345")
    (folder / "files.json").write_text(json.dumps({"version": "1", "files": {"a.nwb": 5}}))
    monkeypatch.setitem(sys.modules, "dandi.dandiapi", None)
    assert fetch_nlb("mc_rtt", data_home=tmp_path) == [folder / "a.nwb"]
    assert fetch_nlb("mc_rtt", data_home=tmp_path, version="1") == [folder / "a.nwb"]
    with pytest.raises(ImportError, match=r'pip install "sklearn-stndt\[dandi\]"'):
        fetch_nlb("mc_rtt", data_home=tmp_path, version="2")


@pytest.mark.parametrize(
    "index",
    ["", "[]", "{}", '{"files": [], "version": "1"}', '{"files": {"../a.nwb": 5}, "version": "1"}'],
)
def test_a_damaged_index_counts_as_none(tmp_path, index):
    folder = tmp_path / "nlb" / "mc_rtt"
    folder.mkdir(parents=True)
    (folder.parent / "a.nwb").write_bytes(b"12345")
    (folder / "files.json").write_text(index)
    with pytest.raises(OSError, match="does not hold all files of mc_rtt"):
        fetch_nlb("mc_rtt", data_home=tmp_path, download_if_missing=False)


def test_unknown_data_sets_are_refused(tmp_path):
    with pytest.raises(ValueError, match="pass one of mc_maze"):
        fetch_nlb("mc_mase", data_home=tmp_path)
    with pytest.raises(ValueError, match="three data sets"):
        fetch_nlb("mc_maze_scaling", data_home=tmp_path)
