"""Log-rates by factor analysis from a bin and the ones before, with constant gains."""

import torch
from torch import Tensor

from sklearn_stndt.network.likelihood import Likelihood
from sklearn_stndt.network.posterior import LatentPosterior

MOST_CHANGE = 2.0  # of an amplitude by the counts of a bin, in standard deviations of its prior


class CausalPosterior(LatentPosterior):
    r"""Filters latents bin by bin, and mixes log-rates with those of a causal network.

    The amplitudes :math:`a` of the prior's trajectories :math:`F_t` are what is unknown about a
    window. In each bin, counts correct their estimate by a Kalman filter whose gains :math:`G_t`
    are computed once, for the mean information of each neuron:

    .. math:: r_t = c + L (m_t + F_t a), \qquad
       a \leftarrow a + G_t L^T \frac{\partial}{\partial r} \log p(s_t | r_t)

    With a Gaussian likelihood, this is the posterior mean given the bins so far, and for counts it
    is close to it. In a trial, the filter begins with the first bin and ends with the window. A
    recording has a filter that begins anew every half window, and another half a window later;
    rates are those of the older one.

    Parameters
    ----------
    n_neurons, n_bins, n_latents, n_trajectories
        As of `LatentPosterior`.
    restarts : bool, default=False
        Whether filters begin anew every half window, as in a recording.

    Attributes
    ----------
    gains : Tensor, shape (n_trajectories, n_bins, n_latents)
        Changes of amplitudes by a unit of the gradient with respect to the latents of a bin.
    """

    gains: Tensor

    def __init__(
        self,
        n_neurons: int,
        n_bins: int,
        n_latents: int,
        n_trajectories: int,
        restarts: bool = False,
    ):
        super().__init__(n_neurons, n_bins, n_latents, n_trajectories)
        self.restarts = restarts and n_bins > 1
        self.register_buffer("gains", torch.zeros(n_trajectories, n_bins, n_latents))

    @property
    def n_filters(self) -> int:
        """Filters of a stream that run at the same time."""
        return 2 if self.restarts else 1

    @classmethod
    @torch.no_grad()
    def filtering(
        cls, smoother: LatentPosterior, hidden: Tensor, restarts: bool
    ) -> "CausalPosterior":
        """Filter with the model of another posterior, which uses whole windows.

        Parameters
        ----------
        smoother : LatentPosterior
            On the CPU.
        hidden : Tensor of bool, shape (n_neurons,)
            Neurons that are never visible.
        restarts : bool
            As above.
        """
        n_trajectories, n_bins, n_latents = smoother.trajectories.shape
        self = cls(len(smoother.weight), n_bins, n_latents, n_trajectories, restarts)
        self.load_state_dict(smoother.state_dict() | {"gains": self.gains})
        trajectories, loadings = self.trajectories.double(), self.loadings.double()
        rates = self.rates.double().masked_fill(hidden, 0.0)
        information = loadings.T @ (rates[:, None] * loadings)  # about the latents of a bin
        identity = torch.eye(n_latents, dtype=torch.float64)
        covariance = torch.eye(n_trajectories, dtype=torch.float64)  # of amplitudes
        for t in range(n_bins):
            courses = trajectories[:, t]  # (n_trajectories, n_latents)
            with_latents = covariance @ courses
            of_latents = courses.T @ with_latents
            change = torch.linalg.solve(identity + information @ of_latents, information)
            covariance = covariance - with_latents @ change @ with_latents.T
            covariance = (covariance + covariance.T) / 2
            self.gains[:, t] = (covariance @ courses).float()
        return self

    def copy_of_shape(self, n_neurons: int) -> "CausalPosterior":
        n_trajectories, n_bins, n_latents = self.trajectories.shape
        return type(self)(n_neurons, n_bins, n_latents, n_trajectories, self.restarts)

    def estimate(
        self, log_rates: Tensor, spikes: Tensor, visible: Tensor, likelihood: Likelihood
    ) -> Tensor:
        age = torch.zeros(len(spikes), dtype=torch.long, device=spikes.device)
        amplitudes = log_rates.new_zeros(len(spikes), self.n_filters, len(self.trajectories))
        return self.filter(log_rates, spikes, visible, likelihood, age, amplitudes)[0]

    def filter(
        self,
        log_rates: Tensor,
        spikes: Tensor,
        visible: Tensor,
        likelihood: Likelihood,
        age: Tensor,
        amplitudes: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Log-rates of the next bins of streams; after the end of a window, the network's.

        Parameters
        ----------
        log_rates, spikes, visible, likelihood
            As of `estimate`.
        age : Tensor of int, shape (n_streams,)
            Bins of each stream so far.
        amplitudes : Tensor, shape (n_streams, n_filters, n_trajectories)
            After these bins.

        Returns
        -------
        log_rates : Tensor, shape (n_streams, n_bins, n_neurons)
        amplitudes : Tensor, shape (n_streams, n_filters, n_bins, n_trajectories)
            After each bin.
        """
        position, older = self._positions(age, spikes.shape[1])
        trajectories, gains = self.trajectories.transpose(0, 1), self.gains.transpose(0, 1)
        shown = visible.to(log_rates.dtype)
        estimates, after = [], []
        for t in range(spikes.shape[1]):
            at = position[:, t]  # (n_streams, n_filters)
            courses, mean = trajectories[at], self.mean[at]
            amplitudes = torch.where(at[..., None] == 0, 0.0, amplitudes)  # a filter begins
            readout = self._at(mean, amplitudes, courses).clamp(self.lowest, self.highest)
            readout = likelihood.limit(readout).clamp(max=likelihood.steepest)
            score = likelihood.gradient(readout, spikes[:, None, t]) * shown[:, None, t]
            change = gains[at] @ (score @ self.loadings)[..., None]
            amplitudes = amplitudes + change[..., 0].clamp(-MOST_CHANGE, MOST_CHANGE)
            estimate = self._at(mean, amplitudes, courses).clamp(self.lowest, self.highest)
            # 0 for the filters not used, of which one has begun later, or the window has ended
            of_older = older[:, t, :, None]
            unused = 1 - of_older.sum(1)
            estimates.append((of_older * estimate).sum(1) + unused * log_rates[:, t])
            after.append(amplitudes)
        return torch.stack(estimates, 1), torch.stack(after, 2)

    def _at(self, mean: Tensor, amplitudes: Tensor, courses: Tensor) -> Tensor:
        """Log-rates of a bin, (n_streams, n_filters, n_neurons)."""
        latents = mean + (amplitudes[..., None, :] @ courses)[..., 0, :]
        return self.center + latents @ self.loadings.T

    def _positions(self, age: Tensor, n_bins: int) -> tuple[Tensor, Tensor]:
        """Bin of the window at which each filter is, and which filter is used.

        Returns
        -------
        position : Tensor of int, shape (n_streams, n_bins, n_filters)
        older : Tensor, same shape
            1 for the filter that is used, else 0.
        """
        ages = age[:, None] + torch.arange(n_bins, device=age.device)  # (n_streams, n_bins)
        window = self.mean.shape[0]
        if not self.restarts:
            used = (ages < window).to(self.mean.dtype)
            return ages.clamp(max=window - 1)[..., None], used[..., None]
        half = window // 2
        since = ages % (2 * half)
        position = torch.stack([since, (since + half) % (2 * half)], -1)
        # before the second filter has begun, there is only the first
        used = ((since >= half) | (ages < half)).to(self.mean.dtype)
        return position, torch.stack([used, 1 - used], -1)
