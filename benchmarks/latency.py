"""Time of a step of `RateStream`, bin by bin.

    python benchmarks/latency.py [--neurons 182] [--window 100] [--steps 10000] [--streams 10]

Fits causal networks with default settings to 40 generated reaches for 20 epochs, so that
calibration adds factor analysis, as it usually does, and prints quantiles of the time of a step in
milliseconds, for one stream, for several, with bins ahead and with a decoder; and the median and
the 99 % quantile of the time of the processor, which other programs affect less. The first row for
comparison is the same loop without a memory: `transform` of the last window in every step. Also
printed: how much the process grew during the steps, and the largest difference from the rates of
`transform`.

    python benchmarks/latency.py --published <folder>

compares with the published network as well, from a copy of github.com/trungle93/STNDT in that
folder: its forward pass over the last window, in turns with steps of ours.

    python benchmarks/latency.py --hz 200 --minutes 10

plays bins at a fixed rate instead, as a rig does, and prints how many were late by a bin or more,
and how far the end is from where the clock should be.

Run it on an idle core (`taskset -c 1`), with OMP_NUM_THREADS=1.
"""

import argparse
import importlib
import resource
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from sklearn_stndt import BaggingEnsemble, BinwiseRegressor, STNDTEstimator, presets
from sklearn_stndt.datasets import make_reaches
from sklearn_stndt.streaming import RateStream

QUANTILES = {"median": 0.5, "99 %": 0.99, "99.9 %": 0.999, "longest": 1.0}


class WindowAgain:
    """The loop that needs no memory: infer the last window again in every step."""

    def __init__(self, estimator, window):
        self.estimator = estimator
        self.bins = np.zeros((window, estimator.n_features_in_), dtype=np.float32)

    def step(self, counts):
        self.bins = np.concatenate([self.bins[1:], counts[None]])
        return self.estimator.transform(self.bins)[-1]


class Published:
    """The published network, which infers the last window again in every step.

    Parameters
    ----------
    folder : Path
        Copy of the published repository.
    n_neurons, window : int
        Size of the window.
    """

    # those of the published configs/mc_maze.yaml; else the defaults of src/config/default.py
    CONFIG = {
        "FULL_CONTEXT": False,
        "CONTEXT_FORWARD": 50,
        "CONTEXT_BACKWARD": 50,
        "CONTEXT_WRAP_INITIAL": False,
        "HIDDEN_SIZE": 128,
        "DROPOUT": 0.1,
        "DROPOUT_RATES": 0.2,
        "DROPOUT_EMBEDDING": 0.2,
        "NUM_HEADS": 2,
        "NUM_LAYERS": 4,
        "ACTIVATION": "relu",
        "LINEAR_EMBEDDER": True,
        "EMBED_DIM": 1,
        "LEARNABLE_POSITION": False,
        "LOGRATE": True,
        "FIXUP_INIT": True,
        "PRE_NORM": True,
        "SCALE_NORM": False,
        "SPIKE_LOG_INIT": False,
        "DECODER": SimpleNamespace(LAYERS=1),
        "LOSS": SimpleNamespace(TYPE="poisson"),
        "POSITION": SimpleNamespace(OFFSET=False),
        "TEMPERATURE": 0.07,
        "LAMBDA": 0.1,
        "USE_CONTRAST_PROJECTOR": False,
        "CONTRAST_LAYER": "embedder",
        "LINEAR_PROJECTOR": True,
    }

    def __init__(self, folder, n_neurons, window):
        sys.path.insert(0, str(folder))
        network = importlib.import_module("src.model").STNDT
        config = SimpleNamespace(**self.CONFIG)
        self.network = network(config, window, n_neurons, torch.device("cpu"), 20).eval()
        self.window = torch.zeros(1, window, n_neurons)
        self.labels = torch.zeros(1, window, n_neurons)

    @torch.inference_mode()
    def step(self, counts):
        self.window = torch.cat([self.window[:, 1:], torch.from_numpy(counts)[None, None]], dim=1)
        log_rates = self.network(self.window, self.labels, val_phase=True)[3]
        return log_rates[0, -1].exp().numpy()


def milliseconds(stream, bins, n_steps, first=0):
    """Time of each step, elapsed and of the processor, shape (2, n_steps)."""
    times = np.empty((2, n_steps))
    for i in range(n_steps):
        counts = bins[(first + i) % len(bins)]
        begin = time.perf_counter(), time.thread_time()
        stream.step(counts)
        times[:, i] = time.perf_counter() - begin[0], time.thread_time() - begin[1]
    return 1000 * times


def resident_kib():
    """Largest memory of this process so far, KiB on Linux."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def report(name, stream, bins, n_steps):
    """Print a row of the table."""
    milliseconds(stream, bins, 200)
    before = resident_kib()
    times = milliseconds(stream, bins, n_steps)
    row = "".join(f"{np.quantile(times[0], q):10.3f}" for q in QUANTILES.values())
    row += "".join(f"{np.quantile(times[1], q):10.3f}" for q in (0.5, 0.99))
    print(f"{name:34}{row}{resident_kib() - before:10d}", flush=True)


def in_turns(stream, published, bins, n_rounds, n_steps=20):
    """Print the times of steps of both, in turns of `n_steps`, and the ratios of their medians."""
    times = [
        [milliseconds(each, bins, n_steps, i * n_steps) for each in (stream, published)]
        for i in range(n_rounds)
    ]
    medians = np.median(times, axis=(0, 3))  # (ours and theirs, elapsed and of the processor)
    for name, (ours, theirs) in zip(("elapsed", "of the processor"), medians.T, strict=True):
        print(
            f"median time {name}, in turns: step {ours:.3f} ms, published network {theirs:.3f} ms, "
            f"ratio {ours / theirs:.3f}",
            flush=True,
        )


def play(stream, bins, hz, minutes):
    """Run steps at a fixed rate, and print what was late."""
    n_steps = int(60 * minutes * hz)
    late, times, busy = np.empty(n_steps), np.empty(n_steps), np.empty(n_steps)
    start = time.perf_counter()
    for i in range(n_steps):
        due = start + i / hz
        while (left := due - time.perf_counter()) > 0:
            time.sleep(left)
        begin, before = time.perf_counter(), time.thread_time()
        stream.step(bins[i % len(bins)])
        late[i], times[i] = begin - due, time.perf_counter() - begin
        busy[i] = time.thread_time() - before
    print(f"{n_steps} bins at {hz:g} Hz")
    print(f"began at least a bin late: {np.count_nonzero(late >= 1 / hz)}")
    print(f"delay of the begin: 99.9 % within {1000 * np.quantile(late, 0.999):.2f} ms")
    print(f"time of a step: 99.9 % within {1000 * np.quantile(times, 0.999):.2f} ms")
    print(f"of the processor: 99.9 % within {1000 * np.quantile(busy, 0.999):.2f} ms")
    print(f"steps that took longer than a bin of the processor: {np.count_nonzero(busy > 1 / hz)}")
    drift = time.perf_counter() - start - (n_steps - 1) / hz - times[-1]
    print(f"the last bin was {1000 * drift:.2f} ms after its time")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--neurons", type=int, default=182)
    parser.add_argument("--window", type=int, default=100)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--ahead", type=int, default=10)
    parser.add_argument("--published", type=Path, metavar="FOLDER", help="copy of that repository")
    parser.add_argument("--hz", type=float, help="play bins at this rate instead")
    parser.add_argument("--minutes", type=float, default=10.0)
    args = parser.parse_args()
    torch.set_num_threads(1)

    X = make_reaches(40, args.window, args.neurons, random_state=0).spikes.astype(np.float32)
    bins = X.reshape(-1, args.neurons)
    settings = {"max_epochs": 20, "random_state": 0}
    causal = STNDTEstimator(causal=True, **settings).fit(X)
    if args.hz:
        play(RateStream(causal), bins, args.hz, args.minutes)
        return

    posterior = causal.net_.module_.posterior
    n_trajectories = 0 if posterior is None else len(posterior.trajectories)
    print(
        f"{args.neurons} neurons, window of {args.window} bins, factor analysis with "
        f"{n_trajectories} amplitudes, {args.steps} steps; ms, KiB"
    )
    names = [*QUANTILES, "processor", "99 %", "growth"]
    print(f"{'':34}{''.join(f'{name:>10}' for name in names)}")
    report("RateStream", RateStream(causal), bins, args.steps)
    several = np.stack([np.roll(bins, i, axis=0) for i in range(args.streams)], axis=1)
    streams = RateStream(causal, n_streams=args.streams)
    report(f"{args.streams} streams at once", streams, several, args.steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not trained to forecast
        ahead = RateStream(causal, ahead=args.ahead)
    report(f"{args.ahead} bins ahead", ahead, bins, args.steps)
    temporal = STNDTEstimator(causal=True, attention="temporal", **settings).fit(X)
    report('attention="temporal"', RateStream(temporal), bins, args.steps)
    decoder = BinwiseRegressor(Ridge(), lag=2, history=3)
    rates = causal.transform(bins)
    decoder.fit(rates, rates[:, :2])
    report(
        "with a decoder of behaviour", RateStream(make_pipeline(causal, decoder)), bins, args.steps
    )
    member = STNDTEstimator(causal=True, **settings)
    ensemble = BaggingEnsemble(member, 5, random_state=0).fit(X)
    report("ensemble of 5", RateStream(ensemble), bins, args.steps // 5)
    two_sided = STNDTEstimator(**settings).fit(X)
    report(
        "the window again, two-sided", WindowAgain(two_sided, args.window), bins, args.steps // 10
    )
    published = presets.paper("mc_maze") | {"max_epochs": 1, "random_state": 0}
    published = STNDTEstimator(**published | {"contrastive_weight": 0.0}).fit(X)
    report(
        "the window again, published form",
        WindowAgain(published, args.window),
        bins,
        args.steps // 10,
    )

    if args.published:
        published = Published(args.published, args.neurons, args.window)
        in_turns(RateStream(causal), published, bins, args.steps // 200)

    stream = RateStream(causal)
    inferred = np.array([stream.step(counts) for counts in bins[:1000]])
    difference = np.abs(inferred / causal.transform(bins[:1000]) - 1).max()
    print(f"largest relative difference from transform, 1,000 steps: {difference:.1e}")


if __name__ == "__main__":
    main()
