"""Train members by joblib, wherever it runs, and keep each as soon as it is there."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sklearn.exceptions import FitFailedWarning
from sklearn.utils.parallel import Parallel, delayed
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from sklearn_stndt.ensemble.members import Outcome, fit_member
from sklearn_stndt.ensemble.runs import Run


class Progress:
    """A bar of members: how many are done, the best score so far, the time left."""

    def __init__(self, run: Run, *, show: bool):
        self._bar = tqdm(
            total=len(run.plans),
            initial=len(run.outcomes),
            desc="members",
            unit="member",
            disable=not show,
        )
        scores = [outcome.score for outcome in run.members if not math.isnan(outcome.score)]
        self._best = max(scores, default=-math.inf)
        self._show_best()

    def update(self, outcome: Outcome | None) -> None:
        """One more is done; None where nothing is known of it yet."""
        if outcome is not None and outcome.score > self._best:
            self._best = outcome.score
            self._show_best()
        self._bar.update()

    def _show_best(self) -> None:
        if math.isfinite(self._best):
            self._bar.set_postfix({"best bits/spike": f"{self._best:.4f}"}, refresh=False)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


class _CountingParallel(Parallel):
    """Calls back at each finished task, for backends that return nothing before the end."""

    def __init__(self, count: Callable[[], None], **params: Any):
        super().__init__(**params)
        self._count = count
        self._n_counted = 0

    def print_progress(self) -> None:
        while self._n_counted < self.n_completed_tasks:
            self._n_counted += 1
            self._count()


def train_run(run: Run, n_jobs: int | None, verbose: int) -> bool:
    """Train the members of a run that are missing, and put their outcomes into it.

    Parameters
    ----------
    run : Run
        What is to be done, and what is done.
    n_jobs : int or None
        As :class:`joblib.Parallel` understands it.
    verbose : int
        Whether to show progress.

    Returns
    -------
    bool
        Whether Ctrl-C has ended it early.
    """
    progress = Progress(run, show=verbose > 0)
    try:
        # sums come out the same on every machine, and members do not fight for cores
        with threadpool_limits(1, user_api="blas"):
            interrupted = _train(run, n_jobs, progress)
    finally:
        progress.close()
    if not run.members:
        if interrupted:
            raise KeyboardInterrupt
        raise ValueError(
            f"All {len(run.plans)} members failed, and nothing is left to average. The first "
            f"error was:\n{run.outcomes[min(run.outcomes)].error}"
        )
    return interrupted


def _train(run: Run, n_jobs: int | None, progress: Progress) -> bool:
    missing = run.missing
    tasks = (delayed(fit_member)(run.work, plan) for plan in missing)
    results: Iterable[Outcome] = ()
    try:
        results, all_at_once = _start(tasks, n_jobs, progress)
        for outcome in results:
            if outcome.failed:
                _report_failure(outcome, run)
            run.keep(outcome)
            if not all_at_once:
                progress.update(outcome)
            if outcome.interrupted:
                return True
    except KeyboardInterrupt:
        # a member may be on disk whose outcome was still on its way
        run.collect()
        return True
    finally:
        _stop(results)  # also after an error: workers would train on
    return False


def _start(
    tasks: Iterable[Any], n_jobs: int | None, progress: Progress
) -> tuple[Iterable[Outcome], bool]:
    """Begin to work off the tasks; also whether all results come together at the end."""
    # one member a batch: it is a long task, and what has to be done again if a worker is lost
    params = {"n_jobs": n_jobs, "batch_size": 1}
    try:
        parallel = Parallel(return_as="generator_unordered", **params)
    except ValueError:  # Ray and multiprocessing return lists only
        parallel = _CountingParallel(lambda: progress.update(None), **params)
        return parallel(tasks), True
    return parallel(tasks), False


def _stop(results: Iterable[Outcome]) -> None:
    """Leave the rest undone."""
    if isinstance(results, Iterator) and hasattr(results, "close"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib deems it a mistake
            results.close()


def _report_failure(outcome: Outcome, run: Run) -> None:
    """Say which member failed, with what parameters, and why."""
    plan = outcome.plan
    drawn = f", parameters {plan.params}" if plan.params else ""
    message = (
        f"Member {plan.index} of {len(run.plans)} failed with "
        f"{outcome.error.strip().splitlines()[-1]!r} (seed {plan.seed}{drawn})"
    )
    if run.work is not None and run.work.raise_errors:
        raise RuntimeError(message)
    warnings.warn(
        f"{message} and is left out; results_['error'] has the traceback. error_score='raise' "
        "stops at it.",
        FitFailedWarning,
        stacklevel=7,
    )
