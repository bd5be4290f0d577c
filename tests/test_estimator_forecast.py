"""Held-out neurons and forecast bins."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from skorch.callbacks import Callback


@pytest.mark.parametrize(
    ("heldout", "expected"),
    [
        (3, 3),
        (np.int64(3), 3),
        (0.25, 3),
        (0.01, 1),
        ([7, 2], [2, 7]),
        (np.array([7, 2]), [2, 7]),
        (np.isin(np.arange(12), [2, 7]), [2, 7]),
        ([], []),
        (None, []),
    ],
)
def test_heldout_neurons_by_number_fraction_indices_or_mask(small, spikes, heldout, expected):
    found = small(heldout_neurons=heldout, max_epochs=1).fit(spikes).heldout_neurons_
    if isinstance(expected, int):
        assert len(np.unique(found)) == expected
        assert set(found) < set(range(12))
    else:
        assert_array_equal(found, expected)


def test_the_seed_determines_the_heldout_neurons(small, spikes):
    drawn = [
        tuple(small(heldout_neurons=4, max_epochs=1, random_state=s).fit(spikes).heldout_neurons_)
        for s in (0, 0, 1, 2)
    ]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("n_before", [1, 9, 16, 20, 50])
@pytest.mark.parametrize("n_bins", [1, 4])
def test_forecast_gives_the_bins_after_the_input(small, spikes, ndim, n_before, n_bins):
    estimator = small(forecast_bins=4, max_epochs=1).fit(spikes)
    before = np.concatenate([spikes] * 3, axis=1)[:, :n_before]
    before = before if ndim == 3 else before[0]
    rates = estimator.forecast(before, n_bins)
    assert rates.shape == (*before.shape[:-2], n_bins, 12)
    assert rates.dtype == np.float64
    assert np.isfinite(rates).all()
    assert (rates > 0).all()


def test_forecast_is_what_transform_infers_for_the_hidden_end(perturbed, small, spikes):
    estimator = perturbed(small(forecast_bins=4, max_epochs=1).fit(spikes))
    forecast = estimator.forecast(spikes[:, :16], 4)
    assert_array_equal(forecast, estimator.transform(spikes)[:, 16:])
    assert_array_equal(estimator.forecast(spikes[:, :16], 2), forecast[:, :2])


def test_forecast_uses_the_newest_bins(perturbed, small, spikes):
    estimator = perturbed(small(forecast_bins=4, max_epochs=1).fit(spikes))
    forecast = estimator.forecast(spikes, 4)
    assert_array_equal(estimator.forecast(spikes[:, -16:], 4), forecast)
    for age in (1, 16):  # the last bin, and the first one in the window
        changed = spikes.copy()
        changed[:, -age] += 2
        assert (estimator.forecast(changed, 4) != forecast).any(axis=(1, 2)).all()


def test_forecast_of_more_bins_than_trained_warns(small, fitted, spikes):
    with pytest.warns(UserWarning, match=r"trained with forecast_bins=0; the other 3 of 3 bins"):
        assert fitted.forecast(spikes, 3).shape == (24, 3, 12)
    estimator = small(forecast_bins=2, max_epochs=1).fit(spikes)
    with pytest.warns(UserWarning, match=r"trained with forecast_bins=2; the other 1 of 3 bins"):
        rates = estimator.forecast(spikes.astype(int), 3)
    assert rates.shape == (24, 3, 12)
    assert rates.dtype == np.float64


def test_validation_scores_include_the_forecast(small, spikes):
    """Weights that make only the forecast worse are not kept as the best ones."""

    class Spoil(Callback):
        def on_epoch_begin(self, net, dataset_train=None, **kwargs):
            if len(net.history) == 3:  # only the forecast depends on them
                with torch.no_grad():
                    net.module_.positions.weight[-5:, ::2] += 40.0

    estimator = small(
        forecast_bins=5,
        max_epochs=6,
        optimizer="adamw",
        lr=1e-4,
        n_iter_no_change=6,
        callbacks=[Spoil()],
    ).fit(spikes)
    bits = estimator.history_[:, "valid_bits"]
    assert max(bits[2:]) < max(bits[:2])
    assert estimator.net_.module_.positions.weight[-5:].abs().max() < 10
