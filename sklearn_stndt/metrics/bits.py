"""Log-likelihood of spikes under inferred rates, in bits per spike."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from sklearn_stndt.metrics._checks import (
    as_float64,
    check_n_bins,
    check_neurons,
    check_same_shape,
    warn_of_copies,
    warn_of_scale,
    warn_of_visible,
)

# Replaces rates of 0, under which spikes are impossible, as in the Neural Latents Benchmark.
_SMALLEST_RATE = 1e-9


def bits_per_spike(spikes: ArrayLike, rates: ArrayLike) -> float:
    r"""Poisson log-likelihood of spikes relative to mean rates, in bits per spike.

    The score of the Neural Latents Benchmark [1]_. Higher is better; 0 is the score of each
    neuron's mean rate over the evaluated bins. It is called co-bps for neurons that are hidden
    from the model at inference, and fp-bps for bins after the end of the input. A model can copy
    spikes that it has seen, so hide the entries that are scored.

    Parameters
    ----------
    spikes : array-like of shape (n_bins, n_neurons) or (n_trials, n_bins, n_neurons)
        Spike counts per bin. Entries with NaN are not evaluated.

    rates : array-like of the shape of `spikes`
        Expected spikes per bin: rates in Hz times the bin width in seconds. A rate of 0 is
        replaced by 1e-9. Rates are ignored where `spikes` is NaN.

    Returns
    -------
    score : float
        Bits per spike. NaN, with a `RuntimeWarning`, if there are no spikes.

    Raises
    ------
    TypeError
        If `spikes` or `rates` does not hold real numbers.
    ValueError
        If the shapes differ or are neither 2D nor 3D, if `spikes` is empty or all NaN, if a spike
        count or a rate is negative or infinite, if a rate is NaN where the spike count is not, or
        if the two arguments seem to be swapped.

    Notes
    -----
    With spike counts :math:`s_{tn}`, rates :math:`r_{tn}`, and :math:`\bar s_n` the mean count of
    neuron `n` over its evaluated bins,

    .. math::

        \mathrm{bits/spike} =
        \frac{\mathrm{NLL}(s, \bar s) - \mathrm{NLL}(s, r)}{\ln 2 \sum_{tn} s_{tn}},
        \qquad
        \mathrm{NLL}(s, r) = \sum_{tn} r_{tn} - s_{tn} \ln r_{tn} + \ln \Gamma(s_{tn} + 1).

    The score depends on the bin width: scores in bins of 5 ms and of 20 ms cannot be compared.
    All sums are computed in float64.

    References
    ----------
    .. [1] Pei, F., Ye, J., et al. (2021). Neural Latents Benchmark '21: Evaluating latent variable
       models of neural population activity. NeurIPS Datasets and Benchmarks. arXiv:2109.04463

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_stndt.metrics import bits_per_spike
    >>> spikes = np.array([[0, 2], [2, 0]])
    >>> bits_per_spike(spikes, np.array([[0.5, 1.5], [1.5, 0.5]]))
    0.584962...
    >>> bits_per_spike(spikes, np.ones((2, 2)))
    0.0
    """
    spikes = as_float64(spikes, "spikes")
    rates = as_float64(rates, "rates")
    check_same_shape(spikes, "spikes", rates, "rates")
    _check_dimensions(spikes)

    n_neurons = spikes.shape[-1]
    spikes = spikes.reshape(-1, n_neurons)  # (bins, neurons)
    rates = rates.reshape(-1, n_neurons)  # (bins, neurons)
    evaluated = ~np.isnan(spikes)
    if not evaluated.any():
        raise ValueError(
            f"spikes, of shape {spikes.shape}, holds no count to evaluate: it is empty or all NaN. "
            "Pass the counts that were observed."
        )
    neuron = np.nonzero(evaluated)[1]  # (evaluated,)
    spikes, rates = spikes[evaluated], rates[evaluated]  # (evaluated,)
    _check_swapped(spikes, rates)
    _check_counts(spikes)
    _check_rates(rates)

    n_spikes = spikes.sum()
    if n_spikes == 0:
        warnings.warn(
            "bits_per_spike is not defined without spikes: all evaluated counts are 0. "
            "Returning NaN.",
            RuntimeWarning,
            stacklevel=2,
        )
        return float("nan")
    spikes_of_neuron = np.bincount(neuron, weights=spikes, minlength=n_neurons)
    bins_of_neuron = np.bincount(neuron, minlength=n_neurons)
    # Neurons without evaluated bins are not used below; 1 avoids a division by 0.
    mean_rates = spikes_of_neuron / np.maximum(bins_of_neuron, 1)
    gain = _poisson_nll(spikes, mean_rates[neuron]) - _poisson_nll(spikes, rates)
    return float(gain / n_spikes / np.log(2))


def co_bps(
    spikes: ArrayLike,
    rates: ArrayLike,
    neurons: ArrayLike | None = None,
    *,
    X: ArrayLike | None = None,
    check: bool = True,
) -> float:
    """Bits per spike of held-out neurons (co-smoothing).

    The main score of the Neural Latents Benchmark: how well a model predicts neurons that are
    hidden from it at inference. See :func:`bits_per_spike` for the formula.

    Parameters
    ----------
    spikes : array-like of shape (n_bins, n_neurons) or (n_trials, n_bins, n_neurons)
        Spike counts per bin. Entries with NaN are not evaluated.

    rates : array-like of the shape of `spikes`
        Expected spikes per bin, from an input in which the held-out neurons were NaN.

    neurons : array-like of int or bool, default=None
        Held-out neurons: indices or a mask along the last axis. None: all neurons in `spikes`.

    X : array-like of the shape of `spikes`, default=None
        Input of the model. If given, warn if scored entries were visible in it.

    check : bool, default=True
        Warn if rates look like Hz, like another bin width, or like copies of the spikes. False
        turns off all warnings.

    Returns
    -------
    score : float
        Bits per spike; 0 is each neuron's mean rate over the evaluated bins.

    Raises
    ------
    TypeError, ValueError
        As in :func:`bits_per_spike`, and if `neurons` or `X` does not fit `spikes`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_stndt.metrics import co_bps
    >>> rng = np.random.default_rng(0)
    >>> rates = rng.gamma(1.0, size=(20, 50, 4))  # trials, bins, neurons
    >>> spikes = rng.poisson(rates)
    >>> round(co_bps(spikes, rates, neurons=[2, 3]), 2)
    0.56
    """
    spikes, rates, X = _check_trio(spikes, rates, X)
    scored: Any = ...
    if neurons is not None:
        scored = (..., check_neurons(neurons, spikes.shape[-1]))
    return _score_hidden(spikes, rates, X, scored, check)


def fp_bps(
    spikes: ArrayLike,
    rates: ArrayLike,
    n_bins: int | None = None,
    *,
    X: ArrayLike | None = None,
    check: bool = True,
) -> float:
    """Bits per spike of the bins after the end of the input (forward prediction).

    The Neural Latents Benchmark scores all neurons in the 200 ms after each trial. See
    :func:`bits_per_spike` for the formula.

    Parameters
    ----------
    spikes : array-like of shape (n_bins, n_neurons) or (n_trials, n_bins, n_neurons)
        Spike counts per bin. Entries with NaN are not evaluated.

    rates : array-like of the shape of `spikes`
        Expected spikes per bin, from an input in which the scored bins were NaN or missing.

    n_bins : int, default=None
        Number of bins at the end of each trial that are scored. None: all bins in `spikes`.

    X : array-like of the shape of `spikes`, default=None
        Input of the model. If given, warn if scored entries were visible in it.

    check : bool, default=True
        Warn if rates look like Hz, like another bin width, or like copies of the spikes. False
        turns off all warnings.

    Returns
    -------
    score : float
        Bits per spike; 0 is each neuron's mean rate over the evaluated bins.

    Raises
    ------
    TypeError, ValueError
        As in :func:`bits_per_spike`, and if `n_bins` or `X` does not fit `spikes`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_stndt.metrics import fp_bps
    >>> rng = np.random.default_rng(0)
    >>> rates = rng.gamma(1.0, size=(20, 50, 4))  # trials, bins, neurons
    >>> spikes = rng.poisson(rates)
    >>> round(fp_bps(spikes, rates, n_bins=10), 2)
    0.63
    """
    spikes, rates, X = _check_trio(spikes, rates, X)
    scored: Any = ...
    if n_bins is not None:
        scored = (
            ...,
            slice(spikes.shape[-2] - check_n_bins(n_bins, spikes.shape[-2]), None),
            slice(None),
        )
    return _score_hidden(spikes, rates, X, scored, check)


def _check_trio(
    spikes: ArrayLike, rates: ArrayLike, X: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]:
    spikes = as_float64(spikes, "spikes")
    rates = as_float64(rates, "rates")
    check_same_shape(spikes, "spikes", rates, "rates")
    _check_dimensions(spikes)
    if X is not None:
        X = as_float64(X, "X")
        check_same_shape(spikes, "spikes", X, "X")
    return spikes, rates, X


def _score_hidden(
    spikes: NDArray[np.float64],
    rates: NDArray[np.float64],
    X: NDArray[np.float64] | None,
    scored: Any,
    check: bool,
) -> float:
    score = bits_per_spike(spikes[scored], rates[scored])
    if check:
        warn_of_scale(spikes[scored], rates[scored], stacklevel=3)
        warn_of_copies(spikes[scored], rates[scored], stacklevel=3)
        if X is not None:
            warn_of_visible(X, scored, stacklevel=3)
    return score


def _check_dimensions(spikes: NDArray) -> None:
    if spikes.ndim not in (2, 3):
        raise ValueError(
            f"spikes and rates are {spikes.ndim}D, of shape {spikes.shape}; expected "
            "(n_bins, n_neurons) or (n_trials, n_bins, n_neurons). Reshape the bins of a single "
            "neuron with spikes.reshape(-1, 1)."
        )


def _poisson_nll(spikes: NDArray[np.float64], rates: NDArray[np.float64]) -> float:
    """Negative log-likelihood of counts under Poisson rates, in nats, summed over all entries."""
    rates = np.where(rates == 0, _SMALLEST_RATE, rates)
    return float(np.sum(rates - spikes * np.log(rates) + gammaln(spikes + 1)))


def _check_swapped(spikes: NDArray[np.float64], rates: NDArray[np.float64]) -> None:
    """Raise an error if spikes have fractions but all rates are whole: they are swapped."""
    with np.errstate(invalid="ignore"):  # remainder of infinity, which raises an error later
        is_fraction = np.mod(spikes, 1) != 0
        if is_fraction.any() and np.all(np.isnan(rates) | (np.mod(rates, 1) == 0)):
            raise ValueError(
                f"spikes holds fractions, such as {spikes[is_fraction][0]:g}, while all rates are "
                "whole numbers. The arguments are probably swapped: call "
                "bits_per_spike(spikes, rates)."
            )


def _check_counts(spikes: NDArray[np.float64]) -> None:
    if np.isinf(spikes).any():
        raise ValueError("spikes holds infinity; pass finite counts, and NaN where unknown.")
    if spikes.min() < 0:
        raise ValueError(
            f"spikes holds negative counts, the lowest is {spikes.min():g}; pass spike counts per "
            "bin as they were recorded, neither centred nor scaled."
        )


def _check_rates(rates: NDArray[np.float64]) -> None:
    n_bad = np.count_nonzero(~np.isfinite(rates))
    if n_bad:
        raise ValueError(
            f"rates is NaN or infinite at {n_bad} of {rates.size} entries whose spike count is "
            "known; pass a finite rate for each of them, or set the spikes there to NaN to leave "
            "them out."
        )
    if rates.min() < 0:
        raise ValueError(
            f"rates holds negative values, the lowest is {rates.min():g}; pass expected spikes "
            "per bin: the exponential of log-rates, or a prediction clipped at 0."
        )
