"""Decoding of behaviour from firing rates, bin by bin, with any scikit-learn regressor."""

from numbers import Integral

import numpy as np
from sklearn import get_config
from sklearn.base import BaseEstimator, MetaEstimatorMixin, RegressorMixin, _fit_context, clone
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.utils import _safe_indexing, check_array, get_tags
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["BinwiseRegressor"]


class BinwiseRegressor(MetaEstimatorMixin, RegressorMixin, BaseEstimator):
    """Any scikit-learn regressor, made to work on trials.

    A decoder reads behaviour, such as the velocity of the hand, from the firing rates of each
    bin. scikit-learn's regressors want one row a bin; recordings come in trials, which must stay
    whole in cross-validation. This estimator takes trials, hands their bins to `estimator`, and
    returns its predictions as trials, so that every fold of `cross_val_score` and `GridSearchCV`
    holds whole trials. Behaviour follows neural activity with a delay, which `lag` bridges, and
    may depend on more than one bin, which `history` supplies.

    Parameters
    ----------
    estimator : regressor, default=None
        The regressor that sees one row a bin. None means :class:`~sklearn.linear_model.Ridge`
        with its defaults. The parameters of a given one are reached as ``estimator__alpha``.

    lag : int, default=0
        Bins by which the behaviour follows the features: the target of bin ``t + lag`` is
        predicted from the features of bin ``t``. Positive where the neurons lead, as in motor
        cortex; negative where they follow, as in sensory areas. A delay of 100 ms is a lag of 20
        in bins of 5 ms.

    history : int, default=0
        Number of past bins whose features are appended to those of each bin.

    Attributes
    ----------
    estimator_ : regressor
        The fitted regressor.

    n_features_in_ : int
        Number of features of a bin, the length of the last axis of `X`, without history.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, where `X` was a 2D dataframe whose column names are all strings.

    See Also
    --------
    sklearn.linear_model.Ridge : The usual decoder, and the default one.
    sklearn.multioutput.MultiOutputRegressor : For regressors that predict a single target.

    Notes
    -----
    With `lag` ``L`` and `history` ``H``, the prediction for bin ``t`` of a trial is made from the
    features of its *source bin* ``s = t - L`` and of the bins before it, in this order: all
    features of ``s``, all of ``s - 1``, and so on to ``s - H``. A trial never sees another one:

    - In fit, a bin whose source lies outside its trial is left out. In predict, where every bin
      is owed a prediction, it gets that of the nearest source: the first `L` bins repeat that of
      bin `L` (with a negative lag the last ones repeat). NaN would be more modest, but no scorer
      takes it.
    - History that reaches back beyond the first bin of a trial repeats the first bin.

    NaN stands for what is missing. A bin with a NaN among its targets does not enter fit nor
    score. Bins at the beginning and end of a trial whose features are all NaN are padding, as in
    trials of unequal length: the trial is taken to end where they begin. Any other NaN in `X`
    reaches `estimator`, and most of them refuse it.

    A 2D `X` is one continuous recording, its rows in order of time, and counts as a single trial.
    Without lag and history it goes straight to `estimator`, in the container that it came in.

    ``scoring="r2"`` does not work on trials, since scikit-learn's metric takes no 3D targets and
    NaN comes out; leave `scoring` at None, which calls :meth:`score`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.model_selection import GridSearchCV, cross_val_score
    >>> from sklearn_stndt import BinwiseRegressor
    >>> rng = np.random.default_rng(0)
    >>> rates = rng.gamma(2.0, size=(20, 50, 8))  # trials, bins, neurons
    >>> velocity = np.roll(rates @ rng.normal(size=(8, 2)), 3, axis=1)  # 3 bins later
    >>> decoder = BinwiseRegressor(Ridge(alpha=1.0), lag=3).fit(rates, velocity)
    >>> decoder.predict(rates).shape
    (20, 50, 2)
    >>> bool(cross_val_score(decoder, rates, velocity, cv=5).mean() > 0.8)
    True
    >>> search = GridSearchCV(decoder, {"lag": [0, 3], "estimator__alpha": [0.1, 10.0]}, cv=5)
    >>> search.fit(rates, velocity).best_params_["lag"]
    3
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "lag": [Interval(Integral, None, None, closed="neither")],
        "history": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(self, estimator=None, *, lag=0, history=0):
        self.estimator = estimator
        self.lag = lag
        self.history = history

    @_fit_context(
        # Checked when the inner estimator is fitted.
        prefer_skip_nested_validation=False
    )
    def fit(self, X, y, **fit_params):
        """Fit the regressor on the bins of all trials.

        Parameters
        ----------
        X : array-like of shape (n_bins, n_features) or (n_trials, n_bins, n_features)
            Features of each bin, such as firing rates.

        y : array-like of shape (n_bins,), (n_bins, n_targets), (n_trials, n_bins) or \
                (n_trials, n_bins, n_targets)
            Behaviour in each bin, NaN where it is unknown or does not matter.

        **fit_params : dict
            Metadata for the `fit` of `estimator`, with
            ``sklearn.set_config(enable_metadata_routing=True)`` alone. One value a bin, of shape
            (n_bins,) or (n_trials, n_bins), travels with its bin; one value a trial, of shape
            (n_trials,), with all bins of the trial; anything else goes on as it is.

        Returns
        -------
        self : BinwiseRegressor
            The fitted regressor.

        Raises
        ------
        TypeError
            If `X` or `y` is sparse, or `fit_params` are not requested by `estimator`.
        ValueError
            If `X` is neither 2D nor 3D, if `y` does not fit `X`, if `X` or `y` is complex,
            infinite or no number, if `X` holds NaN and `estimator` refuses it, if a trial is NaN
            throughout, if no bin with a known target is left, or if `lag` exceeds the trials.
        """
        bins = self._check_features(X, reset=True)
        targets = _check_y(y, bins.shape[:-1])
        known = _is_known(targets, bins.ndim - 1)
        features, used = self._rows(X, bins, known)
        metadata = self._route(fit_params, used)
        self._target_shape = targets.shape[bins.ndim - 1 :]  # () or (n_targets,)
        self.estimator_ = clone(self._estimator()).fit(features, targets[used], **metadata)
        return self

    def predict(self, X):
        """Predict the behaviour in each bin.

        Parameters
        ----------
        X : array-like of shape (n_bins, n_features) or (n_trials, n_bins, n_features)
            Features of each bin; trials may be longer or shorter than in fit.

        Returns
        -------
        y_pred : ndarray of shape (n_bins,), (n_bins, n_targets), (n_trials, n_bins) or \
                (n_trials, n_bins, n_targets)
            Prediction for each bin of `X`, padding included; with a last axis if `y` had one.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before fit.
        TypeError
            If `X` is sparse.
        ValueError
            If `X` is neither 2D nor 3D, has another number of features than in fit, is complex,
            infinite or no number, holds NaN that `estimator` refuses, if a trial is NaN
            throughout, or if `lag` exceeds the trials.
        """
        check_is_fitted(self)
        bins = self._check_features(X, reset=False)
        features, _ = self._rows(X, bins)
        prediction = np.asarray(self.estimator_.predict(features))
        return prediction.reshape(*bins.shape[:-1], *self._target_shape)

    def score(self, X, y, sample_weight=None):
        """Coefficient of determination of the prediction, R2, averaged over targets.

        Parameters
        ----------
        X : array-like of shape (n_bins, n_features) or (n_trials, n_bins, n_features)
            Features of each bin.

        y : array-like of shape (n_bins,), (n_bins, n_targets), (n_trials, n_bins) or \
                (n_trials, n_bins, n_targets)
            Behaviour in each bin; bins with a NaN do not count.

        sample_weight : array-like of shape (n_bins,), (n_trials,) or (n_trials, n_bins), \
                default=None
            Weight of each bin, or of each trial.

        Returns
        -------
        score : float
            R2 over the bins of all trials together, uniform mean over targets. All bins with
            known targets count, those without a source bin among them, so that scores of
            different lags are scores of the same bins.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before fit.
        TypeError
            If `X` or `y` is sparse.
        ValueError
            As in fit and predict, or if `y` has another number of targets than in fit.
        """
        prediction = self.predict(X)
        n_axes = prediction.ndim - len(self._target_shape)
        targets = _check_y(y, prediction.shape[:n_axes])
        known = _is_known(targets, n_axes)
        truth = targets[known].reshape(np.count_nonzero(known), -1)  # (known bins, targets)
        prediction = prediction[known].reshape(len(truth), -1)  # (known bins, targets)
        if truth.shape != prediction.shape:
            raise ValueError(
                f"y has {truth.shape[1]} targets, but BinwiseRegressor was fitted with "
                f"{prediction.shape[1]}; pass the targets of fit."
            )
        weight = None if sample_weight is None else _cut_metadata(sample_weight, known)
        return r2_score(truth, prediction, sample_weight=weight)

    def get_metadata_routing(self):
        """Say which metadata go to the `fit` of `estimator`, and which to :meth:`score`.

        Returns
        -------
        routing : sklearn.utils.metadata_routing.MetadataRouter
            The routing of scikit-learn's meta-estimators.
        """
        router = MetadataRouter(owner=self).add_self_request(self)
        to_fit = MethodMapping().add(caller="fit", callee="fit")
        return router.add(estimator=self._estimator(), method_mapping=to_fit)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = get_tags(self._estimator())
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = inner.input_tags.allow_nan
        tags.input_tags.positive_only = inner.input_tags.positive_only
        tags.target_tags = inner.target_tags
        tags.non_deterministic = inner.non_deterministic
        if inner.regressor_tags is not None:
            tags.regressor_tags = inner.regressor_tags
        return tags

    def _estimator(self):
        return Ridge() if self.estimator is None else self.estimator

    def _check_features(self, X, *, reset):
        """Return `X` as a numeric array, 2D or 3D, NaN allowed; check its features."""
        bins = check_array(
            X,
            dtype="numeric",
            ensure_all_finite="allow-nan",
            ensure_2d=False,
            allow_nd=True,
            estimator=self,
            input_name="X",
        )
        if bins.ndim not in (2, 3):
            raise ValueError(
                "Expected X of shape (n_bins, n_features) or (n_trials, n_bins, n_features), got "
                f"a {bins.ndim}D array of shape {bins.shape}. Reshape your data: "
                "X.reshape(-1, 1) makes bins of a single feature of a 1D array."
            )
        if bins.ndim == 3 and bins.size == 0:
            raise ValueError(
                f"X has {bins.shape[1]} bins in a trial and {bins.shape[2]} feature(s) "
                f"(shape={bins.shape}) while a minimum of 1 is required of each."
            )
        # Features are counted on the last axis; names come with 2D dataframes alone.
        rows = X if hasattr(X, "columns") else bins.reshape(-1, bins.shape[-1])
        validate_data(self, rows, reset=reset, skip_check_array=True)
        return bins

    def _rows(self, X, bins, known=None):
        """Select what the inner regressor sees, one row a bin, and say which bins these are.

        `X` is what came from the user, `bins` the same after its checks. `known` marks the bins
        to learn from, in fit; None asks for a row for every bin, in predict.
        """
        used = np.ones(bins.shape[:-1], dtype=bool) if known is None else known
        if bins.ndim == 2 and self.lag == self.history == 0:
            X = X if hasattr(X, "columns") else bins
            return (X if used.all() else _safe_indexing(X, np.flatnonzero(used))), used

        trials = bins.reshape(-1, *bins.shape[-2:])  # (trials, bins, features)
        n_trials, n_bins, _ = trials.shape
        if abs(self.lag) >= n_bins:
            raise ValueError(
                f"lag={self.lag} leaves no bin with a source: X has n_bins={n_bins}. Use a lag of "
                "fewer bins than a trial has."
            )
        first, last = np.zeros(n_trials, dtype=int), np.full(n_trials, n_bins - 1)  # (trials,)
        if bins.ndim == 3:
            first, last = _first_and_last_bin(trials)
        wanted = np.arange(n_bins) - self.lag  # (bins,)
        source = np.clip(wanted, first[:, None], last[:, None])  # (trials, bins)
        if known is not None:
            used = known & (source == wanted).reshape(known.shape)
            if not used.any():
                raise ValueError(
                    f"No bin is left to fit: with lag={self.lag}, all {known.sum()} bins with "
                    "known targets have their source outside their trial. Use a smaller lag."
                )
        chosen = used.reshape(n_trials, n_bins)
        trial, source = np.nonzero(chosen)[0], source[chosen]  # (rows,)
        steps = source[:, None] - np.arange(self.history + 1)
        steps = np.maximum(steps, first[trial, None])  # (rows, history + 1)
        return trials[trial[:, None], steps].reshape(len(trial), -1), used

    def _route(self, fit_params, used):
        """Return the metadata that the inner `fit` asked for, cut to the bins that it sees."""
        if not fit_params:
            return {}
        if not get_config()["enable_metadata_routing"]:
            raise ValueError(
                f"BinwiseRegressor.fit got {sorted(fit_params)}, which it passes on only if "
                "sklearn.set_config(enable_metadata_routing=True) is set and estimator requests "
                "them, as with estimator.set_fit_request(sample_weight=True)."
            )
        routed = process_routing(self, "fit", **fit_params)["estimator"]["fit"]
        return {name: _cut_metadata(value, used) for name, value in routed.items()}


def _check_y(y, shape):
    """Return `y` as a numeric array that starts with the axes `shape` of the bins."""
    if y is None:
        raise ValueError(
            "BinwiseRegressor requires y to be passed, but the target y is None; pass the "
            "behaviour in each bin of X."
        )
    y = check_array(
        y,
        dtype="numeric",
        ensure_all_finite="allow-nan",
        ensure_2d=False,
        allow_nd=True,
        input_name="y",
    )
    n_axes = len(shape)
    if y.shape[:n_axes] != shape or y.ndim > n_axes + 1 or y.size == 0:
        wanted = ", ".join(str(length) for length in shape)
        axes = "n_bins" if n_axes == 1 else "n_trials, n_bins"
        raise ValueError(
            f"y has shape {y.shape}, which does not fit X with ({axes}) = ({wanted}); expected "
            f"one target for each bin, of shape ({wanted}{',' * (n_axes == 1)}), or several, of "
            f"shape ({wanted}, n_targets)."
        )
    return y


def _is_known(targets, n_axes):
    """Mark the bins none of whose targets is NaN; `n_axes` axes count bins."""
    known = ~np.isnan(targets)
    if targets.ndim > n_axes:
        known = known.all(axis=-1)
    if not known.any():
        raise ValueError(
            f"y, of shape {targets.shape}, has a NaN among the targets of every bin; pass at "
            "least one bin whose targets are all known."
        )
    return known


def _first_and_last_bin(trials):
    """Find where each trial begins and ends: its bins that are not NaN in all features."""
    visible = ~np.isnan(trials).all(axis=-1)  # (trials, bins)
    empty = np.flatnonzero(~visible.any(axis=1))
    if len(empty):
        raise ValueError(
            f"X is NaN in every bin of {len(empty)} of {len(trials)} trials, the first of them "
            f"trial {empty[0]}; leave them out, or infer their features first."
        )
    first = visible.argmax(axis=1)
    last = visible.shape[1] - 1 - visible[:, ::-1].argmax(axis=1)
    return first, last


def _cut_metadata(value, used):
    """Cut metadata that come by bin or by trial to the bins in `used`, leave others alone."""
    shape = np.shape(value)
    if shape[: used.ndim] == used.shape:
        return np.asarray(value)[used]
    if used.ndim == 2 and shape == used.shape[:1]:
        return np.asarray(value)[np.nonzero(used)[0]]
    return value
