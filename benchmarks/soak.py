"""Memory and descriptors of one process that fits, infers, saves and loads for a long time.

Trains a small network, infers rates of trials and of a recording, saves it, loads it and streams
with it, over and over. Prints resident memory and open descriptors over time, and how far memory is
from its mean after the first fifth of the time, in which caches fill.

    python benchmarks/soak.py [--minutes 30] [--rows 20]

Needs the folder /proc of Linux.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from sklearn_stndt import BaggingEnsemble, STNDTEstimator, load, save
from sklearn_stndt.datasets import load_submission, make_reaches, save_submission
from sklearn_stndt.streaming import RateStream

SETTLING = 0.2  # share of the time


def resident():
    """Resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def one_round(number, folder):
    """Fit, infer, save, load and stream; raise an error if a loaded estimator differs."""
    data = make_reaches(n_trials=24, n_bins=30, n_neurons=16, random_state=number % 10)
    spikes = data.spikes.astype(np.float32)
    causal = number % 2 == 1
    network = STNDTEstimator(
        d_model=16, n_layers=1, max_epochs=2, causal=causal, random_state=number
    )
    if number % 10 == 9:
        network = BaggingEnsemble(network, n_estimators=2, random_state=number)
    rates = network.fit(spikes).transform(spikes)
    save(network, folder / "network.stndt")
    again = load(folder / "network.stndt")
    if not np.array_equal(again.transform(spikes), rates):
        raise RuntimeError(f"round {number}: a loaded estimator infers other rates")
    again.transform(spikes.reshape(-1, 16))
    if causal:
        stream = RateStream(again)
        streamed = [stream.step(counts) for counts in spikes[0]]
        if not np.allclose(streamed, rates[0], rtol=1e-3):
            raise RuntimeError(f"round {number}: a stream infers other rates than transform")
    of_set = {"eval_rates_heldin": rates[..., :12], "eval_rates_heldout": rates[..., 12:]}
    save_submission({"mc_rtt": of_set}, folder / "submission.h5", overwrite=True)
    load_submission(folder / "submission.h5")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30, help="how long")
    parser.add_argument("--rows", type=int, default=20, help="of the table")
    args = parser.parse_args()
    begin = time.monotonic()
    duration = 60 * args.minutes
    measured = []  # (seconds, rounds, MiB, descriptors)
    print(f"{'minutes':>8} {'rounds':>8} {'resident, MiB':>14} {'descriptors':>12}")
    n_printed = 0
    with tempfile.TemporaryDirectory() as folder:
        while (passed := time.monotonic() - begin) < duration:
            one_round(len(measured), Path(folder))
            measured.append((passed, len(measured) + 1, resident(), descriptors()))
            if passed >= n_printed * duration / args.rows:
                n_printed += 1
                print(
                    f"{passed / 60:8.1f} {len(measured):8d} {measured[-1][2]:14.0f} "
                    f"{measured[-1][3]:12d}",
                    flush=True,
                )
    settled = np.array([row for row in measured if row[0] >= SETTLING * duration])
    memory, files = settled[:, 2], settled[:, 3]
    deviation = np.abs(memory / memory.mean() - 1).max()
    half = len(memory) // 2
    growth = memory[half:].mean() / memory[:half].mean() - 1
    print(
        f"\nAfter {SETTLING:.0%} of the time: {memory.mean():.0f} MiB on average, at most "
        f"{deviation:.1%} from it; {growth:+.2%} from the first half to the second. "
        f"Descriptors: {files.min():.0f} to {files.max():.0f}."
    )


if __name__ == "__main__":
    main()
