"""Accuracy of inferred rates compared with simple baselines, on recordings and synthetic data.

    STNDT_DATA=<folder> python benchmarks/accuracy.py --results accuracy.jsonl

For every problem, model and seed:

- co-bps: a model is trained with a quarter of the neurons held out. In the test set they are NaN,
  and their inferred rates are scored against their spikes;
- R2 of rates: rates inferred by a model of all neurons, against the rates that generated the
  spikes, over trials and bins, averaged over neurons;
- behaviour: R2 of velocity or position, decoded from the rates of the same model by ridge
  regression without history. The penalty, and the width of Gaussian smoothing, are chosen by
  cross-validation in the training set;
- seconds of processor time of one fit, including the tuning of baselines, and the number of
  parameters. With `--n-jobs`, workers are not counted.

The models of this package run with their defaults; nothing is tuned for a problem. "distilled" is
one network that has learned the rates of the ensemble of five. Each result is written to a line of
the results file, and the same command resumes after an interruption. Start a new file after
changing the code.
"""

import json
import time
from pathlib import Path

import numpy as np
from baselines import (
    FactorSmoother,
    GaussianSmoother,
    PoissonCoSmoother,
    PoissonSmoother,
    co_bps,
    tune_smoother,
)
from cells import Cells
from options import add_param, new_parser
from problems import PROBLEMS, missing_file
from sklearn.decomposition import FactorAnalysis
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold
from threadpoolctl import threadpool_limits

from sklearn_stndt import BaggingEnsemble, STNDTEstimator

ALPHAS = np.logspace(-4, 5, 10)
WIDTHS = (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
OURS = {
    "temporal": {"attention": "temporal"},
    "STNDT": {},
    "STNDT + contrast": {"contrastive_weight": 0.01},
}
BASELINES = ["counts", "smoothing", "factor analysis", "Poisson GLM"]
MODELS = [*BASELINES, *OURS, "ensemble of 5", "distilled"]
SCORES = {"co_bps": "co-bps", "rates_r2": "R2 rates", "behaviour_r2": "behaviour"}


def decode(train, test, behaviour):
    """R2 of behaviour in the test set, by ridge regression from rates of the same bin."""
    flat = [values.reshape(-1, values.shape[-1]) for values in (train, test, *behaviour)]
    scale = flat[0].std(axis=0) + 1e-12
    # contiguous folds, because neighbouring bins are correlated
    ridge = GridSearchCV(Ridge(), {"alpha": ALPHAS}, cv=KFold(5))
    ridge.fit(flat[0] / scale, flat[2])
    return r2_score(flat[3], ridge.predict(flat[1] / scale))


def decode_smoothed(problem):
    """The same from smoothed counts, with the width chosen by cross-validation in training."""
    target, _ = problem.behaviour
    folds = list(KFold(3).split(problem.train))
    scores = []
    for width in WIDTHS:
        X = GaussianSmoother(width).fit_transform(problem.train)
        scores.append(
            np.mean([decode(X[fit], X[rest], (target[fit], target[rest])) for fit, rest in folds])
        )
    best = GaussianSmoother(WIDTHS[int(np.argmax(scores))]).fit(problem.train)
    return decode(best.transform(problem.train), best.transform(problem.test), problem.behaviour)


def rates_r2(rates, true_rates):
    """R2 over trials and bins, averaged over neurons."""
    n_neurons = rates.shape[-1]
    return r2_score(true_rates.reshape(-1, n_neurons), rates.reshape(-1, n_neurons))


def build(name, problem, heldout, seed, options):
    """Return the unfitted model, or None if it cannot predict held-out neurons."""
    if name == "counts":
        return None if heldout is not None else GaussianSmoother(0)
    if name == "smoothing":
        return None if heldout is not None else "smoothing"
    if name == "factor analysis":
        if heldout is None:
            return FactorSmoother()
        factors = [FactorAnalysis(n, svd_method="lapack") for n in (4, 8, 16)]
        return PoissonCoSmoother(heldout, features=factors, random_state=seed)
    if name == "Poisson GLM":
        if heldout is None:
            return PoissonSmoother()
        return PoissonCoSmoother(heldout, random_state=seed)
    params = problem.params | options.param | OURS.get(name, {})
    model = STNDTEstimator(heldout_neurons=heldout, random_state=seed, **params)
    if name in ("ensemble of 5", "distilled"):
        model = BaggingEnsemble(model, 5, n_jobs=options.n_jobs, random_state=seed)
    return Distilled(model) if name == "distilled" else model


class Distilled:
    """One network that learns the rates of an ensemble."""

    def __init__(self, ensemble):
        self.ensemble = ensemble

    def fit(self, X):
        self.network = self.ensemble.fit(X).distill(X)
        self.net_ = self.network.net_
        return self

    def transform(self, X):
        return self.network.transform(X)


def n_parameters(model):
    """Number of trained parameters of a network, or of all networks of an ensemble."""
    members = getattr(model, "estimators_", [model])
    nets = [member.net_.module_ for member in members if hasattr(member, "net_")]
    return sum(p.numel() for net in nets for p in net.parameters() if p.requires_grad)


def measure(problem_name, name, seed, options):
    """Fit and score one model on one problem with one seed."""
    problem = PROBLEMS[problem_name](seed)
    cell = {}
    if problem.heldout is not None:
        model = build(name, problem, problem.heldout, seed, options)
        if model is not None:
            trials = trials_of(problem.train) if isinstance(model, PoissonCoSmoother) else None
            start = time.process_time()
            model.fit(problem.train if trials is None else trials)
            cell["seconds"] = time.process_time() - start
            cell["co_bps"] = co_bps(model, problem.test, problem.heldout)
            cell["parameters"] = n_parameters(model)
    if problem.true_rates is not None or problem.behaviour is not None:
        model = build(name, problem, None, seed, options)
        start = time.process_time()
        if name == "smoothing":
            model = tune_smoother(problem.train)
        else:
            model.fit(problem.train)
        cell["seconds"] = time.process_time() - start
        cell["parameters"] = n_parameters(model)
        test = model.transform(problem.test)
        if problem.true_rates is not None:
            cell["rates_r2"] = rates_r2(test, problem.true_rates)
        if problem.behaviour is not None:
            if name == "smoothing":
                cell["behaviour_r2"] = decode_smoothed(problem)
            else:
                train = model.transform(problem.train)
                cell["behaviour_r2"] = decode(train, test, problem.behaviour)
    return cell


def trials_of(X, n_bins=100):
    """Cut a recording into trials of `n_bins`, because the GLM is tuned in folds of trials."""
    if X.ndim == 3:
        return X
    return X[: len(X) // n_bins * n_bins].reshape(-1, n_bins, X.shape[1])


def key_of(problem, model, seed, options):
    """Key of a result in the results file."""
    params = {} if model in BASELINES else options.param
    return f"{problem} | {model} | {seed} | {json.dumps(params, sort_keys=True)}"


def format_table(problem, cells, options):
    """Table of one problem: mean and standard deviation over the seeds."""
    lines = [f"\n{problem}", " " * 18 + "".join(f"{t:>17}" for t in SCORES.values())]
    lines[1] += f"{'seconds':>9}{'parameters':>12}"
    for model in options.models:
        keys = [key_of(problem, model, seed, options) for seed in options.seeds]
        done = [cells[key] for key in keys if cells.get(key)]
        if not done:
            continue
        line = f"{model:18}"
        for score in SCORES:
            values = [cell[score] for cell in done if score in cell]
            line += f"{np.mean(values):10.4f} ±{np.std(values):.3f}" if values else f"{'':17}"
        seconds = np.mean([cell["seconds"] for cell in done])
        line += f"{seconds:9.1f}{max(cell['parameters'] for cell in done) or '':>12}"
        lines.append(line + ("" if len(done) == len(keys) else f"  {len(done)} of {len(keys)}"))
    return "\n".join(lines)


def parse_options(arguments=None):
    """Read the command line."""
    parser = new_parser(__doc__)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS[:-1])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--n-jobs", type=int, help="ensemble members trained in parallel")
    parser.add_argument("--results", type=Path, default=Path("accuracy.jsonl"), metavar="FILE")
    add_param(parser)
    options = parser.parse_args(arguments)
    options.param = dict(options.param)
    return options


def main():
    """Measure what is missing, and print the tables."""
    options = parse_options()
    cells = Cells(options.results)
    for problem in options.problems:
        missing = missing_file(problem)
        if missing is not None:
            print(f"\n{problem}: skipped, because {missing} does not exist")
            continue
        # the GLMs solve small systems, which several BLAS threads make many times slower
        with threadpool_limits(1):
            for model in options.models:
                for seed in options.seeds:
                    key = key_of(problem, model, seed, options)
                    cells.measured(key, measure, problem, model, seed, options)
        print(format_table(problem, cells, options), flush=True)
    print("\nmeans ± standard deviations over seeds (splits, for recordings)")


if __name__ == "__main__":
    main()
