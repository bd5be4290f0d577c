"""A run of an ensemble: what its members are to be, and which of them are there already."""

import os
import time
import warnings
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import ParameterSampler
from sklearn.utils import check_random_state

from sklearn_stndt.ensemble.checkpoints import CheckpointDirectory, MemberFile
from sklearn_stndt.ensemble.fingerprints import describe
from sklearn_stndt.ensemble.members import (
    TRIALS_SET_ASIDE,
    Outcome,
    Plan,
    Work,
    draw_member,
    fix_heldout_neurons,
    fix_window,
    load_member,
    nested_names,
    outcome_of_record,
    read_member,
    stream,
)
from sklearn_stndt.ensemble.trials import Recording
from sklearn_stndt.estimator import STNDTEstimator

DEFAULT_VALIDATION = 0.2  # of the trials, where members have to be ranked
_LARGE = 1 << 20  # bytes of counts from which on workers read them from a file
_ATTEMPTS = 40  # to see a file on a shared disk, at half a second each
HELDOUT = "heldout_neurons"


@dataclass
class Run:
    """What one fit is to make, and what it has made."""

    # by what it can be told from another: descriptions of data, held-out neurons, seeds
    spec: dict[str, Any]
    outcomes: dict[int, Outcome]
    plans: list[Plan] = field(default_factory=list)
    work: Work | None = None

    @property
    def missing(self) -> list[Plan]:
        """Members that are still to be trained."""
        return [plan for plan in self.plans if plan.index not in self.outcomes]

    @property
    def members(self) -> list[Outcome]:
        """Members that are there, in the order of their numbers."""
        return [outcome for _, outcome in sorted(self.outcomes.items()) if not outcome.failed]

    def keep(self, outcome: Outcome) -> None:
        """Take over what a worker has made; a member in a file stays there."""
        directory = None if self.work is None else self.work.directory
        if directory is not None and not (outcome.failed or outcome.interrupted):
            outcome.member = _find(directory, outcome.plan.index)
        self.outcomes[outcome.plan.index] = outcome

    def collect(self) -> None:
        """Take over members that workers have written down and not reported yet."""
        if self.work is not None and self.work.directory is not None:
            for plan in self.missing:
                outcome = read_member(self.work.directory, plan)
                if outcome is not None:
                    self.keep(outcome)

    def without_data(self) -> "Run":
        """Keep what further members need: neither counts nor rates, nor what has failed."""
        members = {
            outcome.plan.index: replace(outcome, arrays={})
            for outcome in self.members
            if not outcome.interrupted
        }
        return Run(self.spec, members)


def begin_run(
    params: dict[str, Any],
    recording: Recording,
    previous: Run | None,
    directory: CheckpointDirectory | None,
) -> Run:
    """Decide what all members are to be, and find those that are finished.

    Parameters
    ----------
    params : dict
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
        With plans of all members, and outcomes of those that are there.

    Raises
    ------
    ValueError
        If parameters do not fit each other or the data, or if the members that are there belong
        to other data or other parameters.
    """
    n_members = params["n_estimators"]
    if previous is not None and n_members <= max(previous.outcomes, default=-1):
        raise ValueError(
            f"n_estimators={n_members} is below the {max(previous.outcomes) + 1} members of the "
            "last fit, which warm_start=True keeps. Raise it, or fit a clone."
        )
    if isinstance(params["n_best"], Integral) and params["n_best"] > n_members:
        raise ValueError(
            f"n_best={params['n_best']} is more than n_estimators={n_members}. Lower n_best, or "
            "train more members."
        )
    bases = check_estimators(params["estimator"], n_members)
    check_distributions(params["param_distributions"], bases)
    written = None if directory is None else directory.open()
    # what a run without a seed of its own cannot draw again, it takes from the members there are
    known = previous.spec if previous is not None else None
    if known is None and params["random_state"] is None:
        known = written

    random_state = check_random_state(params["random_state"])
    wanted = [base.get_params()[n] for base in bases for n in nested_names(base, HELDOUT)]
    n_neurons = recording.X.shape[-1]
    heldout = fix_heldout_neurons(bases, n_neurons, random_state, known)
    seeds = random_state.randint(np.iinfo(np.int32).max, size=n_members).tolist()
    if known is not None:
        seeds = known["seeds"] + seeds[len(known["seeds"]) :]
    if recording.X.ndim == 2 and recording.groups is None:
        for base in bases:
            fix_window(base)

    set_aside = draw_trials_set_aside(params, recording.n_trials, seeds[0])
    pool = np.setdiff1d(np.arange(recording.n_trials), set_aside)
    n_samples = number_of_samples(params["max_samples"], len(pool))
    spec = {
        "data": recording.describe()
        | {
            "trials set aside": describe(set_aside),
            HELDOUT: describe(wanted),
            "bootstrap": describe(params["bootstrap"]),
            "max_samples": describe(params["max_samples"]),
        },
        HELDOUT: heldout.tolist(),
        "seeds": seeds,
    }
    plans = [
        draw_member(
            index,
            seed,
            bases,
            params["param_distributions"],
            pool,
            n_samples,
            params["bootstrap"],
            np.array([], dtype=int) if params["oob_score"] else set_aside,
            recording.n_trials,
        )
        for index, seed in enumerate(seeds[:n_members])
    ]
    run = Run(spec, {}, plans)
    run.work = Work(
        recording=recording,
        heldout_neurons=heldout,
        set_aside=set_aside,
        evaluate=needs_scores(params),
        infer=params["oob_score"],
        directory=directory,
        raise_errors=params["error_score"] == "raise",
    )
    if previous is not None:
        _check_same(spec, previous.spec, "warm_start=True goes on with members")
        for index, outcome in previous.outcomes.items():
            run.plans[index] = outcome.plan
            run.outcomes[index] = outcome
    if directory is not None:
        _open_directory(run, directory, written)
        if recording.X.nbytes > _LARGE and effective_n_jobs(params["n_jobs"]) > 1:
            run.work = replace(run.work, recording=recording.spilled(directory))
    if previous is not None and len(previous.outcomes) == n_members:
        warnings.warn(
            f"warm_start=True and n_estimators={n_members} as before: no member is trained.",
            stacklevel=4,
        )
    return run


def needs_scores(params: dict[str, Any]) -> bool:
    """Whether members are to be scored on trials that they were not trained on."""
    return (
        params["n_best"] is not None
        or params["oob_score"]
        or params["validation_fraction"] is not None
    )


def check_estimators(estimator: Any, n_members: int) -> list[Any]:
    """Check the base estimators and clone them."""
    if estimator is None:
        return [STNDTEstimator()]
    if not isinstance(estimator, list | tuple):
        return [clone(estimator)]
    for number, base in enumerate(estimator):
        if not (hasattr(base, "fit") and hasattr(base, "transform")):
            raise ValueError(
                f"estimator must be a transformer or a list of them, but item {number} of the "
                f"list is {base!r}, which lacks fit or transform."
            )
    if not 0 < len(estimator) <= n_members:
        raise ValueError(
            f"n_estimators={n_members} members cannot be made of a list of {len(estimator)} "
            "estimators, each of which is to be used. Set n_estimators to their number or more."
        )
    return [clone(base) for base in estimator]


def check_distributions(distributions: Any, bases: list[Any]) -> None:
    """Check that every estimator has the parameters that are to be drawn."""
    if distributions is None:
        return
    # scikit-learn checks the kinds of values
    names = {
        name for part in ParameterSampler(distributions, 1).param_distributions for name in part
    }
    fixed = sorted(n for n in names if n.rpartition("__")[2] == HELDOUT)
    if fixed:
        raise ValueError(
            f"param_distributions draws {fixed[0]!r}, but all members must hold out the same "
            "neurons. Set it on the estimator."
        )
    for base in bases:
        unknown = sorted(names - set(base.get_params()))
        if unknown:
            raise ValueError(
                f"param_distributions names {unknown[0]!r}, which is no parameter of "
                f"{type(base).__name__}. Its parameters are {sorted(base.get_params())}."
            )


def draw_trials_set_aside(params: dict[str, Any], n_trials: int, seed: int) -> NDArray:
    """Draw the trials that members are compared on, and that none of them is trained on."""
    fraction = params["validation_fraction"]
    leaves_out = params["bootstrap"] or (
        number_of_samples(params["max_samples"], n_trials) < n_trials
    )
    if params["oob_score"] and not leaves_out:
        raise ValueError(
            "oob_score=True needs trials that members are not trained on. Set bootstrap=True, or "
            "max_samples below the number of trials."
        )
    if fraction is None:
        if params["n_best"] is None or leaves_out:
            return np.array([], dtype=int)
        fraction = DEFAULT_VALIDATION
    number = max(round(fraction * n_trials), 1)
    if number >= n_trials:
        raise ValueError(
            f"validation_fraction={fraction} of {n_trials} trials or blocks leaves none to train "
            "on. Lower it, or pass more trials."
        )
    shuffled = stream(seed, TRIALS_SET_ASIDE).permutation(n_trials)
    return np.sort(shuffled[:number])


def number_of_samples(max_samples: float, n_trials: int) -> int:
    """Trials of a member, from a number or a share of those that there are."""
    if isinstance(max_samples, Integral):
        number = int(max_samples)
    else:
        number = max(round(max_samples * n_trials), 1)
    if number > n_trials:
        raise ValueError(
            f"max_samples={max_samples} is more than the {n_trials} trials or blocks of X to train "
            "on. Lower it, or pass a share between 0 and 1."
        )
    return number


def _check_same(spec: dict[str, Any], other: dict[str, Any], what: str) -> None:
    """Refuse members of other data."""
    n_shared = min(len(spec["seeds"]), len(other["seeds"]))
    if spec["seeds"][:n_shared] != other["seeds"][:n_shared]:
        raise ValueError(
            f"{what} of another run: random_state drew other seeds then. Fit with the random_state "
            "that it had, or start anew."
        )
    for name, described in spec["data"].items():
        if described != other["data"][name]:
            raise ValueError(
                f"{what} of another run: {name} was {other['data'][name]}, and is {described}. "
                "Fit with what it was, or start anew."
            )


def _open_directory(
    run: Run, directory: CheckpointDirectory, written: dict[str, Any] | None
) -> None:
    """Take over finished members from a directory, and put those there that it lacks."""
    if written is not None:
        what = f"checkpoint_dir={str(directory.path)!r} holds members"
        _check_same(run.spec, written, what)
        # of a shorter run the directory may know more seeds than are wanted now
        longest = max(run.spec["seeds"], written["seeds"], key=len)
        run.spec = run.spec | {"seeds": longest}
    found = directory.finished()
    for plan in run.plans:
        if plan.index in found:
            file, record = found[plan.index]
            _check_member(plan, record, directory)
            run.outcomes[plan.index] = outcome_of_record(plan, record)
            run.outcomes[plan.index].member = file
    if written != run.spec:
        directory.describe(run.spec)
    for index, outcome in run.outcomes.items():
        if index not in found:
            directory.file(index).write(outcome.record(), load_member(outcome), {})
            outcome.member = directory.file(index)


def _check_member(plan: Plan, record: dict[str, Any], directory: CheckpointDirectory) -> None:
    """Refuse a member that was trained with other parameters."""
    now, then = plan.described, record["described"]
    for name in sorted(now.keys() | then.keys()):
        if now.get(name) != then.get(name):
            raise ValueError(
                f"checkpoint_dir={str(directory.path)!r} holds members of another run: {name} of "
                f"member {plan.index} was {then.get(name)}, and is {now.get(name)}. Fit with what "
                "it was, or pass another directory."
            )


def _find(directory: CheckpointDirectory, index: int) -> MemberFile:
    """File that a worker says it has written."""
    file = directory.file(index)
    for _ in range(_ATTEMPTS):
        if file.path.exists():
            return file
        os.listdir(directory.path)  # makes a network file system look again
        time.sleep(0.5)
    raise FileNotFoundError(
        f"A worker has written {file.path}, which cannot be seen from here. checkpoint_dir must be "
        "a directory that all workers share."
    )
