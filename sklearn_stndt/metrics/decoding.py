"""Decoding of velocity, or other behaviour, from rates by ridge regression."""

import warnings
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV

from sklearn_stndt.metrics._checks import as_float64, rectangular

# The decoder of the Neural Latents Benchmark: nine penalties, five contiguous folds.
ALPHAS = np.logspace(-4, 0, 9)
DECODER_FOLDS = 5
_FEWEST = 2 * DECODER_FOLDS  # training bins: R2 of a fold needs two


def velocity_r2(
    velocity: ArrayLike,
    rates: ArrayLike,
    train_velocity: ArrayLike,
    train_rates: ArrayLike,
    *,
    decode_mask: ArrayLike | None = None,
    train_decode_mask: ArrayLike | None = None,
    lag: int = 0,
    check: bool = True,
) -> float:
    """R2 of velocity, decoded by ridge regression from rates of the same bin.

    The decoder of the Neural Latents Benchmark: no history, a penalty chosen from
    ``np.logspace(-4, 0, 9)`` by cross-validation in five contiguous folds of the training bins, R2
    averaged over the components of velocity. Data may be trials or continuous recordings.

    Parameters
    ----------
    velocity : array-like of shape (n_trials, n_bins, n_targets) or (n_bins, n_targets)
        True velocity, or other behaviour, in any unit. Bins with NaN are left out.

    rates : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
        Rates of the scored trials, in any unit.

    train_velocity, train_rates : array-like, as `velocity` and `rates`
        Training data of the decoder: other trials, with rates in the same unit.

    decode_mask, train_decode_mask : array-like of bool, of shape (n_trials,) or \
            (n_trials, n_decoders), default=None
        Trials of each decoder; the scores of the decoders are averaged. For 2D data, rows instead
        of trials. None: one decoder for all trials.

    lag : int, default=0
        Number of bins by which velocity lags the rates: the velocity in bin ``t + lag`` is decoded
        from the rates in bin ``t``. The benchmark's files are already shifted.

    check : bool, default=True
        Warn if training and scored rates seem to have different units.

    Returns
    -------
    score : float
        1 is perfect; 0 is the score of the mean velocity in the scored bins.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers.
    ValueError
        If shapes are inconsistent, if a rate is NaN where velocity is known, if too few bins have
        a known velocity, or if only one of the two masks is given.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_stndt.metrics import velocity_r2
    >>> rng = np.random.default_rng(0)
    >>> rates = rng.gamma(1.0, size=(30, 50, 6))  # trials, bins, neurons
    >>> velocity = rates @ rng.normal(size=(6, 2)) + rng.normal(size=(30, 50, 2))
    >>> round(velocity_r2(velocity[20:], rates[20:], velocity[:20], rates[:20]), 2)
    0.86
    """
    velocity, rates = _check_pair(velocity, rates, "velocity", "rates")
    train_velocity, train_rates = _check_pair(
        train_velocity, train_rates, "train_velocity", "train_rates"
    )
    for name, test, train in (
        ("rates", rates, train_rates),
        ("velocity", velocity, train_velocity),
    ):
        if test.shape[-1] != train.shape[-1]:
            raise ValueError(
                f"{name} has {test.shape[-1]} columns and train_{name} has {train.shape[-1]}; "
                "pass the same neurons and the same targets for both."
            )
    if (decode_mask is None) != (train_decode_mask is None):
        raise ValueError("Pass both decode_mask and train_decode_mask, or neither.")
    if rates.ndim == 2 and decode_mask is not None and np.any(lag):
        raise ValueError("lag cannot be used with masks of 2D data; shift velocity yourself.")
    if check:
        _warn_of_units(rates, train_rates)
    rates, velocity = shift(rates, velocity, lag)
    train_rates, train_velocity = shift(train_rates, train_velocity, lag)
    masks = _check_mask(decode_mask, len(rates), "decode_mask")
    train_masks = _check_mask(train_decode_mask, len(train_rates), "train_decode_mask")
    if masks.shape[1] != train_masks.shape[1]:
        raise ValueError(
            f"decode_mask has {masks.shape[1]} columns and train_decode_mask has "
            f"{train_masks.shape[1]}; pass one column per decoder in both."
        )
    scores = [
        _decode(train_rates[train], train_velocity[train], rates[test], velocity[test])
        for train, test in zip(train_masks.T, masks.T, strict=True)
    ]
    return float(np.mean(scores))


def shift(rates: NDArray, velocity: NDArray, lag: Any) -> tuple[NDArray, NDArray]:
    """Pair the rates of bin t with the velocity of bin t + lag, within trials."""
    n_bins = rates.shape[-2]
    is_whole = isinstance(lag, Integral) and not isinstance(lag, bool | np.timedelta64)
    if not is_whole or abs(int(lag)) >= n_bins:
        raise ValueError(
            f"lag must be a whole number of bins, shorter than a trial of {n_bins}, got {lag!r}."
        )
    lag = int(lag)
    if lag > 0:
        return rates[..., :-lag, :], velocity[..., lag:, :]
    if lag < 0:
        return rates[..., -lag:, :], velocity[..., :lag, :]
    return rates, velocity


def known_rows(rates: NDArray, velocity: NDArray) -> tuple[NDArray, NDArray]:
    """Return rows with known velocity; raise an error if their rates are not finite."""
    rates = rates.reshape(-1, rates.shape[-1])  # (rows, neurons)
    velocity = velocity.reshape(-1, velocity.shape[-1])  # (rows, targets)
    known = ~np.isnan(velocity).any(axis=1)
    rates, velocity = rates[known], velocity[known]
    n_bad = np.count_nonzero(~np.isfinite(rates).all(axis=1))
    if n_bad:
        raise ValueError(
            f"The rates of {n_bad} of {len(rates)} bins whose velocity is known are NaN or "
            "infinite; pass finite rates, or set the velocity there to NaN to leave them out."
        )
    return rates, velocity


def make_decoder() -> GridSearchCV:
    """Return the decoder of the Neural Latents Benchmark, unfitted."""
    return GridSearchCV(Ridge(), {"alpha": ALPHAS}, cv=DECODER_FOLDS)


def _decode(
    train_rates: NDArray, train_velocity: NDArray, rates: NDArray, velocity: NDArray
) -> float:
    train_rates, train_velocity = known_rows(train_rates, train_velocity)
    rates, velocity = known_rows(rates, velocity)
    if len(train_rates) < _FEWEST or len(rates) < 2:
        raise ValueError(
            f"{len(train_rates)} training bins and {len(rates)} scored bins have a known "
            f"velocity; a decoder needs at least {_FEWEST} and 2. Check velocity for NaN, "
            "and the masks for decoders without trials."
        )
    return float(make_decoder().fit(train_rates, train_velocity).score(rates, velocity))


def _check_pair(
    velocity: ArrayLike, rates: ArrayLike, velocity_name: str, rates_name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    velocity = as_float64(velocity, velocity_name)
    rates = as_float64(rates, rates_name)
    if rates.ndim not in (2, 3):
        raise ValueError(
            f"{rates_name} has shape {rates.shape}; expected (n_bins, n_neurons) or "
            "(n_trials, n_bins, n_neurons)."
        )
    if velocity.ndim == rates.ndim - 1:
        velocity = velocity[..., None]
    if velocity.shape[:-1] != rates.shape[:-1]:
        raise ValueError(
            f"{velocity_name} has shape {velocity.shape} and {rates_name} has shape "
            f"{rates.shape}; trials and bins of both must be the same. Use the same bins for both."
        )
    return velocity, rates


def _check_mask(mask: Any, length: int, name: str) -> NDArray[np.bool_]:
    if mask is None:
        return np.ones((length, 1), dtype=bool)
    array = rectangular(mask, name)
    if array.ndim == 1:
        array = array[:, None]
    is_binary = array.dtype.kind in "biuf" and np.isin(array, [0, 1]).all()
    if array.ndim != 2 or len(array) != length or not is_binary:
        raise ValueError(
            f"{name} must hold True and False, of shape ({length},) or ({length}, n_decoders), "
            f"got {array.dtype} of shape {array.shape}."
        )
    return array.astype(bool)


def _warn_of_units(rates: NDArray, train_rates: NDArray) -> None:
    sizes = [np.abs(part[np.isfinite(part)]) for part in (rates, train_rates)]
    if not all(size.any() for size in sizes):
        return
    ratio = sizes[0].mean() / sizes[1].mean()
    if not 0.2 < ratio < 5:
        warnings.warn(
            f"The scored rates are {ratio:.3g} times as large as the training rates. Are both in "
            "the same unit and bin width? check=False silences this.",
            UserWarning,
            stacklevel=3,
        )
