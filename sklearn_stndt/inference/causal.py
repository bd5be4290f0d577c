"""Causal rates of every row of segments, from networks that remember the bins before."""

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_stndt.inference.rates import output_of_kind
from sklearn_stndt.network.cost import inference_batch_size
from sklearn_stndt.network.isolation import isolated_torch
from sklearn_stndt.training.net import MaskedModellingNet
from sklearn_stndt.windows.cutting import Windows
from sklearn_stndt.windows.out_of_core import let_go
from sklearn_stndt.windows.segments import Segments

PART = 256  # bins of a long segment that are inferred at once, if the window is not longer


@torch.inference_mode()
def infer_causal(
    net: MaskedModellingNet,
    segments: Segments,
    window: int,
    n_threads: int,
    precision: str = "float32",
    out: NDArray | None = None,
    kind: str = "rates",
) -> NDArray:
    """Infer the rates, or the latents, of every row of the segments from it and earlier ones.

    Segments longer than a window are inferred in parts, with a memory of the bins before.

    Parameters
    ----------
    net : MaskedModellingNet
        A trained net with a causal network.
    segments, window, n_threads, precision, out, kind
        As in :func:`sklearn_stndt.inference.rates.infer`.

    Returns
    -------
    ndarray of shape (n_rows, n_neurons) or (n_rows, d_model)
    """
    n_neurons = segments.rows.shape[1]
    if out is None:
        n_columns = n_neurons if kind == "rates" else net.module_.width
        out = np.zeros((len(segments.rows), n_columns), dtype=np.float32)
    lengths = segments.stops - segments.starts
    order = np.argsort(lengths, kind="stable")  # so that those of a batch have similar lengths
    net.module_.eval()
    with isolated_torch(n_threads, device=net.device, precision=precision):
        size = inference_batch_size(net.module_, window, n_neurons)
        for first in range(0, len(order), size):
            chosen = order[first : first + size]
            _write(net, segments, chosen, int(lengths[chosen].max()), window, out, kind)
    return out


def _write(
    net: MaskedModellingNet,
    segments: Segments,
    chosen: NDArray,
    longest: int,
    window: int,
    out: NDArray,
    kind: str,
) -> None:
    """Write the output for a batch of segments, in order of their lengths."""
    network, memory = net.module_, None
    part = longest if longest <= window else max(window, PART)
    for start in range(0, longest, part):
        starts = segments.starts[chosen] + start
        lengths = np.minimum(segments.stops[chosen] - starts, part)
        going_on = lengths > 0  # segments that have ended are last rows repeated, and not written
        starts = np.where(going_on, starts, segments.stops[chosen] - 1)
        n_bins = min(part, longest - start)
        windows = Windows(segments.rows, starts, np.maximum(lengths, 1), n_bins)
        counts = windows.__getitems__(np.arange(len(chosen)))[0]
        spikes, _, visible = net.split_visible(counts)
        if longest <= window:
            output = net.infer(spikes, visible)
        else:
            memory = memory or network.new_memory(len(chosen), part)
            output = network.continued(spikes, visible, memory)
        values = output_of_kind(net, output, kind)
        for i in np.flatnonzero(going_on):
            out[starts[i] : starts[i] + lengths[i]] = values[i, : lengths[i]]
        let_go(out)
