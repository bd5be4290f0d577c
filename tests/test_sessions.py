"""Several sessions in one fit, each with its own neurons."""

import pickle
import sys
from dataclasses import fields
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch import NeuralNet
from skorch.history import History

from sklearn_stndt import MultiSessionEstimator, STNDTEstimator
from sklearn_stndt.network import STNDT, NetworkSettings
from sklearn_stndt.network.likelihood import Poisson
from sklearn_stndt.streaming import RateStream
from sklearn_stndt.training.joint import mean_size
from sklearn_stndt.training.joint_batches import (
    SessionBatches,
    SessionPart,
    SessionsInTurn,
    SessionWindows,
)
from sklearn_stndt.training.joint_net import MeanHeldOutBits, MultiSessionNet, SessionNetworks
from sklearn_stndt.training.net import HIDDEN_MATRICES, MaskedModellingNet
from sklearn_stndt.training.objective import ObjectiveSettings
from sklearn_stndt.training.optimizer import Muon
from sklearn_stndt.training.settings import DataSize, auto_max_epochs, resolve
from sklearn_stndt.windows.cutting import cut
from sklearn_stndt.windows.segments import as_segments


def counts(*shape, seed=0):
    return np.random.default_rng(seed).poisson(1.0, shape)


@pytest.fixture(scope="module")
def sessions():
    """Trials, a recording, a single trial of one neuron, and trials with a silent neuron."""
    silent = counts(6, 9, 4, seed=3)
    silent[..., 1] = 0
    return [counts(12, 10, 5), counts(40, 7, seed=1), counts(1, 8, 1, seed=2), silent]


@pytest.fixture(scope="module")
def together(small, sessions):
    return MultiSessionEstimator(small(window=10)).fit(sessions)


def networks(estimator):
    return [member.net_.module_ for member in estimator.estimators_]


def test_each_session_has_rates_of_its_own_shape(together, sessions):
    rates = together.transform(sessions)
    assert [r.shape for r in rates] == [x.shape for x in sessions]
    assert all(np.isfinite(r).all() and (r > 0).all() for r in rates)
    assert together.window_ == 10


def test_the_core_is_shared_and_trained_and_the_ends_are_not(together):
    first, *others = networks(together)
    for other in others:
        assert other.layers is first.layers
        assert other.positions is first.positions
        assert other.norm is first.norm
        assert other.mix_last.attention is first.mix_last.attention
        assert other.mix_last.from_neurons is not first.mix_last.from_neurons
        assert other.embed is not first.embed


def test_estimators_are_ordinary_ones(together, sessions):
    member = together.estimators_[0]
    rates = member.transform(sessions[0])
    pipeline = make_pipeline(member, FunctionTransformer()).fit
    assert callable(pipeline)
    assert np.array_equal(pickle.loads(pickle.dumps(member)).transform(sessions[0]), rates)
    assert clone(member).fit(sessions[1]).n_features_in_ == 7
    assert member.n_iter_ == len(member.history_) == together.n_iter_
    assert np.isfinite(member.score(sessions[0]))


def test_score_is_the_mean_over_sessions(together, sessions):
    alone = [m.score(x) for m, x in zip(together.estimators_, sessions, strict=True)]
    assert together.score(sessions) == pytest.approx(np.mean(alone))


def test_results_repeat_and_do_not_depend_on_the_number_of_processes(together, sessions):
    again = clone(together).set_params(n_jobs=2).fit(sessions)
    for first, second in zip(together.transform(sessions), again.transform(sessions), strict=True):
        assert np.array_equal(first, second)


def test_a_saved_estimator_still_shares_its_core(together, sessions):
    loaded = pickle.loads(pickle.dumps(together))
    first, second, *_ = networks(loaded)
    assert first.layers is second.layers
    assert np.array_equal(loaded.transform(sessions)[1], together.transform(sessions)[1])


def test_best_weights_are_chosen_by_the_mean_over_sessions(together):
    for row in together.history_:
        # the trial that is alone has no validation
        assert sorted(row["session_bits"]) == [0, 1, 3]
        assert row["valid_bits"] == pytest.approx(np.mean(list(row["session_bits"].values())))
    of_first = [row["session_bits"][0] for row in together.history_]
    assert [row["valid_bits"] for row in together.estimators_[0].history_] == of_first
    assert "valid_bits" not in together.estimators_[2].history_[0]


def test_parameters_are_those_of_the_estimator():
    estimator = MultiSessionEstimator(STNDTEstimator()).set_params(estimator__lr=0.5)
    assert clone(estimator).get_params()["estimator__lr"] == 0.5


def test_heldout_neurons_are_drawn_in_each_session(small, sessions):
    together = MultiSessionEstimator(small(heldout_neurons=0.25)).fit([sessions[0], sessions[3]])
    assert [len(m.heldout_neurons_) for m in together.estimators_] == [1, 1]
    hidden = [x.astype(float) for x in (sessions[0], sessions[3])]
    for member, x in zip(together.estimators_, hidden, strict=True):
        x[..., member.heldout_neurons_] = np.nan
    seen = together.transform([sessions[0].astype(float), sessions[3].astype(float)])
    for first, second in zip(seen, together.transform(hidden), strict=True):
        assert np.array_equal(first, second)


def test_without_early_stopping_every_session_trains_for_all_epochs(small, sessions):
    together = MultiSessionEstimator(small(early_stopping=False, max_epochs=2)).fit(sessions[:2])
    assert together.n_iter_ == 2
    assert "valid_bits" not in together.history_[0]


def test_groups_and_names_of_each_session(small):
    table = pd.DataFrame(counts(20, 3), columns=["a", "b", "c"])
    groups = [np.repeat([0, 1], 10), None]
    X = [table, counts(4, 10, 2)]
    together = MultiSessionEstimator(small()).fit(X, groups=groups)
    assert together.window_ == 10
    assert together.estimators_[0].feature_names_in_.tolist() == ["a", "b", "c"]
    assert together.transform(X, groups=groups)[0].shape == (20, 3)
    with pytest.raises(ValueError, match="one item per session, 2 in all"):
        together.transform(X, groups=groups[0])


def sessions_of(batch, sizes):
    return np.searchsorted(np.cumsum(sizes), batch, side="right").tolist()


def test_every_window_is_used_once_in_an_epoch_or_twice(torch_seed):
    sizes = [30, 0, 21, 1]
    batches = SessionBatches(sizes, 8)
    epoch = list(batches)
    assert len(batches) == len(epoch) == 4
    assert sorted(np.concatenate(epoch)) == [*range(52), 51]
    assert list(batches) != epoch  # another order
    assert len(list(SessionBatches(sizes, 8, most=2))) == 2


def test_every_batch_has_windows_of_all_sessions(torch_seed):
    sizes = [30, 24, 12]
    epoch = [sessions_of(batch, sizes) for batch in SessionBatches(sizes, 8)]
    assert sorted(batch.count(0) for batch in epoch) == [7, 7, 8, 8]
    assert [batch.count(1) for batch in epoch] == [6] * 4
    assert [batch.count(2) for batch in epoch] == [5] * 4


def test_a_few_windows_are_not_scattered(torch_seed):
    sizes = [40, 3, 1]
    epoch = [sessions_of(batch, sizes) for batch in SessionBatches(sizes, 8)]
    assert sorted(batch.count(1) for batch in epoch) == [0, 0, 2, 2, 2]
    assert [batch.count(1) for batch in epoch if batch.count(2)] == [0]


def test_automatic_parameters_are_those_of_a_session_of_mean_size(small):
    auto = {"n_layers": "auto", "dropout": "auto", "batch_size": "auto", "max_epochs": "auto"}
    sizes = [DataSize(30_000, 5, 600, 50, 4.0), DataSize(10_000, 9, 200, 50, 2.0)]
    mean = mean_size(sizes)
    assert mean == DataSize(20_000, 9, 400, 50, 3.5)
    kwargs = {"heldout_neurons": (), "device": "cpu", "seed": 0}
    alone, together = (
        resolve(small(**auto), mean, n_largest=n_largest, **kwargs) for n_largest in (None, 600)
    )
    assert together.network == alone.network
    assert (together.network.n_layers, together.training.batch_size) == (3, 16)
    assert (alone.training.max_epochs, together.training.max_epochs) == (38, 37)


@pytest.mark.parametrize(("n_largest", "n_updates"), [(20, 410), (40, 327)])
def test_sessions_of_few_windows_have_updates_enough_and_more_if_they_are_equal(
    n_largest, n_updates
):
    n_epochs = auto_max_epochs(1000, 50, 20, 16, 2.0, n_largest=n_largest)
    assert n_epochs * -(-n_largest // 16) == n_updates


def test_validation_batches_are_of_one_session_each():
    sizes = [5, 0, 9, 1]
    batches = SessionsInTurn(sizes, 4)
    assert len(batches) == 2 + 3 + 1
    assert np.concatenate(list(batches)).tolist() == list(range(15))
    assert all(len(set(sessions_of(batch, sizes))) == 1 for batch in batches)


def test_windows_are_read_from_their_own_session():
    X = [counts(3, 6, 2), counts(4, 6, 5, seed=1)]
    windows = SessionWindows([cut(as_segments(x), 6, 6) for x in X])
    assert len(windows) == 7
    indices, parts = windows.__getitems__([4, 0, 3])
    assert indices.tolist() == [4, 0, 3]
    assert [part.session for part in parts] == [0, 1]
    assert np.array_equal(parts[0].spikes, X[0][[0]])
    assert np.array_equal(parts[1].spikes, X[1][[1, 0]])


CONFIGURATIONS = {
    "spatiotemporal": {},
    "temporal, within a context": {"attention": "temporal", "context": (3, 2)},
    "with other losses": {"heldout_neurons": (1,), "forecast_bins": 2, "contrastive_weight": 0.1},
    "negative binomial": {"likelihood": "negative_binomial"},
    "spatial attention in every layer": {"spatial_layers": "all"},
    "causal": {"causal": True},
}


@pytest.mark.parametrize("chunk", [100, 3])
@pytest.mark.parametrize("config", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_step_adds_the_gradients_of_sessions_weighed_by_their_windows(
    config, chunk, monkeypatch, torch_seed
):
    no_dropout = {"dropout": 0.0, "dropout_embedding": 0.0, "dropout_rates": 0.0}
    of_objective = {f.name for f in fields(ObjectiveSettings)} & config.keys()
    of_network = config.keys() - of_objective
    settings = NetworkSettings(
        n_layers=2,
        d_model=8,
        dim_feedforward=16,
        **no_dropout,
        **{k: config[k] for k in of_network},
    )
    objective = ObjectiveSettings(**{k: config[k] for k in of_objective})
    net = MultiSessionNet(
        SessionNetworks,
        module__n_neurons=[5, 4, 3],
        module__n_bins=10,
        module__settings=[settings] * 3,
        objectives=[objective] * 3,
    ).initialize()
    net.history.new_epoch()
    net.history.new_batch()
    with torch.no_grad():
        for p in net.module_.parameters():
            p += 0.1 * torch.randn_like(p)
    pattern = torch.rand(10, 1) < 0.5
    monkeypatch.setattr(ObjectiveSettings, "draw_mask", lambda self, visible: visible & pattern)
    for kind in (MaskedModellingNet, MultiSessionNet):
        monkeypatch.setattr(sys.modules[kind.__module__], "training_chunk_size", lambda *_: chunk)
    first, last = (torch.as_tensor(counts(7, 10, n)).float() for n in (5, 3))
    last[2:4, 6:] = torch.nan  # shorter trials
    batch = torch.arange(10), [SessionPart(0, first), SessionPart(2, last[:3])]

    torch.manual_seed(1)  # of the contrastive loss
    loss = net.train_step_single(batch)["loss"]
    gradients = [None if p.grad is None else p.grad.clone() for p in net.module_.parameters()]
    net.module_.zero_grad()
    torch.manual_seed(1)
    expected = 0.0
    for (session, spikes), share in zip(batch[1], (0.7, 0.3), strict=True):
        net.take(session)
        terms, _ = net.backpropagate(spikes, share=share)
        expected += share * (
            terms["train_nll"] + objective.contrastive_weight * terms.get("train_contrast", 0.0)
        )
    assert loss == pytest.approx(float(expected), rel=1e-5)
    for p, gradient in zip(net.module_.parameters(), gradients, strict=True):
        assert (p.grad is None) == (gradient is None)
        assert gradient is None or torch.allclose(gradient, p.grad, rtol=1e-4, atol=1e-6)


def test_sessions_pass_the_core_together(small, sessions, monkeypatch):
    passes = []

    def counted(self, x, *args, **kwargs):
        passes.append(len(x))
        return run_layers(self, x, *args, **kwargs)

    run_layers = STNDT.run_layers
    monkeypatch.setattr(STNDT, "run_layers", counted)
    params = {"max_epochs": 1, "batch_size": 4, "early_stopping": False, "calibration": False}
    MultiSessionEstimator(small(**params)).fit([sessions[0], sessions[3]])
    assert passes == [9, 9, 9]  # 15 of 12 windows and 12 of 6, in three updates


def test_few_windows_are_all_for_training_if_another_session_validates(small):
    X = [counts(60, 10, 4), counts(20, 10, 3, seed=1)]
    together = MultiSessionEstimator(small(early_stopping=True, calibration=True)).fit(X)
    assert set(together.history_[-1]["session_bits"]) == {0}
    large, few = networks(together)
    assert float(few.smoothing.width) == float(large.smoothing.width)
    assert torch.allclose(few.readout.gain, large.readout.gain[:1].expand(3), rtol=1e-5)
    assert few.posterior.weight.tolist() == pytest.approx([0.6, 0.6, 0.6])
    both_few = MultiSessionEstimator(small(early_stopping=True)).fit([x[:20] for x in X])
    assert set(both_few.history_[-1]["session_bits"]) == {0, 1}


def tsd(width, n_neurons):
    nap = pytest.importorskip("pynapple")
    return nap.TsdFrame(t=width * np.arange(30), d=counts(30, n_neurons))


def test_known_bin_widths_must_agree(small):
    together = MultiSessionEstimator(small(window=10)).fit([tsd(0.02, 3), tsd(0.02, 4)])
    assert type(together.transform([tsd(0.02, 3), tsd(0.02, 4)])[1]).__name__ == "TsdFrame"
    with pytest.raises(ValueError, match=r"X\[0\] are 0.02 wide and bins of X\[2\] 0.05"):
        together.fit([tsd(0.02, 3), counts(30, 2), tsd(0.05, 4)])


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ([], ValueError, "empty list"),
        ([counts(10)], ValueError, r"X\[0\] has 1 dimension"),
        ([[1, 2, 3]], ValueError, r"X\[0\] has 1 dimension"),
        (counts(3, 10, 2), TypeError, "must be a list"),
        (MappingProxyType({"a": counts(4, 3)}), TypeError, r"list\(X.values\(\)\)"),
        ([counts(4, 5, 2), -counts(4, 5, 2)], ValueError, "Negative"),
    ],
)
def test_what_is_not_a_list_of_sessions_is_refused(small, X, error, message):
    with pytest.raises(error, match=message):
        MultiSessionEstimator(small()).fit(X)


def test_errors_name_the_session(small):
    with pytest.raises(ValueError, match="Negative") as caught:
        MultiSessionEstimator(small()).fit([counts(4, 5, 2), -counts(4, 5, 2)])
    assert "session 1" in caught.value.__notes__[0]


def test_sessions_must_be_those_of_fit(together, sessions):
    with pytest.raises(ValueError, match=r"has 1 sessions, but .* on 4"):
        together.transform(sessions[:1])
    with pytest.raises(ValueError, match="features"):
        together.transform(sessions[::-1])
    with pytest.raises(NotFittedError):
        clone(together).score(sessions)


def test_a_core_needs_a_width_of_its_own(small, sessions):
    with pytest.raises(ValueError, match="d_model=None"):
        MultiSessionEstimator(small(d_model=None)).fit(sessions)


def test_a_failed_fit_changes_nothing(together, sessions):
    before = dict(vars(together))
    with pytest.raises(ValueError, match="Negative"):
        together.fit([-sessions[0]])
    assert vars(together) == before


def test_the_published_network_shares_all_that_is_not_of_neurons(small, sessions):
    published = small(spatial_layers="all", max_epochs=1, n_layers=2)
    first, second = networks(MultiSessionEstimator(published).fit(sessions[:2]))
    assert first.mix_every.feed_forwards is second.mix_every.feed_forwards
    assert first.mix_every.mixings[1].attention is second.mix_every.mixings[1].attention
    assert first.mix_every.positions is not second.mix_every.positions


def test_muon_is_applied_to_the_shared_matrices_and_every_weight_is_updated_once(sessions):
    settings = NetworkSettings(n_layers=2, d_model=8, dim_feedforward=16)
    networks = SessionNetworks([5, 7], 10, [settings] * 2)
    net = NeuralNet(
        networks,
        torch.nn.Identity,
        optimizer=Muon,
        optimizer__param_groups=[(name, {"orthogonal": True}) for name in HIDDEN_MATRICES],
    ).initialize()
    groups = net.optimizer_.param_groups
    chosen = {id(p) for group in groups if group.get("orthogonal") for p in group["params"]}
    names = {name for name, p in net.module_.named_parameters() if id(p) in chosen}
    matrices = (
        "attention.query_key_value",
        "attention.out",
        "feed_forward.1",
        "feed_forward.4",
    )
    assert names == {f"networks.0.layers.{i}.{part}.weight" for i in (0, 1) for part in matrices}
    updated = [id(p) for group in groups for p in group["params"]]
    assert len(updated) == len(set(updated)) == len(list(net.module_.parameters()))


def test_windows_of_a_session_count_by_the_inverse_of_its_spikes():
    score = MeanHeldOutBits()
    score.on_epoch_begin(None)
    net = SimpleNamespace(
        module_=SimpleNamespace(session=0, likelihood=Poisson()), history=History()
    )
    net.history.new_epoch()
    for session, n_spikes in ((0, 10.0), (1, 2.0)):
        net.module_.session = session
        evaluated = (torch.tensor([4.0, 6.0]), torch.tensor([n_spikes]), torch.tensor([20.0]))
        score.on_batch_end(net, evaluated=evaluated)
    score.on_epoch_end(net, dataset_valid="given")
    assert score.window_nll_.tolist() == pytest.approx([0.4, 0.6, 2.0, 3.0])


def test_last_weights_are_kept_unless_earlier_ones_are_clearly_better(small):
    X = [counts(100, 10, 4), counts(100, 10, 3, seed=1)]  # nothing to be learned
    together = MultiSessionEstimator(small(max_epochs=3)).fit(X)
    assert together.history_[-1]["kept"]


def test_a_joint_training_that_diverges_goes_back(small, sessions):
    unstable = MultiSessionEstimator(small(window=10, optimizer="adamw", lr=1e4))
    with pytest.warns(ConvergenceWarning, match="diverged"):
        unstable.fit(sessions)
    assert all(np.isfinite(rates).all() for rates in unstable.transform(sessions))


def test_causal_sessions(small, sessions):
    together = MultiSessionEstimator(small(window=10, causal=True)).fit(sessions)
    first, second, *_ = networks(together)
    assert first.mix_last.attention is second.mix_last.attention
    assert len(first.positions.weight) == 1  # one session is a recording
    shown = sessions[0].astype(float)
    later = shown.copy()
    later[:, 6:] = 3
    member = together.estimators_[0]
    assert np.allclose(member.transform(shown)[:, :6], member.transform(later)[:, :6], rtol=1e-5)
    stream = RateStream(together.estimators_[1])
    steps = [stream.step(row) for row in sessions[1]]
    assert np.allclose(steps, together.transform(sessions)[1], rtol=1e-4)


def test_smoothing_and_gain_belong_to_a_session(together):
    widths = [network.smoothing.width for network in networks(together)]
    assert len({id(width) for width in widths}) == len(widths)
    others = [float(width) for i, width in enumerate(widths) if i != 2]
    assert float(widths[2]) == pytest.approx(np.mean(others))  # it has no validation windows
    gains = [float(network.readout.gain[0]) for network in networks(together)]
    assert gains[2] == pytest.approx(np.mean(gains[:2] + gains[3:]), rel=1e-5)


def test_checkpoints_of_several_sessions_are_refused(small, sessions, tmp_path):
    with pytest.raises(ValueError, match="checkpoint_dir=None"):
        MultiSessionEstimator(small(checkpoint_dir=tmp_path)).fit(sessions)
