"""Likelihoods of estimators: what they learn, how they are scored, what they refuse."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from test_likelihood import made

from sklearn_stndt import BaggingEnsemble, MultiSessionEstimator, STNDTEstimator, load, save
from sklearn_stndt._fingerprints import describe
from sklearn_stndt._scoring import scoring_of
from sklearn_stndt.metrics import (
    co_smoothing_scorer,
)
from sklearn_stndt.network.likelihood import (
    LIKELIHOODS,
    Likelihood,
    NegativeBinomial,
)
from sklearn_stndt.persistence.refusals import CannotSaveError
from sklearn_stndt.streaming import RateStream
from sklearn_stndt.training.constants import _predict_some, fit_constants
from sklearn_stndt.windows.cutting import cut
from sklearn_stndt.windows.segments import as_segments

N_NEURONS = 12
OTHERS = [name for name in LIKELIHOODS if name != "poisson"]
SMALL = {"d_model": 8, "n_heads": 2, "max_epochs": 3, "random_state": 0}


class Laplace(Likelihood):
    """A likelihood of a user."""

    def set_up(self, n_neurons):
        self.register_buffer("center", torch.zeros(n_neurons))
        self.register_buffer("scale", torch.ones(n_neurons))

    def begin(self, statistics):
        self.center.copy_(statistics.mean)
        self.scale.copy_(statistics.std_input)

    def link(self, mean):
        return (mean - self.center) / self.scale

    def mean(self, readout):
        return self.center + self.scale * readout

    def nll(self, readout, values):
        return (self.link(values) - readout).abs()

    def sample(self, mean, random_state):
        return random_state.laplace(mean, self.scale.numpy())


@pytest.fixture(scope="session")
def entries(reaches):
    """Entries that are legal for each likelihood, (n_trials, n_bins, n_neurons), some NaN."""
    random = np.random.RandomState(0)
    counts = random.poisson(reaches.rates * random.gamma(1.0, size=reaches.rates.shape))
    signals = 100 * (np.log(reaches.rates) + random.normal(size=reaches.rates.shape))
    likelihood = made("zero_inflated_gamma", reaches.rates.shape[-1])
    sizes = likelihood.sample(3 * reaches.rates, random)
    found = {
        "poisson": counts,
        "negative_binomial": counts,
        "gaussian": signals,
        "zero_inflated_gamma": sizes,
    }
    for name in found:
        found[name] = found[name].astype(np.float64)
        found[name][0, 3] = found[name][1, :, 2] = np.nan
        found[name].setflags(write=False)
    return found


@pytest.fixture(scope="session")
def fitted(entries):
    """A small estimator of each likelihood, and a pair in an ensemble."""
    return {
        name: STNDTEstimator(**SMALL, likelihood=name, causal=True).fit(entries[name])
        for name in LIKELIHOODS
    }


# ---- scores


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_an_estimator_is_scored_by_its_likelihood(fitted, entries, name):
    estimator, X = fitted[name], entries[name]
    score, own = estimator.score(X), estimator.log_likelihood(X)
    assert (score == own) == (name != "negative_binomial")
    rates = estimator.transform(X)
    seen = scoring_of(estimator).score(X, rates)
    assert np.isfinite([score, own, seen]).all()
    # hidden entries are harder than seen ones, for so small a network
    assert score < seen + 0.05


# ---- estimators


@pytest.mark.parametrize("name", OTHERS)
def test_constants_are_learned(fitted, entries, name):
    found = fitted[name].likelihood_params_
    X = entries[name]
    mean, variance = np.nanmean(X, (0, 1)), np.nanvar(X, (0, 1))
    assert all(values.shape == (N_NEURONS,) for values in found.values())
    started = {
        "negative_binomial": lambda: {"dispersion": (variance - mean) / mean**2},
        "gaussian": lambda: {"noise": variance**0.5},
        "zero_inflated_gamma": lambda: {"exponent": np.ones(N_NEURONS)},
    }
    for key, values in started[name]().items():
        assert (np.abs(found[key] / values - 1) > 1e-3).sum() > N_NEURONS / 2


@pytest.mark.parametrize("name", OTHERS)
def test_constants_are_the_most_likely_ones_of_each_neuron(entries, name):
    X = entries[name]
    net = STNDTEstimator(**SMALL, likelihood=name).fit(X).net_
    for constant in net.module_.likelihood.children():
        constant.start.add_(0.5)
    windows = cut(as_segments(X), X.shape[1], X.shape[1])
    parts = _predict_some(net, windows)  # a posterior changes them a little with the constants
    fit_constants(net, windows)
    likelihood = net.module_.likelihood.of(...).double()

    def losses():
        nll = likelihood.nll(parts.log_rates.double(), parts.spikes.double())
        return torch.where(parts.scored, nll, 0.0).sum((0, 1))

    lowest = losses()
    for constant in likelihood.children():
        assert (constant.change == 0).all()
        for step in (-0.2, 0.2):
            constant.start.add_(step)
            assert (losses() > lowest - 0.5).all()  # nats, of hundreds
            constant.start.sub_(step)


def test_validation_windows_correct_what_all_neurons_have_in_common():
    random = np.random.RandomState(0)
    X = random.normal(size=(30, 20, N_NEURONS))
    net = STNDTEstimator(**SMALL, likelihood="gaussian").fit(X).net_
    windows, louder = (cut(as_segments(x), 20, 20) for x in (X, 1.5 * X[:20]))
    fit_constants(net, windows)
    alone = net.module_.likelihood.constants()["noise"].detach().clone()
    fit_constants(net, windows, louder)
    ratio = net.module_.likelihood.constants()["noise"].detach() / alone
    torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio[0])), rtol=1e-3, atol=0)
    assert float(ratio[0]) == pytest.approx(1.5, rel=0.05)


def test_poisson_has_no_constants(fitted):
    assert fitted["poisson"].likelihood_params_ == {}


def test_neurons_without_positive_entries_or_without_zeros_are_learned():
    X = np.random.RandomState(0).gamma(2.0, size=(12, 20, 4)) * [1e-3, 1.0, 0.0, 1e4]
    X[..., 1] = 3.0
    estimator = STNDTEstimator(**SMALL, likelihood="zero_inflated_gamma").fit(X)
    means = estimator.transform(X)
    assert np.isfinite(estimator.score(X))
    np.testing.assert_allclose(means.mean((0, 1))[[0, 1, 3]], X.mean((0, 1))[[0, 1, 3]], rtol=0.3)
    assert (means[..., 2] < 0.1).all()


def test_sizes_are_inferred_in_any_unit(entries):
    X = entries["zero_inflated_gamma"]
    small = STNDTEstimator(**SMALL | {"causal": True}, likelihood="zero_inflated_gamma").fit(X)
    large = clone(small).fit(1e8 * X)  # beyond all counts
    means = large.transform(1e8 * X)
    np.testing.assert_allclose(means, 1e8 * small.transform(X), rtol=1e-3)
    streamed = RateStream(large).step(1e8 * np.nan_to_num(X[0, 0]))
    assert streamed.shape == (N_NEURONS,)
    with pytest.raises(ValueError, match=r"takes values up to 1e\+15"):
        large.transform(1e20 * X)
    with pytest.raises(ValueError, match="not values of a bin"):
        RateStream(large).step(np.full(N_NEURONS, 1e20))


def test_a_dispersion_is_found():
    random = np.random.RandomState(0)
    alpha = np.array([0.01, 0.01, 1.0, 1.0, 3.0, 3.0])
    shared = np.exp(0.8 * np.sin(np.arange(40) / 4 + random.uniform(0, 6, (60, 1))))[..., None]
    rates = shared * np.full(6, 2.0)
    X = random.poisson(rates * random.gamma(1 / alpha, alpha, size=rates.shape)).astype(float)
    params = {"d_model": 16, "max_epochs": 25, "random_state": 0}
    estimator = STNDTEstimator(**params, likelihood="negative_binomial").fit(X[:40])
    found = estimator.likelihood_params_["dispersion"]
    assert (found[:2] < 0.25).all()
    np.testing.assert_allclose(found[2:], alpha[2:], rtol=0.35)
    poisson = STNDTEstimator(**params).fit(X[:40])
    assert estimator.log_likelihood(X[40:]) > poisson.log_likelihood(X[40:]) + 0.1


def test_signals_are_inferred_in_any_unit(entries):
    X = np.nan_to_num(entries["gaussian"])
    units = 10.0 ** np.linspace(-4, 4, N_NEURONS)
    plain, scaled = (
        STNDTEstimator(**SMALL, likelihood="gaussian").fit(x) for x in (X, X * units + 3 * units)
    )
    np.testing.assert_allclose(
        scaled.transform(X * units + 3 * units) / units - 3, plain.transform(X), rtol=0, atol=1.0
    )
    noise = scaled.likelihood_params_["noise"] / units
    np.testing.assert_allclose(noise, plain.likelihood_params_["noise"], rtol=0.01)
    assert scaled.score(X * units + 3 * units) == pytest.approx(plain.score(X), abs=0.01)


def test_negative_entries_are_refused_with_the_name_of_a_likelihood(entries):
    for estimator in (STNDTEstimator(**SMALL), BaggingEnsemble(STNDTEstimator(**SMALL), 2)):
        with pytest.raises(ValueError, match='likelihood="gaussian"'):
            estimator.fit(entries["gaussian"])
    fitted_to_counts = STNDTEstimator(**SMALL).fit(entries["poisson"])
    fitted_to_counts.likelihood = "gaussian"  # without effect before the next fit
    with pytest.raises(ValueError, match='likelihood="gaussian"'):
        fitted_to_counts.transform(entries["gaussian"])


@pytest.mark.parametrize("value", [1e30, -1e30])
def test_signals_that_cannot_be_squared_are_refused(value):
    X = np.zeros((20, 3))
    X[4, 1] = value
    with pytest.raises(ValueError, match="another unit"):
        STNDTEstimator(**SMALL, likelihood="gaussian").fit(X)


def test_signals_have_a_scaling_of_their_own(entries):
    with pytest.raises(ValueError, match="input_scaling='counts' is for spike counts"):
        STNDTEstimator(**SMALL, likelihood="gaussian", input_scaling="counts").fit(
            entries["gaussian"]
        )


@pytest.mark.parametrize("name", OTHERS)
def test_masked_entries_can_be_replaced_by_others(entries, name):
    params = {"token_ratio": 0.5, "random_ratio": 0.8, "contrastive_weight": 0.1}
    estimator = STNDTEstimator(**SMALL | params, likelihood=name).fit(entries[name])
    assert np.isfinite(estimator.transform(entries[name])).all()


@pytest.mark.parametrize("name", OTHERS)
def test_hidden_neurons_and_forecasts_are_scored(entries, name):
    X = entries[name]
    params = {"heldout_neurons": 3, "forecast_bins": 4}
    estimator = STNDTEstimator(**SMALL | params, likelihood=name).fit(X)
    hidden = X.copy()
    hidden[..., estimator.heldout_neurons_] = np.nan
    assert np.array_equal(estimator.transform(X), estimator.transform(hidden))
    chosen = estimator.heldout_neurons_
    expected = scoring_of(estimator).score(
        X[..., chosen], estimator.transform(hidden)[..., chosen], chosen
    )
    assert estimator.score(X) == expected
    assert co_smoothing_scorer(chosen, check=False)(estimator, X) == pytest.approx(expected)
    assert estimator.forecast(X[:, :16], 4).shape == (24, 4, N_NEURONS)


@pytest.mark.parametrize("name", OTHERS)
def test_streams_infer_what_transform_infers(fitted, entries, name):
    stream = RateStream(fitted[name])
    rates = np.array([stream.step(row) for row in entries[name][2]])
    expected = fitted[name].transform(entries[name][2:3])[0]
    np.testing.assert_allclose(rates, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_streams_of_counts_refuse_negative_values(fitted, entries):
    with pytest.raises(ValueError, match="not spikes per bin"):
        RateStream(fitted["negative_binomial"]).step(np.full(N_NEURONS, -1.0))


@pytest.mark.parametrize("name", OTHERS)
def test_saved_and_loaded_estimators_are_the_same(fitted, entries, name, tmp_path):
    estimator, X = fitted[name], entries[name]
    save(estimator, tmp_path / "model.stndt")
    loaded = load(tmp_path / "model.stndt")
    for other in (loaded, pickle.loads(pickle.dumps(estimator))):
        assert np.array_equal(other.transform(X), estimator.transform(X))
        assert other.log_likelihood(X) == estimator.log_likelihood(X)
        for key, values in estimator.likelihood_params_.items():
            assert np.array_equal(other.likelihood_params_[key], values)


@pytest.mark.parametrize("name", OTHERS)
def test_ensembles_average_expected_values_and_constants(entries, name, tmp_path):
    X = entries[name]
    member = STNDTEstimator(**SMALL | {"random_state": None}, likelihood=name)
    ensemble = BaggingEnsemble(
        member, 3, n_best=2, bootstrap=True, oob_score=True, random_state=0, checkpoint_dir=tmp_path
    ).fit(X)
    chosen = [ensemble.estimators_[i] for i in ensemble.selected_]
    np.testing.assert_allclose(
        ensemble.transform(X), np.mean([m.transform(X) for m in chosen], 0), rtol=1e-5
    )
    for key, values in ensemble.likelihood_params_.items():
        product = chosen[0].likelihood_params_[key] * chosen[1].likelihood_params_[key]
        if key != "event_rate":  # in units that depend on the exponent
            np.testing.assert_allclose(values, product**0.5, rtol=0.1)
    scores = [ensemble.score(X), ensemble.log_likelihood(X), ensemble.oob_score_]
    assert np.isfinite([*scores, *ensemble.scores_]).all()
    assert ensemble.score(X) > np.mean([m.score(X) for m in chosen])
    student = ensemble.distill(X)
    assert student.likelihood == name
    assert np.isfinite(student.score(X))


def test_members_of_an_ensemble_have_comparable_likelihoods(entries):
    def mixed(*names):
        members = [STNDTEstimator(**SMALL, likelihood=name) for name in names]
        return BaggingEnsemble(members, 2, random_state=0, n_best=1)

    X = entries["poisson"]
    assert np.isfinite(mixed("poisson", "negative_binomial").fit(X).score(X))
    with pytest.raises(ValueError, match="the likelihoods Gaussian, Poisson"):
        mixed("poisson", "gaussian").fit(X)


@pytest.mark.parametrize("name", OTHERS)
def test_sessions_and_later_days(entries, name):
    X = entries[name]
    sessions = MultiSessionEstimator(STNDTEstimator(**SMALL, likelihood=name)).fit([X, X[..., :7]])
    assert np.isfinite(sessions.score([X, X[..., :7]]))
    adapted = sessions.adapt(X[..., 3:])
    assert np.isfinite(adapted.score(X[..., 3:]))
    assert adapted.settings_.network.likelihood == name
    with pytest.raises(ValueError, match="contradicts pretrained"):
        sessions.adapt(np.abs(X), likelihood="gaussian" if name != "gaussian" else Laplace())


# ---- a likelihood of one's own


def test_a_likelihood_of_a_user(entries, tmp_path):
    X = entries["gaussian"]
    own = Laplace()
    estimator = clone(STNDTEstimator(**SMALL | {"max_epochs": 20}, likelihood=own)).fit(X)
    assert list(own.buffers()) == []  # a copy was fitted
    again = pickle.loads(pickle.dumps(estimator))
    assert np.array_equal(again.transform(X), estimator.transform(X))
    scale = np.nanstd(X, axis=(0, 1))
    np.testing.assert_allclose(estimator.net_.module_.likelihood.scale, scale, rtol=1e-5)
    means = estimator.transform(X)
    known = ~np.isnan(X)
    gain = (np.abs(X - np.nanmean(X, (0, 1))) - np.abs(X - means)) / scale
    expected = gain[known].mean() / np.log(2)
    assert scoring_of(estimator).score(X, means) == pytest.approx(expected, rel=1e-5)
    assert estimator.score(X) > 0.05
    assert estimator.history_[-1]["valid_bits"] > 0.05
    with pytest.raises(CannotSaveError, match="Laplace"):
        save(estimator, tmp_path / "model.stndt")


class WithoutLoss(Likelihood):
    def link(self, mean):
        return mean

    def mean(self, readout):
        return readout


class Mixture(Laplace):
    """A likelihood with numbers that all neurons have in common."""

    def __init__(self, widths=(0.5, 1.0, 2.0)):
        super().__init__()
        self.widths = widths
        self.register_buffer("inverse", 1 / torch.tensor(widths))
        self.weights = torch.nn.Parameter(torch.zeros(len(widths)))

    def nll(self, readout, values):
        deviation = (self.link(values) - readout).abs()[..., None] * self.inverse
        return -(self.weights.log_softmax(0) + self.inverse.log() - deviation).logsumexp(-1)


def test_a_likelihood_may_have_numbers_of_all_neurons(entries):
    X = entries["gaussian"]
    estimator = STNDTEstimator(**SMALL, likelihood=Mixture(), heldout_neurons=2).fit(X)
    assert np.isfinite(estimator.score(X))
    adapted = estimator.adapt(X[:4, :, 1:])
    assert adapted.transform(X[..., 1:]).shape == X[..., 1:].shape
    assert np.isfinite(clone(adapted).fit(X[:4, :, 1:]).score(X[..., 1:]))
    other = Mixture((0.5, 1.0, 3.0))
    with pytest.raises(ValueError, match="contradicts pretrained"):
        estimator.adapt(X[:4], likelihood=other)
    # a training with an equal one is continued
    assert describe(Mixture()) == describe(clone(estimator).likelihood) != describe(other)


class WrongShape(Laplace):
    def nll(self, readout, values):
        return super().nll(readout, values).mean()


@pytest.mark.parametrize(
    ("likelihood", "error", "message"),
    [
        (WithoutLoss(), TypeError, "lacks nll, sample"),
        (WrongShape(), ValueError, r"nll of likelihood=WrongShape\(...\) returned shape \(\)"),
        ("binomial", ValueError, "'likelihood' parameter of STNDTEstimator must be"),
        (NegativeBinomial, ValueError, "'likelihood' parameter of STNDTEstimator must be"),
    ],
)
def test_what_is_no_likelihood_is_refused(entries, likelihood, error, message):
    with pytest.raises(error, match=message):
        STNDTEstimator(**SMALL, likelihood=likelihood).fit(entries["poisson"])
