"""Plans of the members of an ensemble, drawn before any of them is trained."""

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import ParameterSampler
from sklearn.utils import check_random_state
from sklearn.utils.validation import has_fit_parameter

from sklearn_stndt._fingerprints import describe, describe_estimator
from sklearn_stndt._validation import check_heldout_neurons
from sklearn_stndt.ensemble.trials import Recording
from sklearn_stndt.estimator import STNDTEstimator
from sklearn_stndt.persistence.files import can_be_saved
from sklearn_stndt.persistence.registry import register
from sklearn_stndt.training.settings import DEFAULT_WINDOW

# purposes; the seed of a member gives an independent stream of random numbers for each
PARAMETERS, TRIALS_SET_ASIDE, TRIALS = 1, 2, 3
DEFAULT_VALIDATION = 0.2  # fraction of the trials, if members have to be ranked
HELDOUT = "heldout_neurons"


def stream(seed: int, purpose: int) -> np.random.RandomState:
    """Return the random numbers of a seed for one purpose."""
    return np.random.RandomState([seed, purpose])


@dataclass(frozen=True)
class EnsembleSettings:
    """Parameters of :class:`BaggingEnsemble`, under the same names."""

    estimator: Any
    n_estimators: int
    param_distributions: Any
    bootstrap: bool
    max_samples: float
    n_best: Any
    validation_fraction: float | None
    oob_score: bool
    warm_start: bool
    checkpoint_dir: Any
    error_score: Any
    n_jobs: int | None
    random_state: Any
    verbose: int

    @property
    def needs_scores(self) -> bool:
        """Whether members are to be scored on trials that they were not trained on."""
        return self.n_best is not None or self.oob_score or self.validation_fraction is not None

    def n_samples(self, n_trials: int) -> int:
        """Return the number of trials per member, of `n_trials` in total."""
        if isinstance(self.max_samples, Integral):
            number = int(self.max_samples)
        else:
            number = max(round(self.max_samples * n_trials), 1)
        if number > n_trials:
            raise ValueError(
                f"max_samples={self.max_samples} is more than the {n_trials} trials or blocks of X "
                "to train on. Lower it, or pass a fraction between 0 and 1."
            )
        return number


@register
@dataclass(frozen=True)
class Spec:
    """Description that distinguishes runs; saved as JSON with the members on disk."""

    data: dict[str, str]  # descriptions of the data and of how trials are drawn
    heldout_neurons: list[int]
    seeds: list[int]


@register
@dataclass(frozen=True)
class Plan:
    """Plan of one member."""

    index: int
    seed: int
    estimator: Any  # with all its parameters, not fitted
    params: dict[str, Any]  # parameters that were drawn
    drawn: NDArray  # trials to train on
    evaluated: NDArray  # trials to score, none of them trained on
    takes_groups: bool
    described: dict[str, str]  # description that identifies the member, made in the main process
    recording: str  # description of the data
    pickled: bool  # its file holds a pickle, because the estimator cannot be saved without

    @property
    def identity(self) -> dict[str, Any]:
        """What only the file of this member says about itself."""
        return {"index": self.index, "seed": self.seed, "recording": self.recording}


@dataclass(frozen=True)
class Plans:
    """Plans of all members of a run."""

    spec: Spec
    members: list[Plan]
    heldout_neurons: NDArray
    set_aside: NDArray  # trials that no member is trained on


def draw_plans(settings: EnsembleSettings, recording: Recording, known: Spec | None) -> Plans:
    """Draw the plans of all members.

    Parameters
    ----------
    settings : EnsembleSettings
        Parameters of the ensemble.
    recording : Recording
        The data.
    known : Spec or None
        Run whose members, seeds and held-out neurons are kept.

    Returns
    -------
    Plans

    Raises
    ------
    ValueError
        If parameters do not fit each other or the data.
    """
    bases = check_estimators(settings.estimator, settings.n_estimators)
    check_distributions(settings.param_distributions, bases)
    random_state = check_random_state(settings.random_state)
    wanted = [base.get_params()[n] for base in bases for n in nested_names(base, HELDOUT)]
    heldout = fix_heldout_neurons(bases, recording.X.shape[-1], random_state, known)
    n_members = settings.n_estimators
    seeds = random_state.randint(np.iinfo(np.int32).max, size=n_members).tolist()
    if known is not None:
        seeds = known.seeds + seeds[len(known.seeds) :]
    if recording.X.ndim == 2 and recording.groups is None:
        for base in bases:
            fix_window(base)
    set_aside = draw_trials_set_aside(settings, recording.n_trials, seeds[0])
    evaluated = np.array([], dtype=int) if settings.oob_score else set_aside
    pool = np.setdiff1d(np.arange(recording.n_trials), set_aside)
    n_samples = settings.n_samples(len(pool))
    data = recording.describe()
    members = []
    for index, seed in enumerate(seeds[:n_members]):
        estimator, params = draw_estimator(
            bases[index % len(bases)], seed, settings.param_distributions
        )
        drawn = pool
        if settings.bootstrap or n_samples < len(pool):
            draw = stream(seed, TRIALS)
            drawn = draw.choice(len(pool), n_samples, replace=settings.bootstrap)
            drawn = pool[np.sort(drawn)]
        left_out = np.setdiff1d(np.arange(recording.n_trials), drawn)
        # a worker would describe a class that is defined in a script differently
        described = {"seed": str(seed)} | describe_estimator(estimator)
        members.append(
            Plan(
                index=index,
                seed=seed,
                estimator=estimator,
                params=params,
                drawn=drawn,
                evaluated=evaluated if len(evaluated) else left_out,
                takes_groups=has_fit_parameter(estimator, "groups"),
                described=described | {"trials": describe(drawn)},
                recording=describe(data),
                pickled=not can_be_saved(estimator),
            )
        )
    spec = Spec(
        data=data
        | {
            "trials set aside": describe(set_aside),
            HELDOUT: describe(wanted),
            "bootstrap": describe(settings.bootstrap),
            "max_samples": describe(settings.max_samples),
        },
        heldout_neurons=heldout.tolist(),
        seeds=seeds,
    )
    return Plans(spec, members, heldout, set_aside)


def draw_estimator(base: Any, seed: int, param_distributions: Any) -> tuple[Any, dict[str, Any]]:
    """Return the estimator of a member, and the parameters drawn for it."""
    estimator = clone(base)
    params: dict[str, Any] = {}
    if param_distributions:
        sampler = ParameterSampler(param_distributions, 1, random_state=stream(seed, PARAMETERS))
        params = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in sorted(next(iter(sampler)).items())
        }
        estimator.set_params(**clone(params, safe=False))
    seeds = np.random.RandomState(seed)  # only these are drawn from the seed itself
    for name in nested_names(estimator, "random_state"):
        if name not in params:
            estimator.set_params(**{name: int(seeds.randint(np.iinfo(np.int32).max))})
    return estimator, params


def check_estimators(estimator: Any, n_members: int) -> list[Any]:
    """Check the base estimators and clone them."""
    if estimator is None:
        return [STNDTEstimator()]
    if not isinstance(estimator, list | tuple):
        return [clone(estimator)]
    for number, base in enumerate(estimator):
        if not (hasattr(base, "fit") and hasattr(base, "transform")):
            raise ValueError(
                f"estimator must be a transformer or a list of transformers, but item {number} of "
                f"the list is {base!r}, which lacks fit or transform."
            )
    if not 0 < len(estimator) <= n_members:
        raise ValueError(
            f"n_estimators={n_members} members cannot be made of a list of {len(estimator)} "
            "estimators, because each must be used. Set n_estimators to their number or more."
        )
    return [clone(base) for base in estimator]


def check_distributions(distributions: Any, bases: list[Any]) -> None:
    """Check that every estimator has all parameters to be drawn."""
    if distributions is None:
        return
    # scikit-learn checks the types of the values
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
                f"param_distributions names {unknown[0]!r}, which is not a parameter of "
                f"{type(base).__name__}. Its parameters are {sorted(base.get_params())}."
            )


def draw_trials_set_aside(settings: EnsembleSettings, n_trials: int, seed: int) -> NDArray:
    """Draw the trials on which members are compared and none is trained."""
    fraction = settings.validation_fraction
    leaves_out = settings.bootstrap or settings.n_samples(n_trials) < n_trials
    if settings.oob_score and not leaves_out:
        raise ValueError(
            "oob_score=True needs trials that members are not trained on. Set bootstrap=True, or "
            "max_samples below the number of trials."
        )
    if fraction is None:
        if settings.n_best is None or leaves_out:
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


def nested_names(estimator: Any, name: str) -> list[str]:
    """Find parameters of this name in the estimator and in nested estimators."""
    return sorted(p for p in estimator.get_params() if p == name or p.endswith(f"__{name}"))


def fix_heldout_neurons(
    bases: list[Any],
    n_neurons: int,
    random_state: np.random.RandomState,
    known: Spec | None,
) -> NDArray:
    """Draw held-out neurons once, so that all members hold out the same.

    If members are added to a `known` run, its held-out neurons are kept.
    """
    drawn: dict[str, NDArray] = {}
    of_bases = []
    for base in bases:
        of_bases.append(np.array([], dtype=np.intp))
        for name in nested_names(base, HELDOUT):
            wanted = base.get_params()[name]
            if wanted is not None:
                key = describe(wanted)
                if key not in drawn:
                    drawn[key] = check_heldout_neurons(wanted, n_neurons, random_state)
                    if known is not None and isinstance(wanted, Real):
                        drawn[key] = np.array(known.heldout_neurons, dtype=np.intp)
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
    """Use the window of a continuous recording although its blocks are passed as groups."""
    for part in [base, *base.get_params().values()]:
        if isinstance(part, STNDTEstimator) and part.window is None:
            part.set_params(window=DEFAULT_WINDOW)
