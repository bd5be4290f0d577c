"""The spatiotemporal neural data transformer: counts in, log-rates out."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sklearn_stndt.network.dropout import Dropout, StochasticDepth
from sklearn_stndt.network.layers import GaussianSmoothing, feed_forward
from sklearn_stndt.network.likelihood import Likelihood, Statistics, as_likelihood
from sklearn_stndt.network.population import InputScaling, ReadOut
from sklearn_stndt.network.posterior import LatentPosterior
from sklearn_stndt.network.spatial import PublishedSpatialPart, SpatialMixing
from sklearn_stndt.network.temporal import Positions, TemporalLayer, allowed_keys, layer_bands


@dataclass(frozen=True)
class NetworkSettings:
    """Settings of the network, under the names of the estimator's parameters.

    Parameters
    ----------
    n_layers, n_heads : int
        Temporal layers, and heads of each.
    d_model : int or None
        Width of the residual stream; None: one channel per neuron, as published.
    dim_feedforward : int
        Width inside the feed-forward branches.
    dropout, dropout_embedding, dropout_rates : float
        Dropout inside the layers, of the embedded input, and before the readout.
    attention : {"spatiotemporal", "temporal"}
        STNDT, or NDT without the spatial part.
    context : (int, int) or None
        Bins back and ahead, within the window, that temporal attention reaches through all layers;
        None: all.
    local_attention : bool
        Initialise temporal attention as local, by a learned penalty on distance; not published.
    spatial_layers : {"last", "all"}
        Mix neurons once after the last layer, with attention weights from the time courses of the
        input, or, as published, in every layer, with weights from the layer's own input and
        followed by a feed-forward branch.
    stochastic_depth : float
        Probability that a training pass skips spatial attention; drawn separately for each layer
        that has it.
    n_spatial_heads : int
        Heads of the spatial attention, whose attention maps are averaged.
    d_spatial : int or None
        Width of spatial queries and keys; None: n_bins, as published.
    input_scaling : {"sqrt", "standardized", "counts"}
        Square roots of counts, centred per neuron and scaled by a common factor or by each
        neuron's standard deviation; or, as published, counts times sqrt(n_neurons), with hidden
        entries 0. Entries that are no counts are always divided by their standard deviation.
    causal : bool
        Whether log-rates of a bin depend on this bin and earlier ones alone; then the network is
        a `CausalSTNDT`.
    likelihood : str or Likelihood
        Distribution of the entries: a name in `LIKELIHOODS`, or an object, which is copied.
    """

    n_layers: int = 3
    n_heads: int = 4
    d_model: int | None = 64
    dim_feedforward: int = 256
    dropout: float = 0.3
    dropout_embedding: float = 0.2
    dropout_rates: float = 0.2
    attention: str = "spatiotemporal"
    context: tuple[int, int] | None = None
    local_attention: bool = True
    spatial_layers: str = "last"
    stochastic_depth: float = 0.0
    n_spatial_heads: int = 1
    d_spatial: int | None = 16
    input_scaling: str = "sqrt"
    causal: bool = False
    likelihood: str | Likelihood = "poisson"


class NetworkOutput(NamedTuple):
    """Output of the network.

    Attributes
    ----------
    log_rates : Tensor, shape (batch, n_bins, n_neurons)
        What the likelihood turns into expected values; of counts, the natural logarithm of the
        expected spikes per bin.
    encoded : Tensor, shape (batch, d_model)
        Residual stream before the readout, averaged over the visible bins.
    temporal_weights : list of Tensor, shape (batch, n_heads, n_bins, n_bins)
        One per layer; empty unless requested.
    spatial_weights : list of Tensor, shape (batch, n_neurons, n_neurons)
        One per application of spatial attention; empty unless requested.
    latents : Tensor, shape (batch, n_bins, d_model), or None
        Normalised residual stream, smoothed at inference, from which the readout computes
        log-rates.
    """

    log_rates: Tensor
    encoded: Tensor
    temporal_weights: list[Tensor]
    spatial_weights: list[Tensor]
    latents: Tensor | None = None


class STNDT(nn.Module):
    """Transformer over bins and neurons that infers firing rates from spike counts.

    Every bin is a token. Attention over bins and feed-forward branches update the residual stream
    (NDT); attention weights between neurons, computed from their time courses, mix its channels
    (STNDT). A linear readout gives log-rates. Hidden entries are replaced by a learned token per
    neuron. Bins without visible entries are excluded as keys (key padding), and neurons without
    visible entries get no spatial attention weight.

    Parameters
    ----------
    n_neurons, n_bins : int
        Shape of the windows.
    settings : NetworkSettings or None, default=None
        All other settings; None: the defaults of NetworkSettings.
    n_positions : int or None, default=None
        Bins that have a position of their own, later ones have that of the last; None: all.
    **changes
        Settings that override those in `settings`.

    References
    ----------
    T. Le, E. Shlizerman, "STNDT: Modeling neural population activity with a spatiotemporal
    transformer", NeurIPS 2022. J. Ye, C. Pandarinath, "Representation learning for neural
    population activity with Neural Data Transformers", 2021.
    """

    mixing: type[nn.Module] = SpatialMixing  # spatial attention after the last layer
    spatial_part: type[nn.Module] = PublishedSpatialPart  # and in every layer
    posterior_class: type[LatentPosterior] = LatentPosterior

    def __init__(
        self,
        n_neurons: int,
        n_bins: int,
        settings: NetworkSettings | None = None,
        *,
        n_positions: int | None = None,
        **changes: Any,
    ):
        super().__init__()
        s = self.settings = replace(settings or NetworkSettings(), **changes)
        width = self.width = n_neurons if s.d_model is None else s.d_model
        self.bands = layer_bands(s.context, s.n_layers)
        self.likelihood: Likelihood = as_likelihood(s.likelihood).fresh(n_neurons)
        kind = s.input_scaling if self.likelihood.counts else "standardized"
        self.scaling = InputScaling(n_neurons, kind, self.likelihood.root_input)
        # the order of parameters affects the rounding of the gradient norm used for clipping
        self.positions = Positions(n_positions or n_bins, width)
        self.embed = nn.Linear(n_neurons, width)
        self.drop_embedding = Dropout(s.dropout_embedding)
        local_bins = n_bins if s.local_attention else None
        make_feed_forward = partial(feed_forward, width, s.dim_feedforward, s.dropout)
        self.layers = nn.ModuleList(
            TemporalLayer(width, s.n_heads, s.dropout, local_bins, make_feed_forward)
            for _ in range(s.n_layers)
        )
        self.depth = StochasticDepth(s.stochastic_depth)
        self.mix_last: Any = None
        self.mix_every: Any = None
        if s.attention == "spatiotemporal":
            spatial: dict[str, Any] = {
                "d_model": s.d_model,
                "n_heads": s.n_spatial_heads,
                "d_spatial": s.d_spatial,
                "dropout": s.dropout,
            }
            if s.spatial_layers == "last":
                self.mix_last = self.mixing(n_neurons, n_bins, **spatial)
            else:
                self.mix_every = self.spatial_part(
                    n_neurons,
                    n_bins,
                    n_layers=s.n_layers,
                    feed_forward=make_feed_forward,
                    **spatial,
                )
        self.norm = nn.LayerNorm(width)
        self.drop_rates = Dropout(s.dropout_rates)
        self.readout = ReadOut(width, n_neurons)
        self.smoothing = GaussianSmoothing()
        self.posterior: LatentPosterior | None = None  # calibration may add one

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, center: Tensor, scale: Tensor, *others: Any) -> None:
        """Initialise from the recording's statistics, so that training need not learn them.

        Parameters
        ----------
        mean, center, scale, *others : Tensor, shape (n_neurons,)
            The `Statistics` of the recording: the mean is the initial expected value; center and
            scale are mean and standard deviation of the input.
        """
        device = self.readout.bias.device  # a likelihood compares them with its own numbers
        mean, center, scale = mean.to(device), center.to(device), scale.to(device)
        further = [s if s is None else s.to(device) for s in others]
        self.likelihood.start_mean.copy_(mean)
        self.likelihood.begin(Statistics(mean, center, scale, *further))
        self.readout.bias.copy_(self.likelihood.link(mean))
        self.scaling.set_statistics(center, scale)

    def embeddings(self, spikes: Tensor, visible: Tensor) -> list[Tensor]:
        """Embedded input, which the published contrastive loss compares.

        Parameters
        ----------
        spikes, visible : Tensor, shape (batch, n_bins, n_neurons)
            As in `forward`.

        Returns
        -------
        list of Tensor, shape (batch, n_features)
            Embedding of the bins and, if every layer has spatial attention, of the time courses.
        """
        entering, values = self.scaling(spikes, visible.to(spikes.dtype))
        embedded = [self.embed(entering).flatten(1)]  # (batch, n_bins * width)
        if self.mix_every is not None:
            # (batch, n_neurons * n_bins)
            embedded.append(self.mix_every.embed_courses(values.transpose(1, 2)).flatten(1))
        return embedded

    def forward(
        self, spikes: Tensor, visible: Tensor, return_attention: bool = False
    ) -> NetworkOutput:
        """Infer log-rates.

        Parameters
        ----------
        spikes : Tensor, shape (batch, n_bins, n_neurons)
            Counts per bin, finite everywhere; hidden counts have no influence.
        visible : Tensor of bool, same shape
            True where the network may see the count.
        return_attention : bool, default=False
            Also return the attention weights.

        Returns
        -------
        NetworkOutput
        """
        # products instead of selection by a mask, which takes ten times as long on a CPU
        shown = visible.to(spikes.dtype)
        entering, values = self.scaling(spikes, shown)
        return self.from_scaled(entering, values, shown, return_attention)

    def infer(self, spikes: Tensor, visible: Tensor, masks: Tensor) -> NetworkOutput:
        """Mean log-rates and latents of several passes; log-rates mixed with those of `posterior`.

        Parameters
        ----------
        spikes, visible : Tensor, shape (batch, n_bins, n_neurons)
            As in `forward`.
        masks : Tensor of bool, shape (n_passes, n_bins, n_neurons)
            Which entries each pass shows, from `inference_masks`.

        Returns
        -------
        NetworkOutput
            All but log-rates and latents are those of the first pass.
        """
        outputs = [self(spikes, visible & shown) for shown in masks]
        log_rates = torch.stack([output.log_rates for output in outputs]).mean(0)
        latents = torch.stack([output.latents for output in outputs]).mean(0)
        if self.posterior is not None:
            mixed = self.posterior(log_rates, spikes, visible, self.likelihood)
            log_rates = self.likelihood.limit(mixed)
        return outputs[0]._replace(log_rates=log_rates, latents=latents)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Make room for the posterior of the state, if it has one, before it is loaded."""
        self.posterior = None
        if f"{prefix}posterior.weight" in state_dict:
            n_neurons = self.readout.out_features
            made = self.posterior_class.shaped_like(state_dict, f"{prefix}posterior.", n_neurons)
            self.posterior = made.to(self.readout.weight.device)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def from_scaled(
        self, entering: Tensor, values: Tensor, shown: Tensor, return_attention: bool = False
    ) -> NetworkOutput:
        """Infer log-rates from scaled counts.

        Parameters
        ----------
        entering, values : Tensor, shape (batch, n_bins, n_neurons)
            From `scaling`: input of the embedding, with tokens where hidden; and time courses for
            spatial attention, 0 where hidden.
        shown : Tensor, same shape
            1 where visible, else 0.
        return_attention : bool, default=False
            Also return the attention weights.

        Returns
        -------
        NetworkOutput
        """
        x, bin_visible, neurons = self.before_layers(entering, values, shown)
        x, temporal, spatial = self.run_layers(x, bin_visible, neurons, return_attention)
        output = self.after_layers(x, bin_visible, neurons)
        spatial += output.spatial_weights
        if not return_attention:
            temporal, spatial = [], []
        return output._replace(temporal_weights=temporal, spatial_weights=spatial)

    def before_layers(
        self, entering: Tensor, values: Tensor, shown: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Return the first arguments of `run_layers`; parameters as in `from_scaled`."""
        bin_visible = shown.sum(2) > 0  # (batch, n_bins)
        neuron_visible = shown.sum(1) > 0  # (batch, n_neurons)
        return self.embed(entering), bin_visible, (values, neuron_visible)

    def run_layers(
        self,
        x: Tensor,
        bin_visible: Tensor,
        neurons: tuple[Tensor, Tensor] | None = None,
        return_attention: bool = False,
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Residual stream after all layers, and their temporal and spatial attention weights.

        Parameters
        ----------
        x : Tensor, shape (batch, n_bins, width)
            Embedded counts.
        bin_visible : Tensor of bool, shape (batch, n_bins)
            Whether a bin has a visible entry.
        neurons : (Tensor, Tensor), default=None
            `values` of `from_scaled`, and which neurons have a visible entry, (batch, n_neurons).
            Only needed if every layer has spatial attention.
        return_attention : bool, default=False
            As in `forward`.
        """
        x = self.drop_embedding(self.positions(x))
        temporal, spatial, readout = [], [], self.readout.weight
        allowed, band_before = allowed_keys(bin_visible, self.bands[0]), self.bands[0]
        for i, (layer, band) in enumerate(zip(self.layers, self.bands, strict=True)):
            if band != band_before:
                allowed, band_before = allowed_keys(bin_visible, band), band
            factor = 0.0
            if self.mix_every is not None and neurons is not None:
                values, neuron_visible = neurons
                factor = self.depth.draw_factor()
            if factor:
                courses = self.mix_every.courses(i, x, values, bin_visible, readout)
            x, weights = layer(x, allowed, return_attention, band)
            temporal.append(weights)
            if factor:
                x, weights = self.mix_every(i, x, courses, neuron_visible, readout, factor)
                spatial.append(weights)
        return x, temporal, spatial

    def after_layers(
        self, x: Tensor, bin_visible: Tensor, neurons: tuple[Tensor, Tensor]
    ) -> NetworkOutput:
        """Output of the network from the stream after its layers; parameters as in `run_layers`."""
        spatial = []
        factor = 0.0 if self.mix_last is None else self.depth.draw_factor()
        if factor:
            values, neuron_visible = neurons
            courses = values.transpose(1, 2)
            mixed, weights = self.mix_last(x, courses, neuron_visible, self.readout.weight)
            x = torch.add(x, mixed, alpha=factor)
            spatial.append(weights)
        return self.read_out(x, bin_visible[:, :, None], [], spatial)

    def read_out(
        self, x: Tensor, bin_visible: Tensor, temporal: list[Tensor], spatial: list[Tensor]
    ) -> NetworkOutput:
        """Output of the network from its residual stream and its attention weights.

        Parameters
        ----------
        x : Tensor, shape (batch, n_bins, width)
            Residual stream.
        bin_visible : Tensor, shape (batch, n_bins, 1)
            Whether a bin has a visible entry.
        temporal, spatial : list of Tensor
            As in `NetworkOutput`.
        """
        seen = bin_visible.to(x.dtype)
        encoded = (x * seen).sum(1) / seen.sum(1).clamp(min=1)  # (batch, width)
        # smoothed before the readout, which is linear, so that log-rates are a map of latents
        latents = self.smoothing(self.norm(x), bin_visible)  # (batch, n_bins, width)
        log_rates = self.readout(self.drop_rates(latents))  # (batch, n_bins, n_neurons)
        log_rates = self.likelihood.limit(log_rates)
        return NetworkOutput(log_rates, encoded, temporal, spatial, latents)
