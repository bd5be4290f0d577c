"""Few-shot co-smoothing: prediction of held-out neurons after fitting to few trials."""

import warnings
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import PoissonRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state

from sklearn_stndt.metrics._checks import as_float64, warn_of_copies
from sklearn_stndt.metrics.bits import bits_per_spike

_SMALLEST_RATE = 1e-9


def few_shot_co_bps(
    spikes: ArrayLike,
    rates: ArrayLike,
    train_spikes: ArrayLike,
    train_rates: ArrayLike,
    n_shots: int,
    *,
    alpha: float = 0.01,
    log: bool = True,
    n_repeats: int = 5,
    random_state: int | np.random.RandomState | None = 0,
    check: bool = True,
) -> float:
    """Bits per spike of held-out neurons, predicted by a Poisson GLM fitted to few trials.

    Models with equal co-bps may differ in how much irrelevant variance their rates contain. A GLM
    fitted to few trials overfits to it, so models with less of it score higher [1]_.

    Parameters
    ----------
    spikes : array-like of shape (n_trials, n_bins, n_heldout)
        Spike counts of held-out neurons in the scored trials. Entries with NaN are not evaluated.

    rates : array-like of shape (n_trials, n_bins, n_features)
        Rates of the other neurons in the scored trials, inferred without the held-out neurons; or
        latent variables, with ``log=False``.

    train_spikes, train_rates : array-like, as `spikes` and `rates`
        The same for training trials, from which `n_shots` trials are drawn.

    n_shots : int
        Number of trials that the GLMs are fitted to.

    alpha : float, default=0.01
        L2 penalty of the GLMs, for features of unit variance.

    log : bool, default=True
        Use the logarithms of rates as features, to match the log link of the GLM. If False, use
        the features unchanged.

    n_repeats : int, default=5
        Number of random draws of `n_shots` trials; their scores are averaged.

    random_state : int, RandomState instance or None, default=0
        Seed of the draws.

    check : bool, default=True
        Warn if predictions look like copies of the spikes, which suggests that the model saw them.

    Returns
    -------
    score : float
        Mean bits per spike; 0 is each neuron's mean rate over the scored bins.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers.
    ValueError
        If shapes are inconsistent, if there are fewer training trials than `n_shots`, if a rate is
        negative or a feature is not finite, or as in :func:`bits_per_spike`.

    Notes
    -----
    Features are standardised in the drawn trials and clipped to their range in these, because the
    exponential amplifies larger values. A held-out neuron without spikes in the drawn trials is
    assigned the rate of half a spike in all their bins.

    References
    ----------
    .. [1] Dabholkar, K. V. & Barak, O. (2024). When predict can also explain: few-shot prediction
       to select better neural latents. arXiv:2405.14425

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_stndt.metrics import few_shot_co_bps
    >>> rng = np.random.default_rng(0)
    >>> rates = rng.gamma(1.0, size=(60, 50, 4))  # trials, bins, features
    >>> spikes = rng.poisson(rates[..., :1])  # a neuron that follows the first one
    >>> score = few_shot_co_bps(spikes[40:], rates[40:], spikes[:40], rates[:40], n_shots=10)
    >>> round(score, 1)
    0.6
    """
    spikes, features = _check_trials(spikes, rates, "spikes", "rates", log)
    train_spikes, train_features = _check_trials(
        train_spikes, train_rates, "train_spikes", "train_rates", log
    )
    if spikes.shape[-1] != train_spikes.shape[-1] or features.shape[-1] != train_features.shape[-1]:
        raise ValueError(
            f"spikes and rates have {spikes.shape[-1]} and {features.shape[-1]} columns, their "
            f"training parts {train_spikes.shape[-1]} and {train_features.shape[-1]}; pass the "
            "same neurons in both."
        )
    for name, value in (("n_shots", n_shots), ("n_repeats", n_repeats)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")
    if n_shots > len(train_spikes):
        raise ValueError(
            f"n_shots={n_shots}, but there are {len(train_spikes)} training trials; pass more "
            "trials or reduce n_shots."
        )
    random = check_random_state(random_state)
    scores = []
    for _ in range(n_repeats):
        shots = random.permutation(len(train_spikes))[:n_shots]
        predicted = _read_out(train_features[shots], train_spikes[shots], features, alpha)
        predicted = predicted.reshape(spikes.shape)
        if check:
            warn_of_copies(spikes, predicted, stacklevel=2)
        scores.append(bits_per_spike(spikes, predicted))
    return float(np.mean(scores))


def _read_out(
    train_features: NDArray, train_spikes: NDArray, features: NDArray, alpha: float
) -> NDArray[np.float64]:
    """Fit the GLMs and predict the rates of held-out neurons, (bins, neurons)."""
    scaler = StandardScaler()
    X = scaler.fit_transform(train_features.reshape(-1, train_features.shape[-1]))
    X_test = scaler.transform(features.reshape(-1, features.shape[-1]))
    # The exponential would amplify features beyond their range in training.
    X_test = np.clip(X_test, X.min(axis=0), X.max(axis=0))
    targets = train_spikes.reshape(-1, train_spikes.shape[-1])
    rates = np.empty((len(X_test), targets.shape[1]))
    for neuron, counts in enumerate(targets.T):
        known = ~np.isnan(counts)
        if not counts[known].any():
            rates[:, neuron] = 0.5 / max(int(known.sum()), 1)
            continue
        glm = PoissonRegressor(alpha=alpha, solver="newton-cholesky", max_iter=200)
        with warnings.catch_warnings():
            # Solutions close to the optimum suffice; a poor one shows in the score.
            warnings.simplefilter("ignore", ConvergenceWarning)
            rates[:, neuron] = glm.fit(X[known], counts[known]).predict(X_test)
    return np.maximum(rates, _SMALLEST_RATE)


def _check_trials(
    spikes: ArrayLike, rates: ArrayLike, spikes_name: str, rates_name: str, log: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    spikes = as_float64(spikes, spikes_name)
    rates = as_float64(rates, rates_name)
    if spikes.ndim != 3 or rates.ndim != 3 or spikes.shape[:2] != rates.shape[:2]:
        raise ValueError(
            f"{spikes_name} has shape {spikes.shape} and {rates_name} has shape {rates.shape}; "
            "expected (n_trials, n_bins, n_heldout) and (n_trials, n_bins, n_features), with the "
            "same trials and bins."
        )
    if not np.isfinite(rates).all():
        raise ValueError(
            f"{rates_name} holds NaN or infinity; pass a finite value for every bin, as "
            "transform does."
        )
    if log:
        if rates.min(initial=0) < 0:
            raise ValueError(
                f"{rates_name} holds negative values, the lowest is {rates.min():g}, which no "
                "rate is; pass log=False for latent variables."
            )
        rates = np.log(np.maximum(rates, _SMALLEST_RATE))
    return spikes, rates
