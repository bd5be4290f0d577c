"""BaggingEnsemble: the mean rates of many networks, and how far they disagree."""

import warnings
from collections.abc import Iterator
from numbers import Integral
from typing import Any, Self

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from sklearn import config_context
from sklearn.base import _fit_context, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, RealNotInt
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from sklearn_stndt._base import RateTransformer
from sklearn_stndt._scoring import infer_hidden
from sklearn_stndt._validation import (
    check_counts,
    check_groups,
    check_heldout_neurons,
)
from sklearn_stndt.estimator import STNDTEstimator
from sklearn_stndt.metrics import bits_per_spike
from sklearn_stndt.training.defaults import DEFAULT_WINDOW
from sklearn_stndt.training.resampling import row_trials, take


class BaggingEnsemble(RateTransformer):
    """Average the rates of many estimators that differ by their seeds or by their trials.

    Members err in different directions, so the mean of their rates is nearer to the truth than
    any of them. Ensembles hold the record on the field's benchmark [1]_.

    Parameters
    ----------
    estimator : estimator or None, default=None
        Transformer from counts to rates. None: ``STNDTEstimator()``.
    n_estimators : int, default=10
        Number of members.
    bootstrap : bool, default=False
        Draw the trials of each member with replacement. A continuous recording is cut into 20
        blocks that take the place of trials.
    max_samples : int or float, default=1.0
        Trials of each member, as a number or as a share of all.
    n_jobs : int or None, default=None
        Members that train at once, as joblib understands it; within
        ``joblib.parallel_config(backend)`` the backend's workers do the training.
    random_state : int, RandomState instance or None, default=None
        Draws one seed for each member, and from it the member's trials.
    verbose : int, default=0
        Passed to :class:`joblib.Parallel`: reports members done and the time that they took.

    Attributes
    ----------
    estimators_ : list of estimators
        The fitted members.
    estimators_samples_ : list of ndarray of int
        Trials (or blocks) that each member was trained on.
    heldout_neurons_ : ndarray of int
        Neurons that all members hold out.
    n_features_in_ : int
        Number of neurons.
    feature_names_in_ : ndarray of str
        Names of the neurons, where fit was given a table.

    See Also
    --------
    STNDTEstimator : The usual member.

    References
    ----------
    .. [1] T. Le, E. Shlizerman, "STNDT: Modeling neural population activity with a spatiotemporal
       transformer", NeurIPS 2022, arXiv:2206.04727.

    Examples
    --------
    >>> from sklearn_stndt import BaggingEnsemble, STNDTEstimator
    >>> from sklearn_stndt.datasets import make_reaches
    >>> spikes = make_reaches(n_trials=20, random_state=0).spikes
    >>> member = STNDTEstimator(max_epochs=2)
    >>> ensemble = BaggingEnsemble(member, n_estimators=2, random_state=0).fit(spikes)
    >>> ensemble.transform(spikes).shape == ensemble.rate_std(spikes).shape == spikes.shape
    True
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "transform"]), None],
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "bootstrap": ["boolean"],
        "max_samples": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="right"),
        ],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator=None,
        n_estimators=10,
        *,
        bootstrap=False,
        max_samples=1.0,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.n_estimators = n_estimators
        self.bootstrap = bootstrap
        self.max_samples = max_samples
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
            If X or groups are not what the members expect, or max_samples exceeds the trials.
        """
        X = check_counts(self, X, reset=True)
        groups = check_groups(X, groups)
        random_state = check_random_state(self.random_state)
        base = clone(STNDTEstimator() if self.estimator is None else self.estimator)
        seeds = random_state.randint(np.iinfo(np.int32).max, size=self.n_estimators)
        self.heldout_neurons_ = _fix_heldout_neurons(base, X.shape[-1], random_state)
        trials = row_trials(X, groups)
        if X.ndim == 2 and groups is None:
            _fix_window(base)
        n_trials = len(X) if trials is None else trials[-1] + 1
        takes_groups = has_fit_parameter(base, "groups")
        self.estimators_samples_ = [self._draw_trials(n_trials, seed) for seed in seeds]
        tasks = (
            delayed(_fit_member)(base, seed, *take(X, groups, trials, drawn, takes_groups))
            for seed, drawn in zip(seeds, self.estimators_samples_, strict=True)
        )
        alone = effective_n_jobs(self.n_jobs) == 1
        self.estimators_ = []
        for member in Parallel(
            n_jobs=self.n_jobs, verbose=self.verbose, return_as="generator" if alone else "list"
        )(tasks):
            self.estimators_.append(member)
            if _was_interrupted(member):
                warnings.warn(
                    f"Training was interrupted at member {len(self)} of {self.n_estimators}. The "
                    "ensemble can be used: it keeps the members so far.",
                    ConvergenceWarning,
                    stacklevel=3,
                )
                break
        return self

    def rate_std(self, X: ArrayLike, *, groups: ArrayLike | None = None) -> NDArray:
        """Disagreement between members: the standard deviation of their rates.

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
        mean, squares = 0.0, 0.0
        for n, rates in enumerate(self._member_rates(X, groups), start=1):
            # Welford's update: no difference of large squares
            change = rates - mean
            mean = mean + change / n
            squares = squares + change * (rates - mean)
        return np.sqrt(squares / len(self.estimators_))

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
        """Score of the mean of the first 1, 2, ... members.

        Parameters
        ----------
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Spikes per bin, NaN where unknown.
        groups : array-like of shape (n_bins,), default=None
            Trial of each row of a 2D X.

        Returns
        -------
        scores : ndarray of shape (n_estimators,)
            Bits per spike.
        """
        check_is_fitted(self)
        X = check_counts(self, X, reset=False)
        keywords = _groups_keyword(check_groups(X, groups))
        total, scores = 0.0, []
        for n, member in enumerate(self.estimators_, start=1):

            def infer(counts, member=member):
                return _rates_of(member, counts, keywords)

            spikes, rates = infer_hidden(infer, X, self.heldout_neurons_)
            total = total + rates
            scores.append(bits_per_spike(spikes, total / n))
        return np.array(scores)

    def __len__(self) -> int:
        return len(getattr(self, "estimators_", []))

    def __iter__(self) -> Iterator:
        return iter(self.estimators_)

    def _member_rates(self, X: NDArray, groups: ArrayLike | None) -> Iterator[NDArray]:
        keywords = _groups_keyword(check_groups(X, groups))
        return (_rates_of(member, X, keywords) for member in self.estimators_)

    def _infer(self, X: NDArray, groups: ArrayLike | None) -> NDArray:
        rates = self._member_rates(X, groups)
        total = next(rates)
        for another in rates:
            total = total + another
        return total / len(self.estimators_)

    def _draw_trials(self, n_trials: int, seed: int) -> NDArray:
        if isinstance(self.max_samples, Integral):
            number = int(self.max_samples)
        else:
            number = max(round(self.max_samples * n_trials), 1)
        if number > n_trials:
            raise ValueError(
                f"max_samples={self.max_samples} is more than the {n_trials} trials or blocks of "
                "X. Lower it, or pass a share between 0 and 1."
            )
        if not self.bootstrap and number == n_trials:
            return np.arange(n_trials)
        drawn = np.random.RandomState(seed).choice(n_trials, number, replace=self.bootstrap)
        return np.sort(drawn)


def _groups_keyword(groups: NDArray | None) -> dict[str, NDArray]:
    """Nothing, where there are none: a base estimator need not know of groups."""
    return {} if groups is None else {"groups": groups}


def _rates_of(member: Any, X: NDArray, keywords: dict[str, NDArray]) -> NDArray:
    """Rates of a member as an array, also where tables are the output of transformers."""
    with config_context(transform_output="default"):
        return np.asarray(member.transform(X, **keywords))


def _nested_names(estimator: Any, name: str) -> list[str]:
    """Parameters of this name, of the estimator or of what it contains."""
    return sorted(p for p in estimator.get_params() if p == name or p.endswith(f"__{name}"))


def _fix_heldout_neurons(base: Any, n_neurons: int, random_state: np.random.RandomState) -> NDArray:
    """Draw held-out neurons once, so that all members hold out the same."""
    heldout = np.array([], dtype=np.intp)
    for name in _nested_names(base, "heldout_neurons"):
        wanted = base.get_params()[name]
        if wanted is not None:
            heldout = check_heldout_neurons(wanted, n_neurons, random_state)
            base.set_params(**{name: heldout})
    return heldout


def _fix_window(base: Any) -> None:
    """Keep the window of a continuous recording also where its blocks travel as groups."""
    for part in [base, *base.get_params().values()]:
        if isinstance(part, STNDTEstimator) and part.window is None:
            part.set_params(window=DEFAULT_WINDOW)


def _was_interrupted(member: Any) -> bool:
    """Whether training of the member, or of a step in it, was ended by Ctrl-C."""
    steps = [step for _, step in getattr(member, "steps", [])]
    return any(
        getattr(getattr(part, "net_", None), "interrupted_", False) for part in [member, *steps]
    )


def _fit_member(base: Any, seed: int, X: NDArray, groups: NDArray | None) -> Any:
    """Train one member; its seed alone makes it different."""
    member = clone(base)
    draw = np.random.RandomState(seed)
    for name in _nested_names(member, "random_state"):
        member.set_params(**{name: int(draw.randint(np.iinfo(np.int32).max))})
    return member.fit(X, **_groups_keyword(groups))
