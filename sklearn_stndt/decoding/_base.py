"""Pass bins of trials to an estimator as rows, and return its output as trials."""

from numbers import Integral

import numpy as np
from sklearn import get_config
from sklearn.base import MetaEstimatorMixin, clone
from sklearn.utils import _safe_indexing, check_array, get_tags
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_stndt._containers import as_array
from sklearn_stndt._failures import unchanged_if_failed
from sklearn_stndt._parameters import NamedParameters, suggests_names

ALTERNATIVES = {
    "classifier": "BinwiseClassifier predicts labels, such as choices and stimuli.",
    "regressor": "BinwiseRegressor predicts numbers, such as velocity.",
}


class BinwiseDecoder(MetaEstimatorMixin, NamedParameters):
    """Base class of BinwiseRegressor and BinwiseClassifier.

    A subclass defines which kind of estimator it takes (`_kind`), the default one
    (`_default_estimator`), and how `y` is checked (`_check_targets`).
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "lag": [Interval(Integral, None, None, closed="neither")],
        "history": [Interval(Integral, 0, None, closed="left")],
    }
    _kind: str

    @suggests_names
    def __init__(self, estimator=None, *, lag=0, history=0):
        self.estimator = estimator
        self.lag = lag
        self.history = history

    def get_metadata_routing(self):
        """Return which metadata go to the `fit` of `estimator`, and which to :meth:`score`.

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
        return tags

    def _default_estimator(self):
        raise NotImplementedError

    def _check_targets(self, y, bins):
        """Return the targets, whose first axes are those of the bins, and mark the known bins."""
        raise NotImplementedError

    def _estimator(self):
        return self._default_estimator() if self.estimator is None else self.estimator

    def _fit(self, X, y, fit_params):
        """Fit a clone of `estimator` to the bins whose targets are known."""
        with unchanged_if_failed(self):
            self._check_kind()
            bins = self._check_features(X, reset=True)
            targets, known = self._check_targets(y, bins)
            features, used = self._rows(X, bins, known)
            metadata = self._route(fit_params, used)
            self._target_shape = targets.shape[bins.ndim - 1 :]  # () or (n_targets,)
            self.estimator_ = clone(self._estimator()).fit(features, targets[used], **metadata)
        return self

    def _apply(self, method, X):
        """Return the bins of `X`, and what a method of the fitted estimator returns for them."""
        check_is_fitted(self)
        bins = self._check_features(X, reset=False)
        features, _ = self._rows(X, bins)
        return bins, np.asarray(getattr(self.estimator_, method)(features))

    def _check_kind(self):
        """Refuse an estimator of another kind than this class takes."""
        inner = self._estimator()
        kind = get_tags(inner).estimator_type
        if kind not in (None, self._kind):
            raise TypeError(
                f"{type(self).__name__} needs a {self._kind}, but {type(inner).__name__} is of "
                f"type {kind!r}. " + ALTERNATIVES.get(kind, f"Pass a {self._kind}.")
            )

    def _check_features(self, X, *, reset):
        """Return `X` as a numeric array, 2D or 3D, NaN allowed; check its features."""
        bins = check_array(
            as_array(X),
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
        # Features are counted on the last axis; only 2D dataframes have names.
        rows = X if hasattr(X, "columns") else bins.reshape(-1, bins.shape[-1])
        validate_data(self, rows, reset=reset, skip_check_array=True)
        return bins

    def _rows(self, X, bins, known=None):
        """Return the features that `estimator` sees, one row per bin, and mark these bins.

        `X` is the user's input, `bins` the same after its checks. In fit, `known` marks the bins
        whose targets are known; in predict it is None, and every bin gets a row.
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
            first, last = first_and_last_bin(trials)
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
        """Return the metadata that `estimator` requests in fit, for the bins in `used`."""
        if not fit_params:
            return {}
        if not get_config()["enable_metadata_routing"]:
            raise ValueError(
                f"{type(self).__name__}.fit got {sorted(fit_params)}, which it passes on only if "
                "sklearn.set_config(enable_metadata_routing=True) is set and estimator requests "
                "them, as with estimator.set_fit_request(sample_weight=True)."
            )
        routed = process_routing(self, "fit", **fit_params)["estimator"]["fit"]
        return {name: cut_metadata(value, used) for name, value in routed.items()}


def first_and_last_bin(trials):
    """Find the first and last bin of each trial; padding is NaN in all features."""
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


def cut_metadata(value, used):
    """Select the bins in `used` of metadata per bin or per trial; return others as they are."""
    shape = np.shape(value)
    if shape[: used.ndim] == used.shape:
        return np.asarray(value)[used]
    if used.ndim == 2 and shape == used.shape[:1]:
        return np.asarray(value)[np.nonzero(used)[0]]
    return value
