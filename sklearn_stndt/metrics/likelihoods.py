"""Log-likelihood of entries under likelihoods other than Poisson, relative to simple models."""

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import xlogy

from sklearn_stndt.metrics._checks import as_float64, check_same_shape
from sklearn_stndt.metrics.bits import bits_per_spike

RESOLUTION = 2e-7  # of float32: signals that vary less, relative to their mean, are constant
_SMALLEST_RATE = 1e-9  # replaces rates of 0, as in `bits_per_spike`


def negative_binomial_bits(spikes: ArrayLike, rates: ArrayLike, dispersion: ArrayLike) -> float:
    r"""Negative binomial log-likelihood of spikes relative to mean rates, in bits per spike.

    The reference is that of :func:`bits_per_spike`, Poisson counts at each neuron's mean rate, so
    that both scores can be compared: their difference is that of the log-likelihoods.

    Parameters
    ----------
    spikes : array-like of shape (n_bins, n_neurons) or (n_trials, n_bins, n_neurons)
        Spike counts per bin. Entries with NaN are not evaluated.
    rates : array-like of the shape of `spikes`
        Expected spikes per bin. A rate of 0 is replaced by 1e-9.
    dispersion : float or array-like of shape (n_neurons,)
        Dispersion :math:`\alpha` of each neuron, above 0: the variance of a count is
        :math:`\mu + \alpha \mu^2`. See `likelihood_params_` of
        :class:`~sklearn_stndt.STNDTEstimator`.

    Returns
    -------
    score : float
        Bits per spike. NaN, with a `RuntimeWarning`, if there are no spikes.

    Raises
    ------
    TypeError, ValueError
        As in :func:`bits_per_spike`; if counts are not whole; or if the dispersion is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_stndt.metrics import bits_per_spike, negative_binomial_bits
    >>> rng = np.random.default_rng(0)
    >>> rates = rng.gamma(1.0, size=(200, 4))
    >>> spikes = rng.poisson(rates * rng.gamma(1.0, size=(200, 4)))  # a dispersion of 1
    >>> bits_per_spike(spikes, rates) < negative_binomial_bits(spikes, rates, 1.0)
    True
    """
    of_poisson = bits_per_spike(spikes, rates)
    if np.isnan(of_poisson):
        return of_poisson
    spikes, rates = as_float64(spikes, "spikes"), as_float64(rates, "rates")
    known = ~np.isnan(spikes)
    alpha = _per_neuron(dispersion, spikes, "dispersion")[known]
    spikes = spikes[known]
    if (spikes % 1 != 0).any():
        raise ValueError(
            "spikes holds fractions, but a negative binomial distribution has whole counts only. "
            "Pass spike counts, or use bits_per_spike."
        )
    rates = np.where(rates[known] == 0, _SMALLEST_RATE, rates[known])
    size = 1 / alpha
    gain = stats.nbinom.logpmf(spikes, size, size / (size + rates)).sum()
    gain -= stats.poisson.logpmf(spikes, rates).sum()
    return float(of_poisson + gain / spikes.sum() / np.log(2))


def gaussian_bits(values: ArrayLike, means: ArrayLike, noise: ArrayLike) -> float:
    r"""Gaussian log-likelihood of signals relative to mean and variance, in bits per entry.

    Parameters
    ----------
    values : array-like of shape (n_bins, n_neurons) or (n_trials, n_bins, n_neurons)
        Signals, such as dF/F. Entries with NaN are not evaluated, and neither are neurons whose
        entries are all the same, such as those of a dead channel.
    means : array-like of the shape of `values`
        Expected values.
    noise : float or array-like of shape (n_neurons,)
        Standard deviation of each neuron around its expected values, above 0.

    Returns
    -------
    score : float
        Higher is better; 0 is the score of each neuron's mean and standard deviation over the
        evaluated entries. Where the noise is that of the evaluated entries, the score is
        :math:`-\frac12 \log_2 (1 - R^2)`, averaged over neurons. NaN, with a `RuntimeWarning`, if
        every neuron is constant.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit each other or are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_stndt.metrics import gaussian_bits
    >>> rng = np.random.default_rng(0)
    >>> means = rng.normal(size=(1000, 2))
    >>> values = rng.normal(means, 0.5)
    >>> round(gaussian_bits(values, means, 0.5), 1)
    1.2
    """
    values, means = _check_pair(values, means)
    noise = _per_neuron(noise, values, "noise")
    gain, n_entries = 0.0, 0
    for column, of_means, of_noise in zip(
        *(array.reshape(-1, values.shape[-1]).T for array in (values, means, noise)), strict=True
    ):
        known = ~np.isnan(column)
        entries = column[known]
        if not len(entries):
            continue
        mean, deviation = entries.mean(), entries.std()
        if deviation <= RESOLUTION * abs(mean):
            continue
        gain += stats.norm.logpdf(entries, of_means[known], of_noise[known]).sum()
        gain -= stats.norm.logpdf(entries, mean, deviation).sum()
        n_entries += len(entries)
    if not n_entries:
        warnings.warn(
            "gaussian_bits is not defined without variance: the evaluated values of each neuron "
            "are the same in float32. Returning NaN. If a signal has a large offset, subtract it.",
            RuntimeWarning,
            stacklevel=2,
        )
        return np.nan
    return float(gain / n_entries / np.log(2))


def zero_inflated_gamma_bits(
    values: ArrayLike,
    means: ArrayLike,
    shape: ArrayLike,
    event_rate: ArrayLike,
    exponent: ArrayLike,
) -> float:
    r"""Zero-inflated gamma log-likelihood relative to mean values, in bits per entry.

    For deconvolved calcium, whose entries are 0 or positive [1]_. An entry with the expected value
    :math:`\mu` is positive with the probability :math:`p = 1 - \exp(-\lambda \mu^b)`, and then has
    a gamma distribution with the mean :math:`\mu / p`.

    Parameters
    ----------
    values : array-like of shape (n_bins, n_neurons) or (n_trials, n_bins, n_neurons)
        Entries of at least 0. Entries with NaN are not evaluated.
    means : array-like of the shape of `values`
        Expected values, above 0.
    shape, event_rate, exponent : float or array-like of shape (n_neurons,)
        Shape of the gamma distribution, :math:`\lambda` and b, all above 0. See
        `likelihood_params_` of :class:`~sklearn_stndt.STNDTEstimator`.

    Returns
    -------
    score : float
        Higher is better; 0 is the score of a zero-inflated gamma distribution fitted to the
        evaluated entries of each neuron, the same in all bins.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit each other, or are not finite, or negative.

    References
    ----------
    .. [1] X.-X. Wei et al., "A zero-inflated gamma model for post-deconvolved calcium imaging
       traces", bioRxiv 637652, 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_stndt.metrics import zero_inflated_gamma_bits
    >>> rng = np.random.default_rng(0)
    >>> means = rng.gamma(1.0, size=(1000, 2))
    >>> share = 1 - np.exp(-means)
    >>> values = np.where(rng.random(means.shape) < share, rng.gamma(2.0, means / share / 2), 0)
    >>> round(zero_inflated_gamma_bits(values, means, 2.0, 1.0, 1.0), 1)
    0.4
    """
    values, means = _check_pair(values, means)
    known = ~np.isnan(values)
    if (values[known] < 0).any() or (means[known] <= 0).any():
        raise ValueError(
            "zero_inflated_gamma_bits needs values of at least 0 and expected values above 0, got "
            f"{values[known].min():g} and {means[known].min():g} as smallest."
        )
    constants = {"shape": shape, "event_rate": event_rate, "exponent": exponent}
    shape, event_rate, exponent = (
        _per_neuron(value, values, name)[known] for name, value in constants.items()
    )
    columns = _columns(values)
    entries, means = values[known], means[known]
    event_rate = event_rate * means**exponent
    share = -np.expm1(-event_rate)
    positive = entries > 0
    of_positive = stats.gamma.logpdf(
        entries[positive], shape[positive], scale=(means / share / shape)[positive]
    )
    log_likelihood = -event_rate[~positive].sum()
    log_likelihood += (of_positive + np.log(share[positive])).sum()
    gain = log_likelihood - sum(map(_of_constant_gamma, columns))
    return float(gain / len(entries) / np.log(2))


def _of_constant_gamma(column: NDArray) -> float:
    """Highest log-likelihood of entries under one zero-inflated gamma distribution."""
    positive = column[column > 0]
    n_zero = len(column) - len(positive)
    of_zeros = xlogy(n_zero, n_zero / len(column))
    of_zeros += xlogy(len(positive), len(positive) / len(column))
    if not len(positive):
        return float(of_zeros)
    if np.log(positive.mean()) - np.log(positive).mean() > 1e-3:
        shape, _, scale = stats.gamma.fit(positive, floc=0)
    else:  # hardly any spread
        shape, scale = 500.0, positive.mean() / 500.0
    return float(of_zeros + stats.gamma.logpdf(positive, shape, scale=scale).sum())


def _check_pair(values: ArrayLike, means: ArrayLike) -> tuple[NDArray, NDArray]:
    """Return values and their expected values as floats, after checking them."""
    values, means = as_float64(values, "values"), as_float64(means, "means")
    check_same_shape(values, "values", means, "means")
    if values.ndim not in (2, 3):
        raise ValueError(
            f"values and means are {values.ndim}D, of shape {values.shape}; expected (n_bins, "
            "n_neurons) or (n_trials, n_bins, n_neurons)."
        )
    known = ~np.isnan(values)
    if not known.any():
        raise ValueError("values holds no entry to evaluate: it is empty or all NaN.")
    for name, array in (("values", values), ("means", means)):
        if not np.isfinite(array[known]).all():
            raise ValueError(
                f"{name} is NaN or infinite at entries that are evaluated. Pass finite numbers, "
                "and NaN in values where unknown."
            )
    return values, means


def _per_neuron(constant: ArrayLike, values: NDArray, name: str) -> NDArray:
    """Return a constant of each neuron in the shape of the values."""
    constant = as_float64(constant, name)
    if constant.shape not in ((), values.shape[-1:]):
        raise ValueError(
            f"{name} has shape {constant.shape}; pass a number, or one for each of the "
            f"{values.shape[-1]} neurons."
        )
    if not (np.isfinite(constant) & (constant > 0)).all():
        raise ValueError(f"{name} must be finite and above 0, got {constant.min():g} as smallest.")
    return np.broadcast_to(constant, values.shape)


def _columns(values: NDArray) -> list[NDArray]:
    """Known entries of each neuron that has any."""
    columns = [column[~np.isnan(column)] for column in values.reshape(-1, values.shape[-1]).T]
    return [column for column in columns if len(column)]


# scores of likelihoods by their names; they take values, expected values and `likelihood_params_`
GAINS: dict[str, Callable[..., float]] = {
    "poisson": bits_per_spike,
    "negative_binomial": negative_binomial_bits,
    "gaussian": gaussian_bits,
    "zero_inflated_gamma": zero_inflated_gamma_bits,
}
