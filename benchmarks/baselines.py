"""Simple baselines for inferred rates: Gaussian smoothing, factor analysis and Poisson GLMs.

All are tuned, and treat NaN as `STNDTEstimator` does, so that the same code scores all models.
"""

from itertools import product

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.decomposition import FactorAnalysis
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import PoissonRegressor
from sklearn.model_selection import KFold
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

from sklearn_stndt.metrics import bits_per_spike

# Lower bound of predicted rates: the score of a spike at a rate of 0 is minus infinity.
_SMALLEST_RATE = 1e-9


def co_bps(model, X, heldout):
    """Bits per spike of the neurons `heldout`, which are NaN in the input of `model`.

    Parameters
    ----------
    model : fitted transformer from counts to rates
        Treats NaN in its input as hidden entries.

    X : ndarray of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
        Spike counts per bin, not used in fit.

    heldout : array-like of int
        Indices of the held-out neurons.
    """
    hidden = np.array(X, dtype=float)
    hidden[..., heldout] = np.nan
    rates = np.asarray(model.transform(hidden))
    return bits_per_spike(np.asarray(X)[..., heldout], rates[..., heldout])


class GaussianSmoother(TransformerMixin, BaseEstimator):
    """Gaussian smoothing of counts along bins, within trials.

    The kernel is normalised over visible bins. So neither the edges of a trial nor NaN bias rates
    towards 0, and hidden entries are filled from the visible bins around them.

    Parameters
    ----------
    width : float, default=2.0
        Standard deviation of the kernel, in bins. At 0, visible counts are unchanged.

    prior : float, default=0.0
        Weight of the neuron's mean count, relative to the kernel, whose weights sum to 1 if all
        bins are visible. Keeps rates above 0 where there are no spikes within the kernel.

    causal : bool, default=False
        Use the half of the kernel that reaches back from each bin.

    Attributes
    ----------
    mean_ : ndarray of shape (n_neurons,)
        Mean count per bin over visible entries; the rate where no bin of the kernel is visible.
    """

    def __init__(self, width=2.0, *, prior=0.0, causal=False):
        self.width = width
        self.prior = prior
        self.causal = causal

    def fit(self, X, y=None):
        """Store the mean count of each neuron; `y` is ignored."""
        X = np.asarray(X, dtype=float)
        X = X.reshape(-1, X.shape[-1])
        visible = ~np.isnan(X)
        # The mean of a neuron that is never visible is 0, without a warning.
        self.mean_ = np.where(visible, X, 0.0).sum(axis=0) / np.maximum(visible.sum(axis=0), 1)
        return self

    def transform(self, X):
        """Return rates of the shape of `X`, in expected counts per bin, without NaN."""
        check_is_fitted(self)
        X = np.asarray(X, dtype=float)
        visible = ~np.isnan(X)
        counts = self._filter(np.where(visible, X, 0.0))
        weight = self._filter(visible.astype(float))
        counts, weight = counts + self.prior * self.mean_, weight + self.prior
        unreached = weight < _SMALLEST_RATE
        return np.where(unreached, self.mean_, counts / np.where(unreached, 1.0, weight))

    def _filter(self, values):
        if self.width == 0:
            return values
        if self.causal:
            half = np.exp(-0.5 * (np.arange(int(4 * self.width) + 1) / self.width) ** 2)
            return lfilter(half / half.sum(), [1.0], values, axis=-2)
        return gaussian_filter1d(values, self.width, axis=-2, mode="constant")


def tune_smoother(
    X, widths=(1, 1.5, 2, 3, 4, 6, 8, 12), priors=(0.03, 0.1, 0.3, 1.0), *, causal=False
):
    """Choose width and prior of a `GaussianSmoother` by bits per spike of hidden entries.

    Single entries are hidden, each in one of five fixed masks, and predicted from the bins around
    them.

    Parameters
    ----------
    X : ndarray of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
        Spike counts per bin, NaN where missing.

    widths, priors : sequences of float
        Candidates.

    causal : bool, default=False
        As in `GaussianSmoother`.

    Returns
    -------
    smoother : GaussianSmoother
        The best one, fitted to `X`.
    """
    X = np.asarray(X, dtype=float)
    fold = np.random.default_rng(0).integers(5, size=X.shape)
    best, best_score = None, -np.inf
    for width, prior in product(widths, priors):
        smoother = GaussianSmoother(width, prior=prior, causal=causal).fit(X)
        rates = np.empty_like(X)
        for k in range(5):
            hidden = fold == k
            rates[hidden] = smoother.transform(np.where(hidden, np.nan, X))[hidden]
        score = bits_per_spike(X, rates)
        if score > best_score:
            best, best_score = smoother, score
    return best


class FactorSmoother(TransformerMixin, BaseEstimator):
    """Rates from factor analysis of the square roots of smoothed counts.

    Width and number of factors are chosen by bits per spike of entries that were hidden in five
    fixed masks. They are filled from the bins around them before the factors are inferred.

    Parameters
    ----------
    widths, n_factors : sequences
        Candidate standard deviations of the Gaussian, in bins, and numbers of factors.

    Attributes
    ----------
    smoother_, factors_ : transformers
        The best smoother and factor analysis, fitted.
    """

    def __init__(self, *, widths=(1, 1.5, 2, 3, 4, 6), n_factors=(2, 3, 4, 6, 8, 12)):
        self.widths = widths
        self.n_factors = n_factors

    def fit(self, X, y=None):
        """Tune and fit to counts; `y` is ignored."""
        X = np.asarray(X, dtype=float)
        fold = np.random.default_rng(0).integers(5, size=X.shape)
        best_score = -np.inf
        for width in self.widths:
            smoother = GaussianSmoother(width, prior=0.1).fit(X)
            folds = [smoother.transform(np.where(fold == k, np.nan, X)) for k in range(5)]
            for n in self.n_factors:
                if n >= X.shape[-1]:
                    continue
                factors = FactorAnalysis(n, svd_method="lapack").fit(
                    np.sqrt(_bins(smoother.transform(X)))
                )
                rates = np.empty_like(X)
                for k, smoothed in enumerate(folds):
                    rates[fold == k] = _reconstruct(factors, smoothed)[fold == k]
                score = bits_per_spike(X, rates)
                if score > best_score:
                    best_score, self.smoother_, self.factors_ = score, smoother, factors
        return self

    def transform(self, X):
        """Return rates of the shape of `X`, NaN nowhere."""
        check_is_fitted(self)
        return _reconstruct(self.factors_, self.smoother_.transform(X))


def _reconstruct(factors, smoothed):
    """Rates predicted from the posterior mean of the factors."""
    roots = factors.transform(np.sqrt(_bins(smoothed))) @ factors.components_ + factors.mean_
    return np.maximum(roots, 1e-3).reshape(smoothed.shape) ** 2


class PoissonSmoother(TransformerMixin, BaseEstimator):
    """Poisson GLM of each neuron on the smoothed counts of all others.

    Width and penalties are chosen by the likelihood of the last fifth of the trials or bins.

    Parameters
    ----------
    widths, alphas : sequences of float
        Candidate standard deviations of the Gaussian, in bins, and L2 penalties.

    Attributes
    ----------
    smoother_ : GaussianSmoother
        The best smoother, fitted.

    glms_ : list of regressors
        One per neuron.
    """

    def __init__(self, *, widths=(1.5, 3, 6), alphas=(1e-3, 1e-2, 1e-1)):
        self.widths = widths
        self.alphas = alphas

    def fit(self, X, y=None):
        """Tune and fit to counts; `y` is ignored."""
        X = np.asarray(X, dtype=float)
        n_fit = int(0.8 * len(X))
        alphas = np.sort(self.alphas)[::-1]
        best_loss = np.inf
        for width in self.widths:
            smoother = GaussianSmoother(width).fit(X)
            smoothed = smoother.transform(X)
            losses = np.empty((X.shape[-1], len(alphas)))
            for neuron in range(X.shape[-1]):
                others = np.delete(smoothed, neuron, axis=-1)
                losses[neuron] = _path_losses(
                    _bins(others[:n_fit]),
                    X[:n_fit, ..., neuron].ravel(),
                    _bins(others[n_fit:]),
                    X[n_fit:, ..., neuron].ravel(),
                    alphas,
                )
            if losses.min(axis=1).sum() < best_loss:
                best_loss = losses.min(axis=1).sum()
                best_alphas, self.smoother_ = alphas[losses.argmin(axis=1)], smoother
        smoothed = self.smoother_.transform(X)
        self.glms_ = [
            next(_glm_path(_bins(np.delete(smoothed, n, axis=-1)), X[..., n].ravel(), [alpha]))
            for n, alpha in enumerate(best_alphas)
        ]
        return self

    def transform(self, X):
        """Return rates of the shape of `X`, NaN nowhere."""
        check_is_fitted(self)
        smoothed = self.smoother_.transform(X)
        rates = [
            glm.predict(_bins(np.delete(smoothed, neuron, axis=-1)))
            for neuron, glm in enumerate(self.glms_)
        ]
        return np.maximum(np.stack(rates, axis=-1).reshape(smoothed.shape), _SMALLEST_RATE)


class PoissonCoSmoother(TransformerMixin, BaseEstimator):
    """Poisson GLM from smoothed held-in counts to each held-out neuron.

    Width, features and penalties are chosen by the likelihood of held-out neurons in five-fold
    cross-validation over training trials. Then all training trials are fitted. Each neuron has
    its own penalty, because the best one depends on its rate.

    Parameters
    ----------
    heldout_neurons : array-like of int
        Indices of the neurons to predict.

    widths, alphas : sequences of float
        Candidate standard deviations of the Gaussian, in bins, and L2 penalties.

    features : sequence of transformers, default=None
        Candidate transformations of the smoothed counts. None: no transformation.

    causal : bool, default=False
        Smooth with the half of the Gaussian that reaches back.

    random_state : int, RandomState instance or None, default=None
        Seed of the assignment of trials to folds.

    Attributes
    ----------
    smoother_, features_ : transformers
        The best smoother and transformation, fitted.

    alphas_ : ndarray of shape (n_heldout,)
        The best penalties.
    """

    def __init__(
        self,
        heldout_neurons,
        *,
        widths=(1.5, 2, 2.5, 3, 4, 6),
        alphas=(3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
        features=None,
        causal=False,
        random_state=None,
    ):
        self.heldout_neurons = heldout_neurons
        self.widths = widths
        self.alphas = alphas
        self.features = features
        self.causal = causal
        self.random_state = random_state

    def fit(self, X, y=None):
        """Tune and fit to trials of shape (n_trials, n_bins, n_neurons); `y` is ignored."""
        X = np.asarray(X, dtype=float)
        if X.ndim != 3 or len(X) < 5:
            raise ValueError(
                f"X has shape {X.shape}; pass at least five trials, (n_trials, n_bins, n_neurons)."
            )
        heldin = np.delete(X, self.heldout_neurons, axis=-1)
        heldout = X[..., self.heldout_neurons]
        # Strong penalties first: each solution is a good initial value for the next, weaker one.
        alphas = np.sort(self.alphas)[::-1]
        folds = list(KFold(5, shuffle=True, random_state=self.random_state).split(X))

        best_loss = np.inf
        for width in self.widths:
            smoother = GaussianSmoother(width, causal=self.causal).fit(heldin)
            smoothed = smoother.transform(heldin)
            for candidate in self.features or [FunctionTransformer()]:
                losses = sum(
                    _validation_losses(clone(candidate), smoothed, heldout, alphas, *fold)
                    for fold in folds
                )  # (held-out neurons, alphas)
                loss = losses.min(axis=1).sum()
                if loss < best_loss:
                    best_loss = loss
                    self.alphas_ = alphas[losses.argmin(axis=1)]
                    self.smoother_, self.features_ = smoother, clone(candidate)

        bins = self.features_.fit_transform(_bins(self.smoother_.transform(heldin)))
        self.glms_ = [
            next(_glm_path(bins, counts, [alpha]))
            for counts, alpha in zip(_bins(heldout).T, self.alphas_, strict=True)
        ]
        return self

    def transform(self, X):
        """Return rates of the shape of `X`, smoothed if held-in and predicted if held-out."""
        check_is_fitted(self)
        X = np.asarray(X, dtype=float)
        rates = np.empty_like(X)
        is_heldin = np.ones(X.shape[-1], dtype=bool)
        is_heldin[self.heldout_neurons] = False
        rates[..., is_heldin] = self.smoother_.transform(X[..., is_heldin])
        bins = self.features_.transform(_bins(rates[..., is_heldin]))
        predicted = np.column_stack([glm.predict(bins) for glm in self.glms_])
        rates[..., self.heldout_neurons] = predicted.reshape(*X.shape[:-1], -1)
        return np.maximum(rates, _SMALLEST_RATE)


def _validation_losses(features, smoothed, heldout, alphas, train, validation):
    """Poisson loss of validation trials, of shape (n_heldout, n_alphas)."""
    X_train = features.fit_transform(_bins(smoothed[train]))
    X_validation = features.transform(_bins(smoothed[validation]))
    losses = np.empty((heldout.shape[-1], len(alphas)))
    for neuron in range(heldout.shape[-1]):
        losses[neuron] = _path_losses(
            X_train,
            heldout[train, :, neuron].ravel(),
            X_validation,
            heldout[validation, :, neuron].ravel(),
            alphas,
        )
    return losses


def _path_losses(X_train, train_counts, X_validation, counts, alphas):
    """Poisson loss of one neuron's validation bins at each penalty."""
    losses = []
    for glm in _glm_path(X_train, train_counts, alphas):
        rates = np.maximum(glm.predict(X_validation), _SMALLEST_RATE)
        losses.append(np.nansum(rates - counts * np.log(rates)))
    return np.array(losses)


def _glm_path(X, counts, alphas):
    """Yield the GLM of one neuron for each penalty, each initialised with the previous one."""
    known = ~np.isnan(counts)
    if not counts[known].any():
        # A GLM would start at the logarithm of its mean rate, which is not finite.
        yield from [DummyRegressor().fit(X[known], counts[known])] * len(alphas)
        return
    glm = PoissonRegressor(solver="newton-cholesky", max_iter=300, warm_start=True)
    for alpha in alphas:
        yield glm.set_params(alpha=alpha).fit(X[known], counts[known])


def _bins(trials):
    return trials.reshape(-1, trials.shape[-1])  # (trials * bins, neurons)
