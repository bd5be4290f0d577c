"""Colours, axes and units of all displays; matplotlib is imported when they draw."""

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklearn_stndt._containers import as_array

# Okabe and Ito's colours, which the colour-blind can tell apart, visible on white and on black;
# black is replaced by the colour of the text
BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
HIDDEN = ("0.5", 0.35)  # visible on white and on black
VERMILION, PURPLE, SKY, YELLOW = "#D55E00", "#CC79A7", "#56B4E9", "#F0E442"


def require_matplotlib() -> None:
    """Raise an error that names the extra to install if matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Displays draw with matplotlib, which is not installed. Install it: "
            'pip install "sklearn-stndt[plot]"'
        ) from error


def text_color() -> Any:
    """Colour of true values: black on white, white on black."""
    import matplotlib as mpl

    return mpl.rcParams["text.color"]


def is_dark() -> bool:
    """Whether axes have a dark background."""
    import matplotlib as mpl
    from matplotlib.colors import to_rgb

    face = mpl.rcParams["axes.facecolor"]
    red, green, blue = to_rgb(face)
    return 0.3 * red + 0.6 * green + 0.1 * blue < 0.5


def main_color() -> str:
    """Colour of inferred values."""
    return SKY if is_dark() else BLUE


def category_colors(number: int) -> list[Any]:
    """Colours of conditions: those of the set if there are enough, else samples of viridis."""
    import matplotlib as mpl

    colors = [BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, text_color()]
    if is_dark():  # blue is dim on black, as yellow is pale on white
        colors = [SKY, ORANGE, GREEN, VERMILION, PURPLE, YELLOW, BLUE]
    if number <= len(colors):
        return colors[:number]
    ends = (0.12, 1.0) if is_dark() else (0.0, 0.9)
    return list(mpl.colormaps["viridis"](np.linspace(*ends, number)))


def ink_map() -> Any:
    """Colour map of counts, from background colour to text colour; hidden entries are grey."""
    import matplotlib as mpl
    from matplotlib.colors import LinearSegmentedColormap

    ends = [mpl.rcParams["axes.facecolor"], text_color()]
    return LinearSegmentedColormap.from_list("ink", ends).with_extremes(bad=HIDDEN)


def heat_map() -> Any:
    """Colour map of rates and weights; hidden entries are grey."""
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
    """Return a figure and its axes, (n_rows, n_columns).

    Parameters
    ----------
    ax : None, Axes, or array-like of Axes
        None: a new figure. A single Axes is divided.
    n_rows, n_columns : int
        Shape of the grid of axes.
    size : (float, float)
        Width and height of a new figure, in inches.
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
                f"This display draws {n_rows * n_columns} panels, but ax is not part of a grid "
                f"and cannot be divided. Pass an array of {n_rows * n_columns} axes."
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
    """Return centres of bins, limits of the axis, and its label."""
    width = 1.0 if bin_width is None else bin_width
    label = "time (bins)" if bin_width is None else "time (s)"
    return (np.arange(n_bins) + 0.5) * width, np.array([0.0, n_bins * width]), label


def rate_unit(bin_width: float | None) -> tuple[float, str]:
    """Return the factor that converts spikes per bin to the unit shown, and the unit."""
    return (1.0, "spikes per bin") if bin_width is None else (1 / bin_width, "Hz")


def smooth(counts: NDArray, width: float) -> NDArray:
    """Smooth visible counts over bins, the second-last axis; NaN if none is near."""
    from scipy.ndimage import gaussian_filter1d

    seen = ~np.isnan(counts)
    if width == 0:
        return np.where(seen, counts, np.nan)
    total = gaussian_filter1d(np.where(seen, counts, 0.0), width, axis=-2, mode="constant")
    number = gaussian_filter1d(seen.astype(float), width, axis=-2, mode="constant")
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 1e-3)


def mean_seen(values: NDArray) -> NDArray:
    """Mean over the first axis without NaN; NaN if all values are NaN."""
    seen = ~np.isnan(values)
    number = seen.sum(0)
    total = np.where(seen, values, 0.0).sum(0)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def check_bin_width(bin_width: Any) -> None:
    """Refuse a bin width that is not a positive number."""
    if bin_width is not None and not (isinstance(bin_width, Real) and float(bin_width) > 0):
        raise ValueError(
            f"bin_width must be a number of seconds above 0, or None for bins, got {bin_width!r}."
        )


def as_trials(X: ArrayLike, name: str) -> NDArray:
    """Return counts or rates as floats, (n_trials, n_bins, n_neurons); a recording is one trial."""
    values = np.asarray(as_array(X, name), dtype=np.float64)
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(
            f"{name} must have shape (n_bins, n_neurons) or (n_trials, n_bins, n_neurons), got "
            f"{np.shape(X)}."
        )
    return values


def check_same_shape(first: NDArray, second: NDArray, names: tuple[str, str]) -> None:
    """Refuse two arrays of different shapes."""
    if first.shape != second.shape:
        raise ValueError(
            f"{names[0]} has shape {first.shape} and {names[1]} has shape {second.shape}; pass two "
            "arrays of the same shape."
        )
