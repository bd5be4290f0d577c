"""Colours, axes and units that all displays share; matplotlib is imported when they draw."""

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Okabe and Ito's colours, safe for the colour-blind and seen on white and on black; the black
# of the set is the colour of the text instead
BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
HIDDEN = ("0.5", 0.35)  # grey on white and on black
VERMILION, PURPLE, SKY, YELLOW = "#D55E00", "#CC79A7", "#56B4E9", "#F0E442"


def require_matplotlib() -> None:
    """Name the extra to install where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Displays draw with matplotlib, which is not installed. Install it: "
            "pip install sklearn-stndt[plot]"
        ) from error


def text_color() -> Any:
    """Colour of lines that stand for the truth: black on white, white on black."""
    import matplotlib as mpl

    return mpl.rcParams["text.color"]


def is_dark() -> bool:
    """Whether axes are dark."""
    import matplotlib as mpl
    from matplotlib.colors import to_rgb

    face = mpl.rcParams["axes.facecolor"]
    red, green, blue = to_rgb(face)
    return 0.3 * red + 0.6 * green + 0.1 * blue < 0.5


def main_color() -> str:
    """Colour of what the network says."""
    return SKY if is_dark() else BLUE


def category_colors(number: int) -> list[Any]:
    """Colours of conditions: as far as they reach those of the set, else a row of viridis."""
    import matplotlib as mpl

    colors = [BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, text_color()]
    if is_dark():  # blue is dim on black, as yellow is pale on white
        colors = [SKY, ORANGE, GREEN, VERMILION, PURPLE, YELLOW, BLUE]
    if number <= len(colors):
        return colors[:number]
    ends = (0.12, 1.0) if is_dark() else (0.0, 0.9)
    return list(mpl.colormaps["viridis"](np.linspace(*ends, number)))


def ink_map() -> Any:
    """Colour map from the background to the text, for counts; what is hidden is grey."""
    import matplotlib as mpl
    from matplotlib.colors import LinearSegmentedColormap

    ends = [mpl.rcParams["axes.facecolor"], text_color()]
    return LinearSegmentedColormap.from_list("ink", ends).with_extremes(bad=HIDDEN)


def heat_map() -> Any:
    """Colour map of rates and weights; what is hidden is grey."""
    import matplotlib as mpl

    return mpl.colormaps["viridis"].with_extremes(bad=HIDDEN)


def make_axes(
    ax: Any,
    n_rows: int,
    n_columns: int,
    size: tuple[float, float],
    height_ratios: list[float] | None = None,
    **shared: Any,
):
    """Axes to draw into, (n_rows, n_columns), and their figure.

    Parameters
    ----------
    ax : None, Axes, or array-like of Axes
        None: a new figure. One Axes makes room for all that are needed.
    n_rows, n_columns : int
        How many are needed.
    size : (float, float)
        Inches of a new figure.
    height_ratios : list of float, default=None
        Relative heights of the rows.
    **shared
        `sharex` and `sharey` of :meth:`matplotlib.figure.Figure.subplots`.
    """
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes

    if ax is None:
        figure = plt.figure(figsize=size, layout="constrained")
        return figure, figure.subplots(
            n_rows, n_columns, squeeze=False, height_ratios=height_ratios, **shared
        )
    if isinstance(ax, Axes):
        if n_rows == n_columns == 1:
            return ax.figure, np.array([[ax]], dtype=object)
        ax.set_axis_off()
        spec = ax.get_subplotspec()
        if spec is None:
            raise ValueError(
                f"This display draws {n_rows * n_columns} panels, and ax has no place in a grid "
                f"that could be divided. Pass an array of {n_rows * n_columns} axes."
            )
        grid = spec.subgridspec(n_rows, n_columns, height_ratios=height_ratios)
        return ax.figure, grid.subplots(squeeze=False, **shared)
    axes = np.asarray(ax, dtype=object)
    if axes.size != n_rows * n_columns:
        raise ValueError(
            f"This display draws {n_rows * n_columns} panels, got {axes.size} axes. Pass one Axes, "
            f"or an array of {n_rows * n_columns}."
        )
    axes = axes.reshape(n_rows, n_columns)
    return axes[0, 0].figure, axes


def time_axis(n_bins: int, bin_width: float | None) -> tuple[NDArray, NDArray, str]:
    """Centres of bins, edges of the axis (first, last), and the label."""
    width = 1.0 if bin_width is None else bin_width
    label = "time (bins)" if bin_width is None else "time (s)"
    return (np.arange(n_bins) + 0.5) * width, np.array([0.0, n_bins * width]), label


def rate_unit(bin_width: float | None) -> tuple[float, str]:
    """Factor that a rate in spikes per bin is multiplied by, and the unit."""
    return (1.0, "spikes per bin") if bin_width is None else (1 / bin_width, "Hz")


def smooth(counts: NDArray, width: float) -> NDArray:
    """Gaussian average over bins, the last axis but one, of what is visible, or else NaN."""
    from scipy.ndimage import gaussian_filter1d

    seen = ~np.isnan(counts)
    if width == 0:
        return np.where(seen, counts, np.nan)
    total = gaussian_filter1d(np.where(seen, counts, 0.0), width, axis=-2, mode="constant")
    number = gaussian_filter1d(seen.astype(float), width, axis=-2, mode="constant")
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 1e-3)


def mean_seen(values: NDArray) -> NDArray:
    """Mean over the first axis of what is not NaN; NaN where nothing is."""
    seen = ~np.isnan(values)
    number = seen.sum(0)
    total = np.where(seen, values, 0.0).sum(0)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def check_bin_width(bin_width: Any) -> None:
    """Refuse a bin width that is no positive number."""
    if bin_width is not None and not (isinstance(bin_width, Real) and float(bin_width) > 0):
        raise ValueError(
            f"bin_width must be a number of seconds above 0, or None for bins, got {bin_width!r}."
        )


def as_trials(X: ArrayLike, name: str) -> NDArray:
    """Counts or rates as floats, (n_trials, n_bins, n_neurons); a recording is one trial."""
    values = np.asarray(X, dtype=np.float64)
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(
            f"{name} must have shape (n_bins, n_neurons) or (n_trials, n_bins, n_neurons), got "
            f"{np.shape(X)}."
        )
    return values


def check_same_shape(first: NDArray, second: NDArray, names: tuple[str, str]) -> None:
    """Refuse two arrays that do not belong together."""
    if first.shape != second.shape:
        raise ValueError(
            f"{names[0]} has shape {first.shape} and {names[1]} has shape {second.shape}; pass two "
            "arrays of one shape."
        )
