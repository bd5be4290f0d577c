"""Members of an ensemble: what each is to be, decided by its seed alone, and its training."""

import time
import traceback
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import ParameterSampler
from sklearn.utils.validation import has_fit_parameter
from threadpoolctl import threadpool_limits

from sklearn_stndt._scoring import infer_hidden
from sklearn_stndt._validation import check_heldout_neurons
from sklearn_stndt.ensemble.checkpoints import (
    CheckpointDirectory,
    MemberFile,
)
from sklearn_stndt.ensemble.fingerprints import describe, describe_estimator
from sklearn_stndt.ensemble.trials import Recording
from sklearn_stndt.estimator import STNDTEstimator
from sklearn_stndt.metrics import bits_per_spike
from sklearn_stndt.training.defaults import DEFAULT_WINDOW

# purposes for which a seed gives streams of random numbers that have nothing in common
PARAMETERS, TRIALS_SET_ASIDE = 1, 2
# Dask gives a task up at the fourth worker that it takes along, and joblib then waits for ever
MOST_WORKERS_LOST = 3


def stream(seed: int, purpose: int) -> np.random.RandomState:
    """Random numbers of a seed for one purpose."""
    return np.random.RandomState([seed, purpose])


@dataclass(frozen=True)
class Plan:
    """What one member is to be."""

    index: int
    seed: int
    estimator: Any  # with all its parameters, not fitted
    params: dict[str, Any]  # those that were drawn
    drawn: NDArray  # trials to train on
    evaluated: NDArray  # trials to score, none of them trained on
    takes_groups: bool
    described: dict[str, str]  # what makes it this member, in words of the main process


@dataclass
class Outcome:
    """What became of a member."""

    plan: Plan
    member: Any = None  # fitted estimator; None where it lies in a file
    interrupted: bool = False
    error: str = ""  # traceback of a member that failed
    score: float = np.nan  # bits per spike of the evaluated trials
    fit_time: float = np.nan  # seconds
    score_time: float = np.nan
    arrays: dict[str, NDArray] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether training ended in an error."""
        return bool(self.error)

    def record(self) -> dict[str, Any]:
        """What is written down beside the member."""
        return {
            "index": self.plan.index,
            "described": self.plan.described,
            "score": None if np.isnan(self.score) else float(self.score),
            "fit_time": self.fit_time,
            "score_time": self.score_time,
        }


@dataclass(frozen=True)
class Work:
    """What is the same for all members."""

    recording: Recording
    heldout_neurons: NDArray
    set_aside: NDArray  # trials that no member is trained on
    evaluate: bool  # score the trials that a member was not trained on
    infer: bool  # and infer their rates with nothing hidden
    directory: CheckpointDirectory | None
    raise_errors: bool


def draw_member(
    index: int,
    seed: int,
    bases: list[Any],
    param_distributions: Any,
    pool: NDArray,
    n_samples: int,
    bootstrap: bool,
    set_aside: NDArray,
    n_trials: int,
) -> Plan:
    """Decide what a member is to be: bases take turns, the rest is drawn by its seed."""
    estimator = clone(bases[index % len(bases)])
    params: dict[str, Any] = {}
    if param_distributions:
        sampler = ParameterSampler(param_distributions, 1, random_state=stream(seed, PARAMETERS))
        params = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in sorted(next(iter(sampler)).items())
        }
        estimator.set_params(**clone(params, safe=False))
    seeds = np.random.RandomState(seed)
    for name in nested_names(estimator, "random_state"):
        if name not in params:
            estimator.set_params(**{name: int(seeds.randint(np.iinfo(np.int32).max))})
    drawn = pool
    if bootstrap or n_samples < len(pool):
        choice = np.random.RandomState(seed).choice(len(pool), n_samples, replace=bootstrap)
        drawn = pool[np.sort(choice)]
    left_out = np.setdiff1d(np.arange(n_trials), drawn)
    return Plan(
        index=index,
        seed=seed,
        estimator=estimator,
        params=params,
        drawn=drawn,
        evaluated=set_aside if len(set_aside) else left_out,
        takes_groups=has_fit_parameter(estimator, "groups"),
        # where a class is defined in a script, a worker would describe it in other words
        described={"seed": str(seed)} | describe_estimator(estimator) | {"trials": describe(drawn)},
    )


def fit_member(work: Work, plan: Plan) -> Outcome:
    """Train and score one member, and write it down where there is a directory."""
    directory = work.directory
    if directory is None:
        return _fit_member(work, plan)
    # a scheduler that lost a worker hands out its members again, also those that are finished
    found = read_member(directory, plan)
    if found is not None:
        return found
    if directory.begin(plan.index) >= MOST_WORKERS_LOST:
        return Outcome(
            plan,
            error=f"{MOST_WORKERS_LOST} workers were lost, one after the other, while they trained "
            "this member. Their memory may not suffice for it.",
        )
    outcome = _fit_member(work, plan)
    if not (outcome.failed or outcome.interrupted):
        file = directory.file(plan.index)
        file.write(outcome.record(), outcome.member, outcome.arrays)
        outcome = replace(outcome, member=None, arrays={})
    directory.end(plan.index)
    return outcome


def _fit_member(work: Work, plan: Plan) -> Outcome:
    recording = work.recording.opened()
    outcome = Outcome(plan)
    # in the main process the engine has set it already, for all threads
    with threadpool_limits(1, user_api="blas"):
        started = time.perf_counter()
        try:
            X, keywords = recording.take(plan.drawn, plan.takes_groups)
            outcome.member = clone(plan.estimator).fit(X, **keywords)
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
        X, keywords = recording.take(plan.evaluated, plan.takes_groups)
        spikes, hidden = infer_hidden(
            lambda counts: rates_of(member, counts, keywords), X, work.heldout_neurons
        )
        outcome.arrays["hidden"] = hidden.astype(np.float32)
        outcome.score = bits_per_spike(spikes, outcome.arrays["hidden"])
        if work.infer:
            outcome.arrays["rates"] = rates_of(member, X, keywords).astype(np.float32)
    outcome.score_time = time.perf_counter() - started


def read_member(directory: CheckpointDirectory, plan: Plan) -> Outcome | None:
    """Outcome of a member that another worker has written down."""
    file = directory.file(plan.index)
    record = file.read_record() if file.path.exists() else None
    return None if record is None else outcome_of_record(plan, record)


def outcome_of_record(plan: Plan, record: dict[str, Any]) -> Outcome:
    """Outcome as it was when the record was written."""
    score = np.nan if record["score"] is None else record["score"]
    times = {name: record[name] for name in ("fit_time", "score_time")}
    return Outcome(plan, score=score, **times)


def load_member(outcome: Outcome) -> Any:
    """Load a fitted estimator, from its file if it is in one."""
    member = outcome.member
    return member.load() if isinstance(member, MemberFile) else member


def groups_keyword(groups: NDArray | None) -> dict[str, NDArray]:
    """Nothing, where there are none: a base estimator need not know of groups."""
    return {} if groups is None else {"groups": groups}


def rates_of(member: Any, X: NDArray, keywords: dict[str, NDArray]) -> NDArray:
    """Rates of a member as an array, also where tables are the output of transformers."""
    with config_context(transform_output="default"):
        return np.asarray(member.transform(X, **keywords))


def nested_names(estimator: Any, name: str) -> list[str]:
    """Parameters of this name, of the estimator or of what it contains."""
    return sorted(p for p in estimator.get_params() if p == name or p.endswith(f"__{name}"))


def fix_heldout_neurons(
    bases: list[Any],
    n_neurons: int,
    random_state: np.random.RandomState,
    known: dict[str, Any] | None,
) -> NDArray:
    """Draw held-out neurons once, so that all members hold out the same.

    Where a run is `known` to which members are added, what it drew stays.
    """
    drawn: dict[str, NDArray] = {}
    of_bases = []
    for base in bases:
        of_bases.append(np.array([], dtype=np.intp))
        for name in nested_names(base, "heldout_neurons"):
            wanted = base.get_params()[name]
            if wanted is not None:
                key = describe(wanted)
                if key not in drawn:
                    drawn[key] = check_heldout_neurons(wanted, n_neurons, random_state)
                    if known is not None and isinstance(wanted, Real):
                        drawn[key] = np.array(known["heldout_neurons"], dtype=np.intp)
                base.set_params(**{name: drawn[key]})
                of_bases[-1] = drawn[key]
    for number, heldout in enumerate(of_bases):
        if not np.array_equal(heldout, of_bases[0]):
            raise ValueError(
                "All members must hold out the same neurons, but the estimator at position "
                f"{number} of the list holds out {heldout.tolist()} and the first one "
                f"{of_bases[0].tolist()}. Give them the same heldout_neurons."
            )
    return of_bases[0]


def fix_window(base: Any) -> None:
    """Keep the window of a continuous recording also where its blocks travel as groups."""
    for part in [base, *base.get_params().values()]:
        if isinstance(part, STNDTEstimator) and part.window is None:
            part.set_params(window=DEFAULT_WINDOW)


def was_interrupted(member: Any) -> bool:
    """Whether training of the member, or of a step in it, was ended by Ctrl-C."""
    steps = [step for _, step in getattr(member, "steps", [])]
    return any(
        getattr(getattr(part, "net_", None), "interrupted_", False) for part in [member, *steps]
    )
