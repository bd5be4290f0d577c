"""Time and memory of binning spike times, compared with numpy.histogram.

Bins one hour of 1,000 neurons at 10 Hz into bins of 5 ms, with `bin_spikes` and with a loop over
neurons that calls `numpy.histogram`. Each runs in a separate process that reports its peak
resident memory, including 0.3 GiB of spike times. Prints a table, and compares the counts.

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
    """numpy.histogram with edges at multiples of the bin width."""
    n_bins = round(duration / width)
    edges = np.arange(n_bins + 1) * width
    counts = np.empty((n_bins, len(times)), dtype=np.uint8)
    for neuron, train in enumerate(times):
        counts[:, neuron] = np.histogram(train, edges)[0]
    return counts


def by_uniform_histogram(times, width, duration):
    """numpy.histogram with a number of equal bins, which is faster."""
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
    # forked, so that hashes of bytes are comparable across processes
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
