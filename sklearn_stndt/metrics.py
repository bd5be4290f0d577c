"""Scores of firing rates against spikes, in NumPy and SciPy alone.

Every function here takes the truth first and the estimate second, as the functions of
:mod:`sklearn.metrics` do, and leaves its arguments as they were.
"""

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

__all__ = ["bits_per_spike"]

# A rate of 0 makes any spike infinitely unlikely; the Neural Latents Benchmark counts it as this.
_SMALLEST_RATE = 1e-9


def bits_per_spike(spikes: ArrayLike, rates: ArrayLike) -> float:
    r"""Log-likelihood of spikes under Poisson rates, in bits per spike above the mean rate.

    The score of the Neural Latents Benchmark [1]_: 0 is what each neuron's mean rate over the
    evaluated bins achieves, higher is better, negative is worse than the mean. Applied to neurons
    that the model never saw at inference it is called co-bps, applied to bins after the end of
    the input fp-bps. A model that has seen the scored spikes can copy them: hide what you score.

    Parameters
    ----------
    spikes : array-like of shape (n_bins, n_neurons) or (n_trials, n_bins, n_neurons)
        Spike counts per bin, NaN where there is nothing to evaluate.

    rates : array-like of the shape of `spikes`
        Expected spikes per bin: a rate in Hz times the bin width in seconds. A rate of 0 counts
        as 1e-9. The rate under a NaN of `spikes` is ignored, whatever it is.

    Returns
    -------
    score : float
        Bits per spike. NaN, with a `RuntimeWarning`, if there is no spike to divide by.

    Raises
    ------
    TypeError
        If `spikes` or `rates` does not hold real numbers.
    ValueError
        If the shapes differ or are neither 2D nor 3D, if all spikes are NaN or there are none, if
        a spike count or a rate is negative or infinite, if a rate is NaN where the spike count is
        not, or if the two arguments look swapped.

    Notes
    -----
    With spike counts :math:`s_{tn}`, rates :math:`r_{tn}`, and :math:`\bar s_n` the mean count of
    neuron `n` over its evaluated bins,

    .. math::

        \mathrm{bits/spike} =
        \frac{\mathrm{NLL}(s, \bar s) - \mathrm{NLL}(s, r)}{\ln 2 \sum_{tn} s_{tn}},
        \qquad
        \mathrm{NLL}(s, r) = \sum_{tn} r_{tn} - s_{tn} \ln r_{tn} + \ln \Gamma(s_{tn} + 1).

    The score depends on the bin width: scores of 5 ms bins do not compare with those of 20 ms.
    All sums are taken in float64, whatever the dtype of the input.

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
    spikes = _as_float64(spikes, "spikes")
    rates = _as_float64(rates, "rates")
    if spikes.shape != rates.shape:
        raise ValueError(
            f"spikes has shape {spikes.shape} and rates has shape {rates.shape}; pass two arrays "
            "of one shape, a rate for each spike count."
        )
    if spikes.ndim not in (2, 3):
        raise ValueError(
            f"spikes and rates are {spikes.ndim}D, of shape {spikes.shape}; expected "
            "(n_bins, n_neurons) or (n_trials, n_bins, n_neurons). Reshape the bins of a single "
            "neuron with spikes.reshape(-1, 1)."
        )

    n_neurons = spikes.shape[-1]
    spikes = spikes.reshape(-1, n_neurons)  # (bins, neurons)
    rates = rates.reshape(-1, n_neurons)  # (bins, neurons)
    evaluated = ~np.isnan(spikes)
    if not evaluated.any():
        raise ValueError(
            f"spikes, of shape {spikes.shape}, holds no count to evaluate: it is empty or NaN "
            "throughout. Pass the counts that were observed."
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
    # A neuron without evaluated bins is never looked up below; 1 spares the division by 0.
    mean_rates = spikes_of_neuron / np.maximum(bins_of_neuron, 1)
    gain = _poisson_nll(spikes, mean_rates[neuron]) - _poisson_nll(spikes, rates)
    return float(gain / n_spikes / np.log(2))


def _poisson_nll(spikes: NDArray[np.float64], rates: NDArray[np.float64]) -> float:
    """Negative log-likelihood of counts under Poisson rates, in nats, summed over all entries."""
    rates = np.where(rates == 0, _SMALLEST_RATE, rates)
    return float(np.sum(rates - spikes * np.log(rates) + gammaln(spikes + 1)))


def _as_float64(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return `values` as an array of float64, entries that a mask hides as NaN."""
    wanted = f"pass real numbers as {name}, in an array or in nested lists of equal lengths."
    if isinstance(values, np.ma.MaskedArray):
        values = np.ma.filled(values.astype(np.float64), np.nan)
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} is not a rectangular array ({error}); {wanted}") from error
    if array.dtype.kind not in "biufO":
        raise TypeError(f"{name} has dtype {array.dtype}; {wanted}")
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} holds what is no real number ({error}); {wanted}") from error


def _check_swapped(spikes: NDArray[np.float64], rates: NDArray[np.float64]) -> None:
    """Refuse fractional spikes scored against whole rates: the arguments the wrong way round."""
    with np.errstate(invalid="ignore"):  # the remainder of infinity, which is refused later
        is_fraction = np.mod(spikes, 1) != 0
        if is_fraction.any() and np.all(np.isnan(rates) | (np.mod(rates, 1) == 0)):
            raise ValueError(
                f"spikes holds fractions, such as {spikes[is_fraction][0]:g}, while all rates are "
                "whole numbers. The arguments are probably swapped: call "
                "bits_per_spike(spikes, rates)."
            )


def _check_counts(spikes: NDArray[np.float64]) -> None:
    if np.isinf(spikes).any():
        raise ValueError("spikes holds infinity; pass finite counts, and NaN for what is missing.")
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
