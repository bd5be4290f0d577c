"""Arrays of the Neural Latents Benchmark from its NWB files."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import convolve
from scipy.signal.windows import gaussian

from sklearn_stndt.datasets._nlb_sets import SETS, NLBSet
from sklearn_stndt.datasets._nwb_reading import read_recording
from sklearn_stndt.datasets._recording import Recording

_DMFC_BEHAVIOR = ("is_eye", "theta", "is_short", "ts", "tp")
_CLOCK = 1e-6


def tensors_from_nwb(
    paths: Sequence[str | os.PathLike], name: str, bin_ms: int, *, follow_links: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the inputs and the target of a data set, as in its h5 files.

    If there are trials of the split "test", these are evaluated and the splits "train" and "val"
    are for training. Otherwise "val" is evaluated and "train" is for training.
    """
    spec = SETS[name]
    behavior = [] if spec.behavior is None else [spec.behavior]
    parts: list[_Split] = []
    for path in paths:
        recording = _read(path, behavior, follow_links)
        parts += [_Split(recording, spec, split, bin_ms) for split in _splits(recording)]
    found = {part.split for part in parts}
    evaluated = "test" if "test" in found else "val"
    train = [part for part in parts if part.split in ("train", "val") and part.split != evaluated]
    test = [part for part in parts if part.split == evaluated]
    if not train or not test:
        raise ValueError(
            f"{', '.join(map(str, paths))}: the splits in trials/split are {sorted(found)}; "
            'training needs "train", and evaluation needs "val" or "test". Pass the files of both.'
        )
    inputs: dict[str, Any] = {}
    _Tensors(train, spec, bin_ms).write(inputs, "train")
    of_test = _Tensors(test, spec, bin_ms)
    of_test.write(inputs, "eval")
    target: dict[str, Any] = {}
    if of_test.knows_heldout:
        for key in ("heldout", "heldin_forward", "heldout_forward"):
            target[f"eval_spikes_{key}"] = inputs[f"eval_spikes_{key}"]
        if name == "dmfc_rsg":
            target["eval_spikes_heldout"] = of_test.between_set_and_go()
        for prefix in ("train", "eval"):
            for key in ("behavior", "decode_mask"):
                if f"{prefix}_{key}" in inputs:
                    target[f"{prefix}_{key}"] = inputs[f"{prefix}_{key}"]
        if spec.conditions:
            target |= _psths(train, test, spec, bin_ms)
    for key in ("eval_spikes_heldin_forward", "eval_spikes_heldout_forward"):
        inputs.pop(key)  # hidden from models
    if evaluated == "test" or name == "dmfc_rsg":
        inputs.pop("eval_spikes_heldout", None)
    return inputs, target


def _read(path: str | os.PathLike, behavior: list[str], follow_links: bool) -> Recording:
    try:
        recording = read_recording(path, behavior, follow_links=follow_links)
    except ValueError as error:
        if not behavior or "has no time series" not in str(error):
            raise
        # files of test trials contain no behaviour
        recording = read_recording(path, [], follow_links=follow_links)
    recording.check_end()
    return recording


def _splits(recording: Recording) -> list[str]:
    if recording.trials is None or "split" not in recording.trials.columns:
        raise ValueError(
            f"{recording.name}: the trials table has no column 'split', which marks training "
            "trials in the benchmark's files. Load files of other origin with load_nwb."
        )
    known = ("train", "val", "test")
    return [split for split in known if (recording.trials["split"] == split).any()]


class _Split:
    """The trials of one split in one file."""

    def __init__(self, recording: Recording, spec: NLBSet, split: str, bin_ms: int) -> None:
        self.recording = recording
        self.split = split
        events = recording.event_times(spec.align)
        self.rows = np.flatnonzero((recording.trials["split"] == split) & np.isfinite(events))
        self.table = recording.trials.iloc[self.rows]
        self.events = events[self.rows]  # s
        self.jitter = np.zeros(len(self.rows), dtype=np.intp)  # bins
        self.bin_width = bin_ms / 1000


class _Tensors:
    """Arrays of the training trials or of the evaluation trials, from one or more files."""

    def __init__(self, splits: list[_Split], spec: NLBSet, bin_ms: int) -> None:
        self.splits = splits
        self.spec = spec
        self.bin_width = bin_ms / 1000
        self.n_bins = (spec.window[1] - spec.window[0]) // bin_ms
        self.n_forward = spec.forward // bin_ms
        if spec.behavior is None:
            _draw_jitter(splits, bin_ms)
        self.knows_heldout = all(split.recording.heldout.any() for split in splits)

    def write(self, inputs: dict[str, Any], prefix: str) -> None:
        """Add the arrays to `inputs`, under keys that start with `prefix`."""
        spikes, heldout = [], []
        for split in self.splits:
            spikes.append(self._counts(split, self._first(split), self.n_bins + self.n_forward))
            heldout.append(split.recording.heldout)
        if any(not np.array_equal(flags, heldout[0]) for flags in heldout):
            raise ValueError(
                f"{self.splits[0].recording.name} and {self.splits[-1].recording.name} have "
                "different units. Pass files of one session."
            )
        counts = np.concatenate(spikes)
        for where, bins in (("", slice(self.n_bins)), ("_forward", slice(self.n_bins, None))):
            inputs[f"{prefix}_spikes_heldin{where}"] = counts[:, bins, ~heldout[0]]
            if heldout[0].any() or where:
                inputs[f"{prefix}_spikes_heldout{where}"] = counts[:, bins, heldout[0]]
        behavior = self._behavior()
        if behavior is not None:
            inputs[f"{prefix}_behavior"] = behavior
        if self.spec.decoders is not None:
            flags = np.concatenate([split.table[self.spec.decoders] for split in self.splits])
            inputs[f"{prefix}_decode_mask"] = np.column_stack([flags == 0, flags == 1])

    def between_set_and_go(self) -> NDArray[np.float32]:
        """Held-out counts, (n_trials, n_bins, n_heldout), NaN before set and after go."""
        counts = []
        for split in self.splits:
            first = self._first(split)
            recording = split.recording
            spikes = self._counts(split, first, self.n_bins)[..., recording.heldout]
            bins = first[:, None] + np.arange(self.n_bins)
            start, stop = (
                recording.first_bins(recording.event_times(name)[split.rows], self.bin_width)
                for name in ("set_time", "go_time")
            )
            spikes[(bins < start[:, None]) | (bins >= stop[:, None])] = np.nan
            counts.append(spikes)
        return np.concatenate(counts)

    def _first(self, split: _Split, lag: float = 0.0) -> NDArray[np.intp]:
        begin = split.events + self.spec.window[0] / 1000 + lag
        return split.recording.first_bins(begin, self.bin_width) + split.jitter

    def _counts(self, split: _Split, first: NDArray, n_bins: int) -> NDArray[np.float32]:
        lengths = np.full(len(first), n_bins)
        return split.recording.counts(first, lengths, self.bin_width, whole=False)

    def _behavior(self) -> NDArray | None:
        if self.spec.behavior is None:
            tables = []
            for split in self.splits:
                values = split.table[list(_DMFC_BEHAVIOR)].to_numpy(dtype=np.float64, copy=True)
                values[(split.table["is_outlier"] != 0).to_numpy()] = np.nan
                tables.append(values)
            return np.concatenate(tables)
        series = []
        for split in self.splits:
            if self.spec.behavior not in split.recording.signals:
                return None
            first = self._first(split, self.spec.lag / 1000)
            lengths = np.full(len(first), self.n_bins)
            series.append(
                split.recording.behavior(
                    self.spec.behavior, first, lengths, self.bin_width, as_benchmark=True
                )
            )
        return np.concatenate(series)


def _draw_jitter(splits: list[_Split], bin_ms: int) -> None:
    """Shift trials of DMFC_RSG relative to go by up to 300 ms, drawn as in the benchmark."""
    random = np.random.RandomState(0)
    for split in splits:
        if split.split == "test":
            longest = np.zeros(len(split.rows))
        else:
            produced = split.table["tp"].to_numpy(dtype=np.float64)  # ms
            longest = np.floor((np.clip(1500.0 - produced, 0, 300) / bin_ms).round(4))
        drawn = random.random_sample(len(longest)) * longest
        if np.isnan(drawn).any():
            raise ValueError(
                f"{split.recording.name}: trials/tp is NaN in trials with a go_time. Each of these "
                "trials needs a tp."
            )
        split.jitter = drawn.round().astype(np.intp)


def _psths(train: list[_Split], test: list[_Split], spec: NLBSet, bin_ms: int) -> dict[str, Any]:
    """Smoothed mean counts of each condition over training and evaluation trials."""
    recordings = {split.recording.name: split.recording for split in train + test}
    if len(recordings) != 1:
        return {}
    (recording,) = recordings.values()
    table = recording.trials
    rows = np.sort(np.concatenate([split.rows for split in train + test]))
    used = table.iloc[rows]
    if "is_outlier" in table.columns and spec.behavior is None:
        used = used[used["is_outlier"] != 1]
    smooth = _smoothed_counts(recording, spec.kernel, bin_ms)  # (all bins, neurons)
    width = bin_ms / 1000
    n_bins = (spec.window[1] - spec.window[0]) // bin_ms
    psths: list[NDArray] = []
    of_train: list[NDArray] = []
    of_test: list[NDArray] = []
    for _, members in used.dropna(subset=list(spec.conditions)).groupby(list(spec.conditions)):
        trials = members.index.to_numpy()
        events = recording.event_times(spec.align)[trials]
        stop = recording.first_bins(events, width)  # bin of the event
        if spec.behavior is None:  # from set to go, without trials much shorter than the mean
            first = recording.first_bins(recording.event_times("set_time")[trials], width)
            long = (stop - first) >= 0.8 * (stop - first).mean()
            trials, first, stop = trials[long], first[long], stop[long]
            lengths = stop - first
        else:
            first = recording.first_bins(events + spec.window[0] / 1000, width)
            lengths = np.full(len(trials), n_bins)
        psth = np.full((n_bins, smooth.shape[1]), np.nan)
        mean = _mean_course(smooth, first, lengths, first - stop)
        length = int(min(lengths.min(), n_bins))
        if spec.behavior is None:
            psth[n_bins - length :] = mean[len(mean) - length :]
        else:
            psth[:length] = mean[:length]
        psths.append(psth)
        for part, found in ((train, of_train), (test, of_test)):
            order = np.concatenate([split.rows for split in part])
            found.append(np.flatnonzero(np.isin(order, trials)))
    target = {"psth": np.stack(psths), "train_cond_idx": of_train, "eval_cond_idx": of_test}
    if spec.behavior is None:
        for prefix, part in (("train", train), ("eval", test)):
            target[f"{prefix}_jitter"] = np.concatenate([split.jitter for split in part])
    return target


def _mean_course(
    smooth: NDArray, first: NDArray, lengths: NDArray, relative: NDArray
) -> NDArray[np.float64]:
    """Mean over trials in each bin relative to the event, NaN where no trial has data.

    If the window does not start a whole number of bins from the event, some trials start one bin
    later than others, and the mean is longer than each trial.
    """
    n_bins = int((relative + lengths).max() - relative.min())
    total, n_known = np.zeros((2, n_bins, smooth.shape[1]))
    for begin, length, offset in zip(first, lengths, relative - relative.min(), strict=True):
        skipped = max(0, -begin)  # before the recording
        course = smooth[begin + skipped : begin + length]
        place = slice(offset + skipped, offset + skipped + len(course))
        total[place] += np.nan_to_num(course)
        n_known[place] += ~np.isnan(course)
    return np.where(n_known > 0, total / np.maximum(n_known, 1), np.nan)


def _smoothed_counts(recording: Recording, kernel: int, bin_ms: int) -> NDArray[np.float64]:
    """Counts per bin, smoothed at 1 ms; held-in neurons first, NaN where not observed."""
    n_ms = round(1000 * recording.end)
    window = gaussian(6 * kernel, kernel, sym=True)
    window /= window.sum()
    order = np.concatenate([np.flatnonzero(~recording.heldout), np.flatnonzero(recording.heldout)])
    opens = np.arange(0, n_ms, bin_ms)
    out = np.empty((len(opens), len(order)))
    for column, unit in enumerate(order):
        ms = np.floor(1000 * recording.spike_times[unit] + _CLOCK).astype(np.intp)
        counts = np.bincount(ms[ms < n_ms], minlength=n_ms).astype(np.float64)
        smooth = np.zeros(n_ms)
        unknown = np.ones(n_ms, dtype=bool)
        intervals = np.minimum(recording.intervals_of(unit), n_ms / 1000)
        for start, stop in intervals:
            inside = slice(int(np.ceil(1000 * start - _CLOCK)), int(np.floor(1000 * stop + _CLOCK)))
            unknown[inside] = False
        for inside in _runs(~unknown):
            smooth[inside] = np.maximum(convolve(counts[inside], window, "same"), 0)
        out[:, column] = np.add.reduceat(smooth, opens)
        out[unknown[opens], column] = np.nan
    return out


def _runs(mask: NDArray[np.bool_]) -> list[slice]:
    """Slices of consecutive True entries in a mask."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return [slice(start, stop) for start, stop in edges.reshape(-1, 2)]
