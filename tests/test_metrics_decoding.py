"""velocity_r2."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from sklearn_stndt.metrics import velocity_r2
from sklearn_stndt.metrics.decoding import known_rows, make_decoder, shift

# ---- its parts


@pytest.mark.parametrize(
    ("lag", "bins", "later"),
    [
        (1, [0, 1, 2], [1, 2, 3]),
        (2, [0, 1], [2, 3]),
        (-1, [1, 2, 3], [0, 1, 2]),
        (-3, [3], [0]),
        (0, [0, 1, 2, 3], [0, 1, 2, 3]),
    ],
)
def test_a_lag_pairs_rates_with_later_velocity(lag, bins, later):
    rates = np.arange(24.0).reshape(2, 4, 3)
    velocity = np.arange(16.0).reshape(2, 4, 2)
    for of_bins, of_later in (shift(rates, velocity, lag), shift(rates, velocity, np.int64(lag))):
        np.testing.assert_array_equal(of_bins, rates[:, bins])
        np.testing.assert_array_equal(of_later, velocity[:, later])
    of_bins, of_later = shift(rates[0], velocity[0], lag)
    np.testing.assert_array_equal(of_bins, rates[0, bins])
    np.testing.assert_array_equal(of_later, velocity[0, later])


@pytest.mark.parametrize("lag", [4, -4, 9, -9, True, 1.0, None, np.timedelta64(1)])
def test_a_lag_is_a_whole_number_shorter_than_a_trial(lag):
    with pytest.raises(ValueError, match=r"whole number of bins, shorter than a trial of 4, got"):
        shift(np.zeros((2, 4, 3)), np.zeros((2, 4, 2)), lag)


def test_rows_with_known_velocity_need_finite_rates():
    rates = np.arange(12.0).reshape(2, 2, 3)
    velocity = np.arange(8.0).reshape(2, 2, 2)
    velocity[0, 1, 1] = rates[0, 1, 2] = np.nan
    of_rows, known = known_rows(rates, velocity)
    np.testing.assert_array_equal(of_rows, [[0, 1, 2], [6, 7, 8], [9, 10, 11]])
    np.testing.assert_array_equal(known, [[0, 1], [4, 5], [6, 7]])
    rates[1, 0, 1], rates[1, 1, 0] = np.inf, np.nan
    with pytest.raises(ValueError, match="The rates of 2 of 3 bins"):
        known_rows(rates, velocity)


def test_the_decoder_is_that_of_the_benchmark():
    decoder = make_decoder()
    exponents = np.log10(decoder.param_grid["alpha"])
    np.testing.assert_allclose(exponents, [-4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5, 0], atol=1e-12)
    assert decoder.cv == 5


# ---- the score


@pytest.fixture
def decodable():
    rng = np.random.default_rng(0)
    rates = rng.gamma(1.0, size=(20, 25, 5))
    velocity = rates @ rng.normal(size=(5, 2)) + 0.3 * rng.normal(size=(20, 25, 2))
    return velocity[12:], rates[12:], velocity[:12], rates[:12]


def test_velocity_r2_is_that_of_a_ridge_regression(decodable):
    velocity, rates, train_velocity, train_rates = decodable
    score = velocity_r2(*decodable)
    ridge = Ridge(alpha=1.0).fit(train_rates.reshape(-1, 5), train_velocity.reshape(-1, 2))
    assert score == pytest.approx(
        ridge.score(rates.reshape(-1, 5), velocity.reshape(-1, 2)), abs=1e-3
    )
    assert 0.9 < score < 1


def test_a_continuous_recording_scores_as_its_trials_do(decodable):
    flat = [array.reshape(-1, array.shape[-1]) for array in decodable]
    assert velocity_r2(*flat) == velocity_r2(*decodable)


def test_one_component_may_come_without_an_axis(decodable):
    velocity, rates, train_velocity, train_rates = decodable
    with_axis = velocity_r2(velocity[..., :1], rates, train_velocity[..., :1], train_rates)
    assert velocity_r2(velocity[..., 0], rates, train_velocity[..., 0], train_rates) == with_axis


def test_bins_with_unknown_velocity_are_left_out(decodable):
    velocity, rates, train_velocity, train_rates = (array.copy() for array in decodable)
    expected = velocity_r2(
        velocity[:, :20], rates[:, :20], train_velocity[:, 5:], train_rates[:, 5:]
    )
    velocity[:, 20:, 1] = np.nan  # one component is enough
    rates[:, 20:] = np.nan
    train_velocity[:, :5] = np.nan
    assert velocity_r2(velocity, rates, train_velocity, train_rates) == pytest.approx(expected)


def test_each_mask_has_its_own_decoder(decodable):
    velocity, rates, train_velocity, train_rates = decodable
    flip, train_flip = np.arange(8) % 2 == 1, np.arange(12) % 2 == 1
    velocity = np.where(flip[:, None, None], -velocity, velocity)
    train_velocity = np.where(train_flip[:, None, None], -train_velocity, train_velocity)
    masks = {
        "decode_mask": np.column_stack([flip, ~flip]),
        "train_decode_mask": np.column_stack([train_flip, ~train_flip]),
    }
    assert velocity_r2(velocity, rates, train_velocity, train_rates) < 0.2
    both = velocity_r2(velocity, rates, train_velocity, train_rates, **masks)
    assert both > 0.9
    singles = [
        velocity_r2(velocity[a], rates[a], train_velocity[b], train_rates[b])
        for a, b in ((flip, train_flip), (~flip, ~train_flip))
    ]
    assert both == pytest.approx(np.mean(singles))


@pytest.mark.parametrize("lag", [3, -3])
def test_lag_shifts_velocity_within_trials(decodable, lag):
    late = [np.roll(array, lag, axis=1) if array.shape[-1] == 2 else array for array in decodable]
    assert velocity_r2(*late) < 0.1
    assert velocity_r2(*late, lag=lag) > 0.9


def test_a_decoder_needs_two_bins_in_each_fold(decodable):
    velocity, rates, train_velocity, train_rates = (array[0] for array in decodable)
    few = velocity[:2], rates[:2], train_velocity[:10], train_rates[:10]
    assert np.isfinite(velocity_r2(*few, check=False))
    for score, train, message in (
        (1, 10, "10 training bins and 1"),
        (2, 9, "9 training bins and 2"),
    ):
        args = velocity[:score], rates[:score], train_velocity[:train], train_rates[:train]
        with pytest.raises(ValueError, match=f"{message}.* at least 10 and 2"):
            velocity_r2(*args, check=False)


def test_masks_may_hold_ones_and_zeros(decodable):
    masks = {"decode_mask": np.arange(8) > 2, "train_decode_mask": np.arange(12) > 3}
    expected = velocity_r2(*decodable, **masks)
    for dtype in (np.uint8, int, float):
        numbers = {name: mask.astype(dtype) for name, mask in masks.items()}
        assert velocity_r2(*decodable, **numbers) == expected
    shifted = [array[:, 1:] if array.shape[-1] == 2 else array[:, :-1] for array in decodable]
    assert velocity_r2(*decodable, **masks, lag=1) == velocity_r2(*shifted, **masks)


def test_rows_of_a_recording_are_chosen_by_masks_without_a_lag(decodable):
    flat = [array.reshape(-1, array.shape[-1]) for array in decodable]
    masks = {"decode_mask": np.ones(200, bool), "train_decode_mask": np.ones(300, bool)}
    assert velocity_r2(*flat, **masks) == velocity_r2(*flat)
    late = velocity_r2(flat[0][3:], flat[1][:-3], flat[2][3:], flat[3][:-3])
    assert velocity_r2(*flat, lag=3) == late < 0.5
    with pytest.raises(ValueError, match="lag cannot be used with masks of 2D data"):
        velocity_r2(*flat, **masks, lag=1)


@pytest.mark.parametrize("factor", [50, 5.2, 0.19])
def test_rates_of_two_units_get_a_warning(decodable, factor):
    velocity, rates, train_velocity, train_rates = decodable
    rates = np.full_like(rates, train_rates.mean())  # so that the ratio is known
    with pytest.warns(UserWarning, match=f"are {factor:g} times as .* same unit") as caught:
        score = velocity_r2(velocity, factor * rates, train_velocity, train_rates)
    assert caught[0].filename == __file__
    assert velocity_r2(velocity, factor * rates, train_velocity, train_rates, check=False) == score


@pytest.mark.parametrize("factor", [4.8, 1.0, 0.21, 0.0])
def test_rates_of_one_unit_get_no_warning(decodable, factor):
    velocity, rates, train_velocity, train_rates = decodable
    rates = np.full_like(rates, factor * train_rates.mean())
    velocity, rates = velocity.copy(), rates.copy()
    velocity[:, 0], rates[:, 0] = np.nan, np.inf
    velocity_r2(velocity, rates, train_velocity, train_rates)


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (0, np.ones((8, 20, 2)), "trials and bins of both"),
        (0, np.ones((8, 25, 3)), "velocity has 3 columns and train_velocity has 2"),
        (0, np.ones((8, 25, 1)), "velocity has 1 columns and train_velocity has 2"),
        (0, np.ones((9, 25, 2)), "trials and bins of both"),
        (0, np.ones(8), "trials and bins of both"),
        (1, np.ones((8, 25, 4)), "rates has 4 columns and train_rates has 5"),
        (1, np.ones((8, 25, 6)), "rates has 6 columns and train_rates has 5"),
        (1, np.ones(8), "expected"),
        (1, np.ones((8, 25, 5, 1)), "expected"),
        (1, np.full((8, 25, 5), np.nan), "200 of 200 bins"),
        (2, np.full((12, 25, 2), np.nan), "0 training bins"),
    ],
)
def test_bad_arrays_of_velocity_r2_are_refused(decodable, index, value, message):
    arrays = list(decodable)
    arrays[index] = value
    with pytest.raises(ValueError, match=message):
        velocity_r2(*arrays)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"decode_mask": np.ones(8, bool)}, "both decode_mask and"),
        ({"decode_mask": np.ones(7, bool), "train_decode_mask": np.ones(12, bool)}, r"\(8,\)"),
        ({"train_decode_mask": np.ones(12, bool)}, "both decode_mask and"),
        ({"decode_mask": np.ones(9, bool), "train_decode_mask": np.ones(12, bool)}, r"\(8,\)"),
        ({"decode_mask": np.arange(8), "train_decode_mask": np.ones(12, bool)}, "True and False"),
        (
            {"decode_mask": np.ones((8, 1, 1), bool), "train_decode_mask": np.ones(12, bool)},
            r"\(8,\) or \(8, n_decoders\), got bool of shape \(8, 1, 1\)",
        ),
        ({"decode_mask": ["a"] * 8, "train_decode_mask": np.ones(12, bool)}, "True and False"),
        (
            {"decode_mask": np.ones(8, bool), "train_decode_mask": np.ones((12, 2), bool)},
            "1 columns and train_decode_mask has 2",
        ),
        (
            {"decode_mask": np.ones((8, 2), bool), "train_decode_mask": np.ones(12, bool)},
            "2 columns and train_decode_mask has 1",
        ),
        ({"lag": 25}, "shorter than a trial of 25"),
        ({"lag": 0.5}, "whole number of bins"),
    ],
)
def test_bad_parameters_of_velocity_r2_are_refused(decodable, params, message):
    with pytest.raises(ValueError, match=message):
        velocity_r2(*decodable, **params)
