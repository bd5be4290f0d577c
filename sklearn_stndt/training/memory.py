"""Memory of the machine: what a training would take is refused if it is not there."""

from pathlib import Path

import torch

from sklearn_stndt.network import STNDT
from sklearn_stndt.network.cost import training_bytes

REUSED_BYTES = 31 * 2**20  # glibc takes no block of 32 MiB or more for a measure


def available_memory() -> int | None:
    """Bytes that new work can have without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(sizes["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in sizes else None


def reuse_memory() -> None:
    """Have the C library keep what one step frees for the next, instead of returning it.

    glibc gives memory back to the system once twice the largest block that was mapped and freed is
    unused at the end of the heap. Steps on larger recordings free more than that, and to get those
    pages again took 5 % of the time where it was measured. Elsewhere this does nothing.
    """
    torch.empty(REUSED_BYTES, dtype=torch.uint8)


def check_memory(module: STNDT, n_bins: int, n_neurons: int) -> None:
    """Refuse a window that cannot be trained on, instead of being ended by the system.

    Raises
    ------
    MemoryError
        If a single window takes more than there is.
    """
    needed, available = training_bytes(module, n_bins, n_neurons), available_memory()
    if available is not None and needed > available:
        raise MemoryError(
            f"Training on a window of {n_bins} bins of {n_neurons} neurons takes about "
            f"{needed / 2**30:.1f} GiB, and {available / 2**30:.1f} GiB are free. Pass a smaller "
            "window (e.g. window=128), fewer neurons, or a smaller d_model."
        )
