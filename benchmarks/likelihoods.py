"""Held-out log-likelihood of spike counts: networks with Poisson and negative binomial likelihoods.

    STNDT_DATA=<folder> python benchmarks/likelihoods.py --results likelihoods.jsonl

Networks are trained with a quarter of the neurons held out, on the splits of `problems.py`. In the
test set these are NaN, and their spikes are scored in bits per spike, over Poisson counts at each
neuron's mean rate in the test set, in three ways:

- Poisson: the score of the Neural Latents Benchmark (`bits_per_spike`);
- own: by the likelihood of the network itself;
- fitted: by a negative binomial likelihood whose dispersions are fitted, for both networks alike,
  to the spikes of training trials and the rates inferred while these neurons are hidden.

Differences between scores of one network are differences of log-likelihoods. Each result is
written to a line of the results file, and the same command resumes after an interruption.
"""

import sys
import time
from pathlib import Path

import numpy as np
from accuracy import key_of
from cells import Cells
from options import add_param, new_parser
from problems import PROBLEMS, missing_file
from scipy.optimize import minimize_scalar
from scipy.stats import nbinom
from threadpoolctl import threadpool_limits

from sklearn_stndt import STNDTEstimator
from sklearn_stndt.metrics import bits_per_spike, negative_binomial_bits

NAMES = ["ex1", "ex2", "track", "w-maze", "retina", "reaches"]
LIKELIHOODS = ["poisson", "negative_binomial"]
SCORES = {"poisson": "Poisson", "own": "own", "fitted": "fitted"}
BOUNDS = np.log([1e-4, 1e2])  # of dispersions


def hidden_rates(model, X, heldout):
    """Spikes and rates of held-out neurons, as rows."""
    hidden = X.astype(float)
    hidden[..., heldout] = np.nan
    rates = model.transform(hidden)[..., heldout]
    return X[..., heldout].reshape(-1, len(heldout)), rates.reshape(-1, len(heldout))


def fit_dispersion(spikes, rates):
    """Dispersion of each neuron with the highest likelihood of its spikes."""

    def loss(log, neuron):
        size = np.exp(-log)
        mean = rates[:, neuron].astype(float)
        return -nbinom.logpmf(spikes[:, neuron], size, size / (size + mean)).sum()

    neurons = range(spikes.shape[1])
    best = [minimize_scalar(loss, bounds=BOUNDS, args=(n,), method="bounded").x for n in neurons]
    return np.exp(best)


def measure(problem_name, likelihood, seed, options):
    """Fit and score one network."""
    problem = PROBLEMS[problem_name](seed)
    heldout = np.sort(problem.heldout)
    params = problem.params | options.param
    start = time.perf_counter()
    model = STNDTEstimator(
        heldout_neurons=heldout, random_state=seed, likelihood=likelihood, **params
    ).fit(problem.train)
    seconds = time.perf_counter() - start
    spikes, rates = hidden_rates(model, problem.test, heldout)
    dispersion = fit_dispersion(*hidden_rates(model, problem.train, heldout))
    cell = {
        "poisson": bits_per_spike(spikes, rates),
        "fitted": negative_binomial_bits(spikes, rates, dispersion),
        "seconds": seconds,
    }
    cell["own"] = cell["poisson"]
    if likelihood == "negative_binomial":
        own = model.likelihood_params_["dispersion"][heldout]
        cell["own"] = negative_binomial_bits(spikes, rates, own)
        cell["dispersion"] = [float(np.median(own)), float(np.median(dispersion))]
    return cell


def format_table(cells, options):
    """Means and standard deviations over seeds, and gains of the negative binomial likelihood."""
    width = 18
    lines = ["", f"{'bits per spike':32}" + "".join(f"{t:>{width}}" for t in SCORES.values())]
    for problem in options.problems:
        found = {
            (likelihood, seed): cells.get(key_of(problem, likelihood, seed, options))
            for likelihood in LIKELIHOODS
            for seed in options.seeds
        }
        seeds = [s for s in options.seeds if all(found[one, s] for one in LIKELIHOODS)]
        if not seeds:
            continue
        table = {
            one: np.array([[found[one, s][score] for score in SCORES] for s in seeds])
            for one in LIKELIHOODS
        }
        table["gain"] = table["negative_binomial"] - table["poisson"]
        for name, values in table.items():
            means, spread = values.mean(0), values.std(0)
            row = "".join(
                f"{f'{m:.4f} ±{s:.4f}':>{width}}" for m, s in zip(means, spread, strict=True)
            )
            count = "" if len(seeds) == len(options.seeds) else f"  {len(seeds)} seeds"
            lines.append(f"{problem if name == LIKELIHOODS[0] else '':12}{name:20}{row}{count}")
    return "\n".join(lines)


def parse_options(arguments=None):
    """Read the command line."""
    parser = new_parser(__doc__)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=NAMES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path("likelihoods.jsonl"), metavar="FILE")
    add_param(parser)
    options = parser.parse_args(arguments)
    options.param = dict(options.param)
    return options


def main():
    """Measure what is missing, and print the table."""
    options = parse_options()
    cells = Cells(options.results)
    # a result of every problem comes first
    for seed in options.seeds:
        for problem in options.problems:
            missing = missing_file(problem)
            if missing is not None:
                print(f"{problem}: skipped, because {missing} does not exist", file=sys.stderr)
                continue
            for likelihood in LIKELIHOODS:
                key = key_of(problem, likelihood, seed, options)
                with threadpool_limits(1):
                    cells.measured(key, measure, problem, likelihood, seed, options)
    print(format_table(cells, options))
    print("\nmeans ± standard deviations over seeds, which are splits of recordings")


if __name__ == "__main__":
    main()
