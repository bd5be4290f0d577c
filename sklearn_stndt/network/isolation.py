"""Repeatable results from torch, with its global state restored afterwards."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# torch has one default generator and thread count per process: one Python thread at a time
_TORCH_STATE = threading.RLock()


@contextmanager
def isolated_torch(
    n_threads: int, seed: int | None = None, device: str = "cpu", precision: str = "float32"
) -> Iterator[None]:
    """Run torch with a given thread count and seed, then restore the global state.

    The number of threads determines the order of summation, so results repeat exactly only with
    the same number. Calls from several Python threads wait for each other.

    Parameters
    ----------
    n_threads : int
        Threads of torch on the CPU inside the block.
    seed : int or None, default=None
        Seed of torch's default generators inside the block; None: no seeding.
    device : str, default="cpu"
        Device whose generator is seeded in addition to the CPU's.
    precision : {"float32", "bfloat16"}, default="float32"
        Precision of the factors in matrix products; sums and all else stay in float32. No effect
        without hardware support for bfloat16.
    """
    with _TORCH_STATE:
        threads_before = torch.get_num_threads()
        precision_before = torch.get_float32_matmul_precision()
        torch.set_num_threads(n_threads)
        torch.set_float32_matmul_precision("medium" if precision == "bfloat16" else "highest")
        kind = torch.device(device).type
        devices = [torch.device(device)] if kind == "cuda" else []
        try:
            with torch.random.fork_rng(devices=devices, enabled=seed is not None):
                if seed is not None:
                    # torch.manual_seed would seed every device, without restoring them
                    torch.default_generator.manual_seed(seed)
                    for cuda_device in devices:
                        with torch.cuda.device(cuda_device):
                            torch.cuda.manual_seed(seed)
                yield
        finally:
            torch.set_num_threads(threads_before)
            torch.set_float32_matmul_precision(precision_before)
