"""Memory maps: read in pieces, released, and as output."""

import gc
import os
import re
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from subprocesses import output_of

from sklearn_stndt.windows import out_of_core
from sklearn_stndt.windows.out_of_core import empty_rates, extremes, in_pieces, let_go, mapping_of


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """Counts in a file of 64 MiB, opened for reading."""
    counts = np.random.RandomState(0).poisson(0.3, (1 << 10, 128)).astype(np.uint8)
    path = tmp_path_factory.mktemp("mapped") / "counts"
    np.tile(counts, (1 << 9, 1)).tofile(path)
    return np.memmap(path, dtype=np.uint8, mode="r", shape=(1 << 19, 128))


def resident(path):
    """Bytes of a mapped file that are in the memory of this process."""
    parts = Path("/proc/self/smaps").read_text().split(str(path))[1:]
    return sum(1024 * int(re.search(r"Rss:\s+(\d+) kB", part)[1]) for part in parts)


def test_views_of_a_memory_map_are_recognised(mapped):
    for view in (mapped, np.asarray(mapped), mapped[5:][:, 1], np.asarray(mapped).reshape(-1, 4)):
        assert mapping_of(view) is not None
    assert mapping_of(np.array(mapped[:5])) is None


def test_pages_of_a_private_copy_are_kept(tmp_path):
    np.zeros(4).tofile(tmp_path / "counts")
    private = np.memmap(tmp_path / "counts", dtype=np.float64, mode="c")
    private[:] = 7
    assert mapping_of(private[1:]) is None
    let_go(private)
    assert (private == 7).all()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_pages_that_were_read_are_released(mapped):
    total = sum(int(piece.sum()) for piece in in_pieces(mapped, 2**22))
    assert resident(mapped.filename) < 2**24
    assert total == mapped.sum()
    assert resident(mapped.filename) > 0


def test_written_values_are_kept(tmp_path):
    out = np.memmap(tmp_path / "rates", dtype=np.float32, mode="w+", shape=(1000, 10))
    out[:] = 3
    let_go(out)
    assert (out == 3).all()


@pytest.mark.parametrize("n_bytes", [1, 100, 2**20])
@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3), (1, 4)])
def test_pieces_cover_the_array(shape, n_bytes):
    array = np.arange(np.prod(shape)).reshape(shape)
    assert_array_equal(np.concatenate(list(in_pieces(array, n_bytes))), array)


def test_extremes_leave_nan_out(monkeypatch):
    monkeypatch.setattr(out_of_core, "READ_BYTES", 16)
    assert extremes(np.array([[np.nan], [3.0], [-2.0], [np.nan]])) == (-2, 3)
    assert all(np.isnan(extremes(np.full((4, 2), np.nan))))


def test_rates_of_a_memory_map_are_in_an_unnamed_file(mapped, monkeypatch, tmp_path):
    monkeypatch.setattr(out_of_core, "LARGE_RESULT", 1000)
    monkeypatch.setattr(out_of_core.tempfile, "gettempdir", lambda: str(tmp_path))
    before = os.listdir(tmp_path)
    rates = empty_rates(mapped[:50])
    assert mapping_of(rates) is not None
    rates += 1
    assert (rates == 1).all()
    assert os.listdir(tmp_path) == before
    del rates
    gc.collect()
    assert type(empty_rates(np.array(mapped[:50]))) is np.ndarray
    assert type(empty_rates(mapped[:0])) is np.ndarray


def test_a_full_disk_raises_an_error_before_inference(mapped, monkeypatch):
    monkeypatch.setattr(out_of_core, "LARGE_RESULT", 1000)
    full = namedtuple("Usage", "free")(100)
    monkeypatch.setattr(out_of_core.shutil, "disk_usage", lambda folder: full)
    with pytest.raises(OSError, match=r"rates take .* GiB, .*TMPDIR"):
        empty_rates(mapped)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_an_estimator_treats_a_memory_map_as_the_array(small, spikes, monkeypatch, tmp_path, dtype):
    monkeypatch.setattr(out_of_core, "LARGE_RESULT", 100)
    monkeypatch.setattr("sklearn_stndt.inference.stitching.READ_BYTES", 1000)
    rows = spikes.reshape(-1, 12).astype(dtype)
    rows.tofile(tmp_path / "counts")
    mapped = np.memmap(tmp_path / "counts", dtype=dtype, mode="r", shape=rows.shape)
    expected = small(window=20).fit(rows)
    estimator = small(window=20).fit(mapped)
    rates = estimator.transform(mapped)
    assert isinstance(rates, np.memmap)
    assert rates.dtype == np.float32
    assert_array_equal(rates, expected.transform(rows).astype(np.float32))


@pytest.mark.parametrize(
    ("value", "message"),
    [(-1, "smallest is -1,"), (np.inf, "a count of inf"), (np.nan, "NaN every")],
)
def test_bad_values_in_a_memory_map_are_refused(small, tmp_path, value, message):
    rows = np.ones((100, 3), dtype=np.float32)
    rows[90, 1] = value
    if np.isnan(value):
        rows[:] = np.nan
    rows.tofile(tmp_path / "counts")
    mapped = np.memmap(tmp_path / "counts", dtype=np.float32, mode="r", shape=rows.shape)
    with pytest.raises(ValueError, match=message):
        small(window=20).fit(mapped)


SCRIPT = """
import re, sys
import numpy as np
from sklearn_stndt import STNDTEstimator

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 2**10  # MiB

X = np.memmap(sys.argv[1], dtype=np.uint8, mode="r", shape=(2**21, 128))
estimator = STNDTEstimator(window=128, max_epochs=1, batch_size=1, d_model=8, n_heads=1, n_layers=1)
estimator.set_params(dim_feedforward=8, attention="temporal", early_stopping=False)
before = peak()
estimator.fit(X)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_fit_needs_less_memory_than_the_file_is_long(tmp_path):
    with open(tmp_path / "counts", "wb") as file:
        file.truncate(2**28)  # 256 MiB of silence
    assert float(output_of("-c", SCRIPT, str(tmp_path / "counts"))) < 220
