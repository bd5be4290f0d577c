"""Training choices that follow the size of the data."""

import math

DEFAULT_WINDOW = 64  # bins of a window of a continuous recording


def auto_batch_size(n_windows: int) -> int:
    """Windows in a batch: many small updates where windows are few."""
    return min(16 if n_windows <= 500 else 32, n_windows)


def auto_max_epochs(amount: float, n_windows: int, batch_size: int) -> int:
    """Epochs that give a number of updates which grows with the square root of the data.

    `amount` is the data in windows laid end to end; `n_windows`, which may overlap, are an epoch.
    """
    n_updates = min(max(75 * math.sqrt(amount), 200), 12_000)
    return max(math.ceil(n_updates / math.ceil(n_windows / batch_size)), 1)


def auto_dropout(n_bins: int) -> float:
    """Dropout from the number of bins to learn from: .4 for 5,000, .2 for 40,000 and more."""
    position = math.log(max(n_bins, 1) / 5_000) / math.log(8)
    return 0.4 - 0.2 * min(max(position, 0.0), 1.0)


def auto_patience(max_epochs: int) -> int:
    """Epochs without a better score: a third of the training, for scores are noisy."""
    return max(max_epochs // 3, 10)
