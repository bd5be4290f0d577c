"""Loss of score when the spikes of important neurons are hidden."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import get_scorer
from sklearn.utils import Bunch, check_random_state

from sklearn_stndt._containers import like
from sklearn_stndt._rates import groups_keyword
from sklearn_stndt._scoring import NEVER_HIDDEN, entry_folds, hide, infer_folds, scoring_of
from sklearn_stndt._validation import check_groups
from sklearn_stndt.inspection._networks import heldin_neurons, look_inside
from sklearn_stndt.inspection.importance import neuron_importance
from sklearn_stndt.metrics._checks import check_neurons


def neuron_dropping_curve(
    estimator: Any,
    X: ArrayLike,
    y: Any = None,
    *,
    ranking: Any = "attention",
    scorers: Any = None,
    n_dropped: ArrayLike | None = None,
    n_steps: int = 6,
    n_random: int = 10,
    scored_neurons: Any = None,
    groups: ArrayLike | None = None,
    random_state: Any = None,
) -> Bunch:
    """Score while the k most important neurons, or k random neurons, are hidden.

    If a ranking is right, hiding the most important neurons degrades rates more than hiding as many
    random neurons. Their spikes are set to NaN for increasing k; the network is not refitted [1]_.

    Parameters
    ----------
    estimator : STNDTEstimator, BaggingEnsemble or Pipeline
        Fitted.
    X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
        Spikes per bin, NaN where unknown; preferably of trials that were not used in fit.
    y : array-like, default=None
        Target of the scorers, such as behaviour.
    ranking : str, array-like of shape (n_neurons,), or earlier curve, default="attention"
        A method of :func:`neuron_importance`; or importances, higher for more important neurons,
        NaN for those never to be hidden; or a curve of another estimator on the same neurons, whose
        ranking, random orders and scored neurons are reused.
    scorers : str, callable, list or dict of them, default=None
        "bits_per_spike": of `scored_neurons`; bits per entry if these are no counts. "score": the
        estimator's own ``score(X, y)``, for a pipeline that ends in a decoder. The name of a scorer
        of scikit-learn, or a callable
        ``scorer(estimator, X, y)``, such as those of :mod:`sklearn_stndt.metrics`. The keys of a
        dict are used as names. Scorers receive the X in which spikes are hidden, so they must not
        score these spikes. None: "bits_per_spike", and "score" if y is given and the estimator has
        `predict`.
    n_dropped : array-like of int, default=None
        Numbers of neurons to hide, k. None: `n_steps` even steps up to half of those that may be.
    n_steps : int, default=6
        Number of steps if `n_dropped` is None.
    n_random : int, default=10
        Number of random orders of neurons to compare with, at least 2.
    scored_neurons : int, float or array-like, default=None
        Neurons scored by "bits_per_spike": a number, a fraction, indices or a mask. They are
        neither ranked nor hidden, so that all points of the curve score the same entries. None: the
        held-out neurons or, if there are none, a quarter of the neurons, drawn at random.
    groups : array-like of shape (n_bins,), default=None
        Trial of each row of a 2D X; passed to `scorers` too.
    random_state : int, RandomState instance or None, default=None
        Seed of the ranking, the random orders and the scored neurons.

    Returns
    -------
    curve : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the attributes:

        n_dropped : ndarray of int, shape (n_points,)
            Numbers of hidden neurons, from 0.
        scores : dict of ndarray of shape (n_points,)
            Scores of each scorer, by name, without the most important neurons.
        random_scores : dict of ndarray of shape (n_random, n_points)
            Scores without random neurons.
        random_mean, random_2se : dict of ndarray of shape (n_points,)
            Mean over random orders, and two standard errors of the mean.
        table : dict of list
            Long form, one row per scorer and point: ``pandas.DataFrame(curve.table)``.
        importances : ndarray of shape (n_neurons,)
            Importance of each neuron; NaN if it is never hidden.
        order : ndarray of int, shape (n_candidates,)
            Candidates, the neurons that may be hidden, the most important first.
        random_orders : ndarray of int, shape (n_random, n_candidates)
            Random orders of the candidates.
        scored_neurons : ndarray of int
            Neurons scored by "bits_per_spike".
        unit : str
            Unit of the scorer "bits_per_spike".

    Raises
    ------
    TypeError
        If `estimator` does not infer rates.
    ValueError
        If arguments do not fit each other, or too few neurons are left to hide.

    See Also
    --------
    neuron_importance : Rankings of neurons.
    sklearn_stndt.plotting.NeuronDroppingDisplay : Plot of the curve.

    Notes
    -----
    Held-out neurons are always hidden. Each entry of other scored neurons is scored while it is
    hidden, by five complementary masks, with the rest of their spikes visible, as in the
    estimator's `score`; this takes five times as long. With ``n_points`` points, the rates of X are
    inferred ``1 + (n_points - 1) * (1 + n_random)`` times for each scorer, or five times as often.

    The random orders are of the same candidates as the ranking, including the important ones, so
    the curves meet where all candidates are hidden.

    References
    ----------
    .. [1] T. Le, E. Shlizerman, "STNDT: Modeling neural population activity with a spatiotemporal
       transformer", NeurIPS 2022, arXiv:2206.04727.

    Examples
    --------
    >>> from sklearn_stndt import STNDTEstimator
    >>> from sklearn_stndt.datasets import make_reaches
    >>> from sklearn_stndt.inspection import neuron_dropping_curve
    >>> spikes = make_reaches(n_trials=20, n_bins=20, n_neurons=8, random_state=0).spikes
    >>> network = STNDTEstimator(heldout_neurons=2, max_epochs=2, random_state=0).fit(spikes)
    >>> curve = neuron_dropping_curve(network, spikes, n_steps=3, n_random=2, random_state=0)
    >>> curve.n_dropped
    array([0, 1, 2, 3])
    >>> curve.scores["bits_per_spike"].shape, curve.random_scores["bits_per_spike"].shape
    ((4,), (2, 4))
    """
    source, counts = look_inside(estimator, X)
    checked_groups = check_groups(counts, groups, X)
    if not (isinstance(n_random, Integral) and n_random >= 2):
        raise ValueError(
            f"n_random must be a whole number, at least 2 for a standard error, got {n_random!r}."
        )
    draw = check_random_state(random_state)
    heldin = heldin_neurons(source, counts)
    earlier = ranking if isinstance(ranking, dict) else None
    if earlier is not None:
        scored = _check_scored(earlier["scored_neurons"], source, counts, draw)
        importances = earlier["importances"]
    else:
        scored = _check_scored(scored_neurons, source, counts, draw)
        importances = ranking
        if isinstance(ranking, str):
            importances = neuron_importance(
                estimator, X, ranking, groups=checked_groups, random_state=draw
            )
    importances = _check_importances(importances, counts.shape[-1])
    importances[scored] = np.nan
    candidates = np.flatnonzero(~np.isnan(importances))
    hidden_anyway = np.setdiff1d(candidates, heldin)
    if len(hidden_anyway):
        raise ValueError(
            f"The ranking includes neurons {hidden_anyway.tolist()}, which are always hidden: held "
            "out, or NaN in all of X. Set their importance to NaN."
        )
    # ties keep the order of neurons
    order = candidates[np.argsort(-importances[candidates], kind="stable")]
    if earlier is not None:
        random_orders = earlier["random_orders"]
    else:
        random_orders = np.array([draw.permutation(candidates) for _ in range(n_random)])
    # something must stay visible
    largest = len(candidates) - (len(candidates) == len(heldin))
    if n_dropped is None and earlier is not None:
        n_dropped = earlier["n_dropped"]
    steps = _check_steps(n_dropped, n_steps, largest, len(candidates))

    named = _check_scorers(scorers, estimator, y)
    folds = None
    if not np.isin(scored, source.heldout_neurons_).all():
        folds = entry_folds(counts.shape)
        folds[..., np.setdiff1d(np.arange(counts.shape[-1]), scored)] = NEVER_HIDDEN
    keywords = groups_keyword(counts, check_groups(counts, groups))  # X has its clock

    def infer(shown: NDArray) -> NDArray:
        return source._infer(shown, checked_groups)

    scoring = scoring_of(source)

    def score(hidden: NDArray) -> list[float]:
        visible = counts.copy()
        visible[..., hidden] = np.nan
        values = []
        for scorer in named.values():
            if scorer is None:
                rates = (
                    infer(hide(visible, (..., scored)))
                    if folds is None
                    else (infer_folds(infer, visible, folds))
                )
                values.append(scoring.score(counts[..., scored], rates[..., scored], scored))
            else:
                values.append(float(scorer(estimator, like(X, visible), y, **keywords)))
        return values

    intact = score(np.array([], dtype=np.intp))
    important = _curve(score, order, steps, intact)
    random = np.array([_curve(score, one, steps, intact) for one in random_orders])
    return Bunch(
        **_summary(list(named), steps, important, random),
        importances=importances,
        order=order,
        random_orders=random_orders,
        scored_neurons=scored,
        unit=scoring.likelihood.unit,
    )


def _curve(
    score: Callable[[NDArray], list[float]], order: NDArray, steps: NDArray, intact: list[float]
) -> NDArray:
    """Scores while the first k neurons of an order are hidden, (n_points, n_scorers)."""
    return np.array([score(order[:k]) if k else intact for k in steps])


def _summary(
    names: list[str], steps: NDArray, important: NDArray, random: NDArray
) -> dict[str, Any]:
    scores, random_scores, means, errors = {}, {}, {}, {}
    table: dict[str, list] = {
        name: [] for name in ("scorer", "n_dropped", "important", "random_mean", "random_2se")
    }
    for i, name in enumerate(names):
        scores[name] = important[:, i]
        random_scores[name] = random[..., i]
        means[name] = random[..., i].mean(0)
        errors[name] = 2 * random[..., i].std(0, ddof=1) / np.sqrt(len(random))
        table["scorer"] += [name] * len(steps)
        table["n_dropped"] += steps.tolist()
        table["important"] += scores[name].tolist()
        table["random_mean"] += means[name].tolist()
        table["random_2se"] += errors[name].tolist()
    return dict(
        n_dropped=steps,
        scores=scores,
        random_scores=random_scores,
        random_mean=means,
        random_2se=errors,
        table=table,
    )


def _check_scored(wanted: Any, source: Any, counts: NDArray, draw: Any) -> NDArray:
    """Return the neurons whose spikes are scored and never hidden by the curve."""
    heldout = source.heldout_neurons_
    heldin = heldin_neurons(source, counts)
    if wanted is None:
        if len(heldout):
            return heldout
        wanted = 0.25
    if not isinstance(wanted, Real):
        return np.sort(check_neurons(wanted, counts.shape[-1], "scored_neurons"))
    number = int(wanted) if isinstance(wanted, Integral) else round(float(wanted) * len(heldin))
    if not 0 < number < len(heldin):
        raise ValueError(
            f"scored_neurons={wanted!r} would score {number} of the {len(heldin)} neurons that are "
            "visible; score at least one and leave at least one to hide."
        )
    return np.sort(draw.permutation(heldin)[:number])


def _check_importances(importances: Any, n_neurons: int) -> NDArray:
    importances = np.array(importances, dtype=np.float64)
    if importances.shape != (n_neurons,):
        raise ValueError(
            f"ranking must be importances of shape ({n_neurons},), one per neuron of X, NaN for "
            f"those never to be hidden, got shape {importances.shape}. For an order of neurons, "
            "pass importances that are highest for the first one."
        )
    return importances


def _check_steps(n_dropped: Any, n_steps: int, largest: int, n_candidates: int) -> NDArray:
    if largest < 1:
        raise ValueError(
            f"{n_candidates} neurons may be hidden, and at least one must stay visible. Score "
            "fewer neurons (scored_neurons), or rank more of them."
        )
    if n_dropped is None:
        if not (isinstance(n_steps, Integral) and n_steps >= 1):
            raise ValueError(f"n_steps must be a whole number, at least 1, got {n_steps!r}.")
        last = min(-(-n_candidates // 2), largest)
        return np.unique(np.linspace(0, last, n_steps + 1).round().astype(int))
    steps = np.asarray(n_dropped)
    if steps.ndim != 1 or steps.dtype.kind not in "iu" or not len(steps):
        raise ValueError(f"n_dropped must be a list of whole numbers, got {n_dropped!r}.")
    if steps.min() < 0 or steps.max() > largest:
        raise ValueError(
            f"n_dropped must be between 0 and {largest}, because {n_candidates} neurons may be "
            f"hidden, got {steps.min()} to {steps.max()}."
        )
    return np.unique(np.append(0, steps.astype(int)))


def _own_score(estimator: Any, X: Any, y: Any, **keywords: Any) -> float:
    return estimator.score(X, y, **keywords)


def _check_scorers(scorers: Any, estimator: Any, y: Any) -> dict[str, Callable | None]:
    """Return scorers by name; None means bits per spike."""
    if scorers is None:
        scorers = ["bits_per_spike"]
        if y is not None and hasattr(estimator, "predict"):
            scorers.append("score")
    if isinstance(scorers, str) or callable(scorers):
        scorers = [scorers]
    if not isinstance(scorers, dict):
        scorers = {s if isinstance(s, str) else repr(s): s for s in scorers}
    if not scorers:
        raise ValueError("scorers is empty: name at least one, or pass None for bits per spike.")
    found: dict[str, Callable | None] = {}
    for name, scorer in scorers.items():
        if scorer == "bits_per_spike":
            found[name] = None
        elif scorer == "score":
            found[name] = _own_score
        else:
            found[name] = scorer if callable(scorer) else get_scorer(scorer)
    return found
