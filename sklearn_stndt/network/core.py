"""The core of the network: all of it that is not tied to neurons, so that populations can share it.

The rest, the *ends*, belongs to one population: scaling and tokens of the input, the embedding, the
map from neurons after spatial attention, and the readout.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sklearn_stndt.network.model import STNDT

# settings that determine the shapes and the meaning of the core's weights
CORE_SETTINGS = (
    "n_layers",
    "n_heads",
    "d_model",
    "dim_feedforward",
    "attention",
    "context",
    "local_attention",
    "spatial_layers",
    "n_spatial_heads",
    "d_spatial",
    "input_scaling",
    "causal",
    "likelihood",
)


def core_modules(network: STNDT) -> dict[str, nn.Module]:
    """Return the parts of a network whose weights do not depend on its neurons, by name.

    Parameters
    ----------
    network : STNDT
        The network; its width must not be the number of neurons (`d_model=None`).

    Returns
    -------
    dict of str to Module
    """
    names = ["positions", "layers", "norm"]
    if network.mix_last is not None:
        names += ["mix_last.norm", "mix_last.attention"]
    if network.mix_every is not None:
        names += ["mix_every.embed_courses", "mix_every.norms", "mix_every.feed_forwards"]
        for i in range(len(network.mix_every.mixings)):
            names += [f"mix_every.mixings.{i}.norm", f"mix_every.mixings.{i}.attention"]
    return {name: network.get_submodule(name) for name in names}


def share_core(network: STNDT, source: STNDT) -> None:
    """Replace the core of a network by that of another, so that both hold the same modules."""
    for name, module in core_modules(source).items():
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, module)


@torch.no_grad()
def copy_core(network: STNDT, source: STNDT) -> None:
    """Copy the weights of another network's core; both must have the same `CORE_SETTINGS`.

    The bias of the embedding, which is not tied to neurons either, is copied as a start. A network
    with fewer positions gets the last of them.
    """
    theirs = core_modules(source)
    for name, module in core_modules(network).items():
        if name == "positions":
            n_positions = len(network.positions.weight)
            network.positions.weight.copy_(source.positions.weight[-n_positions:])
        else:
            module.load_state_dict(theirs[name].state_dict())
    network.embed.bias.copy_(source.embed.bias)


def core_parameters(network: STNDT) -> Iterator[nn.Parameter]:
    """Iterate over the weights of the core."""
    for module in core_modules(network).values():
        yield from module.parameters()


@torch.no_grad()
def with_more_neurons(network: STNDT, n_bins: int, weight: Tensor, bias: Tensor) -> STNDT:
    """Copy of a network that also infers rates of further neurons, from the same latents.

    The further neurons have no weights in the embedding and no tokens. They must always be hidden.

    Parameters
    ----------
    network : STNDT
        The network; its width must not be the number of neurons (`d_model=None`).
    n_bins : int
        Bins of its windows.
    weight : Tensor, shape (n_new, d_model)
        Weights of the readout of the further neurons.
    bias : Tensor, shape (n_new,)
        Their biases.
    """
    n_known = network.readout.out_features
    n_positions = len(network.positions.weight)
    larger = type(network)(
        n_known + len(weight), n_bins, network.settings, n_positions=n_positions
    ).to(network.readout.weight.device)
    known = network.state_dict()
    for name, values in larger.state_dict().items():
        values.fill_(1.0 if name in ("scaling.scale", "readout.gain") else 0.0)
        values[tuple(slice(size) for size in known[name].shape)] = known[name]
    larger.readout.weight[n_known:] = weight
    larger.readout.bias[n_known:] = bias
    larger.likelihood.start_mean[n_known:] = bias.exp()
    if network.posterior is not None:
        larger.posterior = network.posterior.with_more_neurons(len(weight))
    return larger.requires_grad_(True).train(network.training)
