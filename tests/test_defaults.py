import numpy as np
import pytest
import torch

from sklearn_stndt.training.defaults import (
    auto_batch_size,
    auto_dropout,
    auto_max_epochs,
    auto_n_layers,
    auto_patience,
    auto_stochastic_depth,
    choose_device,
    choose_window,
)


@pytest.mark.parametrize(
    ("n_windows", "batch_size"), [(1, 1), (15, 15), (16, 16), (500, 16), (501, 32), (9000, 32)]
)
def test_batches_are_small_where_windows_are_few(n_windows, batch_size):
    assert auto_batch_size(n_windows) == batch_size


@pytest.mark.parametrize(
    ("n_bins", "window"), [(4_000, 25), (8_192, 32), (20_000, 100), (40_000, 50)]
)
@pytest.mark.parametrize("overlap", [1, 2])
@pytest.mark.parametrize(
    ("spikes_per_bin", "n_passes"), [(0.0, 100), (0.6, 100), (1.5, 150), (2.0, 200), (60.0, 200)]
)
def test_every_bin_is_seen_100_to_200_times(n_bins, window, overlap, spikes_per_bin, n_passes):
    n_windows = overlap * n_bins // window
    n_epochs = auto_max_epochs(n_bins, window, n_windows, 16, spikes_per_bin)
    n_updates = n_epochs * np.ceil(n_windows / 16)
    of_an_epoch = np.ceil(n_windows / 16) * 16 * window / n_bins
    assert n_passes <= n_updates * 16 * window / n_bins < n_passes + of_an_epoch


@pytest.mark.parametrize(
    ("n_bins", "window", "n_windows", "batch_size", "expected"),
    [
        (5, 5, 1, 1, 400),  # never fewer than 400 updates
        (10**9, 10, 3200, 32, 120),  # nor more than 12,000
        (10**9, 10, 10_000_000, 32, 1),  # but an epoch at least
        (2_560, 16, 160, 16, 200),
        (2_576, 16, 161, 16, 183),  # the last batch of an epoch may be small
        (10_240, 128, 160, 16, 100),  # windows that overlap by half
    ],
)
def test_number_of_epochs(n_bins, window, n_windows, batch_size, expected):
    assert auto_max_epochs(n_bins, window, n_windows, batch_size, 2.0) == expected


@pytest.mark.parametrize(
    ("n_bins", "dropout"),
    [(0, 0.4), (1, 0.4), (5_000, 0.4), (40_000, 0.2), (10_000_000, 0.1)],
)
def test_limits_of_dropout(n_bins, dropout):
    assert auto_dropout(n_bins) == pytest.approx(dropout)


def test_dropout_falls_with_the_data():
    values = np.array([auto_dropout(n) for n in np.geomspace(5_000, 110_000, 30)])
    assert (np.diff(values) < 0).all()
    assert values[15] == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(("n_bins", "n_layers"), [(0, 3), (24_999, 3), (25_000, 4), (10**9, 4)])
def test_many_bins_get_a_layer_more(n_bins, n_layers):
    assert auto_n_layers(n_bins) == n_layers


@pytest.mark.parametrize(
    ("n_neurons", "spatial_layers", "share"),
    [(1, "last", 0), (127, "last", 0), (128, "last", 0.75), (2_000, "last", 0.75), (128, "all", 0)],
)
def test_many_neurons_are_mixed_in_a_part_of_the_passes(n_neurons, spatial_layers, share):
    assert auto_stochastic_depth(n_neurons, spatial_layers) == share


@pytest.mark.parametrize(("max_epochs", "patience"), [(1, 10), (30, 10), (36, 12), (300, 100)])
def test_patience_is_a_third_of_the_training(max_epochs, patience):
    assert auto_patience(max_epochs) == patience


@pytest.mark.parametrize(
    ("window", "longest", "kind", "expected"),
    [
        (None, 20, "trials", 20),
        (None, 2000, "trials", 2000),
        (None, 512, "groups", 512),
        (None, 513, "groups", 128),  # attention over a session would take all memory
        (None, 500, "recording", 128),
        (None, 20, "recording", 20),
        (8, 20, "trials", 8),
        (8, 2000, "groups", 8),
        (8, 20, "recording", 8),
        (100, 20, "trials", 20),
        (1000, 2000, "groups", 1000),
        (100, 20, "recording", 20),
    ],
)
@pytest.mark.parametrize("forecast_bins", [0, 5, 7])
def test_window_is_what_is_wanted_and_no_longer_than_the_data(
    window, longest, kind, forecast_bins, expected
):
    assert choose_window(window, longest, kind, forecast_bins) == expected


@pytest.mark.parametrize(
    ("window", "longest", "forecast_bins"), [(None, 20, 20), (8, 20, 9), (100, 20, 25), (1, 9, 1)]
)
def test_a_forecast_of_a_whole_window_is_refused(window, longest, forecast_bins):
    n_bins = min(window or longest, longest)
    message = f"forecast_bins={forecast_bins} leaves nothing of a window of {n_bins} bins"
    with pytest.raises(ValueError, match=message):
        choose_window(window, longest, "trials", forecast_bins)


def test_a_window_of_one_bin_needs_no_forecast():
    assert choose_window(1, 9, "trials", 0) == 1


@pytest.mark.parametrize(("available", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_a_gpu_where_there_is_one(monkeypatch, available, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert choose_device("auto") == expected


@pytest.mark.parametrize("device", ["cpu", "cpu:0", "meta"])
def test_a_device_that_torch_finds_stays_as_it_is(device):
    assert choose_device(device) == device


@pytest.mark.parametrize("device", ["abacus", "cuda:99", "cpu:x", ""])
def test_a_device_that_cannot_be_used_is_refused(device):
    with pytest.raises(ValueError, match=rf"device='{device}' cannot be used here: \w.*'auto'"):
        choose_device(device)
