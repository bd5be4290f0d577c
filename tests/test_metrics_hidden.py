"""co_bps and fp_bps: which entries are scored, and warnings of mistakes."""

import numpy as np
import pytest

from sklearn_stndt.metrics import bits_per_spike, co_bps, fp_bps


@pytest.fixture(scope="module")
def trials():
    rng = np.random.default_rng(0)
    rates = rng.gamma(1.0, 0.3, size=(30, 40, 6))
    return rng.poisson(rates).astype(float), rates


@pytest.mark.parametrize(
    "neurons", [[4, 1], np.array([4, 1]), [-2, 1], [False, True, False, False, True, False]]
)
def test_co_bps_scores_only_the_given_neurons(trials, neurons):
    spikes, rates = trials
    assert co_bps(spikes, rates, neurons) == pytest.approx(
        bits_per_spike(spikes[..., [1, 4]], rates[..., [1, 4]]), abs=1e-12
    )


def test_co_bps_without_neurons_scores_all_that_is_passed(trials):
    spikes, rates = trials
    assert co_bps(spikes, rates) == bits_per_spike(spikes, rates)
    assert co_bps(spikes[0], rates[0], [2]) == bits_per_spike(spikes[0][:, [2]], rates[0][:, [2]])


def test_fp_bps_scores_only_the_last_bins(trials):
    spikes, rates = trials
    assert fp_bps(spikes, rates, 7) == bits_per_spike(spikes[:, -7:], rates[:, -7:])
    assert fp_bps(spikes[0], rates[0], 7) == bits_per_spike(spikes[0, -7:], rates[0, -7:])
    assert fp_bps(spikes, rates) == bits_per_spike(spikes, rates)


@pytest.mark.parametrize("score", [co_bps, fp_bps])
@pytest.mark.parametrize(
    ("factor", "message"),
    [(200, "look like Hz"), (50, "look like Hz"), (4, "bin widths"), (0.25, "bin widths")],
)
def test_rates_of_another_unit_get_a_warning_that_can_be_switched_off(
    trials, score, factor, message
):
    spikes, rates = trials
    with pytest.warns(UserWarning, match=message) as caught:
        warned = score(spikes, factor * rates)
    assert caught[0].filename == __file__
    assert score(spikes, factor * rates, check=False) == warned  # a warning would be an error


@pytest.mark.parametrize("score", [co_bps, fp_bps])
def test_rates_that_copy_the_spikes_get_a_warning(trials, score):
    spikes, rates = trials
    with pytest.warns(UserWarning, match="more closely than Poisson noise") as caught:
        score(spikes, 0.8 * spikes + 0.2 * rates)
    assert caught[0].filename == __file__
    score(spikes, 0.8 * spikes + 0.2 * rates, check=False)


def test_scored_entries_that_were_visible_get_a_warning(trials):
    spikes, rates = trials
    X = spikes.copy()
    X[..., [1, 4]] = np.nan
    co_bps(spikes, rates, [1, 4], X=X)
    with pytest.warns(UserWarning, match="1200 of 2400 scored entries were visible") as caught:
        co_bps(spikes, rates, [1, 3], X=X)
    assert caught[0].filename == __file__
    X = spikes.copy()
    X[:, -5:] = np.nan
    fp_bps(spikes, rates, 5, X=X)
    with pytest.warns(UserWarning, match="180 of 1080 scored entries were visible"):
        fp_bps(spikes, rates, 6, X=X)
    fp_bps(spikes, rates, 6, X=X, check=False)


def test_true_rates_and_few_spikes_get_no_warning(trials):
    spikes, rates = trials
    co_bps(spikes, rates)
    co_bps(spikes[:1, :5], 100 * rates[:1, :5])  # ten spikes are too few to judge the scale


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, r: co_bps(s, r, []), "at least one"),
        (lambda s, r: co_bps(s, r, [6]), "between 0 and 5"),
        (lambda s, r: co_bps(s, r, [1, -5]), "a neuron twice"),
        (lambda s, r: co_bps(s, r, [0.5]), "a boolean mask .* or a list of indices"),
        (lambda s, r: co_bps(s, r, X=s[1:]), "X has shape"),
        (lambda s, r: co_bps(s, r[:, ::4]), "4 times as many bins"),
        (lambda s, r: co_bps(s[..., None], r[..., None]), "4D"),
        (lambda s, r: fp_bps(s, r, 0), "from 1 to 40"),
        (lambda s, r: fp_bps(s, r, 41), "from 1 to 40"),
        (lambda s, r: fp_bps(s, r, 2.5), "from 1 to 40"),
    ],
)
def test_bad_arguments_are_refused(trials, call, message):
    with pytest.raises(ValueError, match=message):
        call(*trials)


def test_arguments_are_never_changed(trials):
    spikes, rates = (array.copy() for array in trials)
    rates[0, :5] = 0
    spikes[1, 3] = np.nan
    before = spikes.tobytes(), rates.tobytes()
    co_bps(spikes, rates, [0, 2], X=spikes, check=False)
    fp_bps(spikes, rates, 3, X=spikes, check=False)
    assert (spikes.tobytes(), rates.tobytes()) == before
