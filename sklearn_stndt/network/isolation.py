"""Repeatable results from torch, with its global state restored afterwards."""

import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# torch has one default generator and thread count per process: one Python thread at a time
_torch_state = threading.RLock()
_holder: int | None = None  # Python thread that has the lock
_most_threads = 1  # largest number of torch's threads in this process so far
_child_of_busy = False  # forked while another Python thread was inside `isolated_torch`
_child_of_threaded = False  # forked from a process with several of torch's threads
# how torch and the libraries of devices begin their own errors
_OF_MEMORY = re.compile("out of memory|DefaultCPUAllocator|can't allocate memory")
_OF_DEVICE = re.compile("CUDA|cuDNN|CUDNN|CUBLAS|CUSOLVER|HIP error|ROCm|MPS|XPU|accelerator")


class DeviceError(RuntimeError):
    """The device failed, not the training."""


@contextmanager
def device_errors(device: str) -> Iterator[None]:
    """Say of an error of the device that it is one, and what to do.

    Raises
    ------
    MemoryError
        If the device has run out of memory.
    DeviceError
        If it has failed otherwise.
    """
    try:
        yield
    except DeviceError:  # said already, by an inner block
        raise
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(". ")
        of_cpu = torch.device(device).type == "cpu"
        elsewhere = "" if of_cpu else ", or train on the CPU with device='cpu'"
        if isinstance(error, torch.cuda.OutOfMemoryError) or _OF_MEMORY.search(reason):
            raise MemoryError(
                f"The device {device!r} ran out of memory during fit or inference: {reason}. Pass "
                f"a smaller batch_size or window{elsewhere}. Other processes may be using its "
                "memory, such as members of an ensemble with n_jobs above 1."
            ) from error
        if not of_cpu and (_OF_DEVICE.search(reason) or _is_of_accelerator(error)):
            raise DeviceError(
                f"The device {device!r} failed: {reason}. Fit with device='cpu', or see whether "
                "torch itself works on this device."
            ) from error
        raise


def _is_of_accelerator(error: RuntimeError) -> bool:
    kind = getattr(torch, "AcceleratorError", None)  # from torch 2.8 on
    return kind is not None and isinstance(error, kind)


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
        Threads of torch on the CPU inside the block. In a process that was forked from one with
        several threads, it is 1, with a warning.
    seed : int or None, default=None
        Seed of torch's default generators inside the block; None: no seeding.
    device : str, default="cpu"
        Device whose generator is seeded in addition to the CPU's.
    precision : {"float32", "bfloat16"}, default="float32"
        Precision of the factors in matrix products; sums and all else stay in float32. No effect
        without hardware support for bfloat16.

    Raises
    ------
    RuntimeError
        If this process was forked while another Python thread was inside the block, or if the
        device fails.
    MemoryError
        If the device runs out of memory.
    """
    global _holder, _most_threads
    n_threads = _usable_threads(n_threads)
    with device_errors(device), _torch_state:
        holder_before, _holder = _holder, threading.get_ident()
        threads_before = torch.get_num_threads()
        precision_before = torch.get_float32_matmul_precision()
        _most_threads = max(_most_threads, n_threads)
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
            _holder = holder_before


def _usable_threads(n_threads: int) -> int:
    """Return the number of threads that does not hang after a fork."""
    if _child_of_busy:
        raise RuntimeError(
            "This process was forked while another thread of its parent was fitting or inferring "
            "rates, so torch may wait here for ever. Fork before, or start processes by "
            "multiprocessing.get_context('spawn') or joblib's default backend."
        )
    if n_threads > 1 and _child_of_threaded:
        warnings.warn(
            f"n_threads={n_threads}: 1 is used, because this process was forked from one with "
            "several threads of torch, which do not exist here. The last bits of results may "
            "differ. Start processes by multiprocessing.get_context('spawn') or joblib's default "
            "backend to use more.",
            stacklevel=3,
        )
        return 1
    return n_threads


def _after_fork() -> None:
    """Record in a forked process what it lacks: the other threads of its parent."""
    global _torch_state, _holder, _child_of_busy, _child_of_threaded
    if _holder != threading.get_ident():
        _child_of_busy |= _holder is not None
        _torch_state, _holder = threading.RLock(), None  # nobody would release the old one
    # operations outside of `isolated_torch` may have started threads, too
    _child_of_threaded |= max(_most_threads, torch.get_num_threads()) > 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
