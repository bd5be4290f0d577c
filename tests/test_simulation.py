"""Entries drawn from inferred rates, and their statistics beside those of the data."""

import numpy as np
import pytest

from sklearn_stndt import BaggingEnsemble, STNDTEstimator

SMALL = {"d_model": 8, "n_heads": 2, "max_epochs": 2}


@pytest.fixture(scope="module")
def network(spikes):
    return STNDTEstimator(**SMALL, random_state=0).fit(spikes)


def test_samples_are_counts_with_the_inferred_rates(network, spikes):
    rates = network.transform(spikes)
    drawn = network.simulate(spikes, random_state=0, n_samples=300)
    assert drawn.shape == (300, *spikes.shape)
    assert drawn.dtype.kind == "i"
    error = np.sqrt(rates.sum() / 300)
    assert abs(drawn.sum((1, 2, 3)).mean() - rates.sum()) < 4 * error
    deviation = (drawn.mean(0) - rates) / np.sqrt(rates / 300)
    assert 0.9 < deviation.std() < 1.1


def test_draws_are_repeated_by_an_integer(network, spikes):
    once = network.simulate(spikes, random_state=1)
    assert np.array_equal(once, network.simulate(spikes, random_state=1))
    assert np.array_equal(once, network.simulate(spikes, random_state=1, n_samples=2)[0])
    assert not np.array_equal(once, network.simulate(spikes, random_state=2))


def test_hidden_entries_are_drawn_too(network, spikes):
    hidden = spikes.copy()
    hidden[:, :10] = np.nan
    assert network.simulate(hidden, random_state=0)[:, :10].sum() > 0


def test_a_recording_with_trials_is_drawn_as_trials(network, spikes, rows):
    groups = np.repeat(np.arange(len(spikes)), spikes.shape[1])
    drawn = network.simulate(rows, 0, groups=groups)
    assert np.array_equal(drawn.reshape(spikes.shape), network.simulate(spikes, 0))


@pytest.mark.parametrize("n_samples", [0, -1, 1.5, True, "2"])
def test_numbers_of_samples_that_are_none_are_refused(network, spikes, n_samples):
    with pytest.raises(ValueError, match="n_samples must be a whole number"):
        network.simulate(spikes, n_samples=n_samples)


def test_samples_of_an_ensemble_come_from_its_members(spikes):
    ensemble = BaggingEnsemble(STNDTEstimator(**SMALL), 2, random_state=0).fit(spikes)
    high, low = ensemble.estimators_
    high.net_.module_.readout.shift.fill_(3.0)
    low.net_.module_.readout.shift.fill_(-3.0)
    totals = ensemble.simulate(spikes, random_state=0, n_samples=30).sum((1, 2, 3))
    threshold = np.sqrt(totals.max() * totals.min())
    assert 5 < (totals > threshold).sum() < 25
    assert totals.max() > 50 * totals.min()


# ---- the display

mpl = pytest.importorskip("matplotlib")
mpl.use("Agg")

from sklearn_stndt.plotting import SimulationDisplay  # noqa: E402


def test_statistics_are_those_computed_by_hand():
    X = np.array([[[1, 0], [0, 2], [1, 1], [1, np.nan]], [[0, 0], [2, 1], [0, 0], [3, 1]]])
    display = SimulationDisplay(X, [X, X], window=2)
    sums = np.array([[1, 2], [2, np.nan], [2, 1], [3, 1]])
    fano = [sums[:, 0].var(ddof=1) / 2, np.array([2, 1, 1]).var(ddof=1) / (4 / 3)]
    np.testing.assert_allclose(display.fano_factors, [fano, fano])
    expected = np.corrcoef(sums[[0, 2, 3]].T)[0, 1]
    np.testing.assert_allclose(display.correlations, [[expected], [expected]])
    # intervals: 2, 1 and 2 of the first neuron, 1 and 2 of the second; none spans trials or gaps
    np.testing.assert_allclose(display.intervals[0], [1, 3 / 5, 0])
    np.testing.assert_allclose(display.intervals[1], [[1, 3 / 5, 0]] * 2)


def test_entries_that_are_unknown_in_the_data_do_not_count_in_the_model():
    X = np.random.default_rng(0).poisson(1.0, (30, 20, 3)).astype(float)
    simulated = X[None].copy()
    X[::2, 5:] = np.nan
    simulated[:, ::2, 5:] = 100
    display = SimulationDisplay(X, simulated, window=5)
    np.testing.assert_allclose(display.fano_factors[0], display.fano_factors[1])


def test_a_model_of_too_regular_counts_lies_below_the_data():
    random = np.random.default_rng(0)
    gain = random.gamma(1.0, size=(200, 1, 1))  # shared by all neurons
    X = random.poisson(gain * np.ones((200, 20, 4)))
    display = SimulationDisplay(X, random.poisson(1.0, (3, *X.shape)))
    assert (display.fano_factors[0] > 3 * display.fano_factors[1]).all()
    assert (display.correlations[0] > display.correlations[1] + 0.5).all()
    assert display.intervals[0][-1] < 0.01


def test_signals_have_autocorrelations_in_place_of_intervals():
    random = np.random.default_rng(0)
    noise = random.normal(size=(20, 61, 3))
    X = noise[:, 1:] + noise[:, :-1]  # autocorrelation of a half at a lag of 1, then 0
    X[3, 10] = np.nan
    display = SimulationDisplay(X, random.normal(size=(4, *X.shape)), counts=False)
    found = display.intervals[0]
    np.testing.assert_allclose(found[:4], [0.5, 0, 0, 0], atol=0.08)
    np.testing.assert_allclose(display.intervals[1], 0, atol=0.15)
    display.plot()
    assert display.axes_[1].get_ylabel() == "autocorrelation"


@pytest.mark.parametrize(
    ("X", "simulated", "params", "message"),
    [
        (np.ones((5, 4, 2)), np.ones((5, 4, 2)), {}, "one more axis"),
        (np.ones((5, 4, 2)), np.ones((0, 5, 4, 2)), {}, "at least one sample"),
        (np.ones((1, 4, 2)), np.ones((1, 1, 4, 2)), {}, "1 complete windows of 4 bins"),
        (np.ones((5, 4, 2)), np.ones((1, 5, 4, 2)), {"window": 0}, "window must be"),
    ],
)
def test_what_cannot_be_compared_is_refused(X, simulated, params, message):
    with pytest.raises(ValueError, match=message):
        SimulationDisplay(X, simulated, **params)
