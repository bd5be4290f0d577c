"""Scorers for `scoring` in cross-validation and search."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold
from sklearn.utils.metadata_routing import MetadataRequest

from sklearn_stndt._containers import like
from sklearn_stndt._rates import find_rates, groups_keyword, infer_rates
from sklearn_stndt.metrics._checks import as_float64, check_neurons, check_predicts_numbers
from sklearn_stndt.metrics.bits import co_bps
from sklearn_stndt.metrics.decoding import DECODER_FOLDS, known_rows, make_decoder, shift


def co_smoothing_scorer(neurons: ArrayLike, *, check: bool = True) -> Any:
    """Make a scorer for the bits per spike of neurons that are hidden at inference.

    An estimator of signals that are no counts is scored in bits per entry, by its likelihood.

    Parameters
    ----------
    neurons : array-like of int or bool
        Neurons that the scorer sets to NaN in the input, and scores: indices, or a mask.

    check : bool, default=True
        As in :func:`co_bps`.

    Returns
    -------
    scorer : callable
        For `scoring` of :class:`~sklearn.model_selection.GridSearchCV` and similar. It takes a
        fitted estimator with `transform` and 2D or 3D counts; in a pipeline or a search it uses the
        step that infers rates. Higher is better. It requests `groups` if metadata routing is
        enabled.

    Examples
    --------
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn_stndt import STNDTEstimator
    >>> from sklearn_stndt.datasets import make_reaches
    >>> from sklearn_stndt.metrics import co_smoothing_scorer
    >>> spikes = make_reaches(n_trials=20, n_bins=20, n_neurons=8, random_state=0).spikes
    >>> network = STNDTEstimator(max_epochs=2, random_state=0)
    >>> cross_val_score(network, spikes, scoring=co_smoothing_scorer([6, 7]), cv=2).shape
    (2,)
    """
    return _CoSmoothingScorer(neurons, check)


def velocity_scorer(*, neurons: ArrayLike | None = None, lag: int = 0) -> Any:
    """Make a scorer for the R2 of velocity, or other behaviour, in all bins where it is known.

    An estimator with `predict`, such as a pipeline that ends in a decoder, is scored by its own
    predictions; a classifier is refused. An estimator with only `transform` is scored with the
    decoder of the benchmark: its rates of the scored data are decoded by ridge regression, in five
    contiguous folds of trials, each predicted from the others. Unlike ``scoring="r2"``, it takes
    trials.

    Parameters
    ----------
    neurons : array-like of int or bool, default=None
        Neurons that the scorer sets to NaN in the input.

    lag : int, default=0
        Bins by which velocity follows rates, for estimators without `predict`. Otherwise, set the
        lag of the decoder.

    Returns
    -------
    scorer : callable
        For `scoring` of :class:`~sklearn.model_selection.GridSearchCV` and similar. Higher is
        better. It requests `groups` if metadata routing is enabled.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn_stndt import BinwiseRegressor
    >>> from sklearn_stndt.datasets import make_reaches
    >>> from sklearn_stndt.metrics import velocity_scorer
    >>> data = make_reaches(n_trials=30, random_state=0)
    >>> decoder = BinwiseRegressor(Ridge(), lag=2)
    >>> cross_val_score(decoder, data.spikes, data.velocity, scoring=velocity_scorer()).shape
    (5,)
    """
    return _VelocityScorer(neurons, lag)


class _Scorer:
    """Common part of both scorers: hide neurons, and request groups."""

    neurons: Any

    def get_metadata_routing(self) -> MetadataRequest:
        """Request `groups`, the trials of rows."""
        request = MetadataRequest(owner=self)
        request.score.add_request(param="groups", alias=True)
        return request

    def _hide(self, X: ArrayLike) -> tuple[NDArray[np.float64], Any, NDArray[np.float64]]:
        """Return counts, the hidden neurons, and counts with these set to NaN."""
        counts = as_float64(X, "X")
        if counts.ndim not in (2, 3):
            raise ValueError(
                f"X has shape {counts.shape}; expected (n_bins, n_neurons) or "
                "(n_trials, n_bins, n_neurons)."
            )
        neurons = None
        hidden = counts.copy()
        if self.neurons is not None:
            neurons = check_neurons(self.neurons, counts.shape[-1])
            hidden[..., neurons] = np.nan
        return counts, neurons, hidden


class _CoSmoothingScorer(_Scorer):
    def __init__(self, neurons: Any, check: bool) -> None:
        self.neurons = neurons
        self.check = check

    def __repr__(self) -> str:
        return f"co_smoothing_scorer({self.neurons!r}, check={self.check})"

    def __call__(
        self, estimator: Any, X: ArrayLike, y: Any = None, *, groups: ArrayLike | None = None
    ) -> float:
        counts, neurons, hidden = self._hide(X)
        rates = infer_rates(estimator, like(X, hidden), groups)
        scoring = getattr(find_rates(estimator)[1], "_scoring", None)
        if scoring is not None and not scoring.counts:
            return scoring.score(counts[..., neurons], rates[..., neurons], neurons)
        return co_bps(counts, rates, neurons, X=hidden, check=self.check)


class _VelocityScorer(_Scorer):
    def __init__(self, neurons: Any, lag: int) -> None:
        self.neurons = neurons
        self.lag = lag

    def __repr__(self) -> str:
        return f"velocity_scorer(neurons={self.neurons!r}, lag={self.lag})"

    def __call__(
        self, estimator: Any, X: ArrayLike, y: ArrayLike, *, groups: ArrayLike | None = None
    ) -> float:
        if hasattr(estimator, "predict"):
            check_predicts_numbers(estimator, "velocity_scorer")
        _, _, hidden = self._hide(X)
        velocity = as_float64(y, "y")
        if hasattr(estimator, "predict"):
            if self.lag:
                raise ValueError(
                    f"lag={self.lag}, but {type(estimator).__name__} predicts behaviour itself. "
                    "Set the lag of the decoder, such as BinwiseRegressor(lag=...)."
                )
            predicted = np.asarray(
                estimator.predict(like(X, hidden), **groups_keyword(hidden, groups))
            )
        else:
            rates = as_float64(
                estimator.transform(like(X, hidden), **groups_keyword(hidden, groups)), "rates"
            )
            predicted, velocity = _decode_across_folds(rates, velocity, self.lag)
        if predicted.shape != velocity.shape:
            raise ValueError(
                f"y has shape {velocity.shape} and its prediction {predicted.shape}; pass the "
                "behaviour of each bin of X."
            )
        n_targets = 1 if velocity.ndim == hidden.ndim - 1 else velocity.shape[-1]
        predicted, velocity = known_rows(
            predicted.reshape(-1, n_targets), velocity.reshape(-1, n_targets)
        )
        return float(r2_score(velocity, predicted))


def _decode_across_folds(rates: NDArray, velocity: NDArray, lag: int) -> tuple[NDArray, NDArray]:
    """Decode the velocity of each fold with a decoder that is fitted to the other folds."""
    if velocity.ndim == rates.ndim - 1:
        velocity = velocity[..., None]
    if velocity.shape[:-1] != rates.shape[:-1]:
        raise ValueError(
            f"y has shape {velocity.shape} and the rates have shape {rates.shape}; pass the "
            "behaviour of each bin of X."
        )
    rates, velocity = shift(rates, velocity, lag)
    n_folds = min(DECODER_FOLDS, len(rates))
    if n_folds < 2:
        raise ValueError(
            "There is 1 trial to score, and decoding across folds needs 2. Use fewer folds in the "
            "outer cross-validation, or a pipeline that ends in a decoder."
        )
    predicted = np.full(velocity.shape, np.nan)
    for train, test in KFold(n_folds).split(rates):
        decoder = make_decoder().fit(*known_rows(rates[train], velocity[train]))
        rows = rates[test].reshape(-1, rates.shape[-1])
        predicted[test] = decoder.predict(rows).reshape(velocity[test].shape)
    return predicted, velocity
