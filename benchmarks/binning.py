"""Time and memory of binning spike times, beside numpy.histogram.

Prints a table: 1,000 neurons at 10 Hz for an hour into bins of 5 ms, by `bin_spikes` and by a
loop over neurons that calls `numpy.histogram`, each in a process of its own that reports its
peak memory (resident, spike times included: 0.3 GiB). The counts of both are compared.

    python benchmarks/binning.py [--neurons 1000] [--hours 1] [--width 0.005] [--rate 10]
"""

import argparse
import multiprocessing
import resource
import time

import numpy as np

from sklearn_stndt.datasets import bin_spikes


def draw_times(n_neurons, rate, duration):
    rng = np.random.default_rng(0)
    return [
        np.sort(rng.uniform(0, duration, rng.poisson(rate * duration))) for _ in range(n_neurons)
    ]


def by_bin_spikes(times, width, duration):
    return bin_spikes(times, width, stop=duration)


def by_histogram(times, width, duration):
    """Edges as whole numbers times the width, as one would write it down."""
    n_bins = round(duration / width)
    edges = np.arange(n_bins + 1) * width
    counts = np.empty((n_bins, len(times)), dtype=np.uint8)
    for neuron, train in enumerate(times):
        counts[:, neuron] = np.histogram(train, edges)[0]
    return counts


def by_uniform_histogram(times, width, duration):
    """The shortcut of numpy.histogram for a number of equal bins."""
    n_bins = round(duration / width)
    counts = np.empty((n_bins, len(times)), dtype=np.uint8)
    for neuron, train in enumerate(times):
        counts[:, neuron] = np.histogram(train, n_bins, range=(0, duration))[0]
    return counts


def measure(function, args, queue):
    times = draw_times(args.neurons, args.rate, 3600 * args.hours)
    begin = time.perf_counter()
    counts = function(times, args.width, 3600 * args.hours)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GiB, of KiB on Linux
    hashes = [hash(counts[:, neuron].tobytes()) for neuron in range(0, args.neurons, 10)]
    queue.put((seconds, peak, int(counts.sum(dtype=np.int64)), hashes))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--neurons", type=int, default=1000)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--width", type=float, default=0.005, help="seconds")
    parser.add_argument("--rate", type=float, default=10.0, help="Hz")
    args = parser.parse_args()

    print(f"{args.neurons} neurons, {args.rate:g} Hz, {args.hours:g} h, bins of {args.width:g} s")
    print(f"{'':32}{'seconds':>9}{'peak GiB':>10}{'spikes':>12}  neurons that differ")
    ways = {
        "bin_spikes": by_bin_spikes,
        "np.histogram(times, edges)": by_histogram,
        "np.histogram(times, n, range)": by_uniform_histogram,
    }
    expected = None
    # forked, so that hashes of bytes compare across processes
    context = multiprocessing.get_context("fork")
    for name, function in ways.items():
        queue = context.Queue()
        process = context.Process(target=measure, args=(function, args, queue))
        process.start()
        seconds, peak, n_spikes, hashes = queue.get()
        process.join()
        expected = expected or hashes
        differ = sum(a != b for a, b in zip(expected, hashes, strict=True))
        print(f"{name:32}{seconds:9.2f}{peak:10.2f}{n_spikes:12d}  {differ} of {len(hashes)}")


if __name__ == "__main__":
    main()
