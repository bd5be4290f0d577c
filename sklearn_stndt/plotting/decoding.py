"""Plot true and decoded behaviour."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import r2_score

from sklearn_stndt._rates import groups_keyword
from sklearn_stndt.metrics._checks import as_float64, check_predicts_numbers
from sklearn_stndt.plotting._style import (
    check_bin_width,
    check_same_shape,
    main_color,
    make_axes,
    require_matplotlib,
    text_color,
    time_axis,
)


class DecodingDisplay:
    """Plot of true and decoded behaviour: time courses of one trial, and paths of several.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_trials, n_bins, n_targets) or (n_bins, n_targets)
        Behaviour in each bin, such as velocity, NaN where unknown. A single target needs a last
        axis of length 1.
    trial : int, default=0
        Trial whose time courses are shown.
    path_trials : array-like of int, default=None
        Trials whose paths are shown if there are two targets. None: up to 12 trials, evenly
        spaced.
    integrate : bool, default=True
        If True, targets are velocities and paths are their cumulative sums. If False, targets are
        positions.
    bin_width : float, default=None
        Width of a bin, in seconds. None: time in bins.
    names : list of str, default=None
        Names of the targets. None: x and y, or numbers.
    unit, path_unit : str, default="cm/s" and "cm"
        Units of the targets and of the paths.

    Attributes
    ----------
    r2 : float
        R2 over all known bins of all trials, averaged over targets.
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes
        One per target; with two targets, one more below for the paths.
    ax_ : matplotlib Axes
        The first of `axes_`.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import numpy as np
    >>> from sklearn_stndt.datasets import make_reaches
    >>> from sklearn_stndt.plotting import DecodingDisplay
    >>> velocity = make_reaches(n_trials=8, random_state=0).velocity
    >>> decoded = velocity + np.random.default_rng(0).normal(size=velocity.shape)
    >>> display = DecodingDisplay.from_predictions(velocity, decoded, bin_width=0.02)
    >>> [ax.get_ylabel() for ax in display.axes_]
    ['x (cm/s)', 'y (cm/s)', 'y (cm)']
    >>> plt.close(display.figure_)
    """

    def __init__(
        self,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        *,
        trial: int = 0,
        path_trials: ArrayLike | None = None,
        integrate: bool = True,
        bin_width: float | None = None,
        names: list[str] | None = None,
        unit: str = "cm/s",
        path_unit: str = "cm",
    ):
        y_true, y_pred = as_float64(y_true, "y_true"), as_float64(y_pred, "y_pred")
        check_same_shape(y_true, y_pred, ("y_true", "y_pred"))
        check_bin_width(bin_width)
        if y_true.ndim not in (2, 3) or 0 in y_true.shape:
            raise ValueError(
                "y_true must have shape (n_trials, n_bins, n_targets) or (n_bins, n_targets), got "
                f"{y_true.shape}. Give a single target an axis of length 1."
            )
        self.y_true = y_true if y_true.ndim == 3 else y_true[None]
        self.y_pred = y_pred if y_pred.ndim == 3 else y_pred[None]
        n_trials, _, n_targets = self.y_true.shape
        if path_trials is None:
            path_trials = np.unique(np.linspace(0, n_trials - 1, 12).round().astype(int))
        self.path_trials = np.asarray(path_trials)
        for shown in (trial, *self.path_trials):
            if not -n_trials <= shown < n_trials:
                raise ValueError(f"There is no trial {shown} among {n_trials}; count from 0.")
        self.trial = trial
        self.integrate = integrate
        self.bin_width = bin_width
        if names is None:
            names = ["x", "y"] if n_targets == 2 else [f"target {i}" for i in range(n_targets)]
        if len(names) != n_targets:
            raise ValueError(f"names must name {n_targets} targets, got {names!r}.")
        self.names = names
        self.unit = unit
        self.path_unit = path_unit
        known = ~np.isnan(self.y_true).any(-1)
        self.r2 = float("nan")
        if known.sum() > 1:
            self.r2 = float(r2_score(self.y_true[known], self.y_pred[known]))

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        y: ArrayLike,
        *,
        groups: ArrayLike | None = None,
        ax: Any = None,
        **params: Any,
    ) -> Self:
        """Decode and plot behaviour.

        Parameters
        ----------
        estimator : estimator with `predict`
            Fitted estimator, such as a pipeline of STNDTEstimator and a regressor.
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Spike counts per bin, from trials that were not used in fit.
        y : array-like of shape (n_trials, n_bins, n_targets) or (n_bins, n_targets)
            Behaviour, NaN where unknown. The last axis may be missing for a single target.
        groups : array-like of shape (n_bins,), default=None
            Trial of each row of a 2D X; requires metadata routing in a pipeline.
        ax : matplotlib Axes, or array of them, default=None
            Axes to plot into. None: a new figure.
        **params
            Parameters of the class.

        Returns
        -------
        DecodingDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If `estimator` has no `predict`, or predicts labels.
        """
        require_matplotlib()
        if not hasattr(estimator, "predict"):
            raise TypeError(
                f"{type(estimator).__name__} has no predict; pass a pipeline that ends in a "
                "regressor, or pass predictions to from_predictions."
            )
        check_predicts_numbers(estimator, cls.__name__)
        y_pred = estimator.predict(X, **groups_keyword(X, groups))
        y = np.asarray(y)
        if y.ndim == np.ndim(X) - 1:
            y, y_pred = y[..., None], np.reshape(y_pred, (*y.shape, 1))
        return cls.from_predictions(y, y_pred, ax=ax, **params)

    @classmethod
    def from_predictions(
        cls, y_true: ArrayLike, y_pred: ArrayLike, *, ax: Any = None, **params: Any
    ) -> Self:
        """Plot behaviour that was decoded before.

        Parameters
        ----------
        y_true, y_pred : array-like of shape (n_trials, n_bins, n_targets) or (n_bins, n_targets)
            True and decoded behaviour.
        ax : matplotlib Axes, or array of them, default=None
            Axes to plot into. None: a new figure.
        **params
            Parameters of the class.

        Returns
        -------
        DecodingDisplay
        """
        require_matplotlib()
        return cls(y_true, y_pred, **params).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Plot time courses and paths.

        Parameters
        ----------
        ax : matplotlib Axes, or array of them, default=None
            Axes to plot into; a single Axes is divided. None: a new figure.

        Returns
        -------
        DecodingDisplay
        """
        require_matplotlib()
        from matplotlib.ticker import MaxNLocator

        n_targets = self.y_true.shape[-1]
        n_panels = n_targets + (n_targets == 2)
        size = (4.5, 1.0 + 1.4 * n_targets + 2.6 * (n_targets == 2))
        ratios = [1.0] * n_targets + [2.0] * (n_targets == 2)
        self.figure_, axes = make_axes(ax, n_panels, 1, size, height_ratios=ratios)
        self.axes_ = axes[:, 0]
        self.ax_ = self.axes_[0]
        styles: list[dict[str, Any]] = [
            {"color": text_color(), "lw": 2.5, "alpha": 0.4, "label": "true"},
            {"color": main_color(), "lw": 1.5, "label": "decoded"},
        ]
        time, edges, label = time_axis(self.y_true.shape[1], self.bin_width)
        behaviours = (self.y_true, self.y_pred)
        for target in range(n_targets):
            panel = self.axes_[target]
            for behaviour, style in zip(behaviours, styles, strict=True):
                panel.plot(time, behaviour[self.trial, :, target], **style)
            panel.set(ylabel=f"{self.names[target]} ({self.unit})", xlim=tuple(edges))
            panel.yaxis.set_major_locator(MaxNLocator(4))
            if target < n_targets - 1:
                panel.tick_params(labelbottom=False)
        self.axes_[n_targets - 1].set_xlabel(label)
        score = f"trial {self.trial}" if len(self.y_true) > 1 else ""
        if not np.isnan(self.r2):
            score += f"{'; ' if score else ''}all bins: $R^2$ = {self.r2:.2f}"
        self.ax_.set_title(score, fontsize="medium")
        if n_targets == 2:
            panel = self.axes_[-1]
            for behaviour, style in zip(behaviours, styles, strict=True):
                for path in self._paths(behaviour):
                    panel.plot(*path.T, **(style | {"label": None}))
            panel.set(
                xlabel=f"{self.names[0]} ({self.path_unit})",
                ylabel=f"{self.names[1]} ({self.path_unit})",
            )
            panel.set_aspect("equal", adjustable="datalim")
        if ax is None:
            handles, labels = self.ax_.get_legend_handles_labels()
            self.figure_.legend(
                handles,
                labels,
                loc="outside upper center",
                ncols=2,
                frameon=False,
                fontsize="small",
            )
        else:
            self.ax_.legend(fontsize="small", frameon=False, ncols=2, loc="best")
        return self

    def _paths(self, behaviour: NDArray) -> NDArray:
        """Positions in the trials that are shown, (n_shown, n_bins, 2)."""
        shown = behaviour[self.path_trials]
        if not self.integrate:
            return shown
        # after an unknown bin, the path continues as if its velocity there were 0
        path = np.cumsum(np.nan_to_num(shown), axis=1) * (self.bin_width or 1.0)
        return np.where(np.isnan(shown), np.nan, path)
