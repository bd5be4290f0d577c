"""Rates, or latents, of every row of segments, inferred from overlapping windows."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_stndt.inference.stitching import Stitcher
from sklearn_stndt.network import NetworkOutput
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
    kind: str = "rates",
) -> NDArray:
    """Infer the rates, or the latents, of every row of the segments.

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
    out : ndarray of shape (n_rows, n_neurons) or (n_rows, d_model), default=None
        Array to write to; None: a new float32 array.
    kind : {"rates", "latents"}, default="rates"
        What to infer: spikes per bin, or the normalised residual stream before the readout.

    Returns
    -------
    ndarray of shape (n_rows, n_neurons) or (n_rows, d_model)
    """
    if out is None:
        n_rows, n_neurons = segments.rows.shape
        n_columns = n_neurons if kind == "rates" else net.module_.width
        out = np.zeros((n_rows, n_columns), dtype=np.float32)
    visible = segments.without_padding(window)
    with isolated_torch(n_threads, device=net.device, precision=precision):
        _write(net, visible, window, out, kind)
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
            _write(net, tails, window, out, kind)
        for start, stop, values in zip(starts, stops, seen, strict=True):
            out[start:stop] = values
    return out


def _write(
    net: MaskedModellingNet, segments: Segments, window: int, out: NDArray, kind: str
) -> None:
    windows = windows_to_infer(net, segments, window)
    stitcher = Stitcher(windows, out, hidden_tail=net.objective.forecast_bins)
    for indices, values in iterate_rates(net, windows, kind):
        stitcher.add(indices, values)
    stitcher.result()


def windows_to_infer(net: MaskedModellingNet, segments: Segments, window: int) -> Windows:
    """Windows for inference on segments: they overlap by half."""
    return cut(segments, window, half_overlap(window, net.objective.forecast_bins))


@torch.inference_mode()
def iterate_rates(
    net: MaskedModellingNet, windows: Windows, kind: str = "rates"
) -> Iterator[tuple[NDArray, NDArray]]:
    """Infer rates, or latents, of windows in batches, so that memory is bounded.

    Yields
    ------
    indices : ndarray of int, shape (batch,)
    values : ndarray of float32, shape (batch, window, n_neurons) or (batch, window, d_model)

    Raises
    ------
    FloatingPointError
        If a value is not finite.
    """
    if net.module_.training:  # a repeated call takes as long as a layer
        net.module_.eval()
    size = inference_batch_size(net.module_, windows.window, windows.rows.shape[1])
    for start in range(0, len(windows), size):
        indices = np.arange(start, min(start + size, len(windows)))
        spikes, _, visible = net.split_visible(windows.__getitems__(indices)[0])
        values = output_of_kind(net, net.infer(spikes, visible), kind)
        if not np.isfinite(values.sum()):
            raise FloatingPointError(
                f"The network infers {kind} that are NaN or infinite: its weights were changed "
                "after training, or its file is damaged. Fit again."
            )
        yield indices, values


def output_of_kind(net: MaskedModellingNet, output: NetworkOutput, kind: str) -> NDArray:
    """Rates, or latents, in an output of the network."""
    if kind == "latents":
        assert output.latents is not None
        return output.latents.cpu().numpy()
    return net.module_.likelihood.mean(output.log_rates).cpu().numpy()
