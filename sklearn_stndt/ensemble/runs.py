"""A run of an ensemble: plans of its members, and outcomes of those that are finished."""

import os
import time
import warnings
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from joblib import effective_n_jobs

from sklearn_stndt.ensemble.checkpoints import COUNTS, CheckpointDirectory, MemberFile
from sklearn_stndt.ensemble.members import (
    Outcome,
    Work,
    load_member,
    outcome_of_record,
    read_member,
)
from sklearn_stndt.ensemble.plans import EnsembleSettings, Plan, Spec, draw_plans
from sklearn_stndt.ensemble.trials import Recording
from sklearn_stndt.persistence.registry import register

_LARGE = 1 << 20  # bytes; workers read larger counts from a file
_ATTEMPTS = 40  # to find a file on a shared disk, half a second apart


@register
@dataclass
class Run:
    """Plans and outcomes of one fit."""

    spec: Spec
    outcomes: dict[int, Outcome]
    plans: list[Plan] = field(default_factory=list)
    work: Work | None = None

    @property
    def missing(self) -> list[Plan]:
        """Members that are still to be trained."""
        return [plan for plan in self.plans if plan.index not in self.outcomes]

    @property
    def members(self) -> list[Outcome]:
        """Fitted members, in order."""
        return [outcome for _, outcome in sorted(self.outcomes.items()) if not outcome.failed]

    def keep(self, outcome: Outcome) -> None:
        """Store the outcome of a worker; a member in a file stays there."""
        directory = None if self.work is None else self.work.directory
        if directory is not None and not (outcome.failed or outcome.interrupted):
            outcome.member = _find(directory, outcome.plan)
        self.outcomes[outcome.plan.index] = outcome

    def collect(self) -> None:
        """Store members that workers have saved but not returned yet."""
        if self.work is not None and self.work.directory is not None:
            for plan in self.missing:
                outcome = read_member(self.work.directory, plan)
                if outcome is not None:
                    self.keep(outcome)

    def without_data(self) -> "Run":
        """Keep what later members need, without counts, rates and failed members."""
        members = {
            outcome.plan.index: replace(outcome, arrays={})
            for outcome in self.members
            if not outcome.interrupted
        }
        return Run(self.spec, members)


def begin_run(
    settings: EnsembleSettings,
    recording: Recording,
    previous: Run | None,
    directory: CheckpointDirectory | None,
) -> Run:
    """Draw the plans of all members, and find those that are finished.

    Parameters
    ----------
    settings : EnsembleSettings
        Parameters of the ensemble.
    recording : Recording
        The data.
    previous : Run or None
        Run whose members are kept (warm start).
    directory : CheckpointDirectory or None
        Locked directory of finished members.

    Returns
    -------
    Run
        With plans of all members, and outcomes of the finished ones.

    Raises
    ------
    ValueError
        If parameters do not fit each other or the data, or if finished members belong to other
        data or other parameters.
    """
    n_members = settings.n_estimators
    if previous is not None and n_members <= max(previous.outcomes, default=-1):
        raise ValueError(
            f"n_estimators={n_members} is below the {max(previous.outcomes) + 1} members of the "
            "last fit, which warm_start=True keeps. Raise it, or fit a clone."
        )
    if isinstance(settings.n_best, int | np.integer) and settings.n_best > n_members:
        raise ValueError(
            f"n_best={settings.n_best} is more than n_estimators={n_members}. Lower n_best, or "
            "train more members."
        )
    seeded = settings.random_state is not None
    manifest = None if directory is None else directory.open(seeded)
    written = None if manifest is None else Spec(**manifest)
    # without a random_state, seeds and held-out neurons are taken from the finished members
    known = previous.spec if previous is not None else None
    if known is None and not seeded:
        known = written
    plans = draw_plans(settings, recording, known)
    run = Run(plans.spec, {}, plans.members)
    run.work = Work(
        recording=recording,
        heldout_neurons=plans.heldout_neurons,
        set_aside=plans.set_aside,
        evaluate=settings.needs_scores,
        infer=settings.oob_score,
        directory=directory,
        raise_errors=settings.error_score == "raise",
    )
    if previous is not None:
        _check_same(run.spec, previous.spec, "warm_start=True keeps members")
        for index, outcome in previous.outcomes.items():
            run.plans[index] = outcome.plan
            run.outcomes[index] = outcome
    if directory is not None:
        _open_directory(run, directory, written)
        large = recording.X.nbytes > _LARGE
        if run.missing and large and effective_n_jobs(settings.n_jobs) > 1:
            run.work = replace(run.work, recording=recording.spilled(directory.path / COUNTS))
    if previous is not None and len(previous.outcomes) == n_members:
        warnings.warn(
            f"warm_start=True and n_estimators={n_members} as before: no member is trained.",
            stacklevel=5,
        )
    return run


def _check_same(spec: Spec, other: Spec, what: str) -> None:
    """Refuse members of other data."""
    n_shared = min(len(spec.seeds), len(other.seeds))
    if spec.seeds[:n_shared] != other.seeds[:n_shared]:
        raise ValueError(
            f"{what} of another run: random_state drew other seeds then. Fit with the same "
            "random_state, or start a new ensemble."
        )
    for name, described in spec.data.items():
        before = other.data.get(name)
        if described != before:
            raise ValueError(
                f"{what} of another run: {name} was {before}, and is {described} now. "
                "Fit with the earlier one, or start a new ensemble."
            )


def _open_directory(run: Run, directory: CheckpointDirectory, written: Spec | None) -> None:
    """Load finished members from a directory, and save those that it lacks."""
    if written is not None:
        what = f"checkpoint_dir={str(directory.path)!r} holds members"
        _check_same(run.spec, written, what)
        # if the directory belongs to a larger run, it has more seeds
        run.spec = replace(run.spec, seeds=max(run.spec.seeds, written.seeds, key=len))
    found = directory.finished(run.plans)
    for plan in run.plans:
        if plan.index in found:
            file, record = found[plan.index]
            _check_member(plan, record, directory)
            run.outcomes[plan.index] = outcome_of_record(plan, record)
            run.outcomes[plan.index].member = file
    missing = [plan for plan in run.plans if plan.index not in found]
    if missing:
        directory.check_writable(missing)
    if directory.read_only is None and (written != run.spec or directory.outdated):
        directory.describe(asdict(run.spec))
    for index, outcome in run.outcomes.items():
        if index not in found:
            file = directory.file(outcome.plan)
            file.write(outcome.record(), load_member(outcome), {})
            outcome.member = file


def _check_member(plan: Plan, record: dict[str, Any], directory: CheckpointDirectory) -> None:
    """Refuse a member that was trained with other parameters."""
    now, then = plan.described, record["described"]
    for name in sorted(now.keys() | then.keys()):
        if now.get(name) != then.get(name):
            raise ValueError(
                f"checkpoint_dir={str(directory.path)!r} holds members of another run: {name} of "
                f"member {plan.index} was {then.get(name)}, and is {now.get(name)} now. Fit with "
                "the earlier one, or pass another directory."
            )


def _find(directory: CheckpointDirectory, plan: Plan) -> MemberFile:
    """Find a file that a worker has written."""
    file = directory.file(plan)
    for _ in range(_ATTEMPTS):
        if file.path.exists():
            return file
        os.listdir(directory.path)  # makes a network file system refresh its cache
        time.sleep(0.5)
    raise FileNotFoundError(
        f"A worker has written {file.path}, which is not found in the main process. checkpoint_dir "
        "must be a directory that all workers share."
    )
