"""co_bps, fp_bps and few_shot_co_bps: which entries are scored, and warnings of mistakes."""

import warnings

import numpy as np
import pytest

from sklearn_stndt.metrics import bits_per_spike, co_bps, few_shot_co_bps, fp_bps


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
    few_shot_co_bps(spikes[20:, :, :1], rates[20:], spikes[:20, :, :1], rates[:20], 5, n_repeats=1)
    assert (spikes.tobytes(), rates.tobytes()) == before


# ---- few shots


def latents(n_trials, n_extra, seed=0):
    """Two latents that determine the rate of a held-out neuron, and `n_extra` irrelevant ones."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n_trials, 30, 2 + n_extra))
    rates = 0.5 * np.exp(z[..., :2] @ [[0.7], [-0.7]])
    return rng.poisson(rates).astype(float), z, rates


def few(n_extra, n_shots, **params):
    spikes, z, _ = latents(120, n_extra)
    return few_shot_co_bps(spikes[60:], z[60:], spikes[:60], z[:60], n_shots, log=False, **params)


def test_few_shot_scores_approach_that_of_the_true_rates():
    spikes, _, rates = latents(120, 0)
    true = bits_per_spike(spikes[60:], rates[60:])
    assert true > 0.3
    assert few(0, 1) < few(0, 60) < true + 0.005
    assert few(0, 60) > true - 0.01


def test_superfluous_latents_cost_most_when_trials_are_few():
    lean, bloated = few(0, 2), few(25, 2)
    assert lean > bloated + 0.1
    assert few(0, 60) - few(25, 60) < (lean - bloated) / 4


def test_rates_and_their_logarithms_are_the_same_features():
    spikes, z, _ = latents(60, 2)
    args = spikes[30:], np.exp(z[30:]), spikes[:30], np.exp(z[:30])
    of_rates = few_shot_co_bps(*args, n_shots=10)
    of_logs = few_shot_co_bps(spikes[30:], z[30:], spikes[:30], z[:30], n_shots=10, log=False)
    assert of_rates == pytest.approx(of_logs, abs=1e-8)
    assert few_shot_co_bps(*args, n_shots=10, log=False) < of_rates


def test_few_shots_repeat_with_the_seed_and_differ_without():
    assert few(1, 3, random_state=1) == few(1, 3, random_state=1)
    assert few(1, 3, random_state=1) != few(1, 3, random_state=2)
    assert few(1, 3, n_repeats=1) != few(1, 3, n_repeats=4)


def test_a_neuron_silent_in_the_shots_and_hidden_bins_score_finite():
    spikes, z, _ = latents(40, 0)
    spikes = np.concatenate([spikes, np.zeros_like(spikes)], axis=-1)
    spikes[30:, 0, 1] = 1
    spikes[:20, :4] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score = few_shot_co_bps(spikes[20:], z[20:], spikes[:20], z[:20], 10, log=False)
    assert np.isfinite(score)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_shots": 0}, "n_shots must be"),
        ({"n_shots": 31}, "there are 30 training trials"),
        ({"n_repeats": 0}, "n_repeats must be"),
        ({"rates": np.full((30, 30, 2), np.nan)}, "rates holds NaN"),
        ({"rates": np.full((30, 30, 2), -1.0)}, "log=False"),
        ({"rates": np.ones((30, 30, 3))}, "same neurons"),
        ({"rates": np.ones((29, 30, 2))}, "same trials and bins"),
        ({"train_spikes": np.ones((900, 1))}, "n_trials, n_bins, n_heldout"),
    ],
)
def test_bad_arguments_of_few_shots_are_refused(change, message):
    spikes, z, _ = latents(60, 0)
    params = {
        "spikes": spikes[30:],
        "rates": np.exp(z[30:]),
        "train_spikes": spikes[:30],
        "train_rates": np.exp(z[:30]),
        "n_shots": 3,
    }
    with pytest.raises(ValueError, match=message):
        few_shot_co_bps(**(params | change))
