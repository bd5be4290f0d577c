"""The spatiotemporal neural data transformer: counts in, log-rates out."""

import math
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sklearn_stndt.network.attention import (
    SpatialAttention,
    TemporalAttention,
    allowed_keys,
    layer_bands,
)
from sklearn_stndt.network.dropout import Dropout

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
        One for each time that neurons are mixed; empty unless asked for.
    """

    log_rates: Tensor
    encoded: Tensor
    temporal_weights: list[Tensor]
    spatial_weights: list[Tensor]


def sinusoids(n_positions: int, width: int) -> Tensor:
    """Sinusoidal positions, shape (n_positions, width), for any width."""
    position = torch.arange(n_positions)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(1e4) / width))
    angle = position * frequency  # (n_positions, ceil(width / 2))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]


def feed_forward(d_model: int, width: int, dropout: float) -> nn.Sequential:
    """Pre-norm feed-forward branch of a residual stream, which starts at zero.

    So training begins with attention alone, a smoother, and adds as much as the data call for.
    """
    back = nn.Linear(width, d_model)
    nn.init.zeros_(back.weight)
    nn.init.zeros_(back.bias)
    return nn.Sequential(
        nn.LayerNorm(d_model),
        nn.Linear(d_model, width),
        nn.GELU(),
        Dropout(dropout),
        back,
        Dropout(dropout),
    )


class TemporalLayer(nn.Module):
    """Pre-norm attention over bins, then a feed-forward: NDT's layer."""

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        dim_feedforward: int,
        dropout: float,
        local_bins: int | None,
    ):
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.attention = TemporalAttention(d_model, n_heads, dropout, local_bins)
        self.drop = Dropout(dropout)
        self.feed_forward = feed_forward(d_model, dim_feedforward, dropout)

    def forward(
        self, x: Tensor, allowed: Tensor | None, return_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        attended, weights = self.attention(self.norm(x), allowed, return_weights)
        x = x + self.drop(attended)  # (batch, n_bins, d_model)
        return x + self.feed_forward(x), weights


class CourseNorm(nn.Module):
    """Layer normalisation of each neuron's time course over the bins that show anything."""

    def __init__(self, n_bins: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(n_bins))
        self.shift = nn.Parameter(torch.zeros(n_bins))

    def forward(self, courses: Tensor, bin_visible: Tensor) -> Tensor:
        # courses (batch, n_neurons, n_bins), bin_visible (batch, n_bins)
        seen = bin_visible[:, None].to(courses.dtype)
        n_seen = seen.sum(-1, keepdim=True).clamp(min=1)
        centred = (courses - (courses * seen).sum(-1, keepdim=True) / n_seen) * seen
        variance = centred.square().sum(-1, keepdim=True) / n_seen
        return (centred * torch.rsqrt(variance + 1e-5) * self.gain + self.shift) * seen


class SpatialMixing(nn.Module):
    r"""Spatial attention weights, applied to the temporal stream: :math:`A_S Z_T^T`.

    A stream that has one channel a neuron is mixed as it is. Any other width goes to neuron space
    by the weights of the read-out, so that what is mixed are departures of log-rates, and back by
    a linear map that starts at zero, so that training begins with the temporal network.
    """

    def __init__(
        self,
        n_neurons: int,
        n_bins: int,
        d_model: int | None,
        n_heads: int,
        width: int,
        dropout: float,
    ):
        super().__init__()
        self.norm = nn.LayerNorm(n_neurons if d_model is None else d_model)
        self.attention = SpatialAttention(n_bins, n_heads, width, dropout)
        self.drop = Dropout(dropout)
        self.from_neurons: nn.Module | None = None
        if d_model is not None:
            back = nn.Linear(n_neurons, d_model)
            nn.init.zeros_(back.weight)
            nn.init.zeros_(back.bias)
            self.from_neurons = back

    def to_neurons(self, x: Tensor, readout: Tensor) -> Tensor:
        """Channels of the neurons, (batch, n_bins, n_neurons)."""
        return x if self.from_neurons is None else F.linear(x, readout)

    def forward(
        self, x: Tensor, courses: Tensor, neuron_visible: Tensor, readout: Tensor
    ) -> tuple[Tensor, Tensor]:
        # courses (batch, n_neurons, n_bins), readout (n_neurons, d_model)
        weights = self.attention(courses, neuron_visible)  # (batch, n_neurons, n_neurons)
        channels = self.to_neurons(self.norm(x), readout)  # (batch, n_bins, n_neurons)
        mixed = channels @ weights.transpose(-1, -2)  # (batch, n_bins, n_neurons)
        if self.from_neurons is not None:
            mixed = self.from_neurons(mixed)  # (batch, n_bins, d_model)
        return x + self.drop(mixed), weights


class PublishedSpatialPart(nn.Module):
    """The spatial half of every layer as published: weights from the layer's own input.

    The first layer sees the counts through an embedding of time courses, the others see the
    stream. Each mixing is followed by a feed-forward.
    """

    def __init__(self, n_layers: int, shape: tuple, dim_feedforward: int):
        super().__init__()
        n_neurons, n_bins, d_model, *_, dropout = shape
        width = n_neurons if d_model is None else d_model
        self.embed_courses = nn.Linear(n_bins, n_bins)
        self.positions = nn.Parameter(0.5 * sinusoids(n_neurons, n_bins))
        self.mixings = nn.ModuleList(SpatialMixing(*shape) for _ in range(n_layers))
        self.norms = nn.ModuleList(CourseNorm(n_bins) for _ in range(n_layers))
        self.feed_forwards = nn.ModuleList(
            feed_forward(width, dim_feedforward, dropout) for _ in range(n_layers)
        )

    def courses(
        self, i: int, x: Tensor, values: Tensor, bin_visible: Tensor, readout: Tensor
    ) -> Tensor:
        """Neuron tokens of layer i, (batch, n_neurons, n_bins)."""
        if i == 0:
            courses = self.embed_courses(values.transpose(1, 2)) + self.positions
        else:
            mixing = cast(SpatialMixing, self.mixings[i])
            courses = mixing.to_neurons(x, readout).transpose(1, 2)
        return self.norms[i](courses, bin_visible)

    def forward(
        self, i: int, x: Tensor, courses: Tensor, neuron_visible: Tensor, readout: Tensor
    ) -> tuple[Tensor, Tensor]:
        x, weights = self.mixings[i](x, courses, neuron_visible, readout)
        return x + self.feed_forwards[i](x), weights


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
        n_spatial_heads: int = 1,
        d_spatial: int | None = 16,
        input_scaling: str = "sqrt",
    ):
        super().__init__()
        width = n_neurons if d_model is None else d_model
        self.input_scaling = input_scaling
        self.bands = layer_bands(context, n_layers)
        self.n_heads = n_heads
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

    def scaled_input(self, spikes: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Input of the embedding, with tokens where hidden; and without them, 0 where hidden."""
        values = spikes if self.input_scaling == "counts" else spikes.sqrt()
        values = ((values - self.center) / self.scale).masked_fill(~visible, 0.0)
        return torch.where(visible, values, self.token), values

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
        bin_visible = visible.any(2)  # (batch, n_bins)
        neuron_visible = visible.any(1)  # (batch, n_neurons)
        entering, values = self.scaled_input(spikes, visible)
        x = self.embed(entering) + self.positions  # (batch, n_bins, width)
        x = self.drop_embedding(x)
        temporal, spatial, readout = [], [], self.readout.weight
        allowed, band_before = allowed_keys(bin_visible, self.bands[0]), self.bands[0]
        for i, (layer, band) in enumerate(zip(self.layers, self.bands, strict=True)):
            if band != band_before:
                allowed, band_before = allowed_keys(bin_visible, band), band
            if self.mix_every is not None:
                courses = self.mix_every.courses(i, x, values, bin_visible, readout)
            x, weights = layer(x, allowed, return_attention)
            temporal.append(weights)
            if self.mix_every is not None:
                x, weights = self.mix_every(i, x, courses, neuron_visible, readout)
                spatial.append(weights)
        if self.mix_last is not None:
            x, weights = self.mix_last(x, values.transpose(1, 2), neuron_visible, readout)
            spatial.append(weights)
        seen = bin_visible[:, :, None].to(x.dtype)
        encoded = (x * seen).sum(1) / seen.sum(1).clamp(min=1)  # (batch, width)
        log_rates = self.readout(self.drop_rates(self.norm(x)))  # (batch, n_bins, n_neurons)
        log_rates = (self.shift + self.gain * log_rates).clamp(max=MAX_LOG_RATE)
        if not return_attention:
            temporal, spatial = [], []
        return NetworkOutput(log_rates, encoded, temporal, spatial)
