"""Log-rates averaged over passes, in each of which a part of the visible entries is hidden."""

import numpy as np
import pytest
import torch

from sklearn_stndt import load, save
from sklearn_stndt.network import inference_masks


@pytest.fixture(scope="module")
def fitted(spikes, small):
    return small(calibration=False).fit(spikes)


def test_log_rates_and_latents_are_means_over_passes(fitted, spikes):
    net = fitted.net_
    counts = torch.tensor(spikes, dtype=torch.float32)
    visible = torch.ones_like(counts, dtype=torch.bool)
    visible[:, :, 0] = False
    with torch.no_grad():
        averaged = net.infer(counts, visible)
        alone = [net.module_(counts, visible & shown) for shown in inference_masks(20, 12, 4)]
    for name in ("log_rates", "latents"):
        mean = sum(getattr(output, name) for output in alone) / 4
        torch.testing.assert_close(getattr(averaged, name), mean)
    hidden = spikes.copy()
    hidden[:, :, 0] = np.nan
    np.testing.assert_allclose(
        fitted.transform(hidden), averaged.log_rates.exp(), rtol=1e-5, atol=1e-7
    )


def test_rates_of_a_trial_do_not_depend_on_others(fitted, spikes):
    alone = fitted.transform(spikes[3:4])
    np.testing.assert_allclose(alone, fitted.transform(spikes)[3:4], rtol=1e-5)


def test_a_saved_model_averages_as_before(fitted, spikes, tmp_path):
    save(fitted, tmp_path / "model.stndt")
    loaded = load(tmp_path / "model.stndt")
    np.testing.assert_array_equal(loaded.transform(spikes), fitted.transform(spikes))


def test_one_pass_is_the_network_itself(small, spikes, fitted):
    alone = small(inference_passes=1, calibration=False).fit(spikes)
    weights = (one.net_.module_.embed.weight for one in (alone, fitted))
    torch.testing.assert_close(*weights, rtol=0, atol=0)  # training is the same
    counts = torch.tensor(spikes, dtype=torch.float32)
    with torch.no_grad():
        log_rates = alone.net_.module_(counts, torch.ones_like(counts, dtype=torch.bool)).log_rates
    np.testing.assert_allclose(alone.transform(spikes), log_rates.exp(), rtol=1e-5, atol=1e-7)
    assert not np.allclose(alone.transform(spikes), fitted.transform(spikes), rtol=1e-3)


@pytest.mark.parametrize("n_passes", [0, 2.5, "three"])
def test_other_numbers_are_refused(small, spikes, n_passes):
    with pytest.raises(ValueError, match="'inference_passes' parameter"):
        small(inference_passes=n_passes).fit(spikes)
    with pytest.raises(ValueError, match="inference_passes must be a whole number from 1 on"):
        small(net_params={"inference_passes": n_passes}).fit(spikes)


@pytest.mark.parametrize(
    "given", [{"inference_passes": 3}, {"net_params": {"inference_passes": 2}}]
)
def test_a_causal_network_has_one_pass(small, spikes, given):
    assert small(causal=True).fit(spikes).settings_.training.inference_passes == 1
    with pytest.raises(ValueError, match="a causal network infers each bin once"):
        small(causal=True, **given).fit(spikes)


def test_a_causal_core_has_one_pass(small, spikes):
    day1 = small(causal=True).fit(spikes)
    assert day1.adapt(spikes[:, :, 1:]).settings_.training.inference_passes == 1
