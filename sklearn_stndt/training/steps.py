"""The steps of a fit, from X to the attributes of a fitted STNDTEstimator.

`fit_network` is all of them, in order. `MultiSessionEstimator` takes the steps before and after the
training for each session.
"""

from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from sklearn_stndt._containers import n_epochs
from sklearn_stndt._mistakes import warn_of_mistakes
from sklearn_stndt._pretrained import check_same_core, find_pretrained
from sklearn_stndt._validation import (
    FIXED_BY_FIT,
    check_callbacks,
    check_counts,
    check_groups,
    check_heldout_neurons,
    check_unchanged,
    warn_of_divergence,
    warn_of_interruption,
)
from sklearn_stndt.network import NetworkSettings
from sklearn_stndt.network.likelihood import Likelihood, as_likelihood, check_likelihood
from sklearn_stndt.training.checkpointing import open_checkpoint
from sklearn_stndt.training.distillation import Lesson, TaughtWindows
from sklearn_stndt.training.fitting import TrainingData, prepare, refit, train
from sklearn_stndt.training.net import MaskedModellingNet
from sklearn_stndt.training.settings import (
    DataSize,
    Settings,
    choose_device,
    choose_window,
    keep_device,
    resolve,
)
from sklearn_stndt.training.summary import automatic
from sklearn_stndt.training.transfer import enough_to_set_aside
from sklearn_stndt.training.verdict import warn_if_nothing_learnt
from sklearn_stndt.windows.segments import Segments, as_segments


def fit_network(
    estimator: Any,
    X: ArrayLike,
    groups: ArrayLike | None,
    lessons: list[Lesson] | None = None,
    known_likelihood: Likelihood | None = None,
) -> None:
    """Train the network of an STNDTEstimator, and set its fitted attributes.

    Parameters
    ----------
    estimator : STNDTEstimator
        With validated parameters.
    X, groups : array-like
        As in its `fit`.
    lessons : list of Lesson, default=None
        Rates to be learned instead of counts.
    known_likelihood : Likelihood, default=None
        Fitted likelihood whose numbers the network takes, instead of learning them.
    """
    check_callbacks(estimator.callbacks)
    start = _start_of(estimator)
    previous, core = start.previous, start.core
    counts, trials, kind = check_data(
        estimator, X, groups, reset=previous is None, likelihood=start.likelihood
    )
    segments = as_segments(counts, trials)
    seed = draw_seed(estimator)
    if previous is None:
        begin(estimator)
    else:
        check_unchanged(estimator, estimator._fitted_with)
        estimator.device_ = keep_device(estimator.device_, estimator.settings_.training.device)
    with ExitStack() as stack:
        checkpoint = open_checkpoint(
            estimator,
            counts,
            trials,
            estimator.device_,
            seed,
            previous,
            core=core,
            rates=None if lessons is None else lessons[0].rates,
        )
        if checkpoint is not None:
            seed = stack.enter_context(checkpoint.opened()).seed
        if previous is None:
            draw_heldout(estimator, seed)
            estimator.window_ = (
                window_of(estimator, segments, kind) if core is None else core.window_
            )
        set_aside = core is None or enough_to_set_aside(
            segments, estimator.window_, estimator.validation_fraction
        )
        data = _prepare(estimator, segments, seed, start, lessons, set_aside=set_aside)
        settings = estimator.settings_ = resolve_session(
            estimator,
            data.size,
            seed,
            previous=None if previous is None else estimator.settings_,
            core=start.settings,
            taught=lessons is not None,
        )
        begun: dict[str, Any] = {
            "previous": previous,
            "core": None if core is None else core.net_.module_,
            "likelihood": known_likelihood,
        }
        net = judged = train(data, settings, checkpoint=checkpoint, **begun)
        if estimator.refit and data.validation is not None and not net.interrupted_:
            if checkpoint is not None:
                checkpoint = stack.enter_context(checkpoint.next().opened())
            everything = _prepare(estimator, segments, seed, start, lessons, set_aside=False)
            net = refit(net, everything, settings, data.validation, checkpoint=checkpoint, **begun)
    finish(estimator, net)
    warn_of_divergence(net)
    if net.interrupted_:
        warn_of_interruption(net, previous)
        return
    warn_if_nothing_learnt(
        estimator.history_,
        data.validation,
        estimator.heldout_neurons_,
        estimator._trained_on,
        data.likelihood,
        judged,
        has_core=start.settings is not None,
    )


@dataclass(frozen=True)
class _Start:
    """What a fit starts from, and what is thereby given.

    Attributes
    ----------
    previous : MaskedModellingNet or None
        Net of this estimator, whose training continues.
    core : STNDTEstimator or None
        Fitted estimator of other neurons, whose core the network takes.
    settings : NetworkSettings or None
        Of the network that has, or had, this core.
    likelihood : str or Likelihood
        Of the entries of X.
    causal : bool
        Whether the network is causal.
    """

    previous: MaskedModellingNet | None
    core: Any
    settings: NetworkSettings | None
    likelihood: str | Likelihood
    causal: bool


def _start_of(estimator: Any) -> _Start:
    previous = getattr(estimator, "net_", None) if estimator.warm_start else None
    core = settings = None
    if estimator.pretrained is not None and previous is None:
        core = find_pretrained(estimator.pretrained)
        check_same_core(estimator, core)
        settings = core.settings_.network
    elif estimator.pretrained is not None:
        settings = estimator.settings_.network
    given = estimator if settings is None else settings
    return _Start(previous, core, settings, given.likelihood, given.causal)


def _prepare(
    estimator: Any,
    segments: Segments,
    seed: int,
    start: _Start,
    lessons: list[Lesson] | None,
    *,
    set_aside: bool,
) -> TrainingData:
    """As `prepare_session`, with the rates to be learned in the training windows."""
    data = prepare_session(
        estimator,
        segments,
        seed,
        causal=start.causal,
        set_aside=set_aside,
        likelihood=start.likelihood,
    )
    return data if lessons is None else replace(data, windows=TaughtWindows(data.windows, lessons))


def check_data(
    estimator: Any,
    X: ArrayLike,
    groups: ArrayLike | None,
    *,
    reset: bool = True,
    likelihood: str | Likelihood | None = None,
) -> tuple[NDArray, NDArray | None, str]:
    """Check X; return counts, their trials, and what they are, as for `choose_window`."""
    check_likelihood(estimator.likelihood)
    counts = check_counts(estimator, X, reset=reset, likelihood=likelihood)
    if reset:
        of_counts = as_likelihood(estimator.likelihood if likelihood is None else likelihood).counts
        names = getattr(estimator, "feature_names_in_", None)
        warn_of_mistakes(counts, names, counts=of_counts, stacklevel=5)
    trials = check_groups(counts, groups, X)
    estimator._trained_on = {"shape": counts.shape}  # for the model card
    grouped = groups is not None or n_epochs(X) > 1
    kind = "trials" if counts.ndim == 3 else "groups" if grouped else "recording"
    return counts, trials, kind


def draw_seed(estimator: Any) -> int:
    """Draw the one number from which all random numbers of a fit follow."""
    return int(check_random_state(estimator.random_state).randint(np.iinfo(np.int32).max))


def begin(estimator: Any) -> None:
    """Set what a fit determines before it sees more than the number of neurons."""
    estimator._fitted_with = {name: getattr(estimator, name) for name in FIXED_BY_FIT}
    estimator.device_ = choose_device(estimator.device)


def draw_heldout(estimator: Any, seed: int) -> None:
    """Set the held-out neurons."""
    estimator.heldout_neurons_ = check_heldout_neurons(
        estimator.heldout_neurons, estimator.n_features_in_, np.random.RandomState(seed)
    )


def window_of(estimator: Any, segments: Segments, kind: str) -> int:
    """Bins that the network sees at once, if these are its data."""
    return choose_window(estimator.window, segments.longest, kind, estimator.forecast_bins)


def prepare_session(
    estimator: Any,
    segments: Segments,
    seed: int,
    *,
    causal: bool,
    set_aside: bool = True,
    likelihood: str | Likelihood | None = None,
) -> TrainingData:
    """Cut windows for training and validation, and note their size for the model card."""
    set_aside = set_aside and estimator.early_stopping
    data = prepare(
        segments,
        window=estimator.window_,
        forecast_bins=0 if causal else estimator.forecast_bins,
        validation_fraction=estimator.validation_fraction if set_aside else None,
        seed=seed,
        likelihood=estimator.likelihood if likelihood is None else likelihood,
    )
    estimator._trained_on |= asdict(data.size)
    return data


def resolve_session(estimator: Any, size: DataSize, seed: int, **start: Any) -> Settings:
    """Resolve every "auto", and note which parameters were; `start` as in `resolve`."""
    heldout = tuple(estimator.heldout_neurons_.tolist())
    estimator._trained_on["auto"] = automatic(estimator.get_params(deep=False))
    return resolve(
        estimator, size, heldout_neurons=heldout, device=estimator.device_, seed=seed, **start
    )


def finish(estimator: Any, net: MaskedModellingNet) -> None:
    """Set the attributes of a trained net."""
    estimator.net_ = net
    estimator.likelihood_params_ = estimator._scoring.params
    estimator.history_ = net.history
    estimator.n_iter_ = len(estimator.history_)
