"""Log-rates by Gaussian-process factor analysis, and their share in the network's."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from sklearn_stndt import STNDTEstimator, load, save
from sklearn_stndt.datasets import make_reaches
from sklearn_stndt.network import STNDT, LatentPosterior
from sklearn_stndt.network.likelihood import LIKELIHOODS, Poisson, Statistics
from sklearn_stndt.network.posterior import _components
from sklearn_stndt.training.calibration import calibrate, posterior_of, shares_of
from sklearn_stndt.windows.cutting import cut
from sklearn_stndt.windows.segments import as_segments

N_WINDOWS, N_BINS, N_NEURONS = 60, 20, 15
POISSON = Poisson()
WITH_DERIVATIVES = ["poisson", "negative_binomial", "gaussian"]


class AnotherLoss(Poisson):
    """A likelihood whose derivatives are not known."""

    def nll(self, readout, values):
        return 2 * super().nll(readout, values)


@pytest.fixture(scope="module")
def generated():
    """Smooth latents, their log-rates and counts."""
    rng = np.random.default_rng(0)
    bins = np.arange(N_BINS)
    covariance = np.exp(-((bins[:, None] - bins) ** 2) / 18)
    root = np.linalg.cholesky(covariance + 1e-6 * np.eye(N_BINS))
    latents = np.einsum("ts,bsk->btk", root, rng.normal(size=(N_WINDOWS, N_BINS, 2)))
    loadings = rng.normal(size=(N_NEURONS, 2)) * 0.6
    log_rates = (latents @ loadings.T - 0.5).astype(np.float32)
    spikes = rng.poisson(np.exp(log_rates)).astype(np.float32)
    return torch.from_numpy(log_rates), torch.from_numpy(spikes)


@pytest.fixture(scope="module")
def trials():
    return make_reaches(n_trials=90, n_bins=25, n_neurons=25, random_state=0)


@pytest.fixture(scope="module")
def fitted(trials):
    model = STNDTEstimator(max_epochs=25, random_state=0)
    return model.fit(trials.spikes[:70])


def test_components_are_those_of_the_log_rates(generated):
    log_rates, spikes = generated
    posterior = LatentPosterior.of(log_rates, torch.ones_like(spikes, dtype=torch.bool), POISSON)
    deviations = (log_rates - posterior.center) * posterior.rates.sqrt()
    latents = (log_rates - posterior.center) @ (posterior.rates[:, None] * posterior.loadings)
    # two latents explain all, so two components do
    torch.testing.assert_close(
        latents[..., :2].square().sum(), deviations.square().sum(), rtol=1e-4, atol=0
    )
    assert latents[..., 2:].abs().max() < 1e-3 * latents.abs().max()
    assert (posterior.highest > log_rates.amax((0, 1))).all()
    assert (posterior.lowest < log_rates.amin((0, 1))).all()


@pytest.mark.parametrize("n_basis", [20, 14])
def test_the_prior_covariance_is_stationary_and_observed(generated, monkeypatch, n_basis):
    monkeypatch.setattr("sklearn_stndt.network.posterior.LEAST_INFORMED", 0.0)
    monkeypatch.setattr("sklearn_stndt.network.posterior.MOST_BASIS", n_basis)
    log_rates, spikes = generated
    known = torch.ones_like(spikes, dtype=torch.bool)
    known[:20, 15:] = False
    posterior = LatentPosterior.of(log_rates, known, POISSON)
    n_latents = 2
    latents = (log_rates - posterior.center) @ (posterior.rates[:, None] * posterior.loadings)
    latents = (latents - posterior.mean)[..., :n_latents].double().numpy()
    seen = known[..., 0].numpy()
    observed = np.zeros((N_BINS, n_latents, N_BINS, n_latents))
    sums, counts = {}, {}
    for t in range(N_BINS):
        for u in range(N_BINS):
            both = seen[:, t] & seen[:, u]
            product = latents[both, t].T @ latents[both, u]
            observed[t, :, u] = product / both.sum()
            sums[u - t] = sums.get(u - t, 0.0) + product
            counts[u - t] = counts.get(u - t, 0) + both.sum()
    stationary = np.zeros_like(observed)
    for t in range(N_BINS):
        for u in range(N_BINS):
            lag = u - t
            stationary[t, :, u] = sums[lag] / counts[lag] * (1 - abs(lag) / N_BINS)
    expected = 1.5 * (100 * stationary + N_WINDOWS * observed) / (100 + N_WINDOWS)
    trajectories = posterior.trajectories[..., :n_latents].numpy()
    found = np.einsum("jtk,jul->tkul", trajectories, trajectories)
    # the courses of these latents are smooth, so fewer functions of time than bins compose them
    np.testing.assert_allclose(found, expected, atol=0.02 * expected.max())


def test_bins_without_counts_have_no_part_in_it(generated):
    log_rates, spikes = generated
    known = torch.ones_like(spikes, dtype=torch.bool)
    known[::2, 12:] = False
    padded = log_rates.clone()
    padded[::2, 12:] = 7.0
    found, expected = (LatentPosterior.of(one, known, POISSON) for one in (padded, log_rates))
    for name, values in found.named_buffers():
        torch.testing.assert_close(values, getattr(expected, name))


def test_steps_lead_to_the_most_likely_latents(generated, monkeypatch):
    monkeypatch.setattr("sklearn_stndt.network.posterior.N_STEPS", 300)
    log_rates, spikes = generated
    visible = torch.rand(spikes.shape, generator=torch.Generator().manual_seed(0)) < 0.8
    posterior = LatentPosterior.of(log_rates, torch.ones_like(visible), POISSON).double()
    start = torch.zeros(1, N_BINS, N_NEURONS, dtype=torch.float64)
    counts, shown = spikes[:1].double(), visible[:1]
    found = posterior.estimate(start, counts, shown, POISSON)

    trajectories = posterior.trajectories.flatten(1).numpy()
    base = (posterior.center + posterior.mean @ posterior.loadings.T).numpy()

    def log_rates_of(flat):
        latents = (flat @ trajectories).reshape(posterior.mean.shape)
        return base + latents @ posterior.loadings.numpy().T

    def loss(flat):
        r, s, v = log_rates_of(flat), counts[0].numpy(), shown[0].numpy()
        value = ((np.exp(r) - s * r) * v).sum() + 0.5 * flat @ flat
        score = ((np.exp(r) - s) * v) @ posterior.loadings.numpy()
        return value, trajectories @ score.ravel() + flat

    start = np.zeros(len(trajectories))
    best = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000})
    expected = np.clip(log_rates_of(best.x), posterior.lowest.numpy(), posterior.highest.numpy())
    np.testing.assert_allclose(found[0].numpy(), expected, atol=5e-3)


def test_it_improves_noisy_log_rates(generated):
    log_rates, spikes = generated
    everything = torch.ones_like(spikes, dtype=torch.bool)
    posterior = LatentPosterior.of(log_rates[:40], everything[:40], POISSON)
    noisy = log_rates + 0.5 * torch.randn(spikes.shape, generator=torch.Generator().manual_seed(0))
    posterior.weight.fill_(0.5)
    mixed = posterior(noisy, spikes, everything, POISSON)

    def error(one):
        return (one - log_rates)[40:].square().mean()

    assert error(mixed) < 0.5 * error(noisy)
    posterior.weight.zero_()
    torch.testing.assert_close(posterior(noisy, spikes, everything, POISSON), noisy)


@pytest.mark.parametrize("name", WITH_DERIVATIVES)
def test_visible_entries_of_any_likelihood_say_what_hidden_ones_are(generated, name):
    readout, _ = generated
    ones = torch.ones(N_NEURONS)
    likelihood = LIKELIHOODS[name]().fresh(N_NEURONS).requires_grad_(False)
    likelihood.begin(Statistics(ones, 0 * ones, ones, 1.5 * ones, 0.5 * ones))
    drawn = likelihood.sample(likelihood.mean(readout).double().numpy(), np.random.RandomState(0))
    values = torch.as_tensor(drawn).float()
    visible = torch.rand(values.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    posterior = LatentPosterior.of(readout[:40], torch.ones_like(visible[:40]), likelihood)
    start = posterior.center.expand(values.shape)
    estimate = posterior.estimate(start, values, visible, likelihood)

    def gain(one, best):
        nll = likelihood.nll(one, values)[40:]
        return (nll - likelihood.nll(best, values)[40:])[~visible[40:]].mean()

    assert gain(start, estimate) > 0.4 * gain(start, readout) > 0
    extreme = posterior.estimate(start, 1e6 * values, visible, likelihood)
    assert extreme.isfinite().all()


def test_hidden_counts_and_other_windows_do_not_matter(generated):
    log_rates, spikes = generated
    visible = torch.rand(spikes.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    posterior = LatentPosterior.of(log_rates, torch.ones_like(visible), POISSON)
    expected = posterior.estimate(log_rates, spikes, visible, POISSON)
    changed = torch.where(visible, spikes, 9.0)
    torch.testing.assert_close(posterior.estimate(log_rates, changed, visible, POISSON), expected)
    alone = posterior.estimate(log_rates[3:4], spikes[3:4], visible[3:4], POISSON)
    torch.testing.assert_close(alone, expected[3:4], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [0.0, 1e3, 1e6])
def test_estimates_are_finite(generated, scale):
    log_rates, spikes = generated
    visible = torch.ones_like(spikes, dtype=torch.bool)
    posterior = LatentPosterior.of(log_rates, visible, POISSON)
    found = posterior.estimate(log_rates, scale * spikes, visible, POISSON)
    assert found.isfinite().all()
    assert (found <= log_rates.amax((0, 1)) + 0.51).all()
    assert posterior.estimate(log_rates, spikes, ~visible, POISSON).isfinite().all()
    silent = torch.full_like(log_rates, -80.0)
    posterior = LatentPosterior.of(silent, visible, POISSON)
    assert posterior.estimate(silent, spikes, visible, POISSON).isfinite().all()


@pytest.fixture
def gaussian(generated):
    """A posterior with a Gaussian likelihood, its values, and the windows and bins that count."""
    readout, _ = generated
    ones = torch.ones(N_NEURONS)
    likelihood = LIKELIHOODS["gaussian"]().fresh(N_NEURONS).requires_grad_(False)
    likelihood.begin(Statistics(ones, 0 * ones, ones, 1.5 * ones, 0.5 * ones))
    generator = torch.Generator().manual_seed(0)
    values = likelihood.mean(readout + torch.randn(readout.shape, generator=generator))
    known = torch.rand(values.shape, generator=generator) < 0.9
    known[::3, 15:] = False
    return LatentPosterior.of(readout, known, likelihood), likelihood, values, known


def test_a_refinement_is_expectation_maximisation(generated, gaussian):
    readout, _ = generated
    posterior, likelihood, values, known = gaussian
    center, loadings, mean, trajectories = (
        getattr(posterior, name).double().numpy()
        for name in ("center", "loadings", "mean", "trajectories")
    )
    n_latents = loadings.shape[1]
    precision = float(
        likelihood.information(torch.zeros(N_NEURONS))[0]
    )  # of noise, the same for all
    of_readout = likelihood.link(values).double().numpy()
    shown = known.numpy()
    courses = np.einsum("jtk,nk->jtn", trajectories, loadings)
    moment, left, right = 0, 0, 0
    for y, k in zip(of_readout, shown, strict=True):
        B = courses[:, k]  # (n_trajectories, n_entries)
        cov = np.linalg.inv(np.eye(len(B)) + precision * B @ B.T)
        amplitudes = cov @ B @ (precision * (y - center - mean @ loadings.T)[k])
        moment = moment + np.outer(amplitudes, amplitudes) + cov
        latents = mean + np.einsum("j,jtk->tk", amplitudes, trajectories)
        w = np.column_stack([np.ones(N_BINS), latents])
        spread = np.zeros((N_BINS, n_latents + 1, n_latents + 1))
        spread[:, 1:, 1:] = np.einsum("jtk,ji,itl->tkl", trajectories, cov, trajectories)
        outer = w[:, :, None] * w[:, None] + spread
        left = left + precision * np.einsum("tn,tkl->nkl", k, outer)
        right = right + precision * (np.where(k, y, 0).T @ w)
    moment = (moment + 20 * np.eye(len(moment))) / (N_WINDOWS + 20)
    start = np.column_stack([center, loadings])
    prior = 100 * posterior.rates.double().numpy()[:, None, None] * np.eye(n_latents + 1)
    rows = np.linalg.solve(left + prior, right[..., None] + prior @ start[..., None])[..., 0]

    posterior.refine(readout, values, known, likelihood)
    found = posterior.double()
    np.testing.assert_allclose(found.center, rows[:, 0], atol=1e-3)
    base = found.mean @ found.loadings.T
    np.testing.assert_allclose(base, mean @ rows[:, 1:].T, atol=1e-3)
    courses = np.einsum("jtk,nk->jtn", trajectories, rows[:, 1:]).reshape(len(moment), -1)
    of_log_rates = torch.einsum("jtk,nk->jtn", found.trajectories, found.loadings).flatten(1)
    np.testing.assert_allclose(
        of_log_rates.T @ of_log_rates, courses.T @ moment @ courses, atol=2e-3
    )
    # steps of `estimate` need loadings that are orthonormal in units of information
    squares = found.loadings.T @ (found.rates[:, None] * found.loadings)
    np.testing.assert_allclose(squares, np.eye(n_latents), atol=1e-5)


def test_refinements_improve_estimates(generated):
    log_rates, spikes = generated
    known = torch.ones_like(spikes, dtype=torch.bool)
    noisy = log_rates + 0.5 * torch.randn(spikes.shape, generator=torch.Generator().manual_seed(0))
    posterior = LatentPosterior.of(noisy[:40], known[:40], POISSON)
    errors = []
    for _ in range(3):
        estimate = posterior.estimate(noisy, spikes, known, POISSON)
        errors.append((estimate - log_rates)[40:].square().mean())
        posterior.refine(noisy[:40], spikes[:40], known[:40], POISSON)
    assert max(errors[1:]) < 0.9 * errors[0]


def test_long_refinements_use_a_part_of_the_windows(generated, monkeypatch):
    monkeypatch.setattr("sklearn_stndt.network.posterior.MOST_OPERATIONS", 0)
    log_rates, spikes = generated
    known = torch.ones_like(spikes, dtype=torch.bool)
    posterior = LatentPosterior.of(log_rates, known, POISSON)
    same = copy.deepcopy(posterior)
    posterior.refine(log_rates, spikes, known, POISSON)
    chosen = np.linspace(0, N_WINDOWS - 1, 16).astype(int)
    same.refine(log_rates[chosen], spikes[chosen], known[chosen], POISSON)
    for name, values in posterior.named_buffers():
        torch.testing.assert_close(values, getattr(same, name))


def test_refinements_in_parts_are_those_of_all_windows(generated, monkeypatch):
    log_rates, spikes = generated
    known = torch.ones_like(spikes, dtype=torch.bool)
    posterior = LatentPosterior.of(log_rates, known, POISSON)
    same = copy.deepcopy(posterior)
    posterior.refine(log_rates, spikes, known, POISSON)
    sizes, expect = [], LatentPosterior._expect

    def noted(self, start, *args):
        sizes.append(len(start))
        return expect(self, start, *args)

    monkeypatch.setattr(LatentPosterior, "_expect", noted)
    of_window = N_BINS * (1 + posterior.loadings.shape[1]) ** 2
    monkeypatch.setattr("sklearn_stndt.network.posterior.MOST_SQUARES", 7 * of_window)
    same.refine(log_rates, spikes, known, POISSON)
    assert max(sizes) == 7
    assert sum(sizes) == N_WINDOWS
    for name, values in posterior.named_buffers():
        torch.testing.assert_close(values, getattr(same, name), atol=1e-5, rtol=1e-4)


def test_components_of_more_neurons_than_bins_are_found_from_the_bins(torch_seed):
    rows = torch.randn(40, 60, dtype=torch.float64) * torch.linspace(0, 3, 60).exp()
    vectors = torch.linalg.eigh(rows.T @ rows)[1]
    found = _components(rows)
    assert found.shape == (60, 40)
    overlaps = (found[:, :16] * vectors.flip(1)[:, :16]).sum(0).abs()
    torch.testing.assert_close(overlaps, torch.ones(16, dtype=torch.float64))


@pytest.mark.parametrize("scale", [0.0, 1e3, 1e6])
def test_refined_estimates_are_finite(generated, scale):
    log_rates, spikes = generated
    known = torch.ones_like(spikes, dtype=torch.bool)
    known[5] = False
    silent = torch.full_like(log_rates, -80.0)
    for rates in (log_rates, silent):
        posterior = LatentPosterior.of(rates, known, POISSON)
        posterior.refine(rates, scale * spikes, known, POISSON)
        assert all(values.isfinite().all() for values in posterior.buffers())
        assert posterior.estimate(rates, spikes, known, POISSON).isfinite().all()


def test_a_fit_chooses_a_share_and_its_rates_improve(fitted, trials):
    share = shares_of(fitted.net_)["heldin"]
    assert 0 < share <= 0.7
    spikes, rates = trials.spikes[70:], trials.rates[70:]

    def error():
        return np.square(fitted.transform(spikes) - rates).mean()

    mixed, module = error(), fitted.net_.module_
    posterior, module.posterior = module.posterior, None
    try:
        assert mixed < error()
    finally:
        module.posterior = posterior


@pytest.mark.parametrize("name", ["negative_binomial", "gaussian"])
def test_fits_with_other_likelihoods_choose_a_share(trials, name, tmp_path):
    train, test = trials.spikes[:70], trials.spikes[70:]
    model = STNDTEstimator(max_epochs=25, likelihood=name, random_state=0).fit(train)
    assert 0 < shares_of(model.net_)["heldin"] <= 0.7
    save(model, tmp_path / "model.stndt")
    loaded = load(tmp_path / "model.stndt")
    assert shares_of(loaded.net_) == shares_of(model.net_)
    np.testing.assert_array_equal(loaded.transform(test), model.transform(test))


def test_held_out_neurons_have_a_share_of_their_own(trials):
    model = STNDTEstimator(max_epochs=25, heldout_neurons=[1, 5], random_state=0)
    net = model.fit(trials.spikes[:70]).net_
    weight = net.module_.posterior.weight
    assert len(weight[[1, 5]].unique()) == 1
    assert shares_of(net) == {
        "heldin": pytest.approx(float(weight[0])),
        "heldout": pytest.approx(float(weight[1])),
    }


@pytest.mark.parametrize(
    "params",
    [
        {"context": (5, 5)},
        {"context": (5, 0), "causal": True},
        {"likelihood": AnotherLoss()},
        {"likelihood": "zero_inflated_gamma"},
        {"calibration": False},
        {"early_stopping": False},
    ],
)
def test_networks_without_one(small, spikes, params):
    assert small(**params).fit(spikes).net_.module_.posterior is None


def test_long_windows_have_none(small, spikes, monkeypatch):
    monkeypatch.setattr("sklearn_stndt.training.calibration.MAX_POSTERIOR_BINS", 19)
    assert small().fit(spikes).net_.module_.posterior is None


def test_it_is_saved_and_continues(fitted, trials, tmp_path):
    spikes = trials.spikes[70:]
    save(fitted, tmp_path / "model.stndt")
    loaded = load(tmp_path / "model.stndt")
    assert shares_of(loaded.net_) == shares_of(fitted.net_)
    np.testing.assert_array_equal(loaded.transform(spikes), fitted.transform(spikes))


def test_a_second_training_takes_its_share(fitted, trials):
    again = STNDTEstimator(max_epochs=25, refit=True, random_state=0).fit(trials.spikes[:70])
    assert shares_of(again.net_) == shares_of(fitted.net_)


def test_with_a_single_validation_window_it_is_not_chosen(fitted, trials):
    net = copy.deepcopy(fitted.net_)
    net.objective = replace(net.objective, heldout_neurons=(1,))
    windows = cut(as_segments(trials.spikes.astype(float)), 25, 25)
    alone = cut(as_segments(trials.spikes[:1].astype(float)), 25, 25)
    assert calibrate(net, alone, windows).shares == {"heldin": 0.6, "heldout": 0.3}
    assert shares_of(net) == pytest.approx({"heldin": 0.6, "heldout": 0.3})


def test_a_continuous_recording_has_at_most_a_small_share(fitted, trials):
    net = copy.deepcopy(fitted.net_)
    one = cut(as_segments(trials.spikes[:70].astype(float).reshape(-1, 25)), 25, 12)
    several = cut(as_segments(trials.spikes[70:].astype(float)), 25, 25)
    assert shares_of(net)["heldin"] > 0.3
    assert calibrate(net, several, one).shares == {"heldin": 0.3}
    alone = cut(as_segments(trials.spikes[70:71].astype(float)), 25, 25)
    assert calibrate(net, alone, one).shares == {"heldin": 0.3}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("weight", (24,)),
        ("trajectories", (10**9, 0, 10**9)),
        ("trajectories", (12, 25)),
        ("highest", (24,)),
        ("loadings", (25, 11)),
        ("mean", None),
    ],
)
def test_states_that_do_not_fit_are_refused(fitted, name, shape):
    state = dict(fitted.net_.module_.state_dict())
    if shape is None:
        del state[f"posterior.{name}"]
    else:
        state[f"posterior.{name}"] = torch.empty(shape)
    module = STNDT(25, 25, fitted.settings_.network)
    with pytest.raises(RuntimeError, match="do not fit each other"):
        module.load_state_dict(state)


def test_states_of_the_first_form_are_refused(fitted):
    state = dict(fitted.net_.module_.state_dict())
    state["posterior.functions"] = state.pop("posterior.trajectories")
    with pytest.raises(RuntimeError, match=r"earlier development version.*fit it again"):
        STNDT(25, 25, fitted.settings_.network).load_state_dict(state)


def test_calibrating_again_replaces_it(fitted, trials):
    net = fitted.net_
    kept = {name: value.clone() for name, value in net.module_.state_dict().items()}
    windows = [
        cut(as_segments(part.astype(np.float32)), 25, 25)
        for part in (trials.spikes[70:], trials.spikes[:70])
    ]
    try:
        calibrate(net, *windows)
        assert posterior_of(net, windows[1]) is not None
        calibrate(net, windows[0])
        assert net.module_.posterior is None
    finally:
        net.module_.load_state_dict(kept)
    assert shares_of(net)["heldin"] > 0


def test_added_neurons_have_the_rates_of_the_network(fitted, trials):
    extra = np.random.default_rng(0).poisson(0.4, (70, 25, 2))
    larger = fitted.add_neurons(np.concatenate([trials.spikes[:70], extra], axis=2))
    weight = larger.net_.module_.posterior.weight
    assert (weight[25:] == 0).all()
    torch.testing.assert_close(weight[:25], fitted.net_.module_.posterior.weight)
