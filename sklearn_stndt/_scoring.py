"""Hide entries, infer their rates and score them; every score of rates goes through here.

Scored entries are NaN in the counts that `infer` receives, so that no estimator can copy them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_stndt._rates import find_rates
from sklearn_stndt.metrics import bits_per_spike
from sklearn_stndt.metrics.likelihoods import GAINS
from sklearn_stndt.network.likelihood import LIKELIHOODS, Likelihood, Poisson, average
from sklearn_stndt.network.masking import N_FOLDS, speckled_folds

NEVER_HIDDEN = N_FOLDS  # in `folds`: an entry that no fold hides


def entry_folds(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Assign each entry of an array to one of the complementary speckled folds."""
    return speckled_folds(shape).numpy()


def hide(X: NDArray, hidden: NDArray | tuple) -> NDArray:
    """Copy counts to a dtype that has NaN, and set entries to NaN.

    Parameters
    ----------
    X : ndarray
        Counts.
    hidden : index
        Boolean array, or any other index of numpy.
    """
    counts = X.astype(np.result_type(X.dtype, np.float32))
    counts[hidden] = np.nan
    return counts


def infer_folds(
    infer: Callable[[NDArray], NDArray], X: NDArray, folds: NDArray
) -> NDArray[np.float32]:
    """Infer the rates of entries while they are hidden, one fold at a time.

    Parameters
    ----------
    infer : callable
        Infers rates from counts, NaN where hidden.
    X : ndarray
        Counts, NaN where unknown.
    folds : ndarray of uint8, same shape
        From `entry_folds`; entries set to `NEVER_HIDDEN` get no rate.

    Returns
    -------
    ndarray, same shape
        NaN for entries that are never hidden.
    """
    rates = np.full(X.shape, np.nan, dtype=np.float32)
    for fold in range(N_FOLDS):
        hidden = folds == fold
        rates[hidden] = infer(hide(X, hidden))[hidden]
    return rates


def infer_hidden(
    infer: Callable[[NDArray], NDArray], X: NDArray, heldout_neurons: NDArray
) -> tuple[NDArray, NDArray]:
    """Infer the rates of entries while they are hidden; return their counts and rates.

    Parameters
    ----------
    infer : callable
        Infers rates from counts, NaN where hidden.
    X : ndarray of shape (n_bins, n_neurons) or (n_trials, n_bins, n_neurons)
        Counts, NaN where unknown.
    heldout_neurons : ndarray of int
        Neurons to hide. If empty, every entry is hidden once, in speckled folds.

    Returns
    -------
    spikes, rates : ndarray
        Last axis: the held-out neurons, or all neurons.
    """
    if len(heldout_neurons):
        hidden = (..., heldout_neurons)
        return X[hidden], infer(hide(X, hidden))[hidden]
    return X, infer_folds(infer, X, entry_folds(X.shape))


@dataclass(frozen=True)
class Scoring:
    """How expected values are scored, by the likelihood for which they were inferred.

    Parameters
    ----------
    likelihood : Likelihood
        Fitted, on the CPU.
    """

    likelihood: Likelihood

    @property
    def counts(self) -> bool:
        """Whether entries are spike counts."""
        return self.likelihood.counts

    @property
    def params(self) -> dict[str, NDArray]:
        """Constants of the likelihood, each of shape (n_neurons,)."""
        constants = self.likelihood.constants().items()
        return {name: value.detach().double().numpy() for name, value in constants}

    def score(self, values: NDArray, means: NDArray, neurons: Any = ...) -> float:
        """Score, which for all likelihoods of counts is that of the Neural Latents Benchmark.

        Parameters
        ----------
        values, means : ndarray of shape (..., n_chosen)
            Entries, NaN where not scored, and expected values.
        neurons : index, default=...
            Which neurons these are.
        """
        if self.counts:
            return bits_per_spike(values, means)
        return self.log_likelihood(values, means, neurons)

    def log_likelihood(self, values: NDArray, means: NDArray, neurons: Any = ...) -> float:
        """Gain in log-likelihood over each neuron's mean, in bits per spike or per entry."""
        for name, kind in LIKELIHOODS.items():
            if type(self.likelihood) is kind:
                params = {key: value[neurons] for key, value in self.params.items()}
                return GAINS[name](values, means, **params)
        return _gain(self.likelihood.of(neurons), values, means)


@torch.no_grad()
def _gain(likelihood: Likelihood, values: NDArray, means: NDArray) -> float:
    """Gain by a likelihood for which there is no score in `metrics`."""
    n_neurons = values.shape[-1]
    rows, expected = (
        torch.from_numpy(np.array(array, dtype=np.float64).reshape(-1, n_neurons))
        for array in (values, means)
    )
    known = ~rows.isnan()
    n_entries = known.sum(0)
    mean = torch.where(known, rows, 0.0).sum(0) / n_entries.clamp(min=1)  # (n_neurons,)
    likelihood = likelihood.double()
    losses = [
        likelihood.nll(likelihood.link(m.expand(rows.shape)), torch.where(known, rows, 0.0))
        for m in (mean, expected)
    ]
    gain = torch.where(known, losses[0] - losses[1], 0.0).sum()
    amount = likelihood.amount((mean * n_entries).sum(), n_entries.sum())
    return float(gain / amount / np.log(2))


POISSON = Scoring(Poisson())


def scoring_of(estimator: Any) -> Scoring:
    """How the rates of a fitted estimator are scored: as counts, unless it has a likelihood."""
    return getattr(find_rates(estimator)[1], "_scoring", POISSON)


def mean_scoring(scorings: Sequence[Scoring], weights: Iterable[float]) -> Scoring:
    """How the mean of the expected values of several estimators is scored.

    Raises
    ------
    ValueError
        If their likelihoods differ, and one of them is not of counts.
    """
    kinds = {type(one.likelihood) for one in scorings}
    if len(kinds) == 1:
        return Scoring(average([one.likelihood for one in scorings], list(weights)))
    if not all(one.counts for one in scorings):
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(
            f"Members of an ensemble have the likelihoods {names}, whose scores cannot be "
            "compared. Give all members the same likelihood."
        )
    return POISSON


def score_hidden(
    infer: Callable[[NDArray], NDArray],
    X: NDArray,
    heldout_neurons: NDArray,
    score: Callable[..., float] = POISSON.score,
) -> float:
    """Score the entries that `infer_hidden` hides."""
    neurons = heldout_neurons if len(heldout_neurons) else ...
    return score(*infer_hidden(infer, X, heldout_neurons), neurons)
