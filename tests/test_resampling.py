"""Behaviour on the grid of bins, whatever its clock."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_stndt.datasets import load_nwb
from sklearn_stndt.datasets._resampling import Signal

pynwb = pytest.importorskip("pynwb")
RNG = np.random.default_rng(0)
FRAME = np.arange(1200) / 30  # s


@pytest.fixture
def binned(tmp_path):
    """Write sin(t), sampled at `times`, and return it in bins; spikes last 40 s."""

    def load(times=None, data=None, *, bin_width=0.02, rate=None, invalid=(), **params):
        file = pynwb.NWBFile("a session", "an id", datetime(2026, 1, 1, tzinfo=UTC))
        file.add_unit(spike_times=np.linspace(0.001, 39.999, 500))
        clock = {"rate": rate, "starting_time": 0.0} if times is None else {"timestamps": times}
        data = np.sin(times) if data is None else data
        file.add_acquisition(pynwb.TimeSeries(name="pos", data=data, unit="cm", **clock))
        for start, stop in invalid:
            file.add_invalid_time_interval(start_time=float(start), stop_time=float(stop))
        path = tmp_path / "session.nwb"
        with pynwb.NWBHDF5IO(path, "w") as io:
            io.write(file)
        params = {"trials": False} | params
        loaded = load_nwb(path, bin_width=bin_width, **params)
        return loaded.time + bin_width / 2, loaded.behavior["pos"][..., 0]

    return load


def with_nan(times):
    times = times.copy()
    times[500] = np.nan
    return times


CLOCKS = {
    "regular": FRAME,
    "jitter": FRAME + RNG.uniform(-1e-5, 1e-5, 1200) + 1e-5,
    "30000/1001 Hz": np.arange(1199) * 1001 / 30_000,
    "a NaN": with_nan(FRAME),
    "a jump": FRAME + 0.012 * (FRAME > 15),
    "an infinite time": np.append(FRAME[:-1], np.inf),
    "a drift": FRAME * (1 + 2e-5),
    "a low resolution": FRAME.round(2),
}


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("bin_width", [0.005, 0.02, 0.05])
def test_behavior_slower_than_the_bins_is_interpolated(binned, clock, bin_width):
    times = CLOCKS[clock]
    centres, values = binned(times, np.sin(np.nan_to_num(times, posinf=0)), bin_width=bin_width)
    inside = centres < 39.9
    assert not np.isnan(values[inside]).any()
    np.testing.assert_allclose(values[inside], np.sin(centres[inside]), atol=1e-3)


@pytest.mark.parametrize("bin_width", [0.005, 0.02])
@pytest.mark.parametrize("rate", [100, 200, 130, 1000])
def test_values_do_not_depend_on_whether_a_series_is_regular(binned, bin_width, rate):
    times = np.arange(40 * rate) / rate
    jitter = RNG.uniform(0, 0.2 / rate, len(times))
    _, regular = binned(times, bin_width=bin_width)
    _, irregular = binned(times + jitter, bin_width=bin_width)
    _, by_rate = binned(None, np.sin(times), rate=float(rate), bin_width=bin_width)
    assert not np.isnan(regular[:-1]).any()
    np.testing.assert_allclose(irregular, regular, atol=2e-4)
    np.testing.assert_allclose(by_rate, regular, atol=1e-9)


def test_behavior_faster_than_the_bins_is_averaged(binned):
    data = np.tile([1.0, -1.0], 20_000) + np.arange(40_000) / 1000
    centres, values = binned(None, data, rate=1000.0)
    np.testing.assert_allclose(values[:-1], centres[:-1], atol=1e-3)


@pytest.mark.parametrize("rate", [30, 100, 1000])
@pytest.mark.parametrize("bin_width", [0.005, 0.02, 0.1])
def test_behavior_in_a_gap_is_unknown_at_every_rate(binned, rate, bin_width):
    times = np.arange(40 * rate) / rate
    times = times[(times < 10) | (times > 30)]
    centres, values = binned(times, bin_width=bin_width)
    gap = (centres > 10 + 0.5 / rate) & (centres < 30 - 0.5 / rate)
    assert np.isnan(values[gap]).all()
    inside = ((centres < 9.9) | (centres > 30.1)) & (centres < 39.9)
    assert not np.isnan(values[inside]).any()


def test_behavior_is_unknown_before_the_first_and_after_the_last_sample(binned):
    centres, values = binned(np.arange(5 * 30, 35 * 30) / 30)
    known = (centres > 5 - 0.5 / 30) & (centres < 35 - 0.5 / 30)
    np.testing.assert_array_equal(np.isnan(values), ~known)


def test_a_few_missing_samples_are_interpolated_and_max_gap_says_how_many(binned):
    data = np.sin(FRAME)
    data[300:304] = np.nan  # 10 s; known samples are 167 ms apart
    data[600:610] = np.nan  # 20 s; 367 ms
    centres, values = binned(FRAME, data)
    assert not np.isnan(values[centres < 19.9]).any()
    gap = (centres > 20) & (centres < 20.25)
    assert np.isnan(values[gap]).all()
    _, values = binned(FRAME, data, max_gap=0.4)
    np.testing.assert_allclose(values[gap], np.sin(centres[gap]), atol=0.02)
    _, values = binned(FRAME, data, max_gap=0.1)
    assert np.isnan(values[(centres > 10) & (centres < 10.1)]).all()
    with pytest.raises(ValueError, match="max_gap must be finite, at least 0"):
        binned(FRAME, data, max_gap=-1.0)


def test_a_channel_that_is_known_at_a_lower_rate_is_interpolated(binned):
    times = np.arange(40_000) / 1000
    data = np.where(np.arange(40_000) % 33 == 0, np.sin(times), np.nan)
    centres, values = binned(times, data)
    np.testing.assert_allclose(values[:-5], np.sin(centres[:-5]), atol=1e-3)


def test_infinite_samples_are_left_out(binned):
    data = np.sin(FRAME)
    data[100:102] = np.inf, -np.inf
    centres, values = binned(FRAME, data)
    np.testing.assert_allclose(values[:-2], np.sin(centres[:-2]), atol=2e-3)


@pytest.mark.parametrize("order", ["swapped", "reversed", "shuffled", "pieces"])
def test_timestamps_out_of_order_are_sorted_with_a_warning(binned, order):
    place = {
        "swapped": np.r_[:400, 401, 400, 402:1200],
        "reversed": np.arange(1200)[::-1],
        "shuffled": RNG.permutation(1200),
        "pieces": np.r_[600:1200, :600],
    }[order]
    with pytest.warns(UserWarning, match=r"session\.nwb: pos: timestamps go back \d+ times"):
        centres, values = binned(FRAME[place])
    np.testing.assert_allclose(values[:-2], np.sin(centres[:-2]), atol=1e-3)


def test_times_that_a_clock_passed_twice_are_unknown(binned):
    times = np.r_[FRAME[:600], FRAME[300:900]]  # restarted at 20 s, set to 10 s
    data = np.r_[np.sin(FRAME[:600]), 100 + np.sin(FRAME[300:900])]
    with pytest.warns(UserWarning, match=r"pos: .* 600 samples are left out"):
        centres, values = binned(times, data)
    assert np.isnan(values[(centres > 10.05) & (centres < 19.9)]).all()
    np.testing.assert_allclose(values[centres < 9.9], np.sin(centres[centres < 9.9]), atol=1e-3)
    later = (centres > 20.1) & (centres < 29.9)
    np.testing.assert_allclose(values[later], 100 + np.sin(centres[later]), atol=1e-3)


@pytest.mark.parametrize(
    "times", [np.full(50, np.nan), np.array([7.0]), np.array([7.0, 7.0, np.nan])]
)
def test_series_with_hardly_a_timestamp_are_known_only_there(binned, times):
    centres, values = binned(times, np.ones(len(times)))
    near = np.abs(centres - np.nanmin(np.append(times, 99))) < 0.011
    assert np.isnan(values[~near]).all()
    assert not np.isnan(values[near]).any()


def test_timestamps_for_other_samples_are_named():
    with pytest.raises(ValueError, match=r"pos has 1199 timestamps for 1200 samples"):
        Signal.from_samples(FRAME[:-1], np.ones((1200, 1)), "pos")


@pytest.mark.parametrize("lag", [0.1, 0.013, -0.05])
def test_behavior_is_taken_exactly_lag_later(binned, lag):
    centres, values = binned(np.arange(4000) / 100, lag=lag)
    inside = (centres + lag > 0.01) & (centres + lag < 39.9)
    np.testing.assert_allclose(values[inside], np.sin(centres[inside] + lag), atol=1e-4)
    assert not np.isnan(values[inside]).any()


@pytest.mark.parametrize("rate", [30, 1000])
def test_behavior_in_invalid_times_is_unknown(binned, rate):
    times = np.arange(40 * rate) / rate
    data = np.where((times >= 10) & (times < 12), 1e6, np.sin(times))  # an artefact
    centres, values = binned(times, data, invalid=[(10, 12), (11, 11.5), (20.007, 20.008)])
    invalid = ((centres > 10) & (centres < 12)) | (np.abs(centres - 20.01) < 1e-6)
    assert np.isnan(values[invalid]).all()
    outside = ~invalid & (np.abs(centres - 11) > 1.1) & (centres < 39.9)
    np.testing.assert_allclose(values[outside], np.sin(centres[outside]), atol=1e-3)
    known = ~np.isnan(values)
    assert np.abs(values[known]).max() <= 1


def test_behavior_in_invalid_times_is_unknown_on_its_own_clock(binned):
    centres, values = binned(FRAME, invalid=[(10, 12)], lag=1.0)
    assert np.isnan(values[(centres > 9) & (centres < 11)]).all()
    assert not np.isnan(values[(centres > 11.1) & (centres < 38)]).any()


# -- any rate ----------


class Smooth:
    """A sum of sines, with bounds of its derivatives."""

    def __init__(self, rng):
        self.amplitude = rng.uniform(0.2, 1, 3)
        self.omega = 2 * np.pi * rng.uniform(0.1, 3, 3)  # rad/s
        self.phase = rng.uniform(0, 2 * np.pi, 3)
        self.slope = (self.amplitude * self.omega).sum()
        self.curvature = (self.amplitude * self.omega**2).sum()

    def __call__(self, times):
        return np.sin(np.multiply.outer(times, self.omega) + self.phase) @ self.amplitude

    def mean(self, opens, closes):
        """Mean between two times."""
        low, high = (
            np.cos(np.multiply.outer(edge, self.omega) + self.phase) for edge in (opens, closes)
        )
        return (low - high) @ (self.amplitude / self.omega) / (closes - opens)


@settings(max_examples=300)
@given(
    rate=st.one_of(st.floats(5, 2000), st.sampled_from([30.0, 100.0, 500.0, 1000.0, 2000.0])),
    jitter=st.floats(0, 0.2),
    missing=st.sampled_from([0.0, 0.05, 0.2]),
    bin_width=st.one_of(st.floats(0.005, 0.05), st.sampled_from([0.005, 0.01, 0.02, 0.05])),
    gaps=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.4)), max_size=3),
    seed=st.integers(0, 2**16),
)
def test_a_smooth_function_is_recovered_at_any_rate(rate, jitter, missing, bin_width, gaps, seed):
    rng = np.random.default_rng(seed)
    interval = 1 / rate
    duration = max(80 * interval, 40 * bin_width)
    clean = np.arange(rng.uniform(0, interval), duration, interval)
    function = Smooth(rng)
    stored = clean + rng.uniform(-jitter, jitter, len(clean)) * interval
    data = function(clean)
    data[rng.random(len(data)) < missing] = np.nan
    kept = np.ones(len(clean), dtype=bool)
    for start, length in gaps:
        kept &= (clean < start * duration) | (clean > (start + length) * duration)
    kept[:30] = True  # most steps are of one interval
    signal = Signal.from_samples(stored[kept], data[kept][:, None], "a series")
    edges = bin_width * np.arange(int(duration / bin_width) + 3)
    opens, closes = edges[:-1], edges[1:]
    values = signal.in_bins(opens, closes)[:, 0]

    times = stored[kept & ~np.isnan(data)]
    centres = (opens + closes) / 2
    after = np.searchsorted(times, centres)
    earlier = np.append(-np.inf, times)[after]
    later = np.append(times, np.inf)[after]
    distance = np.minimum(centres - earlier, later - centres)
    step = later - earlier
    near = (distance < 0.35 * interval) | (step < max(3.5 * interval, 0.99 * bin_width))
    far = (distance > 0.75 * interval) & (step > max(7.5 * interval, 1.01 * bin_width))
    assert not np.isnan(values[near]).any()
    assert np.isnan(values[far]).all()

    # Between samples: the error of linear interpolation over the steps that the bin touches.
    # Beyond them, the nearest sample: half a step of slope more.
    low = np.clip(np.searchsorted(times, opens) - 1, 0, len(times) - 1)
    high = np.clip(np.searchsorted(times, closes), 0, len(times) - 1)
    steps = np.append(np.diff(times), 0)
    widest = np.array([steps[a : max(b, a + 1)].max() for a, b in zip(low, high, strict=True)])
    error = function.curvature * widest**2 / 8 + function.slope * jitter * interval
    whole = (opens >= times[0]) & (closes <= times[-1])
    whole &= widest < max(3.5 * interval, 0.99 * bin_width)
    truth = function.mean(opens, closes)
    assert (np.abs(values - truth) <= error + 1e-9)[whole].all()
    rest = ~whole & ~np.isnan(values)
    inside = rest & (step < max(7.5 * interval, 1.01 * bin_width))
    widest = max(7.5 * interval, 1.01 * bin_width)
    error = function.curvature * (widest**2 / 8 + bin_width**2 / 12)
    error = error + function.slope * (jitter + np.where(inside, 0, 0.75)) * interval
    assert (np.abs(values - truth) <= error + 1e-9)[rest].all()
