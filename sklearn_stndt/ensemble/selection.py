"""Which members to average: the best, as many as is best, or a greedy choice."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_stndt.metrics import bits_per_spike

MOST_STEPS, PATIENCE = 50, 10  # of the greedy choice


class HeldOutScore:
    """Score means of members' rates on trials that the members were not trained on.

    Members may have been left different trials, out of bag. They are compared on the trials that
    they have: the score of a choice is that of the mean of all members, plus what the choice gains
    over that mean on its own trials. Where all have the same trials, that is its score on them.

    Parameters
    ----------
    spikes : ndarray of shape (n_rows, ..., n_neurons)
        Counts, NaN where unknown.
    rows : list of ndarray of int
        Rows that each member has rates of.
    load : callable
        Rates of the rows of a member, inferred while the counts were hidden.
    """

    def __init__(self, spikes: NDArray, rows: Sequence[NDArray], load: Callable[[int], NDArray]):
        kept = np.unique(np.concatenate(rows))
        self.spikes = spikes[kept]
        self._rows = [np.searchsorted(kept, r) for r in rows]
        self._load = load
        self._everyone = self._divide(*self.sum(range(len(rows))))[0]
        self._score_of_everyone = bits_per_spike(self.spikes, self._everyone)

    def __len__(self) -> int:
        return len(self._rows)

    def nothing(self) -> tuple[NDArray, NDArray]:
        """Sum of the rates of no member, and the number of members in it, row by row."""
        return np.zeros(self.spikes.shape), np.zeros(len(self.spikes))

    def add(self, sums: tuple[NDArray, NDArray], member: int) -> tuple[NDArray, NDArray]:
        """Sum and number with one more member; the given ones stay as they are."""
        total, number = sums[0].copy(), sums[1].copy()
        if not len(self._rows[member]):
            return total, number
        total[self._rows[member]] += self._load(member)
        number[self._rows[member]] += 1
        return total, number

    def sum(self, members: Iterable[int]) -> tuple[NDArray, NDArray]:
        """Sum and number of members."""
        sums = self.nothing()
        for member in members:
            sums = self.add(sums, member)
        return sums

    def _divide(self, total: NDArray, number: NDArray) -> tuple[NDArray, NDArray]:
        covered = np.flatnonzero(number)
        number = number[covered].reshape(-1, *[1] * (total.ndim - 1))
        return total[covered] / number, covered

    def __call__(self, sums: tuple[NDArray, NDArray]) -> float:
        """Bits per spike of the mean of the members in a sum."""
        mean, covered = self._divide(*sums)
        if len(covered) == len(self.spikes):
            return bits_per_spike(self.spikes, mean)
        spikes = self.spikes[covered]
        if not np.nansum(spikes):
            return np.nan
        gain = bits_per_spike(spikes, mean) - bits_per_spike(spikes, self._everyone[covered])
        return self._score_of_everyone + gain

    def of_each(self) -> NDArray:
        """Score of each member alone."""
        return np.array([self(self.add(self.nothing(), i)) for i in range(len(self))])

    def of_best(self, order: NDArray) -> NDArray:
        """Score of the mean of the first 1, 2, ... members of an order."""
        sums, scores = self.nothing(), []
        for member in order:
            sums = self.add(sums, member)
            scores.append(self(sums))
        return np.array(scores)

    def choose_greedily(self, start: NDArray) -> NDArray:
        """Go on from a choice: take, again and again, the member that helps the mean most [1]_.

        A member may be taken more than once. Of all steps, the one with the best score counts; it
        ends when 10 in a row were no better (a strong member has to be taken again before a weak
        one can join it), or after 50, from which on one more can hardly change the mean.

        Parameters
        ----------
        start : ndarray of int
            Members to begin with. The best ones spare the choice a start from a single member
            that no other can improve.

        Returns
        -------
        picks : ndarray of int, shape (n_members,)
            How often each member was taken.

        References
        ----------
        .. [1] R. Caruana et al., "Ensemble selection from libraries of models", ICML 2004.
        """
        picks = np.zeros(len(self), dtype=int)
        picks[start] = 1
        sums = self.sum(start)
        best, best_picks, n_in_vain = self(sums), picks.copy(), 0
        for _ in range(MOST_STEPS):
            scores = np.array([self(self.add(sums, member)) for member in range(len(self))])
            member = int(best_first(scores)[0])
            sums = self.add(sums, member)
            picks[member] += 1
            n_in_vain += 1
            if scores[member] > best:
                best, best_picks, n_in_vain = scores[member], picks.copy(), 0
            if n_in_vain == PATIENCE:
                break
        return best_picks


def best_first(scores: NDArray) -> NDArray:
    """Order of members from the best score to the worst; NaN comes last, ties stay in order."""
    return np.argsort(np.where(np.isnan(scores), np.inf, -scores), kind="stable")


def select(score: HeldOutScore, n_best: Any) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Choose members.

    Parameters
    ----------
    score : HeldOutScore
        The judge.
    n_best : int, "auto", "greedy" or None
        How many; None: all of them, in the order in which they are.

    Returns
    -------
    scores : ndarray of shape (n_members,)
        Score of each member alone.
    curve : ndarray of shape (n_members,)
        Score of the mean of the best 1, 2, ... members.
    selected : ndarray of int
        Members, the best first.
    picks : ndarray of int
        How often each of them enters the mean.
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
