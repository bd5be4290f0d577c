"""Plot the training history."""

from typing import Any, Self

import numpy as np

from sklearn_stndt._rates import rate_estimator
from sklearn_stndt._scoring import scoring_of
from sklearn_stndt.inspection._networks import networks
from sklearn_stndt.plotting._style import ORANGE, main_color, make_axes, require_matplotlib


class TrainingHistoryDisplay:
    """Plot of losses and of bits per spike of masked validation entries in each epoch.

    Parameters
    ----------
    histories : list of skorch histories
        `history_` of one estimator, or of the members of an ensemble.
    unit : str, default="bits per spike"
        Unit of the validation score, the label of its axis.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes
        One for losses; below, if there was a validation set, one for its bits per spike, with a
        dot at the epoch whose weights were kept.
    ax_ : matplotlib Axes
        The first of `axes_`.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn_stndt import STNDTEstimator
    >>> from sklearn_stndt.datasets import make_reaches
    >>> from sklearn_stndt.plotting import TrainingHistoryDisplay
    >>> spikes = make_reaches(n_trials=20, n_bins=20, n_neurons=8, random_state=0).spikes
    >>> network = STNDTEstimator(max_epochs=2, random_state=0).fit(spikes)
    >>> display = TrainingHistoryDisplay.from_estimator(network)
    >>> [ax.get_ylabel() for ax in display.axes_]
    ['loss (nats)', 'bits per spike']
    >>> plt.close(display.figure_)
    """

    def __init__(self, histories: list[Any], *, unit: str = "bits per spike"):
        if not histories or not all(len(history) for history in histories):
            raise ValueError(
                "There is no epoch to show: pass the history_ of one or more fitted estimators, in "
                "a list."
            )
        self.histories = histories
        self.unit = unit

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> Self:
        """Plot the history of an estimator.

        Parameters
        ----------
        estimator : STNDTEstimator, BaggingEnsemble or Pipeline
            Fitted estimator.
        ax : matplotlib Axes, or array of 2 (1 without a validation set), default=None
            Axes to plot into. None: a new figure.

        Returns
        -------
        TrainingHistoryDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If there is no network in `estimator`.
        """
        require_matplotlib()
        found = networks(rate_estimator(estimator)[1])
        unit = scoring_of(found[0]).likelihood.unit
        return cls([network.history_ for network in found], unit=unit).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Plot the histories.

        Parameters
        ----------
        ax : matplotlib Axes, or array of them, default=None
            Axes to plot into; a single Axes is divided. None: a new figure.

        Returns
        -------
        TrainingHistoryDisplay
        """
        require_matplotlib()
        from matplotlib.ticker import MaxNLocator

        validated = any("valid_bits" in history[0] for history in self.histories)
        n_rows = 2 if validated else 1
        self.figure_, axes = make_axes(ax, n_rows, 1, (4.2, 1.2 + 1.7 * n_rows), sharex=True)
        self.axes_ = axes[:, 0]
        self.ax_ = self.axes_[0]
        thin = 1.5 if len(self.histories) == 1 else 0.9
        color = main_color()
        for i, history in enumerate(self.histories):
            epochs = [row["epoch"] for row in history]
            curves = [("train_loss", "training", color, "-")]
            if "valid_bits" in history[0]:
                curves.append(("valid_loss", "validation", ORANGE, "--"))
            for key, label, its_color, dashes in curves:
                values = [row.get(key, np.nan) for row in history]
                label = label if i == 0 else None
                self.ax_.plot(epochs, values, dashes, color=its_color, lw=thin, label=label)
            if "valid_bits" in history[0]:
                bits = np.array([row.get("valid_bits", np.nan) for row in history])
                self.axes_[1].plot(epochs, bits, "--", color=ORANGE, lw=thin)
                marked = [j for j, row in enumerate(history) if row.get("kept")]
                best = marked[-1] if marked else int(np.nanargmax(bits))
                self.axes_[1].plot(
                    epochs[best],
                    bits[best],
                    "o",
                    color=ORANGE,
                    ms=5,
                    label="kept" if i == 0 else None,
                )
        self.ax_.set_ylabel("loss (nats)")
        if validated:
            self.axes_[1].set_ylabel(self.unit)
        for panel in self.axes_:
            panel.legend(fontsize="small", frameon=False)
            panel.yaxis.set_major_locator(MaxNLocator(4))
        self.axes_[-1].set_xlabel("epoch")
        self.axes_[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return self
