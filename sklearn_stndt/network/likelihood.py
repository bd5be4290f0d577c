"""Distribution of counts given rates: loss, null model, initial readout, expected count.

A likelihood is one class here and one entry in `LIKELIHOODS`. The network's readout gives one
number per neuron and bin, which the likelihood turns into an expected count.
"""

import torch
from torch import Tensor, nn

MAX_LOG_RATE = 15.0  # e^15 spikes per bin: above any recording, its square finite in float32
MIN_LOG_RATE = -80.0  # e^-80 is above 0 in float32, so every rate has a logarithm


class Likelihood(nn.Module):
    """Interface of a distribution of counts.

    Parameters
    ----------
    n_neurons : int
        Number of neurons, for likelihoods with parameters per neuron.
    """

    def __init__(self, n_neurons: int):
        super().__init__()

    def start(self, mean: Tensor) -> Tensor:
        """Initial readout for mean counts, above 0; both of shape (n_neurons,)."""
        raise NotImplementedError

    def limit(self, readout: Tensor) -> Tensor:
        """Clip the readout, of any shape, so that expected counts are finite."""
        raise NotImplementedError

    def mean(self, readout: Tensor) -> Tensor:
        """Expected counts, in the shape of the readout."""
        raise NotImplementedError

    def nll(self, readout: Tensor, spikes: Tensor) -> Tensor:
        """Negative log-likelihood of each entry, without terms independent of the readout.

        Parameters
        ----------
        readout : Tensor, shape (..., n_bins, n_neurons)
            From the network.
        spikes : Tensor, broadcastable to that shape
            Counts per bin.
        """
        raise NotImplementedError

    def null_nll(self, n_spikes: Tensor, n_entries: Tensor) -> Tensor:
        """Negative log-likelihood of entries at each neuron's mean; omits the same terms as `nll`.

        Parameters
        ----------
        n_spikes, n_entries : Tensor, shape (n_neurons,)
            Number of scored spikes and of scored entries.

        Returns
        -------
        Tensor, shape (n_neurons,)
        """
        raise NotImplementedError


class Poisson(Likelihood):
    r"""Poisson counts; the readout is the logarithm of the rate.

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
