"""Training objective: which entries are hidden in training, in validation and always."""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sklearn_stndt.network import N_FOLDS, draw_mask, mask_neurons, speckled_folds


class Batch(NamedTuple):
    """A batch of windows, each tensor of shape (batch, n_bins, n_neurons).

    Attributes
    ----------
    spikes : Tensor
        Counts, 0 where missing.
    known : Tensor of bool
        True where there is a count.
    visible : Tensor of bool
        True where the count may be shown to the network.
    """

    spikes: Tensor
    known: Tensor
    visible: Tensor


@dataclass(frozen=True)
class ObjectiveSettings:
    """Settings of the objective, under the names of the estimator's parameters.

    Parameters
    ----------
    mask_ratio : float or (float, float)
        Share of visible entries masked in a training step; from a range, drawn per trial.
    neuron_mask_ratio : float or (float, float)
        Share of neurons masked in half of the windows of a training step; 0: none.
    token_ratio, random_ratio : float
        Corruption of masked entries, see :func:`sklearn_stndt.network.corrupt`.
    heldout_neurons : tuple of int
        Indices of neurons that are always hidden.
    forecast_bins : int
        Bins at the end of a window that are always hidden; of a causal network, in training only,
        and, in half of the windows, as many that begin anywhere.
    contrastive_weight, temperature : float
        Weight of the contrastive loss between two further corrupted views, and its temperature.
    contrastive_at : {"encoder", "embedding"}
        What the contrastive loss compares: the mean output of the encoder, or the embedded input.
    contrastive_mask_ratio, contrastive_token_ratio, contrastive_random_ratio
        Corruption of the two views.
    """

    mask_ratio: float | tuple[float, float] = (0.0, 0.8)
    neuron_mask_ratio: float | tuple[float, float] = 0.0
    token_ratio: float = 1.0
    random_ratio: float = 0.0
    heldout_neurons: tuple[int, ...] = ()
    forecast_bins: int = 0
    contrastive_weight: float = 0.0
    contrastive_at: str = "encoder"
    contrastive_mask_ratio: float | tuple[float, float] = (0.0, 0.8)
    contrastive_token_ratio: float = 1.0
    contrastive_random_ratio: float = 0.0
    temperature: float = 0.07

    def forecast_starts(self, n_windows: int, n_bins: int, spread: bool) -> Tensor:
        """First bins of the forecasts in each window of a causal network, (n_windows, 2).

        A causal network forecasts from any bin. In half of the windows, the forecast is at the
        end, from all bins before it. In the others, it begins anywhere after the first bin, and
        there is a second one at the end, unless they would overlap. Both numbers are the same where
        there is one forecast. Which windows, and where, is random, or, if `spread`, fixed and
        spread evenly.
        """
        end = n_bins - self.forecast_bins
        if spread:
            golden = 0.5 * (5**0.5 - 1)  # multiples of it, modulo 1, are spread evenly
            share = (torch.arange(1, n_windows + 1) * golden) % 1
        else:
            share = torch.rand(n_windows)
        first = (1 + (2 * share * (end - 1)).long()).clamp(max=end)
        second = torch.where(first > end - self.forecast_bins, first, end)
        return torch.stack([first, second], dim=1)

    def _in_forecast(self, n_bins: int, starts: Tensor | None) -> Tensor:
        """Whether a bin is to be forecast, (batch or 1, n_bins, 1)."""
        if starts is None:
            starts = torch.tensor([[n_bins - self.forecast_bins]])
        after = (
            torch.arange(n_bins)[:, None] - starts.cpu()[:, None]
        )  # (batch or 1, n_bins, 1 or 2)
        return ((after >= 0) & (after < self.forecast_bins)).any(2, keepdim=True)

    def _is_heldout(self, like: Tensor) -> Tensor:
        """Whether a neuron is held out, (n_neurons,), on the device of (..., n_neurons)."""
        return _chosen(self.heldout_neurons, like.shape[-1], like.device)

    def draw_mask(self, visible: Tensor) -> Tensor:
        """Visible entries to mask in a training step, (batch, n_bins, n_neurons)."""
        masked = draw_mask(visible, self.mask_ratio)
        if not self.neuron_mask_ratio:
            return masked
        return mask_neurons(masked, visible, self.neuron_mask_ratio)

    def split(self, windows: Tensor, starts: Tensor | None = None) -> Batch:
        """Split windows, NaN where missing, into counts and masks of known and visible entries.

        `starts`, of shape (batch, n_forecasts), are the first bins of forecasts; None: there is one
        at the end of each window.
        """
        known = ~torch.isnan(windows)  # (batch, n_bins, n_neurons)
        visible = known.clone()
        if self.heldout_neurons:
            visible &= ~self._is_heldout(windows)
        if starts is None:
            visible[:, windows.shape[1] - self.forecast_bins :] = False
        else:
            visible &= ~self._in_forecast(windows.shape[1], starts).to(visible.device)
        return Batch(windows.masked_fill(~known, 0.0), known, visible)

    def always_hidden(
        self, known: Tensor, starts: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Masks of known entries of held-out neurons and of forecast bins; None if there are none.

        All of shape (batch, n_bins, n_neurons); `starts` as in `split`.
        """
        heldout = forecast = None
        to_forecast = self._in_forecast(known.shape[1], starts).to(known.device)
        if self.heldout_neurons:
            heldout = known & self._is_heldout(known) & ~to_forecast
        if self.forecast_bins:
            forecast = known & to_forecast
        return heldout, forecast

    def validation_sets(
        self, batch: Batch, n_folds: int = N_FOLDS, starts: Tensor | None = None
    ) -> Tensor:
        """Sets of entries that are hidden and scored together, to choose the best weights.

        Held-out neurons and forecast bins form one set. Without held-out neurons, all entries,
        including forecast bins, are assigned to the speckled folds; the first `n_folds` are scored.
        `starts` as in `split`.

        Returns
        -------
        Tensor of bool, shape (n_sets, batch, n_bins, n_neurons)
        """
        heldout, forecast = self.always_hidden(batch.known, starts)
        if heldout is not None:
            return (heldout if forecast is None else heldout | forecast)[None]
        return self._folds(batch, forecast)[:n_folds]

    def calibration_sets(self, batch: Batch, starts: Tensor | None = None) -> Tensor:
        """Sets of entries that are hidden and scored together, to choose gains.

        Every entry of a held-in neuron is in one set. Entries of held-out neurons, which have a
        separate gain, are in every set. `starts` as in `split`.

        Returns
        -------
        Tensor of bool, shape (N_FOLDS, batch, n_bins, n_neurons)
        """
        _, forecast = self.always_hidden(batch.known, starts)
        sets = self._folds(batch, forecast)
        return torch.where(self._is_heldout(sets), batch.known, sets)

    def _folds(self, batch: Batch, forecast: Tensor | None) -> Tensor:
        """Visible entries and forecast bins of each fold, (N_FOLDS, batch, n_bins, n_neurons)."""
        scored = batch.visible if forecast is None else batch.visible | forecast
        folds = speckled_folds(tuple(batch.spikes.shape), batch.spikes.device)
        return torch.stack([scored & (folds == fold) for fold in range(N_FOLDS)])


@functools.lru_cache(maxsize=32)
def _chosen(neurons: tuple[int, ...], n_neurons: int, device: torch.device) -> Tensor:
    """True for these neurons, (n_neurons,); cached."""
    with torch.inference_mode(False):  # training cannot use a tensor created in inference mode
        chosen = torch.zeros(n_neurons, dtype=torch.bool)
        chosen[list(neurons)] = True
        return chosen.to(device)
