"""Train the network on segments."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_stndt.network import STNDT
from sklearn_stndt.network.isolation import isolated_torch
from sklearn_stndt.training.calibration import calibrate, calibrate_as
from sklearn_stndt.training.checkpointing import DamagedCheckpointError, TrainingCheckpoint
from sklearn_stndt.training.divergence import check_finite
from sklearn_stndt.training.memory import check_memory, reuse_memory
from sklearn_stndt.training.net import MaskedModellingNet, build_net
from sklearn_stndt.training.settings import DataSize, Settings
from sklearn_stndt.training.splitting import split
from sklearn_stndt.training.transfer import start_callbacks, take_core
from sklearn_stndt.windows.cutting import Windows, cut, half_overlap
from sklearn_stndt.windows.out_of_core import in_pieces
from sklearn_stndt.windows.segments import Segments

STATISTICS_BYTES = 2**21  # bytes of counts read at once


class Statistics(NamedTuple):
    """Statistics of each neuron's known counts, each of shape (n_neurons,).

    Attributes
    ----------
    mean : ndarray of float64
        Mean count, above 0 even for a silent neuron.
    mean_sqrt, std_sqrt : ndarray of float64
        Mean and standard deviation of the square roots of the counts; the standard deviation of a
        constant neuron is set to 1.
    """

    mean: NDArray
    mean_sqrt: NDArray
    std_sqrt: NDArray


@dataclass(frozen=True)
class TrainingData:
    """Data for training and validation.

    Attributes
    ----------
    windows : Windows
        Training windows.
    validation : Windows or None
        Validation windows, not used for training.
    n_bins : int
        Bins of training data.
    statistics : Statistics
        Statistics of all data.
    whole_trials : bool
        Whether the data are several trials, none longer than a window, so that each window begins
        with a trial.
    """

    windows: Windows
    validation: Windows | None
    n_bins: int
    statistics: Statistics
    whole_trials: bool = False

    @property
    def size(self) -> DataSize:
        """Size of the data, which determines "auto" settings."""
        return DataSize(
            n_bins=self.n_bins,
            n_neurons=self.windows.rows.shape[1],
            n_windows=len(self.windows),
            window=self.windows.window,
            spikes_per_bin=float(self.statistics.mean.sum()),
        )


def prepare(
    segments: Segments,
    *,
    window: int,
    forecast_bins: int,
    validation_fraction: float | None,
    seed: int,
) -> TrainingData:
    """Set windows aside for validation, and cut the rest into training windows.

    Parameters
    ----------
    segments : Segments
        The data.
    window : int
        Bins of a window.
    forecast_bins : int
        Bins at the end of a window that are always hidden; 0 for a causal network.
    validation_fraction : float or None
        Share to set aside; None: no validation.
    seed : int
        Seed for drawing the validation windows.

    Returns
    -------
    TrainingData

    Raises
    ------
    ValueError
        If a neuron has no known count.
    """
    statistics = known_statistics(segments.rows)
    segments = segments.without_padding(window)
    whole_trials = len(segments.starts) > 1 and segments.longest <= window
    training, validation = segments, None
    if validation_fraction is not None:
        parts = split(segments, window, validation_fraction, np.random.RandomState(seed))
        training, validation = parts or (segments, None)
    return TrainingData(
        windows=cut(training, window, half_overlap(window, forecast_bins)),
        validation=None if validation is None else cut(validation, window, window - forecast_bins),
        n_bins=training.n_bins,
        statistics=statistics,
        whole_trials=whole_trials,
    )


def train(
    data: TrainingData,
    settings: Settings,
    previous: MaskedModellingNet | None = None,
    checkpoint: TrainingCheckpoint | None = None,
    core: STNDT | None = None,
) -> MaskedModellingNet:
    """Train a net.

    Parameters
    ----------
    data : TrainingData
        Windows for training and validation.
    settings : Settings
        Settings of network, objective and training.
    previous : MaskedModellingNet, default=None
        Net whose weights and history to continue from.
    checkpoint : TrainingCheckpoint, default=None
        File of this training, from which it continues.
    core : STNDT, default=None
        Network of other neurons, whose core the network starts with.

    Returns
    -------
    MaskedModellingNet
        Trained net, trimmed for prediction. `diverged_` says whether and how it has diverged.

    Raises
    ------
    FloatingPointError
        If training diverges, also with smaller learning rates.
    """
    if checkpoint is not None and checkpoint.state is not None:
        try:
            return _train(data, settings, previous, checkpoint, core)
        except DamagedCheckpointError as error:
            checkpoint.discard(error)
    return _train(data, settings, previous, checkpoint, core)


def _train(
    data: TrainingData,
    settings: Settings,
    previous: MaskedModellingNet | None,
    checkpoint: TrainingCheckpoint | None,
    core: STNDT | None,
) -> MaskedModellingNet:
    training, size = settings.training, data.size
    with isolated_torch(
        training.n_threads, training.random_state, training.device, training.precision
    ):
        n_positions = count_positions(settings, [data])
        if previous is not None:
            n_positions = len(previous.module_.positions.weight)
        elif core is not None and n_positions is None:
            n_positions = len(core.positions.weight)
        net = build_net(
            settings,
            size.n_neurons,
            data.windows,
            data.validation,
            mean_counts=data.statistics.mean,
            checkpoint=checkpoint,
            n_positions=n_positions,
            callbacks=[] if core is None else start_callbacks(settings, size),
        )
        net.initialize()
        if torch.device(training.device).type == "cpu" and isinstance(net.module_, STNDT):
            check_memory(net.module_, size.window, size.n_neurons)
            reuse_memory()
        net.module_.set_statistics(*(torch.as_tensor(s) for s in data.statistics))
        if previous is not None:
            _take_weights(net, previous)
        if checkpoint is not None and checkpoint.finished:
            checkpoint.restore_finished(net)
        else:
            if core is not None:
                take_core(net, core, settings, size, data.windows, data.statistics)
            net.partial_fit(data.windows)
            if data.validation is not None and training.calibration:
                calibrate(net, data.validation)
            check_finite(net)
            if checkpoint is not None and not net.interrupted_:
                checkpoint.finish(net)
    history = copy.copy(net.history)
    net.trim_for_prediction()  # drops the history, which is small and needed
    if previous is not None:
        for row in history:
            row["epoch"] += len(previous.history)
        history[:0] = previous.history
    net.history = history
    return net


def refit(
    net: MaskedModellingNet,
    data: TrainingData,
    settings: Settings,
    validation: Windows,
    previous: MaskedModellingNet | None = None,
    checkpoint: TrainingCheckpoint | None = None,
    core: STNDT | None = None,
) -> MaskedModellingNet:
    """Train again on all windows, for as long as was best and with the same calibration.

    Parameters
    ----------
    net : MaskedModellingNet
        Net trained without `validation`.
    data : TrainingData
        All windows, for training.
    settings : Settings
        Settings of the first training.
    validation : Windows
        Windows that the first training was validated on.
    previous, checkpoint, core
        As in `train`.

    Returns
    -------
    MaskedModellingNet
        As in `train`; its history begins with that of the first training. After an interrupt, the
        net of the first training.
    """
    first = len(previous.history) if previous is not None else 0
    rows = net.history.to_list()[first:]
    kept = [i for i, row in enumerate(rows) if row.get("kept")]
    n_epochs = kept[-1] + 1 if kept else len(rows)
    again = replace(settings, training=replace(settings.training, max_epochs=n_epochs))
    result = train(data, again, previous, checkpoint, core)
    if result.interrupted_:
        net.interrupted_ = True
        return net
    if settings.training.calibration:
        calibrate_as(result, net.module_, validation)
    new = result.history.to_list()[first:]
    for row in new:
        row["epoch"] += len(rows)
    result.history[first:] = [*rows, *new]
    result.diverged_ = result.diverged_ or net.diverged_
    return result


def count_positions(settings: Settings, sessions: Sequence[TrainingData]) -> int | None:
    """Bins of a window that have a position of their own; None: all of them."""
    whole_trials = all(data.whole_trials for data in sessions)
    # windows of a recording begin anywhere, so positions in a stream mean nothing
    return 1 if settings.network.causal and not whole_trials else None


def _take_weights(net: MaskedModellingNet, previous: MaskedModellingNet) -> None:
    """Load the weights of another net."""
    try:
        net.module_.load_state_dict(previous.module_.state_dict())
    except RuntimeError as error:
        raise ValueError(
            "warm_start=True continues from the current weights, but the network has changed since "
            "they were trained. Restore the network's parameters (d_model, n_layers, ...), or fit "
            "a clone."
        ) from error


def known_statistics(X: NDArray) -> Statistics:
    """Statistics of each neuron's known counts, read in pieces.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_neurons)
        Counts, NaN where missing; may be a memory map.

    Returns
    -------
    Statistics

    Raises
    ------
    ValueError
        If a neuron has no known count.
    """
    n_known, total, roots = np.zeros((3, X.shape[1]))
    for piece in in_pieces(X, STATISTICS_BYTES):
        rows = np.asarray(piece, dtype=np.float64)
        known = ~np.isnan(rows)
        if not known.all():
            rows = np.where(known, rows, 0)
        n_known += known.sum(0)
        total += rows.sum(0)
        roots += np.sqrt(rows).sum(0)
    if not n_known.all():
        unknown = np.flatnonzero(n_known == 0).tolist()
        raise ValueError(
            f"Neurons {unknown} are NaN everywhere in X, so nothing can be learned about them. "
            "Remove them, or pass counts of at least some bins."
        )
    mean, mean_sqrt = total / n_known, roots / n_known
    # the mean of the squared square roots is the mean count
    std_sqrt = np.sqrt(np.maximum(mean - mean_sqrt**2, 0))
    std_sqrt[std_sqrt < 1e-6] = 1.0
    # a silent neuron gets half a spike in the recording, so that its log-rate is finite
    return Statistics(np.maximum(mean, 0.5 / n_known), mean_sqrt, std_sqrt)
