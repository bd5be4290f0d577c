"""State of a training between two epochs, in values that are stored without pickles."""

from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from torch import Tensor

_DROPPED = object()


def plain(value: Any) -> Any:
    """Copy a value that consists of numbers, strings, tensors and containers of these.

    Entries of a dict that consist of anything else are left out; other such values give a marker
    that is left out of dicts as well.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)  # of a subclass too, which could not be read
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        copied = {k: plain(v) for k, v in value.items() if isinstance(k, str | int)}
        return {k: v for k, v in copied.items() if v is not _DROPPED}
    if isinstance(value, list | tuple):
        items = [plain(item) for item in value]
        if any(item is _DROPPED for item in items):
            return _DROPPED
        return items if isinstance(value, list) else tuple(items)
    return _DROPPED


def capture(net: NeuralNet, without: Any = None) -> dict[str, Any]:
    """Copy weights, state of callbacks and state of random generators.

    Of a callback these are the attributes whose names end in an underscore: plain values, and
    objects with a `state_dict`, such as learning rate schedules.

    Parameters
    ----------
    net : NeuralNet
        A net in training.
    without : Callback, default=None
        Callback that is left out.
    """
    return {
        "module": plain(net.module_.state_dict()),
        "callbacks": {
            name: _state_of(callback)
            for name, callback in net.callbacks_
            if callback is not without
        },
        "random": _random_state(torch.device(net.device)),
    }


def restore(net: NeuralNet, state: dict[str, Any]) -> None:
    """Set weights, state of callbacks and state of random generators."""
    net.module_.load_state_dict(state["module"])
    for name, callback in net.callbacks_:
        values, states = state["callbacks"].get(name, ({}, {}))
        vars(callback).update(plain(values))
        for attribute, of_attribute in states.items():
            getattr(callback, attribute).load_state_dict(plain(of_attribute))
    torch.set_rng_state(state["random"]["cpu"])
    if "cuda" in state["random"]:
        torch.cuda.set_rng_state(state["random"]["cuda"], net.device)


def _state_of(callback: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Plain attributes of a callback, and the `state_dict` of others."""
    values, states = {}, {}
    for name, value in vars(callback).items():
        if not name.endswith("_") or isinstance(value, type):
            continue
        if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
            states[name] = plain(value.state_dict())
        elif (copied := plain(value)) is not _DROPPED:
            values[name] = copied
    return values, states


def _random_state(device: torch.device) -> dict[str, Tensor]:
    """State of torch's default generators."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states
