"""Plot scores against the number of dropped neurons or of ensemble members."""

from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sklearn_stndt._containers import as_array
from sklearn_stndt._rates import find_rates, groups_keyword, infer_rates, pass_through
from sklearn_stndt._scoring import score_hidden, scoring_of
from sklearn_stndt._validation import check_groups
from sklearn_stndt.inspection import neuron_dropping_curve
from sklearn_stndt.plotting._style import (
    ORANGE,
    category_colors,
    main_color,
    make_axes,
    require_matplotlib,
)


def _legend_above(ax: Any, n_columns: int) -> None:
    """Put the legend above the axes, where it covers no curve."""
    ax.legend(
        fontsize="small",
        frameon=False,
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        borderaxespad=0.2,
        handlelength=1.8,
        columnspacing=1.2,
        ncols=n_columns,
    )


class NeuronDroppingDisplay:
    """Plot of scores against the number of dropped neurons, important ones or random ones.

    The spikes of dropped neurons are NaN in the input.

    Parameters
    ----------
    curves : dict of Bunch
        Results of :func:`sklearn_stndt.inspection.neuron_dropping_curve`, by the name of the
        estimator.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes
        One per scorer.
    ax_ : matplotlib Axes
        The first of `axes_`.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn_stndt import STNDTEstimator
    >>> from sklearn_stndt.datasets import make_reaches
    >>> from sklearn_stndt.plotting import NeuronDroppingDisplay
    >>> spikes = make_reaches(n_trials=20, n_bins=20, n_neurons=8, random_state=0).spikes
    >>> network = STNDTEstimator(heldout_neurons=2, max_epochs=2, random_state=0).fit(spikes)
    >>> display = NeuronDroppingDisplay.from_estimator(
    ...     network, spikes, n_steps=2, n_random=2, random_state=0
    ... )
    >>> display.ax_.get_xlabel()
    'neurons dropped'
    >>> plt.close(display.figure_)
    """

    def __init__(self, curves: dict[str, Any]):
        if not curves:
            raise ValueError("There is no curve to show: pass at least one, under a name.")
        scorers = [tuple(curve["scores"]) for curve in curves.values()]
        if len(set(scorers)) > 1:
            raise ValueError(
                f"All curves need the same scorers, got {scorers}. Compute them with equal scorers."
            )
        self.curves = curves

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        y: Any = None,
        *,
        name: str | None = None,
        ax: Any = None,
        **params: Any,
    ) -> Self:
        """Compute the curve and plot it.

        Parameters
        ----------
        estimator : STNDTEstimator, BaggingEnsemble or Pipeline
            Fitted estimator.
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Spike counts per bin, NaN where unknown.
        y : array-like, default=None
            Target of the scorers.
        name : str, default=None
            Name in the legend. None: the name of the class.
        ax : matplotlib Axes, or array of them, default=None
            Axes to plot into. None: a new figure.
        **params
            Parameters of :func:`sklearn_stndt.inspection.neuron_dropping_curve`.

        Returns
        -------
        NeuronDroppingDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            As in :func:`sklearn_stndt.inspection.neuron_dropping_curve`.
        """
        require_matplotlib()
        curve = neuron_dropping_curve(estimator, X, y, **params)
        return cls.from_curves({name or type(estimator).__name__: curve}, ax=ax)

    @classmethod
    def from_curves(cls, curves: dict[str, Any], *, ax: Any = None) -> Self:
        """Plot curves that were computed before.

        Parameters
        ----------
        curves : dict of Bunch
            Results of :func:`sklearn_stndt.inspection.neuron_dropping_curve`, by the name of the
            estimator.
        ax : matplotlib Axes, or array of them, default=None
            Axes to plot into. None: a new figure.

        Returns
        -------
        NeuronDroppingDisplay
        """
        return cls(curves).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Plot the curves.

        Parameters
        ----------
        ax : matplotlib Axes, or array of them, default=None
            Axes to plot into; a single Axes is divided. None: a new figure.

        Returns
        -------
        NeuronDroppingDisplay
        """
        require_matplotlib()
        from matplotlib.ticker import MaxNLocator

        scorers = list(next(iter(self.curves.values()))["scores"])
        self.figure_, axes = make_axes(
            ax, len(scorers), 1, (4.2, 0.9 + 2.3 * len(scorers)), sharex=True
        )
        self.axes_ = axes[:, 0]
        self.ax_ = self.axes_[0]
        colors = category_colors(len(self.curves))
        for panel, scorer in zip(self.axes_, scorers, strict=True):
            for (name, curve), color in zip(self.curves.items(), colors, strict=True):
                k, mean = curve["n_dropped"], curve["random_mean"][scorer]
                error = curve["random_2se"][scorer]
                start = f"{name}, " if len(self.curves) > 1 else ""
                panel.plot(
                    k,
                    curve["scores"][scorer],
                    "o-",
                    color=color,
                    ms=4,
                    label=f"{start}important",
                )
                panel.plot(k, mean, "--", color=color, label=f"{start}random")
                panel.fill_between(k, mean - error, mean + error, color=color, alpha=0.25, lw=0)
            unit = next(iter(self.curves.values())).get("unit", "bits per spike")
            panel.set_ylabel(unit if scorer == "bits_per_spike" else scorer)
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            panel.yaxis.set_major_locator(MaxNLocator(5))
        self.axes_[-1].set_xlabel("neurons dropped")
        _legend_above(self.ax_, 2 if len(self.curves) <= 2 else 1)
        return self


class EnsembleCurveDisplay:
    """Plot of the score of an ensemble against its number of members.

    Parameters
    ----------
    scores : array-like of shape (n_members,)
        Scores of the mean rates of the first 1, 2, ... members.
    member_scores : array-like of shape (n_members,), default=None
        Scores of each member alone.
    unit : str, default="bits per spike"
        Unit of the scores.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes, shape (1,)
    ax_ : matplotlib Axes

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn_stndt import BaggingEnsemble, STNDTEstimator
    >>> from sklearn_stndt.datasets import make_reaches
    >>> from sklearn_stndt.plotting import EnsembleCurveDisplay
    >>> spikes = make_reaches(n_trials=20, n_bins=20, n_neurons=8, random_state=0).spikes
    >>> member = STNDTEstimator(max_epochs=2)
    >>> ensemble = BaggingEnsemble(member, n_estimators=2, random_state=0).fit(spikes)
    >>> display = EnsembleCurveDisplay.from_estimator(ensemble, spikes)
    >>> display.scores.shape, display.member_scores.shape
    ((2,), (2,))
    >>> plt.close(display.figure_)
    """

    def __init__(
        self,
        scores: ArrayLike,
        member_scores: ArrayLike | None = None,
        *,
        unit: str = "bits per spike",
    ):
        self.unit = unit
        self.scores = np.asarray(scores, dtype=np.float64)
        self.member_scores = None
        if member_scores is not None:
            self.member_scores = np.asarray(member_scores, dtype=np.float64)
        for given in (self.scores, self.member_scores):
            if given is not None and (given.shape != self.scores.shape or given.ndim != 1):
                raise ValueError(
                    "scores and member_scores must have shape (n_members,), got "
                    f"{self.scores.shape} and {given.shape}."
                )

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        y: Any = None,
        *,
        members: bool = True,
        groups: ArrayLike | None = None,
        ax: Any = None,
    ) -> Self:
        """Compute the scores and plot them.

        Parameters
        ----------
        estimator : BaggingEnsemble, or Pipeline that starts with one
            Fitted estimator.
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Spike counts per bin, from trials that were not used in fit.
        y : ignored
            For compatibility.
        members : bool, default=True
            Whether to score each member alone too, which doubles the time.
        groups : array-like of shape (n_bins,), default=None
            Trial of each row of a 2D X.
        ax : matplotlib Axes, default=None
            Axes to plot into. None: a new figure.

        Returns
        -------
        EnsembleCurveDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If `estimator` has no `score_curve`.
        """
        require_matplotlib()
        before, ensemble = find_rates(estimator)
        if not hasattr(ensemble, "score_curve"):
            raise TypeError(
                f"{type(ensemble).__name__} has no score_curve; pass a fitted BaggingEnsemble."
            )
        X = pass_through(before, X)
        scores = ensemble.score_curve(X, **groups_keyword(X, groups))
        alone = None
        if members:
            counts = np.asarray(as_array(X))  # members were fitted without feature names
            groups = check_groups(counts, groups, X)
            alone = [
                score_hidden(
                    partial(infer_rates, member, groups=groups),
                    counts,
                    ensemble.heldout_neurons_,
                    scoring_of(member).score,
                )
                for member in ensemble.estimators_
            ]
        unit = scoring_of(ensemble.estimators_[0]).likelihood.unit
        return cls(scores, alone, unit=unit).plot(ax)

    @classmethod
    def from_scores(
        cls, scores: ArrayLike, member_scores: ArrayLike | None = None, *, ax: Any = None
    ) -> Self:
        """Plot scores that were computed before.

        Parameters
        ----------
        scores, member_scores : array-like of shape (n_members,)
            As in the class.
        ax : matplotlib Axes, default=None
            Axes to plot into. None: a new figure.

        Returns
        -------
        EnsembleCurveDisplay
        """
        return cls(scores, member_scores).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Plot the scores.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot into. None: a new figure.

        Returns
        -------
        EnsembleCurveDisplay
        """
        require_matplotlib()
        from matplotlib.ticker import MaxNLocator

        self.figure_, axes = make_axes(ax, 1, 1, (4.2, 3.2))
        self.axes_ = axes[0]
        self.ax_ = self.axes_[0]
        number = np.arange(1, len(self.scores) + 1)
        color = main_color()
        self.ax_.plot(number, self.scores, "o-", color=color, ms=4, label="mean of the first n")
        if self.member_scores is not None:
            self.ax_.plot(number, self.member_scores, "x", color=ORANGE, label="n-th alone")
        self.ax_.set(xlabel="members, n", ylabel=self.unit)
        self.ax_.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        self.ax_.yaxis.set_major_locator(MaxNLocator(5))
        _legend_above(self.ax_, 2)
        return self
