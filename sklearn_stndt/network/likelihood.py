"""How counts are distributed around the rates: loss, null model, start, and expected value.

A likelihood is one class here and one line in `LIKELIHOODS`. The network's read-out gives one
number a neuron and bin, which the likelihood turns into an expected count.
"""

import torch
from torch import Tensor, nn

MAX_LOG_RATE = 15.0  # e^15 spikes per bin: no recording reaches it, and float32 holds its square
MIN_LOG_RATE = -80.0  # e^-80 is above 0 in float32, so that every rate has a logarithm


class Likelihood(nn.Module):
    """What the network and its training ask of a distribution of counts.

    Parameters
    ----------
    n_neurons : int
        Neurons of the population, for likelihoods that learn something of each.
    """

    def __init__(self, n_neurons: int):
        super().__init__()

    def start(self, mean: Tensor) -> Tensor:
        """Read-out at which each neuron has its mean count, above 0."""
        raise NotImplementedError

    def limit(self, readout: Tensor) -> Tensor:
        """Keep the read-out where expected counts are finite."""
        raise NotImplementedError

    def mean(self, readout: Tensor) -> Tensor:
        """Expected counts."""
        raise NotImplementedError

    def nll(self, readout: Tensor, spikes: Tensor) -> Tensor:
        """Negative log-likelihood of each entry, without terms that have no gradient."""
        raise NotImplementedError

    def null_nll(self, n_spikes: Tensor, n_entries: Tensor) -> Tensor:
        """Negative log-likelihood of each neuron's entries by their mean, as `nll` counts it.

        Parameters
        ----------
        n_spikes, n_entries : Tensor, shape (n_neurons,)
            Spikes, and entries, that are scored.
        """
        raise NotImplementedError


class Poisson(Likelihood):
    r"""Counts are Poisson; the read-out is the logarithm of the rate.

    The loss is :math:`e^{r} - s\,r` for a log-rate r and a count s.
    """

    def start(self, mean: Tensor) -> Tensor:
        return mean.log()

    def limit(self, readout: Tensor) -> Tensor:
        return readout.clamp(max=MAX_LOG_RATE)

    def mean(self, readout: Tensor) -> Tensor:
        return readout.clamp(min=MIN_LOG_RATE).exp()

    def nll(self, readout: Tensor, spikes: Tensor) -> Tensor:
        return torch.exp(readout) - spikes * readout

    def null_nll(self, n_spikes: Tensor, n_entries: Tensor) -> Tensor:
        return n_spikes - torch.xlogy(n_spikes, n_spikes / n_entries.clamp(min=1))


LIKELIHOODS: dict[str, type[Likelihood]] = {"poisson": Poisson}
