"""Statistics of the data beside those of entries that a model draws."""

from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklearn_stndt._containers import as_array
from sklearn_stndt._rates import groups_keyword, pass_through, rate_estimator
from sklearn_stndt._scoring import scoring_of
from sklearn_stndt.plotting._style import (
    as_trials,
    check_bin_width,
    main_color,
    make_axes,
    require_matplotlib,
    text_color,
)

_MOST_PAIRS = 3000  # pairs of neurons that are drawn
_PERCENTILES = (2.5, 97.5)  # of samples, for the shaded range


class SimulationDisplay:
    """Variability, intervals and correlations of the data, and of what a model draws.

    Where they differ, the likelihood, or the rates, miss something: points below the line of equal
    values are neurons, or pairs of neurons, that vary less, or less together, in the model.

    Parameters
    ----------
    X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
        Data, NaN where unknown.
    simulated : array-like of shape (n_samples, ...), followed by that of X
        Entries drawn from a model of X, as by :meth:`~sklearn_stndt.STNDTEstimator.simulate`.
    window : int, default=10
        Bins over which entries are summed before their variances and correlations are computed; at
        most those of a trial.
    counts : bool, default=True
        Whether entries are spike counts. Otherwise variances are shown in place of Fano factors,
        and, if entries are hardly ever 0, autocorrelations in place of intervals.
    bin_width : float, default=None
        Bin width in seconds. None: time in bins.

    Attributes
    ----------
    fano_factors : ndarray of shape (2, n_neurons)
        Variance of summed counts divided by their mean, in the data and in the model; of other
        entries, the variance.
    correlations : ndarray of shape (2, n_pairs)
        Correlations between the sums of each pair of neurons, in the data and in the model.
    intervals : list of ndarray
        Fraction of the intervals between non-empty bins that are longer than 0, 1, 2, ... bins, in
        the data and, of shape (n_samples, n_lags), in the model; or autocorrelations at lags of 1,
        2, ... bins, averaged over neurons.
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes, shape (3,)
    ax_ : matplotlib Axes
        The first of these axes.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn_stndt import STNDTEstimator
    >>> from sklearn_stndt.datasets import make_reaches
    >>> from sklearn_stndt.plotting import SimulationDisplay
    >>> spikes = make_reaches(n_trials=20, n_bins=20, n_neurons=8, random_state=0).spikes
    >>> network = STNDTEstimator(max_epochs=2, random_state=0).fit(spikes)
    >>> display = SimulationDisplay.from_estimator(network, spikes, random_state=0)
    >>> display.fano_factors.shape, display.correlations.shape
    ((2, 8), (2, 28))
    >>> plt.close(display.figure_)
    """

    window: int
    bin_width: float | None
    has_intervals: bool
    counts: bool
    fano_factors: NDArray
    correlations: NDArray
    intervals: list[NDArray]

    def __init__(
        self,
        X: ArrayLike,
        simulated: ArrayLike,
        *,
        window: int = 10,
        counts: bool = True,
        bin_width: float | None = None,
    ):
        data = as_trials(X, "X")
        samples = np.asarray(as_array(simulated, "simulated"), dtype=np.float64)
        if samples.shape[1:] != np.shape(as_array(X)) or not len(samples):
            raise ValueError(
                f"X has shape {np.shape(as_array(X))} and simulated has shape {samples.shape}; "
                "simulated needs one more axis, the first, of at least one sample."
            )
        if not isinstance(window, Integral) or isinstance(window, bool) or window < 1:
            raise ValueError(f"window must be a whole number of bins from 1, got {window!r}.")
        check_bin_width(bin_width)
        self.window = min(int(window), data.shape[1])
        self.counts = counts
        self.bin_width = bin_width
        samples = samples.reshape(len(samples), *data.shape)
        samples = np.where(np.isnan(data), np.nan, samples)
        sets = [data, *samples]
        sums = [_sums(entries, self.window) for entries in sets]
        if len(sums[0]) < 2:
            raise ValueError(
                f"X has {len(sums[0])} complete windows of {self.window} bins, and variances need "
                "2. Pass more data, or a smaller window."
            )
        variability = np.array([_variability(one, counts) for one in sums])
        self.fano_factors = np.array([variability[0], variability[1:].mean(0)])
        correlations = np.array([_correlations(one) for one in sums])
        self.correlations = np.array([correlations[0], correlations[1:].mean(0)])
        self.has_intervals = counts or bool(np.nanmean(data == 0) > 0.05)
        if self.has_intervals:
            lengths = [_intervals(entries) for entries in sets]
            longest = int(lengths[0].max(initial=1))
            curves = np.array([_survival(one, longest) for one in lengths])
        else:
            longest = max(min(data.shape[1] - 1, 3 * self.window), 1)
            curves = np.array([_autocorrelation(entries, longest) for entries in sets])
        self.intervals = [curves[0], curves[1:]]

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        *,
        n_samples: int = 10,
        window: int = 10,
        bin_width: float | None = None,
        groups: ArrayLike | None = None,
        random_state: Any = None,
        ax: Any = None,
    ) -> Self:
        """Draw entries from the inferred rates, and plot their statistics.

        Parameters
        ----------
        estimator : STNDTEstimator, BaggingEnsemble or Pipeline
            Fitted; in a pipeline or a search, the step that infers rates is used.
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Entries, NaN where hidden; preferably of trials that were not used in fit.
        n_samples : int, default=10
            How often entries are drawn.
        window, bin_width
            As in the class.
        groups : array-like of shape (n_bins,), default=None
            Trial of each row of a 2D X, for the inference of rates.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws.
        ax : matplotlib Axes, or array of 3, default=None
            Where to draw. None: a new figure.

        Returns
        -------
        SimulationDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If there is no STNDTEstimator or BaggingEnsemble in `estimator`.
        """
        require_matplotlib()
        before, source = rate_estimator(estimator)
        X = pass_through(before, X)
        simulated = source.simulate(X, random_state, n_samples, **groups_keyword(X, groups))
        counts = scoring_of(source).counts
        display = cls(X, simulated, window=window, counts=counts, bin_width=bin_width)
        return display.plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, or array of 3, default=None
            Where to draw; a single Axes is divided. None: a new figure.

        Returns
        -------
        SimulationDisplay
        """
        require_matplotlib()
        self.figure_, axes = make_axes(ax, 3, 1, (3.6, 8.8))
        self.axes_ = axes[:, 0]
        self.ax_ = self.axes_[0]
        first, second, third = self.axes_
        what = "Fano factor" if self.counts else "variance"
        self._compare(first, self.fano_factors, f"{what}, {self._window_text}", logarithmic=True)
        self._draw_intervals(second)
        chosen = np.linspace(0, self.correlations.shape[1] - 1, _MOST_PAIRS).astype(int)
        pairs = self.correlations[:, np.unique(chosen)] if self.correlations.size else None
        if pairs is None:
            third.set_axis_off()
        else:
            self._compare(third, pairs, f"correlation, {self._window_text}", logarithmic=False)
        return self

    @property
    def _window_text(self) -> str:
        if self.bin_width is None:
            return f"{self.window} bins"
        return f"{1000 * self.window * self.bin_width:g} ms"

    def _compare(self, ax: Any, values: NDArray, title: str, *, logarithmic: bool) -> None:
        """Draw values of the model against those of the data."""
        from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

        data, model = values[:, np.isfinite(values).all(0)]
        if logarithmic:
            usable = (data > 0) & (model > 0)
            data, model = data[usable], model[usable]
        size, alpha = (12, 0.7) if len(data) <= 300 else (4, 0.3)
        ax.scatter(data, model, s=size, alpha=alpha, color=main_color(), lw=0)
        ax.axline((1, 1), slope=1, color=text_color(), lw=0.8, ls=":")
        if logarithmic:
            ax.set(xscale="log", yscale="log")
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_minor_locator(NullLocator())
        if len(data):
            low, high = min(data.min(), model.min()), max(data.max(), model.max())
            margin = 1.15 if logarithmic else 0.05 * (high - low) + 1e-3
            limits = (low / margin, high * margin) if logarithmic else (low - margin, high + margin)
            ax.set(xlim=limits, ylim=limits)
            ticks = _logarithmic_ticks(*limits) if logarithmic else None
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_locator(FixedLocator(ticks) if ticks else MaxNLocator(4))
                axis.set_major_formatter("{x:g}")
        ax.set(title=title, xlabel="data", ylabel="model")
        ax.title.set_fontsize("medium")
        ax.set_box_aspect(1)

    def _draw_intervals(self, ax: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        data, model = self.intervals
        width = 1.0 if self.bin_width is None else 1000 * self.bin_width
        unit = "bins" if self.bin_width is None else "ms"
        lags = width * np.arange(
            0 if self.has_intervals else 1, len(data) + (not self.has_intervals)
        )
        low, high = np.percentile(model, _PERCENTILES, axis=0)
        ax.fill_between(lags, low, high, color=main_color(), alpha=0.3, lw=0)
        ax.plot(lags, model.mean(0), color=main_color(), label="model")
        ax.plot(lags, data, color=text_color(), lw=1.2, label="data")
        if self.has_intervals:
            ax.set(
                yscale="log",
                xlabel=f"interval between non-empty bins ({unit})",
                ylabel="fraction that is longer",
            )
            seen = data[data > 0]
            ax.set_ylim(max(seen.min() / 2, 1e-5) if len(seen) else 1e-5, 1.3)
        else:
            ax.set(xlabel=f"lag ({unit})", ylabel="autocorrelation")
        ax.set_title("intervals" if self.has_intervals else "autocorrelation", fontsize="medium")
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.legend(frameon=False, fontsize="small")
        ax.set_box_aspect(1)


def _logarithmic_ticks(low: float, high: float) -> list[float]:
    """At most five of the numbers 1, 2 and 5, times powers of ten, between limits."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**power for power in powers for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= 5:
            return ticks
    return ticks[:: -(-len(ticks) // 5)]


def _sums(entries: NDArray, window: int) -> NDArray:
    """Sums over complete windows, (n_windows, n_neurons), NaN where an entry is unknown."""
    n_trials, n_bins, n_neurons = entries.shape
    n_windows = n_bins // window
    shaped = entries[:, : n_windows * window].reshape(n_trials * n_windows, window, n_neurons)
    sums = shaped.sum(1)
    return sums[~np.isnan(sums).all(1)]


def _variability(sums: NDArray, counts: bool) -> NDArray:
    """Fano factor, or variance, of each neuron."""
    found = np.full(sums.shape[1], np.nan)
    for neuron, column in enumerate(sums.T):
        known = column[~np.isnan(column)]
        if len(known) > 1 and (not counts or known.any()):
            found[neuron] = known.var(ddof=1) / (known.mean() if counts else 1.0)
    return found


def _correlations(sums: NDArray) -> NDArray:
    """Correlation of each pair of neurons over the windows in which all are known."""
    complete = sums[~np.isnan(sums).any(1)]
    pairs = np.triu_indices(sums.shape[1], 1)
    if len(complete) < 2:
        return np.full(len(pairs[0]), np.nan)
    centered = complete - complete.mean(0)
    norms = np.sqrt((centered**2).sum(0))
    norms[norms == 0] = np.nan
    return ((centered.T @ centered) / np.outer(norms, norms))[pairs]


def _intervals(entries: NDArray) -> NDArray:
    """Bins from one non-empty bin to the next, of all neurons, within trials and between gaps."""
    unknown = np.isnan(entries)
    gaps = unknown.cumsum(1)
    trial, neuron, position = np.nonzero(np.where(unknown, 0, entries).transpose(0, 2, 1))
    gap = gaps.transpose(0, 2, 1)[trial, neuron, position]
    same = (np.diff(trial) == 0) & (np.diff(neuron) == 0) & (np.diff(gap) == 0)
    return np.diff(position)[same]


def _survival(intervals: NDArray, longest: int) -> NDArray:
    """Fraction of the intervals that are longer than 0, 1, ... bins."""
    number = np.bincount(np.minimum(intervals, longest + 1), minlength=longest + 2)
    return 1 - number.cumsum()[: longest + 1] / max(len(intervals), 1)


def _autocorrelation(entries: NDArray, longest: int) -> NDArray:
    """Autocorrelation at lags of 1 to `longest` bins, averaged over neurons."""
    centered = entries - np.nanmean(entries, axis=(0, 1))
    variance = np.nanmean(centered**2, axis=(0, 1))
    variance[variance == 0] = np.nan
    found = [
        np.nanmean(np.nanmean(centered[:, lag:] * centered[:, :-lag], axis=(0, 1)) / variance)
        for lag in range(1, longest + 1)
    ]
    return np.array(found)
