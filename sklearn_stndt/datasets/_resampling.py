"""Bring behaviour onto the grid of bins."""

import math
import warnings
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.signal import decimate

from sklearn_stndt.datasets._intervals import CLOCK, times_within

_MAX_GAP = 5  # sample intervals
_N_TAPS = 500  # order of the anti-aliasing filter, 0.5 s at 1,000 Hz


@dataclass
class Signal:
    """A time series, usually behaviour."""

    times: NDArray[np.float64]  # (n_samples,), s, finite and sorted
    values: NDArray  # (n_samples, n_channels), as stored
    rate: float | None  # Hz; None if irregular
    conversion: float = 1.0
    offset: float = 0.0

    @classmethod
    def from_samples(
        cls,
        times: NDArray[np.float64],
        values: NDArray,
        name: str,
        conversion: float = 1.0,
        offset: float = 0.0,
    ) -> "Signal":
        """Make a signal from timestamps as stored; warnings and errors contain `name`."""
        if len(times) != len(values):
            raise ValueError(
                f"{name} has {len(times)} timestamps for {len(values)} samples. Correct the file, "
                "or leave the series out with behavior=[...]."
            )
        known = np.isfinite(times)
        if not known.all():
            times, values = times[known], values[known]
        times, values = _in_order(times, values, name)
        return cls(times, values, _regular_rate(times), conversion, offset)

    def without(self, intervals: NDArray[np.float64]) -> "Signal":
        """Return the signal without its samples in disjoint, ordered intervals (s)."""
        if not len(intervals):
            return self
        kept = ~times_within(self.times, intervals)
        return replace(self, times=self.times[kept], values=self.values[kept])

    def in_bins(
        self, opens: NDArray, closes: NDArray, max_gap: float | None = None
    ) -> NDArray[np.float64]:
        """Mean over each bin of the linear interpolation, (n_bins, n_channels), NaN in gaps.

        Values are in the unit declared in the file.

        Parameters
        ----------
        opens, closes : ndarray of shape (n_bins,)
            Start and end of each bin in ascending order, in seconds.

        max_gap : float, default=None
            Longest time between two samples that is interpolated, in seconds. None: five times
            the median sample interval. Gaps shorter than a bin are always interpolated.
        """
        out = np.full((len(opens), self.values.shape[1]), np.nan)
        for channel, values in enumerate(self.values.T):
            known = np.isfinite(values)
            out[:, channel] = _mean_in_bins(
                self.times[known], values[known], opens, closes, max_gap
            )
        return out * self.conversion + self.offset

    def in_bins_of_benchmark(
        self, bin_width: float, n_bins: int, end: float
    ) -> NDArray[np.float64]:
        """Value at the start of each bin from 0 to `end` (s), (n_bins, n_channels), as stored.

        As in the Neural Latents Benchmark, a regular series with a whole number of samples per
        bin is decimated. Other series are averaged as by `in_bins`.
        """
        factor = 0 if self.rate is None else round(self.rate * bin_width)  # samples per bin
        if self.rate is not None and factor and abs(self.rate * bin_width - factor) < 1e-6:
            place = self.times * self.rate
            if np.abs(place - np.rint(place)).max() < CLOCK * self.rate:
                n_samples = min(round(end * self.rate), n_bins * factor)
                values = self._decimated(np.rint(place).astype(np.intp), factor, n_samples)
                rest = np.full((n_bins - len(values), values.shape[1]), np.nan)
                return np.concatenate([values, rest])
        edges = np.arange(n_bins + 1) * bin_width
        stored = replace(self, conversion=1.0, offset=0.0)
        return stored.in_bins(edges[:-1], edges[1:])

    def _decimated(self, place: NDArray, factor: int, n_samples: int) -> NDArray[np.float64]:
        """Value at the start of each bin, after a zero-phase anti-aliasing filter."""
        inside = (place >= 0) & (place < n_samples)
        full = np.full((n_samples, self.values.shape[1]), np.nan)
        full[place[inside]] = self.values[inside]
        missing = np.isnan(full)
        unknown = missing[::factor]
        for channel, gaps in zip(full.T, missing.T, strict=True):
            if gaps.any() and not gaps.all():
                known = np.flatnonzero(~gaps)
                channel[gaps] = np.interp(np.flatnonzero(gaps), known, channel[known])
        if factor > 1:
            # padded with the edge values, or the filter would pull both ends towards 0
            n_more = math.ceil(_N_TAPS / 2 / factor)  # bins
            more = ((n_more * factor, n_more * factor), (0, 0))
            full = decimate(
                np.pad(full, more, mode="edge"), factor, n=_N_TAPS, ftype="fir", axis=0
            )[n_more : n_more + len(unknown)]
        return np.where(unknown, np.nan, full)


def _in_order(
    times: NDArray[np.float64], values: NDArray, name: str
) -> tuple[NDArray[np.float64], NDArray]:
    """Sort the samples by time, without those of a time that the clock passed twice."""
    steps = np.diff(times)
    back = np.flatnonzero(steps < 0)
    if not back.size:
        return times, values
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    twice = np.zeros(len(times), dtype=bool)
    if back.size <= 0.1 * len(times):  # long pieces, each with its own sample interval
        interval = np.median(steps[steps > 0])
        for at in back:
            low = np.searchsorted(ordered, times[at + 1], side="left")
            high = np.searchsorted(ordered, times[at], side="right")
            # one clock has one sample per interval, also if pieces were stored in wrong order
            if high - low > 1.5 * (times[at] - times[at + 1]) / interval + 2:
                twice[low:high] = True
    message = f"{name}: timestamps go back {back.size} times; samples are sorted by time."
    if twice.any():
        message += (
            f" {np.count_nonzero(twice)} samples are left out, because the clock passed their "
            "time twice, as after a restart."
        )
    warnings.warn(message, UserWarning, stacklevel=2)
    return ordered[~twice], values[order[~twice]]


def _regular_rate(times: NDArray[np.float64]) -> float | None:
    """Return the sampling rate in Hz, or None if samples do not lie on a regular grid."""
    if len(times) < 2:
        return None
    step = float(np.median(np.diff(times)))
    if step <= 0:
        return None
    rate = round(1 / step, 3)
    place = (times - times[0]) * rate  # gaps are allowed, drift is not
    return rate if rate > 0 and np.abs(place - np.rint(place)).max() < CLOCK * rate else None


def _mean_in_bins(
    times: NDArray[np.float64],
    values: NDArray,
    opens: NDArray,
    closes: NDArray,
    max_gap: float | None,
) -> NDArray[np.float64]:
    """Mean of the linear interpolation of finite samples over each bin, NaN in gaps.

    A bin is known if its centre lies between two samples that are close enough, or within half a
    sample interval of one. Near a gap, the mean is taken over the widest range around the centre
    that has samples, so that it remains an estimate for the centre.
    """
    out = np.full(len(opens), np.nan)
    if not len(times) or not len(opens):
        return out
    width = float(closes[0] - opens[0])
    steps = np.diff(times)
    interval = float(np.median(steps[steps > 0])) if (steps > 0).any() else width
    limit = max(_MAX_GAP * interval if max_gap is None else max_gap, width) + CLOCK
    gaps = np.flatnonzero(steps > limit)  # (n_runs - 1,)
    starts = times[np.append(0, gaps + 1)]  # (n_runs,) of samples without a gap
    stops = times[np.append(gaps, len(times) - 1)]

    centres = (opens + closes) / 2
    run = np.searchsorted(starts, centres, side="right") - 1  # -1 before the first sample
    earlier, later = np.append(-np.inf, stops)[run + 1], np.append(starts, np.inf)[run + 1]
    inside = centres <= earlier
    after = ~inside & (centres - earlier <= interval / 2 + CLOCK)
    before = ~inside & ~after & (later - centres <= interval / 2 + CLOCK)
    known = np.flatnonzero(inside | after | before)
    if not known.size:
        return out
    middle = np.where(inside, centres, np.where(after, earlier, later))[known]
    half = np.minimum(middle - starts[np.maximum(run[known], 0)], earlier[known] - middle)
    half = np.where(inside[known], half, 0.0)
    whole = half >= width / 2 - CLOCK
    lows = np.where(whole, opens[known], middle - half)
    highs = np.where(whole, closes[known], middle + half)

    # Samples and edges of bins in one sequence, and the area under each piece of the line.
    edges = np.maximum.accumulate(np.column_stack([lows, highs]).ravel())  # (2 * n_known,)
    place = np.searchsorted(times, edges) + np.arange(len(edges))
    is_sample = np.ones(len(times) + len(edges), dtype=bool)
    is_sample[place] = False
    line = np.empty((2, len(is_sample)))  # times and values
    line[:, place] = edges, np.interp(edges, times, values)
    line[:, is_sample] = times, values
    area = np.append(np.diff(line[0]) * (line[1, 1:] + line[1, :-1]) / 2, 0.0)
    area = np.add.reduceat(area, place)[::2]
    spans = edges[1::2] - edges[::2]
    wide = spans > CLOCK
    out[known] = np.where(wide, area / np.where(wide, spans, 1.0), line[1, place[::2]])
    return out
