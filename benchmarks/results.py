"""Measure what README's table of results shows, and write it there and to docs/results.md.

    STNDT_DATA=<folder> python benchmarks/results.py      (make results STNDT_DATA=<folder>)

The models and scores are those of accuracy.py, each with three seeds, which also draw the split of
a recording. Results are kept in a file, so the same command continues after an interruption. Start
a new file after changing the code.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from accuracy import key_of, measure, parse_options
from cells import Cells
from problems import missing_file
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).parent.parent
README, PAGE = ROOT / "README.md", ROOT / "docs" / "results.md"
BEGIN, END = "<!-- results: written by make results -->\n", "<!-- end of results -->\n"

BASELINES = ("smoothing", "factor analysis", "Poisson GLM")
NETWORKS = ("temporal", "STNDT", "ensemble of 5")
PROBLEMS = {
    "reaches": "Generated reaches, 112 training trials x 50 bins x 60 neurons",
    "weak reaches": "Generated reaches with few spikes, 112 x 26 x 45",
    "lorenz": "Lorenz attractor",
    "ex1": "Motor cortex, reaches ex1, 210 x 20 x 61",
    "ex2": "Motor cortex, reaches ex2, 112 x 50 x 61",
    "track": "Hippocampus, linear track, 13,404 bins x 31",
    "w-maze": "Hippocampus, W maze, 34,447 bins x 24",
    "retina": "Retina, 14,393 bins x 477",
}
SCORES = {"co_bps": "co-bps", "rates_r2": "R2 of rates", "behaviour_r2": "R2 of behaviour"}
# rows of README: problem, score, and what they are called there
ROWS = (
    ("reaches", "rates_r2", "Generated reaches: R2 of rates"),
    ("reaches", "behaviour_r2", "Generated reaches: R2 of velocity"),
    ("lorenz", "rates_r2", "Lorenz attractor: R2 of rates"),
    ("ex1", "co_bps", "Motor cortex, 20 bins: co-bps"),
    ("ex2", "co_bps", "Motor cortex, 50 bins: co-bps"),
    ("track", "behaviour_r2", "Hippocampus, linear track: R2 of position"),
    ("w-maze", "behaviour_r2", "Hippocampus, W maze: R2 of position"),
)
SLOW = {"lorenz", "w-maze"}  # without factor analysis, ensembles, the second network
INTRODUCTION = """\
# Results

*How accurate is it on recordings like mine, beside simpler methods, and how long does it take?*

All networks have their default parameters, which are the same for every recording and were chosen
on validation trials. `make results` measures these tables; the models and scores are described in
`benchmarks/accuracy.py`. Numbers are means and standard deviations over three seeds, which draw the
network's start and, for recordings, the split into training and test data: most of the deviation is
between splits.

- *co-bps*: bits per spike of a quarter of the neurons, inferred from all others, in test trials.
- *R2 of rates*: of inferred rates against the rates that generated the spikes.
- *R2 of behaviour*: of velocity or position, decoded from the rates of its bin by ridge regression.
- *seconds*: processor time of one fit on one core, for baselines with the choice of parameters.
"""


def plan():
    """Problems, and the models to be measured for each."""
    models = dict.fromkeys(PROBLEMS, BASELINES + NETWORKS)
    models |= dict.fromkeys(SLOW, ("smoothing", "Poisson GLM", "STNDT"))
    models["retina"] = ("STNDT",)  # the baselines of its 477 neurons were not run
    return list(models.items())


def number(value):
    """Three digits without the leading zero, as is usual for these scores."""
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"


def spread(cells, score):
    """Mean and standard deviation of a score over the seeds; empty if there is none."""
    values = [cell[score] for cell in cells if score in cell]
    return f"{number(np.mean(values))} ± {number(np.std(values))}" if values else ""


def seconds(cells):
    return f"{np.mean([cell['seconds'] for cell in cells]):.0f}"


def page(results):
    """Text of docs/results.md."""
    parts = [INTRODUCTION]
    for problem, models in plan():
        scores = [s for s in SCORES if any(s in c for m in models for c in results[problem, m])]
        head = ["", *(SCORES[s] for s in scores), "seconds"]
        lines = [head, ["---"] * len(head)]
        for model in models:
            cells = [cell for cell in results[problem, model] if cell]
            if not cells:  # smoothing does not infer held-out neurons
                continue
            lines.append([model, *(spread(cells, s) for s in scores), seconds(cells)])
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        parts.append(f"\n({problem.replace(' ', '-')})=\n## {PROBLEMS[problem]}\n\n{table}\n")
    return "".join(parts)


def rows(results):
    """Lines of README's table."""
    lines = [
        ["mean ± standard deviation of three", "best baseline", "STNDT", "ensemble of 5", "a fit"],
        ["---"] * 5,
    ]
    for problem, score, name in ROWS:
        measured = [m for m in BASELINES if (problem, m) in results]
        best = max(
            measured,
            key=lambda m: np.mean([c.get(score, -np.inf) for c in results[problem, m]]),
        )
        ensemble = results.get((problem, "ensemble of 5"), [])
        single = results[problem, "STNDT"]
        lines.append(
            [
                f"[{name}](docs/results.md#{problem.replace(' ', '-')})",
                f"{spread(results[problem, best], score)} ({best})",
                spread(single, score),
                spread(ensemble, score),
                f"{seconds(single)} s",
            ]
        )
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def replace_rows(text, lines):
    """Text of README with new lines of the table."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + lines + END + after


def main():
    """Measure what is missing, then write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results.jsonl"), metavar="FILE")
    given = parser.parse_args()
    for problem in PROBLEMS:
        missing = missing_file(problem)
        if missing is not None:
            sys.exit(
                f"{missing} does not exist. Set STNDT_DATA to the folder of the recordings, which "
                "benchmarks/problems.py describes. Nothing was written."
            )
    options = parse_options([])
    cells = Cells(given.results)
    results = {}
    with threadpool_limits(1):  # several threads make the small systems of the GLMs slower
        for problem, models in plan():
            for model in models:
                for seed in options.seeds:
                    key = key_of(problem, model, seed, options)
                    cell = cells.measured(key, measure, problem, model, seed, options)
                    results.setdefault((problem, model), []).append(cell)
    PAGE.write_text(page(results), encoding="utf-8")
    README.write_text(
        replace_rows(README.read_text(encoding="utf-8"), rows(results)), encoding="utf-8"
    )
    print(rows(results), end="")


if __name__ == "__main__":
    main()
