"""Attention between bins and between neurons, as a fitted network pays it."""

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
    """Attention that bins pay to bins, and neurons to neurons.

    Row i of a map tells how bin (or neuron) i distributes its attention: it sums to 1 over what is
    visible, and what is hidden gets 0. Rows of hidden bins and neurons are there too, for their
    rates are inferred.

    Parameters
    ----------
    estimator : STNDTEstimator, BaggingEnsemble or Pipeline
        Fitted; of a pipeline the step that infers rates is taken.
    X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
        Spikes per bin, NaN where hidden.
    groups : array-like of shape (n_bins,), default=None
        Trial of each row of a 2D X.
    average : bool, default=True
        Return the mean over windows; False: a map for each, which can be large (float32).
    layer : int, default=None
        Maps of this layer alone, from 0; negative numbers count from the last. A network that
        mixes neurons only once, after its last layer, has that one spatial map for every layer.
        None: all layers.
    heldin_only : bool, default=False
        Leave out the rows and columns of neurons that the network never sees.

    Returns
    -------
    maps : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the attributes:

        temporal : list of ndarray of shape (n_heads, n_map_bins, n_map_bins)
            One a layer, queries in rows; of shape (n_windows, n_heads, n_map_bins, n_map_bins)
            with ``average=False``. `n_map_bins` is the window's length, or that of the longest
            trial where it is shorter.
        spatial : list of ndarray of shape (n_neurons, n_neurons)
            One for each time that neurons are mixed; of shape (n_windows, n_neurons, n_neurons)
            with ``average=False``. Empty where ``attention="temporal"``.
        neurons : ndarray of int
            Neuron of each row and column of the spatial maps.
        trials : ndarray of int, shape (n_windows,)
            Trial of each window; in a 2D X, which unbroken run of one group.
        starts : ndarray of int, shape (n_windows,)
            First bin of each window, counted in its trial; in a 2D X, the row.

    Raises
    ------
    TypeError
        If there is no network in `estimator`.
    ValueError
        If X or groups are not what `estimator` expects, if there is no such layer, or if members
        of an ensemble have windows of different lengths.

    See Also
    --------
    neuron_importance : One number for each neuron.
    sklearn_stndt.plotting.AttentionDisplay : The maps as a picture.

    Notes
    -----
    Trials and recordings longer than the window are seen through windows that overlap by half, as
    in `transform`. In an ensemble, heads of one member have no counterpart in another, so
    temporal maps are averaged over heads too (`n_heads` is 1), and each layer's maps over the
    members that have this layer.

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
    segments = as_segments(counts, check_groups(counts, groups))
    members = networks(source)
    windows_of = {member.window_ for member in members}
    if len(windows_of) > 1:
        raise ValueError(
            f"The members of the ensemble have windows of {sorted(windows_of)} bins, whose maps "
            "have no mean. Pass one of the members, in estimators_."
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
    """Windows as in `transform`, without those after the last visible bin; and bins of a map."""
    window = network.window_
    visible = segments.without_padding(window)
    return windows_to_infer(network.net_, visible, window), min(window, segments.longest)


@torch.no_grad()
def iterate_maps(
    network: STNDTEstimator, segments: Segments
) -> Iterator[tuple[NDArray, list[NDArray], list[NDArray]]]:
    """Attention maps of windows, batch after batch, so that memory stays bounded.

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
            # padding is no key, so that rows still sum to 1 without it
            temporal = [w[..., :n_bins, :n_bins].cpu().numpy() for w in output.temporal_weights]
            spatial = [w.cpu().numpy() for w in output.spatial_weights]
        yield indices, temporal, spatial


class _MeanMaps:
    """Mean over windows, of the rows that look at anything."""

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
                looks = weights.sum(-1, keepdims=True) > 0.5  # else nothing is visible
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
    """Let one more member enter the mean of each layer's maps, a list of [mean, n_members]."""
    means += [[0.0, 0] for _ in range(len(maps) - len(means))]
    for entry, weights in zip(means, maps, strict=False):
        entry[1] += 1
        entry[0] = entry[0] + (weights - entry[0]) / entry[1]
