import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skorch.history import History

from sklearn_stndt.metrics import bits_per_spike
from sklearn_stndt.network.likelihood import Poisson
from sklearn_stndt.training.callbacks import BestWeights, HeldOutBits, Progress, WarmupCosine


def test_warmup_is_linear_and_ends_at_the_full_learning_rate():
    factor = WarmupCosine(100, warmup=0.05)
    assert [factor(update) for update in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_cosine_has_the_values_computed_by_hand():
    factor = WarmupCosine(120, warmup=0.25)
    # 30 updates of warm-up, 90 of cosine: at a third of it (1 + cos 60°) / 2, at half 1/2, at two
    # thirds (1 - cos 60°) / 2
    assert factor(30) == 1
    assert [factor(update) for update in (60, 75, 90)] == pytest.approx([0.75, 0.5, 0.25])
    assert factor(120) == pytest.approx(0)


@pytest.mark.parametrize("n_updates", [1, 2, 9, 10, 1000])
def test_the_factor_is_at_most_1_and_positive_until_the_end(n_updates):
    factor = WarmupCosine(n_updates, 0.05)
    factors = np.array([factor(update) for update in range(n_updates)])
    assert factors.max() == pytest.approx(1)
    assert factors.min() > 0
    peak = factors.argmax()
    assert (np.diff(factors[: peak + 1]) > 0).all()
    assert (np.diff(factors[peak + 1 :]) < 0).all()
    assert factor(10 * n_updates) == pytest.approx(0, abs=1e-12)


# ---- held-out bits per spike


def net_at_epoch_1():
    net = SimpleNamespace(history=History(), module_=torch.nn.Linear(1, 1), verbose=0)
    net.module_.likelihood = Poisson()
    net.history.new_epoch()
    net.history.record("epoch", 1)
    return net


def evaluated(spikes, log_rates):
    """Report of a validation step on counts (entries, neurons), NaN where not hidden."""
    hidden = ~spikes.isnan()
    nll = torch.where(hidden, log_rates.exp() - spikes * log_rates, 0.0).nansum(1)
    return nll, spikes.nansum(0), hidden.sum(0)


def recorded_bits(batches):
    net, callback = net_at_epoch_1(), HeldOutBits()
    callback.on_epoch_begin(net)
    # training batches are ignored, and so is a validation step without a report
    callback.on_batch_end(net, training=True, evaluated=(torch.tensor(1e9), 1e9, 1))
    callback.on_batch_end(net, training=False, evaluated=None)
    for batch in batches:
        callback.on_batch_end(net, training=False, evaluated=evaluated(*batch))
    callback.on_epoch_end(net, dataset_valid=[])
    return net.history[-1, "valid_bits"]


@pytest.fixture
def entries():
    generator = torch.Generator().manual_seed(0)
    rates = torch.tensor([0.05, 0.5, 3.0, 0.0]) * torch.ones(60, 1)
    spikes = torch.poisson(rates, generator=generator)
    spikes[torch.rand(60, 4, generator=generator) < 0.3] = torch.nan
    log_rates = (rates + 0.01).log() + 0.3 * torch.randn(60, 4, generator=generator)
    return spikes, log_rates


@pytest.mark.parametrize("n_batches", [1, 4])
def test_bits_equal_bits_per_spike(entries, n_batches):
    spikes, log_rates = entries
    batches = zip(spikes.chunk(n_batches), log_rates.chunk(n_batches), strict=True)
    expected = bits_per_spike(spikes.numpy(), log_rates.exp().numpy())
    assert abs(expected) > 0.01
    assert recorded_bits(batches) == pytest.approx(expected, abs=1e-5)


def test_mean_rates_score_0_bits(entries):
    spikes, _ = entries
    mean = spikes.nanmean(0).clamp(min=1e-9).log().expand(spikes.shape)
    assert recorded_bits([(spikes, mean)]) == pytest.approx(0, abs=1e-5)


def test_models_are_ranked_even_without_spikes():
    silent = torch.zeros(10, 3)
    worse, better = (recorded_bits([(silent, torch.full((10, 3), r))]) for r in (-1.0, -3.0))
    # minus the expected spikes, in bits
    assert worse == pytest.approx(-30 * math.exp(-1) / math.log(2), rel=1e-5)
    assert worse < better < 0


def test_scores_are_not_summed_over_epochs(entries):
    net, callback = net_at_epoch_1(), HeldOutBits()
    for _ in range(2):
        net.history.new_epoch()
        callback.on_epoch_begin(net)
        callback.on_batch_end(net, training=False, evaluated=evaluated(*entries))
        callback.on_epoch_end(net, dataset_valid=[])
    assert net.history[-1, "valid_bits"] == net.history[-2, "valid_bits"]


def test_nothing_is_recorded_without_validation_data():
    net, callback = net_at_epoch_1(), HeldOutBits()
    callback.on_epoch_begin(net)
    callback.on_epoch_end(net, dataset_valid=None)
    assert "valid_bits" not in net.history[-1]


# ---- early stopping


def run_epochs(callback, scores, window_nlls=None):
    """Run epochs with these scores, their numbers as weights; return the net and if it stopped."""
    net = net_at_epoch_1()
    net.history.clear()
    held_out = SimpleNamespace()
    net.callbacks_, net.interrupted_ = [("heldout_bits", held_out)], False
    callback.on_train_begin(net)
    stopped = False
    for epoch, score in enumerate(scores, 1):
        net.history.new_epoch()
        net.history.record("epoch", epoch)
        net.history.record("valid_bits", score)
        torch.nn.init.constant_(net.module_.weight, epoch)
        held_out.window_nll_ = torch.tensor(window_nlls[epoch - 1] if window_nlls else [score])
        try:
            callback.on_epoch_end(net)
        except KeyboardInterrupt:
            stopped = True
            break
    callback.on_train_end(net)
    return net, stopped


@pytest.mark.parametrize(
    ("scores", "patience", "last", "best", "stops"),
    [
        ([0.1, 0.3, 0.2, 0.3, 0.9], 2, 4, 2, True),
        ([0.1, 0.3, 0.2, 0.4, 0.3], 2, 5, 4, False),
        ([-0.5, -0.4, -0.3], 1, 3, 3, False),
        ([0.1, 0.1 + 1e-6, 0.1], 1, 3, 2, True),  # the smallest gain counts
        ([0.1, math.nan, 0.2, math.nan], 2, 4, 3, False),
        ([0.3, math.nan, math.nan, 0.4], 2, 3, 1, True),
    ],
)
def test_early_stopping_restores_the_best_weights(scores, patience, last, best, stops):
    callback = BestWeights(patience)
    net, stopped = run_epochs(callback, scores)
    assert stopped == stops
    assert len(net.history) == last
    assert net.module_.weight.item() == best


@pytest.mark.parametrize(
    ("window_nlls", "kept"),
    [
        ([[1.0, 1.0, 1.0], [1.5, 1.0, 1.1]], 2),  # worse, by 1.3 standard errors
        ([[1.0, 1.0, 1.0], [1.3, 1.2, 1.2]], 1),  # by 7
        ([[1.0, 1.0, 1.0], [0.9, 0.9, 0.9]], 2),
        ([[1.0], [1.1]], 1),  # no standard error
        ([[1.0, 1.0], [math.nan, math.nan]], 1),
    ],
)
def test_the_last_weights_are_kept_unless_clearly_worse(window_nlls, kept):
    scores = [-sum(nlls) for nlls in window_nlls]
    net, stopped = run_epochs(BestWeights(), scores, window_nlls)
    assert not stopped
    assert net.module_.weight.item() == kept
    assert [row["epoch"] for row in net.history if row.get("kept")] == [kept]


def test_after_an_interruption_the_best_weights_are_kept():
    callback = BestWeights()
    net, _ = run_epochs(callback, [0.3, 0.2], [[1.0, 1.0], [1.5, 0.6]])
    assert net.module_.weight.item() == 2
    callback = BestWeights()
    net = net_at_epoch_1()
    net.interrupted_ = True
    net.callbacks_ = [("heldout_bits", SimpleNamespace(window_nll_=torch.ones(2)))]
    callback.on_train_begin(net)
    for epoch, score in ((1, 0.3), (2, 0.2)):
        if epoch > 1:
            net.history.new_epoch()
            net.history.record("epoch", epoch)
        net.history.record("valid_bits", score)
        torch.nn.init.constant_(net.module_.weight, epoch)
        callback.on_epoch_end(net)
    callback.on_train_end(net)
    assert net.module_.weight.item() == 1


# ---- progress


def test_progress_counts_training_batches_and_shows_scores(capsys):
    net, callback = net_at_epoch_1(), Progress(n_updates=4, plan="a small network")
    net.max_epochs = 2
    callback.on_train_begin(net)
    for _ in range(3):
        callback.on_batch_end(net, training=True)
        callback.on_batch_end(net, training=False)
    net.history.record("train_loss", 0.51234)
    net.history.record("valid_bits", 0.2468)
    net.history.record("train_batch_count", 3)
    callback.on_epoch_end(net)
    callback.on_train_end(net)
    printed = capsys.readouterr()
    plan, line, outcome = printed.err.splitlines()
    assert plan == "fit: a small network"
    start = "fit: 3/4 updates, epoch 1/2, loss 0.5123, held-out bits/spike 0.2468, "
    assert line.startswith(start)
    assert line.endswith(" left")
    assert outcome.startswith("fit: 3 updates in 1 epoch, 0 s; 0.2468 held-out bits per spike")
    assert printed.out == ""


@pytest.mark.parametrize(
    "callback",
    [HeldOutBits(), BestWeights(3), BestWeights(), Progress(1, ""), WarmupCosine(10, 0.05)],
    ids=type,
)
def test_callbacks_can_be_pickled_after_training(callback):
    if not isinstance(callback, WarmupCosine):
        net = net_at_epoch_1()
        net.interrupted_ = False
        net.callbacks_ = [("heldout_bits", SimpleNamespace(window_nll_=torch.ones(2)))]
        net.max_epochs = 1
        net.history.record("train_loss", 0.5)
        net.history.record("valid_bits", 0.5)
        for hook in ("on_train_begin", "on_epoch_begin", "on_epoch_end", "on_train_end"):
            getattr(callback, hook)(net)
    assert type(pickle.loads(pickle.dumps(callback))) is type(callback)
