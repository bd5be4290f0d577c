"""Bin a recording: spikes, trials and behaviour."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_stndt.datasets._intervals import (
    CLOCK,
    bins_within,
    subtract_intervals,
)
from sklearn_stndt.datasets._resampling import Signal
from sklearn_stndt.datasets._times import LONGEST
from sklearn_stndt.datasets.binning import count_trials

_UNITS_AT_ONCE = 64


@dataclass
class Recording:
    """Spikes, trials and signals of a file."""

    name: str
    spike_times: list[NDArray[np.float64]]
    unit_ids: NDArray
    heldout: NDArray[np.bool_]
    observed: list[NDArray] | None  # per unit, (n_intervals, 2), s, in order and disjoint
    trials: Any  # DataFrame, or None
    signals: dict[str, Signal]
    invalid: NDArray = field(default_factory=lambda: np.empty((0, 2)))  # as of one unit

    @property
    def end(self) -> float:
        """End of the last observed interval in seconds, or of the last data if it is open."""
        return self._last()[0]

    def check_end(self) -> None:
        """Raise an error if the recording, which starts at 0, lasts more than a week."""
        end, what = self._last()
        if end > LONGEST:
            raise ValueError(
                f"{self.name}: the recording would last from 0 to {end:g} s, the end of {what}, "
                "which is more than a week. Correct the file if that time is wrong, or not in "
                "seconds. Otherwise load only the trials: load_nwb(..., trials=True)."
            )

    def _last(self) -> tuple[float, str]:
        """Return the end in seconds, and what ends then."""
        ends = [
            (float(train[-1]), f"the spikes of the unit with id {self.unit_ids[row]}")
            for row, train in enumerate(self.spike_times)
            if train.size
        ]
        observed = [
            (float(intervals.max()), f"obs_intervals of the unit with id {self.unit_ids[row]}")
            for row, intervals in enumerate(self.observed or [])
            if intervals.size
        ]
        if observed and all(np.isfinite(end) for end, _ in observed):
            return max(observed)
        ends += observed
        if self.trials is not None and "stop_time" in self.trials.columns:
            stops = self.trials["stop_time"]
            if stops.dtype.kind in "iuf":
                ends += [(float(stop), f"trial {row}") for row, stop in enumerate(stops)]
        ends += [
            (float(signal.times[-1]), f"the time series {name!r}")
            for name, signal in self.signals.items()
            if signal.times.size
        ]
        return max(((end, what) for end, what in ends if np.isfinite(end)), default=(0.0, "it"))

    def intervals_of(self, unit: int) -> NDArray[np.float64]:
        """Return when a unit was observed in valid times, (n_intervals, 2), s, in order."""
        whole = np.array([[0.0, np.inf]])
        observed = whole if self.observed is None else self.observed[unit]
        return subtract_intervals(observed, self.invalid)

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
        values = self.trials[column]
        try:
            if values.dtype.kind in "bc":
                raise TypeError(f"they are {values.dtype}")
            return values.to_numpy(dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{self.name}: trials/{column} holds no times ({error}). Align to another column."
            ) from error

    def first_bins(self, times: NDArray, bin_width: float) -> NDArray[np.intp]:
        """First bin of the recording that starts at or after each time (s)."""
        place = np.ceil(times / bin_width - CLOCK)
        if place.size and np.abs(place).max() > 2**53:
            raise ValueError(
                f"{self.name}: a time of {times[np.abs(times).argmax()]:g} s does not fit on a "
                f"grid of bins of {bin_width:g} s. Correct the file if that time is wrong, or not "
                "in seconds; or use wider bins."
            )
        return place.astype(np.intp)

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
        wanted, place = np.unique(bins.ravel(), return_inverse=True)  # trials may overlap
        after = wanted >= np.floor(self.end / bin_width) + 1
        length = bin_width if whole else 0.001
        rows = counts.reshape(len(place), -1)  # (n_trials * n_bins, n_units), a view
        last, known = None, after
        # Units are adjacent in memory, the bins of a unit are not.
        for begin in range(0, rows.shape[1], _UNITS_AT_ONCE):
            some = rows[:, begin : begin + _UNITS_AT_ONCE]
            unknown = np.empty(some.shape, dtype=bool)
            for column in range(some.shape[1]):
                intervals = self.intervals_of(begin + column)
                if last is None or not np.array_equal(intervals, last):  # often all units share
                    known = bins_within(wanted, bin_width, length, intervals) & ~after
                    last, known = intervals, known[place]
                np.logical_not(known, out=unknown[:, column])
            np.copyto(some, np.nan, where=unknown)
        return counts

    def behavior(
        self,
        name: str,
        first: NDArray[np.intp],
        n_bins: NDArray[np.intp],
        bin_width: float,
        *,
        lag: float = 0.0,
        max_gap: float | None = None,
        as_benchmark: bool = False,
    ) -> NDArray[np.float64]:
        """Signal in the bins of trials, (n_trials, n_bins, n_channels), NaN where unknown.

        Behaviour is taken `lag` (s) later than the bins. See `Signal.in_bins` for `max_gap`, and
        `Signal.in_bins_of_benchmark` for `as_benchmark`.
        """
        signal = self.signals[name].without(self.invalid)
        bins = first[:, None] + np.arange(n_bins.max())  # (trials, bins)
        inside = np.arange(n_bins.max()) < n_bins[:, None]
        out = np.full((*bins.shape, signal.values.shape[1]), np.nan)
        if as_benchmark:
            n_all = int(np.floor(self.end / bin_width + CLOCK)) + 1
            values = signal.in_bins_of_benchmark(bin_width, n_all, self.end)
            inside &= (bins >= 0) & (bins < n_all)
            out[inside] = values[bins[inside]]
            return out
        wanted, place = np.unique(bins[inside], return_inverse=True)  # trials may overlap
        values = signal.in_bins(wanted * bin_width + lag, (wanted + 1) * bin_width + lag, max_gap)
        valid = subtract_intervals(np.array([[-np.inf, np.inf]]), self.invalid) - lag
        values[~bins_within(wanted, bin_width, bin_width, valid)] = np.nan
        out[inside] = values[place]
        return out
