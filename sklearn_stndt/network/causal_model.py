"""The causal network: log-rates of a bin depend on this bin and earlier ones alone."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sklearn_stndt.network.causal import (
    N_FILTERS,
    CausalMixing,
    CausalSpatialPart,
    CourseFilters,
    Memory,
)
from sklearn_stndt.network.causal_posterior import CausalPosterior
from sklearn_stndt.network.model import STNDT, NetworkOutput, NetworkSettings
from sklearn_stndt.network.temporal import allowed_keys, visible_keys


class CausalSTNDT(STNDT):
    """STNDT whose attention reaches back only, over a bounded number of bins.

    It can be given a whole window, as in training, or the bins of a stream in parts of any length,
    with a `Memory` of the bins before; the log-rates are the same, except for rounding. Each layer
    attends to at most ``n_bins - 1`` bins back, or to its share of `context`. Spatial attention has
    other weights in each bin, from time courses that weigh the past exponentially.

    Parameters
    ----------
    n_neurons, n_bins : int
        Shape of the windows.
    settings : NetworkSettings or None, default=None
        All other settings. Bins ahead in `context` have no effect.
    n_positions, **changes
        As in `STNDT`.
    """

    mixing = CausalMixing
    spatial_part = CausalSpatialPart
    posterior_class = CausalPosterior

    def __init__(
        self,
        n_neurons: int,
        n_bins: int,
        settings: NetworkSettings | None = None,
        *,
        n_positions: int | None = None,
        **changes: Any,
    ):
        settings = replace(settings or NetworkSettings(), **(changes | {"causal": True}))
        super().__init__(n_neurons, n_bins, settings, n_positions=n_positions)
        longest = n_bins - 1
        self.back = [longest if b is None else min(b[0], longest) for b in self.bands]
        self.bands = [(back, 0) for back in self.back]
        self.n_bins = n_bins
        self.filters = CourseFilters(n_bins)

    @property
    def in_trials(self) -> bool:
        """Whether windows begin with a trial, and not anywhere in a recording."""
        return len(self.positions.weight) > 1

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        if isinstance(self.posterior, CausalPosterior):
            self.posterior.restarts = not self.in_trials and len(self.posterior.mean) > 1

    def new_memory(self, n_streams: int, longest: int = 1) -> Memory:
        """Memory of streams that have not begun.

        Parameters
        ----------
        n_streams : int
            Number of streams.
        longest : int, default=1
            Most bins that are passed to `advance` at once.

        Returns
        -------
        Memory
        """
        attention: Any = self.layers[0].attention
        shapes: dict[str, tuple[tuple[int, ...], int, int]] = {"visible": ((), max(self.back), 1)}
        for i, back in enumerate(self.back):
            for name in ("keys", "values"):
                shapes[f"{name} {i}"] = ((attention.n_heads,), back, attention.head_width)
        n_neurons = self.readout.out_features
        if self.settings.attention == "spatiotemporal":
            shapes["seen"] = ((), 1, n_neurons)
            n_courses = 1 if self.mix_every is None else len(self.layers)
            for i in range(n_courses):
                shapes[f"courses {i}"] = ((N_FILTERS,), 1, n_neurons)
        if isinstance(self.posterior, CausalPosterior):
            n_trajectories = len(self.posterior.trajectories)
            shapes["amplitudes"] = ((self.posterior.n_filters,), 1, n_trajectories)
        return Memory(shapes, n_streams, longest, self.readout.weight.device)

    def advance(
        self, spikes: Tensor, visible: Tensor, memory: Memory, n_kept: int | None = None
    ) -> Tensor:
        """Infer log-rates of the next bins of streams.

        Parameters
        ----------
        spikes, visible : Tensor, shape (n_streams, n_bins, n_neurons)
            As in `forward`.
        memory : Memory
            Of the bins before; it is extended.
        n_kept : int or None, default=None
            Number of bins to remember; None: all. The others may be hidden ones after them, to
            forecast.

        Returns
        -------
        Tensor, shape (n_streams, n_bins, n_neurons)
        """
        return self.continued(spikes, visible, memory, n_kept).log_rates

    def continued(
        self, spikes: Tensor, visible: Tensor, memory: Memory, n_kept: int | None = None
    ) -> NetworkOutput:
        """Output of the network for the next bins of streams; see `advance`."""
        n_kept = spikes.shape[1] if n_kept is None else n_kept
        shown = visible.to(spikes.dtype)
        entering, values = self.scaling(spikes, shown)

        def extend(name: str, new: Tensor) -> Tensor:
            return memory.extend(name, new, n_kept)

        output = self._run(entering, values, shown, False, (memory.age, extend))
        if isinstance(self.posterior, CausalPosterior):
            log_rates = self._filtered(
                self.posterior, output.log_rates, spikes, visible, memory.age, extend
            )
            output = output._replace(log_rates=log_rates)
        memory.age += n_kept
        return output

    def _filtered(
        self,
        posterior: CausalPosterior,
        log_rates: Tensor,
        spikes: Tensor,
        visible: Tensor,
        age: Tensor,
        extend: Callable[[str, Tensor], Tensor],
    ) -> Tensor:
        """Mix log-rates of the next bins of streams with those of a filter."""
        nothing = log_rates.new_zeros(
            len(spikes), posterior.n_filters, 0, len(posterior.trajectories)
        )
        before = extend("amplitudes", nothing)[..., 0, :]
        finite = spikes.nan_to_num(0.0, 0.0, 0.0)
        estimates, after = posterior.filter(
            log_rates, finite, visible, self.likelihood, age, before
        )
        extend("amplitudes", after)
        return self.likelihood.limit(torch.lerp(log_rates, estimates, posterior.weight))

    def embeddings(self, spikes: Tensor, visible: Tensor) -> list[Tensor]:
        entering, values = self.scaling(spikes, visible.to(spikes.dtype))
        embedded = [self.embed(entering).flatten(1)]  # (batch, n_bins * width)
        if self.mix_every is not None:
            last = self.filters(values)[:, :, -1:]  # (batch, filters, 1, n_neurons)
            embedded.append(self.mix_every.embed(last).flatten(1))
        return embedded

    def from_scaled(
        self, entering: Tensor, values: Tensor, shown: Tensor, return_attention: bool = False
    ) -> NetworkOutput:
        return self._run(entering, values, shown, return_attention)

    def _run(
        self,
        entering: Tensor,
        values: Tensor,
        shown: Tensor,
        return_attention: bool = False,
        past: tuple[Tensor, Callable[[str, Tensor], Tensor]] | None = None,
    ) -> NetworkOutput:
        """Output for a window, or for the next bins of streams.

        `past` is the age of each stream and `Memory.extend`, for streams; None: a window.
        """
        bin_visible = shown.amax(2, keepdim=True)  # (batch, n_bins, 1)
        x = self.positions(self.embed(entering), None if past is None else past[0])
        x = self.drop_embedding(x)  # (batch, n_bins, width)
        temporal: list[Tensor] = []
        spatial: list[Tensor] = []
        readout, every, last = self.readout.weight, self.mix_every, self.mix_last
        factor = 0.0 if last is None else self.depth.draw_factor()
        if every is not None or factor:
            seen = self._seen(shown, past)
            courses = self._courses(0, values, past)
        if past is not None:
            keys = visible_keys(past[1]("visible", bin_visible), shown.shape[1])
        layers: Any = zip(self.layers, self.bands, strict=True)
        for i, (layer, band) in enumerate(layers):
            of_layer = 0.0 if every is None else self.depth.draw_factor()
            if of_layer:
                if i == 0:
                    tokens = every.embed(courses)
                else:
                    tokens = self._courses(i, every.input_of(i, x, bin_visible, readout), past)
                tokens = every.normed(i, tokens)  # (batch, filters, n_bins, n_neurons)
            if past is None:
                allowed = allowed_keys(bin_visible[..., 0] > 0, band)
                x, weights = layer(x, allowed, return_attention, band)
                temporal.append(weights)
            else:
                x = layer.advance(x, lambda name, new, i=i: past[1](f"{name} {i}", new), keys)
            if of_layer:
                x, weights = every(i, x, tokens, seen, readout, of_layer, return_attention)
                spatial.append(weights)
        if factor:
            mixed, weights = last(x, courses, seen, readout, return_attention)
            x = torch.add(x, mixed, alpha=factor)
            spatial.append(weights)
        if not return_attention:
            temporal, spatial = [], []
        return self.read_out(x, bin_visible, temporal, spatial)

    def _seen(self, shown: Tensor, past: Any) -> Tensor:
        """1 for neurons that have been visible in a bin or before, (batch, n_bins, n_neurons)."""
        seen = shown if shown.shape[1] == 1 else shown.cumsum(1).clamp(max=1)
        if past is None:
            return seen
        seen = torch.maximum(seen, past[1]("seen", shown[:, :0]))
        return past[1]("seen", seen)[:, 1:]

    def _courses(self, i: int, values: Tensor, past: Any) -> Tensor:
        """Time courses for layer i, (batch, filters, n_bins, n_neurons)."""
        if past is None:
            return self.filters(values)
        name = f"courses {i}"
        nothing = values[:, None, :0].expand(-1, N_FILTERS, -1, -1)
        courses = self.filters(values, past[1](name, nothing))
        return past[1](name, courses)[:, :, 1:]
