"""What a fit has done: values of parameters that were "auto", size, updates, seconds, score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape
from typing import Any

from sklearn_stndt.network.likelihood import as_likelihood
from sklearn_stndt.training.settings import Settings

AUTOMATIC = ("auto", "long")  # values of parameters that a fit resolves
Row = Mapping[str, Any]  # of a history: an epoch


class Summary:
    """What a fit has done, which prints as a small table."""

    def rows(self) -> dict[str, str]:
        """Names and texts of the rows of the table."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return "\n".join(f"{name:9} {text}" for name, text in self.rows().items())

    def _repr_html_(self) -> str:
        left = 'style="text-align: left"'
        rows = "".join(
            f"<tr><th {left}>{escape(name)}</th><td {left}>{escape(text)}</td></tr>"
            for name, text in self.rows().items()
        )
        return f"<table><tbody>{rows}</tbody></table>"


class ShowsSummary:
    """Shows `summary_` below the parameters of a fitted estimator; repr remains code."""

    def __str__(self) -> str:
        summary = getattr(self, "summary_", None)
        return repr(self) if summary is None else f"{self!r}\n{summary}"

    def _repr_html_inner(self) -> str:
        return super()._repr_html_inner() + self._summary_html()  # type: ignore[misc]

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        bundle = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]
        if "text/html" in bundle:
            bundle["text/html"] += self._summary_html()
        return bundle

    def _summary_html(self) -> str:
        summary = getattr(self, "summary_", None)
        return "" if summary is None else summary._repr_html_()


@dataclass(frozen=True, repr=False)
class FitSummary(Summary):
    """Summary of the fit of one network.

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
        training = training_text(self.n_updates, self.n_epochs, self.seconds)
        return {
            "network": f"{self.network}, {self.n_weights:,} weights",
            '"auto"': self.auto_text(),
            "training": f"{training} on {self.device}, {self.n_windows:,} windows",
            "score": score_text(self.epoch, self.score, self.unit)
            + (", then trained again on all windows" if self.refit else ""),
        }

    def auto_text(self) -> str:
        """Describe what became of the parameters that were "auto"."""
        auto = ", ".join(f"{name}={_short(value)}" for name, value in self.auto.items())
        return auto or "no parameter"


@dataclass(frozen=True, repr=False)
class EnsembleSummary(Summary):
    """Summary of the fit of an ensemble.

    Attributes
    ----------
    n_members, n_failed, n_selected : int
        Members that were trained, those whose training failed, and those that are averaged.
    seconds : float
        Duration of the trainings of all members together, also of those trained in parallel.
    member : FitSummary or None
        Summary of the best member. None: it is no network, or is on disk.
    best_score : float or None
        Held-out bits per spike of the best member. None: members were not scored.
    score : float or None
        That of the mean of the selected members. None: members were not scored, or some of them
        count more than once.
    """

    n_members: int
    n_failed: int
    n_selected: int
    seconds: float
    member: FitSummary | None
    best_score: float | None
    score: float | None

    def rows(self) -> dict[str, str]:
        """Names and texts of the rows of the table."""
        failed = f", {self.n_failed} failed" if self.n_failed else ""
        rows = {"members": f"{self.n_members} trained{failed}, {self.n_selected} averaged"}
        if self.member is not None:
            rows["best"] = f"{self.member.network}, {self.member.n_weights:,} weights"
            rows['"auto"'] = self.member.auto_text()
        rows["training"] = f"{self.seconds:.3g} s, all members together"
        rows["score"] = "members were not scored"
        if self.best_score is not None:
            unit = "bits per spike" if self.member is None else self.member.unit
            best = f"best member {self.best_score:.4f}"
            mean = "" if self.score is None else f", mean of the averaged {self.score:.4f}"
            rows["score"] = f"{best}{mean} held-out {unit} (0: mean rates)"
        return rows


@dataclass(frozen=True, repr=False)
class SessionsSummary(Summary):
    """Summary of the fit of several sessions with one core.

    Attributes
    ----------
    members : tuple of FitSummary
        Summary of each session. Epochs, updates and seconds are those of the training together.
    """

    members: tuple[FitSummary, ...]

    def rows(self) -> dict[str, str]:
        """Names and texts of the rows of the table."""
        first = self.members[0]
        training = training_text(first.n_updates, first.n_epochs, first.seconds)
        scores = ", ".join(
            "none" if one.score is None else f"{one.score:.4f}" for one in self.members
        )
        return {
            "sessions": f"{len(self.members)}, which share a core",
            "network": first.network,
            '"auto"': first.auto_text(),
            "training": f"{training} on {first.device}, "
            f"{sum(one.n_windows for one in self.members):,} windows",
            "score": f"of each session {scores} held-out {first.unit} (0: mean rates), weights of "
            f"epoch {first.epoch}",
        }


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
