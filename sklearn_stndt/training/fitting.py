"""Train the network on segments."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_stndt.network import STNDT
from sklearn_stndt.network.isolation import isolated_torch
from sklearn_stndt.network.likelihood import Likelihood, Poisson, Statistics, as_likelihood
from sklearn_stndt.training.calibration import (
    calibrate,
    calibrate_as,
    calibrate_taught,
    few_trials_shares,
    remove_calibration,
    shares_of,
)
from sklearn_stndt.training.checkpointing import DamagedCheckpointError, TrainingCheckpoint
from sklearn_stndt.training.constants import fit_constants
from sklearn_stndt.training.distillation import TaughtWindows
from sklearn_stndt.training.divergence import check_finite
from sklearn_stndt.training.memory import check_memory, reuse_memory
from sklearn_stndt.training.net import MaskedModellingNet, build_net
from sklearn_stndt.training.readout import average_heldout
from sklearn_stndt.training.settings import DataSize, Settings
from sklearn_stndt.training.splitting import split
from sklearn_stndt.training.transfer import start_callbacks, take_core
from sklearn_stndt.windows.cutting import Windows, cut, half_overlap
from sklearn_stndt.windows.out_of_core import in_pieces
from sklearn_stndt.windows.segments import Segments

STATISTICS_BYTES = 2**21  # bytes of counts read at once
SPIKES_PER_ENTRY = 0.25  # for entries that are no counts: what one of them tells, in spikes
_POISSON = Poisson()


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
    likelihood : Likelihood
        Of the entries.
    """

    windows: Windows
    validation: Windows | None
    n_bins: int
    statistics: Statistics
    whole_trials: bool = False
    likelihood: Likelihood = _POISSON

    @property
    def size(self) -> DataSize:
        """Size of the data, which determines "auto" settings."""
        return DataSize(
            n_bins=self.n_bins,
            n_neurons=self.windows.rows.shape[1],
            n_windows=len(self.windows),
            window=self.windows.window,
            spikes_per_bin=float(self.statistics.mean.sum())
            if self.likelihood.counts
            else SPIKES_PER_ENTRY * self.windows.rows.shape[1],
        )


def prepare(
    segments: Segments,
    *,
    window: int,
    forecast_bins: int,
    validation_fraction: float | None,
    seed: int,
    likelihood: str | Likelihood = "poisson",
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
    likelihood : str or Likelihood, default="poisson"
        Of the entries.

    Returns
    -------
    TrainingData

    Raises
    ------
    ValueError
        If a neuron has no known count.
    """
    likelihood = as_likelihood(likelihood)
    statistics = known_statistics(segments.rows, likelihood)
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
        likelihood=likelihood,
    )


def train(
    data: TrainingData,
    settings: Settings,
    previous: MaskedModellingNet | None = None,
    checkpoint: TrainingCheckpoint | None = None,
    core: STNDT | None = None,
    likelihood: Likelihood | None = None,
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
    likelihood : Likelihood, default=None
        Fitted likelihood whose numbers the network takes, instead of learning them.

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
            return _train(data, settings, previous, checkpoint, core, likelihood)
        except DamagedCheckpointError as error:
            checkpoint.discard(error)
    return _train(data, settings, previous, checkpoint, core, likelihood)


def _train(
    data: TrainingData,
    settings: Settings,
    previous: MaskedModellingNet | None,
    checkpoint: TrainingCheckpoint | None,
    core: STNDT | None,
    likelihood: Likelihood | None,
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
        net.module_.set_statistics(*as_tensors(data.statistics))
        if likelihood is not None:
            net.module_.likelihood.load_state_dict(likelihood.state_dict())
            net.module_.likelihood.requires_grad_(False)
        if previous is not None:
            _take_weights(net, previous)
        if checkpoint is not None and checkpoint.finished:
            checkpoint.restore_finished(net)
        else:
            if core is not None:
                take_core(net, core, data.windows)
            net.partial_fit(data.windows)
            if isinstance(data.windows, TaughtWindows):
                if training.calibration:
                    calibrate_taught(net, data.windows.of_recording)
            elif data.validation is not None and training.calibration:
                calibrate(net, data.validation, data.windows)
            elif core is not None and training.calibration:
                # the gain of most neurons, the held-in ones
                width, gain = float(core.smoothing.width), float(core.readout.gain.median())
                calibrate_as(net, width, gain, data.windows, few_trials_shares(data.windows))
                average_heldout(net, data.windows)
            elif previous is not None and training.calibration:
                of_previous = previous.module_
                width, gain = float(of_previous.smoothing.width), of_previous.readout.gain
                calibrate_as(net, width, gain, data.windows, shares_of(previous))
                if net.module_.posterior is None:  # from a single window, there is no other
                    net.module_.posterior = copy.deepcopy(of_previous.posterior)
            fit_constants(net, data.windows, data.validation)
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
    likelihood: Likelihood | None = None,
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
    previous, checkpoint, core, likelihood
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
    if likelihood is None:  # its constants have been corrected by validation windows
        likelihood = net.module_.likelihood
    result = train(data, again, previous, checkpoint, core, likelihood)
    if result.interrupted_:
        net.interrupted_ = True
        return net
    if settings.training.calibration and not isinstance(data.windows, TaughtWindows):
        of_first = net.module_
        gain = of_first.readout.gain / result.module_.readout.gain
        width, shares = float(of_first.smoothing.width), shares_of(net)
        calibrate_as(result, width, gain, validation, shares, data.windows)
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
    """Load the weights of another net, without its calibration, which each training ends with."""
    try:
        net.module_.load_state_dict(previous.module_.state_dict())
    except RuntimeError as error:
        raise ValueError(
            "warm_start=True continues from the current weights, but the network has changed since "
            "they were trained. Restore the network's parameters (d_model, n_layers, ...), or fit "
            "a clone."
        ) from error
    remove_calibration(net.module_)


def known_statistics(X: NDArray, likelihood: Likelihood = _POISSON) -> Statistics:
    """Statistics of each neuron's known entries, read in pieces.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_neurons)
        Counts, or other entries, NaN where missing; may be a memory map.
    likelihood : Likelihood, default=Poisson()
        Says which statistics are needed.

    Returns
    -------
    Statistics

    Raises
    ------
    ValueError
        If a neuron has no known count.
    """
    n_known, total, roots, squares, n_positive = np.zeros((5, X.shape[1]))
    further = not isinstance(likelihood, Poisson)
    origin = 0.0 if likelihood.lowest == 0 else _first_known(X)  # near the mean, for precision
    for piece in in_pieces(X, STATISTICS_BYTES):
        rows = np.asarray(piece, dtype=np.float64)
        known = ~np.isnan(rows)
        if not known.all():
            rows = np.where(known, rows, 0)
        n_known += known.sum(0)
        total += rows.sum(0)
        if likelihood.root_input:
            roots += np.sqrt(rows).sum(0)
        if further:
            deviations = rows - origin
            if not known.all():
                deviations[~known] = 0
            squares += np.square(deviations).sum(0)
            n_positive += (rows > 0).sum(0)
    if not n_known.all():
        unknown = np.flatnonzero(n_known == 0).tolist()
        raise ValueError(
            f"Neurons {unknown} are NaN everywhere in X, so nothing can be learned about them. "
            "Remove them, or pass counts of at least some bins."
        )
    mean, variance, share = total / n_known, None, None
    if further:
        variance = np.maximum(squares / n_known - (mean - origin) ** 2, 0)
        share = n_positive / n_known
    if likelihood.root_input:
        mean_input = roots / n_known
        # the mean of the squared square roots is the mean count
        std_input = np.sqrt(np.maximum(mean - mean_input**2, 0))
    else:
        assert variance is not None
        mean_input, std_input = mean, np.sqrt(variance)
    smallest = 1e-6 if likelihood.counts else 2e-7 * np.abs(mean) + 1e-30
    std_input[std_input < smallest] = 1.0
    # a silent neuron gets half a spike in the recording, so that its log-rate is finite; or, of
    # entries that are no counts, half an entry of a usual size
    if likelihood.counts:
        mean = np.maximum(mean, 0.5 / n_known)
    elif likelihood.lowest is not None:
        usual = np.median(mean[mean > 0]) if mean.any() else 1.0
        mean = np.where(mean > 0, mean, 0.5 * usual / n_known)
    return Statistics(mean, mean_input, std_input, variance, share)


def _first_known(X: NDArray) -> NDArray:
    """First known entry of each neuron, 0 if it is not among the first rows."""
    rows = np.asarray(X[:1024], dtype=np.float64)
    first = rows[(~np.isnan(rows)).argmax(0), np.arange(rows.shape[1])]
    return np.nan_to_num(first)


def as_tensors(statistics: Statistics) -> list[torch.Tensor | None]:
    """Statistics as tensors, for `STNDT.set_statistics`."""
    return [None if s is None else torch.as_tensor(s) for s in statistics]
