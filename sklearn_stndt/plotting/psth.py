"""Mean responses to conditions: smoothed counts and inferred rates."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sklearn_stndt._rates import infer_rates
from sklearn_stndt.metrics._checks import as_labels, number_labels
from sklearn_stndt.plotting._style import (
    as_trials,
    category_colors,
    check_bin_width,
    check_same_shape,
    make_axes,
    mean_seen,
    rate_unit,
    require_matplotlib,
    smooth,
    time_axis,
)


class PSTHDisplay:
    """Peri-stimulus time histograms of some neurons, above their mean inferred rates.

    Parameters
    ----------
    psth, mean_rates : ndarray of shape (n_conditions, n_bins, n_neurons)
        Smoothed counts and inferred rates, averaged over the trials of each condition, in spikes
        per bin.
    conditions : array-like of shape (n_conditions,)
        Names of the conditions.
    neurons : array-like of int, shape (n_shown,)
        Neurons to show, one column each.
    bin_width : float, default=None
        Bin width in seconds. None: time in bins, rates in spikes per bin.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes, shape (2, n_shown)
        Smoothed counts above, inferred rates below.
    ax_ : matplotlib Axes
        The first of these axes.

    See Also
    --------
    sklearn_stndt.metrics.psth_r2 : R2 between PSTHs and mean rates.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn_stndt import STNDTEstimator
    >>> from sklearn_stndt.datasets import make_reaches
    >>> from sklearn_stndt.plotting import PSTHDisplay
    >>> data = make_reaches(n_trials=24, n_bins=20, n_neurons=8, random_state=0)
    >>> network = STNDTEstimator(max_epochs=2, random_state=0).fit(data.spikes)
    >>> display = PSTHDisplay.from_estimator(
    ...     network, data.spikes, data.conditions, neurons=[2, 5], bin_width=0.02
    ... )
    >>> display.axes_.shape, display.mean_rates.shape
    ((2, 2), (8, 20, 8))
    >>> plt.close(display.figure_)
    """

    def __init__(
        self,
        psth: ArrayLike,
        mean_rates: ArrayLike,
        *,
        conditions: ArrayLike,
        neurons: ArrayLike,
        bin_width: float | None = None,
    ):
        self.psth = as_trials(psth, "psth")
        self.mean_rates = as_trials(mean_rates, "mean_rates")
        check_same_shape(self.psth, self.mean_rates, ("psth", "mean_rates"))
        check_bin_width(bin_width)
        self.conditions = np.asarray(conditions)
        self.neurons = np.asarray(neurons)
        self.bin_width = bin_width

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        conditions: ArrayLike,
        *,
        neurons: ArrayLike | None = None,
        smoothing: float = 2.0,
        bin_width: float | None = None,
        ax: Any = None,
    ) -> Self:
        """Infer rates, average counts and rates over trials, and draw.

        Parameters
        ----------
        estimator : STNDTEstimator, BaggingEnsemble or Pipeline
            Fitted; in a pipeline or a search, the step that infers rates is used.
        X : array-like of shape (n_trials, n_bins, n_neurons)
            Spikes per bin, NaN where hidden.
        conditions : array-like of shape (n_trials,)
            Condition of each trial; trials with None or NaN are left out.
        neurons : array-like of int, default=None
            Neurons to show. None: the three whose inferred rates differ most between conditions.
        smoothing : float, default=2.0
            Standard deviation of the Gaussian that smooths counts, in bins.
        bin_width : float, default=None
            Bin width in seconds.
        ax : matplotlib Axes, or array of (2, n_shown), default=None
            Where to draw. None: a new figure.

        Returns
        -------
        PSTHDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If conditions or neurons do not fit X, or no trial has a condition.
        """
        require_matplotlib()
        return cls.from_predictions(
            X,
            infer_rates(estimator, X, None),
            conditions,
            neurons=neurons,
            smoothing=smoothing,
            bin_width=bin_width,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        spikes: ArrayLike,
        rates: ArrayLike,
        conditions: ArrayLike,
        *,
        neurons: ArrayLike | None = None,
        smoothing: float = 2.0,
        bin_width: float | None = None,
        ax: Any = None,
    ) -> Self:
        """Average and draw rates that are already inferred.

        Parameters
        ----------
        spikes, rates : array-like of shape (n_trials, n_bins, n_neurons)
            Spikes per bin, and their rates in the same unit.
        conditions, neurons, smoothing, bin_width, ax
            As in :meth:`from_estimator`.

        Returns
        -------
        PSTHDisplay
        """
        require_matplotlib()
        spikes, rates = as_trials(spikes, "spikes"), as_trials(rates, "rates")
        check_same_shape(spikes, rates, ("spikes", "rates"))
        labels, known = as_labels(conditions, "conditions")
        if labels.shape != (len(spikes),):
            raise ValueError(
                f"conditions must hold the condition of each of the {len(spikes)} trials, got "
                f"shape {labels.shape}."
            )
        if not known.any():
            raise ValueError(
                f"conditions is None or NaN for each of the {len(spikes)} trials; pass the "
                "condition of at least one trial."
            )
        names, numbers = number_labels(labels, known)
        smoothed = smooth(spikes, smoothing)
        psth = np.stack([mean_seen(smoothed[numbers == i]) for i in range(len(names))])
        means = np.stack([mean_seen(rates[numbers == i]) for i in range(len(names))])
        if neurons is None:
            neurons = np.argsort(-means.var(0).mean(0), kind="stable")[:3]
        shown = np.asarray(neurons)
        n_neurons = spikes.shape[-1]
        if shown.ndim != 1 or not shown.size or not np.isin(shown, np.arange(n_neurons)).all():
            raise ValueError(
                f"neurons must be a list of indices from 0 to {n_neurons - 1}, got {neurons!r}."
            )
        display = cls(psth, means, conditions=names, neurons=shown, bin_width=bin_width)
        return display.plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, or array of (2, n_shown), default=None
            Where to draw; a single Axes is divided. None: a new figure.

        Returns
        -------
        PSTHDisplay
        """
        require_matplotlib()
        from matplotlib.ticker import MaxNLocator

        size = (max(1.0 + 2.0 * len(self.neurons), 3.5), 4.2)
        self.figure_, self.axes_ = make_axes(
            ax, 2, len(self.neurons), size, sharex=True, sharey="col"
        )
        self.ax_ = self.axes_[0, 0]
        time, edges, label = time_axis(self.psth.shape[1], self.bin_width)
        factor, unit = rate_unit(self.bin_width)
        colors = category_colors(len(self.conditions))
        for row, means in zip(self.axes_, (self.psth, self.mean_rates), strict=True):
            for panel, neuron in zip(row, self.neurons, strict=True):
                for name, course, color in zip(self.conditions, means, colors, strict=True):
                    panel.plot(time, factor * course[:, neuron], color=color, lw=1.3, label=name)
                panel.set_xlim(*edges)
                panel.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
                panel.xaxis.set_major_formatter("{x:g}")
                panel.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
                panel.yaxis.set_major_formatter("{x:g}")
        for panel, neuron in zip(self.axes_[0], self.neurons, strict=True):
            panel.set_title(f"neuron {neuron}", fontsize="medium")
            panel.set_ylim(0, None)
        self.axes_[0, 0].set_ylabel(f"smoothed\n({unit})")
        self.axes_[1, 0].set_ylabel(f"inferred\n({unit})")
        for panel in self.axes_[1]:
            panel.set_xlabel(label)
        if ax is None and 1 < len(self.conditions) <= 7:
            handles, labels = self.ax_.get_legend_handles_labels()
            self.figure_.legend(
                handles,
                labels,
                title="condition",
                loc="outside lower center",
                ncols=len(self.conditions) if len(self.neurons) > 2 else 4,
                fontsize="small",
                frameon=False,
                handlelength=1.0,
                columnspacing=1.0,
            )
        elif ax is None and len(self.conditions) > 7:
            self._colorbar(colors)
        return self

    def _colorbar(self, colors: list) -> None:
        """Draw a colour bar for many conditions, in order."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import BoundaryNorm, ListedColormap

        number = len(colors)
        scale = ScalarMappable(
            BoundaryNorm(np.arange(number + 1) - 0.5, number), ListedColormap(colors)
        )
        ticks = np.unique(np.linspace(0, number - 1, min(number, 8)).round().astype(int))
        bar = self.figure_.colorbar(scale, ax=self.axes_, label="condition", ticks=ticks)
        bar.ax.set_yticklabels([str(self.conditions[tick]) for tick in ticks])
        bar.ax.minorticks_off()
