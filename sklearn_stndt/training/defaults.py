"""Training choices that follow the size of the data."""

import math

import torch

DEFAULT_WINDOW = 128  # bins of a window of a continuous recording
PASSES = (100, 200)  # times that every bin is learnt from: at one spike or fewer, at two or more
LONGEST_EPOCH = 600  # batches: who has more data sees a part of it in each epoch
MANY_BINS = 25_000  # to learn from, from which on the network has a layer more
MANY_NEURONS = 128  # from which on most passes in training leave spatial attention out
LONGEST_RUN = 512  # bins up to which a run of rows of one group counts as a trial


def auto_batch_size(n_windows: int) -> int:
    """Windows in a batch: many small updates where windows are few."""
    return min(16 if n_windows <= 500 else 32, n_windows)


def auto_max_epochs(
    n_bins: int, window: int, n_windows: int, batch_size: int, spikes_per_bin: float
) -> int:
    """Epochs in which every bin is learnt from often enough, in 400 to 12,000 updates.

    `n_bins` are there to learn from, with so many spikes of all neurons together; `n_windows` of
    `window` bins, which may overlap, are an epoch.
    """
    n_passes = min(max(PASSES[0] * spikes_per_bin, PASSES[0]), PASSES[1])
    n_updates = n_passes * n_bins / (batch_size * window)
    n_updates = min(max(n_updates, 400), 12_000)
    return max(math.ceil(n_updates / math.ceil(n_windows / batch_size)), 1)


def auto_n_layers(n_bins: int) -> int:
    """Transformer layers: a fourth pays where there are tens of thousands of bins."""
    return 4 if n_bins >= MANY_BINS else 3


def auto_stochastic_depth(n_neurons: int, spatial_layers: str) -> float:
    """Share of the passes without spatial attention, whose cost grows as neurons squared."""
    return 0.75 if n_neurons >= MANY_NEURONS and spatial_layers == "last" else 0.0


def auto_dropout(n_bins: int) -> float:
    """Dropout from the number of bins to learn from: .4 for 5,000, .1 for 113,000 and more."""
    position = math.log(max(n_bins, 1) / 5_000) / math.log(8)
    return 0.4 - 0.2 * min(max(position, 0.0), 1.5)


def auto_patience(max_epochs: int) -> int:
    """Epochs without a better score: a third of the training, for scores are noisy."""
    return max(max_epochs // 3, 10)


def choose_window(window: int | None, longest: int, kind: str, forecast_bins: int) -> int:
    """Bins of a window, never more than the longest trial has.

    Parameters
    ----------
    window : int or None
        What the user wants; None: the longest trial, or `DEFAULT_WINDOW` for a recording.
    longest : int
        Bins of the longest trial.
    kind : {"trials", "groups", "recording"}
        Trials along an axis; rows whose groups may be trials or, where they are long, sessions;
        rows of one recording.
    forecast_bins : int
        Bins at the end of the window that are never shown.
    """
    if window is None:
        trials = kind == "trials" or (kind == "groups" and longest <= LONGEST_RUN)
        window = longest if trials else DEFAULT_WINDOW
    window = min(window, longest)
    if forecast_bins > 0 and forecast_bins >= window:
        raise ValueError(
            f"forecast_bins={forecast_bins} leaves nothing of a window of {window} bins to "
            "forecast from. Lower forecast_bins, or pass longer trials."
        )
    return window


def choose_device(device: str) -> str:
    """Resolve "auto" to a GPU where there is one; check what the user wants."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device={device!r} cannot be used here: {str(error).splitlines()[0]}. "
            "Pass 'auto', 'cpu', or the name of a device that torch finds."
        ) from error
    return device
