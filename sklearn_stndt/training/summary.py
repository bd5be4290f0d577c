"""What a fit has done: values of parameters that were "auto", size, updates, seconds, score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape
from typing import Any

from sklearn_stndt.network.likelihood import as_likelihood
from sklearn_stndt.training.settings import Settings

AUTOMATIC = ("auto", "long")  # values of parameters that a fit resolves
Row = Mapping[str, Any]  # of a history: an epoch


@dataclass(frozen=True, repr=False)
class FitSummary:
    """Summary of a fit, which prints as a small table.

    Attributes
    ----------
    network : str
        Kind and size of the network.
    n_weights : int
        Number of its weights.
    auto : dict
        Parameters that were "auto" or "long", and the values used instead.
    n_epochs, n_updates : int
        Epochs and updates, those of earlier fits with `warm_start` included.
    seconds : float
        Duration of these epochs.
    device : str
        Device on which they ran.
    n_windows : int
        Training windows.
    epoch : int
        Epoch whose weights were kept.
    score : float or None
        Bits per spike (`unit`) of hidden entries in the windows set aside, after that epoch and
        before calibration. 0 is the score of each neuron's mean rate. None: no windows were set
        aside.
    unit : str
        Unit of the score: "bits per spike", or of entries that are no counts "bits per entry".
    refit : bool
        Whether a second network was then trained on all windows.
    """

    network: str
    n_weights: int
    auto: dict[str, Any]
    n_epochs: int
    n_updates: int
    seconds: float
    device: str
    n_windows: int
    epoch: int
    score: float | None
    unit: str = "bits per spike"
    refit: bool = False

    def rows(self) -> dict[str, str]:
        """Names and texts of the rows of the table."""
        auto = ", ".join(f"{name}={_short(value)}" for name, value in self.auto.items())
        training = training_text(self.n_updates, self.n_epochs, self.seconds)
        return {
            "network": f"{self.network}, {self.n_weights:,} weights",
            '"auto"': auto or "no parameter",
            "training": f"{training} on {self.device}, {self.n_windows:,} windows",
            "score": score_text(self.epoch, self.score, self.unit)
            + (", then trained again on all windows" if self.refit else ""),
        }

    def __repr__(self) -> str:
        return "\n".join(f"{name:9} {text}" for name, text in self.rows().items())

    def _repr_html_(self) -> str:
        left = 'style="text-align: left"'
        rows = "".join(
            f"<tr><th {left}>{escape(name)}</th><td {left}>{escape(text)}</td></tr>"
            for name, text in self.rows().items()
        )
        return f"<table><tbody>{rows}</tbody></table>"


def automatic(params: Mapping[str, Any]) -> list[str]:
    """Names of the parameters that a fit resolves."""
    return [n for n, value in params.items() if isinstance(value, str) and value in AUTOMATIC]


def summarize(
    names: Sequence[str],
    settings: Settings,
    history: Sequence[Row],
    *,
    n_weights: int,
    device: str,
    n_windows: int,
) -> FitSummary:
    """Summarize a fit.

    Parameters
    ----------
    names : sequence of str
        Parameters that were resolved, from `automatic`.
    settings : Settings
        What became of them.
    history : History
        Epochs, of which there is at least one.
    n_weights, device, n_windows
        As in `FitSummary`.
    """
    resolved = {
        field.name: getattr(part, field.name)
        for part in (settings.network, settings.objective, settings.training)
        for field in fields(part)
    }
    kept = kept_row(history)
    return FitSummary(
        network=network_text(settings),
        n_weights=n_weights,
        auto={name: resolved[name] for name in names if name in resolved},
        n_epochs=len(history),
        n_updates=count_updates(history),
        seconds=duration(history),
        device=device,
        n_windows=n_windows,
        epoch=kept["epoch"],
        score=kept.get("valid_bits"),
        unit=as_likelihood(settings.network.likelihood).unit,
        refit=settings.training.refit and kept.get("valid_bits") is not None,
    )


def kept_row(history: Sequence[Row]) -> Row:
    """Epoch whose weights were kept: as marked, or else the last one."""
    marked = (row for row in history[::-1] if row.get("kept"))
    return next(marked, history[-1])


def count_updates(history: Sequence[Row]) -> int:
    """Number of updates in all epochs together."""
    return sum(row.get("train_batch_count", 0) for row in history)


def duration(history: Sequence[Row]) -> float:
    """Seconds that all epochs took together."""
    return sum(row.get("dur", 0.0) for row in history)


def network_text(settings: Settings) -> str:
    """Describe the network in words."""
    network, window = settings.network, settings.training.window
    kind = "STNDT" if network.attention == "spatiotemporal" else "NDT"
    width = "one channel per neuron" if network.d_model is None else f"width {network.d_model}"
    causal = "causal " if network.causal else ""
    name = network.likelihood
    if not isinstance(name, str):
        name = type(name).__name__
    likelihood = "" if name == "poisson" else f", {name} likelihood"
    return (
        f"{causal}{kind} of {_number(network.n_layers, 'layer')}, {width}, window of "
        f"{_number(window, 'bin')}{likelihood}"
    )


def plan_text(settings: Settings) -> str:
    """Describe what a training will do, in one line."""
    training = settings.training
    return (
        f"{network_text(settings)}; {_number(training.max_epochs, 'epoch')} in batches of "
        f"{_number(training.batch_size, 'window')}, {training.optimizer} with lr={training.lr:.3g} "
        f"on {training.device}"
    )


def outcome_text(history: Sequence[Row], unit: str) -> str:
    """Describe a finished training in one line."""
    seconds = duration(history)
    kept = kept_row(history)
    training = training_text(count_updates(history), len(history), seconds)
    return f"{training}; {score_text(kept['epoch'], kept.get('valid_bits'), unit)}"


def training_text(n_updates: int, n_epochs: int, seconds: float) -> str:
    """Describe the length of a training."""
    return f"{_number(n_updates, 'update')} in {_number(n_epochs, 'epoch')}, {seconds:.3g} s"


def score_text(epoch: int, score: float | None, unit: str) -> str:
    """Describe a held-out score, and the weights that it is of."""
    if score is None:
        return "no held-out score"
    return f"{score:.4f} held-out {unit} (0: mean rates), weights of epoch {epoch}"


def _number(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
