"""BinwiseRegressor and BinwiseClassifier: scikit-learn decoders applied to trials."""

from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if

from sklearn_stndt.decoding._base import BinwiseDecoder, cut_metadata
from sklearn_stndt.decoding._targets import check_labels, check_numbers, known_targets

__all__ = ["BinwiseClassifier", "BinwiseRegressor"]


def _estimator_has(method):
    """Condition of `available_if`: the inner estimator, fitted if possible, has the method."""

    def check(self):
        inner = self.estimator_ if hasattr(self, "estimator_") else self._estimator()
        getattr(inner, method)  # raises an AttributeError that names the inner estimator
        return True

    return check


class BinwiseRegressor(RegressorMixin, BinwiseDecoder):
    """Apply any scikit-learn regressor to the bins of trials.

    A decoder predicts behaviour, such as the velocity of the hand, from the firing rates of each
    bin. scikit-learn's regressors expect one row per bin; recordings come in trials, which must
    stay whole in cross-validation. This estimator takes trials, passes their bins to `estimator`,
    and returns its predictions as trials, so that every fold of `cross_val_score` and
    `GridSearchCV` holds whole trials. Behaviour follows neural activity with a delay, which is
    set by `lag`, and may depend on more than one bin, which is set by `history`.

    Parameters
    ----------
    estimator : regressor, default=None
        The regressor that sees one row per bin. None means :class:`~sklearn.linear_model.Ridge`
        with its defaults. Its parameters are set as ``estimator__alpha``.

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
    BinwiseClassifier : The same for labels, such as choices and stimuli.
    sklearn.linear_model.Ridge : The default regressor.
    sklearn.multioutput.MultiOutputRegressor : For regressors that predict a single target.

    Notes
    -----
    With `lag` ``L`` and `history` ``H``, the prediction for bin ``t`` of a trial is made from the
    features of its *source bin* ``s = t - L`` and of the bins before it, in this order: all
    features of ``s``, all of ``s - 1``, and so on to ``s - H``. No other trial is used:

    - In fit, a bin whose source lies outside its trial is left out. In predict, it gets the
      prediction of the nearest source: the first `L` bins repeat that of bin `L` (with a negative
      lag, the last bins repeat). It is not NaN because no scorer accepts NaN.
    - History that reaches back beyond the first bin of a trial repeats the first bin.

    NaN marks missing values. A bin with a NaN among its targets enters neither fit nor score.
    Bins at the beginning and end of a trial whose features are all NaN are padding, as in trials
    of unequal length, and do not belong to the trial. Any other NaN in `X` is passed to
    `estimator`, and most estimators refuse it.

    A 2D `X` is one continuous recording, its rows in order of time, and counts as a single trial.
    Without lag and history it is passed to `estimator` in its own container, such as a dataframe.

    ``scoring="r2"`` does not work on trials: scikit-learn's metric refuses 3D targets, and the
    scores are NaN. Leave `scoring` at None, which calls :meth:`score`.

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

    _kind = "regressor"

    @_fit_context(prefer_skip_nested_validation=False)
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
            Metadata for the `fit` of `estimator`, only with
            ``sklearn.set_config(enable_metadata_routing=True)``. One value per bin, of shape
            (n_bins,) or (n_trials, n_bins), is selected with the bins; one value per trial, of
            shape (n_trials,), applies to all bins of the trial; others are passed unchanged.

        Returns
        -------
        self : BinwiseRegressor
            The fitted regressor.

        Raises
        ------
        TypeError
            If `X` or `y` is sparse, if `estimator` is not a regressor, or if `fit_params` are not
            requested by it.
        ValueError
            If `X` is neither 2D nor 3D, if `y` does not fit `X`, if `X` or `y` is complex,
            infinite or not numeric, if `X` holds NaN and `estimator` refuses it, if a trial is NaN
            throughout, if no bin with a known target is left, or if `lag` exceeds the trials.
        """
        return self._fit(X, y, fit_params)

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
            infinite or not numeric, holds NaN that `estimator` refuses, if a trial is NaN
            throughout, or if `lag` exceeds the trials.
        """
        bins, prediction = self._apply("predict", X)
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
        bins, prediction = self._apply("predict", X)
        targets, known = self._check_targets(y, bins)
        prediction = prediction.reshape(*known.shape, -1)[known]  # (known bins, targets)
        truth = targets.reshape(*known.shape, -1)[known]  # (known bins, targets)
        if truth.shape != prediction.shape:
            raise ValueError(
                f"y has {truth.shape[1]} targets, but BinwiseRegressor was fitted with "
                f"{prediction.shape[1]}; pass the targets of fit."
            )
        weight = None if sample_weight is None else cut_metadata(sample_weight, known)
        return r2_score(truth, prediction, sample_weight=weight)

    def _default_estimator(self):
        return Ridge()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = get_tags(self._estimator())
        if inner.regressor_tags is not None:
            tags.regressor_tags = inner.regressor_tags
        return tags

    def _check_targets(self, y, bins):
        targets = check_numbers(y, bins.shape[:-1])
        return targets, known_targets(targets, bins.ndim - 1)


class BinwiseClassifier(ClassifierMixin, BinwiseDecoder):
    """Apply any scikit-learn classifier to the bins of trials.

    The choice of an animal, or the stimulus that it saw, is often decoded at each time in a
    trial. This estimator takes trials, passes their bins to `estimator`, one row per bin, and
    returns its predictions as trials, so that every fold of `cross_val_score` and `GridSearchCV`
    holds whole trials. It is the counterpart of :class:`BinwiseRegressor` for labels.

    Parameters
    ----------
    estimator : classifier, default=None
        The classifier that sees one row per bin. None means
        :class:`~sklearn.linear_model.LogisticRegression` with its defaults. Its parameters are
        set as ``estimator__C``.

    lag : int, default=0
        Bins by which the labels follow the features, as in :class:`BinwiseRegressor`.

    history : int, default=0
        Number of past bins whose features are appended to those of each bin.

    Attributes
    ----------
    estimator_ : classifier
        The fitted classifier.

    classes_ : ndarray of shape (n_classes,)
        The labels that were known in fit.

    n_features_in_ : int
        Number of features of a bin, the length of the last axis of `X`, without history.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, where `X` was a 2D dataframe whose column names are all strings.

    See Also
    --------
    BinwiseRegressor : The same for numbers, such as velocity.
    sklearn.linear_model.LogisticRegression : The default classifier.

    Notes
    -----
    `y` holds one label per bin or one label per trial. The label of a trial is the label of all
    of its bins, except those that are padding; there is still one prediction per bin, and
    :meth:`score` is the accuracy over all bins. One classifier serves all bins of a trial: leave
    out the bins before the label is encoded. For one prediction per trial, average the rates of
    each trial over bins, and use a classifier of scikit-learn.

    NaN, None and pandas' NA mark unknown labels. Bins with an unknown label enter neither fit nor
    score. `lag`, `history`, padding and a 2D `X` are treated as in :class:`BinwiseRegressor`.

    An integer `cv` depends on `y`, as for every classifier of scikit-learn:

    - One label per trial: folds of trials, stratified by label.
    - One label per bin of trials: folds of consecutive trials.
    - One label per bin of a recording: stratified folds of bins, which are *not* contiguous in
      time. Pass ``cv=KFold(5)``, which does not shuffle.
    - Unknown labels: scikit-learn refuses NaN in `y` when it chooses the folds. Pass
      ``cv=KFold(5)``.

    Leave `scoring` at None, which calls :meth:`score`, if `X` is 3D. scikit-learn's
    ``scoring="accuracy"`` fails there, or, with labels 0 and 1 in each bin, counts the trials in
    which all bins are correct.

    ``cross_val_predict`` with ``method="predict_proba"`` (or the other methods that need classes)
    encodes `y` as integers before fit. This is correct for one known label per trial. It is wrong
    for one label per bin of trials, where each bin is encoded separately, and for unknown labels,
    which become a class; fit and predict in each fold of ``KFold(5).split(X)`` instead.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import cross_val_predict, cross_val_score
    >>> from sklearn_stndt import BinwiseClassifier
    >>> rng = np.random.default_rng(0)
    >>> choice = rng.choice(["left", "right"], size=60)  # one label per trial
    >>> rates = rng.gamma(2.0, size=(60, 25, 8))  # trials, bins, neurons
    >>> rates[choice == "right", 15:, :4] += 3.0  # the choice is encoded late in the trial
    >>> decoder = BinwiseClassifier().fit(rates, choice)
    >>> decoder.predict(rates).shape, decoder.predict_proba(rates).shape
    ((60, 25), (60, 25, 2))
    >>> bool(cross_val_score(decoder, rates[:, 15:], choice, cv=5).mean() > 0.9)
    True

    Accuracy in each bin:

    >>> correct = cross_val_predict(decoder, rates, choice, cv=5) == choice[:, None]
    >>> bool(correct[:, :15].mean() < 0.6), bool(correct[:, 15:].mean() > 0.8)
    (True, True)
    """

    _kind = "classifier"

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, **fit_params):
        """Fit the classifier on the bins of all trials.

        Parameters
        ----------
        X : array-like of shape (n_bins, n_features) or (n_trials, n_bins, n_features)
            Features of each bin, such as firing rates.

        y : array-like of shape (n_bins,), (n_trials,) or (n_trials, n_bins)
            Label of each bin, or of each trial where `X` is 3D: strings, integers or booleans;
            NaN or None where it is unknown.

        **fit_params : dict
            Metadata for the `fit` of `estimator`, as in :meth:`BinwiseRegressor.fit`.

        Returns
        -------
        self : BinwiseClassifier
            The fitted classifier.

        Raises
        ------
        TypeError
            If `X` or `y` is sparse, if `estimator` is not a classifier, or if `fit_params` are not
            requested by it.
        ValueError
            If `X` is neither 2D nor 3D, is complex, infinite or not numeric, or holds NaN that
            `estimator` refuses; if a trial is NaN throughout; if `y` does not fit `X`, holds
            several labels per bin, labels of several types, or numbers that are not integers; if
            fewer labels are known than `estimator` needs; or if `lag` exceeds the trials.
        """
        self._fit(X, y, fit_params)
        self.classes_ = self.estimator_.classes_
        return self

    def predict(self, X):
        """Predict the label of each bin.

        Parameters
        ----------
        X : array-like of shape (n_bins, n_features) or (n_trials, n_bins, n_features)
            Features of each bin; trials may be longer or shorter than in fit.

        Returns
        -------
        y_pred : ndarray of shape (n_bins,) or (n_trials, n_bins)
            Label of each bin of `X`, padding included.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before fit.
        TypeError
            If `X` is sparse.
        ValueError
            If `X` is not as in fit, or if `lag` exceeds the trials.
        """
        return self._output("predict", X)

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X):
        """Predict the probability of each class in each bin.

        Available if `estimator` has `predict_proba`.

        Parameters
        ----------
        X : array-like of shape (n_bins, n_features) or (n_trials, n_bins, n_features)
            Features of each bin.

        Returns
        -------
        proba : ndarray of shape (n_bins, n_classes) or (n_trials, n_bins, n_classes)
            Probabilities, in the order of `classes_`.
        """
        return self._output("predict_proba", X)

    @available_if(_estimator_has("predict_log_proba"))
    def predict_log_proba(self, X):
        """Predict the logarithm of the probability of each class in each bin.

        Available if `estimator` has `predict_log_proba`.

        Parameters
        ----------
        X : array-like of shape (n_bins, n_features) or (n_trials, n_bins, n_features)
            Features of each bin.

        Returns
        -------
        log_proba : ndarray of shape (n_bins, n_classes) or (n_trials, n_bins, n_classes)
            Log-probabilities, in the order of `classes_`.
        """
        return self._output("predict_log_proba", X)

    @available_if(_estimator_has("decision_function"))
    def decision_function(self, X):
        """Compute the decision function of the classifier in each bin.

        Available if `estimator` has `decision_function`.

        Parameters
        ----------
        X : array-like of shape (n_bins, n_features) or (n_trials, n_bins, n_features)
            Features of each bin.

        Returns
        -------
        decision : ndarray of shape (n_bins,), (n_bins, n_classes), (n_trials, n_bins) or \
                (n_trials, n_bins, n_classes)
            Output of `estimator`; with two classes usually one value, positive for
            ``classes_[1]``.
        """
        return self._output("decision_function", X)

    def score(self, X, y, sample_weight=None):
        """Accuracy: fraction of bins whose label is predicted correctly.

        Parameters
        ----------
        X : array-like of shape (n_bins, n_features) or (n_trials, n_bins, n_features)
            Features of each bin.

        y : array-like of shape (n_bins,), (n_trials,) or (n_trials, n_bins)
            Label of each bin, or of each trial; bins with an unknown label do not count, nor does
            the padding of labelled trials.

        sample_weight : array-like of shape (n_bins,), (n_trials,) or (n_trials, n_bins), \
                default=None
            Weight of each bin, or of each trial.

        Returns
        -------
        score : float
            Accuracy over the bins of all trials together. All bins with known labels count, those
            without a source bin among them, as in :meth:`BinwiseRegressor.score`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before fit.
        TypeError
            If `X` or `y` is sparse.
        ValueError
            As in fit and predict.
        """
        bins, prediction = self._apply("predict", X)
        labels, known = self._check_targets(y, bins)
        weight = None if sample_weight is None else cut_metadata(sample_weight, known)
        prediction = prediction.reshape(known.shape)[known]
        return accuracy_score(labels[known], prediction, sample_weight=weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = get_tags(self._estimator())
        if inner.classifier_tags is not None:
            tags.classifier_tags = inner.classifier_tags
        tags.classifier_tags.multi_label = False
        tags.target_tags.multi_output = False
        return tags

    def _default_estimator(self):
        return LogisticRegression()

    def _check_targets(self, y, bins):
        return check_labels(y, bins)

    def _output(self, method, X):
        bins, values = self._apply(method, X)
        return values.reshape(*bins.shape[:-1], *values.shape[1:])
