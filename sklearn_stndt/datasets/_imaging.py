"""What the loaders of calcium imaging share: dF/F, and the recording that they return."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, maximum_filter1d, minimum_filter1d
from sklearn.utils import Bunch

from sklearn_stndt.datasets._checks import check_memory, check_number
from sklearn_stndt.datasets._loaded import Loaded

_SMOOTHING = 10  # frames, standard deviation; as in suite2p
_LEAST = 0.1  # of the baseline of F, below which the baseline is not divided by
_LISTED = 10
_AT_ONCE = 2**24  # samples


def check_fps(fps: Any, where: str) -> float:
    """Return frames per second as float after checking it."""
    try:
        check_number(fps, "fps", above=0, at_most=1e6)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error} Pass fps=... with the frames per second.") from error
    return float(fps)


def check_frames(n_frames: int, n_neurons: int, where: str) -> None:
    """Raise an error if a recording of this size does not fit into memory, or is empty."""
    if not n_neurons or n_frames < 2:
        raise ValueError(
            f"{where}: {n_neurons} neurons and {n_frames} frames are left. Pass only_cells=False "
            "if all were classified as no cells; otherwise check the file."
        )
    check_memory(
        4 * 4 * n_frames * n_neurons,
        f"{where}: {n_frames:,} frames of {n_neurons:,} neurons",
        "Load fewer planes, or only cells.",
    )


def delta_f(
    corrected: NDArray, raw: NDArray, fps: float, window: float, ids: NDArray, where: str
) -> NDArray[np.float32]:
    """Return dF/F of each neuron, (n_neurons, n_frames).

    Parameters
    ----------
    corrected, raw : ndarray of shape (n_neurons, n_frames)
        Fluorescence with and without subtraction of neuropil.

    fps : float
        Frames per second.

    window : float
        Length of the filters of the baseline, in seconds.

    ids : ndarray of shape (n_neurons,)
        Numbers of the neurons, for messages.

    where : str
        File, with which messages start.
    """
    out = np.empty(corrected.shape, np.float32)
    size = max(round(min(window * fps, 2 * corrected.shape[1])), 1)  # frames
    low = np.zeros(len(out), dtype=bool)
    step = max(_AT_ONCE // corrected.shape[1], 1)
    for first in range(0, len(out), step):
        some = slice(first, first + step)
        baseline = _baseline(corrected[some], size)
        divisor = baseline
        if raw is not corrected:
            of_raw = _baseline(raw[some], size)
            low[some] = (baseline < _LEAST * of_raw).any(axis=1)
            divisor = np.where(low[some, None], of_raw, baseline)
        if not (divisor > 0).all():
            bad = ids[some][~(divisor > 0).all(axis=1)]
            raise ValueError(
                f"{where}: the baseline of neurons {_listed(bad)} is 0, negative or NaN, so dF/F "
                'is not defined. Pass signal="spks", or signal="F" and normalise it yourself.'
            )
        out[some] = (corrected[some] - baseline) / divisor
    if low.any():
        warnings.warn(
            f"{where}: after subtraction of neuropil, the baseline of {np.count_nonzero(low):,} of "
            f"{len(low):,} neurons ({_listed(ids[low])}) falls below a tenth of that of F. Their "
            "fluorescence is divided by the baseline of F instead. A smaller neuropil "
            "coefficient, neuropil=..., may fit better.",
            UserWarning,
            stacklevel=3,
        )
    return out


def _baseline(traces: NDArray, size: int) -> NDArray:
    smooth = gaussian_filter1d(traces, _SMOOTHING, axis=1, mode="nearest")
    lowest = minimum_filter1d(smooth, size, axis=1, mode="nearest")
    return maximum_filter1d(lowest, size, axis=1, mode="nearest")


def _listed(ids: NDArray) -> str:
    more = f" and {len(ids) - _LISTED:,} more" if len(ids) > _LISTED else ""
    return ", ".join(map(str, ids[:_LISTED])) + more


def as_recording(
    signals: NDArray, fps: float, signal: str, neuron_ids: NDArray, **more: Any
) -> Bunch:
    """Return what a loader of calcium imaging returns; `signals` is (n_frames, n_neurons)."""
    return Loaded(
        signals=signals,
        time=np.arange(len(signals)) / fps,
        neuron_ids=neuron_ids,
        signal=signal,
        fps=fps,
        bin_width=1 / fps,
        **more,
    )
