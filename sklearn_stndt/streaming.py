"""Rates and behaviour bin by bin, as in a closed loop."""

import copy
import warnings
from numbers import Integral
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn import config_context
from sklearn.compose import TransformedTargetRegressor
from sklearn.utils.validation import check_is_fitted

from sklearn_stndt._rates import pass_through, rate_steps
from sklearn_stndt._validation import LARGEST_COUNT, largest_entry, may_be_negative
from sklearn_stndt.decoding._base import BinwiseDecoder
from sklearn_stndt.ensemble import BaggingEnsemble
from sklearn_stndt.estimator import STNDTEstimator
from sklearn_stndt.metrics._checks import as_float64
from sklearn_stndt.network.isolation import isolated_torch
from sklearn_stndt.network.likelihood import LARGEST_SIGNAL

__all__ = ["RateStream"]

_PART = 32  # bins of `warm_up` that are inferred at once
_N_TRIED = 64  # bins with which a stream tries its steps


class RateStream:
    """Infer rates, or behaviour, one bin at a time.

    A closed loop receives one bin at a time and must answer before the next. The network keeps what
    it needs of the bins before, so that a step takes the same time and memory however long the
    stream is. At every step, the rates are those that `transform` infers from all bins so far,
    except for rounding.

    Parameters
    ----------
    estimator : STNDTEstimator, BaggingEnsemble, Pipeline or search
        Fitted, with ``causal=True``. Of a pipeline, :meth:`step` returns the output of its last
        step: behaviour, if that is a decoder. Its other steps receive one row per bin, so they must
        treat rows separately, which is checked on 64 bins; `lag` and `history` of
        :class:`~sklearn_stndt.BinwiseRegressor` are taken into account.
    n_streams : int or None, default=None
        Number of streams that are inferred together, all of the same neurons. None: one stream,
        without an axis of its own.
    ahead : int, default=0
        Number of later bins to infer as well, up to `forecast_bins` of the estimator.

    Attributes
    ----------
    n_neurons : int
        Number of neurons of a bin.

    Raises
    ------
    TypeError
        If there is no STNDTEstimator in `estimator`, or a step cannot be applied bin by bin.
    ValueError
        If the estimator is not causal, a decoder has a negative lag, or the result of a step for a
        bin depends on other bins.
    sklearn.exceptions.NotFittedError
        If a step is not fitted.

    See Also
    --------
    sklearn_stndt.STNDTEstimator.forecast : Rates of the bins after a recording.

    Notes
    -----
    Steps run on the CPU in one thread, wherever the network was trained. A copy of the network is
    made, so later changes to `estimator` have no effect. `n_streams` and `ahead` cannot be changed.

    Give each Python thread a stream of its own. A step waits while another thread of the same
    process fits or infers, so retrain in another process.

    A stream can be pickled, and continues from the bins it has seen.

    Where the prediction of a decoder jumps, as that of trees does, rounding may decide between two
    of its values.

    Examples
    --------
    >>> from sklearn_stndt import STNDTEstimator
    >>> from sklearn_stndt.datasets import make_reaches
    >>> from sklearn_stndt.streaming import RateStream
    >>> spikes = make_reaches(n_trials=20, n_bins=20, n_neurons=8, random_state=0).spikes
    >>> network = STNDTEstimator(causal=True, max_epochs=2, random_state=0).fit(spikes)
    >>> stream = RateStream(network)
    >>> rates = [stream.step(counts) for counts in spikes[0]]  # one bin after the other
    >>> import numpy as np
    >>> np.allclose(rates, network.transform(spikes[:1])[0], rtol=1e-4)
    True
    """

    def __init__(self, estimator: Any, n_streams: int | None = None, ahead: int = 0):
        self.n_streams = _whole(n_streams, "n_streams", 1)
        self.ahead = _whole(ahead, "ahead", 0)
        before, source, after = rate_steps(estimator)
        self._before = [_for_arrays(step) for step in before]
        if source.output != "rates":
            raise ValueError(
                f"The estimator has output={source.output!r}, but a stream infers rates. Fit the "
                "steps after it to rates, with output='rates'."
            )
        members = _members(source)
        trained = min(member.settings_.objective.forecast_bins for _, _, member in members)
        if self.ahead > trained:
            warnings.warn(
                f"The estimator was trained with forecast_bins={trained}; the other "
                f"{self.ahead - trained} of {ahead} bins are unreliable. Fit with "
                f"forecast_bins={ahead}.",
                stacklevel=2,
            )
        n_rows = n_streams or 1
        likelihoods = [s.likelihood for s in (m.settings_.network for *_, m in members)]
        self._lowest, self._largest = 0.0, largest_entry(likelihoods)
        if may_be_negative(likelihoods):
            self._lowest, self._largest = -LARGEST_SIGNAL, LARGEST_SIGNAL
        self._networks = [
            (n_picks, [_for_arrays(step) for step in steps], _Network(member, n_rows, ahead))
            for n_picks, steps, member in members
        ]
        self._n_picks = sum(n_picks for n_picks, _, _ in members)
        self._transformers, self._decoder = _split_after(after, estimator, n_rows)
        first = self._before[0] if before else source
        self.n_neurons = int(getattr(first, "n_features_in_", source.n_features_in_))
        self._names = getattr(first, "feature_names_in_", None)
        self._try()
        self.reset()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("n_streams", "ahead", "n_neurons") and name in vars(self):
            raise AttributeError(
                f"{name} of a RateStream cannot be changed. Make another: "
                "RateStream(estimator, n_streams=..., ahead=...)."
            )
        super().__setattr__(name, value)

    def _try(self) -> None:
        """Run every step once: the first run is slow, and errors are raised before the loop."""
        bins = np.random.default_rng(0).poisson(0.5, (_N_TRIED, self.n_neurons)).astype(np.float32)
        _check_rows(self._before, bins)
        for _, before, _ in self._networks:
            _check_rows(before, _row_by_row(self._before, bins))
        bins = np.broadcast_to(bins[0], (self.n_streams or 1, 1, self.n_neurons))
        rates = self._infer(bins, self.ahead)
        # rates of a bin that are all different, around those inferred
        _check_rows(self._transformers, rates[0, 0] * np.linspace(0.5, 2, _N_TRIED)[:, None])
        self._finish(rates, self.ahead)

    def step(self, counts: ArrayLike) -> Any:
        """Infer the rates of the next bin, or the behaviour in it.

        Parameters
        ----------
        counts : array-like of shape (n_neurons,) or (n_streams, n_neurons)
            Spikes in the bin, NaN where a channel is lost; all NaN if the whole bin is lost.

        Returns
        -------
        rates : ndarray of shape (n_neurons,) or (n_streams, n_neurons)
            Expected spikes per bin, float32 if `counts` are, else float64; of a pipeline, what it
            predicts. With `ahead`, of shape (..., 1 + ahead, n_neurons): the bin, and later ones.

        Raises
        ------
        ValueError
            If the shape is another, or if counts are negative or infinite.
        """
        bins = self._check(counts, self._shape, "counts")
        result = self._finish(self._infer(bins[:, None], self.ahead), self.ahead)
        result = result if self.ahead else result[:, 0]
        return result[0] if self.n_streams is None else result

    def reset(self, streams: ArrayLike | None = None) -> Self:
        """Forget all bins so far.

        Parameters
        ----------
        streams : array-like of int or bool, default=None
            Streams to reset: indices, or a mask. None: all.

        Returns
        -------
        self : RateStream

        Raises
        ------
        ValueError
            If there is no such stream.
        """
        chosen = self._chosen(streams)
        for _, _, network in self._networks:
            network.memory.forget(torch.from_numpy(chosen))
        if self._decoder is not None:
            self._decoder.forget(chosen)
        return self

    def warm_up(self, X: ArrayLike) -> Self:
        """Read bins without returning their rates, faster than bin by bin.

        Parameters
        ----------
        X : array-like of shape (n_bins, n_neurons) or (n_streams, n_bins, n_neurons)
            Spikes per bin, in order of time, that precede the next :meth:`step`.

        Returns
        -------
        self : RateStream
        """
        bins = self._check(X, (*self._shape[:-1], -1, self.n_neurons), "X")
        for start in range(0, bins.shape[1], _PART):
            rates = self._infer(bins[:, start : start + _PART], 0)
            if self._decoder is not None:
                self._decoder.remember(self._features(rates), rates.shape[1])
        return self

    def _chosen(self, streams: ArrayLike | None) -> NDArray:
        """Mask of streams, (n_streams,)."""
        n = self.n_streams or 1
        chosen = np.full(n, streams is None)
        if streams is None:
            return chosen
        given = np.asarray(streams)
        is_mask = given.dtype == bool and given.shape == (n,)
        is_index = given.dtype.kind in "iu" and ((given >= -n) & (given < n)).all()
        if not (is_mask or is_index or given.size == 0):
            raise ValueError(
                f"streams must be indices from 0 to {n - 1}, or a mask of {n} booleans, got "
                f"{streams!r}."
            )
        chosen[given if given.size else []] = True
        return chosen

    @property
    def _shape(self) -> tuple[int, ...]:
        """Shape of the counts of a bin."""
        return (self.n_neurons,) if self.n_streams is None else (self.n_streams, self.n_neurons)

    def _check(self, counts: ArrayLike, shape: tuple[int, ...], name: str) -> NDArray:
        """Return counts as floats, the first axis streams; -1 is any length."""
        if type(counts) is np.ndarray and counts.dtype in (np.float32, np.float64):
            bins = counts
        else:
            self._check_names(counts, name)
            bins = as_float64(counts, name)
            bins = bins.astype(np.float32) if _is_float32(counts) else bins
        if len(bins.shape) != len(shape) or any(
            n not in (-1, found) for n, found in zip(shape, bins.shape, strict=True)
        ):
            expected = str(shape).replace("-1", "n_bins")
            raise ValueError(
                f"{name} has shape {bins.shape}, but {expected} is expected"
                + (": one bin of " if name == "counts" else ": bins of ")
                + f"all {self.n_neurons} neurons"
                + (f", for each of {self.n_streams} streams" if self.n_streams else "")
                + ". Pass NaN for lost channels."
            )
        if (wrong := (bins < self._lowest) | (bins > self._largest)).any():
            what = "spikes per bin" if self._largest == LARGEST_COUNT else "values of a bin"
            raise ValueError(
                f"{name} holds values that are not {what}, which are from {self._lowest:,.0f} to "
                f"{self._largest:,.0f}: {', '.join(f'{v:g}' for v in bins[wrong][:5])}. Pass "
                f"{what}, NaN where a channel is lost."
            )
        return bins if self.n_streams is not None else bins[None]

    def _check_names(self, counts: Any, name: str) -> None:
        """Refuse a table whose neurons have other names, or another order, than in fit."""
        names: Any = getattr(counts, "columns", getattr(counts, "index", None))
        if self._names is None or not hasattr(counts, "iloc"):
            return
        if all(isinstance(n, str) for n in names) and list(names) != list(self._names):
            raise ValueError(
                f"The neurons of {name} have other names, or another order, than in fit: "
                f"{list(names)[:5]} ... instead of {list(self._names)[:5]} ... Select them by "
                "their names in fit, or pass an array."
            )

    def _infer(self, bins: NDArray, ahead: int) -> NDArray:
        """Rates of the next bins and of `ahead` later ones, (n_streams, bins, n_neurons)."""
        bins, total = _row_by_row(self._before, bins), np.zeros((), dtype=np.float32)
        with isolated_torch(1), torch.inference_mode():
            for n_picks, before, network in self._networks:
                total = total + n_picks * network.rates(_row_by_row(before, bins), ahead)
        return (total / self._n_picks).astype(bins.dtype, copy=False)

    def _features(self, rates: NDArray) -> NDArray:
        return _row_by_row(self._transformers, rates)

    def _finish(self, rates: NDArray, ahead: int) -> NDArray:
        """Result of the steps after the rates."""
        features = self._features(rates)
        return features if self._decoder is None else self._decoder.predict(features, ahead)


class _Network:
    """A fitted network with the memory of its streams."""

    def __init__(self, estimator: STNDTEstimator, n_streams: int, ahead: int):
        self.network = copy.deepcopy(estimator.net_.module_).cpu().eval().requires_grad_(False)
        self.memory = self.network.new_memory(n_streams, max(1 + ahead, _PART))
        self.hidden = np.array(estimator.heldout_neurons_)

    def rates(self, bins: NDArray, ahead: int) -> NDArray:
        """Rates, (n_streams, n_bins + ahead, n_neurons), of bins, NaN where hidden."""
        n_bins = bins.shape[1]
        counts = np.full((len(bins), n_bins + ahead, bins.shape[2]), np.nan, dtype=np.float32)
        counts[:, :n_bins] = bins
        counts[:, :, self.hidden] = np.nan
        spikes = torch.from_numpy(counts)
        visible = spikes == spikes  # NaN differs from itself
        log_rates = self.network.advance(spikes, visible, self.memory, n_bins)
        return self.network.likelihood.mean(log_rates).numpy()


class _Decoder:
    """The last step of a pipeline, which predicts from features of a bin and of earlier ones."""

    def __init__(self, step: Any, n_streams: int):
        self.lag = self.history = 0
        self.shape: tuple[int, ...] | None = None
        self.predictor = step
        if not hasattr(step, "predict"):
            raise TypeError(
                f"{type(step).__name__}, the last step of the pipeline, has neither predict nor "
                "transform, so that it cannot be applied to new bins. Use another one."
            )
        if isinstance(step, BinwiseDecoder):
            check_is_fitted(step)
            self.lag, self.history = step.lag, step.history
            self.predictor, self.shape = step.estimator_, step._target_shape
        if self.lag < 0:
            raise ValueError(
                f"{type(step).__name__} has lag={self.lag}, so that it predicts a bin from the "
                "rates of later ones, which do not exist yet. Fit it with a lag of at least 0."
            )
        self.n_past = self.lag + self.history
        self.past: NDArray | None = None  # (n_streams, n_past, n_features)
        self.age = np.zeros(n_streams, dtype=int)  # number of bins in it

    def forget(self, chosen: NDArray) -> None:
        self.age[chosen] = 0

    def remember(self, features: NDArray, n_bins: int) -> NDArray:
        """Append bins to those before, and keep the last ones; return all."""
        if self.past is None:
            self.past = np.zeros((len(features), self.n_past, features.shape[2]), features.dtype)
        everything = np.concatenate([self.past, features], axis=1)
        self.past = everything[:, n_bins : n_bins + self.n_past]
        self.age = np.minimum(self.age + n_bins, self.n_past)
        return everything

    def predict(self, features: NDArray, ahead: int) -> NDArray:
        """Predict each of the bins of features, (n_streams, 1 + ahead, n_features)."""
        n_streams, n_bins, _ = features.shape
        if self.n_past:
            first = self.n_past - self.age  # of each stream, in what is remembered
            everything = self.remember(features, n_bins - ahead)
            back = np.arange(self.history + 1)
            source = np.maximum(np.arange(n_bins) + self.history, first[:, None])
            steps = np.maximum(source[:, :, None] - back, first[:, None, None])
            features = everything[np.arange(n_streams)[:, None, None], steps]
        rows = features.reshape(n_streams * n_bins, -1)
        with config_context(assume_finite=True):
            predicted = np.asarray(self.predictor.predict(rows))
        shape = predicted.shape[1:] if self.shape is None else self.shape
        return predicted.reshape(n_streams, n_bins, *shape)


def _whole(value: Any, name: str, least: int) -> Any:
    if value is None and name == "n_streams":
        return None
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    return int(value)


def _is_float32(counts: Any) -> bool:
    return str(getattr(counts, "dtype", "")).endswith("float32")  # also a tensor of torch


def _check_rows(steps: list[Any], rows: NDArray) -> None:
    """Refuse transformers whose result for a row depends on other rows."""
    for step in steps:
        together, again = (_row_by_row([step], rows) for _ in range(2))
        alone = np.concatenate([_row_by_row([step], row[None]) for row in rows])
        # one that draws random numbers is no reason
        if np.array_equal(together, again) and not (
            together.shape == alone.shape and np.allclose(together, alone, rtol=1e-3, atol=1e-5)
        ):
            raise ValueError(
                f"The result of {step} for a bin depends on other bins, so that it would be "
                "another one bin by bin. Use steps that treat bins separately, and the lag and "
                "history of BinwiseRegressor for earlier bins."
            )
        rows = together


def _for_arrays(step: Any) -> Any:
    """A step that takes and returns arrays: without the names of features, or tables as output."""
    step = copy.copy(step)
    vars(step).pop("feature_names_in_", None)
    vars(step).pop("_sklearn_output_config", None)
    return step


def _members(source: Any) -> list[tuple[int, list[Any], STNDTEstimator]]:
    """How often each network counts, the transformers before it, and its estimator."""
    if isinstance(source, STNDTEstimator):
        if not source.settings_.network.causal:
            raise ValueError(
                "The rates of this STNDTEstimator depend on later bins, which a stream does not "
                "have yet. Fit STNDTEstimator(causal=True)."
            )
        return [(1, [], source)]
    if not isinstance(source, BaggingEnsemble):
        raise TypeError(
            f"RateStream needs an STNDTEstimator or a BaggingEnsemble, got {type(source).__name__}."
        )
    found = []
    for n_picks, member in source._selected_members():
        before, inner, _ = rate_steps(member)
        found += [(n_picks * n, before + steps, one) for n, steps, one in _members(inner)]
    return found


def _split_after(
    after: list[Any], estimator: Any, n_streams: int
) -> tuple[list[Any], _Decoder | None]:
    """Steps after the rates: transformers, and a decoder if the last one is."""
    while hasattr(estimator, "best_estimator_"):
        estimator = estimator.best_estimator_
    if isinstance(estimator, TransformedTargetRegressor):
        raise TypeError(
            "A TransformedTargetRegressor around a pipeline cannot be applied bin by bin. Put it "
            "last into the pipeline: make_pipeline(STNDTEstimator(causal=True), "
            "TransformedTargetRegressor(Ridge()))."
        )
    steps = [_for_arrays(step) for step in after]
    for step in steps[:-1]:
        if not hasattr(step, "transform"):
            raise TypeError(f"{type(step).__name__} is not the last step, and has no transform.")
    if steps and not hasattr(steps[-1], "transform"):
        return steps[:-1], _Decoder(steps[-1], n_streams)
    return steps, None


def _row_by_row(steps: list[Any], bins: NDArray) -> NDArray:
    """Pass bins of streams, (n_streams, n_bins, n_features), through transformers as rows."""
    if not steps:
        return bins
    with config_context(assume_finite=True, transform_output="default"):
        rows = pass_through(steps, bins.reshape(-1, bins.shape[-1]))
    return np.asarray(rows).reshape(*bins.shape[:-1], -1)
