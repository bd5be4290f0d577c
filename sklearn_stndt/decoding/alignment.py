"""LatentAligner: latents of another day in the axes of the first, without labels."""

import warnings
from numbers import Integral
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import linear_sum_assignment
from scipy.stats import ortho_group
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

POWER = 0.2  # components are divided by this power of their variance; .5 would be whitening
N_ROTATED = 6  # components whose rotations are searched
N_COMPARED = 6  # components by which different maps are compared; more of them are mostly noise
N_STEPS = 25  # of the search with rotations, while the temperature falls
HOT, COLD, COOLING = 0.5, 0.03, 0.85  # temperature in units of the median distance
N_REFINEMENTS = 15  # steps with linear maps
REFINED = 0.05  # their temperature
N_SCALINGS = 50  # of rows and columns, for a plan of transport
PENALTY = 0.1  # of the linear map, for each bin
N_BEST = 8  # different rotations that are refined
DIFFERENT = 0.3  # smallest difference of an entry between different rotations
FEW_TRIALS = 100  # with fewer, wrong maps often have the smallest distance
CLEAR = 0.02  # relative difference in distance from the next map, below which it is a warning


class LatentAligner(TransformerMixin, BaseEstimator):
    """Map latents of a session onto those of another one, without labels.

    Latents of two sessions with different neurons have no axes in common, so a decoder fitted to
    one session fails on the other, even after :meth:`~sklearn_stndt.STNDTEstimator.adapt`. If the
    task was the same in both, the two sets of trajectories are about the same up to a linear map.
    This map is found by matching whole trials.

    Parameters
    ----------
    reference : array-like of shape (n_reference_trials, n_bins, n_latents)
        Latents of the first session, on which the decoder was fitted. Trials must be cut at the
        same event as those of X; their number, and that of bins, may differ.
    n_components : int, default=24
        Principal components that are mapped; at most all of them.
    n_starts : int, default=100
        Random rotations from which the search begins.
    random_state : int, RandomState instance or None, default=None
        Seed of the rotations.

    Attributes
    ----------
    coef_ : ndarray of shape (n_latents, n_reference_latents)
        The map: aligned latents are ``X @ coef_ + intercept_``.
    intercept_ : ndarray of shape (n_reference_latents,)
        Intercept of the map.
    distance_ : float
        Mean squared distance between matched trials, per bin, after alignment.
    next_distance_ : float
        The same for the best among clearly different maps; nan if every start led to one map. If it
        is hardly larger than `distance_`, the map may be wrong.
    n_bins_ : int
        Bins that were compared: the first ones that both sessions have.
    n_features_in_ : int
        Latents of X.

    See Also
    --------
    sklearn_stndt.STNDTEstimator.adapt : Rates and latents of another day.

    Notes
    -----
    From each start, two steps alternate: a plan of optimal transport between the trials of both
    sessions, regularised by an entropy that decreases [1]_; and the rotation of the first six
    principal components that brings the trials closest to those they are matched with. The best
    rotations are refined by linear maps. The one with the smallest distance between trials, matched
    one to one, is kept and extended to all components.

    A warning is issued if either session has fewer than 100 trials, or if the distance of the next
    best map is within 2 % of the smallest. A task that looks the same from several directions, such
    as reaches to targets on a circle without other differences, can be matched in as many ways, and
    spikes alone cannot tell which is right. Then label some trials.

    References
    ----------
    .. [1] M. Cuturi, "Sinkhorn Distances: Lightspeed Computation of Optimal Transport", NeurIPS
       2013. For neural data, compare E. L. Dyer et al., "A cryptography-based approach for movement
       decoding", Nature Biomedical Engineering 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_stndt.decoding import LatentAligner
    >>> rng = np.random.default_rng(0)
    >>> courses = rng.exponential(size=(100, 1, 3)) * rng.normal(size=(5, 3))
    >>> turned = courses[::-1] @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    >>> aligner = LatentAligner(courses, random_state=0).fit(turned)
    >>> aligner.transform(turned).shape
    (100, 5, 3)
    """

    _parameter_constraints: dict = {
        "reference": ["array-like"],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "n_starts": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        reference,
        *,
        n_components=24,
        n_starts=100,
        random_state=None,
    ):
        self.reference = reference
        self.n_components = n_components
        self.n_starts = n_starts
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: None = None) -> Self:
        """Find the map.

        Parameters
        ----------
        X : array-like of shape (n_trials, n_bins, n_latents)
            Latents of the second session.
        y : ignored
            For compatibility with pipelines.

        Returns
        -------
        self : LatentAligner

        Raises
        ------
        ValueError
            If X or the reference are not trials of finite latents, or have fewer than two trials.
        """
        reference = _check_trials(self.reference, "reference")
        X = _check_trials(X, "X")
        rng = check_random_state(self.random_state)
        self.n_bins_ = min(reference.shape[1], X.shape[1])
        first, second = reference[:, : self.n_bins_], X[:, : self.n_bins_]
        n = min(self.n_components, _n_components(first), _n_components(second))
        of_first, of_second = _Components(first, n), _Components(second, n)
        a, b = of_first.transform(first), of_second.transform(second)
        turned = _different(
            [
                _rotate(a[..., :N_ROTATED], b[..., :N_ROTATED], start)
                for start in _starts(min(N_ROTATED, n), self.n_starts, rng)
            ]
        )
        of_few = a[..., :N_COMPARED], b[..., :N_COMPARED]
        maps = sorted((_refine(*of_few, one) for one in turned), key=lambda m: m.distance)
        others = [m.distance for m in maps[1:] if _differ(m.matrix, maps[0].matrix)]
        self.distance_ = maps[0].distance
        self.next_distance_ = others[0] if others else np.nan
        refined = _refine(a, b, maps[0])
        basis = np.vstack([np.zeros(X.shape[2]), np.eye(X.shape[2])])[None]
        mapped = of_first.inverse_transform(refined.of(of_second.transform(basis)))[0]
        self.intercept_, self.coef_ = mapped[0], mapped[1:] - mapped[0]
        self.n_features_in_ = X.shape[2]
        doubt = ""
        if (n_trials := min(len(first), len(second))) < FEW_TRIALS:
            doubt = f"Only {n_trials} trials were compared"
        elif self.next_distance_ < (1 + CLEAR) * self.distance_:
            doubt = (
                "Two different maps align the latents almost equally well (mean squared distances "
                f"{self.distance_:.4g} and {self.next_distance_:.4g})"
            )
        if doubt:
            warnings.warn(
                f"{doubt}, so the map may be wrong. Use more trials, or check it with some "
                "labelled trials.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def transform(self, X: ArrayLike) -> NDArray:
        """Map latents of the second session to the axes of the first.

        Parameters
        ----------
        X : array-like of shape (n_trials, n_bins, n_latents) or (n_bins, n_latents)
            Latents of the second session; any number of bins.

        Returns
        -------
        ndarray of shape (n_trials, n_bins, n_reference_latents) or (n_bins, n_reference_latents)
            As if they were latents of the first session.
        """
        check_is_fitted(self)
        X = check_array(X, allow_nd=True, dtype=float)
        if X.shape[-1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[-1]} latents, but LatentAligner was fitted with "
                f"{self.n_features_in_}. Pass latents of the same estimator."
            )
        return X @ self.coef_ + self.intercept_


def _check_trials(latents: ArrayLike, name: str) -> NDArray:
    """Check that latents are trials without missing entries."""
    latents = check_array(latents, allow_nd=True, dtype=float, input_name=name)
    if latents.ndim != 3 or len(latents) < 2:
        raise ValueError(
            f"{name} must be latents of at least two trials, (n_trials, n_bins, n_latents), got an "
            f"array of shape {latents.shape}. Cut a recording into trials first."
        )
    return latents


class _Components:
    """Principal components of latents, divided by a power of their variance.

    Parameters
    ----------
    latents : ndarray of shape (n_trials, n_bins, n_latents)
    n : int
        Number of components.
    """

    def __init__(self, latents: NDArray, n: int):
        self.pca = PCA(n, svd_solver="full").fit(_rows(latents))
        variance = self.pca.explained_variance_
        scale = variance**POWER
        self.scale = scale * np.sqrt((variance / scale**2).mean())

    def transform(self, latents: NDArray) -> NDArray:
        """Components, (n_trials, n_bins, n)."""
        components = self.pca.transform(_rows(latents)) / self.scale
        return components.reshape(*latents.shape[:2], -1)

    def inverse_transform(self, components: NDArray) -> NDArray:
        """Latents of components, (n_trials, n_bins, n_latents)."""
        latents = self.pca.inverse_transform(_rows(components) * self.scale)
        return latents.reshape(*components.shape[:2], -1)


class _Map(NamedTuple):
    """A linear map of the first components, and the distance between trials that remains."""

    matrix: NDArray  # (n, n); components of the second session are multiplied from the left
    shift: NDArray  # (n,)
    distance: float

    def of(self, components: NDArray) -> NDArray:
        """Map the first components of the second session."""
        return components[..., : len(self.matrix)] @ self.matrix + self.shift


def _starts(n: int, n_starts: int, rng: np.random.RandomState) -> list[NDArray]:
    """Random rotations and reflections of n components."""
    if n == 1:
        return [np.array([[1.0]]), np.array([[-1.0]])]
    return list(ortho_group.rvs(n, size=n_starts, random_state=rng).reshape(-1, n, n))


def _rotate(first: NDArray, second: NDArray, rotation: NDArray) -> _Map:
    """Rotate trials of the second session onto those of the first, from a given rotation on."""
    shift = np.zeros(first.shape[2])
    for step in range(N_STEPS):
        squared = _squared_distances(first, second @ rotation + shift)
        target = _targets(_plan(squared, max(HOT * COOLING**step, COLD)), first)
        x, y = _rows(second), _rows(target)
        rotation, _ = orthogonal_procrustes(x - x.mean(0), y - y.mean(0))
        shift = y.mean(0) - x.mean(0) @ rotation
    squared = _squared_distances(first, second @ rotation + shift)
    return _Map(rotation, shift, float((_plan(squared, COLD) * squared).sum()))


def _refine(first: NDArray, second: NDArray, start: _Map) -> _Map:
    """Fit a linear map of all components, beginning with matches by a map of the first ones."""
    squared = _squared_distances(first[..., : len(start.matrix)], start.of(second))
    ridge = Ridge(PENALTY * second.shape[0] * second.shape[1])
    for _ in range(N_REFINEMENTS):
        target = _targets(_plan(squared, REFINED), first)
        ridge.fit(_rows(second), _rows(target))
        found = _Map(np.atleast_2d(ridge.coef_).T, ridge.intercept_, np.nan)
        squared = _squared_distances(first, found.of(second))
    pairs = linear_sum_assignment(squared)
    return found._replace(distance=float(squared[pairs].mean()))


def _plan(squared: NDArray, temperature: float) -> NDArray:
    """Plan of transport between trials of equal weight, (n_first, n_second), whose sum is 1.

    Sinkhorn's algorithm; the entropy counts `temperature` times the median squared distance.
    """
    kernel = np.exp((squared.min(1, keepdims=True) - squared) / (temperature * np.median(squared)))
    kernel += np.finfo(float).tiny  # so that no column is empty
    of_first = np.ones(len(kernel))
    for _ in range(N_SCALINGS):
        of_second = 1 / (kernel.shape[1] * (of_first @ kernel))
        of_first = 1 / (kernel.shape[0] * (kernel @ of_second))
    return of_first[:, None] * kernel * of_second


def _targets(plan: NDArray, first: NDArray) -> NDArray:
    """Trials of the first session, averaged by what is moved to each trial of the second."""
    weights = plan / plan.sum(0)
    return np.tensordot(weights.T, first, axes=1)


def _squared_distances(first: NDArray, second: NDArray) -> NDArray:
    """Squared distances between trials per bin, (n_first, n_second)."""
    a, b = (trials.reshape(len(trials), -1) for trials in (first, second))
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.maximum(squared, 0) / first.shape[1]


def _different(found: list[_Map]) -> list[_Map]:
    """The best rotations, each different from those before."""
    kept: list[_Map] = []
    for one in sorted(found, key=lambda m: m.distance):
        if all(_differ(one.matrix, other.matrix) for other in kept):
            kept.append(one)
    return kept[:N_BEST]


def _differ(one: NDArray, other: NDArray) -> bool:
    return bool(np.abs(one - other).max() > DIFFERENT)


def _rows(trials: NDArray) -> NDArray:
    """Bins of all trials, (n_trials * n_bins, n)."""
    return trials.reshape(-1, trials.shape[-1])


def _n_components(trials: NDArray) -> int:
    """Most components that latents can have."""
    rows = _rows(trials)
    return min(rows.shape[1], len(rows) - 1)
