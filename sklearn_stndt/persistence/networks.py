"""Trained networks: settings as JSON, weights as safetensors."""

import warnings
from typing import Any

import torch
from skorch.exceptions import DeviceWarning
from skorch.utils import get_map_location

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
_COMPILED = "_orig_mod."  # start of the names of all weights of a compiled network


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
        "weights": part,
    }


def decode(node: dict[str, Any], decoder: Any) -> MaskedModellingNet:
    """Restore a trained net, on its device if this machine has it, else on the CPU."""
    cls, module = class_of_name(node["class"]), class_of_name(node["module"])
    if not issubclass(cls, MaskedModellingNet) or not issubclass(module, torch.nn.Module):
        raise ValueError(f"its network is of the classes {cls.__name__} and {module.__name__}")
    params, history = decoder.decode(node["params"]), decoder.decode(node["history"])
    weights = extra("safetensors.torch").load(decoder.archive.read(node["weights"]))
    of_module = {
        name.removeprefix("module__"): value
        for name, value in params.items()
        if name.startswith("module__")
    }
    _check_shapes(module, of_module, weights)
    verbose = params.pop("verbose")
    params["device"] = _device_here(params["device"])
    net = cls(
        module,
        iterator_valid__collate_fn=keep_batch,
        callbacks=[],
        train_split=None,
        verbose=0,
        **params,
    )
    with isolated_torch(1, seed=0, device=params["device"]):
        net.initialize()  # draws weights, which are replaced
    net.module_.load_state_dict(weights)
    net.trim_for_prediction()
    net.history, net.interrupted_ = history, bool(node["interrupted"])
    return net.set_params(verbose=verbose)


def _check_shapes(module: type, params: dict[str, Any], weights: dict[str, Any]) -> None:
    """Compare the weights with those of the network, before memory is taken for the network."""
    for value in params.values():
        n_layers = getattr(value, "n_layers", 0)
        if n_layers > len(weights):
            raise ValueError(f"it has {len(weights)} weights for {n_layers} layers")
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        wanted = module(**params).state_dict()
    found = {name.removeprefix(_COMPILED): tensor for name, tensor in weights.items()}
    if wanted.keys() != found.keys():
        raise ValueError(f"its weights differ in {sorted(wanted.keys() ^ found.keys())[0]!r}")
    for name, tensor in wanted.items():
        if tensor.shape != found[name].shape or tensor.dtype != found[name].dtype:
            raise ValueError(
                f"its weights {name!r} are {found[name].dtype} {tuple(found[name].shape)}, not "
                f"{tensor.dtype} {tuple(tensor.shape)}"
            )


def _device_here(device: str) -> str:
    """Return the device if this machine has it, else the CPU, with the warning of skorch."""
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
