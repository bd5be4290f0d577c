"""Bin a recording: spikes, trials and behaviour."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import decimate

from sklearn_stndt.datasets.binning import count_trials

# Timestamps in files are rounded to microseconds.
_CLOCK = 1e-6  # s
_N_TAPS = 500  # order of the anti-aliasing filter, 0.5 s at 1,000 Hz


@dataclass
class Signal:
    """A time series, usually behaviour."""

    times: NDArray[np.float64]  # (n_samples,), s
    values: NDArray  # (n_samples, n_channels), as stored
    rate: float | None  # Hz; None if irregular
    conversion: float = 1.0
    offset: float = 0.0

    def scaled(self) -> "Signal":
        """Return the signal in the unit declared in the file."""
        values = self.values * self.conversion + self.offset
        return Signal(self.times, values, self.rate)

    def in_bins(self, bin_width: float, n_bins: int, end: float) -> NDArray[np.float64]:
        """Value of each bin from 0 to `end` (s), (n_bins, n_channels), NaN where unknown."""
        if self.rate is None:
            return self._averaged(bin_width, n_bins)
        factor = self.rate * bin_width  # samples per bin
        if abs(factor - round(factor)) < 1e-6 and round(factor) >= 1:
            place = self.times * self.rate
            if np.abs(place - np.rint(place)).max() < _CLOCK * self.rate:
                n_samples = min(round(end * self.rate), n_bins * round(factor))
                values = self._decimated(np.rint(place).astype(np.intp), round(factor), n_samples)
                rest = np.full((n_bins - len(values), values.shape[1]), np.nan)
                return np.concatenate([values, rest])
        if factor < 1:
            return self._interpolated((np.arange(n_bins) + 0.5) * bin_width)
        return self._averaged(bin_width, n_bins)

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

    def _averaged(self, bin_width: float, n_bins: int) -> NDArray[np.float64]:
        """Mean of the samples in each bin, NaN without samples."""
        bins = np.floor(self.times / bin_width + _CLOCK).astype(np.intp)
        inside = (bins >= 0) & (bins < n_bins)
        bins, values = bins[inside], self.values[inside]
        out = np.full((n_bins, values.shape[1]), np.nan)
        for channel in range(values.shape[1]):
            known = ~np.isnan(values[:, channel])
            n = np.bincount(bins[known], minlength=n_bins)
            total = np.bincount(bins[known], values[known, channel], minlength=n_bins)
            out[n > 0, channel] = total[n > 0] / n[n > 0]
        return out

    def _interpolated(self, centres: NDArray) -> NDArray[np.float64]:
        """Value at the centre of each bin, by linear interpolation."""
        return np.column_stack(
            [
                np.interp(centres, self.times, channel, left=np.nan, right=np.nan)
                for channel in self.values.T.astype(np.float64)
            ]
        )


@dataclass
class Recording:
    """Spikes, trials and signals of a file."""

    name: str
    spike_times: list[NDArray[np.float64]]
    unit_ids: NDArray
    heldout: NDArray[np.bool_]
    observed: list[NDArray] | None  # per unit, (n_intervals, 2), s
    trials: Any  # DataFrame, or None
    signals: dict[str, Signal]

    @property
    def end(self) -> float:
        """End of the last observed interval in seconds, or else of the last data."""
        times = [train[-1] for train in self.spike_times if train.size]
        observed = [float(intervals.max()) for intervals in self.observed or [] if intervals.size]
        if observed:
            return max(observed)
        if self.trials is not None:
            times.append(self.trials["stop_time"].max())
        times += [signal.times[-1] for signal in self.signals.values()]
        return float(max(times, default=0.0))

    def event_times(self, column: str) -> NDArray[np.float64]:
        """Times in a column of the trials table, in seconds, NaN where missing."""
        if self.trials is None:
            raise ValueError(
                f"{self.name} has no trials table. Pass trials=False for the whole recording, or "
                "bin its spike times around your own events with align_to_events."
            )
        if column not in self.trials.columns:
            raise ValueError(
                f"{self.name}: the trials table has no column {column!r}, only "
                f"{list(self.trials.columns)}. Align to one of them."
            )
        try:
            return self.trials[column].to_numpy(dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{self.name}: trials/{column} holds no times ({error}). Align to another column."
            ) from error

    def first_bins(self, times: NDArray, bin_width: float) -> NDArray[np.intp]:
        """First bin of the recording that starts at or after each time (s)."""
        return np.ceil(times / bin_width - _CLOCK).astype(np.intp)

    def counts(
        self,
        first: NDArray[np.intp],
        n_bins: NDArray[np.intp],
        bin_width: float,
        *,
        whole: bool = True,
    ) -> NDArray[np.float32]:
        """Spike counts of trials, (n_trials, n_bins, n_units), NaN where not observed.

        With `whole`, a bin counts as observed if all of it was observed; otherwise, if its first
        millisecond was.
        """
        counts = count_trials(self.spike_times, first * bin_width, n_bins, bin_width, np.float32)
        bins = first[:, None] + np.arange(n_bins.max())  # (trials, bins)
        counts[np.arange(n_bins.max()) >= n_bins[:, None]] = np.nan
        if self.observed is None:
            counts[(bins < 0) | (bins >= np.floor(self.end / bin_width) + 1)] = np.nan
            return counts
        cache: dict[bytes, NDArray] = {}  # units usually share the same intervals
        for unit, intervals in enumerate(self.observed):
            key = intervals.tobytes()
            if key not in cache:
                cache[key] = ~_is_observed(bins, intervals, bin_width, whole)
            counts[cache[key], unit] = np.nan
        return counts

    def behavior(
        self, name: str, first: NDArray[np.intp], n_bins: NDArray[np.intp], bin_width: float
    ) -> NDArray[np.float64]:
        """Signal in the bins of trials, (n_trials, n_bins, n_channels), NaN where unknown."""
        n_all = int(np.floor(self.end / bin_width + _CLOCK)) + 1
        values = self.signals[name].in_bins(bin_width, n_all, self.end)
        bins = first[:, None] + np.arange(n_bins.max())  # (trials, bins)
        known = (bins >= 0) & (bins < n_all) & (np.arange(n_bins.max()) < n_bins[:, None])
        return np.where(known[..., None], values[np.clip(bins, 0, n_all - 1)], np.nan)


def _is_observed(
    bins: NDArray[np.intp], intervals: NDArray, bin_width: float, whole: bool
) -> NDArray[np.bool_]:
    """Whether each bin lies within one of the intervals (s)."""
    if not intervals.size:
        return np.zeros(bins.shape, dtype=bool)
    starts, stops = intervals[np.argsort(intervals[:, 0])].T  # (n_intervals,)
    opens = bins * bin_width
    closes = opens + (bin_width if whole else 0.001)
    at = np.searchsorted(starts, opens + _CLOCK, side="right") - 1  # last one that has started
    return (at >= 0) & (closes <= stops[np.maximum(at, 0)] + _CLOCK)
