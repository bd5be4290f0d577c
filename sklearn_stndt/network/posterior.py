"""Log-rates by Gaussian-process factor analysis, with loadings from a trained network."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sklearn_stndt.network.likelihood import Likelihood

N_LATENTS = 12
MOST_FUNCTIONS = 64  # of time, for each latent
SCALE = 1.5  # of prior variances: inferred latents vary less than true ones
N_STEPS = 10
CAUTION = 3.0  # curvature is taken as this many times its diagonal, so that steps do not overshoot
LEAST_RATE = 1e-6  # spikes per bin, of a silent neuron; or other information
LEAST_VARIANCE = 1e-4  # of a function whose amplitude is read from the network's log-rates


class LatentPosterior(nn.Module):
    r"""Infers latents of a window by their likelihood, and mixes log-rates with the network's.

    A network learns from few trials how to infer rates from counts, and makes errors in it. Another
    way is explicit: latents :math:`z` with a Gaussian-process prior are moved uphill on

    .. math:: \sum_{tn} \log p(s_{tn} | r_{tn}) + \log p(z), \qquad r_t = c + L (m_t + z_t),

    over visible counts :math:`s`, from the latents of the network in the bins that have any; for
    Poisson counts, :math:`\log p(s | r) = s r - e^r`. Other likelihoods have counts or signals, and
    a readout instead of log-rates.
    Loadings :math:`L`, means and autocovariances come from the log-rates of the network in training
    windows. The errors of both differ, so that a weighted mean of log-rates is better than either.

    Parameters
    ----------
    n_neurons, n_bins, n_latents, n_functions : int
        Neurons, bins of a window, latents, and functions of time whose sum is a latent.

    Attributes
    ----------
    weight : Tensor, shape (n_neurons,)
        Share of the log-rates that is inferred in this way.
    center : Tensor, shape (n_neurons,)
        Mean log-rates c.
    loadings : Tensor, shape (n_neurons, n_latents)
    rates : Tensor, shape (n_neurons,)
        Mean information of a bin about the log-rate; of Poisson counts, mean spikes per bin.
    mean : Tensor, shape (n_bins, n_latents)
        Mean latents of a window.
    functions : Tensor, shape (n_latents, n_bins, n_functions)
        Eigenfunctions of the autocovariances, times standard deviations.

    References
    ----------
    B. Yu et al., "Gaussian-process factor analysis for low-dimensional single-trial analysis of
    neural population activity", Journal of Neurophysiology 2009. Y. Zhao, I. M. Park, "Variational
    latent Gaussian process for recovering single-trial dynamics from population spike trains",
    Neural Computation 2017.
    """

    weight: Tensor
    center: Tensor
    loadings: Tensor
    rates: Tensor
    mean: Tensor
    functions: Tensor

    def __init__(self, n_neurons: int, n_bins: int, n_latents: int, n_functions: int):
        super().__init__()
        self.register_buffer("weight", torch.zeros(n_neurons))
        self.register_buffer("center", torch.zeros(n_neurons))
        self.register_buffer("loadings", torch.zeros(n_neurons, n_latents))
        self.register_buffer("rates", torch.zeros(n_neurons))
        self.register_buffer("mean", torch.zeros(n_bins, n_latents))
        self.register_buffer("functions", torch.zeros(n_latents, n_bins, n_functions))

    @classmethod
    def shaped_like(
        cls, state: Mapping[str, Tensor], prefix: str, n_neurons: int
    ) -> "LatentPosterior":
        """Return an empty one, into which the state of another can be loaded.

        Parameters
        ----------
        state : mapping of Tensor
            With the buffers of another, whose names begin with `prefix`; it may be of any file.
        prefix : str
        n_neurons : int
            Of the network.

        Raises
        ------
        RuntimeError
            If buffers are missing, or their shapes do not fit each other or the network.
        """
        names = list(dict(cls(1, 1, 1, 1).named_buffers()))
        shapes = {
            name: tuple(state[prefix + name].shape) for name in names if prefix + name in state
        }
        sizes = shapes.get("functions", ())
        fits = (
            len(sizes) == 3
            and min(sizes) > 0
            and shapes
            == {
                "weight": (n_neurons,),
                "center": (n_neurons,),
                "loadings": (n_neurons, sizes[0]),
                "rates": (n_neurons,),
                "mean": (sizes[1], sizes[0]),
                "functions": sizes,
            }
        )
        if not fits:
            raise RuntimeError(
                f"its posterior has arrays of the shapes {shapes}, which do not fit each other or "
                f"its {n_neurons} neurons"
            )
        return cls(n_neurons, sizes[1], sizes[0], sizes[2])

    @classmethod
    @torch.no_grad()
    def of(cls, log_rates: Tensor, known: Tensor, likelihood: Likelihood) -> "LatentPosterior":
        """Principal components of log-rates, and their autocovariances.

        Parameters
        ----------
        log_rates : Tensor, shape (n_windows, n_bins, n_neurons)
            Of the network in training windows, on the CPU.
        known : Tensor of bool, same shape
            Entries that have a count; bins without any are left out.
        likelihood : Likelihood
            Of the neurons, on the CPU.
        """
        _, n_bins, n_neurons = log_rates.shape
        n_latents = min(N_LATENTS, n_neurons)
        self = cls(n_neurons, n_bins, n_latents, min(n_bins, MOST_FUNCTIONS))
        counted = known.to(log_rates.dtype)
        n_known = counted.sum((0, 1)).clamp(min=1)
        self.center.copy_((log_rates * counted).sum((0, 1)) / n_known)
        of_entries = likelihood.information(log_rates) * counted
        self.rates.copy_(of_entries.sum((0, 1)) / n_known).clamp_(min=LEAST_RATE)
        seen = counted.amax(2, keepdim=True)  # (n_windows, n_bins, 1)
        # a unit of information is worth the same in each neuron
        information = self.rates.sqrt()
        deviations = ((log_rates - self.center) * information * seen).double()
        flat = deviations.flatten(0, 1)
        components = torch.linalg.eigh(flat.T @ flat)[1].flip(1)[:, :n_latents]
        self.loadings.copy_(components / information[:, None])
        latents = deviations @ components  # (n_windows, n_bins, n_latents)
        self.mean.copy_(latents.sum(0) / seen.sum(0).clamp(min=1))
        changes = (latents - self.mean) * seen
        self.functions.copy_(_eigenfunctions(changes, seen.double(), self.functions.shape[2]))
        return self

    def with_more_neurons(self, n_new: int) -> "LatentPosterior":
        """Copy for a network with further neurons, whose log-rates are its own alone."""
        n_latents, n_bins, n_functions = self.functions.shape
        larger = LatentPosterior(len(self.weight) + n_new, n_bins, n_latents, n_functions)
        larger = larger.to(self.weight.device)
        for name, values in self.named_buffers():
            getattr(larger, name)[tuple(slice(size) for size in values.shape)] = values
        larger.rates[len(self.weight) :] = LEAST_RATE
        return larger

    def estimate(
        self, log_rates: Tensor, spikes: Tensor, visible: Tensor, likelihood: Likelihood
    ) -> Tensor:
        """Log-rates of the latents after `N_STEPS` steps from those of the network.

        Parameters
        ----------
        log_rates : Tensor, shape (batch, n_bins, n_neurons)
            Of the network.
        spikes : Tensor, same shape
            Counts, finite everywhere.
        visible : Tensor of bool, same shape
        likelihood : Likelihood
            Of the neurons.

        Returns
        -------
        Tensor, same shape
        """
        shown = visible.to(log_rates.dtype)
        functions, loadings = self.functions, self.loadings
        base = self.center + self.mean @ loadings.T  # (n_bins, n_neurons)
        seen = shown.amax(2, keepdim=True)  # latents of other bins mean nothing
        latents = seen * ((log_rates - base) @ (self.rates[:, None] * loadings))
        variances = functions.square().sum(1)  # (n_latents, n_functions)
        # amplitudes in standard deviations of the prior, (batch, n_latents, n_functions)
        amplitudes = torch.einsum("btk,ktr->bkr", latents, functions)
        amplitudes = amplitudes / variances.clamp(min=LEAST_VARIANCE)
        for _ in range(N_STEPS):
            readout = likelihood.limit(self._log_rates(base, amplitudes))
            readout = readout.clamp(max=likelihood.steepest)
            score = (likelihood.gradient(readout, spikes) * shown) @ loadings
            gradient = torch.einsum("btk,ktr->bkr", score, functions) - amplitudes
            information = (likelihood.information(readout) * shown) @ loadings.square()
            curvature = torch.einsum("btk,ktr->bkr", information, functions.square())
            amplitudes = amplitudes + (gradient / (1 + CAUTION * curvature)).clamp(-1, 1)
        return self._log_rates(base, amplitudes)

    def _log_rates(self, base: Tensor, amplitudes: Tensor) -> Tensor:
        latents = torch.einsum("bkr,ktr->btk", amplitudes, self.functions)
        return base + latents @ self.loadings.T

    def forward(
        self, log_rates: Tensor, spikes: Tensor, visible: Tensor, likelihood: Likelihood
    ) -> Tensor:
        """Mix the network's log-rates with those of `estimate`, of the same parameters."""
        estimate = self.estimate(log_rates, spikes, visible, likelihood)
        return torch.lerp(log_rates, estimate, self.weight)


def _eigenfunctions(changes: Tensor, seen: Tensor, n_functions: int) -> Tensor:
    """Eigenfunctions of stationary autocovariances, times standard deviations.

    Parameters
    ----------
    changes : Tensor, shape (n_windows, n_bins, n_latents)
        Latents minus their mean, 0 where there is none.
    seen : Tensor, shape (n_windows, n_bins, 1)
        1 where there is a latent, else 0.
    n_functions : int
        The largest so many.

    Returns
    -------
    Tensor, shape (n_latents, n_bins, n_functions)
    """
    n_bins = changes.shape[1]

    def sums(x: Tensor) -> Tensor:  # of products by lag, (n_bins, n_latents)
        spectrum = torch.fft.rfft(x, 2 * n_bins, dim=1).abs().square().sum(0)
        return torch.fft.irfft(spectrum, 2 * n_bins, dim=0)[:n_bins]

    # longer lags have fewer pairs, and are shrunk by their share of them
    share = 1 - torch.arange(n_bins, dtype=changes.dtype)[:, None] / n_bins
    by_lag = sums(changes) / sums(seen).clamp(min=1) * share
    bins = torch.arange(n_bins)
    covariances = by_lag.T[:, (bins[:, None] - bins).abs()]  # (n_latents, n_bins, n_bins)
    values, vectors = torch.linalg.eigh(covariances)
    values = SCALE * values.flip(1)[:, :n_functions].clamp(min=0)
    return vectors.flip(2)[..., :n_functions] * values.sqrt()[:, None, :]
