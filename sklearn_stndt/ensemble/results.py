"""Results of a run: scores of members, out-of-bag rates, and a table of all members."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from sklearn_stndt._fingerprints import describe
from sklearn_stndt._rates import likelihoods_in
from sklearn_stndt._scoring import POISSON, Scoring, mean_scoring, scoring_of
from sklearn_stndt.ensemble.checkpoints import MemberFile
from sklearn_stndt.ensemble.members import Outcome, Work, evaluate, load_member, scored_neurons
from sklearn_stndt.ensemble.selection import HeldOutScore
from sklearn_stndt.network.likelihood import known_likelihoods


def array_of(outcome: Outcome, name: str, work: Work) -> NDArray:
    """Return rates of the evaluated trials of a member: from memory, from disk, or inferred now."""
    if name in outcome.arrays:
        return outcome.arrays[name]
    if isinstance(outcome.member, MemberFile):
        found = outcome.member.load_array(name, describe(outcome.plan.evaluated))
        if found is not None:
            return found
    again = Outcome(outcome.plan, member=load_member(outcome))
    evaluate(again, work.recording.opened(), work)
    outcome.arrays = again.arrays
    return outcome.arrays[name]


def scoring_of_mean(outcomes: list[Outcome], weights: Iterable[float]) -> Scoring:
    """How the mean of members is scored; those on disk are only read if it is not as counts."""
    likelihoods = [one for outcome in outcomes for one in likelihoods_in(outcome.plan.estimator)]
    if all(one.counts for one in known_likelihoods(likelihoods)):
        return POISSON
    return mean_scoring([scoring_of(load_member(outcome)) for outcome in outcomes], weights)


def judge(members: list[Outcome], work: Work) -> HeldOutScore:
    """Score means of members on the trials set aside, or else out of bag."""
    recording = work.recording.opened()
    rows, kept = [], []
    for outcome in members:
        of_member = recording.rows(outcome.plan.evaluated)
        if len(work.set_aside):
            kept.append(np.isin(of_member, recording.rows(work.set_aside)))
        else:
            kept.append(np.ones(len(of_member), dtype=bool))
        rows.append(of_member[kept[-1]])

    def load(member: int) -> NDArray:
        return array_of(members[member], "hidden", work)[kept[member]]

    score = scoring_of_mean(members, np.ones(len(members))).score
    neurons = scored_neurons(work)
    return HeldOutScore(
        _scored(recording.X, work), rows, load, lambda X, means: score(X, means, neurons)
    )


def out_of_bag(members: list[Outcome], picks: NDArray, work: Work) -> tuple[NDArray, float]:
    """Mean rates of each trial over the members that were not trained on it, and their score."""
    recording = work.recording.opened()
    spikes = _scored(recording.X, work)
    hidden, rates = np.zeros(spikes.shape), np.zeros(recording.X.shape)
    number = np.zeros(len(recording.X))
    for outcome, n_picks in zip(members, picks, strict=True):
        rows = recording.rows(outcome.plan.evaluated)
        if len(rows):
            hidden[rows] += n_picks * array_of(outcome, "hidden", work)
            rates[rows] += n_picks * array_of(outcome, "rates", work)
            number[rows] += n_picks
    covered = number > 0
    number = np.where(covered, number, np.nan).reshape(-1, *[1] * (rates.ndim - 1))
    rates /= number
    hidden = (hidden / number)[covered]
    score = np.nan
    if covered.any():
        scoring = scoring_of_mean(members, picks)
        score = scoring.score(spikes[covered], hidden, scored_neurons(work))
    return rates.astype(np.float32 if recording.X.dtype == np.float32 else np.float64), score


def table(
    outcomes: list[Outcome], scores: NDArray | None, weights: NDArray, error_score: Any
) -> dict[str, Any]:
    """Results of all members that were tried, as columns of a data frame.

    Parameters
    ----------
    outcomes : list of Outcome
        All members in order, including those that failed.
    scores : ndarray of shape (n_members,) or None
        Held-out scores of those that did not fail.
    weights : ndarray of shape (n_members,)
        Weight of each of them in the mean.
    error_score : float or "raise"
        Score of a member that failed.
    """
    fitted = np.array([not outcome.failed for outcome in outcomes])
    columns: dict[str, Any] = {
        "member": np.where(fitted, np.cumsum(fitted) - 1, -1),
        "seed": np.array([outcome.plan.seed for outcome in outcomes]),
    }
    for name in sorted({name for outcome in outcomes for name in outcome.plan.params}):
        columns[f"param_{name}"] = _masked([o.plan.params for o in outcomes], name)
    columns["params"] = [outcome.plan.params for outcome in outcomes]
    if scores is not None:
        of_failed = np.nan if error_score == "raise" else float(error_score)
        columns["test_score"] = np.full(len(outcomes), of_failed)
        columns["test_score"][fitted] = scores
        ranked = np.where(np.isnan(columns["test_score"]), -np.inf, columns["test_score"])
        columns["rank_test_score"] = rankdata(-ranked, method="min").astype(np.int32)
    columns["weight"] = np.zeros(len(outcomes))
    columns["weight"][fitted] = weights
    for name in ("fit_time", "score_time"):
        columns[name] = np.array([getattr(outcome, name) for outcome in outcomes])
    columns["error"] = np.array([outcome.error for outcome in outcomes], dtype=object)
    return columns


def _masked(params: list[dict[str, Any]], name: str) -> np.ma.MaskedArray:
    """Values of a parameter, masked if a member has none: numbers if possible, else objects."""
    values = np.empty(len(params), dtype=object)
    missing = np.array([name not in of_member for of_member in params])
    for row, of_member in enumerate(params):
        values[row] = of_member.get(name)  # one by one: a tuple is a value, not a row
    known = values[~missing].tolist()
    if all(type(value) is int for value in known) or all(type(value) is float for value in known):
        numbers = np.zeros(len(params), dtype=type(known[0]))
        numbers[~missing] = known
        return np.ma.MaskedArray(numbers, mask=missing)
    return np.ma.MaskedArray(values, mask=missing)


def _scored(X: NDArray, work: Work) -> NDArray:
    heldout = work.heldout_neurons
    return X[..., heldout] if len(heldout) else X
