"""Accuracy against the number of training trials, compared with smoothing and a Poisson GLM.

    python benchmarks/learning_curve.py --results curve.jsonl --figure learning_curve.png

Models are trained on the first 100, 200, ... trials of synthetic reaches (50 bins of 20 ms, 60
neurons) and tested on 80 other trials. Scores are R2 of inferred against true rates, and R2 of
velocity decoded from them by ridge regression, as in `accuracy.py`: means and standard deviations
over seeds, with different neurons for each seed. Each result is written to a line of the results
file, and the same command resumes after an interruption.
"""

from pathlib import Path

import numpy as np
from accuracy import key_of, measure
from cells import Cells
from options import new_parser
from problems import PROBLEMS, Problem
from threadpoolctl import threadpool_limits

from sklearn_stndt.datasets import make_reaches

SIZES = (100, 200, 400, 800, 1500)
N_TEST = 80
MODELS = {"smoothing": "Gaussian smoothing, tuned", "Poisson GLM": "Poisson GLM", "STNDT": "STNDT"}
SCORES = {"rates_r2": "R2 of rates", "behaviour_r2": "R2 of velocity"}


def reaches_of(n_train):
    """Return a function from seed to problem; problems of all sizes share the same trials."""

    def problem(seed):
        data = make_reaches(max(SIZES) + N_TEST, random_state=seed)
        train, test = slice(n_train), slice(-N_TEST, None)
        return Problem(
            data.spikes[train],
            data.spikes[test],
            true_rates=data.rates[test],
            behaviour=(data.velocity[train], data.velocity[test]),
        )

    return problem


def draw(table, path):
    """Plot both scores against the number of trials."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
    colors = ["#E69F00", "#009E73", "#0072B2"]  # Okabe and Ito
    for ax, (score, label) in zip(axes, SCORES.items(), strict=True):
        for (model, name), color in zip(MODELS.items(), colors, strict=True):
            values = table[model, score]  # (sizes, seeds)
            ax.errorbar(
                SIZES, values.mean(1), values.std(1), marker="o", label=name, color=color, capsize=3
            )
        ax.set(xscale="log", xlabel="training trials", ylabel=label)
        ax.set_xticks(SIZES, [str(size) for size in SIZES])
        ax.minorticks_off()
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def main():
    """Measure what is missing, print the table and plot the figure."""
    parser = new_parser(__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path("curve.jsonl"), metavar="FILE")
    parser.add_argument("--figure", type=Path, metavar="PNG")
    options = parser.parse_args()
    options.param, options.n_jobs = {}, None
    cells, table = Cells(options.results), {}
    with threadpool_limits(1):
        for n_train in SIZES:
            name = f"{n_train} trials"
            PROBLEMS[name] = reaches_of(n_train)
            for model in MODELS:
                for seed in options.seeds:
                    key = key_of(name, model, seed, options)
                    cells.measured(key, measure, name, model, seed, options)
    for score, label in SCORES.items():
        print(f"\n{label:28}" + "".join(f"{size:>15}" for size in SIZES))
        for model in MODELS:
            rows = [
                [cells[key_of(f"{n} trials", model, s, options)][score] for s in options.seeds]
                for n in SIZES
            ]
            values = table[model, score] = np.array(rows)
            pairs = zip(values.mean(1), values.std(1), strict=True)
            print(f"{MODELS[model]:28}" + "".join(f"{m:8.3f} ±{s:.3f}" for m, s in pairs))
    if options.figure is not None:
        draw(table, options.figure)


if __name__ == "__main__":
    main()
