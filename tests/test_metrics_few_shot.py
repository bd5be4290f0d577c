"""few_shot_co_bps: Poisson GLMs that are fitted to few trials predict held-out neurons."""

import numpy as np
import pytest

from sklearn_stndt.metrics import bits_per_spike, few_shot_co_bps


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


def test_hidden_bins_take_no_part():
    spikes, z, _ = latents(40, 0)
    train, scored = spikes[:20], spikes[20:]
    args = train, z[:20], 10
    score = few_shot_co_bps(scored[:, :5], z[20:, :5], *args, log=False)
    scored[:, 5:] = np.nan
    assert few_shot_co_bps(scored, z[20:], *args, log=False) == score
    without = few_shot_co_bps(scored, z[20:], train[:, 4:], z[:20, 4:], 10, log=False)
    train[:, :4] = np.nan
    hidden = few_shot_co_bps(scored, z[20:], *args, log=False)
    assert hidden == pytest.approx(without, abs=2e-3)  # features are standardised in all bins
    train[:, :4] = 0
    assert few_shot_co_bps(scored, z[20:], *args, log=False) < without - 0.01


@pytest.mark.parametrize("n_hidden", [0, 4])
def test_a_neuron_silent_in_the_shots_has_the_rate_of_half_a_spike_in_all_bins(n_hidden):
    spikes, z, rates = latents(40, 0)
    train, scored = spikes[:20], spikes[20:]
    train = np.concatenate([np.zeros_like(train), train], axis=-1)
    train[:, :n_hidden] = np.nan
    scored = np.concatenate([rates[20:] > 0.5, scored], axis=-1)
    score = few_shot_co_bps(scored, z[20:], train, z[:20], 10, log=False, n_repeats=1)
    # that of the other neuron alone, and of the rate, weighted by their numbers of spikes
    other = few_shot_co_bps(
        scored[..., 1:], z[20:], train[..., 1:], z[:20], 10, log=False, n_repeats=1
    )
    silent = bits_per_spike(
        scored[..., :1], np.full_like(scored[..., :1], 0.5 / (10 * (30 - n_hidden)))
    )
    n_spikes = scored.sum(axis=(0, 1))
    assert score == pytest.approx(n_spikes @ [silent, other] / n_spikes.sum(), abs=1e-12)


def test_a_neuron_that_is_hidden_in_all_shots_has_the_rate_of_half_a_spike():
    spikes, z, _ = latents(40, 0)
    hidden = np.full((20, 30, 1), np.nan)
    score = few_shot_co_bps(spikes[20:], z[20:], hidden, z[:20], 10, log=False)
    assert score == pytest.approx(bits_per_spike(spikes[20:], np.full((20, 30, 1), 0.5)))


def test_features_beyond_those_of_the_shots_are_clipped():
    spikes, z, _ = latents(40, 0)
    train, scored = z[:20], 5 * z[20:]
    clipped = np.clip(scored, train.min(axis=(0, 1)), train.max(axis=(0, 1)))
    assert (scored != clipped).any(axis=(0, 1)).all()
    of_scored, of_clipped = (
        few_shot_co_bps(spikes[20:], features, spikes[:20], train, 20, log=False)
        for features in (scored, clipped)
    )
    assert of_scored == pytest.approx(of_clipped, abs=1e-9)


def test_the_scale_of_features_is_without_influence_on_the_penalty():
    spikes, z, _ = latents(40, 0)
    scores = [
        few_shot_co_bps(spikes[20:], a * z[20:], spikes[:20], a * z[:20], 10, log=False, alpha=1.0)
        for a in (1, 100)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert scores[0] < few_shot_co_bps(spikes[20:], z[20:], spikes[:20], z[:20], 10, log=False)


def test_defaults_are_five_draws_with_the_seed_zero():
    assert few(1, 3) == few(1, 3, n_repeats=5, random_state=0, alpha=0.01)


def test_predictions_that_copy_the_scored_spikes_get_a_warning():
    spikes = np.random.default_rng(0).poisson(1.0, size=(40, 30, 1)).astype(float)
    copied = spikes[20:], spikes[20:] + 0.1, spikes[:20], spikes[:20] + 0.1, 20
    with pytest.warns(UserWarning, match="more closely than Poisson noise") as caught:
        few_shot_co_bps(*copied)
    assert caught[0].filename == __file__
    few_shot_co_bps(*copied, check=False)


def test_rates_may_be_zero_and_no_argument_is_changed():
    spikes, z, _ = latents(40, 0)
    rates = np.exp(z)
    rates[:, 0] = 0
    before = spikes.tobytes(), rates.tobytes()
    assert np.isfinite(few_shot_co_bps(spikes[20:], rates[20:], spikes[:20], rates[:20], 5))
    assert (spikes.tobytes(), rates.tobytes()) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_shots": 0}, "n_shots must be"),
        ({"n_shots": True}, "n_shots must be a whole number of at least 1, got True"),
        ({"n_shots": 1.5}, "n_shots must be .* got 1.5"),
        ({"n_shots": 31}, "there are 30 training trials"),
        ({"n_repeats": 0}, "n_repeats must be"),
        ({"rates": np.full((30, 30, 2), np.nan)}, "rates holds NaN"),
        ({"rates": np.full((30, 30, 2), -1.0)}, "the lowest is -1, .* log=False"),
        ({"rates": np.ones((30, 30, 3))}, "have 1 and 3 columns, .* 1 and 2; .* same neurons"),
        ({"spikes": np.ones((30, 30, 2))}, "have 2 and 2 columns, .* 1 and 2; .* same neurons"),
        ({"train_rates": np.ones((30, 30, 3))}, "have 1 and 2 columns, .* 1 and 3; .* same"),
        ({"train_spikes": np.ones((30, 30, 2))}, "have 1 and 2 columns, .* 2 and 2; .* same"),
        ({"rates": np.ones((29, 30, 2))}, "same trials and bins"),
        ({"rates": np.ones((31, 30, 2))}, "same trials and bins"),
        ({"rates": np.ones((30, 30, 2, 1))}, "rates has shape .30, 30, 2, 1."),
        ({"spikes": np.ones((30, 30, 1, 1))}, "spikes has shape .30, 30, 1, 1."),
        ({"spikes": np.ones((30, 30))}, "spikes has shape .30, 30."),
        ({"rates": np.ones((30, 29, 2))}, "same trials and bins"),
        ({"rates": np.ones((30, 30))}, "rates has shape .30, 30."),
        ({"train_rates": np.full((30, 30, 2), np.inf)}, "train_rates holds NaN or infinity"),
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
