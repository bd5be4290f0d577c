"""Rates of every row of segments, inferred from overlapping windows."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_stndt.inference.stitching import Stitcher
from sklearn_stndt.network.cost import inference_batch_size
from sklearn_stndt.network.isolation import isolated_torch
from sklearn_stndt.training.net import MaskedModellingNet
from sklearn_stndt.windows.cutting import Windows, cut, half_overlap
from sklearn_stndt.windows.segments import Segments


def infer(
    net: MaskedModellingNet,
    segments: Segments,
    window: int,
    n_threads: int,
    precision: str = "float32",
    out: NDArray | None = None,
) -> NDArray:
    """Infer the rate of every row of the segments.

    Segments longer than a window are divided into windows that overlap by half.

    Parameters
    ----------
    net : MaskedModellingNet
        A trained net.
    segments : Segments
        Counts, NaN where hidden.
    window : int
        Bins of a window, as in training.
    n_threads : int
        Number of torch threads on a CPU.
    precision : {"float32", "bfloat16"}, default="float32"
        Precision of matrix products.
    out : ndarray of shape (n_rows, n_neurons), default=None
        Array to write the rates to; None: a new float32 array.

    Returns
    -------
    ndarray of shape (n_rows, n_neurons)
        Spikes per bin.
    """
    if out is None:
        out = np.zeros(segments.rows.shape, dtype=np.float32)
    visible = segments.without_padding(window)
    with isolated_torch(n_threads, device=net.device, precision=precision):
        _write_rates(net, visible, window, out)
    padded = np.flatnonzero(visible.stops < segments.stops)
    if len(padded):
        # bins after the last visible one get separate windows, so that the windows of the
        # visible bins are the same with and without padding
        back = half_overlap(window, net.objective.forecast_bins)
        starts = np.maximum(visible.stops[padded] - back, segments.starts[padded])
        tails = Segments(segments.rows, starts, segments.stops[padded])
        stops = visible.stops[padded]
        seen = [out[start:stop].copy() for start, stop in zip(starts, stops, strict=True)]
        with isolated_torch(n_threads, device=net.device, precision=precision):
            _write_rates(net, tails, window, out)
        for start, stop, rates in zip(starts, stops, seen, strict=True):
            out[start:stop] = rates
    return out


def _write_rates(net: MaskedModellingNet, segments: Segments, window: int, out: NDArray) -> None:
    windows = windows_to_infer(net, segments, window)
    stitcher = Stitcher(windows, out, hidden_tail=net.objective.forecast_bins)
    for indices, rates in iterate_rates(net, windows):
        stitcher.add(indices, rates)
    stitcher.result()


def windows_to_infer(net: MaskedModellingNet, segments: Segments, window: int) -> Windows:
    """Windows for inference on segments: they overlap by half."""
    return cut(segments, window, half_overlap(window, net.objective.forecast_bins))


@torch.inference_mode()
def iterate_rates(net: MaskedModellingNet, windows: Windows) -> Iterator[tuple[NDArray, NDArray]]:
    """Infer rates of windows in batches, so that memory is bounded.

    Yields
    ------
    indices : ndarray of int, shape (batch,)
    rates : ndarray of float32, shape (batch, window, n_neurons)

    Raises
    ------
    FloatingPointError
        If a rate is not finite.
    """
    if net.module_.training:  # a repeated call takes as long as a layer
        net.module_.eval()
    size = inference_batch_size(net.module_, windows.window, windows.rows.shape[1])
    for start in range(0, len(windows), size):
        indices = np.arange(start, min(start + size, len(windows)))
        spikes, _, visible = net.split_visible(windows.__getitems__(indices)[0])
        log_rates = net.module_(spikes, visible).log_rates
        rates = net.module_.likelihood.mean(log_rates).cpu().numpy()
        if not np.isfinite(rates.sum()):
            raise FloatingPointError(
                "The network infers rates that are NaN or infinite: its weights were changed after "
                "training, or its file is damaged. Fit again."
            )
        yield indices, rates
