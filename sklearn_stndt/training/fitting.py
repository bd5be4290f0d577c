"""Train the network on segments."""

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_stndt.network import STNDT
from sklearn_stndt.network.isolation import isolated_torch
from sklearn_stndt.training import defaults
from sklearn_stndt.training.calibration import calibrate
from sklearn_stndt.training.memory import check_memory, reuse_memory
from sklearn_stndt.training.net import MaskedModellingNet, build_net
from sklearn_stndt.training.splitting import split
from sklearn_stndt.windows.cutting import cut, half_overlap
from sklearn_stndt.windows.out_of_core import in_pieces
from sklearn_stndt.windows.segments import Segments

STATISTICS_BYTES = 2**21  # of counts that are read at once
# parameters of the estimator that are the network's, under the same name
NETWORK_PARAMETERS = (
    "n_layers",
    "n_heads",
    "d_model",
    "attention",
    "context",
    "local_attention",
    "spatial_layers",
    "n_spatial_heads",
    "d_spatial",
    "input_scaling",
)
# and those that are the objective's
OBJECTIVE_PARAMETERS = (
    "mask_ratio",
    "token_ratio",
    "random_ratio",
    "forecast_bins",
    "contrastive_weight",
    "contrastive_at",
    "contrastive_mask_ratio",
    "contrastive_token_ratio",
    "contrastive_random_ratio",
    "temperature",
)


def train(
    segments: Segments,
    params: dict[str, Any],
    *,
    window: int,
    heldout_neurons: NDArray,
    device: str,
    seed: int,
    previous: MaskedModellingNet | None = None,
) -> MaskedModellingNet:
    """Train a net on segments.

    Parameters
    ----------
    segments : Segments
        The data.
    params : dict
        Parameters of :class:`sklearn_stndt.STNDTEstimator`, checked.
    window : int
        Bins of a window.
    heldout_neurons : ndarray of int
        Neurons that are never shown.
    device : str
        Where to train.
    seed : int
        Decides everything that is random.
    previous : MaskedModellingNet, default=None
        Start from its weights and go on with its history.

    Returns
    -------
    MaskedModellingNet
        Trained, and trimmed for prediction.
    """
    statistics = known_statistics(segments.rows)
    segments = segments.without_padding(window)
    training, validation = segments, None
    if params["early_stopping"]:
        random_state = np.random.RandomState(seed)
        parts = split(segments, window, params["validation_fraction"], random_state)
        training, validation = parts or (segments, None)
    observed = window - params["forecast_bins"]
    windows = cut(training, window, half_overlap(window, params["forecast_bins"]))
    n_bins = training.n_bins
    if validation is not None:
        validation = cut(validation, window, observed)
    batch_size = params["batch_size"]
    if batch_size == "auto":
        batch_size = defaults.auto_batch_size(len(windows))
    n_windows = min(len(windows), defaults.LONGEST_EPOCH * batch_size)
    max_epochs = params["max_epochs"]
    if max_epochs == "auto":
        spikes_per_bin = float(statistics[0].sum())
        max_epochs = defaults.auto_max_epochs(n_bins, window, n_windows, batch_size, spikes_per_bin)
    patience = params["n_iter_no_change"]
    if patience == "auto":
        patience = defaults.auto_patience(max_epochs)
    dropout = params["dropout"]
    if dropout == "auto":
        dropout = defaults.auto_dropout(n_bins)

    n_layers = params["n_layers"]
    if n_layers == "auto":
        n_layers = defaults.auto_n_layers(n_bins)
        if previous is not None and isinstance(previous.module_, STNDT):
            n_layers = len(previous.module_.layers)  # more data may go on with this network

    n_neurons = segments.rows.shape[1]
    stochastic_depth = params["stochastic_depth"]
    if stochastic_depth == "auto":
        stochastic_depth = defaults.auto_stochastic_depth(n_neurons, params["spatial_layers"])
    network = {name: params[name] for name in NETWORK_PARAMETERS}
    network |= {
        "n_neurons": n_neurons,
        "n_bins": window,
        "n_layers": n_layers,
        "dropout": dropout,
        "stochastic_depth": stochastic_depth,
    }
    network["dim_feedforward"] = params["dim_feedforward"] or 4 * (params["d_model"] or n_neurons)
    for name in ("dropout_embedding", "dropout_rates"):
        network[name] = 0.75 * dropout if params[name] is None else params[name]

    with isolated_torch(params["n_threads"], seed, device, params["precision"]):
        net = build_net(
            network,
            max_epochs=max_epochs,
            batch_size=batch_size,
            n_train=len(windows),
            n_epoch=n_windows,
            validation=validation,
            patience=patience,
            lr=params["lr"],
            warmup=params["warmup"],
            weight_decay=params["weight_decay"],
            device=device,
            verbose=int(params["verbose"]),
            callbacks=params["callbacks"] or [],
            net_params=params["net_params"] or {},
            heldout_neurons=heldout_neurons,
            **{name: params[name] for name in OBJECTIVE_PARAMETERS},
        )
        net.initialize()
        if torch.device(device).type == "cpu" and isinstance(net.module_, STNDT):
            check_memory(net.module_, window, n_neurons)
            reuse_memory()
        net.module_.set_statistics(*(torch.as_tensor(s) for s in statistics))
        if previous is not None:
            _take_weights(net, previous)
        net.partial_fit(windows)
        if validation is not None and params["calibration"]:
            calibrate(net, validation)
    history = copy.copy(net.history)
    net.trim_for_prediction()  # forgets the history, which is small and wanted
    if previous is not None:
        for row in history:
            row["epoch"] += len(previous.history)
        history[:0] = previous.history
    net.history = history
    return net


def _take_weights(net: MaskedModellingNet, previous: MaskedModellingNet) -> None:
    """Start from the weights of another net."""
    try:
        net.module_.load_state_dict(previous.module_.state_dict())
    except RuntimeError as error:
        raise ValueError(
            "warm_start=True goes on from the present weights, but the network has changed since "
            "they were trained. Set the network's parameters (d_model, n_layers, ...) back, or fit "
            "a clone."
        ) from error


def known_statistics(X: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Statistics of each neuron over what is known, read in pieces.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_neurons)
        Counts, NaN where missing; may be a memory map.

    Returns
    -------
    mean, mean_sqrt, std_sqrt : ndarray of float64, shape (n_neurons,)
        Mean count, above 0 also for a silent neuron; mean and standard deviation of the square
        root of the counts, 1 for a constant neuron.

    Raises
    ------
    ValueError
        If a neuron is never known.
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
    # the square of a square root is the count: its mean is known already
    std_sqrt = np.sqrt(np.maximum(mean - mean_sqrt**2, 0))
    std_sqrt[std_sqrt < 1e-6] = 1.0
    # half a spike in the whole recording stands for none: its logarithm is finite
    return np.maximum(mean, 0.5 / n_known), mean_sqrt, std_sqrt
