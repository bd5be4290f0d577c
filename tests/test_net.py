"""What the network is shown in training and validation, and what is scored."""

import math

import pytest
import torch
from small_nets import (
    HIDING,
    N_BINS,
    N_NEURONS,
    draw_counts_with_gaps,
    may_be_shown,
    small_net,
    spying_net,
    windows_of,
)

from sklearn_stndt.network import (
    N_FOLDS,
    info_nce,
    loss_weights,
    masked_modelling_loss,
)
from sklearn_stndt.training import net as net_module

pytestmark = pytest.mark.usefixtures("torch_seed")


@pytest.fixture
def batch():
    return draw_counts_with_gaps()


def test_by_default_only_missing_entries_are_hidden(batch):
    spikes, known, visible = spying_net().split_visible(batch)
    assert torch.equal(known, ~batch.isnan())
    assert torch.equal(visible, known)
    assert torch.equal(spikes, batch.nan_to_num(0))


@HIDING
def test_training_never_shows_what_is_missing_or_always_hidden(batch, heldout, n_forecast):
    net = spying_net(
        heldout_neurons=tuple(heldout),
        forecast_bins=n_forecast,
        contrastive_weight=0.5,
        mask_ratio=(0.2, 0.6),
        contrastive_mask_ratio=(0.2, 0.6),
    )
    net.train_step_single((batch, None))
    allowed = may_be_shown(batch, heldout, n_forecast)
    assert len(net.module_.calls) == 3
    for spikes, visible, training, _ in net.module_.calls:
        assert spikes.isfinite().all()
        assert not (visible & ~allowed).any()
        assert 0.2 < (allowed & ~visible).sum() / allowed.sum() < 0.6
        assert training
    # each view has its own mask
    views = [visible for _, visible, *_ in net.module_.calls]
    assert not any(torch.equal(views[i], views[j]) for i, j in [(0, 1), (0, 2), (1, 2)])


@HIDING
@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_loss_is_of_what_was_hidden_and_known(batch, heldout, n_forecast, weight):
    net = spying_net(
        heldout_neurons=tuple(heldout),
        forecast_bins=n_forecast,
        contrastive_weight=weight,
        temperature=0.3,
    )
    loss = net.train_step_single((batch, None))["loss"]
    calls = net.module_.calls
    known = ~batch.isnan()
    is_heldout, is_forecast = torch.zeros(2, *batch.shape, dtype=torch.bool)
    is_heldout[:, : N_BINS - n_forecast, heldout] = True
    is_forecast[:, N_BINS - n_forecast :] = True
    expected = masked_modelling_loss(
        math.exp(0.5) - 0.5 * batch.nan_to_num(0),
        loss_weights(
            may_be_shown(batch, heldout, n_forecast) & ~calls[0][1],
            known & is_heldout,
            known & is_forecast,
        ),
    )
    if weight:
        first, second = ((spikes * visible).sum(1) + 0.5 for spikes, visible, *_ in calls[1:])
        contrast = info_nce(first, second, 0.3)
        recorded = net.history[-1, "batches", -1]
        assert recorded["train_nll"] == pytest.approx(expected.item())
        assert recorded["train_contrast"] == pytest.approx(contrast.item())
        expected = expected + weight * contrast
    assert len(calls) == (3 if weight else 1)
    torch.testing.assert_close(loss.detach(), expected.detach())
    assert net.module_.log_rate.grad.isfinite()


def test_corruption_follows_the_ratios():
    spikes = torch.zeros(20, N_BINS, N_NEURONS)
    spikes[0, 0, 0] = 3
    net = spying_net(mask_ratio=1.0, token_ratio=0.5, random_ratio=1.0)
    net.train_step_single((spikes, None))
    ((shown, visible, *_),) = net.module_.calls
    assert visible.float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert (shown[visible] > 0).float().mean().item() == pytest.approx(0.75, abs=0.1)


def test_training_hides_whole_neurons_in_half_of_the_windows():
    net = spying_net(mask_ratio=0.5, neuron_mask_ratio=(0.0, 0.9))
    net.train_step_single((torch.ones(200, N_BINS, N_NEURONS), None))
    ((_, visible, *_),) = net.module_.calls
    whole = (visible == visible[:, :1]).all((1, 2))  # the same neurons in every bin
    assert whole.float().mean().item() == pytest.approx(0.5, abs=0.15)


@HIDING
def test_validation_scores_what_is_always_hidden_or_else_every_entry_once(
    batch, heldout, n_forecast
):
    net = spying_net(heldout_neurons=tuple(heldout), forecast_bins=n_forecast)
    step = net.validation_step((batch, None))
    allowed = may_be_shown(batch, heldout, n_forecast)
    # folds are concatenated along the batch
    views = [view for _, visible, *_ in net.module_.calls for view in visible.split(len(batch))]
    hidden = ~batch.isnan()  # forecast bins are always scored
    if heldout:
        (view,) = views
        assert torch.equal(view, allowed)
        heldin = [n for n in range(N_NEURONS) if n not in heldout]
        hidden[:, : N_BINS - n_forecast, heldin] = False
    else:
        assert len(views) > 1
        assert torch.equal(sum((allowed & ~view).int() for view in views), allowed.int())
        assert not any((view & ~allowed).any() for view in views)
    spikes = batch.nan_to_num(0)
    nll, n_spikes, n_entries = step["evaluated"]
    of_entries = torch.where(hidden, math.exp(0.5) - 0.5 * spikes, 0.0)
    torch.testing.assert_close(nll, of_entries.sum((1, 2)))  # of each window
    torch.testing.assert_close(n_spikes, (spikes * hidden).sum((0, 1)))
    torch.testing.assert_close(n_entries, hidden.sum((0, 1)).float())
    torch.testing.assert_close(step["loss"], of_entries.sum() / hidden.sum())
    assert not any(training or grad for *_, training, grad in net.module_.calls)


@pytest.mark.parametrize(("n_train", "n_folds"), [(12, 1), (25, 2), (49, 3), (200, N_FOLDS)])
def test_validations_take_a_share_of_the_training(batch, n_train, n_folds):
    assert len(batch) == 6
    assert small_net(validation=windows_of(batch), n_train=n_train).n_scored_folds == n_folds


@pytest.mark.parametrize(
    ("hidden_entries", "n_folds"), [(1, 1), (6 * N_BINS * N_NEURONS // 4, 2), (10**6, N_FOLDS)]
)
def test_large_validations_score_fewer_folds(batch, monkeypatch, hidden_entries, n_folds):
    monkeypatch.setattr(net_module, "VALIDATION_SHARE", 0.1)
    monkeypatch.setattr(net_module, "HIDDEN_ENTRIES", hidden_entries)
    net = small_net(validation=windows_of(batch), n_train=4 * 5 * len(batch))
    assert net.n_scored_folds == n_folds
    net = spying_net(n_scored_folds=n_folds)
    net.validation_step((batch, None))
    views = [view for _, visible, *_ in net.module_.calls for view in visible.split(len(batch))]
    hidden = torch.stack([~batch.isnan() & ~view for view in views])
    assert len(hidden) == n_folds
    assert all(fold.any() for fold in hidden)
    assert hidden.int().sum(0).max() == 1


def test_validation_hides_the_same_entries_in_every_epoch(batch):
    net = spying_net()
    net.validation_step((batch, None))
    torch.rand(5)
    net.validation_step((batch, None))
    views = [visible for _, visible, *_ in net.module_.calls]
    half = len(views) // 2
    assert all(torch.equal(*pair) for pair in zip(views[:half], views[half:], strict=True))
