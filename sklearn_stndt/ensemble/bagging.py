"""BaggingEnsemble: the mean rates of many networks, and how far they disagree."""

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import HasMethods, Interval, RealNotInt, StrOptions
from sklearn.utils.validation import check_is_fitted

from sklearn_stndt._base import RateTransformer
from sklearn_stndt._rates import infer_rates
from sklearn_stndt._scoring import infer_hidden
from sklearn_stndt._validation import check_counts, check_groups, unchanged_if_failed
from sklearn_stndt.ensemble.checkpoints import CheckpointDirectory, StoredMembers
from sklearn_stndt.ensemble.engine import train_run
from sklearn_stndt.ensemble.plans import EnsembleSettings
from sklearn_stndt.ensemble.results import judge, out_of_bag, table
from sklearn_stndt.ensemble.runs import Run, begin_run
from sklearn_stndt.ensemble.selection import select
from sklearn_stndt.ensemble.trials import Recording
from sklearn_stndt.metrics import bits_per_spike


class BaggingEnsemble(RateTransformer):
    """Average the rates of many estimators that differ by seeds, trials or hyperparameters.

    Members err in different directions, so the mean of their rates is nearer to the truth than
    any of them. Ensembles hold the record on the field's benchmark [1]_: draw hyperparameters by
    `param_distributions`, rank members by held-out bits per spike, average the `n_best`.

    Parameters
    ----------
    estimator : estimator, list of estimators or None, default=None
        Transformer from counts to rates, or a Pipeline with one: then the rates of that step are
        averaged, and steps after it play no part. Of a list the members take turns: member `i` is
        made of item ``i % len(estimator)``. None: ``STNDTEstimator()``.
    n_estimators : int, default=10
        Number of members to train.
    param_distributions : dict, list of dicts or None, default=None
        What each member draws its parameters from, as in
        :class:`sklearn.model_selection.RandomizedSearchCV`: names, nested ones too, to
        distributions of :mod:`scipy.stats` or lists of values.
    bootstrap : bool, default=False
        Draw the trials of each member with replacement. A continuous recording is cut into 20
        blocks that take the place of trials.
    max_samples : int or float, default=1.0
        Trials of each member, as a number or as a share of those that are not set aside.
    n_best : int, "auto", "greedy" or None, default=None
        Members to average, by held-out bits per spike: the `n_best` best; "auto", so many of
        the best that their mean scores best; "greedy", these, and then one more at a time, the
        same one again if that helps most, while it raises the score of the mean [2]_. None: all.
    validation_fraction : float or None, default=None
        Share of the trials that no member is trained on and that all are scored on. None: where
        `n_best` asks for scores, the trials that `bootstrap` or `max_samples` leave out (out of
        bag), or .2 where they leave out none; where nothing is to be scored, none.
    oob_score : bool, default=False
        Infer the rates of each trial by the members that were not trained on it.
    warm_start : bool, default=False
        Keep the members of the last `fit` and train those that `n_estimators` asks for beyond
        them. With an int as `random_state` they are what a longer `fit` would have made.
    checkpoint_dir : str, PathLike or None, default=None
        Directory that each member is written into as soon as it is finished. A later `fit` with
        the same parameters and data trains what is missing. `n_estimators`, `n_best`, `n_jobs`,
        `oob_score`, `error_score` and `verbose` may change. Members stay there and are loaded one
        by one when they are needed. On a cluster, all workers must share it. Members are pickles:
        pass only directories that you trust.
    error_score : "raise" or number, default=numpy.nan
        What to do if a member fails: stop, or warn, write the number into `results_`, and go
        on without it.
    n_jobs : int or None, default=None
        Members that train at once, as joblib understands it; within
        ``joblib.parallel_config(backend)`` the backend's workers do the training.
    random_state : int, RandomState instance or None, default=None
        Draws held-out neurons and one seed for each member, and from that its parameters and its
        trials. Results are the same for every `n_jobs` and every backend.
    verbose : int, default=0
        1: a progress bar of members, with the best score so far and the time left.

    Attributes
    ----------
    estimators_ : sequence of estimators
        All fitted members. With `checkpoint_dir`, each is loaded when it is asked for.
    estimators_samples_ : list of ndarray of int
        Trials (or blocks) that each member was trained on.
    params_ : list of dict
        Parameters that each member has drawn.
    scores_ : ndarray of shape (n_members,)
        Held-out bits per spike of each member; only if `n_best`, `validation_fraction` or
        `oob_score` ask for it. Out of bag, members are compared through the trials that they
        share with the others, see Notes.
    selected_ : ndarray of int
        Which of `estimators_` are averaged, the best first.
    weights_ : ndarray of float
        Share of each selected member in the mean.
    selection_curve_ : ndarray of shape (n_members,)
        Held-out score of the mean of the best 1, 2, ... members; where there are `scores_`.
    validation_trials_ : ndarray of int
        Trials (or blocks) that no member was trained on.
    oob_rates_ : ndarray of the shape of X
        Mean rates of the selected members that were not trained on a trial, in spikes per bin;
        NaN where there is none. Only with `oob_score`.
    oob_score_ : float
        Bits per spike of such rates while the counts were hidden. Only with `oob_score`.
    results_ : dict of arrays
        A row for each member that was tried, for ``pandas.DataFrame(results_)``: `member` (its
        place in `estimators_`, -1 if it failed), `seed`, `param_*`, `params`, `test_score` and
        `rank_test_score` (where there are scores), `weight`, `fit_time` and `score_time` in
        seconds, `error` (its traceback).
    heldout_neurons_ : ndarray of int
        Neurons that all members hold out.
    n_features_in_ : int
        Number of neurons.
    feature_names_in_ : ndarray of str
        Names of the neurons, where fit was given a table.

    See Also
    --------
    STNDTEstimator : The usual member.

    Notes
    -----
    Out of bag, each member has trials of its own, and a member with easy ones must not win by
    them. Its score is that of the mean of all members, out of bag, plus what it gains over that
    mean on the trials that it has.

    A member trains with one thread of linear algebra and the `n_threads` of its torch, so that
    members side by side do not fight for cores.

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
            If X or groups are not what the members expect, if parameters do not fit each other or
            the data, if `checkpoint_dir` belongs to another run, or if all members fail.
        RuntimeError
            If another process trains into `checkpoint_dir`.
        """
        with unchanged_if_failed(self):
            self._fit(X, groups)
        return self

    def _fit(self, X: ArrayLike, groups: ArrayLike | None) -> None:
        previous = getattr(self, "_run", None) if self.warm_start else None
        X = check_counts(self, X, reset=previous is None)
        recording = Recording.of(X, check_groups(X, groups))
        with ExitStack() as stack:
            directory = None
            if self.checkpoint_dir is not None:
                directory = CheckpointDirectory(self.checkpoint_dir)
                stack.enter_context(directory.locked())
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

    def _finish(self, run: Run) -> None:
        """Choose members, and set what fit leaves behind."""
        assert run.work is not None
        members, work = run.members, run.work
        for name in ("scores_", "selection_curve_", "oob_rates_", "oob_score_"):
            self.__dict__.pop(name, None)  # of an earlier fit
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

    def rate_std(self, X: ArrayLike, *, groups: ArrayLike | None = None) -> NDArray:
        """Disagreement between the selected members: the standard deviation of their rates.

        Parameters
        ----------
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Spikes per bin, NaN where hidden.
        groups : array-like of shape (n_bins,), default=None
            Trial of each row of a 2D X.

        Returns
        -------
        std : ndarray, same shape
            Spikes per bin. It tells how uncertain the rate is, not how noisy the spikes are.
        """
        check_is_fitted(self)
        X = check_counts(self, X, reset=False)
        mean, squares, n = 0.0, 0.0, 0
        for n_picks, rates in self._member_rates(X, groups):
            # Welford's update: no difference of large squares
            n += n_picks
            change = rates - mean
            mean = mean + n_picks * change / n
            squares = squares + n_picks * change * (rates - mean)
        return np.sqrt(squares / n)

    def score(self, X: ArrayLike, y: Any = None, *, groups: ArrayLike | None = None) -> float:
        """Bits per spike of entries that were hidden, as :meth:`STNDTEstimator.score`.

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
        """Score of the mean of the first 1, 2, ... of the selected members, the best first.

        Without `n_best`, and without scores, they stand in the order of their seeds.

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
        X = check_counts(self, X, reset=False)
        groups = check_groups(X, groups)
        total, n, scores = 0.0, 0, []
        for n_picks, member in self._selected_members():
            infer = partial(infer_rates, member, groups=groups)
            spikes, rates = infer_hidden(infer, X, self.heldout_neurons_)
            total, n = total + n_picks * rates, n + n_picks
            scores.append(bits_per_spike(spikes, total / n))
        return np.array(scores)

    def __len__(self) -> int:
        return len(getattr(self, "estimators_", []))

    def __iter__(self) -> Iterator:
        return iter(self.estimators_)

    def __getitem__(self, index: int | slice) -> Any:
        return self.estimators_[index]

    def _selected_members(self) -> Iterator[tuple[int, Any]]:
        """Members that are averaged, one in memory at a time, and how often each counts."""
        for number, n_picks in zip(self.selected_, self._n_picks, strict=True):
            yield int(n_picks), self.estimators_[number]

    def _member_rates(self, X: NDArray, groups: ArrayLike | None) -> Iterator[tuple[int, NDArray]]:
        groups = check_groups(X, groups)
        for n_picks, member in self._selected_members():
            yield n_picks, infer_rates(member, X, groups)

    def _infer(self, X: NDArray, groups: ArrayLike | None) -> NDArray:
        total, n = np.zeros((), dtype=np.float32), 0  # leaves the precision to the members
        for n_picks, rates in self._member_rates(X, groups):
            total, n = total + n_picks * rates, n + n_picks
        return total / n
