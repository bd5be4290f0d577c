"""Trained networks: settings as JSON, weights as safetensors."""

import math
import warnings
from itertools import zip_longest
from typing import Any

import torch
from skorch.exceptions import DeviceWarning
from skorch.utils import get_map_location
from torch.overrides import TorchFunctionMode

from sklearn_stndt.network.isolation import isolated_torch
from sklearn_stndt.persistence.extras import extra
from sklearn_stndt.persistence.refusals import refusal
from sklearn_stndt.persistence.registry import class_of_name, name_of_class
from sklearn_stndt.training.net import MaskedModellingNet, keep_batch

# parameters of a net that only training needs; a trained net no longer has all of them
_OF_TRAINING = {
    "callbacks",
    "criterion",
    "dataset",
    "iterator_train",
    "iterator_valid",
    "optimizer",
    "predict_nonlinearity",
    "torch_load_kwargs",
    "train_split",
    "use_caching",
    "warm_start",
}


def encode(net: MaskedModellingNet, encoder: Any, where: str) -> dict[str, Any]:
    """Return what restores a trained net, and write its weights.

    Parameters
    ----------
    net : MaskedModellingNet
    encoder : Encoder
        Encodes the parameters, and writes the weights.
    where : str
        Place of the net in errors.
    """
    module = name_of_class(net.module) if isinstance(net.module, type) else None
    if module is None:
        raise refusal(net.module, f"{where}.module")
    params = {
        name: value
        for name, value in net.get_params(deep=False).items()
        if name != "module"
        and not name.startswith("_")
        and name.partition("__")[0] not in _OF_TRAINING
    }
    weights = {
        # in memory of their own, as the format requires
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in net.module_.state_dict().items()
    }
    part = encoder.add_part("weights", "safetensors", extra("safetensors.torch").save(weights))
    return {
        "class": name_of_class(type(net)),
        "module": module,
        "params": encoder.encode(params, where),
        "history": encoder.encode(net.history, f"{where}.history"),
        "interrupted": bool(net.interrupted_),
        "diverged": net.diverged_,
        "weights": part,
    }


def decode(node: dict[str, Any], decoder: Any) -> MaskedModellingNet:
    """Restore a trained net, on its device if this machine has it, else on the CPU."""
    cls, module = class_of_name(node["class"]), class_of_name(node["module"])
    if not issubclass(cls, MaskedModellingNet) or not issubclass(module, torch.nn.Module):
        raise ValueError(f"its network is of the classes {cls.__name__} and {module.__name__}")
    params, history = decoder.decode(node["params"]), decoder.decode(node["history"])
    weights = extra("safetensors.torch").load(decoder.archive.read(node["weights"]))
    n_layers = max(getattr(value, "n_layers", 0) for value in params.values())
    if n_layers > len(weights):
        raise ValueError(f"it has {len(weights)} weights for {n_layers} layers")
    verbose, device = params.pop("verbose"), _device_here(params.pop("device"))
    net = cls(
        module,
        iterator_valid__collate_fn=keep_batch,
        callbacks=[],
        train_split=None,
        optimizer=_NoOptimizer,
        verbose=0,
        device="cpu",
        **params,
    )
    # weights are drawn, and then replaced
    with isolated_torch(1, seed=0), _Limited(sum(tensor.numel() for tensor in weights.values())):
        net.initialize()
    try:
        net.module_.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"its weights do not fit its network: {error}") from error
    net.module_.to(device)
    net.trim_for_prediction()
    net.history, net.interrupted_ = history, bool(node["interrupted"])
    net.diverged_ = str(node["diverged"])
    net.device, net.verbose = device, verbose
    return net


class _NoOptimizer:
    """Stands for the optimizer until the net is trimmed; a real one takes seconds to import."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass


class _Limited(TorchFunctionMode):
    """Refuses to make tensors that are larger than all weights in the file together.

    Parameters
    ----------
    n_weights : int
        Number of weights in the file.
    """

    def __init__(self, n_weights: int):
        super().__init__()
        self.limit = 4 * n_weights + 1024  # the network also makes tensors that it does not keep
        self.made = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        values = [*args, *(kwargs or {}).values()]
        shapes = [value.shape[::-1] for value in values if isinstance(value, torch.Tensor)]
        axes = [max(axis) for axis in zip_longest(*shapes, fillvalue=1)]
        items = [v for value in values for v in (value if isinstance(value, tuple) else [value])]
        sizes = [size for size in items if type(size) is int and size > 1]
        self.made += 0 if shapes else math.prod(sizes)
        if max(self.made, math.prod(axes), math.prod(sizes)) > self.limit:
            raise ValueError("its network is larger than its weights")
        return func(*args, **(kwargs or {}))


def _device_here(device: str) -> str:
    """Return the device if this machine has it, else the CPU, with the warning of skorch."""
    if torch.device(device).type == "meta":
        raise ValueError("its network is on the device 'meta', which has no weights")
    found = str(get_map_location(device))
    try:
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError):
        warnings.warn(
            f"The network was on the device {found!r}, which is not on this machine. It is loaded "
            "on 'cpu'.",
            DeviceWarning,
            stacklevel=2,
        )
        return "cpu"
    return found
