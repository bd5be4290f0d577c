import os
import platform
import sys

import numpy as np
import pytest
from subprocesses import output_of

from sklearn_stndt.network import STNDT
from sklearn_stndt.training import memory
from sklearn_stndt.training.memory import available_memory, check_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_linux_names_the_available_memory():
    assert 2**20 < available_memory() < 2**50


def test_available_memory_is_none_if_the_system_does_not_report_it(monkeypatch, tmp_path):
    meminfo = tmp_path / "meminfo"
    monkeypatch.setattr(memory, "Path", lambda path: meminfo)
    assert available_memory() is None
    meminfo.write_text("MemTotal: 8 kB\n")
    assert available_memory() is None
    meminfo.write_text("MemTotal: 8 kB\nMemAvailable:    3 kB\n")
    assert available_memory() == 3 * 1024


def test_a_window_that_cannot_fit_is_refused_before_training(small, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 10 * 2**20)
    with pytest.raises(MemoryError, match=r"400 bins of 5 neurons takes about .* GiB.*window="):
        small(n_heads=4).fit(np.ones((3, 400, 5)))


def test_no_window_is_refused_if_the_memory_is_unknown(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    check_memory(STNDT(4, 4), 10**6, 4)


def test_freed_memory_is_reused_by_the_next_step():
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("the C library is not glibc")
    steps = (
        "import resource, torch\n"
        "from sklearn_stndt.training.memory import reuse_memory\n"
        "def faults_of(n_steps):\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(n_steps):\n"
        "        kept = [torch.ones(2**18) for _ in range(40)]\n"  # 40 MiB in blocks of 1 MiB
        "        del kept\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "faults_of(1)\n"
        "before = faults_of(10)\n"
        "reuse_memory()\n"
        "faults_of(1)\n"
        "print(before, faults_of(10))\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    before, after = map(int, output_of("-c", steps, env=environment).split())
    assert after < before / 10
