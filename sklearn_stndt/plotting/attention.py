"""Plot attention maps."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sklearn_stndt.inspection import attention_maps
from sklearn_stndt.plotting._style import (
    check_bin_width,
    heat_map,
    make_axes,
    require_matplotlib,
)


class AttentionDisplay:
    """Plot of attention between bins and, if the network has it, between neurons.

    Rows are queries (the bin or neuron that attends), columns are keys (attended to).

    Parameters
    ----------
    temporal : array-like of shape (n_map_bins, n_map_bins) or None
        Attention between bins. None: not shown.
    spatial : array-like of shape (n_neurons, n_neurons) or None
        Attention between neurons. None: not shown.
    bin_width : float, default=None
        Width of a bin, in seconds. None: time in bins.
    sort : bool, default=True
        Sort neurons by the attention that they receive, in descending order.

    Attributes
    ----------
    order : ndarray of int, shape (n_neurons,)
        Neurons from left to right, as indices into `spatial`; empty without a spatial map.
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes
        One per map.
    ax_ : matplotlib Axes
        The first of `axes_`.

    See Also
    --------
    sklearn_stndt.inspection.attention_maps : Compute the maps as arrays.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn_stndt import STNDTEstimator
    >>> from sklearn_stndt.datasets import make_reaches
    >>> from sklearn_stndt.plotting import AttentionDisplay
    >>> spikes = make_reaches(n_trials=20, n_bins=20, n_neurons=8, random_state=0).spikes
    >>> network = STNDTEstimator(max_epochs=2, random_state=0).fit(spikes)
    >>> display = AttentionDisplay.from_estimator(network, spikes)
    >>> display.temporal.shape, display.spatial.shape
    ((20, 20), (8, 8))
    >>> plt.close(display.figure_)
    """

    def __init__(
        self,
        temporal: ArrayLike | None = None,
        spatial: ArrayLike | None = None,
        *,
        bin_width: float | None = None,
        sort: bool = True,
    ):
        check_bin_width(bin_width)
        self.temporal = None if temporal is None else np.asarray(temporal, dtype=np.float64)
        self.spatial = None if spatial is None else np.asarray(spatial, dtype=np.float64)
        maps = {"temporal": self.temporal, "spatial": self.spatial}
        for name, weights in maps.items():
            if weights is not None and (
                weights.ndim != 2 or weights.shape[0] != weights.shape[1] or not weights.size
            ):
                raise ValueError(f"{name} must be a square map, got shape {weights.shape}.")
        if self.temporal is None and self.spatial is None:
            raise ValueError("There is no map to show: pass temporal, spatial, or both.")
        self.bin_width = bin_width
        self.order = np.array([], dtype=np.intp)
        if self.spatial is not None:
            self.order = np.arange(len(self.spatial))
            if sort:
                self.order = np.argsort(-self.spatial.sum(0), kind="stable")

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        *,
        layer: int = 0,
        head: int | None = None,
        groups: ArrayLike | None = None,
        heldin_only: bool = False,
        bin_width: float | None = None,
        sort: bool = True,
        ax: Any = None,
    ) -> Self:
        """Compute the mean maps of a layer and plot them.

        Parameters
        ----------
        estimator : STNDTEstimator, BaggingEnsemble or Pipeline
            Fitted estimator.
        X : array-like of shape (n_trials, n_bins, n_neurons) or (n_bins, n_neurons)
            Spike counts per bin, NaN where hidden.
        layer : int, default=0
            Layer of both maps. If only one layer has spatial attention, its spatial map is shown
            for every `layer`.
        head : int, default=None
            Head of the temporal map. None: the mean over heads.
        groups : array-like of shape (n_bins,), default=None
            Trial of each row of a 2D X.
        heldin_only : bool, default=False
            Leave out held-out neurons, which the network never sees.
        bin_width : float, default=None
            Width of a bin, in seconds. None: time in bins.
        sort : bool, default=True
            Sort neurons by the attention that they receive, in descending order.
        ax : matplotlib Axes, or array of them, default=None
            Axes to plot into. None: a new figure.

        Returns
        -------
        AttentionDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If there is no such layer or head, or X is not what `estimator` expects.
        """
        require_matplotlib()
        maps = attention_maps(estimator, X, groups=groups, layer=layer, heldin_only=heldin_only)
        heads = maps.temporal[0]
        if head is not None and not -len(heads) <= head < len(heads):
            raise ValueError(
                f"head={head}, but there are {len(heads)} heads; count them from 0, or pass None "
                "for their mean."
            )
        display = cls(
            heads.mean(0) if head is None else heads[head],
            maps.spatial[0] if maps.spatial else None,
            bin_width=bin_width,
            sort=sort,
        )
        return display.plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Plot the maps.

        Parameters
        ----------
        ax : matplotlib Axes, or array of them, default=None
            Axes to plot into; a single Axes is divided. None: a new figure.

        Returns
        -------
        AttentionDisplay
        """
        require_matplotlib()
        from matplotlib.ticker import MaxNLocator

        names = [name for name in ("temporal", "spatial") if getattr(self, name) is not None]
        self.figure_, axes = make_axes(ax, 1, len(names), (3.5 * len(names), 4.0))
        self.axes_ = axes[0]
        self.ax_ = self.axes_[0]
        for panel, name in zip(self.axes_, names, strict=True):
            weights = getattr(self, name)
            extent, title, token, unit = len(weights), name, "neuron", ""
            if name == "spatial":
                weights = weights[np.ix_(self.order, self.order)]
                if (np.diff(self.order) != 1).any():
                    title = "spatial, sorted"
            else:
                extent = extent * (self.bin_width or 1)
                token, unit = ("bin", "") if self.bin_width is None else ("time", " (s)")
            image = panel.imshow(
                weights,
                cmap=heat_map(),
                vmin=0,
                interpolation="none",
                extent=(0, extent, extent, 0),
            )
            panel.set_title(title, fontsize="medium")
            panel.set(xlabel=f"{token} looked at{unit}", ylabel=f"{token} looking{unit}")
            for axis in (panel.xaxis, panel.yaxis):
                axis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
                axis.set_major_formatter("{x:g}")
            bar = self.figure_.colorbar(image, ax=panel, location="bottom", label="weight")
            bar.locator = MaxNLocator(2)
            bar.update_ticks()
        return self
