"""Members of an ensemble: training, scoring and storage."""

import time
import traceback
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from sklearn_stndt._fingerprints import describe
from sklearn_stndt._rates import find_rates, groups_keyword, infer_rates
from sklearn_stndt._scoring import infer_hidden, scoring_of
from sklearn_stndt._workers import end_with_parent
from sklearn_stndt.ensemble.checkpoints import NUMBERS, CheckpointDirectory, MemberFile
from sklearn_stndt.ensemble.plans import Plan
from sklearn_stndt.ensemble.trials import Recording
from sklearn_stndt.persistence.archive import ModelFileError
from sklearn_stndt.persistence.registry import register

# Dask gives up a task when it has lost four workers to it, and joblib then waits forever
MOST_WORKERS_LOST = 3


@register
@dataclass
class Outcome:
    """Result of training a member."""

    plan: Plan
    member: Any = None  # fitted estimator; None if it is in a file
    interrupted: bool = False
    error: str = ""  # traceback of a member that failed
    score: float = np.nan  # of the evaluated trials, in bits per spike or per entry
    fit_time: float = np.nan  # seconds
    score_time: float = np.nan
    arrays: dict[str, NDArray] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether training ended in an error."""
        return bool(self.error)

    def record(self) -> dict[str, Any]:
        """Return the data that are saved with the member."""
        return {
            **self.plan.identity,
            "described": self.plan.described,
            "evaluated": describe(self.plan.evaluated),
        } | {
            name: None if np.isnan(getattr(self, name)) else float(getattr(self, name))
            for name in NUMBERS
        }


@dataclass(frozen=True)
class Work:
    """Data and settings that all members share."""

    recording: Recording
    heldout_neurons: NDArray
    set_aside: NDArray  # trials that no member is trained on
    evaluate: bool  # score the trials that a member was not trained on
    infer: bool  # also infer their rates with nothing hidden
    directory: CheckpointDirectory | None
    raise_errors: bool


def fit_member(work: Work, plan: Plan) -> Outcome:
    """Train and score one member, and save it if there is a directory."""
    end_with_parent()
    directory = work.directory
    if directory is None:
        return _fit_member(work, plan)
    # a scheduler that lost a worker reassigns all of its members, finished ones included
    found = read_member(directory, plan)
    if found is not None:
        return found
    if directory.begin(plan.index) >= MOST_WORKERS_LOST:
        return Outcome(
            plan,
            error=f"{MOST_WORKERS_LOST} workers were lost, one after the other, while training "
            "this member. They may have too little memory for it.",
        )
    outcome = _fit_member(work, plan)
    if not (outcome.failed or outcome.interrupted):
        file = directory.file(plan)
        file.write(outcome.record(), outcome.member, outcome.arrays)
        outcome = replace(outcome, member=None, arrays={})
    directory.end(plan.index)
    return outcome


def _fit_member(work: Work, plan: Plan) -> Outcome:
    recording = work.recording.opened()
    outcome = Outcome(plan)
    # in the main process, the engine has already set this for all threads
    with threadpool_limits(1, user_api="blas"):
        started = time.perf_counter()
        try:
            X, groups = recording.take(plan.drawn, plan.takes_groups)
            outcome.member = clone(plan.estimator).fit(X, **groups_keyword(X, groups))
            outcome.interrupted = was_interrupted(outcome.member)
            outcome.fit_time = time.perf_counter() - started
            if work.evaluate:
                evaluate(outcome, recording, work)
        except Exception:
            if work.raise_errors:
                raise
            seconds = time.perf_counter() - started
            return Outcome(plan, error=traceback.format_exc(), fit_time=seconds)
    return outcome


def evaluate(outcome: Outcome, recording: Recording, work: Work) -> None:
    """Score a fitted member on trials that it was not trained on."""
    started = time.perf_counter()
    plan, member = outcome.plan, outcome.member
    if len(plan.evaluated):
        X, groups = recording.take(plan.evaluated, plan.takes_groups)
        infer = partial(infer_rates, member, groups=groups)
        spikes, hidden = infer_hidden(infer, X, work.heldout_neurons)
        outcome.arrays["hidden"] = hidden.astype(np.float32)
        outcome.score = scoring_of(member).score(
            spikes, outcome.arrays["hidden"], scored_neurons(work)
        )
        if work.infer:
            outcome.arrays["rates"] = infer(X).astype(np.float32)
    outcome.score_time = time.perf_counter() - started


def scored_neurons(work: Work) -> Any:
    """Index of the neurons that are scored: the held-out ones, or all."""
    return work.heldout_neurons if len(work.heldout_neurons) else ...


def read_member(directory: CheckpointDirectory, plan: Plan) -> Outcome | None:
    """Read the outcome of a member that another worker has saved; None if there is none."""
    file = directory.file(plan)
    if not file.path.exists():
        return None
    try:
        return outcome_of_record(plan, file.read_record(plan.identity))
    except ModelFileError:
        return None


def outcome_of_record(plan: Plan, record: dict[str, Any]) -> Outcome:
    """Restore an outcome from its record."""
    numbers: dict[str, Any] = {
        name: np.nan if record[name] is None else record[name] for name in NUMBERS
    }
    return Outcome(plan, **numbers)


def load_member(outcome: Outcome) -> Any:
    """Load a fitted estimator, from its file if it is in one."""
    member = outcome.member
    return member.load() if isinstance(member, MemberFile) else member


def was_interrupted(member: Any) -> bool:
    """Whether training of the member was interrupted by Ctrl-C."""
    _, source = find_rates(member)
    return getattr(getattr(source, "net_", None), "interrupted_", False)
