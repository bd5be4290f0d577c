"""The contrastive loss: its views, and the parameters that it trains."""

import pytest
import torch
from small_nets import N_BINS, N_NEURONS, SMALL, draw_counts_with_gaps

from sklearn_stndt.network import STNDT
from sklearn_stndt.training.net import MaskedModellingNet
from sklearn_stndt.training.objective import ObjectiveSettings

pytestmark = pytest.mark.usefixtures("torch_seed")


@pytest.fixture
def batch():
    return draw_counts_with_gaps(12)


def net_with(spatial_layers="last", **params):
    module = STNDT(N_NEURONS, N_BINS, **SMALL, spatial_layers=spatial_layers)
    objective = ObjectiveSettings(**params)
    return MaskedModellingNet(module, train_split=None, objective=objective).initialize()


@pytest.mark.parametrize("at", ["encoder", "embedding"])
def test_the_views_have_their_own_corruption(batch, at, monkeypatch):
    net = net_with(
        contrastive_at=at,
        mask_ratio=0.9,
        contrastive_mask_ratio=0.2,
        contrastive_token_ratio=0.0,
        contrastive_random_ratio=1.0,
    )
    seen, module = [], net.module_
    scale = module.scaling.forward
    monkeypatch.setattr(module.scaling, "forward", lambda *view: seen.append(view) or scale(*view))
    spikes, known, visible = net.split_visible(batch)
    net.contrast(spikes, visible)
    assert len(seen) == 2
    for view, shown in seen:
        # nothing is hidden, and at most about a fifth of the counts are changed
        assert torch.equal(shown.bool(), known)
        assert 0.05 < (view != spikes).sum() / known.sum() < 0.25
    assert not torch.equal(seen[0][0], seen[1][0])


@pytest.mark.parametrize("spatial_layers", ["last", "all"])
def test_contrast_at_the_embedding_trains_only_embeddings(batch, spatial_layers):
    net = net_with(spatial_layers, contrastive_at="embedding")
    spikes, _, visible = net.split_visible(batch)
    net.contrast(spikes, visible).backward()
    trained = {name for name, p in net.module_.named_parameters() if p.grad is not None}
    expected = {"scaling.token", "embed.weight", "embed.bias"}
    if spatial_layers == "all":
        expected |= {"mix_every.embed_courses.weight", "mix_every.embed_courses.bias"}
    assert trained == expected


@pytest.mark.parametrize("spatial_layers", ["last", "all"])
def test_contrast_at_the_embedding_distinguishes_trials(batch, spatial_layers):
    net = net_with(spatial_layers, contrastive_at="embedding", contrastive_mask_ratio=0.1)
    spikes, _, visible = net.split_visible(batch)
    alike = net.contrast(spikes[:1].expand_as(spikes), visible[:1].expand_as(visible))
    assert net.contrast(spikes, visible) < 0.7 * alike
