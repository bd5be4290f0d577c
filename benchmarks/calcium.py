"""Rates from calcium imaging: R2 to the true rates of several ways to get there.

    pip install oasis-deconv
    python benchmarks/calcium.py --results calcium.jsonl

Generated recordings (`make_calcium`: 60 neurons, 100 training trials and 50 test trials of two
seconds, imaged at 30 Hz) in bins of two frames. Deconvolution is OASIS (Friedrich et al. 2017),
outside of the package, of each neuron's whole recording, with parameters estimated from the data:
autoregressive processes of first order ("AR(1)"; the recordings are of second order) and of second
order ("AR(2)").

Fluorescence and deconvolved activity have no unit of spikes, so each estimate is first brought to
the scale of the rates by the gain and the offset that are best for each neuron in training trials.
R2 is that of test trials, the mean over neurons. The width of all smoothing is the one with the
best R2 in training trials, for which the true rates are used too, in favour of smoothing.

Each result is written to a line of the results file, and the same command resumes after an
interruption.
"""

import time
import warnings
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from cells import Cells
from options import new_parser
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter
from sklearn.metrics import r2_score
from threadpoolctl import threadpool_limits

from sklearn_stndt import STNDTEstimator
from sklearn_stndt.datasets import align_signals, make_calcium
from sklearn_stndt.network.likelihood import Gaussian

FRAMES = 2  # per bin
WIDTHS = (0, 1, 1.5, 2, 2.5, 3, 4, 6)  # frames
N_TRAIN, N_TEST = 100, 50


class SquaredLoss(Gaussian):
    """A plain squared loss of standardised signals: one common noise."""

    def nll(self, readout, values):
        return 0.5 * (self.link(values) - readout).square()

    def information(self, readout):
        return torch.ones_like(readout)


class Recording:
    """A generated recording, and its deconvolution."""

    def __init__(self, seed, cache):
        self.data = make_calcium(N_TRAIN + N_TEST, random_state=seed)
        self.train, self.test = slice(N_TRAIN), slice(N_TRAIN, None)
        self.rates, self.spikes = (in_bins(self.data[name]) for name in ("rates", "spikes"))
        self.seed, self.cache = seed, cache

    def oasis(self, order):
        """Deconvolved activity of the whole recording, and the estimated processes.

        Returns arrays of shape (n_frames, n_neurons) and (n_neurons, order).
        """
        path = self.cache.with_name(f"{self.cache.stem}-oasis-{order}-{self.seed}.npz")
        if not path.is_file():
            from oasis.functions import deconvolve

            results = []
            for trace in self.data.recording.T:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)
                    results.append(
                        deconvolve(trace.astype(float), g=(None,) * order, b_nonneg=False)
                    )
            spks = np.stack([np.maximum(result[1], 0) for result in results], axis=1)
            ar = np.stack([np.atleast_1d(result[3]) for result in results])
            np.savez(path, spks=spks, ar=ar)
        with np.load(path) as arrays:
            return arrays["spks"], arrays["ar"]

    def trials(self, recording):
        """Trials of a recording of frames, (n_trials, n_bins, n_neurons)."""
        data = self.data
        window, bin_width = (0, data.dff.shape[1] / data.fps), FRAMES / data.fps
        return align_signals(recording, data.time, data.starts, window, bin_width, how="sum")

    def score(self, estimate, part=None):
        """R2 of an estimate, (n_trials, n_bins, n_neurons), to the true rates."""
        part = self.test if part is None else part
        true, scaled = [], []
        for rates, values in zip(self.rates.T, estimate.T, strict=True):
            gain, offset = np.polyfit(values.T[self.train].ravel(), rates.T[self.train].ravel(), 1)
            true.append(rates.T[part].ravel())
            scaled.append(gain * values.T[part].ravel() + offset)
        return r2_score(np.transpose(true), np.transpose(scaled))

    def best_smoothing(self, recording, cut=None):
        """R2 in test trials at the width that is best in training trials, and that width."""
        cut = cut or self.trials
        smoothed = {width: cut(smooth(recording, width)) for width in WIDTHS}
        best = max(WIDTHS, key=lambda width: self.score(smoothed[width], self.train))
        return {"rates_r2": self.score(smoothed[best]), "width": best}

    @cached_property
    def expected_dff(self):
        """Expected dF/F of all trials, from a network."""
        return self.network(in_bins(self.data.dff), "gaussian")

    def network(self, X, likelihood):
        """Expected values of all trials, from a network trained on the training trials."""
        return (
            STNDTEstimator(likelihood=likelihood, random_state=self.seed)
            .fit(X[self.train])
            .transform(X)
        )


def in_bins(trials):
    """Sums over the frames of each bin."""
    n_trials, n_frames, n_neurons = trials.shape
    return trials.reshape(n_trials, n_frames // FRAMES, FRAMES, n_neurons).sum(axis=2)


def smooth(recording, width):
    """Smooth along the first axis; a width of 0 is no smoothing."""
    return gaussian_filter1d(recording, width, axis=0) if width else recording


def smoothed_oasis(order):
    """OASIS, then smoothing."""
    return lambda recording: recording.best_smoothing(recording.oasis(order)[0])


def network_of_oasis(order, likelihood):
    """OASIS, then the network."""

    def way(recording):
        X = recording.trials(recording.oasis(order)[0])
        return {"rates_r2": recording.score(recording.network(X, likelihood))}

    return way


def network_of_dff(recording):
    """The network on dF/F, whose output is expected fluorescence."""
    return {"rates_r2": recording.score(recording.expected_dff)}


def deconvolved_network_of_dff(recording):
    """The same, then the inverse of the autoregressive process, then smoothing."""
    expected = recording.expected_dff
    change = np.empty_like(expected)
    for n, g in enumerate(recording.oasis(2)[1]):
        inverse = np.poly(np.roots([1, *-g]) ** FRAMES).real  # of bins
        change[..., n] = lfilter(inverse, [1], expected[..., n], axis=1)
    change[:, :2] = change[:, 2:3]  # they lack the bins before
    return recording.best_smoothing(
        change.transpose(1, 0, 2), lambda recording: recording.transpose(1, 0, 2)
    )


def squared_loss_of_smoothed_dff(recording):
    """The network on smoothed dF/F, with a plain squared loss."""
    dff = recording.trials(smooth(recording.data.recording, 2))
    return {"rates_r2": recording.score(recording.network(dff, SquaredLoss()))}


def network_of_spikes(recording):
    """Bound: the network on the true spikes, which no indicator shows."""
    return {"rates_r2": recording.score(recording.network(recording.spikes, "poisson"))}


WAYS = {
    "smoothing of dF/F": lambda recording: recording.best_smoothing(recording.data.recording),
    "OASIS AR(1), smoothing": smoothed_oasis(1),
    "OASIS AR(2), smoothing": smoothed_oasis(2),
    "STNDT gaussian on dF/F": network_of_dff,
    "STNDT gaussian on dF/F, deconvolved": deconvolved_network_of_dff,
    "STNDT squared loss on smoothed dF/F": squared_loss_of_smoothed_dff,
    **{
        f"OASIS AR({order}), STNDT {likelihood}": network_of_oasis(order, likelihood)
        for order in (1, 2)
        for likelihood in ("zero_inflated_gamma", "poisson", "gaussian")
    },
    "STNDT poisson on the true spikes": network_of_spikes,
}


def measure(way, recording):
    """Rates by one way, their score, and the seconds that this takes."""
    begin = time.perf_counter()
    cell = WAYS[way](recording)
    return cell | {"seconds": time.perf_counter() - begin}


def main():
    """Measure what is missing, and print the table."""
    parser = new_parser(__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY")
    parser.add_argument("--results", type=Path, default=Path("calcium.jsonl"), metavar="FILE")
    options = parser.parse_args()
    cells = Cells(options.results)
    with threadpool_limits(1):
        for seed in options.seeds:
            recording = Recording(seed, options.results)
            for way in options.ways:
                cells.measured(f"{way} | {seed}", measure, way, recording)
    print(f"{'R2 of rates':42}" + "".join(f"{f'seed {s}':>8}" for s in options.seeds) + "    mean")
    for way in options.ways:
        scores = [cells[f"{way} | {seed}"]["rates_r2"] for seed in options.seeds]
        print(f"{way:42}" + "".join(f"{r:8.3f}" for r in [*scores, np.mean(scores)]))


if __name__ == "__main__":
    main()
