import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_stndt.network.masking import (
    LEVELS,
    N_FOLDS,
    below,
    corrupt,
    draw_levels,
    draw_mask,
    inference_masks,
    mask_neurons,
    speckled_folds,
)

SHAPE = (40, 50, 60)  # enough entries for a share to be within 1 % of its expectation


pytestmark = pytest.mark.usefixtures("torch_seed")


@pytest.mark.parametrize("ratio", [0.3, 1.0, (0.2, 0.9)])
def test_only_visible_entries_are_masked(ratio):
    visible = torch.rand(SHAPE) < 0.5
    mask = draw_mask(visible, ratio)
    assert mask.dtype == torch.bool
    assert mask.any()
    assert not (mask & ~visible).any()


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.9, 1.0])
def test_mask_ratio_is_the_share_of_the_visible_entries(ratio):
    visible = torch.rand(SHAPE) < 0.5
    mask = draw_mask(visible, ratio)
    assert mask[visible].float().mean().item() == pytest.approx(ratio, abs=0.01)


@pytest.mark.parametrize("in_a_tensor", [False, True])
@pytest.mark.parametrize(
    ("share", "n_selected"),
    [(0.0, 0), (0.4 / LEVELS, 0), (1 / LEVELS, 1), (0.5, LEVELS // 2), (1.0, LEVELS)],
)
def test_a_share_selects_exactly_as_many_levels(share, n_selected, in_a_tensor):
    levels = torch.arange(-LEVELS // 2, LEVELS // 2, dtype=torch.int16)
    chosen = below(levels, torch.tensor(share) if in_a_tensor else share)
    assert chosen.sum() == n_selected
    assert chosen[:n_selected].all()


@pytest.mark.parametrize(("shape", "n_bytes"), [((3, 5), 32), ((4, 4), 32), ((17,), 40), ((0,), 0)])
def test_levels_take_two_bytes_each_in_words_of_eight(shape, n_bytes):
    levels = draw_levels(torch.Size(shape), torch.device("cpu"))
    assert levels.shape == shape
    assert levels.untyped_storage().nbytes() == n_bytes


def test_a_number_masks_the_same_share_of_every_trial():
    shares = draw_mask(torch.ones(SHAPE, dtype=torch.bool), 0.5).float().mean((1, 2))
    assert (shares - 0.5).abs().max() < 0.05


def test_whole_neurons_are_masked_instead_of_entries_in_half_of_the_windows():
    visible = torch.rand(600, 4, 50) < 0.8
    entries = draw_mask(visible, 0.3)
    masked = mask_neurons(entries, visible, (0.0, 0.9))
    seen = torch.where(masked | ~visible, 0, 1).sum(1)  # (windows, neurons)
    whole = ((masked.sum(1) == 0) | (seen == 0)).all(1)
    assert whole.float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert torch.equal(masked[~whole], entries[~whole])
    assert not (masked & ~visible).any()
    shares = (masked & visible)[whole].any(1).float().mean(1)
    assert shares.mean().item() == pytest.approx(0.45, abs=0.05)
    assert shares.max() > 0.75


def test_each_trial_draws_its_share_from_a_range():
    low, high = 0.2, 0.8
    shares = draw_mask(torch.ones(400, 30, 40, dtype=torch.bool), (low, high)).float().mean((1, 2))
    assert low - 0.05 < shares.min() < low + 0.05
    assert high - 0.05 < shares.max() < high + 0.05
    # mean and standard deviation of a uniform distribution
    assert shares.mean().item() == pytest.approx((low + high) / 2, abs=0.03)
    assert shares.std().item() == pytest.approx((high - low) / 12**0.5, abs=0.02)


def test_masks_are_single_entries_rather_than_bins_or_neurons():
    mask = draw_mask(torch.ones(SHAPE, dtype=torch.bool), 0.5)
    assert (mask.float().mean(1) - 0.5).abs().max() < 0.4  # not all bins of any neuron
    assert (mask.float().mean(2) - 0.5).abs().max() < 0.4  # not all neurons of any bin


@pytest.fixture
def drawn():
    spikes = torch.poisson(torch.full(SHAPE, 3.0))
    visible = torch.rand(SHAPE) < 0.9
    masked = visible & (torch.rand(SHAPE) < 0.5)
    return spikes, visible, masked


@pytest.mark.parametrize(
    ("token_ratio", "random_ratio"), [(1.0, 0.0), (0.8, 0.5), (0.5, 1.0), (0.3, 0.0), (0.0, 0.4)]
)
def test_masked_entries_become_tokens_or_random_counts_or_are_kept(
    drawn, token_ratio, random_ratio
):
    spikes, visible, masked = drawn
    fed, shown = corrupt(spikes + 0.5, visible, masked, token_ratio, random_ratio)
    # counts end in one half here, random counts are whole numbers
    is_random = fed == fed.round()
    as_token, as_random = masked & ~shown, masked & shown & is_random
    rest = 1 - token_ratio
    assert as_token[masked].float().mean().item() == pytest.approx(token_ratio, abs=0.01)
    assert as_random[masked].float().mean().item() == pytest.approx(rest * random_ratio, abs=0.01)
    kept = masked & shown & ~is_random
    assert torch.equal(fed[kept], spikes[kept] + 0.5)


def test_only_masked_entries_are_corrupted(drawn):
    spikes, visible, masked = drawn
    fed, shown = corrupt(spikes, visible, masked, 0.5, 0.5)
    assert torch.equal(fed[~masked], spikes[~masked])
    assert torch.equal(shown[~masked], visible[~masked])


def test_random_counts_are_whole_numbers_up_to_the_largest_count():
    spikes = torch.zeros(SHAPE)
    spikes[0, 0, 0] = 4
    everything = torch.ones(SHAPE, dtype=torch.bool)
    fed, _ = corrupt(spikes, everything, everything, 0.0, 1.0)
    values, counts = fed.unique(return_counts=True)
    assert values.tolist() == [0, 1, 2, 3, 4]
    assert (counts / counts.sum() - 0.2).abs().max() < 0.01


def test_signals_are_replaced_by_those_of_the_same_neuron_in_another_bin():
    # each entry tells its trial, its bin and its neuron
    spikes = torch.arange(40 * 50 * 60.0).view(SHAPE)
    masked = torch.zeros(SHAPE, dtype=torch.bool)
    masked[:, ::2] = True
    fed, shown = corrupt(spikes, ~torch.zeros_like(masked), masked, 0.0, 1.0, counts=False)
    assert shown.all()
    assert torch.equal(fed[~masked], spikes[~masked])
    source = fed.long()
    assert torch.equal(source % 60, torch.arange(60).expand(SHAPE))
    trials, bins = source // 3000, source // 60 % 50
    # of 2,000 bins to take from, each is as likely as any other
    assert (trials == torch.arange(40)[:, None, None])[masked].float().mean() < 0.1
    assert (bins == torch.arange(50)[:, None])[masked].float().mean() < 0.1
    assert (bins[masked] % 2).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_by_default_all_masked_entries_are_hidden_and_no_count_changes(drawn):
    spikes, visible, masked = drawn
    fed, shown = corrupt(spikes, visible, masked, 1.0, 0.0)
    assert torch.equal(fed, spikes)
    assert torch.equal(shown, visible & ~masked)


def test_arguments_are_unchanged(drawn):
    before = [tensor.clone() for tensor in drawn]
    corrupt(*drawn, 0.5, 0.5)
    draw_mask(drawn[1], 0.5)
    assert all(torch.equal(*pair) for pair in zip(drawn, before, strict=True))


@settings(deadline=None, max_examples=20)
@given(shape=st.lists(st.integers(1, 6), min_size=2, max_size=3).map(tuple))
def test_every_entry_is_in_exactly_one_fold(shape):
    folds = speckled_folds(shape)
    assert folds.shape == shape
    times_hidden = sum((folds == fold).int() for fold in range(N_FOLDS))
    assert torch.equal(times_hidden, torch.ones(shape, dtype=torch.int32))


def test_folds_are_random_and_of_similar_size():
    folds = speckled_folds(SHAPE)
    assert (folds.unique(return_counts=True)[1] / folds.numel() - 0.2).abs().max() < 0.01
    for fold in range(N_FOLDS):  # not all entries of any neuron or bin of a trial
        assert (folds == fold).float().mean(1).max() < 0.6
        assert (folds == fold).float().mean(2).max() < 0.6


def test_folds_depend_only_on_the_shape():
    before = torch.random.get_rng_state()
    folds = speckled_folds(SHAPE)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(speckled_folds(SHAPE), folds)


def test_the_first_pass_shows_everything_and_each_entry_is_hidden_in_one_of_the_others():
    masks = inference_masks(50, 60, 4)
    assert masks.shape == (4, 50, 60)
    assert masks[0].all()
    assert ((~masks).sum(0) == 1).all()
    assert ((~masks[1:]).float().mean((1, 2)) - 1 / 3).abs().max() < 0.03
    assert torch.equal(masks, inference_masks(50, 60, 4))
    assert not torch.equal(masks[1], speckled_folds((1, 50, 60))[0] != 0)
    # those of a neuron are the same if others are added
    assert torch.equal(masks, inference_masks(50, 63, 4)[..., :60])


@pytest.mark.parametrize(("n_passes", "share"), [(1, None), (2, 1 / 2), (3, 1 / 2), (6, 1 / 5)])
def test_few_or_many_passes(n_passes, share):
    first, *others = inference_masks(50, 60, n_passes)
    assert first.all()
    assert len(others) == n_passes - 1
    for mask in others:
        assert abs(float((~mask).float().mean()) - share) < 0.04
