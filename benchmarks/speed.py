"""Time and memory of training steps, `fit` and `transform`, relative to the speed of the CPU.

    python benchmarks/speed.py [--parts step fit latency scaling precision threads compiled]

Variants are measured alternately in one run, because machines are shared and timings are noisy:
compare ratios. Every time is a median. The reference shape is that of MC_Maze in the Neural
Latents Benchmark: 64 trials x 180 bins (40 of them forecast) x 182 neurons (45 of them held out).

Training steps are timed with spatial attention. From 128 neurons on, the defaults skip it in a
random three quarters of training passes, which then take as long as in the temporal network.

- step: one training step, its floating-point operations, and their rate relative to that of a
  square matrix product in the same run;
- fit: the same steps within `STNDTEstimator.fit`, to measure the overhead of skorch, masks and
  data loading, without and with validation;
- latency: `transform` of one trial, and of many;
- scaling: time of a step and peak memory of a fit against neurons, bins and trials, with the
  exponents of fitted power laws;
- precision: the reference step in float32 and bfloat16, also on a GPU if there is one;
- threads: the reference step on 1 and 2 threads;
- compiled: steps with torch.compile.
"""

import argparse
import contextlib
import subprocess
import sys
import time
import warnings

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from sklearn_stndt import STNDTEstimator, presets
from sklearn_stndt.network.isolation import isolated_torch
from sklearn_stndt.training.net import MaskedModellingNet

SHAPES = {  # trials in a batch, bins, neurons, held-out neurons, forecast bins
    "reference": (64, 180, 182, 45, 40),
    "datahigh ex2": (16, 50, 61, 15, 0),
    "500 neurons": (32, 100, 500, 125, 0),
}
FORMS = {
    "defaults": {},
    "temporal": {"attention": "temporal"},
    "paper": presets.paper("mc_maze"),
}
NO_CONTRAST = {"contrastive_weight": 0.0}
EVERY_STEP = {"stochastic_depth": 0.0}  # so that the time of a step is not random


class Prepared:
    """A net that is ready for training, and a batch for it."""

    def __init__(self, shape, n_threads=1, precision="float32", device="cpu", **params):
        n_trials, n_bins, n_neurons, n_heldout, n_forecast = shape
        X = counts(n_trials, n_bins, n_neurons)
        estimator = STNDTEstimator(
            heldout_neurons=n_heldout or None,
            forecast_bins=n_forecast,
            early_stopping=False,
            device=device,
            random_state=0,
            **(EVERY_STEP | params | {"batch_size": n_trials}),
        )
        self.settings = (n_threads, 0, device, precision)
        with stopped_before_training() as nets:
            estimator.fit(X)
        self.net = nets[0]
        self.net.history.new_epoch()
        self.net.history.new_batch()
        self.batch = torch.from_numpy(X)

    def step(self):
        """One update: masks, forward, backward, clipping, optimizer."""
        self.net.optimizer_.zero_grad()
        self.net.train_step_single((self.batch, None))
        torch.nn.utils.clip_grad_norm_(self.net.module_.parameters(), 1.0)
        self.net.optimizer_.step()

    def seconds(self, n=1):
        """Seconds of a step, after one step that is not timed."""
        with isolated_torch(*self.settings):
            self.step()
            return median_seconds(self.step, n)

    def operations(self):
        """Floating-point operations of the matrix products in a step."""
        with isolated_torch(*self.settings), FlopCounterMode(display=False) as counter:
            self.step()
        return counter.get_total_flops()


def counts(n_trials, n_bins, n_neurons):
    """Counts of independent neurons, as the values do not affect the timing."""
    X = np.random.default_rng(0).poisson(0.3, (n_trials, n_bins, n_neurons))
    return X.astype(np.float32)


@contextlib.contextmanager
def stopped_before_training():
    """Let `fit` prepare the net, then return it without training."""

    class Prepared(Exception):  # noqa: N818
        pass

    nets = []

    def remember(net, *args, **kwargs):
        nets.append(net)
        raise Prepared

    original = MaskedModellingNet.partial_fit
    MaskedModellingNet.partial_fit = remember
    try:
        with contextlib.suppress(Prepared):
            yield nets
    finally:
        MaskedModellingNet.partial_fit = original


def median_seconds(function, n):
    """Median time of n calls."""
    times = []
    for _ in range(n):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def product_rate(dtype=torch.float32, n_threads=1, size=2048):
    """Floating-point operations per second of a square matrix product."""
    a, b = torch.randn(2, size, size).to(dtype)
    with isolated_torch(n_threads):
        torch.mm(a, b)
        return 2 * size**3 / median_seconds(lambda: torch.mm(a, b), 3)


def in_turns(functions, n):
    """Call each function in turn, n times; the median of what each returned."""
    results = [[function() for function in functions] for _ in range(n)]
    return [float(np.median(column)) for column in zip(*results, strict=True)]


def show_steps(n):
    """Training steps, compared with a matrix product."""
    print("\nOne training step on one thread")
    print(f"{'':30}{'seconds':>9}{'GFLOP':>9}{'GFLOP/s':>9}{'share of a product':>20}")
    for shape_name, shape in SHAPES.items():
        forms = {**FORMS, "paper, no contrast": FORMS["paper"] | NO_CONTRAST}
        if shape_name != "reference":
            forms = {"defaults": {}, "temporal": FORMS["temporal"]}
        prepared = {name: Prepared(shape, **params) for name, params in forms.items()}
        *seconds, rate = in_turns([*(p.seconds for p in prepared.values()), product_rate], n)
        for (name, net), s in zip(prepared.items(), seconds, strict=True):
            flop = net.operations()
            print(
                f"{shape_name + ', ' + name:30}{s:9.4f}{flop / 1e9:9.1f}{flop / s / 1e9:9.1f}"
                f"{flop / s / rate:20.2f}"
            )
        print(f"{'square matrix product':30}{'':18}{rate / 1e9:9.1f}{1:20.2f}", flush=True)


def show_fits(n):
    """Seconds per update in fit, compared with a bare step."""
    print("\nAn update within fit, on one thread")
    print(f"{'':30}{'step':>9}{'in fit':>9}{'ratio':>9}{'with validation':>17}")
    for name, shape in SHAPES.items():
        n_trials, n_bins, n_neurons = shape[:3]
        n_epochs = 5 if name == "datahigh ex2" else 2
        X = counts(4 * n_trials, n_bins, n_neurons)
        bare = Prepared(shape)

        def in_fit(early_stopping, X=X, shape=shape, n_epochs=n_epochs):
            estimator = STNDTEstimator(
                heldout_neurons=shape[3],
                forecast_bins=shape[4],
                batch_size=shape[0],
                max_epochs=n_epochs,
                early_stopping=early_stopping,
                random_state=0,
                **EVERY_STEP,
            ).fit(X)
            # per window, because the last batch of an epoch may be smaller
            batches = [b for epoch in estimator.history_ for b in epoch["batches"]]
            n_windows = sum(b.get("train_batch_size", 0) for b in batches)
            return sum(estimator.history_[:, "dur"]) * shape[0] / n_windows

        step, plain, validated = in_turns(
            [lambda bare=bare: bare.seconds(4), lambda: in_fit(False), lambda: in_fit(True)], n
        )
        print(f"{name:30}{step:9.4f}{plain:9.4f}{plain / step:9.2f}{validated / step:17.2f}")
        sys.stdout.flush()


def show_latency(n):
    """`transform` of one trial, and of many."""
    print("\ntransform at the reference shape, one thread")
    print(f"{'':30}{'ms a trial':>12}{'99 %':>9}{'trials/s of 256':>17}{'max. difference':>17}")
    _, n_bins, n_neurons, n_heldout, n_forecast = SHAPES["reference"]
    X = counts(256, n_bins, n_neurons)
    for name, params in FORMS.items():
        params = params | {"max_epochs": 1, "early_stopping": False, "random_state": 0}
        estimator = STNDTEstimator(
            heldout_neurons=n_heldout, forecast_bins=n_forecast, **params
        ).fit(X[:8])
        times, alone = [], []
        for trial in X[:100]:
            began = time.perf_counter()
            alone.append(estimator.transform(trial[None])[0])
            times.append(time.perf_counter() - began)
        together = []
        many = median_seconds(lambda e=estimator, t=together: t.append(e.transform(X)), n)
        difference = np.abs(np.array(alone) / together[0][:100] - 1).max()
        print(
            f"{name:30}{1e3 * np.median(times):12.2f}{1e3 * np.quantile(times, 0.99):9.2f}"
            f"{len(X) / many:17.0f}{difference:17.1e}",
            flush=True,
        )


def exponent(sizes, values):
    """Exponent of a power law, fitted to logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


PEAK = """
import re, sys
import numpy as np
from sklearn_stndt import STNDTEstimator

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 2**10

n_trials, n_bins, n_neurons = map(int, sys.argv[1:4])
context = None if sys.argv[4] == "None" else (15, 15)
X = np.random.default_rng(0).poisson(0.3, (n_trials, n_bins, n_neurons)).astype(np.uint8)
STNDTEstimator(max_epochs=1).fit(X[:4, :20, :10])  # what torch loads on first use
before = peak()
STNDTEstimator(max_epochs=1, batch_size=16, context=context, random_state=0).fit(X)
print(peak() - before)
"""


def peak_memory(shape, context):
    """Peak memory of a fit in MiB, measured in a separate process."""
    arguments = [str(size) for size in shape] + [str(context)]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def show_scaling(n):
    """Time and memory against each size, with the others fixed."""
    print("\nA step of 16 trials, and the peak memory of a fit, against sizes; one thread")
    sizes = {
        "neurons": [50, 100, 200, 400, 1000],
        "bins": [50, 100, 200, 400, 800],
        "bins, context (15, 15)": [50, 100, 200, 400, 800],
        "trials": [100, 200, 400, 800, 1600],
    }
    for what, values in sizes.items():
        context = (15, 15) if "context" in what else None
        shapes = []
        for value in values:
            shapes.append(
                (
                    value if what == "trials" else 64,
                    value if what.startswith("bins") else 100,
                    value if what == "neurons" else 100,
                )
            )
        steps = None
        if what != "trials":
            nets = [Prepared((16, *shape[1:], 0, 0), context=context) for shape in shapes]
            steps = in_turns([net.seconds for net in nets], n)
        memory = [peak_memory(shape, context) for shape in shapes]
        print(f"{what:30}" + "".join(f"{value:>9}" for value in values) + f"{'exponent':>16}")
        if steps is not None:
            upto = exponent(values[:4], steps[:4])
            print(
                f"{'  ms a step':30}"
                + "".join(f"{1e3 * s:9.1f}" for s in steps)
                + f"{exponent(values, steps):9.2f} ({upto:.2f} up to {values[3]})"
            )
        print(
            f"{'  MiB of a fit':30}"
            + "".join(f"{m:9.0f}" for m in memory)
            + f"{exponent(values, memory):9.2f}",
            flush=True,
        )


def show_precision(n):
    """float32 and bfloat16, on CPU and GPU."""
    print("\nThe reference step by precision (seconds; in turns)")
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    for device in devices:
        for name, params in FORMS.items():
            nets = [
                Prepared(SHAPES["reference"], precision=p, device=device, **params)
                for p in ("float32", "bfloat16")
            ]
            full, half = in_turns([net.seconds for net in nets], n)
            print(f"{device + ', ' + name:30}{full:9.4f}{half:9.4f}  {full / half:.2f}", flush=True)
    rates = in_turns([product_rate, lambda: product_rate(torch.bfloat16)], n)
    print("square product, GFLOP/s       " + "".join(f"{rate / 1e9:9.0f}" for rate in rates))


def show_threads(n):
    """One thread and two."""
    print("\nThe reference step on 1 and 2 threads (seconds; in turns)")
    for name, params in FORMS.items():
        nets = [Prepared(SHAPES["reference"], n_threads=t, **params) for t in (1, 2)]
        one, two = in_turns([net.seconds for net in nets], n)
        print(f"{name:30}{one:9.4f}{two:9.4f}  {one / two:.2f}", flush=True)


def show_compiled(n):
    """torch.compile, if a compiler is installed."""
    print("\nThe step compiled (seconds; in turns)")
    for name, shape in list(SHAPES.items())[:2]:
        plain, compiled = Prepared(shape), Prepared(shape)
        began = time.perf_counter()
        try:
            compiled.net.module_.compile()
            compiled.seconds()
        except Exception as error:
            print(f"{name:30}not available: {type(error).__name__}")
            continue
        first = time.perf_counter() - began
        seconds = in_turns([plain.seconds, compiled.seconds], n)
        print(f"{name:30}{seconds[0]:9.4f}{seconds[1]:9.4f}  compiling took {first:.0f} s")


PARTS = {
    "step": show_steps,
    "fit": show_fits,
    "latency": show_latency,
    "scaling": show_scaling,
    "precision": show_precision,
    "threads": show_threads,
    "compiled": show_compiled,
}


def main():
    """Print the requested tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeat", type=int, default=5, help="repetitions; medians are shown")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for part in options.parts:
        PARTS[part](options.repeat)


if __name__ == "__main__":
    main()
