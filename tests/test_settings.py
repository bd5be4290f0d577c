"""Settings from parameters, and \"auto\" from the size of the data."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from sklearn_stndt import BaggingEnsemble, STNDTEstimator
from sklearn_stndt.ensemble.plans import EnsembleSettings
from sklearn_stndt.network import NetworkSettings
from sklearn_stndt.training.objective import ObjectiveSettings
from sklearn_stndt.training.settings import (
    DataSize,
    TrainingSettings,
    auto_batch_size,
    auto_dropout,
    auto_max_epochs,
    auto_n_layers,
    auto_stochastic_depth,
    choose_device,
    choose_window,
    resolve,
)


@pytest.mark.parametrize(
    ("n_windows", "batch_size"), [(1, 1), (15, 15), (16, 16), (500, 16), (501, 32), (9000, 32)]
)
def test_batches_are_small_where_windows_are_few(n_windows, batch_size):
    assert auto_batch_size(n_windows) == batch_size


@pytest.mark.parametrize(
    ("n_bins", "window"), [(4_000, 16), (8_192, 16), (20_000, 50), (40_000, 50)]
)
@pytest.mark.parametrize("overlap", [1, 2])
@pytest.mark.parametrize(
    ("spikes_per_bin", "n_passes"), [(0.0, 25), (0.6, 25), (1.5, 37.5), (2.0, 38), (60.0, 38)]
)
def test_every_bin_is_trained_on_25_to_44_times(n_bins, window, overlap, spikes_per_bin, n_passes):
    n_windows = overlap * n_bins // window
    n_epochs = auto_max_epochs(n_bins, window, n_windows, 16, spikes_per_bin)
    of_an_epoch = n_windows * window / n_bins
    assert n_passes <= n_epochs * of_an_epoch < n_passes + of_an_epoch


@pytest.mark.parametrize(
    ("n_bins", "window", "n_windows", "batch_size", "expected"),
    [
        (5, 5, 1, 1, 130),  # never fewer than 130 updates
        (10**9, 10, 3200, 32, 40),  # never more than 4,000 updates
        (10**9, 10, 10_000_000, 32, 1),  # at least one epoch
        (2_560, 16, 160, 16, 38),
        (2_576, 16, 161, 16, 38),  # the last batch of an epoch may be small
        (10_240, 128, 160, 16, 19),  # windows that overlap by half
    ],
)
def test_number_of_epochs(n_bins, window, n_windows, batch_size, expected):
    assert auto_max_epochs(n_bins, window, n_windows, batch_size, 2.0) == expected


@pytest.mark.parametrize(
    ("n_spikes", "dropout"),
    [(0, 0.2), (1, 0.2), (50_000, 0.2), (250_000, 0.05), (10_000_000, 0.05)],
)
def test_limits_of_dropout(n_spikes, dropout):
    assert auto_dropout(n_spikes) == pytest.approx(dropout)


def test_dropout_falls_with_the_data():
    values = np.array([auto_dropout(n) for n in np.geomspace(50_000, 250_000, 31)])
    assert (np.diff(values) < 0).all()
    assert values[15] == pytest.approx(0.125)


@pytest.mark.parametrize(("n_spikes", "dropout"), [(15_000, 0.2), (75_000, 0.05)])
def test_dropout_of_a_trained_core_falls_earlier(n_spikes, dropout):
    assert auto_dropout(n_spikes, has_core=True) == pytest.approx(dropout)


@pytest.mark.parametrize(("n_bins", "n_layers"), [(0, 3), (24_999, 3), (25_000, 4), (10**9, 4)])
def test_many_bins_get_one_more_layer(n_bins, n_layers):
    assert auto_n_layers(n_bins) == n_layers


@pytest.mark.parametrize(
    ("n_neurons", "spatial_layers", "share"),
    [(1, "last", 0), (127, "last", 0), (128, "last", 0.75), (2_000, "last", 0.75), (128, "all", 0)],
)
def test_spatial_attention_over_many_neurons_is_often_skipped(n_neurons, spatial_layers, share):
    assert auto_stochastic_depth(n_neurons, spatial_layers) == share


def test_a_long_training_has_half_as_many_epochs_again():
    short, long = (resolved(max_epochs=m).training.max_epochs for m in ("auto", "long"))
    assert long == math.ceil(1.5 * short)


def test_a_network_that_learns_rates_trains_twice_as_long():
    counts, rates = (resolved(taught=t).training.max_epochs for t in (False, True))
    assert rates == 2 * counts


@pytest.mark.parametrize(
    ("params", "lr"),
    [
        ({}, 8e-3),
        ({"optimizer": "adamw"}, 3e-3),
        ({"net_params": {"optimizer": torch.optim.SGD}}, 3e-3),
        ({"lr": 0.1}, 0.1),
    ],
)
def test_the_learning_rate_follows_the_optimizer(params, lr):
    assert resolved(**params).training.lr == lr


@pytest.mark.parametrize(
    ("window", "longest", "kind", "expected"),
    [
        (None, 20, "trials", 20),
        (None, 2000, "trials", 2000),
        (None, 512, "groups", 512),
        (None, 513, "groups", 128),  # attention over a whole session would take too much memory
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
def test_the_window_is_as_requested_and_not_longer_than_the_data(
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
def test_auto_chooses_a_gpu_if_available(monkeypatch, available, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert choose_device("auto") == expected


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_a_device_known_to_torch_is_unchanged(device):
    assert choose_device(device) == device


@pytest.mark.parametrize("device", ["abacus", "cuda:99", "cpu:x", "", "meta"])
def test_a_device_that_cannot_be_used_is_refused(device):
    with pytest.raises(ValueError, match=rf"device='{device}' cannot be used here: \w.*'auto'"):
        choose_device(device)


def test_every_parameter_is_a_setting_and_every_setting_a_parameter():
    parameters = set(STNDTEstimator().get_params())
    settings = [
        field.name
        for kind in (NetworkSettings, ObjectiveSettings, TrainingSettings)
        for field in dataclasses.fields(kind)
    ]
    assert sorted(settings) == sorted(parameters)  # each is in exactly one dataclass
    assert parameters == set(STNDTEstimator._parameter_constraints)


def test_parameters_of_an_ensemble_are_its_settings():
    parameters = set(BaggingEnsemble().get_params(deep=False))
    assert parameters == {field.name for field in dataclasses.fields(EnsembleSettings)}
    assert parameters == set(BaggingEnsemble._parameter_constraints)


# values that differ from the defaults, pairs in other containers
OTHER = {
    "n_layers": 2,
    "n_heads": 3,
    "d_model": 9,
    "dim_feedforward": 11,
    "dropout": 0.11,
    "dropout_embedding": 0.12,
    "dropout_rates": 0.13,
    "attention": "temporal",
    "context": np.array([3, 2]),
    "causal": True,
    "local_attention": False,
    "spatial_layers": "all",
    "stochastic_depth": 0.2,
    "n_spatial_heads": 2,
    "d_spatial": 5,
    "input_scaling": "counts",
    "likelihood": "negative_binomial",
    "mask_ratio": np.array([0.1, 0.5]),
    "neuron_mask_ratio": [0.0, 0.9],
    "token_ratio": 0.9,
    "random_ratio": 0.3,
    "forecast_bins": 2,
    "contrastive_weight": 0.1,
    "contrastive_at": "embedding",
    "contrastive_mask_ratio": [0.2, 0.3],
    "contrastive_token_ratio": 0.6,
    "contrastive_random_ratio": 0.7,
    "temperature": 0.2,
    "max_epochs": 3,
    "batch_size": 7,
    "optimizer": "adamw",
    "lr": 0.002,
    "warmup": 0.2,
    "weight_decay": 0.1,
    "early_stopping": False,
    "validation_fraction": 0.3,
    "n_iter_no_change": 4,
    "calibration": False,
    "inference_passes": 2,
    "refit": True,
    "n_threads": 2,
    "precision": "bfloat16",
    "verbose": 1,
    "warm_start": True,
    "checkpoint_dir": "run",
    "callbacks": [],
    "net_params": {},
    "pretrained": "day1.stndt",
    "output": "latents",
}
DECIDED_ELSEWHERE = {"heldout_neurons", "window", "device", "random_state"}


def resolved(taught=False, **params):
    size = DataSize(n_bins=1000, n_neurons=6, n_windows=50, window=20, spikes_per_bin=3.0)
    estimator = STNDTEstimator(**params)
    return resolve(estimator, size, heldout_neurons=(1,), device="cpu", seed=7, taught=taught)


def flat(settings):
    return {k: v for part in vars(settings).values() for k, v in vars(part).items()}


def test_other_values_are_given_for_all_parameters():
    assert OTHER.keys() | DECIDED_ELSEWHERE == STNDTEstimator().get_params().keys()


@pytest.mark.parametrize("name", OTHER)
def test_a_parameter_reaches_its_setting(name):
    value = OTHER[name]
    found = flat(resolved(**{name: value}))[name]
    assert found != flat(resolved())[name] or name in ("callbacks", "net_params")
    pairs = ("context", "mask_ratio", "neuron_mask_ratio", "contrastive_mask_ratio")
    assert found == (tuple(value) if name in pairs else value)


def test_values_decided_elsewhere_reach_the_settings():
    settings = resolved()
    assert settings.objective.heldout_neurons == (1,)
    training = settings.training
    assert (training.window, training.device, training.random_state) == (20, "cpu", 7)


def test_no_auto_is_left():
    assert "auto" not in [v for v in flat(resolved()).values() if isinstance(v, str)]


def test_net_params_take_precedence():
    net_params = {"max_epochs": 3, "lr": 0.5, "mask_ratio": 0.4, "module__d_model": 5}
    found = flat(resolved(max_epochs=9, net_params=net_params))
    assert (found["max_epochs"], found["lr"], found["mask_ratio"], found["d_model"]) == (
        3,
        0.5,
        0.4,
        5,
    )


def test_a_fitted_estimator_shows_what_its_parameters_became(small, spikes):
    estimator = small(n_layers="auto", heldout_neurons=2, context=np.array([5, 1])).fit(spikes)
    settings = estimator.settings_
    assert settings.network.n_layers == 3
    assert settings.network.context == (5, 1)
    assert settings.objective.heldout_neurons == tuple(estimator.heldout_neurons_)
    assert settings.training.window == estimator.window_ == 20
    module = estimator.net_.module_
    assert module.settings == settings.network
    assert estimator.net_.objective == settings.objective
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.network.n_layers = 4
