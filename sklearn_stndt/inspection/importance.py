"""Importance of neurons for the rates of the other neurons."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from sklearn_stndt._scoring import infer_hidden, scoring_of
from sklearn_stndt._validation import check_groups
from sklearn_stndt.inspection._gradient import gradient_importance
from sklearn_stndt.inspection._networks import (
    heldin_neurons,
    look_inside,
    networks,
)
from sklearn_stndt.inspection.attention import iterate_maps
from sklearn_stndt.windows.segments import as_segments


@dataclass(frozen=True)
class Question:
    """What a measure of importance is given.

    Attributes
    ----------
    source : STNDTEstimator or BaggingEnsemble
        Fitted.
    counts : ndarray of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
        Checked counts, NaN where hidden.
    groups : ndarray or None
        Trial of each row of 2D counts.
    neurons : ndarray of int
        Neurons that the networks are shown.
    n_repeats : int
        Repetitions of what is drawn at random.
    draw : RandomState
        Draws it.
    """

    source: Any
    counts: NDArray
    groups: NDArray | None
    neurons: NDArray
    n_repeats: int
    draw: np.random.RandomState


def neuron_importance(
    estimator: Any,
    X: ArrayLike,
    method: str = "attention",
    *,
    groups: ArrayLike | None = None,
    n_repeats: int = 5,
    random_state: Any = None,
) -> NDArray:
    r"""How much the rates of other neurons depend on each neuron.

    Parameters
    ----------
    estimator : STNDTEstimator, BaggingEnsemble or Pipeline
        Fitted; in a pipeline, the step that infers rates is used. In an ensemble, attention and
        gradient are averaged over members; hiding and permutation use the mean rates.
    X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
        Spikes per bin, NaN where hidden; preferably of trials that were not used in fit.
    method : {"attention", "permutation", "hiding", "gradient"}, default="attention"
        Measure of importance.

        - "attention": attention that a neuron receives from all neurons in the first spatial map,
          as published [1]_. Takes one pass, but high attention does not imply an effect on rates.
        - "hiding": bits per spike that the other neurons lose when the neuron's spikes are hidden.
          Takes one pass per neuron if there are held-out neurons, else five.
        - "permutation": as "hiding", but the neuron's spikes are permuted across trials (in a 2D
          X, shifted in time), which preserves what all trials have in common. Takes `n_repeats`
          times as long.
        - "gradient": sensitivity of the log-rates of the other neurons to the neuron's counts.
          Takes one forward pass and ``2 * n_repeats`` backward passes.
    groups : array-like of shape (n_bins,), default=None
        Trial of each row of a 2D X.
    n_repeats : int, default=5
        Number of permutations of each neuron, or of pairs of random projections of the gradient.
    random_state : int, RandomState instance or None, default=None
        Seed of permutations and projections.

    Returns
    -------
    importance : ndarray of shape (n_neurons,)
        Higher is more important. NaN for neurons that are hidden from the estimator: held out, or
        NaN in all of X. Attention sums to 1 over the other neurons. Hiding and permutation are in
        bits per spike, negative if rates improve without the neuron. Gradients are in square roots
        of nats.

    Raises
    ------
    TypeError
        If there is no network in `estimator`.
    ValueError
        If `method` is unknown, if X or groups are invalid, if fewer than two neurons are visible,
        or if `method` is "attention" and there is no spatial attention.

    See Also
    --------
    neuron_dropping_curve : Test of a ranking.

    Notes
    -----
    *Attention.* With the spatial map :math:`A` of a window, neuron i receives
    :math:`\frac{1}{n} \sum_j A_{ji}`, averaged over windows. If spatial attention is applied once,
    after the last layer, this is its map.

    *Hiding and permutation* score the held-out neurons if there are any. Otherwise each entry of
    all other neurons is scored while it is hidden, by five complementary masks, as in the
    estimator's `score`. The entries of the neuron itself are never scored.

    *Gradient.* With :math:`x_{is}` the scaled count of neuron i in bin s, and :math:`\sigma_i` its
    standard deviation, the importance is

    .. math:: \sigma_i \Bigl( \bigl\langle \sum_{j \in J} \sum_t r_{jt} \Bigl(
        \frac{\partial \log r_{jt}}{\partial x_{is}} \Bigr)^2 \bigr\rangle_s \Bigr)^{1/2},

    where J is a random half of the neurons, without i. Its square is approximately the information,
    in nats, by which the rates of all other neurons change when one count of neuron i changes by
    one standard deviation. The sum is estimated by random projections.

    References
    ----------
    .. [1] T. Le, E. Shlizerman, "STNDT: Modeling neural population activity with a spatiotemporal
       transformer", NeurIPS 2022, arXiv:2206.04727.

    Examples
    --------
    >>> from sklearn_stndt import STNDTEstimator
    >>> from sklearn_stndt.datasets import make_reaches
    >>> from sklearn_stndt.inspection import neuron_importance
    >>> spikes = make_reaches(n_trials=20, n_bins=20, n_neurons=8, random_state=0).spikes
    >>> network = STNDTEstimator(heldout_neurons=[7], max_epochs=2, random_state=0).fit(spikes)
    >>> importance = neuron_importance(network, spikes)
    >>> importance.shape, importance[:7].sum().round(3).item(), importance[7].item()
    ((8,), 1.0, nan)
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    if not (isinstance(n_repeats, Integral) and n_repeats >= 1):
        raise ValueError(f"n_repeats must be a whole number, at least 1, got {n_repeats!r}.")
    source, counts = look_inside(estimator, X)
    groups = check_groups(counts, groups, X)
    neurons = heldin_neurons(source, counts)
    if len(neurons) < 2:
        raise ValueError(
            f"Importance compares neurons, but the number of visible neurons is {len(neurons)}. "
            "Pass counts of at least 2 neurons that are not held out."
        )
    draw = check_random_state(random_state)
    values = METHODS[method](Question(source, counts, groups, neurons, n_repeats, draw))
    importance = np.full(counts.shape[-1], np.nan)
    importance[neurons] = values[neurons]
    return importance


def _received_attention(question: Question) -> NDArray:
    """Mean of the first spatial map over queries, windows and members."""
    segments = as_segments(question.counts, question.groups)
    of_members = []
    for network in networks(question.source):
        total: Any = 0.0
        for _, _, spatial in iterate_maps(network, segments):
            if spatial:
                total = total + spatial[0].sum((0, 1), dtype=np.float64)
        if not np.isscalar(total):
            of_members.append(total / total.sum())
    if not of_members:
        raise ValueError(
            "method='attention' needs spatial attention, and attention='temporal' has none. Use "
            "method='hiding', 'permutation' or 'gradient', or an estimator with "
            "attention='spatiotemporal'."
        )
    return np.mean(of_members, axis=0)


def _gradient(question: Question) -> NDArray:
    """Mean over members of the sensitivity to each neuron's input."""
    segments = as_segments(question.counts, question.groups)
    seed = int(question.draw.randint(np.iinfo(np.int32).max))
    return np.mean(
        [
            gradient_importance(network, segments, question.n_repeats, seed)
            for network in networks(question.source)
        ],
        axis=0,
    )


def _hiding(question: Question) -> NDArray:
    return _loss_without(question, _hide, 1)


def _permutation(question: Question) -> NDArray:
    return _loss_without(question, _permute, question.n_repeats)


def _hide(counts: NDArray, draw: np.random.RandomState) -> NDArray:
    return np.full_like(counts, np.nan)


def _permute(counts: NDArray, draw: np.random.RandomState) -> NDArray:
    """Permute the counts of one neuron across trials, or shift them in time."""
    if counts.ndim == 2:
        changed = counts[draw.permutation(len(counts))]
    else:
        low = min(len(counts) // 4, len(counts) - 1)
        changed = np.roll(counts, draw.randint(low, max(len(counts) - low, low + 1)))
    # hidden entries stay hidden, so that padding stays padding
    changed[np.isnan(counts)] = np.nan
    return changed


def _loss_without(
    question: Question,
    change: Callable[[NDArray, np.random.RandomState], NDArray],
    n_repeats: int,
) -> NDArray:
    """Bits per spike that the other neurons lose when a neuron's counts are changed."""
    source, counts, groups = question.source, question.counts, question.groups
    scored = source.heldout_neurons_
    if not len(scored):
        scored = np.arange(counts.shape[-1])

    def rates_while_hidden(visible: NDArray) -> NDArray:
        rates = np.full(counts.shape, np.nan, dtype=np.float32)
        _, rates[..., scored] = infer_hidden(
            lambda shown: source._infer(shown, groups), visible, source.heldout_neurons_
        )
        return rates

    score = scoring_of(source).score
    intact = rates_while_hidden(counts)
    loss = np.full(counts.shape[-1], np.nan)
    for neuron in question.neurons:
        others = scored[scored != neuron]
        spikes = counts[..., others]
        with_it = score(spikes, intact[..., others], others)
        without_it = []
        for _ in range(n_repeats):
            changed = counts.copy()
            changed[..., neuron] = change(counts[..., neuron], question.draw)
            rates = rates_while_hidden(changed)
            without_it.append(score(spikes, rates[..., others], others))
        loss[neuron] = with_it - np.mean(without_it)
    return loss


# a further measure is a function above and a line here
METHODS: dict[str, Callable[[Question], NDArray]] = {
    "attention": _received_attention,
    "gradient": _gradient,
    "hiding": _hiding,
    "permutation": _permutation,
}
