"""Base class of all transformers from counts to rates."""

from numbers import Integral
from typing import Any

from numpy.typing import ArrayLike, NDArray
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklearn_stndt._containers import wrapped
from sklearn_stndt._parameters import NamedParameters
from sklearn_stndt._rates import RateMixin, likelihoods_in
from sklearn_stndt._validation import (
    check_counts,
    check_groups,
    check_table_output,
    may_be_negative,
    refuse_booleans,
)
from sklearn_stndt.training.summary import ShowsSummary


class RateTransformer(
    ShowsSummary, OneToOneFeatureMixin, TransformerMixin, RateMixin, NamedParameters
):
    """Base class of estimators whose `transform` turns counts into rates of the same shape.

    A subclass implements `fit`, and `_infer`, which receives checked counts.
    """

    # with metadata routing, groups are always requested
    __metadata_request__fit = {"groups": True}
    __metadata_request__transform = {"groups": True}
    __metadata_request__score = {"groups": True}

    def _validate_params(self):
        super()._validate_params()
        refuse_booleans(self)

    def fit_transform(self, X: ArrayLike, y: Any = None, *, groups: ArrayLike | None = None) -> Any:
        """Train on X, then return its rates; see `fit` and `transform`."""
        check_table_output(self, X)  # before training, which takes long
        return self.fit(X, groups=groups).transform(X, groups=groups)

    def transform(self, X: ArrayLike, *, groups: ArrayLike | None = None) -> Any:
        """Infer firing rates.

        Parameters
        ----------
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Spikes per bin, NaN where hidden. Trials may be shorter or longer than in fit.
        groups : array-like of shape (n_bins,), default=None
            As in `fit`.

        Returns
        -------
        rates : ndarray, TsdFrame, TsdTensor or DataArray, same shape
            Expected spikes per bin of every entry; divide by the bin width for Hz. float32 if X
            is, else float64. For objects of pynapple and xarray, an object of the same class with
            the clock and names of X, unless :meth:`set_output` is used. If X is a memory map and
            rates take more than 1 GiB, they are a memory map of a temporary file, which is deleted
            with the array (`numpy.save` keeps a copy), and float32 unless X is float64.

        Raises
        ------
        ValueError
            As in `fit`, and if X has another number of neurons.
        OSError
            If the rates of a memory map do not fit on the disk.
        """
        check_is_fitted(self)
        counts = check_counts(self, X, reset=False)
        is_table = check_table_output(self, counts)
        values = self._transformed(counts, check_groups(counts, groups, X))
        return values if is_table else self._in_container(X, values)

    def simulate(
        self,
        X: ArrayLike,
        random_state: Any = None,
        n_samples: int | None = None,
        *,
        groups: ArrayLike | None = None,
    ) -> Any:
        """Draw spikes, or other entries, from the inferred rates by the likelihood.

        Drawn entries that differ from X in their variability, intervals or correlations show what
        the model misses (:class:`~sklearn_stndt.plotting.SimulationDisplay`). Given its rate, each
        entry is drawn by itself.

        Parameters
        ----------
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            As in `transform`.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws.
        n_samples : int or None, default=None
            How often to draw. None: once, without an axis for samples.
        groups : array-like of shape (n_bins,), default=None
            As in `fit`.

        Returns
        -------
        simulated : ndarray of shape (n_samples, ...), followed by that of X, or that of X
            Integers if these are counts. Hidden entries are drawn too. With ``n_samples=None``, in
            the container of X. The samples of an ensemble come from members that are drawn by
            their weights, so they differ as much as the members disagree.

        Raises
        ------
        ValueError
            As in `transform`, and if `n_samples` is not a whole number of at least 1.
        """
        check_is_fitted(self)
        counts = check_counts(self, X, reset=False)
        groups = check_groups(counts, groups, X)
        whole = isinstance(n_samples, Integral) and not isinstance(n_samples, bool)
        if n_samples is not None and not (whole and n_samples >= 1):
            raise ValueError(
                f"n_samples must be a whole number of at least 1, or None, got {n_samples!r}."
            )
        draw = check_random_state(random_state)
        samples = self._simulate(counts, groups, n_samples or 1, draw)
        return samples if n_samples is not None else wrapped(X, samples[0], "simulated")

    def _simulate(self, X: NDArray, groups: ArrayLike | None, n_samples: int, draw: Any) -> NDArray:
        """Draw entries of checked counts, (n_samples, *X.shape)."""
        raise NotImplementedError

    def _transformed(self, X: NDArray, groups: ArrayLike | None) -> NDArray:
        """Output of `transform` for checked counts."""
        return self._infer(X, groups)

    def _in_container(self, X: Any, values: NDArray) -> Any:
        """Output of `transform` in the container of X."""
        return wrapped(X, values, "rates")

    def _infer(self, X: NDArray, groups: ArrayLike | None) -> NDArray:
        """Rates of checked counts."""
        raise NotImplementedError

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = True
        tags.input_tags.positive_only = not may_be_negative(likelihoods_in(self))
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
