"""MultiSessionEstimator: one fit of several sessions, each with its own neurons."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral
from typing import Any, Self

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike
from sklearn.base import _fit_context, clone
from sklearn.utils.validation import check_is_fitted

from sklearn_stndt._containers import bin_width
from sklearn_stndt._failures import unchanged_if_failed
from sklearn_stndt._parameters import NamedParameters, suggests_names
from sklearn_stndt._validation import (
    warn_of_divergence,
    warn_of_interruption,
)
from sklearn_stndt._workers import backend_for_workers
from sklearn_stndt.estimator import STNDTEstimator
from sklearn_stndt.network.core import share_core
from sklearn_stndt.training.joint import enough_to_validate, mean_size, train_together
from sklearn_stndt.training.steps import (
    begin,
    check_data,
    draw_heldout,
    draw_seed,
    finish,
    prepare_session,
    resolve_session,
    window_of,
)
from sklearn_stndt.training.summary import SessionsSummary, ShowsSummary
from sklearn_stndt.training.verdict import warn_if_nothing_learnt
from sklearn_stndt.windows.segments import as_segments

_SAME_WIDTH = 0.01  # relative difference of bin widths that is due to rounding of clocks


class MultiSessionEstimator(ShowsSummary, NamedParameters):
    """Infer rates of several sessions, each with its own neurons, with one shared core.

    Sessions of the same task, brain area and bin width have dynamics in common, even if no neuron
    was recorded in two of them. Here each session has a network with its own embedding, tokens and
    readout, and all share everything else, the *core*, which is trained on the data of all.
    Sessions with few trials gain the most.

    Parameters
    ----------
    estimator : STNDTEstimator or None, default=None
        Its parameters hold for all sessions; they can be set as ``estimator__lr`` and so on.
        Everything that is "auto" follows from the mean size of the sessions;
        ``max_epochs="auto"`` is .95 of what it is for one session of that size, but enough for at
        least 240 updates (if one session is far larger than the others) to 410 (if all are equal).
        Training then takes about as long as a fit of each session. None: an STNDTEstimator with its
        defaults.
    n_jobs : int or None, default=None
        Sessions whose rates or scores are inferred in parallel, as in joblib. Training is a single
        process, because there is a single core.

    Attributes
    ----------
    estimators_ : list of STNDTEstimator
        One fitted estimator per session, for use in pipelines, plots and inspection. Their cores
        are one and the same.
    history_ : skorch.history.History
        Losses of each epoch, and held-out bits per spike: `session_bits` of each session, and
        `valid_bits`, their mean, by which the best weights are chosen.
    n_iter_ : int
        Number of epochs trained.
    window_ : int
        Bins that the network sees at once, the same for all sessions: the longest of the windows
        that single estimators would have. Shorter trials are padded.
    summary_ : SessionsSummary
        Sessions, network, seconds and scores; ``print(estimator)`` shows it.

    See Also
    --------
    STNDTEstimator.adapt : Other neurons later, without the data of these sessions.

    Notes
    -----
    A training step takes windows of all sessions: `batch_size` of the largest one, and of the
    others in proportion. In an epoch, each window is used once, or twice if a step would have less
    than five of its session. A session that would set fewer than five windows aside for validation
    is trained on all of them, if another session has more. Its smoothing and gain are then means
    over the validated sessions, and its weight of factor analysis is that of
    :meth:`STNDTEstimator.adapt` with few trials. Memory and time grow with the sum of the sessions,
    not with the product of sessions and neurons as in one array padded with NaN.

    The rates of one session do not depend on the spikes of another. Nothing in the fit requires
    that latents of different sessions agree, so a decoder is fitted to each session.

    Examples
    --------
    >>> from sklearn_stndt import MultiSessionEstimator, STNDTEstimator
    >>> from sklearn_stndt.datasets import make_reach_days
    >>> days = make_reach_days(2, n_trials=20, n_neurons=[30, 25], random_state=0)
    >>> spikes = [day.spikes for day in days]
    >>> together = MultiSessionEstimator(STNDTEstimator(max_epochs=2, random_state=0)).fit(spikes)
    >>> [rates.shape for rates in together.transform(spikes)]
    [(20, 50, 30), (20, 50, 25)]
    """

    _parameter_constraints: dict = {
        "estimator": [STNDTEstimator, None],
        "n_jobs": [Integral, None],
    }
    _shares_core = True  # so that `pretrained` can be one of these

    @suggests_names
    def __init__(self, estimator=None, *, n_jobs=None):
        self.estimator = estimator
        self.n_jobs = n_jobs

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self, X: Sequence[Any], y: Any = None, *, groups: Sequence[ArrayLike | None] | None = None
    ) -> Self:
        """Train on the spike counts of all sessions.

        Parameters
        ----------
        X : list of array-like, each (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Spikes per bin of each session, NaN where hidden, as in :meth:`STNDTEstimator.fit`.
            Trials, bins and neurons may differ, the width of bins must not.
        y : ignored
            For compatibility with pipelines.
        groups : list of (array-like or None), default=None
            Trial of each row of each session; None for sessions without groups.

        Returns
        -------
        self : MultiSessionEstimator

        Raises
        ------
        TypeError
            If X is not a list.
        ValueError
            If X is empty or holds vectors; if the estimator has `pretrained`, `refit`,
            `checkpoint_dir` or no width (``d_model=None``); if sessions that know the width of
            their bins differ in it; or as in :meth:`STNDTEstimator.fit`, with a note that names the
            session.
        """
        with unchanged_if_failed(self):
            self._fit(check_sessions(X), groups)
        return self

    def _fit(self, X: Sequence[Any], groups: Sequence[ArrayLike | None] | None) -> None:
        base = STNDTEstimator() if self.estimator is None else clone(self.estimator)
        if base.pretrained is not None or base.d_model is None:
            raise ValueError(
                "The sessions share a core that is trained here, so the estimator must have "
                f"pretrained=None and a width, got pretrained={base.pretrained!r} and "
                f"d_model={base.d_model!r}. Pass an estimator with e.g. d_model=64; to add a "
                "session to a trained core, use adapt."
            )
        if base.refit:
            raise ValueError(
                "refit=True trains again on all windows of a session, but several sessions are "
                "trained together here. Pass an estimator with refit=False."
            )
        if base.checkpoint_dir is not None:
            raise ValueError(
                "A fit of several sessions writes no checkpoints, so the estimator must have "
                f"checkpoint_dir=None, got {str(base.checkpoint_dir)!r}."
            )
        _check_bin_widths(X)
        seed = draw_seed(base)
        members = [clone(base) for _ in X]
        parts, windows = [], []
        for i, (member, x, of_rows) in enumerate(
            zip(members, X, _groups_of(X, groups), strict=True)
        ):
            with _naming(i):
                counts, trials, kind = check_data(member, x, of_rows)
                segments = as_segments(counts, trials)
                begin(member)
                draw_heldout(member, seed)
                windows.append(window_of(member, segments, kind))
                parts.append(segments)
        fraction, window = base.validation_fraction, max(windows)
        validated = [enough_to_validate(segments, window, fraction) for segments in parts]
        data = []
        for i, (member, segments) in enumerate(zip(members, parts, strict=True)):
            with _naming(i):
                member.window_ = window
                set_aside = validated[i] or not any(validated)
                data.append(
                    prepare_session(member, segments, seed, causal=base.causal, set_aside=set_aside)
                )
        mean = mean_size([one.size for one in data])
        n_largest = max(one.size.n_windows for one in data) if len(X) > 1 else None
        for member, one in zip(members, data, strict=True):
            size = replace(mean, n_neurons=one.size.n_neurons)
            member.settings_ = resolve_session(member, size, seed, n_largest=n_largest)
        nets, self.history_ = train_together(data, [member.settings_ for member in members])
        for member, net in zip(members, nets, strict=True):
            finish(member, net)
        self.estimators_ = members
        self.n_iter_ = len(self.history_)
        self.window_ = window
        warn_of_divergence(nets[0])
        if nets[0].interrupted_:
            warn_of_interruption(nets[0], None)
            return
        for i, (member, one, net) in enumerate(zip(members, data, nets, strict=True)):
            where, neurons = f" from session {i}, X[{i}]", member.heldout_neurons_
            warn_if_nothing_learnt(
                member.history_,
                one.validation,
                neurons,
                member._trained_on,
                one.likelihood,
                net,
                where=where,
            )

    @property
    def summary_(self) -> SessionsSummary:
        """Sessions, network, values of "auto" parameters, updates, seconds, held-out scores.

        It prints as a small table, which ``print(estimator)`` and the HTML display show too.
        `members` holds the `summary_` of each of `estimators_`.
        """
        check_is_fitted(self)
        return SessionsSummary(tuple(member.summary_ for member in self.estimators_))

    def fit_transform(
        self, X: Sequence[Any], y: Any = None, *, groups: Sequence[ArrayLike | None] | None = None
    ) -> list[Any]:
        """Train on X, then return its rates; see `fit` and `transform`."""
        return self.fit(X, groups=groups).transform(X, groups=groups)

    def transform(
        self, X: Sequence[Any], *, groups: Sequence[ArrayLike | None] | None = None
    ) -> list[Any]:
        """Infer the rates of each session.

        Parameters
        ----------
        X : list of array-like
            As in `fit`, in the same order of sessions; trials may be others.
        groups : list of (array-like or None), default=None
            As in `fit`.

        Returns
        -------
        rates : list
            What the `transform` of each estimator returns for its session.

        Raises
        ------
        ValueError
            If the number of sessions, or of the neurons of one, differs from that in fit.
        """
        return self._for_each(_transform, X, groups)

    def score(
        self,
        X: Sequence[Any],
        y: Any = None,
        *,
        groups: Sequence[ArrayLike | None] | None = None,
    ) -> float:
        """Bits per spike of hidden entries: the mean of the scores of the sessions.

        Each session counts the same, whatever its number of spikes. For the score of one, use
        ``estimators_[i].score(X[i])``.

        Parameters
        ----------
        X : list of array-like
            As in `transform`.
        y : ignored
            For compatibility with pipelines.
        groups : list of (array-like or None), default=None
            As in `fit`.

        Returns
        -------
        float
            Higher is better; 0 is each neuron's mean rate.
        """
        return float(np.mean(self._for_each(_score, X, groups)))

    def adapt(self, X: ArrayLike, *, groups: ArrayLike | None = None, **params: Any) -> Any:
        """Fit an estimator of other neurons that starts from the shared core.

        Parameters
        ----------
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Spikes per bin of a further session; not a list.
        groups, **params
            As in :meth:`STNDTEstimator.adapt`.

        Returns
        -------
        adapted : STNDTEstimator
            A fitted estimator of the neurons of X.
        """
        check_is_fitted(self)
        return self.estimators_[0].adapt(X, groups=groups, **params)

    def _for_each(
        self, function: Any, X: Sequence[Any], groups: Sequence[ArrayLike | None] | None
    ) -> list[Any]:
        check_is_fitted(self)
        X = check_sessions(X)
        if len(X) != len(self.estimators_):
            raise ValueError(
                f"X has {len(X)} sessions, but MultiSessionEstimator was fitted on "
                f"{len(self.estimators_)}. Pass all of them in the order of fit; for one of them, "
                "use estimators_[i]; for a new one, use adapt."
            )
        jobs = enumerate(zip(self.estimators_, X, _groups_of(X, groups), strict=True))
        return Parallel(n_jobs=self.n_jobs, backend=backend_for_workers())(
            delayed(function)(i, member, x, of_rows) for i, (member, x, of_rows) in jobs
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        first, *others = [member.net_.module_ for member in getattr(self, "estimators_", [])] or [0]
        for network in others:  # skorch saves each network as a whole
            share_core(network, first)


def check_sessions(X: Any) -> Sequence[Any]:
    """Check that X is a list of sessions, each of which may be an array of counts.

    Raises
    ------
    TypeError
        If X is not a list.
    ValueError
        If it is empty, or holds vectors.
    """
    if isinstance(X, Mapping):
        raise TypeError(
            f"X is a {type(X).__name__} of {len(X)} items, but a list of sessions is expected. "
            "Pass list(X.values())."
        )
    if not isinstance(X, list | tuple):
        raise TypeError(
            "X must be a list with the counts of one session per item, got "
            f"{type(X).__name__}. Pass [X1, X2, ...]; for a single session use STNDTEstimator."
        )
    if not len(X):
        raise ValueError("X is an empty list. Pass the counts of at least one session.")
    for i, x in enumerate(X):
        n_dims = len(x.shape) if hasattr(x, "shape") else np.ndim(np.asarray(x, dtype=object))
        if n_dims < 2:
            raise ValueError(
                f"X[{i}] has {n_dims} dimension(s), but each item of X is a session of shape "
                "(n_trials, n_bins, n_neurons) or (n_bins, n_neurons). For a single session, pass "
                "[X], or use STNDTEstimator."
            )
    return X


def _groups_of(
    X: Sequence[Any], groups: Sequence[ArrayLike | None] | None
) -> Sequence[ArrayLike | None]:
    """Return the groups of each session."""
    if groups is None:
        return [None] * len(X)
    if not isinstance(groups, list | tuple) or len(groups) != len(X):
        n = len(groups) if hasattr(groups, "__len__") else "no"
        raise ValueError(
            f"groups must be a list with one item per session, {len(X)} in all, got a "
            f"{type(groups).__name__} with {n} items. Use None for sessions without groups."
        )
    return groups


def _check_bin_widths(X: Sequence[Any]) -> None:
    """Refuse sessions whose clocks say that their bins differ in width."""
    known: dict[str, tuple[int, float]] = {}
    for i, x in enumerate(X):
        found = bin_width(x)
        if found is None:
            continue
        clock, width = found
        first, expected = known.setdefault(clock, (i, width))
        if abs(width - expected) > _SAME_WIDTH * expected:
            raise ValueError(
                f"Bins of X[{first}] are {expected:g} wide and bins of X[{i}] {width:g} ({clock}), "
                "but sessions with a shared core need bins of one width. Bin all of them anew with "
                "the same width."
            )


@contextmanager
def _naming(session: int) -> Iterator[None]:
    """Add to an error which session it is about."""
    try:
        yield
    except (TypeError, ValueError) as error:
        error.add_note(f"This is about session {session}, X[{session}].")
        raise


def _transform(i: int, member: STNDTEstimator, x: Any, groups: ArrayLike | None) -> Any:
    with _naming(i):
        return member.transform(x, groups=groups)


def _score(i: int, member: STNDTEstimator, x: Any, groups: ArrayLike | None) -> float:
    with _naming(i):
        return member.score(x, groups=groups)
