"""Ensemble members trained per hour against the number of workers.

    python benchmarks/ensemble_scaling.py

With 1 and 2 workers, measures the training time of members, one at a time and in parallel, the
overhead of joblib and Dask per member, and the start-up time of workers. From these times it
simulates more workers, with the same number of members per worker (weak scaling). Simulated
workers have one core each and share only the process that hands out members. Needs the extra
[dask].

`busy` is the fraction of worker time spent on training; joblib and Dask account for the rest.
`efficiency` is the number of members per hour and worker, relative to one worker. It also falls if
parallel members are slower, because they share memory bandwidth, or the CPU with other programs.
"""

import argparse
import heapq
import time
import warnings
from contextlib import contextmanager

import joblib
import numpy as np
from scipy.stats import loguniform, uniform
from sklearn.base import BaseEstimator, TransformerMixin

from sklearn_stndt import BaggingEnsemble, STNDTEstimator
from sklearn_stndt.datasets import make_reaches

SPACE = {"dropout": uniform(0, 0.4), "lr": loguniform(1e-3, 1e-2), "n_layers": [1, 2, 4]}


class Idle(TransformerMixin, BaseEstimator):
    """A member that needs no training time, to measure the overhead."""

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, X, y=None):
        self.rates_ = np.full(X.shape[-1], 0.1)
        return self

    def transform(self, X):
        return np.broadcast_to(self.rates_, X.shape)


@contextmanager
def workers(backend, number):
    """Start new workers of a backend; yield the seconds until they can train."""
    started = time.perf_counter()
    if backend == "sequential":
        with joblib.parallel_config("sequential"):
            yield 0.0
        return
    if backend == "loky":
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor(max_workers=number).shutdown(wait=True)
        with joblib.parallel_config("loky", n_jobs=number):
            joblib.Parallel()(joblib.delayed(load)() for _ in range(number))
            yield time.perf_counter() - started
        return
    from dask.distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=number, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
        joblib.parallel_config("dask"),
    ):
        client.run(load)
        yield time.perf_counter() - started


def load():
    """Import the package, which takes most of a worker's start-up time."""
    import sklearn_stndt

    time.sleep(0.2)  # so that each worker runs this once
    return sklearn_stndt.__version__


def fit(estimator, space, n_members, spikes):
    """Train an ensemble; return seconds in total and of each member."""
    ensemble = BaggingEnsemble(
        estimator, n_members, param_distributions=space, validation_fraction=0.2, random_state=0
    )
    started = time.perf_counter()
    ensemble.fit(spikes)
    seconds = time.perf_counter() - started
    return seconds, ensemble.results_["fit_time"] + ensemble.results_["score_time"]


def measure(options):
    """Yield one dict for each backend and number of workers."""
    spikes = make_reaches(options.trials, random_state=0).spikes
    base = STNDTEstimator(max_epochs=options.epochs)
    for backend, number in [("sequential", 1), ("loky", 2), ("dask", 1), ("dask", 2)]:
        with workers(backend, number) as start:
            idle = min(fit(Idle(), None, 50, spikes)[0] for _ in range(2)) / 50
            seconds, members = fit(base, SPACE, options.members * number, spikes)
        yield {
            "backend": backend,
            "workers": number,
            "start": start,
            "idle": idle,
            "seconds": seconds,
            "members": members,
        }


def simulate(members, start, idle, n_workers, n_members, random):
    """Return total seconds, and the fractions of worker time spent training and idle at the end.

    One process hands out members in sequence, which takes `idle` seconds each. A worker gets the
    next member as soon as it is free.
    """
    free = [start] * n_workers
    handed_out = 0.0
    drawn = random.choice(members, n_members)
    for seconds in drawn:
        begin = max(heapq.heappop(free), handed_out) + idle
        handed_out = begin
        heapq.heappush(free, begin + seconds)
    end = max(free)
    return end, drawn.sum() / end / n_workers, 1 - np.mean(free) / end


def print_measured(results):
    print(
        f"{'backend':>11}{'workers':>8}{'start':>8}{'overhead':>10}{'member':>8}{'wall':>8}", end=""
    )
    print(f"{'per hour':>10}{'busy':>7}{'efficiency':>11}")
    alone = None
    for r in results:
        per_hour = 3600 * len(r["members"]) / r["seconds"]
        alone = alone or per_hour
        print(
            f"{r['backend']:>11}{r['workers']:8d}{r['start']:7.1f}s{1e3 * r['idle']:8.0f}ms"
            f"{np.mean(r['members']):7.1f}s{r['seconds']:7.1f}s{per_hour:10.0f}"
            f"{r['members'].sum() / r['seconds'] / r['workers']:7.2f}"
            f"{per_hour / alone / r['workers']:11.2f}"
        )


def print_simulated(results, options):
    one, of_dask = results[-2:]
    times = {"members as measured": one["members"]}
    times["members of 10 minutes"] = one["members"] * 600 / one["members"].mean()
    random = np.random.RandomState(0)
    for name, members in times.items():
        print(
            f"\n{name}: {members.mean():.1f} s, from {members.min():.1f} to {members.max():.1f} s"
        )
        print(f"{'workers':>8}{'members':>9}{'hours':>8}{'per hour':>10}{'efficiency':>11}", end="")
        print(f"{'waiting':>9}{'start':>7}")
        for number in options.workers:
            n_members = options.per_worker * number
            runs = [
                simulate(members, of_dask["start"], of_dask["idle"], number, n_members, random)
                for _ in range(100)
            ]
            seconds, efficiency, waiting = np.mean(runs, axis=0)
            per_hour = 3600 * n_members / seconds
            print(
                f"{number:8d}{n_members:9d}{seconds / 3600:8.2f}{per_hour:10.0f}"
                f"{efficiency:11.2f}{waiting:9.2f}"
                f"{of_dask['start'] / seconds:7.2f}"
            )


def parse_options(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, default=8, help="measured members per worker")
    parser.add_argument("--trials", type=int, default=80, help="trials of synthetic reaches")
    parser.add_argument("--epochs", default="auto", type=lambda s: s if s == "auto" else int(s))
    parser.add_argument("--per-worker", type=int, default=10, help="simulated members per worker")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    return parser.parse_args(arguments)


def main():
    options = parse_options()
    warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
    results = list(measure(options))
    print_measured(results)
    print_simulated(results, options)


if __name__ == "__main__":
    main()
