"""Co-smoothing of sparse areas of the mouse cortex and hippocampus, beside simpler models.

    STNDT_DATA=<folder> python benchmarks/sparse.py --results sparse.jsonl

The recordings are nine sessions of Steinmetz et al. (2019): the first 400 ms after a stimulus in
bins of 10 ms, 114 to 447 trials. The neurons of an area are a problem of their own if at least 30
have 20 spikes or more; the other neurons are left out. The areas are visual cortex (VISp, VISl,
VISam, VISpm, VISrl, VISa), secondary motor cortex (MOs) and CA1 of the hippocampus.

For every problem, model and split: co-bps of a quarter of the neurons in a fifth of the trials, and
the processor time of one fit, including the tuning of baselines. The table has means over the
problems and splits of a group of areas, and the mean difference between models on the same problems
and splits with two standard errors.

- PSTH: the mean over training trials of each held-out neuron, smoothed along bins.
- GLM: Poisson regression of each held-out neuron on smoothed counts of the held-in neurons.
- factor analysis: the same on factors of the smoothed counts.
- GPFA: the same on latent variables of Gaussian-process factor analysis (package elephant, which
  is not a requirement: without it, the model is left out).

Widths, penalties and numbers of factors are chosen by cross-validation within the training trials.
The models of this package run with their defaults. The same command resumes after an interruption.
"""

import contextlib
import importlib.util
import io
import json
import os
import time
from pathlib import Path

import numpy as np
from baselines import PoissonCoSmoother, co_bps
from cells import Cells
from options import add_param, new_parser
from problems import Problem, draw_heldout, load
from scipy.ndimage import gaussian_filter1d
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import FactorAnalysis
from sklearn.model_selection import KFold, train_test_split
from threadpoolctl import threadpool_limits

from sklearn_stndt import BaggingEnsemble, STNDTEstimator

SESSIONS = ("01", "02", "03", "04", "05", "08", "09", "10", "12")
GROUPS = {
    "visual": ("VISp", "VISl", "VISam", "VISpm", "VISrl", "VISa"),
    "MOs": ("MOs",),
    "CA1": ("CA1",),
}
FEWEST_SPIKES, FEWEST_NEURONS = 20, 30
WIDTHS = (1.5, 3, 4.5, 6, 9)  # bins of 10 ms
ALPHAS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
N_FACTORS = (2, 4, 8, 16)
OURS = {"temporal": {"attention": "temporal"}, "STNDT": {}}
MODELS = ["PSTH", "GLM", "factor analysis", "GPFA", *OURS, "ensemble of 5"]
JUDGED = ("STNDT", "ensemble of 5")  # compared with all others


def counts_of(session, group):
    """Counts of the neurons of a group that fire enough, (n_trials, n_bins, n_neurons)."""
    recording = load(f"steinmetz/steinmetz_{session}.npz")
    X = recording["spikes"][:, :, np.isin(recording["area"], GROUPS[group])]
    return X[:, :, X.sum((0, 1)) >= FEWEST_SPIKES]


def sparse_area(session, group, seed):
    """Counts of one area in one session; a fifth of the trials for the test."""
    X = counts_of(session, group).astype(float)
    train, test = train_test_split(X, test_size=0.2, random_state=seed)
    return Problem(train, test, draw_heldout(X.shape[-1], seed))


class PSTH(TransformerMixin, BaseEstimator):
    """Mean over trials, smoothed by a width that is chosen in five folds of trials."""

    def fit(self, X, y=None):
        """Fit to counts of shape (n_trials, n_bins, n_neurons)."""
        losses = []
        for width in WIDTHS:
            losses.append(0.0)
            for train, rest in KFold(5).split(X):
                rates = self._rates(X[train], width)
                losses[-1] += (rates - X[rest] * np.log(rates)).sum()
        self.rates_ = self._rates(X, WIDTHS[int(np.argmin(losses))])
        return self

    def _rates(self, X, width):
        # a tenth of a trial at the neuron's mean keeps the rates of rare neurons above 0
        mean = (X.sum((0, 1)) + 0.1) / (X.shape[0] * X.shape[1])
        smoothed = gaussian_filter1d(X.sum(0), width, axis=0, mode="nearest")
        return (smoothed + 0.1 * mean) / (len(X) + 0.1)

    def transform(self, X):
        """Return the same rates for every trial."""
        return np.broadcast_to(self.rates_, X.shape)


class Factors(TransformerMixin, BaseEstimator):
    """Factor analysis from the covariance, which takes less time than from all bins."""

    def __init__(self, n_components):
        self.n_components = n_components

    def fit(self, X, y=None):
        """Fit to bins of shape (n_bins, n_features)."""
        self.mean_ = X.mean(0)
        values, vectors = np.linalg.eigh(np.cov(X.T, bias=True))
        root = np.sqrt(np.maximum(values, 0) * len(values))[:, None] * vectors.T
        n = min(self.n_components, X.shape[1] - 1)
        self.factors_ = FactorAnalysis(n, random_state=0).fit(np.concatenate([root, -root]))
        return self

    def transform(self, X):
        """Return the expected factors of each bin."""
        return self.factors_.transform(X - self.mean_)


class GPFACoSmoother(TransformerMixin, BaseEstimator):
    """Poisson GLM from latent variables of GPFA, fitted to held-in neurons in bins of 20 ms.

    The number of latent variables is chosen by the likelihood of the held-out neurons in the last
    fifth of the training trials.
    """

    def __init__(self, heldout_neurons, *, n_latents=(4, 8), random_state=None):
        self.heldout_neurons = heldout_neurons
        self.n_latents = n_latents
        self.random_state = random_state

    def fit(self, X, y=None):
        """Fit to counts of shape (n_trials, n_bins, n_neurons)."""
        n_fit = int(0.8 * len(X))
        best = -np.inf
        for n in self.n_latents:
            self._fit(X[:n_fit], n)
            score = co_bps(self, X[n_fit:], self.heldout_neurons)
            if score > best:
                best, self.n_latents_ = score, n
        return self._fit(X, self.n_latents_)

    def _fit(self, X, n_latents):
        from elephant.gpfa import gpfa_core

        heldin = np.delete(X, self.heldout_neurons, axis=-1)
        with contextlib.redirect_stdout(io.StringIO()):
            self.gpfa_, _ = gpfa_core.fit(
                _sequences(heldin), n_latents, bin_width=20.0, em_max_iters=100
            )
        latents = self._latents(heldin)
        n_heldout = len(self.heldout_neurons)
        self.glm_ = PoissonCoSmoother(
            np.arange(n_latents, n_latents + n_heldout),
            widths=(0,),
            alphas=ALPHAS,
            random_state=self.random_state,
        ).fit(np.concatenate([latents, X[..., self.heldout_neurons]], axis=-1))
        return self

    def _latents(self, heldin):
        from elephant.gpfa import gpfa_core

        sequences, _ = gpfa_core.exact_inference_with_ll(
            _sequences(heldin), self.gpfa_, get_ll=False
        )
        latents = np.stack([sequence["latent_variable"].T for sequence in sequences])
        at = (np.arange(heldin.shape[1]) - 0.5) / 2  # middle of each bin, in bins of 20 ms
        low = np.clip(np.floor(at).astype(int), 0, latents.shape[1] - 2)
        share = np.clip(at - low, 0, 1)[:, None]
        return (1 - share) * latents[:, low] + share * latents[:, low + 1]

    def transform(self, X):
        """Return the rates of the held-out neurons, and visible counts as they are."""
        latents = self._latents(np.delete(X, self.heldout_neurons, axis=-1))
        n_heldout = len(self.heldout_neurons)
        hidden = np.full((*X.shape[:2], n_heldout), np.nan)
        rates = self.glm_.transform(np.concatenate([latents, hidden], axis=-1))
        return _with_heldout(X, self.heldout_neurons, rates[..., -n_heldout:])


def _with_heldout(X, heldout, rates):
    X = np.array(X, dtype=float)
    X[..., heldout] = rates
    return X


def _sequences(X):
    """Square roots of counts in bins of 20 ms, as GPFA of elephant takes them."""
    n_bins = X.shape[1] // 2
    pairs = X[:, : 2 * n_bins].reshape(len(X), n_bins, 2, -1).sum(2)
    sequences = [(n_bins, np.sqrt(trial.T)) for trial in pairs]
    return np.array(sequences, dtype=[("T", int), ("y", object)])


def build(name, problem, seed, options):
    """Return the unfitted model."""
    heldout = problem.heldout
    if name == "PSTH":
        return PSTH()
    if name == "GLM":
        return PoissonCoSmoother(heldout, widths=WIDTHS, alphas=ALPHAS, random_state=seed)
    if name == "factor analysis":
        factors = [Factors(n) for n in N_FACTORS]
        return PoissonCoSmoother(
            heldout, widths=WIDTHS, alphas=ALPHAS, features=factors, random_state=seed
        )
    if name == "GPFA":
        return GPFACoSmoother(heldout, random_state=seed)
    params = options.param | OURS.get(name, {})
    model = STNDTEstimator(heldout_neurons=heldout, random_state=seed, **params)
    if name == "ensemble of 5":
        model = BaggingEnsemble(model, 5, random_state=seed)
    return model


def measure(session, group, name, seed, options):
    """Fit and score one model on one problem and split."""
    problem = sparse_area(session, group, seed)
    model = build(name, problem, seed, options)
    start = time.process_time()
    model.fit(problem.train)
    seconds = time.process_time() - start
    return {"seconds": seconds, "co_bps": co_bps(model, problem.test, problem.heldout)}


def key_of(session, group, name, seed, options):
    """Key of a result in the results file."""
    params = options.param if name in OURS or name.startswith("ensemble") else {}
    return f"{session} | {group} | {name} | {seed} | {json.dumps(params, sort_keys=True)}"


def format_table(cells, problems, options):
    """Means over problems and splits, and differences from the models of `JUDGED`, by group."""
    width = 26
    lines = [f"{'co-bps':22}" + "".join(f"{group:>{width}}" for group in options.groups)]
    found = {}
    for name in options.models:
        line = f"{name:22}"
        for group in options.groups:
            keys = {
                (session, seed): key_of(session, group, name, seed, options)
                for session, of_group in problems
                if of_group == group
                for seed in options.seeds
            }
            done = {at: cells[key] for at, key in keys.items() if key in cells}
            found[name, group] = {at: cell["co_bps"] for at, cell in done.items()}
            entry = ""
            if done:
                seconds = np.mean([cell["seconds"] for cell in done.values()])
                entry = f"{np.mean(list(found[name, group].values())):.4f}{seconds:6.1f} s"
                entry += f"{len(done):4}/{len(keys)}"
            line += f"{entry:>{width}}"
        lines.append(line)
    for judged in [name for name in JUDGED if name in options.models]:
        lines += ["", f"{judged} minus"]
        for name in options.models:
            if name == judged:
                continue
            line = f"{name:22}"
            for group in options.groups:
                ours, others = found[judged, group], found[name, group]
                gains = [ours[at] - others[at] for at in ours if at in others]
                entry = ""
                if len(gains) > 1:
                    error = 2 * np.std(gains, ddof=1) / len(gains) ** 0.5
                    entry = f"{np.mean(gains):+.4f} ±{error:.4f}{len(gains):4}"
                line += f"{entry:>{width}}"
            lines.append(line)
    return "\n".join(lines)


def parse_options(arguments=None):
    """Read the command line."""
    parser = new_parser(__doc__)
    parser.add_argument("--sessions", nargs="+", choices=SESSIONS, default=list(SESSIONS))
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path("sparse.jsonl"), metavar="FILE")
    add_param(parser)
    options = parser.parse_args(arguments)
    options.param = dict(options.param)
    if "GPFA" in options.models and importlib.util.find_spec("elephant") is None:
        print("GPFA: skipped, because elephant is not installed")
        options.models.remove("GPFA")
    return options


def main():
    """Measure what is missing, and print the table."""
    options = parse_options()
    if not (Path(os.environ.get("STNDT_DATA", "STNDT_DATA is not set")) / "steinmetz").is_dir():
        print("skipped, because there is no folder steinmetz in STNDT_DATA")
        return
    problems = [
        (session, group)
        for group in options.groups
        for session in options.sessions
        if counts_of(session, group).shape[-1] >= FEWEST_NEURONS
    ]
    cells = Cells(options.results)
    with threadpool_limits(1):
        for seed in options.seeds:
            for session, group in problems:
                for name in options.models:
                    key = key_of(session, group, name, seed, options)
                    cells.measured(key, measure, session, group, name, seed, options)
    print(format_table(cells, problems, options))


if __name__ == "__main__":
    main()
