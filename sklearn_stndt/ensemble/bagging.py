"""BaggingEnsemble: the mean rates of several networks, and how far they disagree."""

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import _fit_context, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, RealNotInt, StrOptions
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from sklearn_stndt._base import RateTransformer
from sklearn_stndt._containers import runs, wrapped
from sklearn_stndt._failures import unchanged_if_failed
from sklearn_stndt._parameters import suggests_names
from sklearn_stndt._rates import infer_rates
from sklearn_stndt._scoring import Scoring, infer_hidden, mean_scoring, score_hidden, scoring_of
from sklearn_stndt._validation import check_counts, check_groups
from sklearn_stndt.ensemble.checkpoints import CheckpointDirectory, StoredMembers
from sklearn_stndt.ensemble.engine import train_run
from sklearn_stndt.ensemble.plans import EnsembleSettings
from sklearn_stndt.ensemble.results import judge, out_of_bag, table
from sklearn_stndt.ensemble.runs import Run, begin_run
from sklearn_stndt.ensemble.selection import select
from sklearn_stndt.ensemble.trials import Recording
from sklearn_stndt.estimator import STNDTEstimator
from sklearn_stndt.network.likelihood import as_likelihood
from sklearn_stndt.training.distillation import draw_lessons
from sklearn_stndt.training.summary import EnsembleSummary

# in place of the defaults of STNDTEstimator: rates are less noisy than counts, and can be learned
# for longer, with less regularisation and without trials set aside. They are learned with nearly
# all entries visible, so passes that hide some of them are worse
STUDENT = {
    "max_epochs": "long",
    "dropout": 0.0,
    "mask_ratio": (0.0, 0.2),
    "early_stopping": False,
    "inference_passes": 1,
}


class BaggingEnsemble(RateTransformer):
    """Average the rates of several estimators that differ in seeds, trials or hyperparameters.

    Members make different errors, so the mean of their rates is closer to the true rates than those
    of any one member. Ensembles hold the record on the Neural Latents Benchmark [1]_: draw
    hyperparameters by `param_distributions`, rank members by held-out bits per spike, and average
    the `n_best`.

    Parameters
    ----------
    estimator : estimator, list of estimators or None, default=None
        Transformer from counts to rates, or a Pipeline with one: then the rates of that step are
        averaged, and later steps are ignored. A list is used in turn: member `i` is a clone of item
        ``i % len(estimator)``. None: ``STNDTEstimator()``.
    n_estimators : int, default=10
        Number of members to train.
    param_distributions : dict, list of dicts or None, default=None
        Distributions from which each member's parameters are drawn, as in
        :class:`sklearn.model_selection.RandomizedSearchCV`: parameter names (nested ones too) to
        distributions of :mod:`scipy.stats` or lists of values.
    bootstrap : bool, default=False
        Draw the trials of each member with replacement. A continuous recording is cut into 20
        blocks, which are drawn instead of trials.
    max_samples : int or float, default=1.0
        Trials per member, as a number or as a fraction of those that are not set aside.
    n_best : int, "auto", "greedy" or None, default=None
        Members to average, ranked by held-out bits per spike. An int: that many of the best.
        "auto": the `k` best, with the `k` whose mean scores best. "greedy": these, then one more at
        a time, possibly the same one again, while the score of the mean improves [2]_. None: all.
    validation_fraction : float or None, default=None
        Fraction of the trials that no member is trained on and that all members are scored on.
        None: if `n_best` needs scores, members are scored on the trials that `bootstrap` or
        `max_samples` leaves out (out of bag), or, if none are left out, on a fraction of .2.
    oob_score : bool, default=False
        Infer the rates of each trial with the members that were not trained on it.
    warm_start : bool, default=False
        Keep the members of the last `fit` and train only additional ones, up to `n_estimators`.
        With an int as `random_state`, the result is the same as training all of them at once.
    checkpoint_dir : str, PathLike or None, default=None
        Directory to which each member is written as soon as it is finished. A later `fit` with
        the same parameters and data trains only the missing members. `n_estimators`, `n_best`,
        `n_jobs`, `oob_score`, `error_score` and `verbose` may change. Members stay on disk and are
        loaded one at a time when needed. On a cluster, all workers must share the directory.
        Members are written as by :func:`sklearn_stndt.save`, which needs the extra `save`. Members
        that it cannot hold, and all of them without the extra, are pickles: pass only directories
        that you trust.
    error_score : "raise" or number, default=numpy.nan
        What to do if a member fails: stop with an error, or warn, enter this score into
        `results_`, and continue without the member.
    n_jobs : int or None, default=None
        Members trained in parallel, as in joblib; within ``joblib.parallel_config(backend)``
        they are trained by the workers of that backend.
    random_state : int, RandomState instance or None, default=None
        Seed of the held-out neurons and of one seed per member, which in turn determines its
        parameters and its trials. Results are the same for every `n_jobs` and every backend.
    verbose : int, default=0
        1: members done, best score so far and time left, as a bar in terminals and notebooks and
        as a few lines in other output.

    Attributes
    ----------
    estimators_ : sequence of estimators
        All fitted members. With `checkpoint_dir`, each is loaded when it is accessed.
    estimators_samples_ : list of ndarray of int
        Trials (or blocks) that each member was trained on.
    params_ : list of dict
        Parameters drawn for each member.
    scores_ : ndarray of shape (n_members,)
        Held-out bits per spike of each member; only if `n_best`, `validation_fraction` or
        `oob_score` is set. For out-of-bag scores, see Notes.
    selected_ : ndarray of int
        Indices of the members in `estimators_` that are averaged, the best first.
    weights_ : ndarray of float
        Weight of each selected member in the mean.
    likelihood_params_ : dict of ndarray of shape (n_neurons,)
        As of :class:`~sklearn_stndt.STNDTEstimator`: geometric means over the selected members.
    selection_curve_ : ndarray of shape (n_members,)
        Held-out score of the mean of the best 1, 2, ... members; only if there are `scores_`.
    validation_trials_ : ndarray of int
        Trials (or blocks) that no member was trained on.
    oob_rates_ : ndarray of the shape of X
        For each trial, mean rates of the selected members that were not trained on it, in spikes
        per bin; NaN if there is no such member. Only with `oob_score`.
    oob_score_ : float
        Bits per spike of such rates, inferred while the counts are hidden. Only with `oob_score`.
    results_ : dict of arrays
        One row per member that was tried, for ``pandas.DataFrame(results_)``: `member` (index in
        `estimators_`, -1 if it failed), `seed`, `param_*`, `params`, `test_score` and
        `rank_test_score` (if there are scores), `weight`, `fit_time` and `score_time` in seconds,
        `error` (traceback).
    heldout_neurons_ : ndarray of int
        Held-out neurons, the same for all members.
    summary_ : EnsembleSummary
        Members, seconds and scores; ``print(ensemble)`` shows it.
    n_features_in_ : int
        Number of neurons.
    feature_names_in_ : ndarray of str
        Names of the neurons, if all were strings in fit.

    See Also
    --------
    STNDTEstimator : The usual member.

    Notes
    -----
    Out of bag, members are scored on different trials, and easy trials must not be an advantage.
    The score of a member is therefore the out-of-bag score of the mean of all members, plus the
    member's gain over that mean on its own out-of-bag trials.

    Each member is trained with one thread of linear algebra and `n_threads` threads of torch, so
    that members trained in parallel do not compete for cores.

    References
    ----------
    .. [1] T. Le, E. Shlizerman, "STNDT: Modeling neural population activity with a spatiotemporal
       transformer", NeurIPS 2022, arXiv:2206.04727.
    .. [2] R. Caruana et al., "Ensemble selection from libraries of models", ICML 2004.

    Examples
    --------
    >>> from scipy.stats import uniform
    >>> from sklearn_stndt import BaggingEnsemble, STNDTEstimator
    >>> from sklearn_stndt.datasets import make_reaches
    >>> spikes = make_reaches(n_trials=20, random_state=0).spikes
    >>> search_space = {"dropout": uniform(0, 0.4), "context": [None, (10, 10)]}
    >>> ensemble = BaggingEnsemble(
    ...     STNDTEstimator(max_epochs=2),
    ...     n_estimators=3,
    ...     param_distributions=search_space,
    ...     n_best=2,
    ...     random_state=0,
    ... ).fit(spikes)
    >>> ensemble.transform(spikes).shape == ensemble.rate_std(spikes).shape == spikes.shape
    True
    >>> len(ensemble), len(ensemble.selected_)
    (3, 2)
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "transform"]), list, None],
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "param_distributions": [dict, list, None],
        "bootstrap": ["boolean"],
        "max_samples": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="right"),
        ],
        "n_best": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto", "greedy"}),
            None,
        ],
        "validation_fraction": [Interval(RealNotInt, 0, 1, closed="neither"), None],
        "oob_score": ["boolean"],
        "warm_start": ["boolean"],
        "checkpoint_dir": [str, os.PathLike, None],
        "error_score": [StrOptions({"raise"}), Real],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    @suggests_names
    def __init__(
        self,
        estimator=None,
        n_estimators=10,
        *,
        param_distributions=None,
        bootstrap=False,
        max_samples=1.0,
        n_best=None,
        validation_fraction=None,
        oob_score=False,
        warm_start=False,
        checkpoint_dir=None,
        error_score=np.nan,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.n_estimators = n_estimators
        self.param_distributions = param_distributions
        self.bootstrap = bootstrap
        self.max_samples = max_samples
        self.n_best = n_best
        self.validation_fraction = validation_fraction
        self.oob_score = oob_score
        self.warm_start = warm_start
        self.checkpoint_dir = checkpoint_dir
        self.error_score = error_score
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: ArrayLike, y: Any = None, *, groups: ArrayLike | None = None) -> Self:
        """Train the members.

        Parameters
        ----------
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Spikes per bin, NaN where hidden.
        y : ignored
            For compatibility with pipelines.
        groups : array-like of shape (n_bins,), default=None
            Trial of each row of a 2D X.

        Returns
        -------
        self : BaggingEnsemble

        Raises
        ------
        ValueError
            If X or groups are invalid, if parameters do not fit each other or the data, if
            `checkpoint_dir` belongs to another run, or if all members fail.
        RuntimeError
            If another process is using `checkpoint_dir`.
        """
        with unchanged_if_failed(self):
            self._fit(X, groups)
        return self

    def _fit(self, X: ArrayLike, groups: ArrayLike | None) -> None:
        previous = getattr(self, "_run", None) if self.warm_start else None
        counts = check_counts(self, X, reset=previous is None)
        parts = runs(X)
        if parts is not None and groups is None:
            self._check_takes_groups()
        recording = Recording.of(counts, check_groups(counts, groups), parts)
        with ExitStack() as stack:
            directory = None
            if self.checkpoint_dir is not None:
                directory = CheckpointDirectory(self.checkpoint_dir)
                stack.enter_context(directory.locked())
                stack.callback(directory.remove_counts)
            settings = EnsembleSettings(**self.get_params(deep=False))
            run = begin_run(settings, recording, previous, directory)
            if train_run(run, self.n_jobs, self.verbose):
                warnings.warn(
                    f"Training was interrupted at member {len(run.outcomes)} of "
                    f"{self.n_estimators}. The ensemble can be used: it keeps the members so far.",
                    ConvergenceWarning,
                    stacklevel=4,
                )
            self._finish(run)

    def _check_takes_groups(self) -> None:
        """Refuse members that cannot receive the gaps of a clock, which are passed as groups."""
        members = self.estimator if isinstance(self.estimator, list) else [self.estimator]
        for member in members:
            if member is not None and not has_fit_parameter(member, "groups"):
                raise ValueError(
                    "The clock of X has gaps, which are passed to members as groups, but the fit "
                    f"of {type(member).__name__} does not take groups. Pass numpy.asarray(X) to "
                    "ignore the gaps, or trials as a 3D X. Steps of a pipeline may also precede "
                    "the ensemble: make_pipeline(step, BaggingEnsemble(...))."
                )

    def _finish(self, run: Run) -> None:
        """Select members, and set the fitted attributes."""
        assert run.work is not None
        members, work = run.members, run.work
        for name in ("scores_", "selection_curve_", "oob_rates_", "oob_score_"):
            self.__dict__.pop(name, None)  # from an earlier fit
        self.heldout_neurons_ = work.heldout_neurons
        self.validation_trials_ = work.set_aside
        self.estimators_samples_ = [outcome.plan.drawn for outcome in members]
        self.params_ = [outcome.plan.params for outcome in members]
        fitted = [outcome.member for outcome in members]
        self.estimators_ = fitted if work.directory is None else StoredMembers(fitted)
        self.selected_, self._n_picks = np.arange(len(members)), np.ones(len(members), dtype=int)
        if work.evaluate:
            self.scores_, self.selection_curve_, self.selected_, self._n_picks = select(
                judge(members, work), self.n_best
            )
        self.weights_ = self._n_picks / self._n_picks.sum()
        if self.oob_score:
            chosen = [members[i] for i in self.selected_]
            self.oob_rates_, self.oob_score_ = out_of_bag(chosen, self._n_picks, work)
        weights = np.zeros(len(members))
        weights[self.selected_] = self.weights_
        outcomes = [outcome for _, outcome in sorted(run.outcomes.items())]
        self.results_ = table(outcomes, getattr(self, "scores_", None), weights, self.error_score)
        self._run = run.without_data()

    @property
    def summary_(self) -> EnsembleSummary:
        """Members that were trained, failed and are averaged, seconds, and held-out scores.

        It prints as a small table, which ``print(ensemble)`` and the HTML display show too. Its
        attributes are `n_members`, `n_failed`, `n_selected`, `seconds`, `member` (the summary of
        the best member), `best_score`, and `score` of the mean.
        """
        check_is_fitted(self)
        best = int(self.selected_[0])
        member = None
        if not isinstance(self.estimators_, StoredMembers):
            member = getattr(self.estimators_[best], "summary_", None)
        score = None
        if hasattr(self, "scores_") and (self._n_picks == 1).all():
            score = float(self.selection_curve_[len(self.selected_) - 1])
        return EnsembleSummary(
            n_members=len(self.estimators_),
            n_failed=int(np.sum(self.results_["member"] == -1)),
            n_selected=len(self.selected_),
            seconds=float(np.sum(self.results_["fit_time"])),
            member=member,
            best_score=float(self.scores_.max()) if hasattr(self, "scores_") else None,
            score=score,
        )

    def distill(
        self, X: ArrayLike, *, groups: ArrayLike | None = None, **params: Any
    ) -> STNDTEstimator:
        """Train one network to infer the rates of the ensemble.

        Its rates are closer to those of the ensemble than a member's [1]_. It infers the rates of
        many trials in a third of a member's time, because it needs a single pass. It learns the
        rates that the ensemble infers from counts drawn from the rates of X.

        Parameters
        ----------
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Spikes per bin, NaN where hidden; usually those of `fit`.
        groups : array-like of shape (n_bins,), default=None
            Trial of each row of a 2D X.
        **params
            Parameters of the network that differ from those of `estimator`, such as a smaller
            `d_model`, or ``causal=True`` for a network that sees no later bins. If neither these
            nor `estimator` set them: ``max_epochs="long"``, ``dropout=0.0``,
            ``mask_ratio=(0.0, 0.2)``, ``early_stopping=False`` and ``inference_passes=1``.
            Held-out neurons are those of the ensemble, and so is `random_state` if it is not
            passed. With ``calibration=True``, .3 of the log-rates (.1 of held-out neurons) are
            inferred by factor analysis; smoothing and gain are not chosen again, because the rates
            of members have them.

        Returns
        -------
        student : STNDTEstimator
            Fitted. Its score, and early stopping if there is any, use counts, as in
            :meth:`STNDTEstimator.fit`.

        Raises
        ------
        TypeError
            If `estimator` is not an STNDTEstimator.
        ValueError
            If X, groups or a parameter is invalid.
        sklearn.exceptions.NotFittedError
            Before fit.

        References
        ----------
        .. [1] G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural network", 2015,
           arXiv:1503.02531.
        """
        check_is_fitted(self)
        student = self._student(params)
        counts = check_counts(self, X, reset=False)
        infer = partial(self._infer, groups=check_groups(counts, groups, X))
        likelihood = self._scoring.likelihood
        if type(likelihood) is not type(as_likelihood(student.likelihood)):
            raise ValueError(
                f"The ensemble has the likelihood {type(likelihood).__name__}, which a distilled "
                f"network must have too, got likelihood={student.likelihood!r}. Leave it out."
            )
        random_state = check_random_state(student.random_state)
        lessons = draw_lessons(infer, counts, random_state, likelihood)
        return student._fit_to(X, lessons, groups, likelihood)

    def _student(self, params: dict[str, Any]) -> STNDTEstimator:
        """Return the network to train in `distill`, not fitted."""
        base = STNDTEstimator() if self.estimator is None else self.estimator
        if not isinstance(base, STNDTEstimator):
            raise TypeError(
                "distill trains a network with the parameters of the ensemble's estimator, which "
                f"must be an STNDTEstimator, but is a {type(base).__name__}."
            )
        if "heldout_neurons" in params:
            raise ValueError(
                "heldout_neurons are those of the ensemble, and cannot be other ones in distill. "
                "Leave them out, or fit an ensemble with these held-out neurons."
            )
        student = clone(base).set_params(random_state=self.random_state, warm_start=False)
        defaults = STNDTEstimator().get_params()
        free = [name for name in STUDENT if getattr(base, name) == defaults[name]]
        student.set_params(**{name: STUDENT[name] for name in free})
        if len(self.heldout_neurons_):
            student.set_params(heldout_neurons=self.heldout_neurons_.tolist())
        return student.set_params(**params)

    def rate_std(self, X: ArrayLike, *, groups: ArrayLike | None = None) -> Any:
        """Disagreement of the selected members: the standard deviation of their rates.

        Parameters
        ----------
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Spikes per bin, NaN where hidden.
        groups : array-like of shape (n_bins,), default=None
            Trial of each row of a 2D X.

        Returns
        -------
        std : ndarray, TsdFrame, TsdTensor or DataArray, same shape
            Spikes per bin, in the container of X, as in `transform`. It measures how uncertain
            the rate is, not how variable the spikes are.
        """
        check_is_fitted(self)
        counts = check_counts(self, X, reset=False)
        groups = check_groups(counts, groups, X)
        mean, squares, n = 0.0, 0.0, 0
        for n_picks, rates in self._member_rates(counts, groups):
            # Welford's algorithm avoids the difference of large squares
            n += n_picks
            change = rates - mean
            mean = mean + n_picks * change / n
            squares = squares + n_picks * change * (rates - mean)
        return wrapped(X, np.sqrt(squares / n), "rate_std")

    @property
    def _scoring(self) -> Scoring:
        members = [(n_picks, scoring_of(member)) for n_picks, member in self._selected_members()]
        return mean_scoring([scoring for _, scoring in members], [n for n, _ in members])

    @property
    def likelihood_params_(self) -> dict[str, NDArray]:
        """Numbers of each neuron that the likelihood has learned."""
        check_is_fitted(self)
        return self._scoring.params

    def log_likelihood(self, X: ArrayLike, *, groups: ArrayLike | None = None) -> float:
        """Log-likelihood of hidden entries, as in :meth:`STNDTEstimator.log_likelihood`.

        Numbers of the likelihood, such as a dispersion, are geometric means over members.

        Parameters
        ----------
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Spikes per bin, NaN where unknown.
        groups : array-like of shape (n_bins,), default=None
            Trial of each row of a 2D X.

        Returns
        -------
        float
            Bits per spike, or per entry if these are no counts.
        """
        check_is_fitted(self)
        counts = check_counts(self, X, reset=False)
        infer = partial(self._infer, groups=check_groups(counts, groups, X))
        return score_hidden(infer, counts, self.heldout_neurons_, self._scoring.log_likelihood)

    def score(self, X: ArrayLike, y: Any = None, *, groups: ArrayLike | None = None) -> float:
        """Bits per spike of hidden entries, as in :meth:`STNDTEstimator.score`.

        Parameters
        ----------
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Spikes per bin, NaN where unknown.
        y : ignored
            For compatibility with pipelines.
        groups : array-like of shape (n_bins,), default=None
            Trial of each row of a 2D X.

        Returns
        -------
        float
            Higher is better; 0 is each neuron's mean rate.
        """
        return float(self.score_curve(X, groups=groups)[-1])

    def score_curve(self, X: ArrayLike, *, groups: ArrayLike | None = None) -> NDArray:
        """Score of the mean of the first 1, 2, ... selected members, the best first.

        With ``n_best=None`` they are in the order of their seeds.

        Parameters
        ----------
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Spikes per bin, NaN where unknown.
        groups : array-like of shape (n_bins,), default=None
            Trial of each row of a 2D X.

        Returns
        -------
        scores : ndarray of shape (n_selected,)
            Bits per spike.
        """
        check_is_fitted(self)
        counts = check_counts(self, X, reset=False)
        groups = check_groups(counts, groups, X)
        total, n, scores = 0.0, 0, []
        scorings: list[Scoring] = []
        picks: list[int] = []
        neurons = self.heldout_neurons_ if len(self.heldout_neurons_) else ...
        for n_picks, member in self._selected_members():
            infer = partial(infer_rates, member, groups=groups)
            spikes, rates = infer_hidden(infer, counts, self.heldout_neurons_)
            total, n = total + n_picks * rates, n + n_picks
            scorings.append(scoring_of(member))
            picks.append(n_picks)
            scoring = mean_scoring(scorings, picks)
            scores.append(scoring.score(spikes, total / n, neurons))
        return np.array(scores)

    def __len__(self) -> int:
        return len(getattr(self, "estimators_", []))

    def __iter__(self) -> Iterator:
        return iter(self.estimators_)

    def __getitem__(self, index: int | slice) -> Any:
        return self.estimators_[index]

    def _selected_members(self) -> Iterator[tuple[int, Any]]:
        """Yield each averaged member and how often it counts, one in memory at a time."""
        for number, n_picks in zip(self.selected_, self._n_picks, strict=True):
            yield int(n_picks), self.estimators_[number]

    def _member_rates(self, X: NDArray, groups: ArrayLike | None) -> Iterator[tuple[int, NDArray]]:
        groups = check_groups(X, groups)
        for n_picks, member in self._selected_members():
            yield n_picks, infer_rates(member, X, groups)

    def _infer(self, X: NDArray, groups: ArrayLike | None) -> NDArray:
        total, n = np.zeros((), dtype=np.float32), 0  # the members' dtype decides
        for n_picks, rates in self._member_rates(X, groups):
            total, n = total + n_picks * rates, n + n_picks
        return total / n

    def _simulate(self, X: NDArray, groups: ArrayLike | None, n_samples: int, draw: Any) -> NDArray:
        of_samples = draw.choice(len(self.selected_), n_samples, p=self.weights_)
        samples = [np.empty(0)] * n_samples
        for i in np.unique(of_samples):
            member = self.estimators_[self.selected_[i]]
            means = infer_rates(member, X, check_groups(X, groups))
            likelihood = scoring_of(member).likelihood
            for number in np.flatnonzero(of_samples == i):
                samples[number] = likelihood.sample(means, draw)
        return np.stack(samples)
