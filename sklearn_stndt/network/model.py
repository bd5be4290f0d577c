"""The spatiotemporal neural data transformer: counts in, log-rates out."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sklearn_stndt.network.attention import allowed_keys, layer_bands
from sklearn_stndt.network.dropout import Dropout, StochasticDepth
from sklearn_stndt.network.layers import TemporalLayer, sinusoids
from sklearn_stndt.network.spatial import PublishedSpatialPart, SpatialMixing

MAX_LOG_RATE = 15.0  # e^15 spikes per bin: no recording reaches it, and float32 holds its square


class NetworkOutput(NamedTuple):
    """What the network returns.

    Attributes
    ----------
    log_rates : Tensor, shape (batch, n_bins, n_neurons)
        Natural logarithm of the expected spikes per bin.
    encoded : Tensor, shape (batch, d_model)
        The stream before the read-out, averaged over the visible bins.
    temporal_weights : list of Tensor, shape (batch, n_heads, n_bins, n_bins)
        One a layer; empty unless asked for.
    spatial_weights : list of Tensor, shape (batch, n_neurons, n_neurons)
        One for each time that neurons were mixed; empty unless asked for.
    """

    log_rates: Tensor
    encoded: Tensor
    temporal_weights: list[Tensor]
    spatial_weights: list[Tensor]


class STNDT(nn.Module):
    """Transformer over bins and neurons that infers firing rates from spike counts.

    Every bin is a token. Attention over bins with feed-forwards makes the temporal stream (NDT);
    attention weights between neurons, computed from their time courses, mix it (STNDT). A linear
    read-out gives log-rates. What is hidden is replaced by a learned token of its neuron; bins of
    which nothing is visible are no keys of any attention, and neurons of which nothing is visible
    get no spatial weight.

    Parameters
    ----------
    n_neurons, n_bins : int
        Shape of the windows.
    n_layers, n_heads : int
        Temporal layers, and heads of each.
    d_model : int or None
        Width of the stream; None: one channel a neuron, as published.
    dim_feedforward : int
        Width inside the feed-forward branches.
    dropout, dropout_embedding, dropout_rates : float
        Dropout inside the layers, of the embedded input, and before the read-out.
    attention : {"spatiotemporal", "temporal"}
        STNDT, or NDT without the spatial part.
    context : (int, int) or None
        Bins back and ahead that temporal attention reaches through all layers; None: all.
    local_attention : bool
        Let temporal attention start local, by a learned penalty on distance; not published.
    spatial_layers : {"last", "all"}
        Mix neurons once after the last layer, by weights from the input's time courses, or, as
        published, in every layer, by weights from the stream's and with a feed-forward.
    stochastic_depth : float
        Share of the passes in training that leave the mixing of neurons out; drawn for each layer,
        if every layer has one.
    n_spatial_heads : int
        Heads of the spatial attention, whose maps are averaged.
    d_spatial : int or None
        Width of spatial queries and keys; None: n_bins, as published.
    input_scaling : {"sqrt", "standardized", "counts"}
        Square roots of counts, centred per neuron and scaled by a common factor or by each
        neuron's own standard deviation; or, as published, counts times sqrt(n_neurons), hidden
        entries 0.

    References
    ----------
    T. Le, E. Shlizerman, "STNDT: Modeling neural population activity with a spatiotemporal
    transformer", NeurIPS 2022. J. Ye, C. Pandarinath, "Representation learning for neural
    population activity with Neural Data Transformers", 2021.
    """

    center: Tensor
    scale: Tensor
    gain: Tensor
    shift: Tensor

    def __init__(
        self,
        n_neurons: int,
        n_bins: int,
        *,
        n_layers: int = 3,
        n_heads: int = 4,
        d_model: int | None = 64,
        dim_feedforward: int = 256,
        dropout: float = 0.3,
        dropout_embedding: float = 0.2,
        dropout_rates: float = 0.2,
        attention: str = "spatiotemporal",
        context: tuple[int, int] | None = None,
        local_attention: bool = True,
        spatial_layers: str = "last",
        stochastic_depth: float = 0.0,
        n_spatial_heads: int = 1,
        d_spatial: int | None = 16,
        input_scaling: str = "sqrt",
    ):
        super().__init__()
        width = n_neurons if d_model is None else d_model
        self.input_scaling = input_scaling
        self.bands = layer_bands(context, n_layers)
        self.n_heads = n_heads
        self.dim_feedforward = dim_feedforward
        self.n_spatial_heads = n_spatial_heads if attention == "spatiotemporal" else 0
        self.register_buffer("center", torch.zeros(n_neurons))
        self.register_buffer("scale", torch.ones(n_neurons))
        self.token = nn.Parameter(torch.zeros(n_neurons), requires_grad=input_scaling != "counts")
        self.embed = nn.Linear(n_neurons, width)
        self.positions = nn.Parameter(0.5 * sinusoids(n_bins, width))
        self.drop_embedding = Dropout(dropout_embedding)
        local_bins = n_bins if local_attention else None
        self.layers = nn.ModuleList(
            TemporalLayer(width, n_heads, dim_feedforward, dropout, local_bins)
            for _ in range(n_layers)
        )
        self.depth = StochasticDepth(stochastic_depth)
        self.mix_last: SpatialMixing | None = None
        self.mix_every: PublishedSpatialPart | None = None
        if attention == "spatiotemporal":
            spatial_width = n_bins if d_spatial is None else d_spatial
            shape = (n_neurons, n_bins, d_model, n_spatial_heads, spatial_width, dropout)
            if spatial_layers == "last":
                self.mix_last = SpatialMixing(*shape)
            else:
                self.mix_every = PublishedSpatialPart(n_layers, shape, dim_feedforward)
        self.norm = nn.LayerNorm(width)
        self.drop_rates = Dropout(dropout_rates)
        self.readout = nn.Linear(width, n_neurons)
        nn.init.uniform_(self.readout.weight, -0.05, 0.05)
        # of log-rates, chosen after training
        self.register_buffer("gain", torch.ones(n_neurons))
        self.register_buffer("shift", torch.zeros(n_neurons))

    @torch.no_grad()
    def set_statistics(self, mean_rates: Tensor, center: Tensor, scale: Tensor) -> None:
        """Start from the recording's means, so that training need not learn them.

        Parameters
        ----------
        mean_rates : Tensor, shape (n_neurons,)
            Mean spikes per bin, above 0: the read-out starts there.
        center, scale : Tensor, shape (n_neurons,)
            Mean and standard deviation of the square roots of the counts.
        """
        n_neurons = len(mean_rates)
        self.readout.bias.copy_(mean_rates.log())
        if self.input_scaling == "counts":
            self.scale.fill_(1 / math.sqrt(n_neurons))
            return
        self.center.copy_(center)
        # the square root makes the variance of Poisson counts 1/4 at any but the lowest rates
        self.scale.copy_(scale if self.input_scaling == "standardized" else torch.tensor(0.5))

    def largest_activation(self, n_bins: int, n_neurons: int) -> int:
        """Entries of the largest tensor that one window makes on its way."""
        width = max(self.dim_feedforward, 3 * self.embed.out_features, n_neurons)
        return max(n_bins * width, self.n_spatial_heads * n_neurons**2)

    def scaled_input(self, spikes: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Input of the embedding, with tokens where hidden; and without them, 0 where hidden."""
        shown = visible.to(spikes.dtype)
        spikes = spikes.nan_to_num(0.0, 0.0, 0.0) * shown
        if self.input_scaling == "counts":  # hidden entries are 0
            values = spikes / self.scale
            return values, values
        # the square root, by a way that is ten times as fast on a CPU where counts are 0
        roots = spikes * (spikes + 1e-30).rsqrt()
        values = (roots - self.center) / self.scale * shown
        return torch.addcmul(values, 1 - shown, self.token), values

    def embeddings(self, spikes: Tensor, visible: Tensor) -> list[Tensor]:
        """Embedded input, where the published contrastive loss acts.

        Parameters
        ----------
        spikes, visible : Tensor, shape (batch, n_bins, n_neurons)
            As in `forward`.

        Returns
        -------
        list of Tensor, shape (batch, n_features)
            That of the bins and, where the spatial part has an embedding of its own, that of the
            time courses.
        """
        entering, values = self.scaled_input(spikes, visible)
        embedded = [self.embed(entering).flatten(1)]
        if self.mix_every is not None:
            embedded.append(self.mix_every.embed_courses(values.transpose(1, 2)).flatten(1))
        return embedded

    def forward(
        self, spikes: Tensor, visible: Tensor, return_attention: bool = False
    ) -> NetworkOutput:
        """Infer log-rates.

        Parameters
        ----------
        spikes : Tensor, shape (batch, n_bins, n_neurons)
            Counts per bin, finite everywhere; what is hidden has no influence.
        visible : Tensor of bool, same shape
            True where the network may see the count.
        return_attention : bool, default=False
            Return the attention weights too.

        Returns
        -------
        NetworkOutput
        """
        # factors in place of choices by a mask, which take ten times as long on a CPU
        shown = visible.to(spikes.dtype)
        bin_visible = shown.sum(2) > 0  # (batch, n_bins)
        neuron_visible = shown.sum(1) > 0  # (batch, n_neurons)
        entering, values = self.scaled_input(spikes, shown)
        x = self.embed(entering) + self.positions  # (batch, n_bins, width)
        x = self.drop_embedding(x)
        temporal, spatial, readout = [], [], self.readout.weight
        allowed, band_before = allowed_keys(bin_visible, self.bands[0]), self.bands[0]
        for i, (layer, band) in enumerate(zip(self.layers, self.bands, strict=True)):
            if band != band_before:
                allowed, band_before = allowed_keys(bin_visible, band), band
            factor = 0.0 if self.mix_every is None else self.depth.draw_factor()
            if self.mix_every is not None and factor:
                courses = self.mix_every.courses(i, x, values, bin_visible, readout)
            x, weights = layer(x, allowed, return_attention, band)
            temporal.append(weights)
            if self.mix_every is not None and factor:
                x, weights = self.mix_every(i, x, courses, neuron_visible, readout, factor)
                spatial.append(weights)
        factor = 0.0 if self.mix_last is None else self.depth.draw_factor()
        if self.mix_last is not None and factor:
            mixed, weights = self.mix_last(x, values.transpose(1, 2), neuron_visible, readout)
            x = torch.add(x, mixed, alpha=factor)
            spatial.append(weights)
        seen = bin_visible[:, :, None].to(x.dtype)
        encoded = (x * seen).sum(1) / seen.sum(1).clamp(min=1)  # (batch, width)
        log_rates = self.readout(self.drop_rates(self.norm(x)))  # (batch, n_bins, n_neurons)
        log_rates = torch.addcmul(self.shift, self.gain, log_rates).clamp(max=MAX_LOG_RATE)
        if not return_attention:
            temporal, spatial = [], []
        return NetworkOutput(log_rates, encoded, temporal, spatial)
