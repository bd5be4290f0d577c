"""Scores of PSTHs, and of neural speed against produced time."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import pearsonr
from sklearn.metrics import r2_score

from sklearn_stndt.metrics._checks import as_float64, as_labels, number_labels, rectangular


def psth_r2(
    psth: ArrayLike,
    rates: ArrayLike,
    conditions: Any,
    *,
    jitter: ArrayLike | None = None,
) -> float:
    """R2 between true PSTHs and the mean rates of each condition, averaged over neurons.

    Parameters
    ----------
    psth : array-like of shape (n_conditions, n_bins, n_neurons)
        True peri-stimulus time histograms, in the unit of `rates`. Bins with NaN in the first
        neuron are left out.

    rates : array-like of shape (n_trials, n_bins, n_neurons)
        Rates of single trials, in spikes per bin.

    conditions : array-like of int of shape (n_trials,), or list of n_conditions lists of int
        Condition of each trial, as an index into `psth` (negative, None or NaN: none); or the
        trials of each condition. A condition without trials is left out.

    jitter : array-like of int of shape (n_trials,), default=None
        Number of bins by which each trial is shifted relative to the PSTH: bin ``t`` of a trial is
        bin ``t + jitter`` of the PSTH. The shift is undone before averaging. None: 0.

    Returns
    -------
    score : float
        1 is perfect.

    Raises
    ------
    TypeError
        If `psth` or `rates` does not hold real numbers, or if `jitter` does not hold whole numbers.
    ValueError
        If shapes are inconsistent, if no condition has a trial, or if a mean rate is NaN where the
        PSTH is known.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_stndt.metrics import psth_r2
    >>> rng = np.random.default_rng(0)
    >>> psth = rng.gamma(1.0, size=(2, 50, 4))  # conditions, bins, neurons
    >>> conditions = np.arange(20) % 2
    >>> rates = psth[conditions] + rng.normal(size=(20, 50, 4))
    >>> round(psth_r2(psth, rates, conditions), 2)
    0.92
    """
    psth = as_float64(psth, "psth")
    rates = as_float64(rates, "rates")
    if psth.ndim != 3 or rates.ndim != 3 or psth.shape[1:] != rates.shape[1:]:
        raise ValueError(
            f"psth has shape {psth.shape} and rates has shape {rates.shape}; expected "
            "(n_conditions, n_bins, n_neurons) and (n_trials, n_bins, n_neurons), with the same "
            "bins and neurons."
        )
    shifts = _check_jitter(jitter, rates)
    truth, estimate = [], []
    for condition, trials in enumerate(_trials_of_conditions(conditions, len(psth), len(rates))):
        if not len(trials):
            continue
        mean = np.mean([_shifted(rates[trial], shifts[trial]) for trial in trials], axis=0)
        known = ~np.isnan(psth[condition, :, 0])
        if np.isnan(mean[known]).any():
            raise ValueError(
                f"The mean rates of condition {condition} are NaN in bins whose PSTH is known; "
                "pass a rate for each of them in all of its trials (shifted by jitter), or set "
                "the PSTH there to NaN."
            )
        truth.append(psth[condition, known])
        estimate.append(mean[known])
    if not sum(map(len, truth)):
        raise ValueError(
            "There is nothing to compare: no condition has both a trial and a PSTH that is known. "
            "Check conditions."
        )
    return float(r2_score(np.concatenate(truth), np.concatenate(estimate)))


def tp_corr(
    produced: ArrayLike,
    rates: ArrayLike,
    conditions: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    check: bool = True,
) -> float:
    """Correlation of neural speed with produced time, averaged over conditions.

    When an animal reproduces a time interval, neural activity follows its trajectory more slowly
    if the produced interval is longer: negative scores are good. This is the score of DMFC_RSG in
    the Neural Latents Benchmark.

    Parameters
    ----------
    produced : array-like of shape (n_trials,)
        Produced time, in any unit. Trials with NaN are left out.

    rates : array-like of shape (n_trials, n_bins, n_neurons)
        Rates of single trials, in any unit.

    conditions : array-like of shape (n_trials,) or (n_trials, n_labels)
        Condition of each trial, a label or a row of labels. A trial with None or NaN is left out.

    mask : array-like of bool of shape (n_trials, n_bins), default=None
        True in the bins in which speed is measured, such as from set to go. None: all bins.

    check : bool, default=True
        Warn if conditions are left out because they have fewer than two trials.

    Returns
    -------
    score : float
        Mean over conditions of Pearson's r between speed and produced time. NaN if either is
        constant in a condition.

    Raises
    ------
    TypeError
        If `produced` or `rates` does not hold real numbers.
    ValueError
        If shapes are inconsistent, if a rate is NaN in a measured bin, if a trial has fewer than
        two measured bins, or if no condition has two trials.

    Notes
    -----
    The speed of a trial is the mean Euclidean distance between the rates in consecutive bins.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_stndt.metrics import tp_corr
    >>> rng = np.random.default_rng(0)
    >>> produced = rng.uniform(0.5, 1.0, size=40)  # s
    >>> time = np.arange(50) * 0.02 / produced[:, None]
    >>> rates = 1 + np.stack([np.sin(time), np.cos(time)], axis=-1)
    >>> round(tp_corr(produced, rates, np.arange(40) % 2), 2)
    -0.98
    """
    produced = as_float64(produced, "produced")
    rates = as_float64(rates, "rates")
    labels, known = as_labels(conditions, "conditions")
    if rates.ndim != 3:
        raise ValueError(f"rates has shape {rates.shape}; expected (n_trials, n_bins, n_neurons).")
    if labels.ndim == 1:
        labels, known = labels[:, None], known[:, None]
    if produced.shape != (len(rates),) or labels.ndim != 2 or len(labels) != len(rates):
        raise ValueError(
            f"rates has {len(rates)} trials, produced has shape {produced.shape} and conditions "
            f"has shape {labels.shape}; pass one time and one condition per trial."
        )
    counted = np.ones(rates.shape[:2], dtype=bool) if mask is None else rectangular(mask, "mask")
    if counted.shape != rates.shape[:2] or counted.dtype != bool:
        raise ValueError(
            f"mask must hold True and False, of shape {rates.shape[:2]}, got {counted.dtype} of "
            f"shape {counted.shape}."
        )
    used = ~np.isnan(produced) & known.all(axis=1)
    columns = [number_labels(labels[:, i], known[:, i])[1] for i in range(labels.shape[1])]
    numbers = np.stack(columns, axis=1)  # (trials, labels)
    speeds = np.full(len(rates), np.nan)
    for trial in np.flatnonzero(used).tolist():
        speeds[trial] = _speed(rates[trial, counted[trial]], trial)
    correlations, n_small = [], 0
    for condition in np.unique(numbers[used], axis=0):
        trials = used & np.all(numbers == condition, axis=1)
        if np.count_nonzero(trials) < 2:
            n_small += 1
            continue
        correlations.append(_pearson(speeds[trials], produced[trials]))
    if not correlations:
        raise ValueError(
            f"None of {n_small} conditions has two trials with a known time; a correlation needs "
            "them. Use coarser conditions."
        )
    if check and n_small:
        warnings.warn(
            f"{n_small} conditions with a single trial are left out. check=False silences this.",
            UserWarning,
            stacklevel=2,
        )
    return float(np.mean(correlations))


def _trials_of_conditions(conditions: Any, n_conditions: int, n_trials: int) -> list[NDArray]:
    """Return the trials of each condition, from either form of `conditions`."""
    if not np.iterable(conditions):
        raise TypeError(
            f"conditions is {conditions!r}; pass the condition of each trial, or the trials of "
            "each condition."
        )
    lists = list(conditions)
    if lists and all(np.ndim(entry) == 0 for entry in lists):
        labels, known = as_labels(lists, "conditions")
        found = np.array(labels[known].tolist())
        # an array with NaN holds its whole numbers as floats
        is_whole = found.dtype.kind in "iu" or (
            found.dtype.kind == "f" and not np.mod(found, 1).any()
        )
        if labels.shape != (n_trials,) or not is_whole:
            raise ValueError(
                f"conditions holds {len(labels)} entries of {found.dtype}, for {n_trials} trials; "
                "pass a whole number per trial, or a list of the trials of each condition."
            )
        numbers = np.full(n_trials, -1)
        numbers[known] = found
        if numbers.max() >= n_conditions:
            raise ValueError(
                f"conditions goes up to {numbers.max()}, but psth has {n_conditions} conditions; "
                "number them from 0."
            )
        return [np.flatnonzero(numbers == condition) for condition in range(n_conditions)]
    if len(lists) != n_conditions:
        raise ValueError(
            f"conditions must be {n_trials} whole numbers, the condition of each trial, or "
            f"{n_conditions} lists, the trials of each condition; got {len(lists)} entries."
        )
    trials = [np.atleast_1d(np.asarray(indices)) for indices in lists]
    for condition, indices in enumerate(trials):
        if indices.size and (
            indices.dtype.kind not in "iu" or indices.min() < 0 or indices.max() >= n_trials
        ):
            raise ValueError(
                f"The trials of condition {condition} must be whole numbers from 0 to "
                f"{n_trials - 1}, got {indices!r}."
            )
    return trials


def _check_jitter(jitter: ArrayLike | None, rates: NDArray) -> NDArray[np.intp]:
    if jitter is None:
        return np.zeros(len(rates), dtype=np.intp)
    shifts = as_float64(jitter, "jitter")
    if shifts.shape != (len(rates),):
        raise ValueError(
            f"jitter has shape {shifts.shape}, for {len(rates)} trials; pass one number per trial."
        )
    if not np.all(np.mod(shifts, 1) == 0):
        raise TypeError("jitter must hold whole numbers of bins; divide times by the bin width.")
    return shifts.astype(np.intp)


def _shifted(trial: NDArray, jitter: int) -> NDArray:
    """Shift a trial by `jitter` bins, with NaN in the bins that become empty."""
    moved = np.full(trial.shape, np.nan)  # (bins, neurons)
    if jitter > 0:
        moved[jitter:] = trial[:-jitter]
    elif jitter < 0:
        moved[:jitter] = trial[-jitter:]
    else:
        moved[:] = trial
    return moved


def _speed(course: NDArray, trial: int) -> float:
    if len(course) < 2:
        raise ValueError(
            f"Trial {trial} has {len(course)} bins in mask, and speed needs two. Set its produced "
            "time to NaN to leave it out."
        )
    if np.isnan(course).any():
        raise ValueError(
            f"rates is NaN in bins of trial {trial} in mask; pass a rate for each of these, or "
            "set mask to False there."
        )
    return float(np.mean(np.linalg.norm(np.diff(course, axis=0), axis=1)))


def _pearson(speeds: NDArray, produced: NDArray) -> float:
    if np.ptp(speeds) == 0 or np.ptp(produced) == 0:
        return float("nan")
    return float(pearsonr(speeds, produced)[0])
