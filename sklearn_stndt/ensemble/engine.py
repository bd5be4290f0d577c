"""Train members with joblib on any backend, and keep each as soon as it is finished."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sklearn.exceptions import FitFailedWarning
from sklearn.utils.parallel import Parallel, delayed
from threadpoolctl import threadpool_limits

from sklearn_stndt._progress import ProgressReport
from sklearn_stndt._workers import backend_for_workers
from sklearn_stndt.ensemble.members import Outcome, fit_member
from sklearn_stndt.ensemble.runs import Run


class Progress:
    """Show finished members, the best score so far and the time left."""

    def __init__(self, run: Run, *, show: bool):
        self._report: ProgressReport | None = None
        if show:
            done = len(run.outcomes)
            self._report = ProgressReport(len(run.plans), "ensemble", "members", done=done)
        scores = [outcome.score for outcome in run.members if not math.isnan(outcome.score)]
        self._best = max(scores, default=-math.inf)

    def update(self, outcome: Outcome | None) -> None:
        """Count one more finished member; None if its outcome is not known yet."""
        if outcome is not None and outcome.score > self._best:
            self._best = outcome.score
        if self._report is not None:
            self._report.update()
            known = math.isfinite(self._best)
            self._report.show({"best score": f"{self._best:.4f}"} if known else {})

    def close(self) -> None:
        """End the bar, which stays visible."""
        if self._report is not None:
            self._report.close()


class _CountingParallel(Parallel):
    """Call a function at each finished task, for backends that return all results at the end."""

    def __init__(self, count: Callable[[], None], **params: Any):
        super().__init__(**params)
        self._count = count
        self._n_counted = 0

    def print_progress(self) -> None:
        while self._n_counted < self.n_completed_tasks:
            self._n_counted += 1
            self._count()


def train_run(run: Run, n_jobs: int | None, verbose: int) -> bool:
    """Train the missing members of a run, and add their outcomes to it.

    Parameters
    ----------
    run : Run
        Plans of all members, and outcomes of those finished.
    n_jobs : int or None
        As in :class:`joblib.Parallel`.
    verbose : int
        Above 0, show progress.

    Returns
    -------
    bool
        Whether training was interrupted by Ctrl-C.
    """
    progress = Progress(run, show=verbose > 0)
    try:
        # sums do not depend on the number of cores, and members do not compete for them
        with threadpool_limits(1, user_api="blas"):
            interrupted = _train(run, n_jobs, progress)
    finally:
        progress.close()
    if not run.members:
        if interrupted:
            raise KeyboardInterrupt
        raise ValueError(
            f"All {len(run.plans)} members failed, so there is nothing to average. The first "
            f"error was:\n{run.outcomes[min(run.outcomes)].error}"
        )
    return interrupted


def _train(run: Run, n_jobs: int | None, progress: Progress) -> bool:
    missing = run.missing
    if n_jobs is not None and n_jobs > len(missing) > 0:
        n_jobs = len(missing)  # workers without a member would start in vain
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
        # a member may be on disk although its outcome has not been returned yet
        run.collect()
        return True
    finally:
        _stop(results)  # also after an error: workers would continue training
    return False


def _start(
    tasks: Iterable[Any], n_jobs: int | None, progress: Progress
) -> tuple[Iterable[Outcome], bool]:
    """Start the tasks; return the results, and whether they all come at the end."""
    # one member per batch: members take long, and a lost batch has to be trained again
    params = {"n_jobs": n_jobs, "batch_size": 1, "backend": backend_for_workers()}
    try:
        parallel = Parallel(return_as="generator_unordered", **params)
    except ValueError:  # Ray and multiprocessing return lists only
        parallel = _CountingParallel(lambda: progress.update(None), **params)
        return parallel(tasks), True
    return parallel(tasks), False


def _stop(results: Iterable[Outcome]) -> None:
    """Cancel the remaining tasks."""
    if isinstance(results, Iterator) and hasattr(results, "close"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib warns of unconsumed results
            results.close()


def _report_failure(outcome: Outcome, run: Run) -> None:
    """Report which member failed, its parameters and the error."""
    plan = outcome.plan
    drawn = f", parameters {plan.params}" if plan.params else ""
    message = (
        f"Member {plan.index} of {len(run.plans)} failed with "
        f"{outcome.error.strip().splitlines()[-1]!r} (seed {plan.seed}{drawn})"
    )
    if run.work is not None and run.work.raise_errors:
        raise RuntimeError(message)
    warnings.warn(
        f"{message} and is left out; results_['error'] has the traceback. Set error_score='raise' "
        "to stop instead.",
        FitFailedWarning,
        stacklevel=7,
    )
