"""``decode``: predict behaviour from rates by ridge regression, in cross-validation."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold

from sklearn_stndt import BinwiseRegressor
from sklearn_stndt.cli import held_out
from sklearn_stndt.cli.messages import CommandError, Reporter
from sklearn_stndt.cli.network import fit, load, make_network
from sklearn_stndt.cli.options import check_network
from sklearn_stndt.cli.outputs import (
    FORMATS,
    Result,
    check_distinct,
    check_nwb,
    check_output,
    write,
)
from sklearn_stndt.cli.recording import Recording, read

_ALPHAS = np.logspace(-4, 3, 8)
_LAGS = (0.0, 0.05, 0.1, 0.15)  # s
_MEAN = 0.01  # weight of the mean count in smoothing, for bins without visible neighbours
_INNER = 3  # folds in which penalty, lag and width are chosen
_EVERY = 2  # of the widths; R2 hardly depends on the steps between them

Infer = Callable[[NDArray, NDArray | None], NDArray]


def run(options: argparse.Namespace, reporter: Reporter) -> None:
    """Read, decode in each fold, and write the predictions."""
    check_network(options)
    out = check_output(options.out, FORMATS, overwrite=options.overwrite)
    source = Path(options.input).expanduser()
    check_distinct(source, out, None if options.load is None else Path(options.load))
    check_nwb(out, source)
    recording = read(options, options.target)
    reporter.say(recording.describe())
    truth = np.concatenate([recording.targets[name] for name in options.target], axis=-1)
    _check(recording, truth, options)
    decoded = {name: np.full(truth.shape, np.nan) for name in ("network", "smoothing")}
    network, scores = None, []
    if options.load is not None:
        network = load(options.load, recording.counts, recording.bin_width)
    splits = held_out.folds(recording.counts, options.folds, options.random_state)
    for number, (train, test) in enumerate(splits, 1):
        reporter.say(f"fold {number} of {len(splits)}")
        one = network
        if one is None:
            one = make_network(options, reporter, is_trials=recording.is_trials)
            fit(one, recording.counts[train], held_out.runs(recording.counts, train))
        scores.append(_decode(one, recording, truth, train, test, options, decoded))
    names = _channels(options.target, recording)
    _print(names, truth, decoded, np.array(scores), recording, reporter)
    if options.load is not None:
        reporter.warn(
            f"{options.load} was trained elsewhere, and may have seen the spikes of test trials. "
            "The decoder has not seen their behaviour."
        )
    if out is not None:
        mean, smoothing = np.mean(scores, axis=0)
        description = (
            f"Predicted by ridge regression from single-trial firing rates, in {options.folds} "
            f"folds: each value is from a fold in which it was not trained on; R2 {mean:.4f}, from "
            f"Gaussian smoothing {smoothing:.4f}."
        )
        units = {recording.target_units.get(name, "unknown") for name in options.target}
        extra = {"truth": truth, "r2": mean, "r2_smoothing": smoothing}
        result = Result(
            "decoded",
            decoded["network"],
            units.pop() if len(units) == 1 else "several",
            names,
            description,
            extra,
        )
        write(out, recording, result)
        print(f"predictions: {out}")


def _check(recording: Recording, truth: NDArray, options: argparse.Namespace) -> None:
    known = np.isfinite(truth).all(axis=-1)
    if not known.any():
        raise CommandError(f"{', '.join(options.target)} is not known in any bin of the recording.")
    n = int(known.any(axis=-1).sum()) if recording.is_trials else len(truth)
    if n < options.folds or len(truth) < options.folds:
        raise CommandError(
            f"There are {n} {'trials' if recording.is_trials else 'bins'} for {options.folds} "
            "folds. Pass fewer --folds."
        )


def _decode(
    network: Any,
    recording: Recording,
    truth: NDArray,
    train: NDArray,
    test: NDArray,
    options: argparse.Namespace,
    decoded: dict[str, NDArray],
) -> tuple[float, float]:
    """Decode one fold from rates and from smoothed counts; return the R2 of both."""
    counts = recording.counts
    means = np.nan_to_num(np.nanmean(counts[train].reshape(-1, counts.shape[-1]), axis=0))
    candidates: dict[str, list[Infer]] = {
        "network": [lambda shown, groups: held_out.rates_of(network, shown, groups)],
        "smoothing": [
            held_out.Smoothing(means, width, _MEAN, bool(getattr(network, "causal", False))).rates
            for width in held_out.widths_in_bins(recording.bin_width, counts.shape[-2])[::_EVERY]
        ],
    }
    scores = []
    for name, several in candidates.items():
        best: tuple[float, Any, Infer] | None = None
        for infer in several:
            search = _search(recording, options)
            search.fit(infer(counts[train], held_out.runs(counts, train)), truth[train])
            if best is None or search.best_score_ > best[0]:
                best = search.best_score_, search, infer
        assert best is not None
        _, search, infer = best
        features = infer(counts[test], held_out.runs(counts, test))
        decoded[name][test] = search.predict(features)
        scores.append(search.score(features, truth[test]))
    decoded["network"][test] = np.where(
        recording.inside[test][..., None], decoded["network"][test], np.nan
    )
    return scores[0], scores[1]


def _search(recording: Recording, options: argparse.Namespace) -> GridSearchCV:
    """Ridge regression whose penalty and lag are chosen in folds of the training data."""
    lags = sorted({round(lag / recording.bin_width) for lag in options.lag or _LAGS})
    n_bins = recording.counts.shape[-2]
    grid = {"estimator__alpha": _ALPHAS, "lag": [lag for lag in lags if lag < n_bins / 2]}
    return GridSearchCV(BinwiseRegressor(Ridge()), grid, cv=KFold(_INNER))


def _channels(targets: list[str], recording: Recording) -> list[str]:
    names = []
    for target in targets:
        n = recording.targets[target].shape[-1]
        names += [target] if n == 1 else [f"{target}[{i}]" for i in range(n)]
    return names


def _print(
    names: list[str],
    truth: NDArray,
    decoded: dict[str, NDArray],
    scores: NDArray,
    recording: Recording,
    reporter: Reporter,
) -> None:
    unit = "trials" if recording.is_trials else "stretches of the recording"
    print(f"R2 of {', '.join(names)} in {unit} not trained on, {len(scores)} folds")
    for label, column in (("rates", 0), ("Gaussian smoothing", 1)):
        low, high = scores[:, column].min(), scores[:, column].max()
        print(f"  {label:20}{scores[:, column].mean():8.4f}  ({low:.4f} to {high:.4f})")
    constant = [
        name
        for name, values in zip(names, truth.reshape(-1, truth.shape[-1]).T, strict=True)
        if np.nanstd(values) == 0
    ]
    if constant:
        reporter.warn(f"{', '.join(constant)} never changes, so its R2 means nothing.")
