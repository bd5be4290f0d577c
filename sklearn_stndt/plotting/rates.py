"""Spikes, smoothed counts and inferred rates of the population, side by side."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklearn_stndt._rates import infer_rates
from sklearn_stndt._scoring import scoring_of
from sklearn_stndt.metrics._checks import as_labels
from sklearn_stndt.plotting._style import (
    as_trials,
    check_bin_width,
    check_same_shape,
    heat_map,
    ink_map,
    make_axes,
    mean_seen,
    require_matplotlib,
    smooth,
    time_axis,
)


class RatesDisplay:
    """Raster, smoothed counts and inferred rates of one trial, or of the mean of a condition.

    Neurons are sorted by the time of their highest inferred rate. Rates of each neuron are shown
    relative to its highest one.

    Parameters
    ----------
    spikes : array-like of shape (n_bins, n_neurons)
        Spikes per bin, NaN where hidden; for a condition, their mean over trials.
    rates : array-like of shape (n_bins, n_neurons)
        Inferred rates, in spikes per bin.
    bin_width : float, default=None
        Bin width in seconds. None: time in bins.
    smoothing : float, default=2.0
        Standard deviation of the Gaussian that smooths counts, in bins.
    counts : bool, default=True
        Whether the data are spike counts. If there are negative values, the values of each neuron
        are shown relative to their range.

    Attributes
    ----------
    spikes, smoothed, rates : ndarray of shape (n_bins, n_neurons)
        The data shown, in spikes per bin.
    order : ndarray of int, shape (n_neurons,)
        Neurons from top to bottom.
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes, shape (3,)
        Raster, smoothed counts, inferred rates.
    ax_ : matplotlib Axes
        The first of these axes.

    See Also
    --------
    PSTHDisplay : Means of several conditions, for some neurons.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn_stndt import STNDTEstimator
    >>> from sklearn_stndt.datasets import make_reaches
    >>> from sklearn_stndt.plotting import RatesDisplay
    >>> data = make_reaches(n_trials=20, n_bins=20, n_neurons=8, random_state=0)
    >>> network = STNDTEstimator(max_epochs=2, random_state=0).fit(data.spikes)
    >>> display = RatesDisplay.from_estimator(network, data.spikes, trial=3, bin_width=0.02)
    >>> [ax.get_title() for ax in display.axes_]
    ['spikes', 'smoothed', 'inferred']
    >>> plt.close(display.figure_)
    """

    def __init__(
        self,
        spikes: ArrayLike,
        rates: ArrayLike,
        *,
        bin_width: float | None = None,
        smoothing: float = 2.0,
        counts: bool = True,
    ):
        self.counts = counts
        self.spikes = as_trials(spikes, "spikes")[0]
        self.rates = as_trials(rates, "rates")[0]
        check_same_shape(self.spikes, self.rates, ("spikes", "rates"))
        check_bin_width(bin_width)
        self.bin_width = bin_width
        self.smoothing = smoothing
        self.smoothed = smooth(self.spikes, smoothing)
        self.order = np.argsort(self.rates.argmax(0), kind="stable")

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        *,
        trial: int = 0,
        conditions: ArrayLike | None = None,
        condition: Any = None,
        bins: tuple[int, int] | None = None,
        bin_width: float | None = None,
        smoothing: float = 2.0,
        groups: ArrayLike | None = None,
        ax: Any = None,
    ) -> Self:
        """Infer rates and draw them.

        Parameters
        ----------
        estimator : STNDTEstimator, BaggingEnsemble or Pipeline
            Fitted; in a pipeline or a search, the step that infers rates is used.
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Spikes per bin, NaN where hidden.
        trial : int, default=0
            Trial to show.
        conditions : array-like of shape (n_trials,), default=None
            Condition of each trial, None or NaN if it has none.
        condition : default=None
            Show the mean over the trials of this condition instead of one trial.
        bins : (int, int), default=None
            First bin to show, and one past the last. None: all.
        bin_width : float, default=None
            Bin width in seconds.
        smoothing : float, default=2.0
            Standard deviation of the Gaussian, in bins.
        groups : array-like of shape (n_bins,), default=None
            Trial of each row of a 2D X.
        ax : matplotlib Axes, or array of 3, default=None
            Where to draw. None: a new figure.

        Returns
        -------
        RatesDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If there is no such trial or condition, or if X is invalid.
        """
        require_matplotlib()
        rates = infer_rates(estimator, X, groups)
        return cls.from_predictions(
            X,
            rates,
            counts=scoring_of(estimator).counts,
            trial=trial,
            conditions=conditions,
            condition=condition,
            bins=bins,
            bin_width=bin_width,
            smoothing=smoothing,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        spikes: ArrayLike,
        rates: ArrayLike,
        *,
        trial: int = 0,
        conditions: ArrayLike | None = None,
        condition: Any = None,
        bins: tuple[int, int] | None = None,
        bin_width: float | None = None,
        smoothing: float = 2.0,
        counts: bool = True,
        ax: Any = None,
    ) -> Self:
        """Draw rates that are already inferred.

        Parameters
        ----------
        spikes, rates : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Spikes per bin, and their rates in the same unit.
        trial, conditions, condition, bins, bin_width, smoothing, ax
            As in :meth:`from_estimator`.
        counts : bool, default=True
            As in the class.

        Returns
        -------
        RatesDisplay
        """
        require_matplotlib()
        spikes, rates = as_trials(spikes, "spikes"), as_trials(rates, "rates")
        check_same_shape(spikes, rates, ("spikes", "rates"))
        if condition is not None:
            chosen = np.zeros(0, dtype=bool)
            if conditions is not None:
                labels, chosen = as_labels(conditions, "conditions")
                chosen[chosen] = labels[chosen] == condition
            if chosen.shape != (len(spikes),) or not chosen.any():
                raise ValueError(
                    f"condition={condition!r} needs conditions that include it, one for each of "
                    f"the {len(spikes)} trials, got {conditions!r}."
                )
            one, its_rates = mean_seen(spikes[chosen]), mean_seen(rates[chosen])
        elif not -len(spikes) <= trial < len(spikes):
            raise ValueError(
                f"trial={trial}, but there are {len(spikes)} trials; count them from 0."
            )
        else:
            one, its_rates = spikes[trial], rates[trial]
        start, stop = (0, None) if bins is None else bins
        display = cls(
            one[start:stop],
            its_rates[start:stop],
            bin_width=bin_width,
            smoothing=smoothing,
            counts=counts,
        )
        return display.plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, or array of 3, default=None
            Where to draw; a single Axes is divided. None: a new figure.

        Returns
        -------
        RatesDisplay
        """
        require_matplotlib()
        self.figure_, axes = make_axes(ax, 3, 1, (5, 6), sharex=True)
        self.axes_ = axes[:, 0]
        self.ax_ = self.axes_[0]
        _, edges, label = time_axis(len(self.spikes), self.bin_width)
        extent = (*edges, len(self.order), 0)
        highest = self.rates.max(0)
        first = "spikes" if self.counts else "data"
        with np.errstate(invalid="ignore", divide="ignore"):
            panels = {
                first: self.spikes,
                "smoothed": self.smoothed / np.nanmax(self.smoothed, axis=0, initial=1e-12),
                "inferred": self.rates / np.where(highest > 0, highest, 1),
            }
        # otherwise, a few bins with many spikes make all others pale
        most = max(np.nanpercentile(self.spikes, 99.5), 1.0)
        relative = "rate / maximum" if self.counts else "value / maximum"
        negative = np.nanmin(self.spikes) < 0 or self.rates.min() < 0
        if negative or not self.counts:
            panels[first] = _relative(self.spikes, negative)
            most = 1.0
        if negative:
            relative = "value, lowest to highest"
            panels |= {
                "smoothed": _relative(self.smoothed, negative),
                "inferred": _relative(self.rates, negative),
            }
        for panel, (title, values) in zip(self.axes_, panels.items(), strict=True):
            counts = title == first
            image = panel.imshow(
                values[:, self.order].T,
                aspect="auto",
                interpolation="none",
                extent=extent,
                cmap=ink_map() if counts else heat_map(),
                vmin=0,
                vmax=most if counts else 1,
            )
            panel.set(title=title, ylabel="neuron, sorted")
            bar = "spikes per bin" if counts and self.counts else relative
            beyond = "max" if counts and np.nanmax(values) > most else "neither"
            self.figure_.colorbar(image, ax=panel, label=bar, extend=beyond)
        self.axes_[-1].set_xlabel(label)
        return self


def _relative(values: NDArray, from_lowest: bool) -> NDArray:
    """Values of each neuron relative to its highest one, or to its range."""
    low = np.fmin.reduce(values, axis=0) if from_lowest else 0.0
    span = np.fmax.reduce(values, axis=0) - low
    return (values - low) / np.where(span > 0, span, 1)
