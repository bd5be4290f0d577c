"""Layers tied to the population of neurons: input scaling, readout, and map from neurons."""

import math

import torch
from torch import Tensor, nn


class InputScaling(nn.Module):
    """Scale counts, and replace hidden ones by a learned token per neuron.

    Parameters
    ----------
    n_neurons : int
        Neurons of the population.
    kind : {"sqrt", "standardized", "counts"}
        As `input_scaling` of :class:`~sklearn_stndt.network.NetworkSettings`.
    root : bool, default=True
        Whether square roots are taken, unless `kind` is "counts".
    """

    center: Tensor
    scale: Tensor

    def __init__(self, n_neurons: int, kind: str, root: bool = True):
        super().__init__()
        self.kind = kind
        self.root = root
        self.token = nn.Parameter(torch.zeros(n_neurons), requires_grad=kind != "counts")
        self.register_buffer("center", torch.zeros(n_neurons))
        self.register_buffer("scale", torch.ones(n_neurons))

    @torch.no_grad()
    def set_statistics(self, center: Tensor, scale: Tensor) -> None:
        """Set mean and standard deviation of the square roots of the counts, or of the entries.

        Parameters
        ----------
        center, scale : Tensor, shape (n_neurons,)
            Mean and standard deviation of each neuron.
        """
        if self.kind == "counts":
            self.scale.fill_(1 / math.sqrt(len(center)))
            return
        self.center.copy_(center)
        # square roots of Poisson counts have a variance of 1/4 at all but the lowest rates
        self.scale.copy_(scale if self.kind == "standardized" else torch.tensor(0.5))

    def forward(self, spikes: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        """Scale counts.

        Parameters
        ----------
        spikes : Tensor, shape (batch, n_bins, n_neurons)
            Counts per bin.
        shown : Tensor, same shape
            1 where visible, else 0.

        Returns
        -------
        entering : Tensor, same shape
            Scaled counts, tokens where hidden.
        values : Tensor, same shape
            Scaled counts, 0 where hidden.
        """
        spikes = spikes.nan_to_num(0.0, 0.0, 0.0) * shown
        if self.kind == "counts":  # hidden entries are 0
            values = spikes / self.scale
            return values, values
        if not self.root:
            roots = spikes
        elif torch.compiler.is_compiling():  # other software may round 1e-30 to 0
            roots = spikes.sqrt()
        else:  # ten times as fast on a CPU where counts are 0
            roots = spikes * (spikes + 1e-30).rsqrt()
        values = (roots - self.center) / self.scale * shown
        return torch.addcmul(values, 1 - shown, self.token), values


class ReadOut(nn.Linear):
    """From the residual stream to one number per neuron, with gain and shift set after training.

    Parameters
    ----------
    width : int
        Width of the residual stream.
    n_neurons : int
        Neurons of the population.
    """

    gain: Tensor
    shift: Tensor

    def __init__(self, width: int, n_neurons: int):
        super().__init__(width, n_neurons)
        nn.init.uniform_(self.weight, -0.05, 0.05)
        self.register_buffer("gain", torch.ones(n_neurons))
        self.register_buffer("shift", torch.zeros(n_neurons))

    def forward(self, x: Tensor) -> Tensor:
        # (batch, n_bins, n_neurons)
        return torch.addcmul(self.shift, self.gain, super().forward(x))


class FromNeurons(nn.Linear):
    """From one channel per neuron back to the residual stream; initialised to zero.

    Training thus starts with the temporal network.
    """

    def __init__(self, n_neurons: int, width: int):
        super().__init__(n_neurons, width)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)
