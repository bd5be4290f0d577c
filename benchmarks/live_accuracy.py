"""What a causal rate costs: causal networks against two-sided ones and causal baselines.

    STNDT_DATA=<folder> python benchmarks/live_accuracy.py --results live.jsonl

- co-bps of a quarter of the neurons, hidden in test trials, in motor cortex: ex2 (61 units, 20 ms)
  and chewie (174 units, 50 ms, half of the bins missing);
  "causal, distilled" learns the rates of an ensemble of three two-sided networks;
- generated reaches: R2 of inferred against true rates, and R2 of velocity by ridge regression from
  the rates of one bin. Penalty and lag are chosen by cross-validation in training trials;
- forecast: bits per spike of all neurons in the last 200 ms of a trial, of which no bin is seen,
  of ex2 and of the first 30 bins of the reaches (later ones have little left to forecast).

Networks run with their defaults; baselines are tuned in training trials (`causal_baselines.py`).
Each result is written to a line of the results file, and the same command resumes after an
interruption. Start a new file after changing the code.
"""

import time
from pathlib import Path

import numpy as np
from accuracy import rates_r2
from baselines import GaussianSmoother, PoissonCoSmoother, co_bps, tune_smoother
from causal_baselines import AutoregressiveGLM, HeldRates, KalmanRates, MeanCourse
from cells import Cells
from options import new_parser
from problems import PROBLEMS, missing_file
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold
from threadpoolctl import threadpool_limits

from sklearn_stndt import BaggingEnsemble, BinwiseRegressor, STNDTEstimator
from sklearn_stndt.metrics import bits_per_spike

FORECAST_BINS = 10  # 200 ms
REACH_BINS = 30  # of a reach whose end is forecast
HALF_WIDTHS = (1, 2, 3, 4, 6)  # of half a Gaussian, in bins
PENALTIES = (1e-3, 1e-2, 3e-2, 1e-1)
DECODER = {"estimator__alpha": np.logspace(-3, 3, 5), "lag": [0, 2, 4, 6]}
NETWORKS = {"two-sided": {}, "causal": {"causal": True}}
CO_SMOOTHING = [*NETWORKS, "half Gaussian", "Kalman filter"]
DISTILLED = "causal, distilled"
FORECAST = [*NETWORKS, "linear autoregressive", "Kalman filter", "last rate", "PSTH"]
TASKS = {
    "ex2, co-bps": ("ex2", [*CO_SMOOTHING, DISTILLED]),
    "chewie, co-bps": ("chewie", [*CO_SMOOTHING, DISTILLED]),
    "reaches": ("reaches", CO_SMOOTHING),
    "ex2, fp-bps": ("ex2", FORECAST),
    "reaches, fp-bps": ("reaches", [*FORECAST, "true rates"]),
}
SCORES = {
    "ex2, co-bps": "co_bps",
    "chewie, co-bps": "co_bps",
    "reaches, R2 of rates": "rates_r2",
    "reaches, R2 of velocity": "velocity_r2",
    "ex2, fp-bps": "fp_bps",
    "reaches, fp-bps": "fp_bps",
}


def decode(train, test, behaviour):
    """R2 of behaviour in test trials, and mean R2 in the folds that chose penalty and lag."""
    scale = train.std(axis=(0, 1)) + 1e-12
    search = GridSearchCV(BinwiseRegressor(Ridge()), DECODER, cv=KFold(3))
    search.fit(train / scale, behaviour[0])
    predicted = search.predict(test / scale)
    n_targets = predicted.shape[-1]
    score = r2_score(behaviour[1].reshape(-1, n_targets), predicted.reshape(-1, n_targets))
    return score, search.best_score_


def decode_smoothed(problem):
    """The same from counts smoothed with half a Gaussian, whose width is chosen in the folds."""
    results = []
    for width in HALF_WIDTHS:
        smoother = GaussianSmoother(width, causal=True).fit(problem.train)
        rates = smoother.transform(problem.train), smoother.transform(problem.test)
        results.append(decode(*rates, problem.behaviour))
    return max(results, key=lambda result: result[1])[0]


def co_smooth(problem, model, seed):
    """co-bps of one model."""
    if model == "half Gaussian":
        fitted = PoissonCoSmoother(
            problem.heldout, causal=True, widths=HALF_WIDTHS, alphas=PENALTIES, random_state=seed
        )
    elif model == "Kalman filter":
        fitted = KalmanRates(problem.heldout)
    elif model == DISTILLED:
        member = STNDTEstimator(heldout_neurons=problem.heldout)
        fitted = BaggingEnsemble(member, 3, random_state=seed).fit(problem.train)
        fitted = fitted.distill(problem.train, causal=True)
        return {"co_bps": co_bps(fitted, problem.test, problem.heldout)}
    else:
        fitted = STNDTEstimator(
            heldout_neurons=problem.heldout, random_state=seed, **NETWORKS[model]
        )
    return {"co_bps": co_bps(fitted.fit(problem.train), problem.test, problem.heldout)}


def infer(problem, model, seed):
    """R2 of rates and velocity of one model."""
    if model == "half Gaussian":
        fitted = tune_smoother(problem.train, causal=True)
    elif model == "Kalman filter":
        fitted = KalmanRates().fit(problem.train)
    else:
        fitted = STNDTEstimator(random_state=seed, **NETWORKS[model]).fit(problem.train)
    train, test = fitted.transform(problem.train), fitted.transform(problem.test)
    if model == "half Gaussian":
        velocity_r2 = decode_smoothed(problem)
    else:
        velocity_r2, _ = decode(train, test, problem.behaviour)
    return {"rates_r2": rates_r2(test, problem.true_rates), "velocity_r2": velocity_r2}


def forecast(problem, model, seed, n_bins):
    """fp-bps of one model, in the last bins of the first `n_bins` of test trials."""
    train, test = problem.train[:, :n_bins], problem.test[:, :n_bins]
    hidden = test.astype(float)
    hidden[:, -FORECAST_BINS:] = np.nan
    baselines = {
        "linear autoregressive": AutoregressiveGLM,
        "last rate": HeldRates,
        "PSTH": MeanCourse,
    }
    if model == "true rates":
        rates = problem.true_rates[:, :n_bins]
    else:
        if model in NETWORKS:
            fitted = STNDTEstimator(
                forecast_bins=FORECAST_BINS, random_state=seed, **NETWORKS[model]
            )
        elif model == "Kalman filter":
            fitted = KalmanRates(forecast_bins=FORECAST_BINS)
        else:
            fitted = baselines[model](FORECAST_BINS)
        rates = fitted.fit(train).transform(hidden)
    last = slice(-FORECAST_BINS, None)
    return {"fp_bps": bits_per_spike(test[:, last], rates[:, last])}


def measure(task, model, seed):
    """Fit and score one model with one seed."""
    name, _ = TASKS[task]
    problem = PROBLEMS[name](seed)
    start = time.perf_counter()
    if task.endswith("fp-bps"):
        n_bins = REACH_BINS if name == "reaches" else problem.train.shape[1]
        cell = forecast(problem, model, seed, n_bins)
    elif task.endswith("co-bps"):
        cell = co_smooth(problem, model, seed)
    else:
        cell = infer(problem, model, seed)
    return cell | {"seconds": time.perf_counter() - start}


def format_table(cells, seeds):
    """Table of all tasks and models: mean over seeds, and each of them."""
    models = list(dict.fromkeys(model for _, models in TASKS.values() for model in models))
    lines = []
    for column, score in SCORES.items():
        lines.append(f"\n{column:26}{'mean':>8}  " + "".join(f"{s:>8}" for s in seeds) + "   share")
        task = column if column in TASKS else column.split(",")[0]
        reference = None
        for model in models:
            of_model = [cells.get(key_of(task, model, seed), {}).get(score) for seed in seeds]
            values = [value for value in of_model if value is not None]
            if not values:
                continue
            reference = reference or np.mean(values)  # of the first model, two-sided
            each = "".join(f"{'':8}" if v is None else f"{v:8.3f}" for v in of_model)
            share = 100 * np.mean(values) / reference
            lines.append(f"  {model:24}{np.mean(values):8.3f}  {each}{share:6.0f} %")
    return "\n".join(lines)


def key_of(task, model, seed):
    """Key of a result in the results file."""
    return f"{task} | {model} | {seed}"


def main():
    """Measure what is missing, and print the table."""
    parser = new_parser(__doc__)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--models", nargs="+", help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path("live_accuracy.jsonl"))
    options = parser.parse_args()
    cells = Cells(options.results)
    for task in options.tasks:
        name, models = TASKS[task]
        if (missing := missing_file(name)) is not None:
            print(f"{task}: skipped, because {missing} does not exist")
            continue
        with threadpool_limits(1):
            for seed in options.seeds:
                for model in models:
                    if model in (options.models or models):
                        cells.measured(key_of(task, model, seed), measure, task, model, seed)
    print(format_table(cells, options.seeds))
    print(
        "\nmean over seeds (splits, for recordings), each of them, share of the two-sided network"
    )


if __name__ == "__main__":
    main()
