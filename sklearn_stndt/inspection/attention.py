"""Attention weights of a fitted network, between bins and between neurons."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Bunch

from sklearn_stndt._validation import check_groups
from sklearn_stndt.estimator import STNDTEstimator
from sklearn_stndt.inference.rates import windows_to_infer
from sklearn_stndt.inspection._networks import (
    heldin_neurons,
    look_inside,
    networks,
)
from sklearn_stndt.network.cost import inference_batch_size
from sklearn_stndt.network.isolation import isolated_torch
from sklearn_stndt.windows.cutting import Windows
from sklearn_stndt.windows.segments import Segments, as_segments


def attention_maps(
    estimator: Any,
    X: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    average: bool = True,
    layer: int | None = None,
    heldin_only: bool = False,
) -> Bunch:
    """Attention weights between bins and between neurons.

    Row i of a map holds the weights that bin (or neuron) i gives to all bins (or neurons). Weights
    of visible ones sum to 1, and hidden ones get 0. Hidden bins and neurons have rows too, because
    their rates are inferred.

    Parameters
    ----------
    estimator : STNDTEstimator, BaggingEnsemble or Pipeline
        Fitted; in a pipeline, the step that infers rates is used.
    X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
        Spikes per bin, NaN where hidden.
    groups : array-like of shape (n_bins,), default=None
        Trial of each row of a 2D X.
    average : bool, default=True
        Return the mean over windows; False: one map per window, which can be large (float32).
    layer : int, default=None
        Return only the maps of this layer, counted from 0, or from the last one if negative. If
        spatial attention is applied once, after the last layer, its map is returned for every
        layer. None: all layers.
    heldin_only : bool, default=False
        Leave out the rows and columns of neurons that the network never sees.

    Returns
    -------
    maps : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the attributes:

        temporal : list of ndarray of shape (n_heads, n_map_bins, n_map_bins)
            One per layer, queries in rows; of shape (n_windows, n_heads, n_map_bins, n_map_bins)
            with ``average=False``. `n_map_bins` is the length of the window, or of the longest
            trial if that is shorter.
        spatial : list of ndarray of shape (n_neurons, n_neurons)
            One per spatial attention; of shape (n_windows, n_neurons, n_neurons) with
            ``average=False``. Empty if ``attention="temporal"``.
        neurons : ndarray of int
            Neuron of each row and column of the spatial maps.
        trials : ndarray of int, shape (n_windows,)
            Trial of each window; in a 2D X, number of the run of rows with the same group.
        starts : ndarray of int, shape (n_windows,)
            First bin of each window within its trial; in a 2D X, its first row.

    Raises
    ------
    TypeError
        If there is no network in `estimator`.
    ValueError
        If X or groups are invalid, if there is no such layer, or if members of an ensemble have
        windows of different lengths.

    See Also
    --------
    neuron_importance : One number per neuron.
    sklearn_stndt.plotting.AttentionDisplay : Plot of the maps.

    Notes
    -----
    Trials and recordings longer than the window are cut into windows that overlap by half, as in
    `transform`. In an ensemble, the heads of different members do not correspond. Temporal maps are
    therefore averaged over heads too (`n_heads` is 1), and the maps of each layer over the members
    that have this layer.

    Examples
    --------
    >>> from sklearn_stndt import STNDTEstimator
    >>> from sklearn_stndt.datasets import make_reaches
    >>> from sklearn_stndt.inspection import attention_maps
    >>> spikes = make_reaches(n_trials=20, n_bins=20, n_neurons=8, random_state=0).spikes
    >>> network = STNDTEstimator(n_layers=2, max_epochs=2, random_state=0).fit(spikes)
    >>> maps = attention_maps(network, spikes)
    >>> [weights.shape for weights in maps.temporal], maps.spatial[0].shape
    ([(4, 20, 20), (4, 20, 20)], (8, 8))
    >>> maps.spatial[0].sum(axis=1).round(3)
    array([1., 1., 1., 1., 1., 1., 1., 1.])
    """
    source, counts = look_inside(estimator, X)
    segments = as_segments(counts, check_groups(counts, groups, X))
    members = networks(source)
    windows_of = {member.window_ for member in members}
    if len(windows_of) > 1:
        raise ValueError(
            f"The members of the ensemble have windows of {sorted(windows_of)} bins, so their maps "
            "cannot be averaged. Pass one of the members, in estimators_."
        )
    several = source is not members[0]
    temporal_means: list[list] = []
    spatial_means: list[list] = []
    for member in members:
        collect = _MeanMaps(several) if average else _AllMaps(several)
        for _, temporal, spatial in iterate_maps(member, segments):
            collect.add(temporal, spatial)
        temporal, spatial = collect.result()
        if layer is not None:
            if not -len(temporal) <= layer < len(temporal):
                continue
            temporal = [temporal[layer]]
            spatial = spatial if len(spatial) < 2 else [spatial[layer]]
        _update(temporal_means, temporal)
        _update(spatial_means, spatial)
    if not temporal_means:
        n_layers = max(len(member.net_.module_.layers) for member in members)
        raise ValueError(
            f"layer={layer}, but there are {n_layers} layers: pass a number from {-n_layers} to "
            f"{n_layers - 1}, or None for all."
        )
    windows, _ = map_windows(members[0], segments)
    first = np.searchsorted(segments.starts, windows.starts, side="right") - 1
    offset = segments.starts[first] if counts.ndim == 3 else 0
    neurons = np.arange(counts.shape[-1])
    spatial = [mean for mean, _ in spatial_means]
    if heldin_only:
        neurons = heldin_neurons(source, counts)
        spatial = [weights[..., neurons, :][..., neurons] for weights in spatial]
    return Bunch(
        temporal=[mean for mean, _ in temporal_means],
        spatial=spatial,
        neurons=neurons,
        trials=first,
        starts=windows.starts - offset,
    )


def map_windows(network: STNDTEstimator, segments: Segments) -> tuple[Windows, int]:
    """Return windows as in `transform`, up to the last visible bin, and the bins of a map."""
    window = network.window_
    visible = segments.without_padding(window)
    return windows_to_infer(network.net_, visible, window), min(window, segments.longest)


@torch.no_grad()
def iterate_maps(
    network: STNDTEstimator, segments: Segments
) -> Iterator[tuple[NDArray, list[NDArray], list[NDArray]]]:
    """Yield attention maps of windows batch by batch, so that memory stays bounded.

    Yields
    ------
    indices : ndarray of int, shape (batch,)
        Windows.
    temporal : list of ndarray, shape (batch, n_heads, n_map_bins, n_map_bins)
    spatial : list of ndarray, shape (batch, n_neurons, n_neurons)
    """
    windows, n_bins = map_windows(network, segments)
    net = network.net_
    size = inference_batch_size(net.module_, windows.window, windows.rows.shape[1])
    size = max(size // len(net.module_.layers), 1)  # maps of all layers are kept
    for start in range(0, len(windows), size):
        indices = np.arange(start, min(start + size, len(windows)))
        with isolated_torch(network.n_threads, device=net.device, precision=network.precision):
            net.module_.eval()
            spikes, _, visible = net.split_visible(windows.__getitems__(indices)[0])
            output = net.module_(spikes, visible, return_attention=True)
            # padding gets no attention, so rows still sum to 1 without it
            temporal = [w[..., :n_bins, :n_bins].cpu().numpy() for w in output.temporal_weights]
            spatial = [w.cpu().numpy() for w in output.spatial_weights]
        yield indices, temporal, spatial


class _MeanMaps:
    """Mean over windows, for each row over those in which it has any visible key."""

    def __init__(self, mean_heads: bool):
        self.mean_heads = mean_heads
        self.sums: list[list[Any]] = [[], []]
        self.numbers: list[list[Any]] = [[], []]

    def add(self, temporal: list[NDArray], spatial: list[NDArray]) -> None:
        for maps, sums, numbers in zip((temporal, spatial), self.sums, self.numbers, strict=True):
            if not sums:
                sums += [0.0] * len(maps)
                numbers += [0] * len(maps)
            for i, weights in enumerate(maps):
                looks = weights.sum(-1, keepdims=True) > 0.5  # else there is no visible key
                sums[i] = sums[i] + weights.sum(0, dtype=np.float64)
                numbers[i] = numbers[i] + looks.sum(0)

    def result(self) -> tuple[list[NDArray], list[NDArray]]:
        temporal, spatial = (
            [total / np.maximum(number, 1) for total, number in zip(sums, numbers, strict=True)]
            for sums, numbers in zip(self.sums, self.numbers, strict=True)
        )
        if self.mean_heads:
            temporal = [weights.mean(0, keepdims=True) for weights in temporal]
        return temporal, spatial


class _AllMaps:
    """The map of every window."""

    def __init__(self, mean_heads: bool):
        self.mean_heads = mean_heads
        self.parts: tuple[list, list] = ([], [])

    def add(self, temporal: list[NDArray], spatial: list[NDArray]) -> None:
        if self.mean_heads:
            temporal = [weights.mean(1, keepdims=True) for weights in temporal]
        self.parts[0].append(temporal)
        self.parts[1].append(spatial)

    def result(self) -> tuple[list[NDArray], list[NDArray]]:
        temporal, spatial = (
            [np.concatenate(of_layer) for of_layer in zip(*part, strict=True)]
            for part in self.parts
        )
        return temporal, spatial


def _update(means: list[list], maps: list[NDArray]) -> None:
    """Add one member to the mean of each layer's maps, a list of [mean, n_members]."""
    means += [[0.0, 0] for _ in range(len(maps) - len(means))]
    for entry, weights in zip(means, maps, strict=False):
        entry[1] += 1
        entry[0] = entry[0] + (weights - entry[0]) / entry[1]
