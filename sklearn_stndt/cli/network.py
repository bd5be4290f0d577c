"""Make, train, save and load the network that options describe."""

import argparse
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

import sklearn_stndt
from sklearn_stndt import STNDTEstimator
from sklearn_stndt._rates import rate_estimator
from sklearn_stndt._scoring import scoring_of
from sklearn_stndt.cli.held_out import grouped
from sklearn_stndt.cli.messages import CommandError, Reporter
from sklearn_stndt.training.settings import DEFAULT_WINDOW


def make_network(
    options: argparse.Namespace, reporter: Reporter, *, is_trials: bool = True, **params: Any
) -> STNDTEstimator:
    """Make the estimator that the options describe; not fitted."""
    # the stretches between those set aside are groups, but no trials
    window = options.window_bins or (None if is_trials else DEFAULT_WINDOW)
    return STNDTEstimator(
        attention=options.attention or "spatiotemporal",
        causal=options.causal,
        max_epochs=options.max_epochs,
        window=window,
        device=options.device,
        n_threads=options.threads,
        random_state=options.random_state,
        verbose=reporter.level,
        **params,
    )


def fit(network: Any, counts: NDArray, groups: NDArray | None = None) -> Any:
    """Train; unlike `fit` of the estimator, an interruption ends the command."""
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.filterwarnings("ignore", message="Training was interrupted")
        network.fit(counts, **grouped(counts, groups))
    if network.net_.interrupted_:
        raise KeyboardInterrupt
    return network


def save(
    network: STNDTEstimator, path: Path, *, bin_width: float, scored_on: str | None = None
) -> None:
    """Save a network, with the width of its bins (s) and the fingerprint of what was set aside."""
    network.set_params(verbose=0)
    network._trained_on |= {"bin_width": bin_width, "scored_on": scored_on}
    sklearn_stndt.save(network, path)


def is_scored_on(network: Any, fingerprint: str) -> bool:
    """Whether a loaded network was trained without what is set aside here."""
    _, source = rate_estimator(network)
    return getattr(source, "_trained_on", {}).get("scored_on") == fingerprint


def load(path: str, counts: NDArray, bin_width: float) -> Any:
    """Load a saved network for counts in bins of a width (s)."""
    network = sklearn_stndt.load(Path(path).expanduser())
    try:
        _, source = rate_estimator(network)
    except Exception as error:
        raise CommandError(f"{path} holds no fitted network that infers rates ({error})") from error
    if not scoring_of(network).counts:
        raise CommandError(f"{path} is a network of signals, not of spike counts.")
    if network.n_features_in_ != counts.shape[-1]:
        raise CommandError(
            f"{path} is a network of {network.n_features_in_} neurons, but {counts.shape[-1]} were "
            "read. Choose the same neurons, or train a network for these."
        )
    trained_at = getattr(source, "_trained_on", {}).get("bin_width")
    if trained_at is not None and abs(trained_at - bin_width) > 1e-6 * bin_width:
        raise CommandError(
            f"{path} was trained in bins of {1000 * trained_at:g} ms, but bins of "
            f"{1000 * bin_width:g} ms were read. Pass --bin-width {trained_at:g}."
        )
    return network
