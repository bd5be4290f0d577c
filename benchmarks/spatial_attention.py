"""Gain from spatial attention at equal training time: STNDT against its temporal part (NDT).

    STNDT_DATA=<folder> python benchmarks/spatial_attention.py --results spatial.jsonl

For every problem and seed, both networks are timed for a few epochs. STNDT is trained for its
default number of epochs, or for as many as fit into --seconds. The temporal network, which is
faster, is trained for as many epochs as take the same time. The score is co-bps for problems with
held-out neurons, otherwise bits per spike of hidden entries in the test set. The last line is the
mean difference over problems and seeds, with its standard error.

Each result is written to a line of the results file, and the same command resumes after an
interruption. Nothing else should run on the CPU.
"""

import warnings
from pathlib import Path

import numpy as np
from baselines import co_bps
from cells import Cells
from options import new_parser
from problems import PROBLEMS, missing_file
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback
from threadpoolctl import threadpool_limits

from sklearn_stndt import STNDTEstimator

NETWORKS = {"STNDT": {}, "temporal": {"attention": "temporal"}}
N_TIMED = 8


class StopEarly(Callback):
    """Stop training after a few epochs, regardless of `max_epochs`."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) >= N_TIMED:
            raise KeyboardInterrupt


def timed(problem, params):
    """Return the default number of epochs, and the seconds of one epoch."""
    model = STNDTEstimator(random_state=0, callbacks=[StopEarly()], **params)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        model.fit(problem.train)
    # without the first, which warms up; the mean, because epochs skip attention at random
    return model.net_.max_epochs, float(np.mean(model.net_.history[1:, "dur"]))


def compare(name, seed, seconds):
    """Train both networks for the same time; return epochs, seconds and scores."""
    problem = PROBLEMS[name](seed)
    params = {
        network: problem.params | {"heldout_neurons": problem.heldout} | own
        for network, own in NETWORKS.items()
    }
    (n_epochs, of_stndt), (_, of_temporal) = (timed(problem, params[n]) for n in NETWORKS)
    n_epochs = max(min(n_epochs, round(seconds / of_stndt)), 1)
    epochs = {"STNDT": n_epochs, "temporal": max(round(n_epochs * of_stndt / of_temporal), 1)}
    cell = {}
    for network in NETWORKS:
        model = STNDTEstimator(random_state=seed, max_epochs=epochs[network], **params[network])
        model.fit(problem.train)
        cell[network] = {
            "epochs": epochs[network],
            "seconds": float(np.sum(model.net_.history[:, "dur"])),
            "score": model.score(problem.test)
            if problem.heldout is None
            else co_bps(model, problem.test, problem.heldout),
        }
    return cell


def format_line(name, cells):
    """Means over the seeds of a problem, as a line of the table."""
    line = f"{name:14}"
    for quantity, digits in (("score", 4), ("seconds", 0)):
        for network in NETWORKS:
            line += f"{np.mean([cell[network][quantity] for cell in cells]):10.{digits}f}"
    gains = [cell["STNDT"]["score"] - cell["temporal"]["score"] for cell in cells]
    return line + f"{np.mean(gains):+11.4f} ±{np.std(gains, ddof=1):.4f}"


def main():
    """Measure what is missing, and print the table."""
    parser = new_parser(__doc__)
    default = ["ex1", "ex2", "track", "w-maze", "retina", "reaches", "weak reaches"]
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=default)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=60, help="longest training of one network")
    parser.add_argument("--results", type=Path, default=Path("spatial.jsonl"), metavar="FILE")
    options = parser.parse_args()
    cells = Cells(options.results)
    names = "".join(f"{network:>10}" for network in NETWORKS)
    print(f"{'':14}{'bits per spike':>20}{'seconds':>20}{'STNDT - temporal':>20}")
    print(f"{'':14}{names * 2}")
    gains = []
    for name in options.problems:
        if missing_file(name) is not None:
            print(f"{name}: skipped, because {missing_file(name)} does not exist")
            continue
        of_problem = []
        for seed in options.seeds:
            key = f"{name} | {seed} | {options.seconds}"
            with threadpool_limits(1):
                of_problem.append(cells.measured(key, compare, name, seed, options.seconds))
        print(format_line(name, of_problem), flush=True)
        gains += [cell["STNDT"]["score"] - cell["temporal"]["score"] for cell in of_problem]
    error = np.std(gains, ddof=1) / np.sqrt(len(gains))
    print(
        f"mean difference {np.mean(gains):+.4f} ± {error:.4f} (standard error, {len(gains)} pairs)"
    )


if __name__ == "__main__":
    main()
