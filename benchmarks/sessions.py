"""Several sessions in one fit, and yesterday's network on today's neurons.

    STNDT_DATA=<folder> python benchmarks/sessions.py --results sessions.jsonl

Parts:

- adapt: generated reaches, two halves of 120 neurons as two days. Day 1 has 150 trials; day 2 has
  8, 25 or 70, and a network of these alone is compared with day 1's adapted to them. R2 of rates
  is that of 80 further trials of day 2, weighted by the variance of each neuron's rate.
- together: the 25 trials of day 2 alone, day 1 alone, and both in one fit.
- chewie: motor cortex on two days with different neurons; each day alone, and both in one fit.
- steinmetz: visual cortex in five sessions; each alone, and all in one fit.
- day: chewie, from the first day to the second. Networks of 16 or 64 trials of the second day,
  alone or adapted; and a decoder of the first day's latents, read on the second day.
- generated day: the same on generated days, where neurons, trials and true rates are known.
- lost: networks trained with and without whole neurons hidden (`neuron_mask_ratio`), and a share of
  the visible neurons hidden in the test set.
- new: neurons that the network has not seen, a quarter, from 1 to 64 trials. Bits per spike of
  `add_neurons`, of ridge regression on the same latents (one penalty for all neurons, chosen by
  cross-validation within these trials), and of each neuron's mean rate in these trials.

On recordings, a fifth of the trials is the test set and a quarter of the neurons is held out; their
spikes give co-bps. Velocity is decoded by ridge regression from rates (or latents) of the same bin,
with the penalty chosen by cross-validation in the training set. Seconds are processor time of the
fits. Each result is written to a line of the results file, and the same command resumes after an
interruption. Start a new file after changing the code.
"""

import os
import time
from functools import cache, partial
from pathlib import Path

import numpy as np
from accuracy import ALPHAS
from cells import Cells
from options import add_param, new_parser
from problems import PROBLEMS, Problem, draw_heldout, load
from sklearn.base import clone
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA
from sklearn.linear_model import PoissonRegressor, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

from sklearn_stndt import MultiSessionEstimator, STNDTEstimator
from sklearn_stndt.datasets import make_reach_days, make_reaches
from sklearn_stndt.decoding import LatentAligner
from sklearn_stndt.metrics import bits_per_spike

NUMBERS = (8, 25, 70)  # trials of the second day, generated
UNLABELLED = (16, 64)  # trials of the second day, to adapt to
RECORDINGS = (3, 4, 5)  # seeds of generated recordings
VISUAL = ("VISp", "VISl", "VISam", "VISpm", "VISrl", "VISa")
MICE = ("01", "03", "08", "10", "12")
CHEWIE = ("20131003", "20131219")
LOST = (0.0, 0.25, 0.5, 0.75)  # shares of the visible neurons that are lost
SHOTS = (1, 4, 16, 64)  # trials of new neurons
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of Poisson regression
N_DRAWS = 3  # of lost neurons, or of trials, whose scores are averaged
MASKED = {"neuron_mask_ratio": (0.0, 0.9)}
N_ALIGNED = 8  # bins of the latents that are aligned: of chewie, most trials have ended then
N_COMPONENTS = 10  # of PCA, for alignment by Procrustes and by CCA
FITS = {}  # fits that parts share


def timed(fit):
    """Result of a function, and the processor time that it took."""
    start = time.process_time()
    result = fit()
    return result, time.process_time() - start


# scores


def rates_r2(estimator, spikes, true):
    """R2 of rates over trials and bins, weighted by the variance of each neuron's rate."""
    flat = [values.reshape(-1, values.shape[-1]) for values in (true, estimator.transform(spikes))]
    return r2_score(*flat, multioutput="variance_weighted")


def co_bps(estimator, spikes):
    """Bits per spike of the held-out neurons."""
    heldout = estimator.heldout_neurons_
    hidden = spikes.astype(float)
    hidden[..., heldout] = np.nan
    return bits_per_spike(spikes[..., heldout], estimator.transform(hidden)[..., heldout])


def known_bins(features, behaviour):
    """Bins of trials in which behaviour is known, as rows."""
    known = ~np.isnan(behaviour).any(-1)
    return features[known], behaviour[known]


def fit_ridge(features, behaviour):
    """Ridge regression of standardised features, and a function that predicts with it."""
    X, y = known_bins(features, behaviour)
    mean, scale = X.mean(0), X.std(0) + 1e-12
    ridge = RidgeCV(ALPHAS, cv=5).fit((X - mean) / scale, y)
    return lambda other: ridge.predict((other - mean) / scale)


def velocity_r2(predict, features, behaviour):
    """R2 of a decoder that was fitted elsewhere."""
    X, y = known_bins(features, behaviour)
    return r2_score(y, predict(X))


def both_scores(estimator, train, test):
    """Co-bps and velocity R2 of one day; `train` and `test` are (spikes, velocity, target)."""
    predict = fit_ridge(estimator.transform(train[0]), train[1])
    return {
        "co_bps": co_bps(estimator, test[0]),
        "velocity_r2": velocity_r2(predict, estimator.transform(test[0]), test[1]),
    }


# data


@cache
def halves(seed):
    """Day 1 (150 trials), day 2 (70 trials) and test of day 2 (80 trials): spikes and rates."""
    data = make_reaches(300, 50, 120, random_state=seed)
    first = data.spikes[:150, :, :60]
    return first, data.spikes[150:220, :, 60:], data.spikes[220:, :, 60:], data.rates[220:, :, 60:]


@cache
def chewie(day):
    """Spikes of units with more than 40 spikes, velocity and target of a day, in 100 ms bins."""
    data = load(f"reaches_chewie/chewie_{day}_100ms.npz")
    active = np.nansum(data["spikes"], (0, 1)) > 40
    return data["spikes"][..., active], data["velocity"], data["target"]


@cache
def generated_day(day):
    """Spikes, velocity and target of one of two generated days with other neurons."""
    days = make_reach_days(2, 180, 50, 60, random_state=7)
    return days[day].spikes, days[day].velocity, days[day].conditions


@cache
def mouse(session):
    """Spikes of visual cortex, units with more than 40 spikes."""
    data = load(f"steinmetz/steinmetz_{session}.npz")
    spikes = data["spikes"][..., np.isin(data["area"], VISUAL)]
    return spikes[..., spikes.sum((0, 1)) > 40]


def split(arrays, seed):
    """Training and test part of arrays of trials."""
    parts = train_test_split(*arrays, test_size=0.2, random_state=seed)
    return parts[::2], parts[1::2]


# parts: each yields keys and functions that return a cell


def fit_halves(base):
    """Functions that fit and time day 1, and the first trials of day 2 alone; each fit is kept."""

    @cache
    def day1(recording):
        start = clone(base).set_params(random_state=0)
        return timed(lambda: start.fit(halves(recording)[0]))

    @cache
    def alone(recording, n):
        start = clone(base).set_params(random_state=0)
        return timed(lambda: start.fit(halves(recording)[1][:n]))

    return day1, alone


def adapt(base, seeds):
    """Adapted and alone, from few trials of generated reaches."""
    day1, alone = FITS.setdefault("halves", fit_halves(base))
    for recording in RECORDINGS:
        for n in NUMBERS:
            for model in ("alone", "adapt"):

                def cell(recording=recording, n=n, model=model):
                    _, few, test, true = halves(recording)
                    if model == "alone":
                        estimator, seconds = alone(recording, n)
                    else:
                        first, _ = day1(recording)
                        estimator, seconds = timed(lambda: first.adapt(few[:n]))
                    return {"rates_r2": rates_r2(estimator, test, true), "seconds": seconds}

                yield f"{n} trials", model, recording, cell


def together(base, seeds):
    """Two generated days in one fit, against each in its own."""
    day1, alone = FITS.setdefault("halves", fit_halves(base))
    for recording in RECORDINGS:

        def single(recording=recording):
            estimator, seconds = alone(recording, 25)
            _, _, test, true = halves(recording)
            seconds += day1(recording)[1]
            return {"rates_r2": rates_r2(estimator, test, true), "seconds": seconds}

        def joint(recording=recording):
            first, few, test, true = halves(recording)
            start = MultiSessionEstimator(clone(base).set_params(random_state=0))
            estimator, seconds = timed(lambda: start.fit([first, few[:25]]))
            r2 = rates_r2(estimator.estimators_[1], test, true)
            return {"rates_r2": r2, "seconds": seconds}

        yield "25 beside 150", "alone", recording, single
        yield "25 beside 150", "together", recording, joint


def several(base, names, read, scores):
    """Recordings, each alone and all in one fit; a cell per recording and model."""

    def cells(seeds):
        for seed in seeds:

            @cache
            def parts(seed=seed):
                return [split(read(name), seed) for name in names]

            @cache
            def joint(seed=seed, parts=parts):
                start = MultiSessionEstimator(clone(base).set_params(random_state=seed))
                return timed(lambda: start.fit([train[0] for train, _ in parts()]))

            for i, name in enumerate(names):

                def alone(i=i, seed=seed, parts=parts):
                    train, test = parts()[i]
                    start = clone(base).set_params(random_state=seed)
                    estimator, seconds = timed(lambda: start.fit(train[0]))
                    return scores(estimator, train, test) | {"seconds": seconds}

                def of_joint(i=i, parts=parts, joint=joint):
                    train, test = parts()[i]
                    estimator, seconds = joint()
                    cell = scores(estimator.estimators_[i], train, test)
                    return cell | {"seconds": seconds / len(names)}

                yield name, "alone", seed, alone
                yield name, "together", seed, of_joint

    return cells


def chewie_days(base, seeds):
    """Both days of chewie."""
    return several(base.set_params(heldout_neurons=0.25), CHEWIE, chewie, both_scores)(seeds)


def steinmetz(base, seeds):
    """Five sessions of visual cortex."""

    def scores(estimator, train, test):
        return {"co_bps": co_bps(estimator, test[0])}

    read = lambda name: (mouse(name),)  # noqa: E731
    return several(base.set_params(heldout_neurons=0.25), MICE, read, scores)(seeds)


def another_day(base, seeds, read, days):
    """From the first day to the second, with few trials of the second and without labels."""
    base.set_params(heldout_neurons=0.25)
    for seed in seeds:

        @cache
        def parts(seed=seed):
            return [split(read(day), seed) for day in days]

        @cache
        def first(seed=seed, parts=parts):
            return clone(base).set_params(random_state=seed).fit(parts()[0][0][0])

        @cache
        def first_decoder(first=first, parts=parts):
            (spikes, velocity, _), _ = parts()[0]
            return fit_ridge(latents(first(), spikes), velocity)

        def cell(n, model, seed=seed, parts=parts, first=first, decoder=first_decoder):
            train, test = parts()[1]
            few = train[0][:n]
            start = clone(base).set_params(random_state=seed)
            fit = first().adapt if model == "adapt" else start.fit
            estimator, seconds = timed(lambda: fit(few))
            scores = both_scores(estimator, train, test) | {"seconds": seconds}
            if model == "adapt":
                of_few, of_test = latents(estimator, few), latents(estimator, test[0])
                scores["frozen_r2"] = velocity_r2(decoder(), of_test, test[1])
                reference = latents(first(), parts()[0][0][0])[:, :N_ALIGNED]
                aligner = LatentAligner(reference, random_state=seed).fit(of_few[:, :N_ALIGNED])
                scores["aligned_r2"] = velocity_r2(decoder(), aligner.transform(of_test), test[1])
                scores["margin"] = aligner.next_distance_ / aligner.distance_ - 1
            return scores

        for n in (*UNLABELLED, None):
            name = "all trials" if n is None else f"{n} trials"
            yield name, "alone", seed, lambda n=n, cell=cell: cell(n, "alone")
            yield name, "adapt", seed, lambda n=n, cell=cell: cell(n, "adapt")
        for model in ("no alignment", "Procrustes", "CCA"):

            def linear(model=model, parts=parts):
                return {"frozen_r2": aligned_r2(parts()[0][0], *parts()[1], model)}

            yield "PCA, all trials", model, seed, linear


def lost(base, seeds):
    """Neurons that are lost after the fit: bits per spike of the held-out ones."""
    problems = {
        "chewie": PROBLEMS["chewie"],
        "mouse 03": partial(mouse_problem, "03"),
        "ex2": PROBLEMS["ex2"],
    }
    models = {
        "temporal": {"attention": "temporal"},
        "temporal, mask": {"attention": "temporal"} | MASKED,
        "STNDT": {},
        "STNDT, mask": MASKED,
    }
    for name, problem in problems.items():
        for seed in seeds:
            for model, params in models.items():

                @cache
                def fit(problem=problem, seed=seed, params=params):
                    data = problem(seed)
                    start = clone(base).set_params(
                        random_state=seed, heldout_neurons=data.heldout, **params
                    )
                    return data.test, *timed(lambda: start.fit(data.train))

                for share in LOST:

                    def cell(share=share, seed=seed, fit=fit):
                        spikes, estimator, seconds = fit()
                        return {"co_bps": co_bps_without(estimator, spikes, share, seed)} | {
                            "seconds": seconds
                        }

                    yield f"{name}, {share:.0%}", model, seed, cell


def mouse_problem(session, seed):
    """Visual cortex of one session as a problem with held-out neurons."""
    spikes = mouse(session)
    train, test = train_test_split(spikes, test_size=0.2, random_state=seed)
    return Problem(train, test, draw_heldout(spikes.shape[-1], seed))


def co_bps_without(estimator, spikes, share, seed):
    """Bits per spike of the held-out neurons while a share of the others is hidden."""
    visible = np.setdiff1d(np.arange(spikes.shape[-1]), estimator.heldout_neurons_)
    rng, scores = np.random.RandomState(seed), []
    for _ in range(N_DRAWS if share else 1):
        shown = spikes.astype(float)
        shown[..., rng.permutation(visible)[: round(share * len(visible))]] = np.nan
        scores.append(co_bps(estimator, shown))
    return np.mean(scores)


def new_neurons(base, seeds):
    """Neurons that were not in the fit, from few trials of the training set."""
    for name, read in {"generated": generated_halves, "chewie": chewie_halves}.items():
        for seed in seeds:

            @cache
            def fit(read=read, seed=seed):
                train, test, n_known = read(seed)
                start = clone(base).set_params(random_state=seed, attention="temporal")
                return train, test, n_known, start.fit(train[..., :n_known])

            for n in SHOTS:
                for model, predict in {"mean": of_mean, "ridge": of_ridge, "add": of_add}.items():

                    def cell(n=n, seed=seed, fit=fit, predict=predict):
                        train, test, n_known, estimator = fit()
                        scores, start = [], time.process_time()
                        for draw in range(N_DRAWS if n < max(SHOTS) else 1):
                            order = np.random.RandomState(100 * seed + draw).permutation(len(train))
                            rates = predict(estimator, train[order[:n]], test, n_known)
                            scores.append(bits_per_spike(test[..., n_known:], rates))
                        seconds = (time.process_time() - start) / len(scores)
                        return {"co_bps": np.mean(scores), "seconds": seconds}

                    yield f"{name}, {n}", model, seed, cell


def generated_halves(seed):
    """Training and test trials, the neurons of the fit first, and their number."""
    spikes = make_reaches(230, 50, 120, random_state=seed).spikes
    return known_first(spikes[:150], spikes[150:], seed)


def chewie_halves(seed):
    """The same of motor cortex, in 50 ms bins."""
    spikes = load("reaches_chewie/chewie_20131003_50ms.npz")["spikes"]
    spikes = spikes[..., np.nansum(spikes, (0, 1)) > 40]
    return known_first(*train_test_split(spikes, test_size=0.2, random_state=seed), seed)


def known_first(train, test, seed):
    """Three quarters of the neurons, at random, before the others."""
    order = np.random.RandomState(seed).permutation(train.shape[-1])
    n_new = len(order) // 4
    order = np.r_[np.sort(order[n_new:]), np.sort(order[:n_new])]
    return train[..., order], test[..., order], len(order) - n_new


def of_mean(estimator, few, test, n_known):
    """Mean of each new neuron in few trials; half a spike if it has none."""
    new = few[..., n_known:].astype(float)
    n_bins = (~np.isnan(new)).sum((0, 1))
    return np.broadcast_to(
        np.maximum(np.nansum(new, (0, 1)), 0.5) / n_bins, test[..., n_known:].shape
    )


def of_add(estimator, few, test, n_known):
    """Rates of the new neurons after `add_neurons`."""
    return estimator.add_neurons(few).transform(test)[..., n_known:]


def of_ridge(estimator, few, test, n_known):
    """Rates of the new neurons by Poisson regression on latents."""
    shown, of_test = (latents(estimator, part[..., :n_known]).astype(float) for part in (few, test))
    mean, scale = shown.mean((0, 1)), shown.std((0, 1)) + 1e-12
    X, X_test = (((z - mean) / scale).reshape(-1, z.shape[-1]) for z in (shown, of_test))
    y = few[..., n_known:].reshape(len(X), -1).astype(float)
    # folds are trials, or, with one trial, runs of its bins
    fold = np.repeat(np.arange(len(few)) % 5, few.shape[1])
    if len(few) == 1:
        fold = np.arange(len(X)) * 5 // len(X)

    def loss(penalty, fold_out):
        total = 0.0
        for counts in y.T:
            known = ~np.isnan(counts)
            inside, outside = known & (fold != fold_out), known & (fold == fold_out)
            if counts[inside].any() and outside.any():
                model = PoissonRegressor(alpha=penalty, solver="newton-cholesky", max_iter=300)
                rates = model.fit(X[inside], counts[inside]).predict(X[outside]).clip(1e-9)
                total += (rates - counts[outside] * np.log(rates)).sum()
        return total

    losses = [sum(loss(penalty, f) for f in np.unique(fold)) for penalty in PENALTIES]
    best = PENALTIES[int(np.argmin(losses))]
    rates = of_mean(estimator, few, test, n_known).reshape(-1, y.shape[1]).copy()
    for i, counts in enumerate(y.T):
        known = ~np.isnan(counts)
        if counts[known].any():
            model = PoissonRegressor(alpha=best, solver="newton-cholesky", max_iter=300)
            rates[:, i] = model.fit(X[known], counts[known]).predict(X_test).clip(1e-9)
    return rates.reshape(*test.shape[:2], -1)


def latents(estimator, spikes):
    """Latents of an estimator, (n_trials, n_bins, d_model)."""
    return clone_with_output(estimator).transform(spikes)


def clone_with_output(estimator):
    """The same fitted estimator, which returns latents."""
    vars(other := object.__new__(type(estimator))).update(vars(estimator))
    return other.set_params(output="latents")


def aligned_r2(first, train, test, kind):
    """Velocity R2 of a decoder of the first day's principal components on the second day's.

    Procrustes and CCA align the mean courses of reaches to each target, and so use labels.
    """
    reduced, courses = [], []
    for spikes, _, target in (first, train):
        pca = PCA(N_COMPONENTS).fit(roots(spikes).reshape(-1, spikes.shape[-1]))
        reduced.append(partial(project, pca))
        components = project(pca, spikes)
        courses.append([components[target == t].mean(0) for t in np.unique(target)])
    n_bins = min(len(course) for of_day in courses for course in of_day)  # days may differ
    courses = [np.concatenate([course[:n_bins] for course in of_day]) for of_day in courses]
    of_first, of_second = reduced[0](first[0]), reduced[1](test[0])
    if kind == "Procrustes":
        u, _, vt = np.linalg.svd(courses[1].T @ courses[0])
        of_second = of_second @ (u @ vt)
    if kind == "CCA":
        cca = CCA(N_COMPONENTS, scale=False, max_iter=5000).fit(*courses)
        of_first = of_first @ cca.x_rotations_
        of_second = of_second @ cca.y_rotations_
    return velocity_r2(fit_ridge(of_first, first[1]), of_second, test[1])


def roots(spikes):
    """Square roots of counts, 0 where missing."""
    return np.sqrt(np.nan_to_num(spikes.astype(float)))


def project(pca, spikes):
    """Principal components of trials."""
    components = pca.transform(roots(spikes).reshape(-1, spikes.shape[-1]))
    return components.reshape(*spikes.shape[:2], -1)


PARTS = {
    "adapt": adapt,
    "together": together,
    "chewie": chewie_days,
    "steinmetz": steinmetz,
    "day": lambda base, seeds: another_day(base, seeds, chewie, CHEWIE),
    "generated day": lambda base, seeds: another_day(base, seeds, generated_day, (0, 1)),
    "lost": lost,
    "new": new_neurons,
}
NEEDS_DATA = ("chewie", "steinmetz", "day", "lost", "new")
SCORES = ("rates_r2", "co_bps", "velocity_r2", "frozen_r2", "seconds")


def format_table(part, rows):
    """Mean of each score over seeds or recordings, with two standard errors."""
    lines = [f"\n{part}", " " * 32 + "".join(f"{score:>18}" for score in SCORES)]
    for (name, model), cells in rows.items():
        line = f"{name:18}{model:14}"
        for score in SCORES:
            values = [cell[score] for cell in cells if score in cell]
            if score == "seconds":
                line += f"{np.mean(values):18.1f}" if values else ""
            elif values:
                error = 2 * np.std(values, ddof=1) / np.sqrt(len(values)) if values[1:] else np.nan
                line += f"{np.mean(values):11.3f} ±{error:5.3f}"
            else:
                line += " " * 18
        lines.append(line)
    return "\n".join(lines)


def parse_options():
    """Read the command line."""
    parser = new_parser(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of splits")
    parser.add_argument("--results", type=Path, default=Path("sessions.jsonl"), metavar="FILE")
    add_param(parser)
    return parser.parse_args()


def main():
    """Measure what is missing, and print the tables."""
    options = parse_options()
    params = dict(options.param)
    cells = Cells(options.results)
    for part in options.parts:
        if part in NEEDS_DATA and not os.environ.get("STNDT_DATA"):
            print(f"\n{part}: skipped, because STNDT_DATA is not set")
            continue
        rows = {}
        with threadpool_limits(1):
            for name, model, seed, measure in PARTS[part](STNDTEstimator(**params), options.seeds):
                key = f"{part} | {name} | {model} | {seed} | {sorted(params.items())}"
                rows.setdefault((name, model), []).append(cells.measured(key, measure))
        print(format_table(part, rows), flush=True)


if __name__ == "__main__":
    main()
