"""A device that is none: tensors on it are refused beside those of the CPU, as on a GPU.

`elsewhere` stands in for a GPU on machines without one. Its tensors hold tensors of the CPU, so
that results can be compared. For what a GPU would be waited for is recorded in `WAITS`. Importing
this module changes torch for the rest of the process.
"""

import contextlib
import traceback

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = "elsewhere"
WAITS: list[tuple[str, str]] = []  # what is waited for, and the function that does

aten = torch.ops.aten
VALUES_NEEDED = (
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.nonzero.default,
    aten.masked_select.default,
)
MOVES = (aten._to_copy.default, aten.copy_.default)
BY_INDEX = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default)


class Elsewhere(torch.Tensor):
    """Tensor on the device; `inner` holds its values."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )

    def __init__(self, inner):
        self.inner = inner

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class StandIn(TorchDispatchMode):
    """Context in which tensors can be made on the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        implicit = "CompositeImplicitAutograd"
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), implicit):
            with self:
                result = func.decompose(*args, **(kwargs or {}))
            if result is not NotImplemented:
                return result
        return run(func, args, kwargs or {})


def inner(value):
    return value.inner if isinstance(value, Elsewhere) else value


def run(func, args, kwargs):
    """Run an operation, as on two devices."""
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    there = [x for x in tensors if isinstance(x, Elsewhere)]
    to = kwargs.get("device")
    to_there = to is not None and torch.device(to).type == DEVICE
    if not there and not to_there:
        return func(*args, **kwargs)
    leaves = func is aten._to_copy.default and to is not None and not to_there
    by_mask = func is aten.index.Tensor and any(
        index is not None and index.dtype == torch.bool for index in args[1]
    )
    if func in VALUES_NEEDED or by_mask or leaves:
        WAITS.append(("copy" if leaves else "value", _caller()))
    if there:
        _check(func, args, kwargs, [x for x in tensors if not isinstance(x, Elsewhere)])
    changed = kwargs | {"device": "cpu"} if to_there else kwargs
    result = func(*tree_map(inner, args), **tree_map(inner, changed))
    if leaves:
        return result
    if func is aten.copy_.default:
        return args[0]
    same = {id(x.inner): x for x in there}  # operations in place return what they got

    def outer(value):
        if not isinstance(value, torch.Tensor):
            return value
        found = same.get(id(value))
        return Elsewhere(value) if found is None else found

    return tree_map(outer, result)


def _check(func, args, kwargs, here):
    """Refuse what a GPU refuses."""
    if func in MOVES:
        return
    if func in BY_INDEX:  # indices may be on the CPU
        here = [x for x in here if x is args[0]]
    elif torch.Tag.pointwise in func.tags or "_foreach_" in func.name():  # and so may numbers
        here = [x for x in here if x.ndim]
    if here:
        raise RuntimeError(f"{func}: tensors on two devices")
    if kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: a generator of another device")


def _caller():
    names = [
        frame.name
        for frame in traceback.extract_stack()
        if "/sklearn_stndt/" in frame.filename or "/skorch/" in frame.filename
    ]
    named = [name for name in names if not name.startswith("<")]
    return named[-1] if named else ""


def _empty(size, **kwargs):
    return Elsewhere(torch.empty(size, dtype=kwargs.get("dtype")))


def _empty_strided(size, stride, **kwargs):
    return Elsewhere(torch.empty_strided(size, stride, dtype=kwargs.get("dtype")))


def _copy_from(source, target, non_blocking=False):
    inner(target).copy_(inner(source))
    return target


backend_registration._setup_privateuseone_for_python_backend(DEVICE)
torch.autograd.set_multithreading_enabled(False)
# for operations in which torch leaves the context
_LIBRARY = torch.library.Library("aten", "IMPL")
_LIBRARY.impl("empty.memory_format", _empty, "PrivateUse1")
_LIBRARY.impl("empty_strided", _empty_strided, "PrivateUse1")
_LIBRARY.impl("_copy_from", _copy_from, "PrivateUse1")


def _inference_mode(mode=True):
    return torch.no_grad() if mode else contextlib.nullcontext()


torch.inference_mode = _inference_mode  # cannot hold tensors of Python
