"""Drift: how far activity is from what a fitted network knows, without labels."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sklearn_stndt._validation import check_groups
from sklearn_stndt.estimator import STNDTEstimator
from sklearn_stndt.inspection._networks import look_inside, networks


def drift(
    estimator: Any,
    X: ArrayLike,
    *,
    reference: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> float:
    r"""How much worse a fitted model predicts hidden spikes of X than it did at fit.

    Compare recordings of the same neurons (or channels) on later days. No label is needed: where
    tuning has changed, or neurons have been lost, the model predicts hidden spikes worse, and a
    decoder that reads its rates can be expected to be worse too.

    Parameters
    ----------
    estimator : STNDTEstimator, BaggingEnsemble or Pipeline
        Fitted. Of an ensemble, the mean over its networks is compared.
    X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
        Spikes per bin to be judged, NaN where unknown.
    reference : array-like, default=None
        Spikes per bin, not used in fit, for which drift is 0, with the meaning of X. None: the
        trials or windows that fit set aside for early stopping.
    groups : array-like of shape (n_bins,), default=None
        Trial of each row of a 2D X.

    Returns
    -------
    float
        0: as well as at fit. 1: no better than the mean rates of X; above 1: worse than these.
        Negative if X is predicted better than the reference.

    Raises
    ------
    ValueError
        If no score is known from fit, because nothing was set aside or the network forecasts bins,
        and `reference` is None; if the reference is not predicted better than by mean rates; or
        if X or groups are invalid.

    See Also
    --------
    STNDTEstimator.adapt : What to do about it.

    Notes
    -----
    With b bits per spike of hidden entries of X, as in the `score` of the estimator, and
    :math:`b_0` those of the reference, drift is :math:`1 - b / b_0`. Few trials give a noisy value:
    compare with the values of single days, or of parts of the day of fit.

    Examples
    --------
    >>> from sklearn_stndt import STNDTEstimator
    >>> from sklearn_stndt.datasets import make_reach_days
    >>> from sklearn_stndt.inspection import drift
    >>> days = make_reach_days(2, n_trials=60, n_neurons=20, lost=0.5, random_state=0)
    >>> network = STNDTEstimator(max_epochs=20, random_state=0).fit(days[0].spikes[:40])
    >>> same_day = drift(network, days[0].spikes[40:])
    >>> bool(drift(network, days[1].spikes[40:]) > same_day)
    True
    """
    source, counts = look_inside(estimator, X)
    found = networks(source)
    groups = check_groups(counts, groups)
    today = np.mean([network.score(counts, groups=groups) for network in found])
    if reference is None:
        before = np.mean([_bits_at_fit(network) for network in found])
    else:
        _, known = look_inside(estimator, reference)
        before = np.mean([network.score(known) for network in found])
    if not before > 0:
        raise ValueError(
            f"The model has {before:.3g} bits per spike on the reference, no more than mean rates, "
            "so a loss cannot be measured. Fit with more data, or pass another reference."
        )
    return float(1 - today / before)


def _bits_at_fit(network: STNDTEstimator) -> float:
    """Bits per spike of the windows set aside in fit, with the weights that were kept."""
    bits = [row["valid_bits"] for row in network.history_ if "kept" in row and "valid_bits" in row]
    if not bits or network.settings_.objective.forecast_bins:
        raise ValueError(
            "The estimator does not know how well it predicted spikes at fit, because no windows "
            "were set aside (early_stopping=False, or a single trial), or because their score "
            "includes forecast bins. Pass trials of the first day that were not used in fit as "
            "reference."
        )
    return float(bits[-1])
