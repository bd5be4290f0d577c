import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sklearn_stndt.metrics import bits_per_spike

SHAPES = st.one_of(
    st.tuples(st.integers(1, 6), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3)),
)


def naive_bits_per_spike(spikes, rates):
    """The definition entry by entry, with Python floats and no array arithmetic."""
    n_neurons = spikes.shape[-1]
    entries = [
        (neuron, float(spike), float(rate))
        for spike_row, rate_row in zip(
            spikes.reshape(-1, n_neurons), rates.reshape(-1, n_neurons), strict=True
        )
        for neuron, (spike, rate) in enumerate(zip(spike_row, rate_row, strict=True))
        if not math.isnan(spike)
    ]
    mean = {}
    for neuron in range(n_neurons):
        counts = [spike for index, spike, _ in entries if index == neuron]
        mean[neuron] = sum(counts) / len(counts) if counts else 0.0

    def log_likelihood(spike, rate):
        rate = rate or 1e-9
        return spike * math.log(rate) - rate - math.lgamma(spike + 1)

    model = math.fsum(log_likelihood(spike, rate) for _, spike, rate in entries)
    null = math.fsum(log_likelihood(spike, mean[neuron]) for neuron, spike, _ in entries)
    n_spikes = math.fsum(spike for _, spike, _ in entries)
    return (model - null) / n_spikes / math.log(2)


@st.composite
def spikes_and_rates(draw):
    shape = draw(SHAPES)
    spikes = draw(arrays(np.float64, shape, elements=st.sampled_from([0, 0, 1, 2, 7, np.nan])))
    spikes[(0,) * len(shape)] = 1
    rates = draw(arrays(np.float64, shape, elements=st.one_of(st.just(0.0), st.floats(1e-6, 50))))
    return spikes, rates


@given(spikes_and_rates())
def test_agrees_with_the_definition_entry_by_entry(data):
    spikes, rates = data
    expected = naive_bits_per_spike(spikes, rates)
    assert bits_per_spike(spikes, rates) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_value_computed_by_hand():
    # One neuron, counts 0 and 2, mean 1: the sums of rates cancel, as both are 2.
    # 2 ln(1.5) - 2 ln(1) nats over 2 spikes are log2(1.5) bits per spike.
    assert bits_per_spike([[0], [2]], [[0.5], [1.5]]) == pytest.approx(math.log2(1.5), rel=1e-14)
    # Mean rates sum to 2 and the model's rates to 3, so one nat over 2 spikes is lost.
    expected = math.log2(2) - 1 / (2 * math.log(2))
    assert bits_per_spike([[0], [2]], [[1], [2]]) == pytest.approx(expected, rel=1e-14)


def test_the_mean_rate_of_each_neuron_scores_zero():
    spikes = np.random.default_rng(0).poisson([0.1, 1.0, 10.0], size=(20, 30, 3))
    rates = np.broadcast_to(spikes.mean(axis=(0, 1)), spikes.shape)
    assert bits_per_spike(spikes, rates) == pytest.approx(0, abs=1e-12)


def test_the_true_rates_beat_any_scaled_version_of_them():
    rng = np.random.default_rng(0)
    rates = rng.gamma(1.0, 1.0, size=(2000, 5))
    spikes = rng.poisson(rates)
    true_score = bits_per_spike(spikes, rates)
    assert true_score > 0.2
    for scale in (0.5, 0.8, 1.25, 2.0):
        assert true_score > bits_per_spike(spikes, scale * rates) + 0.01


def test_trials_and_their_concatenation_score_the_same():
    rng = np.random.default_rng(0)
    rates = rng.gamma(1.0, 1.0, size=(4, 25, 3))
    spikes = rng.poisson(rates)
    flat = bits_per_spike(spikes.reshape(100, 3), rates.reshape(100, 3))
    assert bits_per_spike(spikes, rates) == flat


@pytest.mark.parametrize("under_nan", [np.nan, np.inf, -1.0, 0.0, 1e300])
def test_rates_of_nan_spikes_are_ignored(under_nan):
    rng = np.random.default_rng(0)
    rates = rng.gamma(1.0, 1.0, size=(50, 3))
    spikes = rng.poisson(rates).astype(float)
    padded_spikes = np.concatenate([spikes, np.full((10, 3), np.nan)])
    padded_rates = np.concatenate([rates, np.full((10, 3), under_nan)])
    assert bits_per_spike(padded_spikes, padded_rates) == bits_per_spike(spikes, rates)


def test_a_neuron_that_is_always_nan_changes_nothing():
    rng = np.random.default_rng(0)
    rates = rng.gamma(1.0, 1.0, size=(50, 3))
    spikes = rng.poisson(rates).astype(float)
    spikes[:, 1] = np.nan
    kept = [0, 2]
    assert bits_per_spike(spikes, rates) == bits_per_spike(spikes[:, kept], rates[:, kept])


def test_a_silent_neuron_gives_a_finite_score_without_warning():
    spikes = np.array([[0, 1], [0, 0], [0, 2]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        silent_as_predicted = bits_per_spike(spikes, [[0, 1.0], [0, 0.5], [0, 1.5]])
        silent_unforeseen = bits_per_spike(spikes, [[1, 1.0], [1, 0.5], [1, 1.5]])
    # Three nats too many over three spikes.
    lost = 1 / math.log(2)
    assert silent_as_predicted - silent_unforeseen == pytest.approx(lost, abs=1e-8)


def test_a_rate_of_zero_counts_as_one_in_a_billion():
    spikes = np.array([[1.0], [2.0], [0.0]])
    zero = bits_per_spike(spikes, np.array([[0.0], [2.5], [0.0]]))
    assert zero == bits_per_spike(spikes, np.array([[1e-9], [2.5], [1e-9]]))
    assert zero < -5


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_arguments_are_never_changed(dtype):
    rng = np.random.default_rng(0)
    rates = rng.gamma(1.0, 1.0, size=(4, 25, 3)).astype(dtype)
    rates[0, :5] = 0
    spikes = rng.poisson(1.0, size=rates.shape).astype(dtype)
    spikes[1, 3] = np.nan
    before = spikes.tobytes(), rates.tobytes()
    bits_per_spike(spikes, rates)
    assert (spikes.tobytes(), rates.tobytes()) == before


@pytest.mark.parametrize("spike_dtype", [np.uint8, np.float16, np.float32, np.int64, object])
@pytest.mark.parametrize("rate_dtype", [np.float16, np.float32])
def test_small_dtypes_are_summed_in_float64(spike_dtype, rate_dtype):
    rng = np.random.default_rng(0)
    # Sums over 40,000 bins overflow in float16 (at 65,504) and in uint8.
    rates = rng.gamma(2.0, 2.0, size=(40_000, 2)).astype(rate_dtype)
    spikes = rng.poisson(rates)
    expected = bits_per_spike(spikes.astype(np.float64), rates.astype(np.float64))
    assert bits_per_spike(spikes.astype(spike_dtype), rates) == expected


def test_masked_entries_count_as_nan():
    spikes = np.array([[0.0], [2.0], [9.0]])
    masked = np.ma.MaskedArray(spikes.astype(int), mask=[[False], [False], [True]])
    rates = [[0.5], [1.5], [1.0]]
    assert bits_per_spike(masked, rates) == bits_per_spike(spikes[:2], rates[:2])


def test_without_spikes_the_score_is_nan_with_a_warning():
    with pytest.warns(RuntimeWarning, match="not defined without spikes") as caught:
        assert math.isnan(bits_per_spike(np.zeros((5, 2)), np.ones((5, 2))))
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("spikes", "rates"),
    [
        ([[0.5], [1.5]], [[0], [2]]),
        ([[0.5], [1.5]], [[0.0], [2.0]]),
        ([[0.5], [1.5]], [[1.0], [3.0]]),
        ([[0.5], [1.5]], [[np.nan], [2.0]]),  # NaN spikes, swapped, are NaN rates
        ([[0.5], [np.inf]], [[0.0], [2.0]]),
    ],
)
def test_swapped_arguments_are_recognised(spikes, rates):
    with pytest.raises(ValueError, match=r"fractions, such as 0\.5, .*probably swapped"):
        bits_per_spike(spikes, rates)


@pytest.mark.parametrize(
    ("spikes", "rates"),
    [
        ([[0.5], [1.5]], [[0.4], [1.0]]),  # smoothed counts instead of counts
        ([[0], [2]], [[1], [2]]),  # rates that are whole numbers
    ],
)
def test_unusual_but_legal_values_are_not_mistaken_for_swapped_arguments(spikes, rates):
    expected = naive_bits_per_spike(np.array(spikes), np.array(rates))
    assert bits_per_spike(spikes, rates) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("spikes", "rates", "error", "message"),
    [
        (np.ones((5, 2)), np.ones((5, 3)), ValueError, r"shape \(5, 2\) .* shape \(5, 3\)"),
        (np.ones((5, 1)), np.ones((5, 2)), ValueError, "one shape"),  # never broadcast
        (np.ones((2, 5, 1)), np.ones((5, 1)), ValueError, "one shape"),
        (np.ones(5), np.ones(5), ValueError, r"1D.*reshape\(-1, 1\)"),
        (np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 1)), ValueError, "4D"),
        (1.0, 1.0, ValueError, "0D"),
        (np.ones((0, 2)), np.ones((0, 2)), ValueError, "no count to evaluate"),
        (np.full((5, 2), np.nan), np.ones((5, 2)), ValueError, "no count to evaluate"),
        ([[-1.0], [1.0]], [[1.0], [0.5]], ValueError, "negative counts, the lowest is -1"),
        ([[np.inf], [1.0]], [[1.0], [0.5]], ValueError, "spikes holds infinity"),
        ([[0.0], [1.0]], [[-0.1], [0.5]], ValueError, r"negative values, the lowest is -0\.1"),
        ([[0.0], [1.0]], [[np.nan], [0.5]], ValueError, "rates is NaN or infinite at 1 of 2"),
        ([[0.0], [1.0]], [[np.inf], [0.5]], ValueError, "rates is NaN or infinite at 1 of 2"),
        ([[0, 1], [1]], [[0.5, 1], [1]], ValueError, "not a rectangular array"),
        ([["a"], ["b"]], [[0.5], [0.5]], TypeError, "spikes has dtype <U1"),
        ([[1], [0]], [["0.5"], ["0.5"]], TypeError, "rates has dtype"),
        ([[1j], [0]], [[0.5], [0.5]], TypeError, "complex128"),
        ([[{}], [0]], [[0.5], [0.5]], TypeError, "not real"),
        (None, [[0.5]], ValueError, r"spikes has shape \(\)"),
    ],
)
def test_bad_input_is_refused(spikes, rates, error, message):
    with pytest.raises(error, match=message):
        bits_per_spike(spikes, rates)
