"""Log-rates by Gaussian-process factor analysis, with the latents of a trained network."""

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_stndt.network.likelihood import Likelihood

N_LATENTS = 16
MOST_BASIS = 48  # functions of time, of which the courses of all latents are composed
MOST_TRAJECTORIES = 256
LEAST_INFORMED = 0.05  # prior variance of an amplitude, over that of an estimate by counts alone
SCALE = 1.5  # of prior variances: inferred latents vary less than true ones
STATIONARY_WINDOWS = 100.0  # the stationary covariance counts as much as so many windows
N_STEPS = 10
CAUTION = 3.0  # curvature is taken as this many times its diagonal, so that steps do not overshoot
LEAST_RATE = 1e-6  # spikes per bin, of a silent neuron; or other information
LEAST_VARIANCE = 1e-4  # of a function whose amplitude is read from the network's log-rates
PRIOR_BINS = 100.0  # former loadings count as much as so many bins of counts
PRIOR_WINDOWS = 20.0  # the former prior covariance counts as much as so many windows
MOST_OPERATIONS = 3e9  # of a step; longer ones use a part of the windows
MOST_SQUARES = 2**21  # entries of covariances of latents that are kept at once
LEAST_WINDOWS = 16
MARGIN = 0.5  # by which log-rates may exceed those of the network in training windows


class LatentPosterior(nn.Module):
    r"""Infers latents of a window by their likelihood, and mixes log-rates with the network's.

    A network learns from few trials how to infer rates from counts, and makes errors in it. Another
    way is explicit: latents :math:`z` with a Gaussian prior over their trajectories are moved
    uphill on

    .. math:: \sum_{tn} \log p(s_{tn} | r_{tn}) + \log p(z), \qquad r_t = c + L (m_t + z_t),

    over visible counts :math:`s`, from the latents of the network in the bins that have any; for
    Poisson counts, :math:`\log p(s | r) = s r - e^r`. With a Gaussian likelihood, there are signals
    instead of counts, and the readout of the network instead of log-rates.

    Loadings :math:`L`, mean and covariance of trajectories come from the log-rates of the network
    in training windows. The covariance between all latents and bins is a mean of the stationary
    one, a function of the lag, and of the observed one, whose weight is the number of windows.
    `refine` improves them by expectation maximisation. The errors of the two ways differ, so that a
    weighted mean of log-rates is better than either.

    Parameters
    ----------
    n_neurons, n_bins, n_latents, n_trajectories : int
        Neurons, bins of a window, latents, and trajectories, of which latents are a weighted sum.

    Attributes
    ----------
    weight : Tensor, shape (n_neurons,)
        Share of the log-rates that is inferred in this way.
    center : Tensor, shape (n_neurons,)
        Mean log-rates c.
    loadings : Tensor, shape (n_neurons, n_latents)
    rates : Tensor, shape (n_neurons,)
        Mean information of a bin about the log-rate; of Poisson counts, mean spikes per bin.
    lowest, highest : Tensor, shape (n_neurons,)
        Bounds of log-rates.
    mean : Tensor, shape (n_bins, n_latents)
        Mean latents of a window.
    trajectories : Tensor, shape (n_trajectories, n_bins, n_latents)
        Eigenvectors of the prior covariance, times standard deviations.

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
    lowest: Tensor
    highest: Tensor
    mean: Tensor
    trajectories: Tensor

    def __init__(self, n_neurons: int, n_bins: int, n_latents: int, n_trajectories: int):
        super().__init__()
        self.register_buffer("weight", torch.zeros(n_neurons))
        self.register_buffer("center", torch.zeros(n_neurons))
        self.register_buffer("loadings", torch.zeros(n_neurons, n_latents))
        self.register_buffer("rates", torch.zeros(n_neurons))
        self.register_buffer("lowest", torch.zeros(n_neurons))
        self.register_buffer("highest", torch.zeros(n_neurons))
        self.register_buffer("mean", torch.zeros(n_bins, n_latents))
        self.register_buffer("trajectories", torch.zeros(n_trajectories, n_bins, n_latents))

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
            If buffers are missing, or their shapes do not fit each other or the network; or if they
            are those of the first form, which had a prior for each latent alone.
        """
        if prefix + "functions" in state:
            raise RuntimeError(
                "it was saved by an earlier development version, whose factor analysis had another "
                "prior; fit it again"
            )
        names = list(dict(cls(1, 1, 1, 1).named_buffers()))
        shapes = {
            name: tuple(state[prefix + name].shape) for name in names if prefix + name in state
        }
        sizes = shapes.get("trajectories", ())
        fits = len(sizes) == 3 and min(sizes) > 0
        if fits:
            with torch.device("meta"):
                expected = cls(n_neurons, sizes[1], sizes[2], sizes[0])
            fits = shapes == {name: tuple(b.shape) for name, b in expected.named_buffers()}
        if not fits:
            raise RuntimeError(
                f"its posterior has arrays of the shapes {shapes}, which do not fit each other or "
                f"its {n_neurons} neurons"
            )
        return cls(n_neurons, sizes[1], sizes[2], sizes[0])

    @classmethod
    @torch.no_grad()
    def of(cls, log_rates: Tensor, known: Tensor, likelihood: Likelihood) -> "LatentPosterior":
        """Principal components of log-rates, and the covariance of their courses.

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
        counted = known.to(log_rates.dtype)
        n_known = counted.sum((0, 1)).clamp(min=1)
        center = (log_rates * counted).sum((0, 1)) / n_known
        of_entries = likelihood.information(log_rates) * counted
        rates = (of_entries.sum((0, 1)) / n_known).clamp(min=LEAST_RATE)
        seen = counted.amax(2, keepdim=True)  # (n_windows, n_bins, 1)
        # a unit of information is worth the same in each neuron
        information = rates.sqrt()
        deviations = ((log_rates - center) * information * seen).double()
        components = _components(deviations.flatten(0, 1))[:, :n_latents]
        latents = deviations @ components  # (n_windows, n_bins, n_latents)
        mean = latents.sum(0) / seen.sum(0).clamp(min=1)
        trajectories = _trajectories((latents - mean) * seen, seen[..., 0].double())
        self = cls(n_neurons, n_bins, n_latents, len(trajectories))
        self.center.copy_(center)
        self.rates.copy_(rates)
        self.lowest.copy_(torch.where(known, log_rates, center).amin((0, 1)) - MARGIN)
        self.highest.copy_(torch.where(known, log_rates, center).amax((0, 1)) + MARGIN)
        self.loadings.copy_(components / information[:, None])
        self.mean.copy_(mean)
        self.trajectories.copy_(trajectories)
        return self

    def with_more_neurons(self, n_new: int) -> "LatentPosterior":
        """Copy for a network with further neurons, whose log-rates are its own alone."""
        larger = self.copy_of_shape(len(self.weight) + n_new).to(self.weight.device)
        for name, values in self.named_buffers():
            getattr(larger, name)[tuple(slice(size) for size in values.shape)] = values
        larger.rates[len(self.weight) :] = LEAST_RATE
        return larger

    def copy_of_shape(self, n_neurons: int) -> "LatentPosterior":
        """Return an empty one for another number of neurons."""
        n_trajectories, n_bins, n_latents = self.trajectories.shape
        return type(self)(n_neurons, n_bins, n_latents, n_trajectories)

    @torch.no_grad()
    def refine(
        self, log_rates: Tensor, spikes: Tensor, known: Tensor, likelihood: Likelihood
    ) -> None:
        """Fit center, loadings and prior to counts, by one step of expectation maximisation.

        Laplace's method gives the amplitudes of each training window a normal distribution. The new
        prior covariance is a weighted mean of the former one and of the second moments of
        amplitudes. Center and loadings of a neuron take a Newton step on the expected
        log-likelihood, with a normal prior around their former values.

        Parameters
        ----------
        log_rates, known, likelihood
            As in `of`.
        spikes : Tensor, shape (n_windows, n_bins, n_neurons)
            Counts, finite everywhere.
        """
        n_trajectories, n_bins, n_latents = self.trajectories.shape
        cost = n_bins * n_latents * (n_trajectories**2 + n_latents * len(self.center))
        n_used = min(len(spikes), max(int(MOST_OPERATIONS / cost), LEAST_WINDOWS))
        chosen = np.linspace(0, len(spikes) - 1, n_used).astype(int)
        log_rates, spikes, known = (part[chosen] for part in (log_rates, spikes, known))
        start = self._infer(log_rates, spikes, known, likelihood)
        exact = copy.deepcopy(self).double()
        likelihood = copy.deepcopy(likelihood).double()
        rows = torch.cat([exact.center[:, None], exact.loadings], 1)  # (n_neurons, n_features)
        prior = PRIOR_BINS * exact.rates[:, None].expand_as(rows)
        gradient, curvature = torch.zeros_like(rows), torch.diag_embed(prior)
        moment = PRIOR_WINDOWS * torch.eye(n_trajectories, dtype=rows.dtype)
        size = max(MOST_SQUARES // (n_bins * rows.shape[1] ** 2), 1)
        for parts in zip(*(x.split(size) for x in (start, spikes, known)), strict=True):
            of_part, counts, shown = (part.double() for part in parts)
            amplitudes, moments, spread = exact._expect(of_part, counts, shown, likelihood)
            moment += moments
            latents = exact.mean + torch.einsum("nj,jtk->ntk", amplitudes, exact.trajectories)
            slopes = exact._derivatives(latents, spread, counts, shown, likelihood)
            gradient += slopes[0]
            curvature += slopes[1]
        moment /= n_used + PRIOR_WINDOWS
        rows = rows + torch.linalg.solve(curvature, gradient).clamp(-1, 1)
        center, loadings = rows[:, 0], rows[:, 1:]
        courses = torch.linalg.cholesky(moment).T @ exact.trajectories.flatten(1)
        # latents such that loadings are orthonormal in units of information
        units = exact.rates.sqrt()[:, None]
        orthonormal, change = torch.linalg.qr(units * loadings)
        self.center.copy_(center)
        self.loadings.copy_(orthonormal / units)
        self.mean.copy_(exact.mean @ change.T)
        self.trajectories.copy_(courses.view(exact.trajectories.shape) @ change.T)

    def _expect(
        self, start: Tensor, spikes: Tensor, shown: Tensor, likelihood: Likelihood
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Normal distribution of the amplitudes of each window, after a Newton step.

        Parameters
        ----------
        start : Tensor, shape (n_windows, n_trajectories)
            Amplitudes.
        spikes, shown : Tensor, shape (n_windows, n_bins, n_neurons)
            Counts, and 1 where there is one, else 0.
        likelihood : Likelihood

        Returns
        -------
        amplitudes : Tensor, shape (n_windows, n_trajectories)
        moment : Tensor, shape (n_trajectories, n_trajectories)
            Sum of the second moments of amplitudes.
        spread : Tensor, shape (n_windows, n_bins, n_latents, n_latents)
            Covariance of the latents of a bin.
        """
        trajectories, loadings = self.trajectories, self.loadings
        flat = trajectories.flatten(1)
        base = self.center + self.mean @ loadings.T
        identity = torch.eye(len(flat), dtype=flat.dtype)
        amplitudes, moment, spread = [], torch.zeros_like(identity), []
        for amplitude, counts, present in zip(start, spikes, shown, strict=True):
            readout = likelihood.limit(self._log_rates(base, amplitude[None])[0])
            readout = readout.clamp(max=likelihood.steepest)
            information = likelihood.information(readout) * present
            of_latents = torch.einsum("tn,nk,nl->tkl", information, loadings, loadings)
            weighted = torch.einsum("jtk,tkl->jtl", trajectories, of_latents).flatten(1)
            root = torch.linalg.cholesky(identity + weighted @ flat.T)
            score = (likelihood.gradient(readout, counts) * present) @ loadings
            gradient = flat @ score.flatten() - amplitude
            step = torch.cholesky_solve(gradient[:, None], root)[:, 0]
            amplitudes.append(amplitude + step.clamp(-1, 1))
            moment += torch.outer(amplitudes[-1], amplitudes[-1]) + torch.cholesky_inverse(root)
            whitened = torch.linalg.solve_triangular(root, flat, upper=False)
            whitened = whitened.view(trajectories.shape)
            spread.append(torch.einsum("jtk,jtl->tkl", whitened, whitened))
        return torch.stack(amplitudes), moment, torch.stack(spread)

    def _derivatives(
        self, latents: Tensor, spread: Tensor, spikes: Tensor, shown: Tensor, likelihood: Likelihood
    ) -> tuple[Tensor, Tensor]:
        """Derivatives of the expected log-likelihood with respect to center and loadings.

        Parameters
        ----------
        latents : Tensor, shape (n_windows, n_bins, n_latents)
            Their mean.
        spread, spikes, shown : Tensor
            As in `_expect`.
        likelihood : Likelihood

        Returns
        -------
        gradient : Tensor, shape (n_neurons, 1 + n_latents)
        curvature : Tensor, shape (n_neurons, 1 + n_latents, 1 + n_latents)
            Minus the second derivatives.
        """
        rows = torch.cat([self.center[:, None], self.loadings], 1)  # (n_neurons, n_features)
        features = nn.functional.pad(latents, (1, 0), value=1.0).flatten(0, 1)
        spread = nn.functional.pad(spread, (1, 0, 1, 0)).flatten(0, 1)
        spikes, shown = spikes.flatten(0, 1), shown.flatten(0, 1)
        readout = likelihood.limit(features @ rows.T).clamp(max=likelihood.steepest)
        information = likelihood.information(readout) * shown
        score = likelihood.gradient(readout, spikes) * shown
        outer = features[:, :, None] * features[:, None]

        def total(squares: Tensor) -> Tensor:  # of each neuron, (n_neurons, n_features, n_features)
            return (information.T @ squares.flatten(1)).unflatten(1, squares.shape[1:])

        gradient = score.T @ features - (total(spread) @ rows[..., None])[..., 0]
        return gradient, total(outer + spread)

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
        base = self.center + self.mean @ self.loadings.T  # (n_bins, n_neurons)
        amplitudes = self._infer(log_rates, spikes, visible, likelihood)
        return self._log_rates(base, amplitudes).clamp(self.lowest, self.highest)

    def _infer(
        self, log_rates: Tensor, spikes: Tensor, visible: Tensor, likelihood: Likelihood
    ) -> Tensor:
        """Amplitudes of trajectories, (batch, n_trajectories); parameters as in `estimate`."""
        shown = visible.to(log_rates.dtype)
        loadings = self.loadings
        trajectories = self.trajectories.flatten(1)  # (n_trajectories, n_bins * n_latents)
        base = self.center + self.mean @ loadings.T  # (n_bins, n_neurons)
        seen = shown.amax(2, keepdim=True)  # latents of other bins mean nothing
        latents = seen * ((log_rates - base) @ (self.rates[:, None] * loadings))
        squares, squared_loadings = trajectories.square(), loadings.square()
        variances = squares.sum(1)  # (n_trajectories,)
        # amplitudes in standard deviations of the prior, (batch, n_trajectories)
        amplitudes = latents.flatten(1) @ trajectories.T / variances.clamp(min=LEAST_VARIANCE)
        for _ in range(N_STEPS):
            readout = likelihood.limit(self._log_rates(base, amplitudes))
            readout = readout.clamp(max=likelihood.steepest)
            score = (likelihood.gradient(readout, spikes) * shown) @ loadings
            gradient = score.flatten(1) @ trajectories.T - amplitudes
            information = (likelihood.information(readout) * shown) @ squared_loadings
            curvature = information.flatten(1) @ squares.T
            amplitudes = amplitudes + (gradient / (1 + CAUTION * curvature)).clamp(-1, 1)
        return amplitudes

    def _log_rates(self, base: Tensor, amplitudes: Tensor) -> Tensor:
        latents = amplitudes @ self.trajectories.flatten(1)  # (batch, n_bins * n_latents)
        return base + latents.unflatten(1, self.mean.shape) @ self.loadings.T

    def forward(
        self, log_rates: Tensor, spikes: Tensor, visible: Tensor, likelihood: Likelihood
    ) -> Tensor:
        """Mix the network's log-rates with those of `estimate`, of the same parameters."""
        estimate = self.estimate(log_rates, spikes, visible, likelihood)
        return torch.lerp(log_rates, estimate, self.weight)


def _components(rows: Tensor) -> Tensor:
    """Principal components, (n_neurons, n_neurons or fewer), of (n_rows, n_neurons), in order."""
    n_rows, n_neurons = rows.shape
    if N_LATENTS <= n_rows < n_neurons:  # far faster with thousands of neurons
        return torch.linalg.svd(rows, full_matrices=False)[2].T
    return torch.linalg.eigh(rows.T @ rows)[1].flip(1)


def _trajectories(changes: Tensor, seen: Tensor) -> Tensor:
    """Eigenvectors of a covariance between latents and bins, times standard deviations.

    Parameters
    ----------
    changes : Tensor, shape (n_windows, n_bins, n_latents)
        Latents minus their mean, 0 where there is none.
    seen : Tensor, shape (n_windows, n_bins)
        1 where there is a latent, else 0.

    Returns
    -------
    Tensor, shape (n_trajectories, n_bins, n_latents)
        Those of which counts tell something, at least one and at most `MOST_TRAJECTORIES`.
    """
    n_windows, n_bins, n_latents = changes.shape
    by_lag = _by_lag(changes, seen)  # (2 * n_bins - 1, n_latents, n_latents)
    bins = torch.arange(n_bins)
    lags = bins - bins[:, None] + n_bins - 1
    total = by_lag.diagonal(dim1=1, dim2=2).sum(1)[lags]  # (n_bins, n_bins)
    basis = torch.linalg.eigh(total)[1].flip(1)[:, :MOST_BASIS]  # (n_bins, n_basis)
    n_pairs = (seen.T @ seen).clamp(min=1)
    share = n_windows / (n_windows + STATIONARY_WINDOWS)
    rows = []
    for latent in range(n_latents):  # covariances with all latents, (n_latents, n_bins, n_bins)
        stationary = by_lag[:, latent].T[:, lags]
        products = changes[..., latent].T @ changes.permute(2, 0, 1)
        rows.append(basis.T @ torch.lerp(stationary, products / n_pairs, share) @ basis)
    # (n_latents * n_basis, n_latents * n_basis)
    covariance = torch.stack(rows).transpose(1, 2).reshape([n_latents * basis.shape[1]] * 2)
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    values = SCALE * values.flip(0)[:MOST_TRAJECTORIES].clamp(min=0)
    n_kept = max(int((values > LEAST_INFORMED).sum()), 1)
    scaled = vectors.flip(1)[:, :n_kept] * values[:n_kept].sqrt()
    return torch.einsum("tr,krj->jtk", basis, scaled.unflatten(0, (n_latents, -1)))


def _by_lag(changes: Tensor, seen: Tensor) -> Tensor:
    """Stationary covariances of latents with those of later bins, from the lowest lag on.

    Parameters
    ----------
    changes, seen : Tensor
        As in `_trajectories`.

    Returns
    -------
    Tensor, shape (2 * n_bins - 1, n_latents, n_latents)
    """
    n_bins = changes.shape[1]
    lags = torch.arange(1 - n_bins, n_bins)
    spectra = torch.fft.rfft(changes, 2 * n_bins, dim=1)
    products = torch.einsum("nfk,nfl->fkl", spectra.conj(), spectra)
    sums = torch.fft.irfft(products, 2 * n_bins, dim=0)[lags]
    n_pairs = torch.fft.rfft(seen, 2 * n_bins, dim=1).abs().square().sum(0)
    n_pairs = torch.fft.irfft(n_pairs, 2 * n_bins)[lags].clamp(min=1)
    # longer lags have fewer pairs, and are shrunk by their share of them
    share = 1 - lags.abs() / n_bins
    return sums * (share / n_pairs)[:, None, None]
