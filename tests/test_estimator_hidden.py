"""Hidden entries get rates and do not influence any."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_stndt import STNDTEstimator

# entries to hide in 24 trials, 20 bins, 12 neurons
HIDDEN = {
    "neurons": np.s_[..., [0, 7]],
    "last bins": np.s_[:, -6:],
    "inner bins": np.s_[:, 5:8],
    "a trial": np.s_[3],
    "ragged ends": np.add.outer(np.arange(24) % 8, np.arange(20)) >= 20,
    "single entries": np.random.RandomState(0).rand(24, 20, 12) < 0.3,
}


def hide(counts, name, value=np.nan):
    counts = counts.copy()
    counts[HIDDEN[name]] = value
    return counts


# ---- rates of hidden entries


@pytest.mark.parametrize("hidden", HIDDEN)
def test_every_hidden_entry_gets_a_rate(network, spikes, hidden):
    rates = network.transform(hide(spikes, hidden))
    assert np.isfinite(rates).all()
    assert (rates > 0).all()


@pytest.mark.parametrize("hidden", [h for h in HIDDEN if h != "neurons"])
def test_fit_accepts_hidden_entries(small, spikes, hidden):
    estimator = small().fit(hide(spikes, hidden))
    assert np.isfinite(estimator.history_[:, "train_loss"]).all()
    assert np.isfinite(estimator.transform(spikes)).all()


def test_hidden_counts_are_not_treated_as_zeros(small, spikes):
    counts = spikes.copy()
    counts[..., 5] = 4
    counts[..., 5][np.random.RandomState(0).rand(24, 20) < 0.7] = np.nan
    estimator = small(max_epochs=40, lr=0.01, dropout=0.1, early_stopping=False).fit(counts)
    assert_allclose(estimator.transform(counts)[..., 5], 4, atol=0.6)


# ---- hidden entries have no influence


@pytest.mark.parametrize(
    "hidden", [np.s_[..., [2, 5]], np.s_[:, -4:]], ids=["held-out neurons", "forecast bins"]
)
@pytest.mark.parametrize("value", [0, 7, np.nan, "other trials"])
def test_hidden_values_never_influence_rates(perturbed, small, spikes, form, value, hidden):
    params = {"heldout_neurons": [2, 5], "forecast_bins": 4, "max_epochs": 1}
    estimator = perturbed(small(**(form | params)).fit(spikes))
    rates = estimator.transform(spikes)
    changed = spikes.copy()
    changed[hidden] = spikes[::-1][hidden] if isinstance(value, str) else value
    assert_array_equal(estimator.transform(changed), rates)
    changed[:, 3, 0] += 1  # visible counts have an influence
    assert not np.array_equal(estimator.transform(changed), rates)


def test_no_bin_outside_the_context_influences_a_bin(perturbed, small, spikes):
    params = {"attention": "temporal", "context": (4, 1), "max_epochs": 1}
    estimator = perturbed(small(**params).fit(spikes))
    changed = spikes.copy()
    changed[:, 10] += 1
    differs = (estimator.transform(changed) != estimator.transform(spikes)).any(axis=(0, 2))
    assert_array_equal(np.flatnonzero(differs), np.arange(9, 15))


@pytest.mark.parametrize(
    "nan",
    [-np.nan, np.array([0x7FF80000DEADBEEF], np.uint64).view(np.float64)[0]],
    ids=["negative", "with payload"],
)
def test_every_kind_of_nan_is_missing_in_fit(small, spikes, nan):
    plain = small().fit(hide(spikes, "single entries"))
    other = small().fit(hide(spikes, "single entries", nan))
    assert_array_equal(other.transform(spikes), plain.transform(spikes))


def test_bins_without_visible_counts_receive_no_attention(network, spikes):
    counts = hide(spikes, "last bins")
    network = copy.deepcopy(network)
    rates = network.transform(counts)
    with torch.no_grad():
        network.net_.module_.positions.weight[-6:] += 5  # only these bins depend on them directly
    changed = network.transform(counts)
    assert_array_equal(changed[:, :-6], rates[:, :-6])
    assert not np.array_equal(changed[:, -6:], rates[:, -6:])


def test_missing_values_of_a_table_are_nan(small, rows):
    pd = pytest.importorskip("pandas")
    counts = rows.copy()
    counts[::3, 4] = np.nan
    table = pd.DataFrame(counts).astype("Int64")  # with the missing value of pandas
    assert_array_equal(small().fit_transform(table), small().fit_transform(counts))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_masked_entries_are_nan(small, fitted, spikes, dtype):
    mask = HIDDEN["single entries"]
    masked = np.ma.MaskedArray(spikes.astype(dtype), mask)
    hidden = hide(spikes, "single entries")
    rates = fitted.transform(masked)
    assert type(rates) is np.ndarray
    assert_allclose(rates, fitted.transform(hidden), rtol=1e-6)
    assert fitted.score(masked) == fitted.score(hidden)
    assert_array_equal(small().fit(masked).transform(spikes), small().fit(hidden).transform(spikes))
    assert_array_equal(masked.mask, mask)  # unchanged


@pytest.mark.parametrize(
    "objective",
    [{}, {"heldout_neurons": 6}, {"forecast_bins": 5}, {"heldout_neurons": 6, "forecast_bins": 5}],
    ids=["masked", "held out", "forecast", "both"],
)
def test_training_never_shows_counts_to_be_predicted(objective):
    # without seeing a count, no network beats the mean rate: 2 - 2 log 2 nats per entry
    flips = 4.0 * np.random.RandomState(0).randint(2, size=(96, 10, 12))
    params = {
        "d_model": 16,
        "max_epochs": 12,
        "batch_size": 4,
        "mask_ratio": 0.3,
        "dropout": 0.0,
        "early_stopping": False,
        "random_state": 0,
    }
    honest = STNDTEstimator(**params, **objective).fit(flips)
    n_terms = 2 if objective else 1  # masked entries, and those that are always hidden
    floor = (2 - 2 * np.log(2)) * n_terms
    assert np.mean(honest.history_[-3:, "train_loss"]) > 0.9 * floor
    # masked counts that keep their value are seen, and training learns to copy them
    seeing = STNDTEstimator(**params, **objective, token_ratio=0.0).fit(flips)
    assert np.mean(seeing.history_[-3:, "train_loss"]) < 0.7 * floor


def test_input_is_never_changed(small, spikes):
    # unlike `spikes`, this array can be written to
    counts = hide(spikes, "single entries")
    before = counts.copy()
    estimator = small(heldout_neurons=[1], forecast_bins=2).fit(counts)
    for call in (estimator.transform, estimator.score, lambda X: estimator.forecast(X, 2)):
        call(counts)
    assert_array_equal(counts, before)
    estimator.fit(spikes).transform(spikes)
