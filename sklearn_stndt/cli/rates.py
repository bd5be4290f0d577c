"""``rates``: infer firing rates of a recording, and write them to a file."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from sklearn_stndt.cli import held_out
from sklearn_stndt.cli.messages import Reporter
from sklearn_stndt.cli.network import fit, is_scored_on, load, make_network, save
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


def run(options: argparse.Namespace, reporter: Reporter) -> None:
    """Read, train or load, score, and write."""
    check_network(options)
    out = check_output(options.out, FORMATS, overwrite=options.overwrite)
    assert out is not None  # a required option
    model = check_output(options.model, (), overwrite=options.overwrite)
    source = Path(options.input).expanduser()
    check_distinct(source, out, model, None if options.load is None else Path(options.load))
    check_nwb(out, source)
    recording = read(options)
    reporter.say(recording.describe())
    counts = recording.counts
    aside = held_out.set_aside(counts, options.test_fraction, options.random_state)
    train = np.setdiff1d(np.arange(len(counts)), aside)
    unit = "trials" if recording.is_trials else "bins"
    if options.load is not None:
        network = load(options.load, counts, recording.bin_width)
        reporter.say(f"network: {options.load}")
    else:
        network = make_network(options, reporter, is_trials=recording.is_trials)
        reporter.say(f"training on {len(train):,} of {len(counts):,} {unit}")
        fit(network, counts[train], held_out.runs(counts, train))
    if model is not None:
        save(
            network,
            model,
            bin_width=recording.bin_width,
            scored_on=held_out.fingerprint(counts, aside),
        )
        reporter.say(f"network saved: {model}")
    scores = _score(network, recording, train, aside, options, reporter)
    reporter.say("inferring rates")
    rates = held_out.rates_of(network, counts, None) / recording.bin_width
    rates[~recording.inside] = np.nan
    write(out, recording, _result(rates, recording, aside, scores, options))
    print(f"rates in Hz: {out}")


def _score(
    network: Any,
    recording: Recording,
    train: np.ndarray,
    aside: np.ndarray,
    options: argparse.Namespace,
    reporter: Reporter,
) -> dict[str, float]:
    """Print bits per spike of what was set aside, and return them."""
    counts = recording.counts
    if not len(aside) or not np.nansum(counts[aside]) > 0:
        reporter.say("nothing was set aside, so there is no score")
        return {}
    reporter.say("scoring hidden entries, and choosing the width of Gaussian smoothing")
    groups = held_out.runs(counts, aside)
    causal = bool(getattr(network, "causal", False))
    smoothing = held_out.choose_smoothing(
        counts[train], recording.bin_width, held_out.runs(counts, train), causal=causal
    )
    scores = {
        "bits_per_spike": held_out.bits(
            lambda shown, of: held_out.rates_of(network, shown, of), counts[aside], groups
        ),
        "bits_per_spike_smoothing": held_out.bits(smoothing.rates, counts[aside], groups),
    }
    name = {"spatiotemporal": "STNDT", "temporal": "NDT"}.get(
        getattr(network, "attention", ""), type(network).__name__
    )
    width = 1000 * smoothing.width * recording.bin_width
    unit = "trials" if recording.is_trials else "bins"
    print(
        f"bits per spike of hidden entries in {len(aside):,} {unit} set aside "
        "(0: mean rates; higher is better)"
    )
    print(f"  {name:20}{scores['bits_per_spike']:8.4f}")
    smooth = f"{'causal ' if causal else ''}Gaussian, {width:.0f} ms"
    print(f"  {smooth:20}{scores['bits_per_spike_smoothing']:8.4f}")
    if options.load is not None and not is_scored_on(network, held_out.fingerprint(counts, aside)):
        reporter.warn(
            f"It is not known whether {options.load} was trained on these {unit}. If it was, its "
            "score is too high."
        )
    if scores["bits_per_spike"] <= 0:
        reporter.warn(
            "The rates predict hidden spikes no better than mean rates do. Check that the numbers "
            "are counts of sorted units in order of time, try wider bins, and look for more data: "
            "neurons with few spikes cannot be learnt."
        )
    return scores


def _result(
    rates: np.ndarray,
    recording: Recording,
    aside: np.ndarray,
    scores: dict[str, float],
    options: argparse.Namespace,
) -> Result:
    how = "Single-trial firing rates in Hz, inferred from spike counts by a neural data transformer"
    if options.load is not None:
        how += f" that was loaded from {Path(options.load).name}"
    if scores:
        unit = "trials" if recording.is_trials else "bins"
        how += (
            f"; {scores['bits_per_spike']:.4f} bits per spike of hidden entries in {unit} set "
            f"aside, Gaussian smoothing {scores['bits_per_spike_smoothing']:.4f}"
        )
    extra: dict[str, Any] = dict(scores)
    if options.load is None:
        extra["held_out"] = np.isin(np.arange(len(rates)), aside)
    return Result("rates", rates, "Hz", recording.neurons, f"{how}.", extra)
