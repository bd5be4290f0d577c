"""Co-smoothing on real recordings: co-bps of neurons that are hidden at inference.

    STNDT_DATA=<folder> python benchmarks/co_smoothing.py --ensemble 5

In split `s`, a fifth of the trials is the test set, by `train_test_split(random_state=s)`, and a
quarter of the neurons is held out, the first of `RandomState(s).permutation(n_neurons)`. Every
model is fitted and tuned on the other trials, with all neurons visible. In the test set, held-out
neurons are NaN, and their inferred rates are scored against their spikes.
"""

import csv
import os
import sys
import time
from pathlib import Path

import numpy as np
from baselines import PoissonCoSmoother, co_bps
from options import add_param, new_parser
from sklearn.decomposition import FactorAnalysis
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import FunctionTransformer
from threadpoolctl import threadpool_limits

RECORDINGS = {"ex1": "ex1_spikes", "ex2": "ex2_spikes_first1s"}
FILE = Path("datahigh") / "datahigh_20ms.npz"
MODELS = {
    "glm": "Poisson GLM",
    "glm-sqrt": "Poisson GLM, sqrt",
    "fa": "Factor analysis, GLM",
    "stndt": "STNDT",
    "ensemble": "ensemble",
}
HOW_TO_START = f"""\
Skipped: {{reason}}.
This benchmark needs real recordings. Set STNDT_DATA to a folder that holds {FILE},
spike counts in bins of 20 ms from the example data of DataHigh (Cowley et al. 2013):
    ex1_spikes           (210 trials, 20 bins, 61 neurons), 7 reaches
    ex2_spikes_first1s   (112 trials, 50 bins, 61 neurons), 2 reaches, first second
Then run
    STNDT_DATA=<folder> python benchmarks/co_smoothing.py"""


def split(X, seed):
    """Return training trials, test trials, and the indices of the held-out neurons."""
    X_train, X_test = train_test_split(X, test_size=0.2, random_state=seed)
    n_neurons = X.shape[-1]
    heldout = np.random.RandomState(seed).permutation(n_neurons)[: n_neurons // 4]
    return X_train, X_test, heldout


def make_model(name, heldout, seed, options):
    """Return the unfitted model of this name."""
    if name == "glm":
        return PoissonCoSmoother(heldout, random_state=seed)
    if name == "glm-sqrt":
        # Square roots stabilise the variance of counts, which makes a stronger baseline.
        roots = FunctionTransformer(np.sqrt)
        return PoissonCoSmoother(heldout, features=[roots], random_state=seed)
    if name == "fa":
        factors = [FactorAnalysis(n, svd_method="lapack") for n in (8, 16)]
        return PoissonCoSmoother(heldout, features=factors, random_state=seed)

    # Imported here because torch takes seconds to import, and the baselines do not need it.
    from sklearn_stndt import BaggingEnsemble, STNDTEstimator

    model = STNDTEstimator(heldout_neurons=heldout, random_state=seed).set_params(**options.param)
    if name == "ensemble":
        model = BaggingEnsemble(
            model, n_estimators=options.ensemble, n_jobs=options.n_jobs, random_state=seed
        )
    return model


def run(recordings, options):
    """Yield one dict per recording, model and split."""
    for recording in options.recordings:
        for name in options.models:
            for seed in options.splits:
                X_train, X_test, heldout = split(recordings[recording], seed)
                model = make_model(name, heldout, seed, options)
                start = time.perf_counter()
                model.fit(X_train)
                seconds = time.perf_counter() - start
                yield {
                    "recording": recording,
                    "model": label(name, options),
                    "split": seed,
                    "co_bps": co_bps(model, X_test, heldout),
                    "seconds": seconds,
                }


def label(name, options):
    """Name of a model in the table."""
    return f"Ensemble of {options.ensemble}" if name == "ensemble" else MODELS[name]


def format_table(results, options):
    """Return the table as text: a row for each recording and model."""
    lines = [
        f"{'':5} {'model':21}"
        + "".join(f"{f'split {s}':>9}" for s in options.splits)
        + f"{'mean':>9}{'to GLM':>9}{'seconds':>9}"
    ]
    for recording in options.recordings:
        rows = {}
        for result in results:
            if result["recording"] == recording:
                rows.setdefault(result["model"], []).append(result)
        reference = None
        if MODELS["glm"] in rows:
            reference = np.mean([result["co_bps"] for result in rows[MODELS["glm"]]])
        for model, cells in rows.items():
            scores = [cell["co_bps"] for cell in cells]
            ratio = f"{np.mean(scores) / reference:9.2f}" if reference else f"{'':9}"
            lines.append(
                f"{recording:5} {model:21}"
                + "".join(f"{score:9.4f}" for score in scores)
                + f"{np.mean(scores):9.4f}{ratio}{np.mean([c['seconds'] for c in cells]):9.1f}"
            )
    lines.append("co-bps of test trials; seconds of one fit, tuning included, mean over splits")
    return "\n".join(lines)


def write_csv(path, results):
    """Write the results so far, one row per recording, model and split."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(results[0]))
        writer.writeheader()
        writer.writerows(results)


def parse_options(arguments=None):
    """Read the command line."""
    parser = new_parser(__doc__)
    parser.add_argument("--recordings", nargs="+", choices=RECORDINGS, default=list(RECORDINGS))
    parser.add_argument("--splits", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["glm", "glm-sqrt", "stndt"])
    parser.add_argument(
        "--ensemble", type=int, metavar="N", help="add an ensemble of N (default: 5)"
    )
    parser.add_argument("--n-jobs", type=int, help="ensemble members trained in parallel")
    add_param(parser)
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="write all results to a file")
    options = parser.parse_args(arguments)
    options.param = dict(options.param)
    if options.ensemble is not None and "ensemble" not in options.models:
        options.models.append("ensemble")
    options.ensemble = options.ensemble or 5
    return options


def main():
    """Run the benchmark and print its table."""
    options = parse_options()
    folder = os.environ.get("STNDT_DATA")
    if not folder:
        print(HOW_TO_START.format(reason="STNDT_DATA is not set"))
        return
    path = Path(folder) / FILE
    if not path.is_file():
        print(HOW_TO_START.format(reason=f"STNDT_DATA is {folder}, which has no {FILE}"))
        return
    with np.load(path) as arrays:
        recordings = {name: arrays[RECORDINGS[name]] for name in options.recordings}

    results = []
    # the GLMs solve small systems, which several BLAS threads make many times slower
    with threadpool_limits(1):
        for result in run(recordings, options):
            results.append(result)
            line = "{recording} {model}, split {split}: {co_bps:.4f} in {seconds:.1f} s"
            print(line.format(**result), file=sys.stderr, flush=True)
            if options.out is not None:
                write_csv(options.out, results)  # so that an interruption loses one result at most
    print(format_table(results, options))


if __name__ == "__main__":
    main()
