"""Causal baselines: a Kalman filter of factors, and forecasts of counts.

Each is tuned on training trials, and treats NaN as `STNDTEstimator` does.
"""

from itertools import product

import numpy as np
from baselines import GaussianSmoother, _bins, _glm_path, _path_losses
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import FactorAnalysis
from sklearn.model_selection import KFold
from sklearn.utils.validation import check_is_fitted

from sklearn_stndt.metrics import bits_per_spike

_SMALLEST_RATE = 1e-9


class KalmanFilter(TransformerMixin, BaseEstimator):
    r"""Latents of a linear dynamical system, inferred from each bin and earlier ones.

    .. math:: x_{t+1} = A x_t + w_t,\quad y_t = \mu + C x_t + v_t

    C and the variances of v are those of factor analysis. A is the covariance of latents in
    neighbouring bins, which private noise does not affect, times the inverse of that within a bin.

    Parameters
    ----------
    n_factors : int, default=8
        Number of latents.

    width : float, default=0.0
        Standard deviation of the Gaussian with which the training counts are smoothed before
        factor analysis, in bins. The variances of v are always those of counts.

    Attributes
    ----------
    mean_, noise_ : ndarray of shape (n_neurons,)
    loadings_ : ndarray of shape (n_neurons, n_factors)
    transition_ : ndarray of shape (n_factors, n_factors)
    """

    def __init__(self, n_factors=8, *, width=0.0):
        self.n_factors = n_factors
        self.width = width

    def fit(self, X, y=None):
        """Fit to trials, (n_trials, n_bins, n_neurons); `y` is ignored."""
        X = np.asarray(X, dtype=float)
        known = ~np.isnan(X).any(axis=-1)  # (n_trials, n_bins)
        smoothed = GaussianSmoother(self.width).fit_transform(X)
        factors = FactorAnalysis(self.n_factors, random_state=0).fit(smoothed[known])
        self.mean_, C = X[known].mean(axis=0), factors.components_.T
        variance = X[known].var(axis=0)
        noise = np.maximum(variance - (C**2).sum(axis=1), 0.1 * variance + 1e-6)
        information = C.T @ (C / noise[:, None])
        # unbiased estimates of the latents in each bin, with errors that are independent over bins
        latents = (np.nan_to_num(X - self.mean_) / noise) @ C @ np.linalg.inv(information)
        pairs = known[:, 1:] & known[:, :-1]
        lagged = latents[:, 1:][pairs].T @ latents[:, :-1][pairs] / pairs.sum()
        within = np.cov(latents[known].T).reshape(lagged.shape) - np.linalg.inv(information)
        values, vectors = np.linalg.eigh(within)
        values = np.maximum(values, 0.05 * values.max())
        # in units in which the latents have unit covariance
        root = vectors * np.sqrt(values)
        whiten = (vectors / np.sqrt(values)).T
        left, singular, right = np.linalg.svd(whiten @ lagged @ whiten.T)
        self.transition_ = (left * np.minimum(singular, 0.999)) @ right
        self.loadings_, self.noise_ = C @ root, noise
        return self

    def transform(self, X):
        """Return filtered latents, (n_trials, n_bins, n_factors)."""
        check_is_fitted(self)
        X = np.asarray(X, dtype=float)
        A, C, n = self.transition_, self.loadings_, self.n_factors
        added = np.eye(n) - A @ A.T
        x, P = np.zeros((len(X), n)), np.broadcast_to(np.eye(n), (len(X), n, n))
        filtered = np.empty((*X.shape[:2], n))
        products = (C[:, :, None] * C[:, None]).reshape(len(C), n * n)
        for t in range(X.shape[1]):
            if t:
                x, P = x @ A.T, A @ P @ A.T + added
            weight = ~np.isnan(X[:, t]) / self.noise_  # (n_trials, n_neurons)
            gained = (weight @ products).reshape(-1, n, n)
            gap = np.nan_to_num(X[:, t] - self.mean_) * weight
            P = np.linalg.inv(np.linalg.inv(P) + gained)
            error = (gap @ C)[..., None] - gained @ x[..., None]
            x = x + (P @ error)[..., 0]
            filtered[:, t] = x
        return filtered


class KalmanRates(TransformerMixin, BaseEstimator):
    """Poisson GLM of each neuron on the latents of a `KalmanFilter`.

    The GLM of a neuron is fitted to entries that were hidden from the filter, so that it does not
    learn to copy them. Number of latents, smoothing before factor analysis and penalties are chosen
    by the likelihood of hidden entries in three-fold cross-validation over training trials.

    Parameters
    ----------
    heldout_neurons : array-like of int, default=None
        Neurons that are hidden. None: single entries are, in five masks.

    forecast_bins : int, default=0
        Bins at the end of trials that are hidden in all neurons, instead.

    n_factors, widths, alphas : sequences
        Candidates: numbers of latents, standard deviations in bins, L2 penalties.

    Attributes
    ----------
    filter_ : KalmanFilter
    glms_ : list of regressors
        One for each neuron.
    """

    def __init__(
        self,
        heldout_neurons=None,
        *,
        forecast_bins=0,
        n_factors=(4, 8, 12),
        widths=(0.0, 2.0),
        alphas=(1e-3, 1e-2),
    ):
        self.heldout_neurons = heldout_neurons
        self.forecast_bins = forecast_bins
        self.n_factors = n_factors
        self.widths = widths
        self.alphas = alphas

    def _hidden(self, X):
        """Masks of entries that are hidden together."""
        if self.heldout_neurons is not None:
            mask = np.zeros(X.shape, dtype=bool)
            mask[..., self.heldout_neurons] = True
            return [mask]
        if self.forecast_bins:
            mask = np.zeros(X.shape, dtype=bool)
            mask[:, X.shape[1] - self.forecast_bins :] = True
            return [mask]
        fold = np.random.default_rng(0).integers(5, size=X.shape)
        return [fold == k for k in range(5)]

    def _targets(self, kalman, X):
        """For each neuron: latents and counts of its hidden entries."""
        masks = self._hidden(X)
        latents = [kalman.transform(np.where(mask, np.nan, X)) for mask in masks]
        for neuron in range(X.shape[-1]):
            chosen = [mask[..., neuron] for mask in masks]
            features = [x[c] for x, c in zip(latents, chosen, strict=True)]
            yield np.concatenate(features), np.concatenate([X[c, neuron] for c in chosen])

    def fit(self, X, y=None):
        """Tune and fit to trials, (n_trials, n_bins, n_neurons); `y` is ignored."""
        X = np.asarray(X, dtype=float)
        alphas, best_loss = np.sort(self.alphas)[::-1], np.inf
        for n, width in product(self.n_factors, self.widths):
            losses = np.zeros((X.shape[-1], len(alphas)))
            for train, rest in KFold(3, shuffle=True, random_state=0).split(X):
                kalman = KalmanFilter(n, width=width).fit(X[train])
                targets = self._targets(kalman, X[train]), self._targets(kalman, X[rest])
                for neuron, (fitted, scored) in enumerate(zip(*targets, strict=True)):
                    if len(fitted[1]):
                        losses[neuron] += _path_losses(*fitted, *scored, alphas)
            if losses.min(axis=1).sum() < best_loss:
                best_loss, best = losses.min(axis=1).sum(), (n, width)
                best_alphas = alphas[losses.argmin(axis=1)]
        self.filter_ = KalmanFilter(best[0], width=best[1]).fit(X)
        self.glms_ = [
            next(_glm_path(*pair, [alpha])) if len(pair[1]) else None
            for pair, alpha in zip(self._targets(self.filter_, X), best_alphas, strict=True)
        ]
        return self

    def transform(self, X):
        """Return rates of the shape of `X`; NaN for neurons that were never hidden."""
        check_is_fitted(self)
        latents = self.filter_.transform(X)
        rates = np.full(np.shape(X), np.nan)
        for neuron, glm in enumerate(self.glms_):
            if glm is not None:
                rates[..., neuron] = glm.predict(_bins(latents)).reshape(latents.shape[:2])
        return np.maximum(rates, _SMALLEST_RATE)


class HeldRates(TransformerMixin, BaseEstimator):
    """Forecast by the last rate, from counts smoothed with half of a Gaussian.

    Parameters
    ----------
    forecast_bins : int
        Bins at the end of trials that are forecast.

    widths, priors : sequences of float
        Candidates, see `GaussianSmoother`; chosen by the likelihood of training trials.

    Attributes
    ----------
    smoother_ : GaussianSmoother
    """

    def __init__(self, forecast_bins, *, widths=(1, 2, 4, 8, 16), priors=(0.03, 0.1, 0.3, 1, 3)):
        self.forecast_bins = forecast_bins
        self.widths = widths
        self.priors = priors

    def fit(self, X, y=None):
        """Tune to trials, (n_trials, n_bins, n_neurons); `y` is ignored."""
        candidates = [
            GaussianSmoother(width, prior=prior, causal=True).fit(X)
            for width, prior in product(self.widths, self.priors)
        ]
        self.smoother_ = max(candidates, key=lambda smoother: self._score(smoother, X))
        return self

    def _score(self, smoother, X):
        n = self.forecast_bins
        return bits_per_spike(X[:, -n:], self._hold(smoother, X)[:, -n:])

    def _hold(self, smoother, X):
        n_seen = X.shape[1] - self.forecast_bins
        rates = smoother.transform(X)
        rates[:, n_seen:] = rates[:, n_seen - 1 : n_seen]
        return rates

    def transform(self, X):
        """Return rates of the shape of `X`."""
        check_is_fitted(self)
        return np.maximum(self._hold(self.smoother_, X), _SMALLEST_RATE)


class MeanCourse(TransformerMixin, BaseEstimator):
    """Mean over training trials in each bin (PSTH), smoothed along bins.

    The width of the Gaussian and the weight of the mean rate are chosen by the likelihood of the
    last bins of trials in five-fold cross-validation.

    Parameters
    ----------
    forecast_bins : int
        Bins at the end of trials that are forecast.

    Attributes
    ----------
    course_ : ndarray of shape (n_bins, n_neurons)
    """

    def __init__(self, forecast_bins, *, widths=(0, 1, 2, 4), priors=(0.03, 0.1, 0.3, 1.0)):
        self.forecast_bins = forecast_bins
        self.widths = widths
        self.priors = priors

    def fit(self, X, y=None):
        """Tune and fit to trials, (n_trials, n_bins, n_neurons); `y` is ignored."""
        n, folds = self.forecast_bins, list(KFold(5).split(X))
        candidates = [GaussianSmoother(w, prior=p) for w, p in product(self.widths, self.priors)]

        def score(smoother):
            return sum(
                bits_per_spike(
                    X[rest][:, -n:],
                    np.broadcast_to(_course(smoother, X[train]), X[rest].shape)[:, -n:],
                )
                for train, rest in folds
            )

        self.course_ = _course(max(candidates, key=score), X)
        return self

    def transform(self, X):
        """Return the same rates for each trial."""
        check_is_fitted(self)
        return np.broadcast_to(self.course_, np.shape(X))


def _course(smoother, X):
    return np.maximum(smoother.fit_transform(np.nanmean(X, axis=0)), _SMALLEST_RATE)


class AutoregressiveGLM(TransformerMixin, BaseEstimator):
    """Linear autoregressive Poisson model: each later bin from the smoothed counts of all neurons.

    A Poisson GLM for each neuron and distance predicts its count from the counts of all neurons
    up to a bin, smoothed with half of a Gaussian. It is fitted to every bin of the training
    trials. Width and penalties are chosen by the likelihood of the last bins of a fifth of them.

    Parameters
    ----------
    forecast_bins : int
        Bins at the end of trials that are forecast.

    widths, alphas : sequences of float
        Candidates: standard deviations in bins, L2 penalties.

    Attributes
    ----------
    smoother_ : GaussianSmoother
    glms_ : list of list of regressors
        For each distance and neuron.
    """

    def __init__(self, forecast_bins, *, widths=(2, 5), alphas=(1e-2, 1e-1, 1.0)):
        self.forecast_bins = forecast_bins
        self.widths = widths
        self.alphas = alphas

    def fit(self, X, y=None):
        """Tune and fit to trials, (n_trials, n_bins, n_neurons); `y` is ignored."""
        X = np.asarray(X, dtype=float)
        n_fit, last = int(0.8 * len(X)), X.shape[1] - self.forecast_bins - 1
        alphas, best_loss = np.sort(self.alphas)[::-1], np.inf
        distances = range(1, self.forecast_bins + 1)
        for width in self.widths:
            smoother = GaussianSmoother(width, causal=True).fit(X)
            smoothed = smoother.transform(X)
            losses = np.zeros((X.shape[-1], len(alphas)))
            for distance in distances[::4]:
                train, rest = smoothed[:n_fit, :-distance], smoothed[n_fit:, last]
                for neuron in range(X.shape[-1]):
                    losses[neuron] += _path_losses(
                        _bins(train),
                        X[:n_fit, distance:, neuron].ravel(),
                        rest,
                        X[n_fit:, last + distance, neuron],
                        alphas,
                    )
            if losses.min(axis=1).sum() < best_loss:
                best_loss, self.smoother_ = losses.min(axis=1).sum(), smoother
                best_alphas = alphas[losses.argmin(axis=1)]
        smoothed = self.smoother_.transform(X)
        self.glms_ = [
            [
                next(_glm_path(_bins(smoothed[:, :-distance]), counts, [alpha]))
                for counts, alpha in zip(_bins(X[:, distance:]).T, best_alphas, strict=True)
            ]
            for distance in distances
        ]
        return self

    def transform(self, X):
        """Return rates of the shape of `X`, smoothed before the forecast."""
        check_is_fitted(self)
        rates = self.smoother_.transform(X)
        n_seen = X.shape[1] - self.forecast_bins
        now = rates[:, n_seen - 1]
        for later, glms in enumerate(self.glms_):
            rates[:, n_seen + later] = np.stack([glm.predict(now) for glm in glms], axis=-1)
        return np.maximum(rates, _SMALLEST_RATE)
