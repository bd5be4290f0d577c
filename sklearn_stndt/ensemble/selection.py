"""Select members to average: a given number, the best number, or a greedy selection."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_stndt._scoring import POISSON

MOST_STEPS, PATIENCE = 50, 10  # of the greedy selection


class HeldOutScore:
    """Score means of members' rates on trials that the members were not trained on.

    Out of bag, these trials differ between members. The score of a selection is then the score of
    the mean of all members, plus the gain of the selection over that mean on its own trials. If
    all members have the same trials, this is the score on these trials.

    Parameters
    ----------
    spikes : ndarray of shape (n_rows, ..., n_neurons)
        Counts, NaN where unknown.
    rows : list of ndarray of int
        Rows for which each member has rates.
    load : callable
        Loads the rates of the rows of a member, inferred while the counts were hidden.
    score : callable, default=bits per spike
        Scores expected values: ``score(spikes, rates)``.
    """

    def __init__(
        self,
        spikes: NDArray,
        rows: Sequence[NDArray],
        load: Callable[[int], NDArray],
        score: Callable[[NDArray, NDArray], float] = POISSON.score,
    ):
        kept = np.unique(np.concatenate(rows))
        self.spikes = spikes[kept]
        self._rows = [np.searchsorted(kept, r) for r in rows]
        self._load = load
        self._score = score
        self._everyone = self._divide(*self.sum(range(len(rows))))[0]
        self._score_of_everyone = score(self.spikes, self._everyone)

    def __len__(self) -> int:
        return len(self._rows)

    def nothing(self) -> tuple[NDArray, NDArray]:
        """Return an empty sum of rates, and the number of members in each row of it."""
        return np.zeros(self.spikes.shape), np.zeros(len(self.spikes))

    def add(self, sums: tuple[NDArray, NDArray], member: int) -> tuple[NDArray, NDArray]:
        """Return sum and number with one more member, as copies."""
        total, number = sums[0].copy(), sums[1].copy()
        if not len(self._rows[member]):
            return total, number
        total[self._rows[member]] += self._load(member)
        number[self._rows[member]] += 1
        return total, number

    def sum(self, members: Iterable[int]) -> tuple[NDArray, NDArray]:
        """Return the sum of the rates of members, and the number of members in each row."""
        sums = self.nothing()
        for member in members:
            sums = self.add(sums, member)
        return sums

    def _divide(self, total: NDArray, number: NDArray) -> tuple[NDArray, NDArray]:
        covered = np.flatnonzero(number)
        number = number[covered].reshape(-1, *[1] * (total.ndim - 1))
        return total[covered] / number, covered

    def __call__(self, sums: tuple[NDArray, NDArray]) -> float:
        """Score the mean of the members in a sum."""
        mean, covered = self._divide(*sums)
        if len(covered) == len(self.spikes):
            return self._score(self.spikes, mean)
        spikes = self.spikes[covered]
        if not np.nansum(spikes):
            return np.nan
        gain = self._score(spikes, mean) - self._score(spikes, self._everyone[covered])
        return self._score_of_everyone + gain

    def of_each(self) -> NDArray:
        """Score each member alone."""
        return np.array([self(self.add(self.nothing(), i)) for i in range(len(self))])

    def of_best(self, order: NDArray) -> NDArray:
        """Score the mean of the first 1, 2, ... members of an order."""
        sums, scores = self.nothing(), []
        for member in order:
            sums = self.add(sums, member)
            scores.append(self(sums))
        return np.array(scores)

    def choose_greedily(self, start: NDArray) -> NDArray:
        """Add members to a selection, each time the one that improves the mean most [1]_.

        A member may be added more than once. The step with the best score is returned. Selection
        ends after 10 steps without improvement (a strong member may have to be added again before
        a weak one helps), or after 50 steps, when one more member hardly changes the mean.

        Parameters
        ----------
        start : ndarray of int
            Initial selection. Starting with the best members avoids getting stuck at a single
            member that no other one improves.

        Returns
        -------
        picks : ndarray of int, shape (n_members,)
            How often each member was selected.

        References
        ----------
        .. [1] R. Caruana et al., "Ensemble selection from libraries of models", ICML 2004.
        """
        picks = np.zeros(len(self), dtype=int)
        picks[start] = 1
        sums = self.sum(start)
        best, best_picks, n_no_change = self(sums), picks.copy(), 0
        for _ in range(MOST_STEPS):
            scores = np.array([self(self.add(sums, member)) for member in range(len(self))])
            member = int(best_first(scores)[0])
            sums = self.add(sums, member)
            picks[member] += 1
            n_no_change += 1
            if scores[member] > best:
                best, best_picks, n_no_change = scores[member], picks.copy(), 0
            if n_no_change == PATIENCE:
                break
        return best_picks


def best_first(scores: NDArray) -> NDArray:
    """Sort members from the best score to the worst; NaN comes last, ties keep their order."""
    return np.argsort(np.where(np.isnan(scores), np.inf, -scores), kind="stable")


def select(score: HeldOutScore, n_best: Any) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Select members.

    Parameters
    ----------
    score : HeldOutScore
        Scores means of members.
    n_best : int, "auto", "greedy" or None
        How many; None: all of them, in their original order.

    Returns
    -------
    scores : ndarray of shape (n_members,)
        Score of each member alone.
    curve : ndarray of shape (n_members,)
        Score of the mean of the best 1, 2, ... members.
    selected : ndarray of int
        Members, the best first.
    picks : ndarray of int
        How often each of them counts in the mean.
    """
    scores = score.of_each()
    order = best_first(scores)
    curve = score.of_best(order)
    if n_best is None:
        return scores, curve, np.arange(len(scores)), np.ones(len(scores), dtype=int)
    if n_best in ("auto", "greedy"):
        number = 1 + (0 if np.isnan(curve).all() else int(np.nanargmax(curve)))
    else:
        number = min(n_best, len(order))
    picks = np.zeros(len(scores), dtype=int)
    picks[order[:number]] = 1
    if n_best == "greedy":
        picks = score.choose_greedily(order[:number])
        order = order[np.argsort(-picks[order], kind="stable")]
    selected = order[picks[order] > 0]
    return scores, curve, selected, picks[selected]
