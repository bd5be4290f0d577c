"""A fitted network as the start for other neurons, and latents that a decoder can read."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback
from small_nets import N_BINS, draw_counts, small_net, windows_of

from sklearn_stndt import BaggingEnsemble, BinwiseRegressor, MultiSessionEstimator, STNDTEstimator
from sklearn_stndt._fingerprints import describe
from sklearn_stndt._rates import infer_rates
from sklearn_stndt.datasets import make_reach_days
from sklearn_stndt.inspection import drift
from sklearn_stndt.network.core import core_modules, core_parameters
from sklearn_stndt.persistence import load, save
from sklearn_stndt.streaming import RateStream
from sklearn_stndt.training import transfer
from sklearn_stndt.training.settings import auto_max_epochs
from sklearn_stndt.training.transfer import SlowerCore


@pytest.fixture(scope="module")
def other():
    """Counts of 8 trials of 7 other neurons."""
    return make_reach_days(1, n_trials=8, n_bins=20, n_neurons=7, random_state=1)[0].spikes


def same_core(first, second):
    pairs = zip(
        core_parameters(first.net_.module_), core_parameters(second.net_.module_), strict=True
    )
    return all(torch.equal(a, b) for a, b in pairs)


def test_adapt_gives_an_estimator_of_other_neurons_and_leaves_the_first_as_it_is(fitted, other):
    before = pickle.dumps(fitted)
    adapted = fitted.adapt(other)
    assert pickle.dumps(fitted) == before
    assert type(adapted) is STNDTEstimator
    assert adapted.n_features_in_ == 7
    assert adapted.window_ == fitted.window_
    assert adapted.transform(other).shape == other.shape
    assert np.isfinite(adapted.score(other))
    assert adapted.get_params()["d_model"] == fitted.d_model


def test_the_core_is_the_start_and_the_start_only(fitted, other):
    nearly_unchanged = fitted.adapt(other, lr=1e-12, weight_decay=0.0)
    for old, new in zip(
        core_parameters(fitted.net_.module_),
        core_parameters(nearly_unchanged.net_.module_),
        strict=True,
    ):
        assert torch.allclose(old, new, atol=1e-6)
        assert old is not new
    assert not same_core(fitted, fitted.adapt(other, max_epochs=3, lr=0.01))


def test_the_core_holds_every_weight_that_is_not_of_neurons(fitted):
    module = fitted.net_.module_
    of_core = {id(p) for p in core_parameters(module)}
    of_ends = {name for name, p in module.named_parameters() if id(p) not in of_core}
    assert of_ends == {
        "scaling.token",
        "embed.weight",
        "embed.bias",
        "mix_last.from_neurons.weight",
        "mix_last.from_neurons.bias",
        "readout.weight",
        "readout.bias",
    }
    assert set(core_modules(module)) == {
        "positions",
        "layers",
        "norm",
        "mix_last.norm",
        "mix_last.attention",
    }


SMALL_DAYS = {"d_model": 24, "n_layers": 1, "n_heads": 2, "attention": "temporal"}


@pytest.fixture(scope="module")
def two_days():
    return make_reach_days(2, n_trials=[60, 40], n_bins=25, n_neurons=30, random_state=0)


@pytest.fixture(scope="module")
def day1(two_days):
    return STNDTEstimator(max_epochs=60, random_state=0, **SMALL_DAYS).fit(two_days[0].spikes)


def error(estimator, day):
    return np.mean((estimator.transform(day.spikes[8:]) - day.rates[8:]) ** 2)


def test_few_trials_gain_from_another_day(two_days, day1):
    second = two_days[1]
    few = second.spikes[:8]
    alone = STNDTEstimator(max_epochs=80, random_state=0, **SMALL_DAYS).fit(few)
    assert error(day1.adapt(few, max_epochs=80), second) < 0.8 * error(alone, second)


@pytest.mark.parametrize("attention", ["temporal", "spatiotemporal"])
def test_ends_are_found_before_training(two_days, day1, attention):
    second = two_days[1]
    start = day1 if attention == "temporal" else clone(day1).set_params(attention=attention)
    if start is not day1:
        start.fit(two_days[0].spikes)
    untrained = start.adapt(second.spikes[:8], max_epochs=1, lr=1e-12, weight_decay=0.0)
    mean_rates = second.spikes[:8].mean((0, 1))
    assert error(untrained, second) < 0.85 * np.mean((mean_rates - second.rates[8:]) ** 2)


def test_padding_has_no_part_in_the_regression(torch_seed):
    net = small_net().initialize()
    module = net.module_
    module.likelihood.start_mean.fill_(1.0)
    latents, spread = torch.randn(4, N_BINS, module.width), np.eye(module.width)
    counts = draw_counts(4)
    padding = torch.full((4, 3, counts.shape[2]), torch.nan)
    longer = torch.cat([latents, 10 + torch.randn(4, 3, module.width)], 1)
    fits = [
        transfer.regress(module, z, net.objective.split(x), np.zeros(module.width), spread)
        for z, x in ((latents, counts), (longer, torch.cat([counts, padding], 1)))
    ]
    for expected, found in zip(*fits, strict=True):
        assert np.allclose(expected, found, rtol=1e-5, atol=1e-6)
    assert np.abs(fits[0][0]).max() > 0.01


def test_few_known_neurons_leave_ends_as_drawn(small, other):
    start = small().fit(other[..., :3])
    assert np.isfinite(start.adapt(other).transform(other)).all()


MOVED: list[list[bool]] = []


class Watch(Callback):
    """Records after each update whether core and ends have moved since the last one."""

    def on_train_begin(self, net, **kwargs):
        self.last = None

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            now = [net.module_.norm.weight.clone(), net.module_.readout.bias.clone()]
            if self.last is not None:
                MOVED.append([not torch.equal(a, b) for a, b in zip(self.last, now, strict=True)])
            self.last = now


def test_the_core_is_fixed_at_first(fitted, other):
    MOVED.clear()
    adapted = fitted.adapt(other, max_epochs=20, callbacks=[Watch()])
    assert MOVED == [[False, True]] + [[True, True]] * 18
    assert all(weight.requires_grad for weight in core_parameters(adapted.net_.module_))


def steps_of_one_update(callbacks):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = small_net(callbacks, max_epochs=1, batch_size=12)
        before = copy.deepcopy(net.module_.state_dict())
        net.partial_fit(windows_of(draw_counts(12)))
    return {name: after - before[name] for name, after in net.module_.state_dict().items()}


def test_only_the_core_takes_smaller_steps():
    usual, slower = steps_of_one_update([]), steps_of_one_update([SlowerCore(0.25)])
    for name in ("layers.0.attention.out.weight", "positions.weight", "norm.weight"):
        assert usual[name].abs().max() > 0
        assert torch.allclose(slower[name], 0.25 * usual[name], atol=1e-6)
    for name in ("readout.weight", "embed.weight", "scaling.token"):
        assert torch.equal(slower[name], usual[name])


def test_a_few_windows_are_all_used_for_training(fitted, small, spikes, other, monkeypatch):
    adapted = fitted.adapt(other)  # a tenth of 8 trials would be a single one
    assert "valid_bits" not in adapted.history_[0]
    monkeypatch.setattr(transfer, "FEWEST_SET_ASIDE", 5)
    more = small(pretrained=fitted, validation_fraction=0.2).fit(spikes)  # 5 of 24
    assert "valid_bits" in more.history_[0]


@pytest.mark.parametrize("calibration", [True, False])
def test_without_validation_the_calibration_is_that_of_the_start(fitted, other, calibration):
    start = copy.deepcopy(fitted)
    module = start.net_.module_
    module.smoothing.width.fill_(1.5)
    module.readout.gain.fill_(0.7)
    module.readout.gain[:2] = 0.4  # of held-out neurons
    adapted = start.adapt(other, calibration=calibration).net_.module_
    width, gain = (1.5, 0.7) if calibration else (0.0, 1.0)
    assert float(adapted.smoothing.width) == width
    torch.testing.assert_close(adapted.readout.gain, torch.full_like(adapted.readout.gain, gain))
    assert (adapted.posterior is not None) == calibration


def test_with_few_trials_most_of_the_log_rates_are_those_of_the_posterior(fitted, other):
    start = copy.deepcopy(fitted)
    start.net_.module_.posterior = None
    adapted = start.adapt(other, heldout_neurons=[1])
    weights = adapted.net_.module_.posterior.weight.tolist()
    assert weights == pytest.approx([0.6, 0.3, *[0.6] * (len(weights) - 2)])


@pytest.mark.parametrize(
    ("n_trials", "rate", "n_updates"), [(8, 5.0, 46), (64, 0.1, 48), (64, 5.0, 52)]
)
def test_a_core_needs_fewer_updates_of_few_trials(n_trials, rate, n_updates):
    batch = min(n_trials, 16)
    n_epochs = auto_max_epochs(50 * n_trials, 50, n_trials, batch, rate, has_core=True)
    assert n_epochs * -(-n_trials // batch) == n_updates


def test_pretrained_works_in_cross_validation(fitted, other, small):
    behaviour = np.random.default_rng(0).normal(size=(*other.shape[:2], 2))
    pipeline = make_pipeline(
        small(pretrained=FrozenEstimator(fitted), max_epochs=1), BinwiseRegressor(Ridge())
    )
    assert np.isfinite(cross_val_score(pipeline, other, behaviour, cv=2)).all()


def test_an_adapted_estimator_can_be_cloned_saved_and_adapted_again(fitted, other):
    adapted = fitted.adapt(other)
    again = clone(adapted).fit(other)
    assert np.array_equal(again.transform(other), adapted.transform(other))
    loaded = pickle.loads(pickle.dumps(adapted))
    assert np.array_equal(loaded.transform(other), adapted.transform(other))
    sizes = [len(pickle.dumps(e)) for e in (adapted, adapted.adapt(other).adapt(other))]
    assert sizes[1] < 1.1 * sizes[0]  # what it started from is kept, but not all before that


def test_what_clone_has_emptied_is_refused_with_advice(fitted, other, small):
    for emptied in (clone(fitted), FrozenEstimator(clone(fitted)), MultiSessionEstimator()):
        if isinstance(emptied, MultiSessionEstimator):
            emptied = FrozenEstimator(emptied)
        with pytest.raises(NotFittedError, match="FrozenEstimator"):
            small(pretrained=emptied).fit(other)


def test_sources_of_a_core(fitted, other, small, spikes):
    sources = [
        fitted,
        FrozenEstimator(make_pipeline(fitted)),
        FrozenEstimator(MultiSessionEstimator(small()).fit([spikes[:4], other])),
    ]
    for source in sources:
        assert small(pretrained=source).fit(other).window_ == 20
    ensemble = BaggingEnsemble(small(max_epochs=1), 2, random_state=0).fit(spikes)
    with pytest.raises(TypeError, match="estimators_"):
        small(pretrained=FrozenEstimator(ensemble)).fit(other)


def test_a_saved_estimator_can_be_the_start(fitted, other, tmp_path):
    save(fitted, tmp_path / "day1.stndt")
    adapted = clone(fitted).set_params(pretrained=tmp_path / "day1.stndt").fit(other)
    assert np.array_equal(adapted.transform(other), fitted.adapt(other).transform(other))
    save(adapted, tmp_path / "day2.stndt")
    loaded = load(tmp_path / "day2.stndt")
    assert np.array_equal(loaded.transform(other), adapted.transform(other))


def test_a_session_can_be_added_to_a_shared_core(small, spikes, other):
    together = MultiSessionEstimator(small()).fit([spikes, spikes[:, :, :4]])
    assert together.adapt(other).transform(other).shape == other.shape


@pytest.mark.parametrize("params", [{"d_model": 16}, {"window": 10}, {"n_layers": 2}])
def test_parameters_must_not_contradict_the_core(fitted, other, params):
    with pytest.raises(ValueError, match=f"{next(iter(params))}=.* contradicts pretrained"):
        fitted.adapt(other, **params)


def test_defaults_take_the_parameters_of_the_core(fitted, other):
    adapted = STNDTEstimator(pretrained=FrozenEstimator(fitted), max_epochs=1).fit(other)
    assert adapted.settings_.network.d_model == fitted.d_model


def test_trials_may_be_longer_or_shorter_than_the_window(fitted, other):
    long = np.concatenate([other, other], axis=1)
    for X in (long, other[:, :7]):
        adapted = fitted.adapt(X)
        assert adapted.window_ == 20
        assert adapted.transform(X).shape == X.shape


def test_warm_start_continues_from_the_adapted_weights(fitted, other):
    adapted = STNDTEstimator(
        pretrained=FrozenEstimator(fitted), warm_start=True, max_epochs=2, random_state=0
    ).fit(other)
    assert adapted.fit(other).n_iter_ == 4


def test_a_channel_per_neuron_cannot_be_adapted(small, spikes, other):
    with pytest.raises(ValueError, match="one channel per neuron"):
        small(d_model=None, max_epochs=1).fit(spikes).adapt(other)


def test_indices_of_heldout_neurons_must_be_given_anew(small, spikes, other):
    first = small(heldout_neurons=[10, 11]).fit(spikes)
    with pytest.raises(ValueError, match="heldout_neurons names neurons"):
        first.adapt(other)
    assert first.adapt(other, heldout_neurons=[2]).heldout_neurons_.tolist() == [2]


def test_adapt_works_with_one_trial_one_neuron_and_a_silent_one(fitted, other):
    silent = other.copy()
    silent[..., 3] = 0
    for X in (other[:1], other[..., :1], silent):
        assert np.isfinite(fitted.adapt(X).transform(X)).all()


def test_fits_from_other_cores_have_other_fingerprints(fitted, small, spikes):
    other_fit = small(random_state=1).fit(spikes)
    first, again, second = (FrozenEstimator(e) for e in (fitted, fitted, other_fit))
    assert describe(first) == describe(again) != describe(second)
    assert describe(FrozenEstimator(pickle.loads(pickle.dumps(fitted)))) == describe(first)


# latents


@pytest.fixture(scope="module")
def latent(fitted):
    return copy.copy(fitted).set_params(output="latents")


@pytest.mark.parametrize("width", [0.0, 1.5])
def test_log_rates_are_a_linear_map_of_latents(fitted, spikes, width):
    X = spikes[:3]
    fitted = copy.deepcopy(fitted)
    fitted.net_.module_.smoothing.width.fill_(width)
    fitted.net_.module_.posterior = None  # which mixes other log-rates with them
    latents = copy.copy(fitted).set_params(output="latents").transform(X)
    assert latents.shape == (*X.shape[:2], 8)
    readout = fitted.net_.module_.readout
    log_rates = readout(torch.as_tensor(latents, dtype=torch.float32)).detach().numpy()
    assert np.allclose(np.exp(log_rates), fitted.transform(X), rtol=1e-4)


def test_latents_of_a_recording_are_blended_and_named(small, rows):
    estimator = small(window=16, max_epochs=1, output="latents").fit(rows)
    latents = estimator.set_output(transform="pandas").transform(pd.DataFrame(rows))
    assert list(latents.columns) == [f"latent{i}" for i in range(8)]
    assert latents.shape == (len(rows), 8)
    assert np.isfinite(latents.to_numpy()).all()


def test_scores_and_rates_do_not_depend_on_the_output(fitted, latent, spikes):
    assert latent.score(spikes) == fitted.score(spikes)
    assert np.array_equal(infer_rates(latent, spikes), fitted.transform(spikes))
    assert latent.output == "latents"


def test_latents_come_in_the_container_of_the_counts(latent, rows, spikes):
    nap = pytest.importorskip("pynapple")
    xr = pytest.importorskip("xarray")
    frame = nap.TsdFrame(t=0.02 * np.arange(len(rows)), d=rows)
    of_frame = latent.transform(frame)
    assert list(of_frame.columns) == [f"latent{i}" for i in range(8)]
    assert np.array_equal(of_frame.t, frame.t)
    tensor = nap.TsdTensor(t=0.02 * np.arange(20), d=np.moveaxis(spikes, 0, 1))
    assert np.array_equal(np.moveaxis(latent.transform(tensor).d, 1, 0), latent.transform(spikes))
    array = xr.DataArray(spikes, dims=("trial", "time", "unit"), coords={"unit": np.arange(12)})
    of_array = latent.transform(array)
    assert of_array.dims == ("trial", "time", "latent")
    assert of_array.name == "latents"


def test_a_decoder_of_latents_reads_another_day(latent, other, reaches, spikes):
    pipeline = make_pipeline(latent, BinwiseRegressor(Ridge()))
    pipeline[1].fit(latent.transform(spikes), reaches.velocity)
    adapted = latent.adapt(other)
    assert adapted.output == "latents"
    pipeline.set_params(stndtestimator=adapted)
    assert pipeline.predict(other).shape == (8, 20, 2)


# drift


def test_drift_grows_with_lost_neurons_and_is_zero_for_the_reference(small):
    strong = {"modulation": 2.0, "mean_rate": 20.0, "random_state": 0}
    days = make_reach_days(2, n_trials=50, n_bins=20, n_neurons=16, lost=0.5, **strong)
    params = {"d_model": 24, "n_layers": 1, "attention": "temporal"}
    network = small(max_epochs=40, **params).fit(days[0].spikes[:40])
    rest = days[0].spikes[40:]
    assert drift(network, rest, reference=rest) == 0
    assert drift(network, days[1].spikes, reference=rest) > 0.5
    pipeline = make_pipeline(network, Ridge())
    assert drift(pipeline, rest) == drift(network, rest)
    at_fit = next(row["valid_bits"] for row in network.history_ if "kept" in row)
    assert drift(network, rest) == pytest.approx(1 - network.score(rest) / at_fit)


def test_drift_needs_a_score_of_the_first_day(small, spikes):
    network = small(early_stopping=False).fit(spikes)
    with pytest.raises(ValueError, match="as reference"):
        drift(network, spikes)
    network.net_.module_.readout.weight.data.normal_(0, 3)
    with pytest.raises(ValueError, match="no more than mean rates"):
        drift(network, spikes, reference=spikes)


# causal networks


@pytest.fixture(scope="module")
def causal(small, spikes):
    return small(causal=True).fit(spikes)


def test_a_causal_core_makes_causal_networks(causal, other, small):
    adapted = causal.adapt(other)
    by_default = small(pretrained=FrozenEstimator(causal), forecast_bins=2, max_epochs=1)
    for estimator in (adapted, by_default.fit(other)):
        assert estimator.settings_.network.causal
        later = other.astype(float)
        later[:, 12:] = np.nan
        seen, rates = estimator.transform(later), estimator.transform(other.astype(float))
        assert np.allclose(seen[:, :12], rates[:, :12], rtol=1e-5)
    stream = RateStream(adapted)
    steps = [stream.step(counts) for counts in other[0]]
    assert np.allclose(steps, adapted.transform(other)[0], rtol=1e-4)


def test_a_causal_network_does_not_start_from_one_that_is_not(fitted, other):
    with pytest.raises(ValueError, match="causal=True contradicts pretrained"):
        fitted.adapt(other, causal=True)


def test_a_recording_takes_the_last_position_of_causal_trials(causal, rows, small):
    adapted = causal.adapt(rows, lr=1e-12, weight_decay=0.0)
    last = causal.net_.module_.positions.weight[-1:]
    assert torch.allclose(adapted.net_.module_.positions.weight, last, atol=1e-6)
    assert adapted.adapt(rows[:, :5]).transform(rows[:, :5]).shape == (len(rows), 5)


def test_causal_latents_do_not_depend_on_later_bins(causal, rows, spikes):
    causal = copy.deepcopy(causal)
    causal.net_.module_.posterior = None  # without it, log-rates are a linear map of latents
    latent = copy.copy(causal).set_params(output="latents")
    whole, start = latent.transform(rows), latent.transform(rows[:50])  # in parts, with a memory
    assert whole.shape == (len(rows), 8)
    assert np.allclose(whole[:50], start, atol=1e-5)
    readout = causal.net_.module_.readout
    log_rates = readout(torch.as_tensor(whole, dtype=torch.float32)).detach().numpy()
    assert np.allclose(np.exp(log_rates), causal.transform(rows), rtol=1e-4)


def test_a_stream_of_a_decoder_of_latents_is_refused(causal, spikes, reaches):
    latent = copy.copy(causal).set_params(output="latents")
    pipeline = make_pipeline(latent, BinwiseRegressor(Ridge()))
    pipeline[1].fit(latent.transform(spikes), reaches.velocity)
    with pytest.raises(ValueError, match="output='rates'"):
        RateStream(pipeline)
