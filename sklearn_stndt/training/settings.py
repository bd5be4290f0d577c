"""Settings of a fit: the estimator's parameters, with every "auto" resolved."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch

from sklearn_stndt.network import NetworkSettings
from sklearn_stndt.network.core import CORE_SETTINGS
from sklearn_stndt.network.likelihood import as_likelihood
from sklearn_stndt.training.objective import ObjectiveSettings

DEFAULT_WINDOW = 128  # bins of a window of a continuous recording
PASSES = (25, 38)  # times each bin is seen: at one spike per bin or fewer, at 1.5 or more
N_UPDATES = (130, 4_000)  # fewest and most
LONG = 1.5  # times the usual number of epochs, with max_epochs="long"
LEARNING_RATES = {"muon": 8e-3, "adamw": 3e-3}
LONGEST_EPOCH = 600  # batches: if there are more, an epoch is a random part of them
MANY_BINS = 25_000  # bins of training data from which the network has a fourth layer
MANY_NEURONS = 128  # neurons from which most training passes skip spatial attention
LONGEST_RUN = 512  # bins up to which a run of rows of one group counts as a trial
INFERENCE_PASSES = 4  # of a network that is not causal
# names with the same meaning in the skorch net
SKORCH_NAMES = ("max_epochs", "batch_size", "lr", "inference_passes")
DROPOUT_SHARE = 0.75  # share of `dropout`, for the embedded input and before the readout
TAUGHT = 2  # times the number of epochs if rates are learned, on which a network hardly overfits
TOGETHER_PASSES = 0.95  # passes over sessions that share a core, relative to those over one
TOGETHER_UPDATES = (240, 410)  # fewest of them: if one is far larger than others, if all are equal
CORE_PASSES = 0.33  # passes of a network with the core of another, relative to others
LEAST_UPDATES = 46  # fewest of them
CORE_LR = 0.8  # its learning rate, relative to others
CORE_SPIKES = 0.3  # spikes at which its dropout falls, relative to others


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of training and run time, under the names of the estimator's parameters.

    `window` is the resolved number of bins, `device` a torch device, `random_state` the seed that
    was drawn; the others are as described in the estimator.
    """

    window: int
    max_epochs: int
    batch_size: int
    optimizer: str
    lr: float
    warmup: float
    weight_decay: float
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int | None
    calibration: bool
    refit: bool
    device: str
    n_threads: int
    precision: str
    random_state: int
    verbose: int
    warm_start: bool
    checkpoint_dir: str | None
    callbacks: list | None
    net_params: dict | None
    pretrained: Any
    inference_passes: int
    output: str


@dataclass(frozen=True)
class Settings:
    """Parameters of an estimator, resolved for the data of a fit.

    Attributes
    ----------
    network : NetworkSettings
        Settings of the network.
    objective : ObjectiveSettings
        Settings of masking and of the losses.
    training : TrainingSettings
        Settings of windows, training and run time.
    """

    network: NetworkSettings
    objective: ObjectiveSettings
    training: TrainingSettings


@dataclass(frozen=True)
class DataSize:
    """Size of the data, which determines "auto" settings.

    Attributes
    ----------
    n_bins : int
        Bins of training data.
    n_neurons : int
    n_windows : int
        Windows of training data, which may overlap.
    window : int
        Bins of a window.
    spikes_per_bin : float
        Mean spikes per bin, summed over neurons; of entries that are no counts, `SPIKES_PER_ENTRY`
        of :mod:`sklearn_stndt.training.fitting` for each.
    """

    n_bins: int
    n_neurons: int
    n_windows: int
    window: int
    spikes_per_bin: float

    def epoch_windows(self, batch_size: int) -> int:
        """Windows per epoch: all of them, or as many as the longest epoch has."""
        return min(self.n_windows, LONGEST_EPOCH * batch_size)


def resolve(
    estimator: Any,
    size: DataSize,
    *,
    heldout_neurons: tuple[int, ...],
    device: str,
    seed: int,
    previous: Settings | None = None,
    core: NetworkSettings | None = None,
    taught: bool = False,
    n_largest: int | None = None,
) -> Settings:
    """Turn the parameters of an estimator into settings.

    Parameters
    ----------
    estimator : STNDTEstimator
        Estimator with validated parameters. `net_params` override settings that they name.
    size : DataSize
        Size of the training data.
    heldout_neurons : tuple of int
        Indices of the neurons that are always hidden.
    device : str
        Device for training.
    seed : int
        Seed of everything random.
    previous : Settings or None, default=None
        Settings of the fit whose weights are trained further: "auto" keeps its number of layers.
    core : NetworkSettings or None, default=None
        Settings of the network whose core is the start: those in `CORE_SETTINGS` are its own.
    taught : bool, default=False
        Whether rates are learned instead of counts.
    n_largest : int or None, default=None
        Windows of the largest of several sessions that share a core; `size` is then their mean.
        None: there is one session.

    Returns
    -------
    Settings
    """
    given = estimator.net_params or {}
    network = _network(estimator, size, previous, has_core=core is not None)
    objective = _objective(estimator, heldout_neurons)
    of_module = {
        name.removeprefix("module__"): value
        for name, value in given.items()
        if str(name).startswith("module__")
    }
    of_skorch = {name: given[name] for name in SKORCH_NAMES if name in given}
    network = _override(network, of_module)
    if core is not None:
        network = replace(network, **{name: getattr(core, name) for name in CORE_SETTINGS})
    kind: dict[str, Any] = {"has_core": core is not None, "taught": taught, "n_largest": n_largest}
    training = _training(estimator, size, device, seed, causal=network.causal, **kind)
    training = _override(training, of_skorch)
    if network.causal and training.inference_passes > 1:
        raise ValueError(
            f"inference_passes={training.inference_passes}, but a causal network infers each bin "
            "once. Leave inference_passes at 'auto', or pass causal=False."
        )
    return Settings(network, _override(objective, given), training)


def _network(
    estimator: Any, size: DataSize, previous: Settings | None, *, has_core: bool
) -> NetworkSettings:
    n_layers = estimator.n_layers
    if n_layers == "auto":
        n_layers = auto_n_layers(size.n_bins)
        if previous is not None:
            n_layers = previous.network.n_layers
    dropout = estimator.dropout
    if dropout == "auto":
        dropout = auto_dropout(size.n_bins * size.spikes_per_bin, has_core=has_core)
    stochastic_depth = estimator.stochastic_depth
    if stochastic_depth == "auto":
        stochastic_depth = auto_stochastic_depth(size.n_neurons, estimator.spatial_layers)
    network = _settings(
        NetworkSettings,
        estimator,
        n_layers=n_layers,
        dim_feedforward=estimator.dim_feedforward or 4 * (estimator.d_model or size.n_neurons),
        dropout=dropout,
        dropout_embedding=_or(estimator.dropout_embedding, DROPOUT_SHARE * dropout),
        dropout_rates=_or(estimator.dropout_rates, DROPOUT_SHARE * dropout),
        context=_context(estimator),
        stochastic_depth=stochastic_depth,
    )
    if network.input_scaling == "counts" and not as_likelihood(network.likelihood).counts:
        raise ValueError(
            "input_scaling='counts' is for spike counts, but likelihood="
            f"{estimator.likelihood!r}. Leave input_scaling at its default."
        )
    return network


def _objective(estimator: Any, heldout_neurons: tuple[int, ...]) -> ObjectiveSettings:
    mask_ratio = check_mask_ratio(estimator.mask_ratio, "mask_ratio")
    neuron_mask_ratio = estimator.neuron_mask_ratio
    if not isinstance(neuron_mask_ratio, Real) or neuron_mask_ratio:
        neuron_mask_ratio = check_mask_ratio(neuron_mask_ratio, "neuron_mask_ratio")
    contrastive_mask_ratio = mask_ratio
    if estimator.contrastive_mask_ratio is not None:
        contrastive_mask_ratio = check_mask_ratio(
            estimator.contrastive_mask_ratio, "contrastive_mask_ratio"
        )
    return _settings(
        ObjectiveSettings,
        estimator,
        mask_ratio=mask_ratio,
        neuron_mask_ratio=neuron_mask_ratio,
        heldout_neurons=heldout_neurons,
        contrastive_mask_ratio=contrastive_mask_ratio,
        contrastive_token_ratio=_or(estimator.contrastive_token_ratio, estimator.token_ratio),
        contrastive_weight=float(estimator.contrastive_weight),
        contrastive_random_ratio=_or(estimator.contrastive_random_ratio, estimator.random_ratio),
    )


def _training(
    estimator: Any,
    size: DataSize,
    device: str,
    seed: int,
    *,
    causal: bool,
    has_core: bool,
    taught: bool,
    n_largest: int | None,
) -> TrainingSettings:
    batch_size = estimator.batch_size
    if batch_size == "auto":
        batch_size = auto_batch_size(size.n_windows)
    max_epochs = estimator.max_epochs
    if max_epochs in ("auto", "long"):
        factor = (LONG if max_epochs == "long" else 1) * (TAUGHT if taught else 1)
        max_epochs = auto_max_epochs(
            size.n_bins,
            size.window,
            size.epoch_windows(batch_size),
            batch_size,
            size.spikes_per_bin,
            has_core=has_core,
            n_largest=n_largest,
        )
        max_epochs = math.ceil(factor * max_epochs)
    lr = estimator.lr
    if lr == "auto":
        own = "optimizer" in (estimator.net_params or {})
        lr = LEARNING_RATES["adamw" if own else estimator.optimizer]
        lr *= CORE_LR if has_core else 1
    n_passes = estimator.inference_passes
    if n_passes == "auto":
        n_passes = 1 if causal else INFERENCE_PASSES
    patience = estimator.n_iter_no_change
    return _settings(
        TrainingSettings,
        estimator,
        window=size.window,
        max_epochs=max_epochs,
        batch_size=batch_size,
        lr=lr,
        inference_passes=n_passes,
        n_iter_no_change=None if patience == "auto" else patience,
        device=device,
        random_state=seed,
        verbose=int(estimator.verbose),
        checkpoint_dir=None if estimator.checkpoint_dir is None else str(estimator.checkpoint_dir),
    )


def _settings(kind: Any, estimator: Any, **resolved: Any) -> Any:
    """Fill a dataclass from the estimator's parameters of the same names."""
    names = [field.name for field in fields(kind)]
    return kind(**{n: resolved[n] if n in resolved else getattr(estimator, n) for n in names})


def _override(settings: Any, given: Mapping[str, Any]) -> Any:
    """Replace the settings that `given` names."""
    return replace(settings, **{f.name: given[f.name] for f in fields(settings) if f.name in given})


def _context(estimator: Any) -> tuple[int, int] | None:
    context = check_context(estimator.context)
    return (context[0], 0) if context is not None and estimator.causal else context


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _is_pair(value: Any) -> bool:
    try:
        return np.shape(value) == (2,)
    except ValueError:  # lists of different lengths
        return False


def check_mask_ratio(mask_ratio: Any, name: str) -> float | tuple[float, float]:
    """Validate a share of entries, or a range of shares in any container."""
    if isinstance(mask_ratio, Real):
        if 0 < float(mask_ratio) < 1:
            return float(mask_ratio)
    elif _is_pair(mask_ratio):
        low, high = mask_ratio
        if isinstance(low, Real) and isinstance(high, Real):
            low, high = float(low), float(high)
            if 0 <= low < high <= 1:
                return low, high
    raise ValueError(
        f"{name} must be a number between 0 and 1, both excluded, or a range (low, high) with "
        f"0 <= low < high <= 1, got {mask_ratio!r}."
    )


def check_context(context: Any) -> tuple[int, int] | None:
    """Validate bins back and ahead, in any container."""
    if context is None:
        return None
    if _is_pair(context):
        back, ahead = context
        if isinstance(back, Integral) and isinstance(ahead, Integral):
            back, ahead = int(back), int(ahead)
            if back >= 0 and ahead >= 0:
                return back, ahead
    raise ValueError(
        f"context must be None or two numbers of bins (back, ahead), each >= 0, got {context!r}."
    )


def auto_batch_size(n_windows: int) -> int:
    """Windows per batch: fewer, for more updates, if there are few windows."""
    return min(16 if n_windows <= 500 else 32, n_windows)


def auto_max_epochs(
    n_bins: int,
    window: int,
    n_windows: int,
    batch_size: int,
    spikes_per_bin: float,
    has_core: bool = False,
    n_largest: int | None = None,
) -> int:
    """Enough epochs to see each bin 25 to 38 times, in 130 to 4,000 updates.

    The training data have `n_bins` bins with a mean of `spikes_per_bin`, summed over neurons; an
    epoch is `n_windows` windows of `window` bins, which may overlap. A network that starts with the
    core of another needs .33 of these passes, in at least 46 updates. Several sessions that share a
    core get .95 of the passes of one alone, in at least 240 updates if one is much larger than the
    others, and 410 if all are equal. This takes about as long as a fit of each. An epoch has as
    many updates as one of the largest session, which has `n_largest` windows.
    """
    n_passes = min(max(PASSES[0] * spikes_per_bin, PASSES[0]), PASSES[1])
    n_passes *= CORE_PASSES if has_core else TOGETHER_PASSES if n_largest is not None else 1
    n_epochs = n_passes * n_bins / (n_windows * window)
    least: float = LEAST_UPDATES if has_core else N_UPDATES[0]
    if n_largest is not None:
        n_mean, n_windows = n_windows, min(n_largest, LONGEST_EPOCH * batch_size)
        fewest, most = TOGETHER_UPDATES
        least = fewest + (most - fewest) * n_mean / n_windows
    updates = math.ceil(n_windows / batch_size)  # of an epoch
    return max(math.ceil(min(max(n_epochs, least / updates), N_UPDATES[1] / updates)), 1)


def auto_n_layers(n_bins: int) -> int:
    """Number of layers: 4 for tens of thousands of bins, else 3."""
    return 4 if n_bins >= MANY_BINS else 3


def auto_stochastic_depth(n_neurons: int, spatial_layers: str) -> float:
    """Probability that training skips spatial attention, whose cost is quadratic in neurons."""
    return 0.75 if n_neurons >= MANY_NEURONS and spatial_layers == "last" else 0.0


def auto_dropout(n_spikes: float, has_core: bool = False) -> float:
    """Dropout by spikes of training data: .2 up to 50,000, .05 from 250,000.

    Of a network that starts with the core of another: from .3 of these numbers.
    """
    most = 50_000 * (CORE_SPIKES if has_core else 1)  # with the highest dropout
    position = math.log(max(n_spikes, 1) / most) / math.log(5)
    return 0.2 - 0.15 * min(max(position, 0.0), 1.0)


def choose_window(window: int | None, longest: int, kind: str, forecast_bins: int) -> int:
    """Bins of a window, at most those of the longest trial.

    Parameters
    ----------
    window : int or None
        As requested; None: the longest trial, or `DEFAULT_WINDOW` for a recording.
    longest : int
        Bins of the longest trial.
    kind : {"trials", "groups", "recording"}
        Trials along an axis; rows with groups, which may be trials or, if long, sessions; rows of
        one recording.
    forecast_bins : int
        Bins at the end of the window that are always hidden.
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
    """Resolve "auto" to a GPU if there is one; check a requested device."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).item()  # also refuses "meta", whose tensors have no values
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device={device!r} cannot be used here: {str(error).splitlines()[0]}. "
            "Pass 'auto', 'cpu', or the name of a device available to torch."
        ) from error
    return device


def keep_device(present: str, trained_on: str) -> str:
    """Device on which to continue training, or another if this machine does not have it.

    Parameters
    ----------
    present : str
        Device of the fitted network.
    trained_on : str
        Device on which it was trained, possibly on another machine.
    """
    for device in (present, trained_on):
        try:
            choose_device(device)
        except ValueError:
            other = choose_device("auto")
            warnings.warn(
                f"The network was trained on {device!r}, which is not on this machine. Training "
                f"continues on {other!r}.",
                stacklevel=5,
            )
            return other
    return present
