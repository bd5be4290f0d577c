"""Memory of the machine: refuse training that needs more than is available."""

from pathlib import Path

import torch

from sklearn_stndt.network import STNDT
from sklearn_stndt.network.cost import training_bytes

REUSED_BYTES = 31 * 2**20  # glibc does not adapt its threshold to blocks of 32 MiB or more


def available_memory() -> int | None:
    """Bytes available without swapping; None if the system does not report them."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(sizes["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in sizes else None


def reuse_memory() -> None:
    """Make the C library keep freed memory for the next training step.

    glibc returns memory to the system if the unused end of the heap exceeds twice the largest block
    that was mapped and freed. Steps on larger recordings free more than that; getting the pages
    back took 5 % of the time in a measurement. With other C libraries this does nothing.
    """
    torch.empty(REUSED_BYTES, dtype=torch.uint8)


def check_memory(module: STNDT, n_bins: int, n_neurons: int) -> None:
    """Refuse a window that is too large to train on, before the system kills the process.

    Raises
    ------
    MemoryError
        If training on a single window needs more memory than is available.
    """
    needed, available = training_bytes(module, n_bins, n_neurons), available_memory()
    if available is not None and needed > available:
        raise MemoryError(
            f"Training on a window of {n_bins} bins of {n_neurons} neurons takes about "
            f"{needed / 2**30:.1f} GiB, but only {available / 2**30:.1f} GiB are free. Pass a "
            "smaller window (e.g. window=128), fewer neurons, or a smaller d_model."
        )
