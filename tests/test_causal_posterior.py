"""Factor analysis of causal networks: a filter with constant gains."""

import numpy as np
import pytest
import torch

from sklearn_stndt import BaggingEnsemble, STNDTEstimator, load, save
from sklearn_stndt.datasets import make_reaches
from sklearn_stndt.network import CausalPosterior, LatentPosterior
from sklearn_stndt.network.likelihood import LIKELIHOODS, Poisson, Statistics
from sklearn_stndt.streaming import RateStream
from sklearn_stndt.training.calibration import shares_of

N_WINDOWS, N_BINS, N_NEURONS = 60, 12, 15
NOBODY = torch.zeros(N_NEURONS, dtype=torch.bool)


@pytest.fixture(scope="module")
def log_rates():
    """Log-rates of two smooth latents."""
    rng = np.random.default_rng(0)
    bins = np.arange(N_BINS)
    root = np.linalg.cholesky(np.exp(-((bins[:, None] - bins) ** 2) / 18) + 1e-6 * np.eye(N_BINS))
    latents = np.einsum("ts,bsk->btk", root, rng.normal(size=(N_WINDOWS, N_BINS, 2)))
    loadings = rng.normal(size=(N_NEURONS, 2)) * 0.6
    return torch.from_numpy((latents @ loadings.T - 0.5).astype(np.float32))


@pytest.fixture(scope="module")
def spikes(log_rates):
    return torch.poisson(log_rates.exp(), generator=torch.Generator().manual_seed(0))


def smoother_of(readout, likelihood):
    return LatentPosterior.of(readout, torch.ones_like(readout, dtype=torch.bool), likelihood)


@pytest.fixture(scope="module")
def smoother(log_rates):
    return smoother_of(log_rates, Poisson())


@pytest.fixture(scope="module")
def trials():
    return make_reaches(n_trials=90, n_bins=25, n_neurons=25, random_state=0)


@pytest.fixture(scope="module")
def fitted(trials):
    return STNDTEstimator(causal=True, max_epochs=15, random_state=0).fit(trials.spikes[:70])


@pytest.mark.parametrize("n_hidden", [0, 5])
def test_with_gaussian_noise_it_is_the_posterior_mean_given_the_bins_so_far(log_rates, n_hidden):
    ones = torch.ones(N_NEURONS)
    likelihood = LIKELIHOODS["gaussian"]().fresh(N_NEURONS).requires_grad_(False)
    likelihood.begin(Statistics(ones, 0 * ones, ones, 1.5 * ones, 0.5 * ones))
    noise = torch.randn(log_rates.shape, generator=torch.Generator().manual_seed(0))
    values = likelihood.mean(log_rates + noise)
    posterior = smoother_of(log_rates, likelihood)
    hidden = torch.arange(N_NEURONS) < n_hidden
    visible = (~hidden).expand(values.shape)
    found = CausalPosterior.filtering(posterior, hidden, False).estimate(
        log_rates, values, visible, likelihood
    )

    center, loadings, mean, trajectories = (
        getattr(posterior, name).double().numpy()
        for name in ("center", "loadings", "mean", "trajectories")
    )
    precision = float(likelihood.information(torch.zeros(N_NEURONS))[0])
    base = center + mean @ loadings.T
    deviations = likelihood.link(values).double().numpy() - base
    courses = np.einsum("jtk,nk->jtn", trajectories, loadings)
    for t in range(N_BINS):
        known = courses[:, : t + 1, n_hidden:].reshape(len(courses), -1)
        given = deviations[:, : t + 1, n_hidden:].reshape(N_WINDOWS, -1)
        inverse = np.eye(len(known)) + precision * known @ known.T
        amplitudes = np.linalg.solve(inverse, precision * known @ given.T).T
        expected = base[t] + amplitudes @ courses[:, t]
        expected = np.clip(expected, posterior.lowest.numpy(), posterior.highest.numpy())
        np.testing.assert_allclose(found[:, t], expected, atol=2e-4)


def test_it_is_better_than_the_mean_and_the_smoother_better_than_it(log_rates, spikes, smoother):
    everywhere = torch.ones_like(spikes, dtype=torch.bool)
    arguments = log_rates.mean((0, 1)).expand(log_rates.shape), spikes, everywhere, Poisson()
    causal = CausalPosterior.filtering(smoother, NOBODY, False)
    errors = [
        float((estimates - log_rates).square().mean())
        for estimates in (
            smoother.estimate(*arguments),
            causal.estimate(*arguments),
            log_rates.mean((0, 1)),
        )
    ]
    assert errors[0] < errors[1] < 0.5 * errors[2]


@pytest.mark.parametrize("n_bins", [1, 2, 11, 12])
def test_in_a_recording_the_older_of_two_filters_is_used(log_rates, spikes, smoother, n_bins):
    smoother = smoother_of(log_rates[:, :n_bins], Poisson())
    posterior = CausalPosterior.filtering(smoother, NOBODY, restarts=n_bins > 1)
    once = CausalPosterior.filtering(smoother, NOBODY, restarts=False)
    rows = spikes[:4, :11].flatten(0, 1)[None]  # (1, 44, n_neurons)
    network = torch.full_like(rows, -9.0)
    visible = torch.ones_like(rows, dtype=torch.bool)
    found = posterior.estimate(network, rows, visible, Poisson())[0]
    half = n_bins // 2
    for t in range(rows.shape[1]):
        if n_bins == 1:
            first, alone = 0, t > 0
        else:
            first, alone = max(t // half - 1, 0) * half, False
        part = slice(first, t + 1)
        if alone:
            expected = network[0, t]
        else:
            expected = once.estimate(network[:, part], rows[:, part], visible[:, part], Poisson())
            expected = expected[0, -1]
        torch.testing.assert_close(found[t], expected)


def test_after_the_window_of_a_trial_log_rates_are_those_of_the_network(spikes, smoother):
    posterior = CausalPosterior.filtering(smoother, NOBODY, False)
    longer = torch.cat([spikes, spikes], 1)
    visible = torch.ones_like(longer, dtype=torch.bool)
    network = torch.randn(longer.shape, generator=torch.Generator().manual_seed(0))
    found = posterior.estimate(network, longer, visible, Poisson())
    assert torch.equal(found[:, N_BINS:], network[:, N_BINS:])
    assert (found[:, :N_BINS] != network[:, :N_BINS]).all()


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("scale", [0.0, 1e6])
def test_estimates_are_finite(spikes, smoother, restarts, scale):
    posterior = CausalPosterior.filtering(smoother, NOBODY, restarts)
    visible = torch.ones_like(spikes, dtype=torch.bool)
    visible[0] = False
    found = posterior.estimate(torch.zeros_like(spikes), scale * spikes, visible, Poisson())
    assert found.isfinite().all()
    assert (found >= posterior.lowest).all()
    assert (found <= posterior.highest).all()


def test_a_causal_fit_chooses_a_share_and_its_rates_improve(fitted, trials):
    posterior = fitted.net_.module_.posterior
    assert isinstance(posterior, CausalPosterior)
    assert not posterior.restarts
    share = posterior.weight.clone()
    assert (share > 0).all()
    errors = []
    try:
        for factor in (1.0, 0.0):
            posterior.weight.copy_(factor * share)
            errors.append(np.square(fitted.transform(trials.spikes) - trials.rates)[70:].mean())
    finally:
        posterior.weight.copy_(share)
    assert errors[0] < 0.95 * errors[1]


def test_it_is_saved_with_the_estimator(fitted, trials, tmp_path):
    save(fitted, tmp_path / "trials.stndt")
    loaded = load(tmp_path / "trials.stndt")
    spikes = trials.spikes[70:]
    np.testing.assert_array_equal(loaded.transform(spikes), fitted.transform(spikes))


@pytest.fixture(scope="module")
def recording(trials):
    rows = trials.spikes[:40].reshape(-1, 25)
    return STNDTEstimator(causal=True, max_epochs=4, window=20, random_state=0).fit(rows)


def test_filters_of_a_recording_begin_anew_after_loading_too(recording, trials, tmp_path):
    assert recording.net_.module_.posterior.restarts
    assert 0 < shares_of(recording.net_)["heldin"] <= 0.3 + 1e-6
    save(recording, tmp_path / "recording.stndt")
    loaded = load(tmp_path / "recording.stndt")
    assert loaded.net_.module_.posterior.restarts
    rows = trials.spikes[40:50].reshape(-1, 25)
    np.testing.assert_array_equal(loaded.transform(rows), recording.transform(rows))


def test_a_stream_of_a_fitted_network_infers_what_transform_does(fitted, recording, trials):
    for estimator, X in (
        (fitted, trials.spikes[80]),
        (recording, trials.spikes[80:].reshape(-1, 25)),
    ):
        stream = RateStream(estimator)
        rates = [stream.step(counts) for counts in X]
        np.testing.assert_allclose(rates, estimator.transform(X[None])[0], rtol=2e-5)


def test_a_distilled_causal_network_has_a_share(trials):
    ensemble = BaggingEnsemble(
        STNDTEstimator(causal=True, max_epochs=4, n_layers=1), 2, random_state=0
    ).fit(trials.spikes[:40])
    student = ensemble.distill(trials.spikes[:40])
    assert isinstance(student.net_.module_.posterior, CausalPosterior)
    assert shares_of(student.net_)["heldin"] > 0
