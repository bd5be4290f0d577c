"""Neurons that a fitted network has not seen, added from a few trials."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from sklearn_stndt import STNDTEstimator
from sklearn_stndt.datasets import make_reaches
from sklearn_stndt.metrics import bits_per_spike
from sklearn_stndt.persistence import load, save
from sklearn_stndt.training.readout import average_heldout, fit_readout
from sklearn_stndt.windows.cutting import cut
from sklearn_stndt.windows.segments import as_segments

N_KNOWN, N_NEW = 20, 10
SMALL = {"max_epochs": 40, "attention": "temporal", "random_state": 0}


@pytest.fixture(scope="module")
def spikes():
    return make_reaches(80, 25, N_KNOWN + N_NEW, bin_width=0.04, random_state=0).spikes


@pytest.fixture(scope="module")
def known(spikes):
    """Network of the first neurons, trained on the first 50 trials."""
    return STNDTEstimator(**SMALL).fit(spikes[:50, :, :N_KNOWN])


def test_new_neurons_are_predicted_and_the_known_ones_stay_as_they_are(known, spikes):
    before = pickle.dumps(known)
    extended = known.add_neurons(spikes[:8])
    assert pickle.dumps(known) == before
    rates, old = extended.transform(spikes[50:]), known.transform(spikes[50:, :, :N_KNOWN])
    np.testing.assert_allclose(rates[..., :N_KNOWN], old, rtol=1e-4)
    means = spikes[:8, :, N_KNOWN:].mean((0, 1)).clip(1e-3) + 0 * rates[..., N_KNOWN:]
    score, of_means = (
        bits_per_spike(spikes[50:, :, N_KNOWN:], r) for r in (rates[..., N_KNOWN:], means)
    )
    assert score > of_means + 0.05
    assert score > 0.05
    assert extended.score(spikes[50:]) == pytest.approx(score)


def test_new_neurons_influence_no_rates(known, spikes):
    extended = known.add_neurons(spikes[:3])
    changed = spikes[50:].astype(float)
    changed[..., N_KNOWN:] = np.nan
    changed[:4, :, N_KNOWN:] = 9
    assert np.array_equal(extended.transform(spikes[50:]), extended.transform(changed))
    assert extended.heldout_neurons_.tolist() == list(range(N_KNOWN, N_KNOWN + N_NEW))


@pytest.mark.parametrize("trials", [1, 4])
def test_few_trials_are_better_than_the_mean_rates_in_them(known, spikes, trials):
    new, test = spikes[:trials, :, N_KNOWN:], spikes[50:, :, N_KNOWN:]
    rates = known.add_neurons(spikes[:trials]).transform(spikes[50:])[..., N_KNOWN:]
    means = np.maximum(new.mean((0, 1)), 0.5 / new[..., 0].size) + 0 * rates
    assert bits_per_spike(test, rates) > bits_per_spike(test, means) + 0.05


def test_without_spikes_a_row_is_the_mean_of_the_known_rows_but_for_its_bias(known):
    readout = known.net_.module_.readout
    latents = np.zeros((4, 64))
    weight, bias = fit_readout(readout, latents, np.zeros((4, 1)))
    mean = (readout.gain[:, None] * readout.weight).mean(0)
    np.testing.assert_allclose(weight[0], mean.detach(), atol=1e-6)
    assert bias[0] < (readout.gain * readout.bias + readout.shift).mean()


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"heldout_neurons": [2, 5]},
        {"causal": True},
        {"spatial_layers": "all", "input_scaling": "counts"},
    ],
)
def test_every_kind_of_network_can_grow(spikes, params, tmp_path):
    shown = spikes[:12, :, :N_KNOWN]
    network = STNDTEstimator(max_epochs=1, random_state=0, **params).fit(shown)
    missing = spikes[:4].astype(float)
    missing[0, 3:7], missing[1, :, N_KNOWN] = np.nan, np.nan
    extended = network.add_neurons(missing)
    rates = extended.transform(spikes[:12])
    np.testing.assert_allclose(rates[..., :N_KNOWN], network.transform(shown), rtol=1e-4)
    again = extended.add_neurons(np.concatenate([spikes[:2], spikes[:2, :, :1]], axis=2))
    assert again.transform(np.concatenate([spikes[:2], spikes[:2, :, :1]], 2)).shape[2] == 31
    path = tmp_path / "extended.stndt"
    save(extended, path)
    assert np.array_equal(load(path).transform(spikes[:12]), rates)
    assert np.array_equal(pickle.loads(pickle.dumps(extended)).transform(spikes[:12]), rates)


def test_one_known_neuron_and_one_bin_suffice():
    counts = np.random.RandomState(0).poisson(1.0, (30, 5, 3))
    network = STNDTEstimator(max_epochs=1, random_state=0).fit(counts[..., :1])
    assert np.isfinite(network.add_neurons(counts[:1, :1]).transform(counts)).all()
    silent = np.zeros_like(counts[:2])
    assert np.isfinite(network.add_neurons(silent).transform(counts)).all()


def test_names_are_those_of_all_neurons(spikes):
    table = pd.DataFrame(spikes[:12].reshape(-1, 30), columns=[f"n{i}" for i in range(30)])
    network = STNDTEstimator(max_epochs=1, window=25).fit(table.iloc[:, :N_KNOWN])
    assert network.add_neurons(table).get_feature_names_out().tolist() == list(table.columns)
    with pytest.raises(ValueError, match="neurons of X must be those of fit, in the same order"):
        network.add_neurons(table.iloc[:, ::-1])


def test_what_cannot_be_added_is_refused(known, spikes):
    with pytest.raises(ValueError, match="X has 20 neurons, and STNDTEstimator was fitted on 20"):
        known.add_neurons(spikes[..., :N_KNOWN])
    unknown = spikes[:4].astype(float)
    unknown[..., 25] = np.nan
    with pytest.raises(ValueError, match=r"Neurons \[25\] are NaN everywhere in X"):
        known.add_neurons(unknown)
    for params, message in (
        ({"d_model": None}, "one channel per neuron"),
        ({"likelihood": "gaussian"}, "likelihood='gaussian'. Use adapt"),
    ):
        network = STNDTEstimator(max_epochs=1, **params).fit(spikes[:12, :, :N_KNOWN])
        with pytest.raises(ValueError, match=message):
            network.add_neurons(spikes[:4])


def log_rates_and_latents(net, counts):
    batch = net.split_visible(torch.as_tensor(counts))
    with torch.no_grad():
        output = net.infer(batch.spikes, batch.visible)
    return output.log_rates.numpy(), output.latents.numpy()


def holding_out(net, neurons):
    """Copy of a net without a posterior that hides these neurons."""
    net = copy.deepcopy(net)
    net.objective = replace(net.objective, heldout_neurons=neurons)
    net.module_.posterior = None
    net.module_.readout.gain.fill_(0.8)
    return net


def test_readout_of_held_out_neurons_is_averaged_with_a_regression_on_latents(known, spikes):
    counts = spikes[:6, :, :N_KNOWN].astype(np.float32)
    counts[0, :5] = np.nan  # no bin to learn from
    counts[1, :5, 4] = np.nan
    net, heldout = holding_out(known.net_, (1, 4)), [1, 4]
    before, latents = log_rates_and_latents(net, counts)
    heldin = copy.deepcopy(net.module_.readout)
    rest = np.setdiff1d(np.arange(N_KNOWN), heldout)
    for name in ("weight", "bias", "gain", "shift"):
        getattr(heldin, name).data = getattr(heldin, name).data[rest]
    rows, of_heldout = latents.reshape(-1, latents.shape[-1]), counts[..., heldout].reshape(-1, 2)
    weight, bias = fit_readout(heldin, rows, of_heldout)
    average_heldout(net, cut(as_segments(counts), 25, 25))
    after, _ = log_rates_and_latents(net, counts)
    expected = (before[..., heldout] + latents @ weight.T + bias) / 2
    np.testing.assert_allclose(after[..., heldout], expected, atol=1e-3)
    assert abs(after - before)[..., heldout].max() > 0.05
    np.testing.assert_array_equal(after[..., rest], before[..., rest])


@pytest.mark.parametrize("neurons", [(), tuple(range(16))])
def test_without_neurons_for_a_prior_the_readout_stays(known, spikes, neurons):
    net = holding_out(known.net_, neurons)
    before = net.module_.readout.weight.detach().clone()
    average_heldout(net, cut(as_segments(spikes[:3, :, :N_KNOWN].astype(float)), 25, 25))
    assert torch.equal(net.module_.readout.weight, before)
