import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_stndt.network.spatial import SpatialAttention
from sklearn_stndt.network.temporal import TemporalAttention, allowed_keys, distances, layer_bands

pytestmark = pytest.mark.usefixtures("torch_seed")


def is_allowed(visible, band, query, key):
    """Whether one bin of one trial may attend to another."""
    return visible[key] and (band is None or query - band[0] <= key <= query + band[1])


@settings(deadline=None, max_examples=50)
@given(back=st.integers(0, 30), ahead=st.integers(0, 30), n_layers=st.integers(1, 7))
def test_bands_of_the_layers_add_up_to_the_context(back, ahead, n_layers):
    bands = layer_bands((back, ahead), n_layers)
    assert len(bands) == n_layers
    assert tuple(map(sum, zip(*bands, strict=True))) == (back, ahead)
    for side in zip(*bands, strict=True):
        assert max(side) - min(side) <= 1


def test_distances_cached_in_inference_work_in_training():
    distances.cache_clear()
    attention = TemporalAttention(4, 2, dropout=0.0, local_bins=6)
    x = torch.randn(1, 6, 4)
    with torch.inference_mode():
        attention(x, None)
    attention(x, None)[0].sum().backward()
    assert attention.log_length.grad.abs().sum() > 0


def test_without_a_context_no_layer_has_a_band():
    assert layer_bands(None, 3) == [None, None, None]


@pytest.mark.parametrize("band", [None, (0, 0), (2, 1), (0, 3), (9, 9)])
@pytest.mark.parametrize("hidden", [[], [4], [0, 1, 5], range(6)])
def test_a_bin_attends_to_visible_bins_of_its_band(band, hidden):
    visible = torch.ones(2, 6, dtype=torch.bool)
    visible[1, list(hidden)] = False
    allowed = allowed_keys(visible, band)
    if allowed is None:
        allowed = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    allowed = allowed.expand(2, 1, 6, 6)
    for trial in range(2):
        for query in range(6):
            for key in range(6):
                expected = is_allowed(visible[trial], band, query, key)
                assert bool(allowed[trial, 0, query, key]) == bool(expected)


def test_no_mask_is_made_if_everything_is_allowed():
    # without a mask, attention uses its fastest kernel
    assert allowed_keys(torch.ones(3, 5, dtype=torch.bool), None) is None


def naive_temporal_attention(attention, x, allowed, lengths):
    """One query, one head, one key at a time."""
    n_bins, d_model = x.shape
    n_heads, width = attention.n_heads, attention.head_width
    weight = attention.query_key_value.weight.view(3, n_heads, width, d_model)
    bias = attention.query_key_value.bias.view(3, n_heads, width)
    attended = torch.zeros(n_bins, n_heads, width, dtype=x.dtype)
    weights = torch.zeros(n_heads, n_bins, n_bins, dtype=x.dtype)
    for head in range(n_heads):
        query, key, value = (x @ weight[i, head].T + bias[i, head] for i in range(3))
        for q in range(n_bins):
            keys = [k for k in range(n_bins) if allowed[q, k]]
            similarity = [
                math.exp(query[q] @ key[k] / math.sqrt(width) - abs(q - k) / lengths[head])
                for k in keys
            ]
            for k, s in zip(keys, similarity, strict=True):
                weights[head, q, k] = s / sum(similarity)
                attended[q, head] += weights[head, q, k] * value[k]
    return attention.out(attended.flatten(1)), weights


@pytest.mark.parametrize(("d_model", "n_heads"), [(6, 2), (5, 3), (1, 1), (2, 4)])
@pytest.mark.parametrize("band", [None, (1, 2)])
@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("return_weights", [True, False])
@torch.no_grad()
def test_temporal_attention_agrees_with_the_definition(
    d_model, n_heads, band, local, return_weights
):
    local_bins = 6 if local else None
    attention = TemporalAttention(d_model, n_heads, dropout=0.5, local_bins=local_bins)
    attention.double().eval()
    lengths = [math.inf] * n_heads
    if local:
        lengths = [0.5 + head for head in range(n_heads)]
        attention.log_length.copy_(torch.tensor(lengths).log())
    x = torch.randn(2, 6, d_model, dtype=torch.float64)
    visible = torch.ones(2, 6, dtype=torch.bool)
    visible[1, 3:5] = False
    out, weights = attention(x, allowed_keys(visible, band), return_weights)
    for trial in range(2):
        allowed = [[is_allowed(visible[trial], band, q, k) for k in range(6)] for q in range(6)]
        expected_out, expected_weights = naive_temporal_attention(
            attention, x[trial], torch.tensor(allowed), lengths
        )
        torch.testing.assert_close(out[trial], expected_out)
        if return_weights:
            torch.testing.assert_close(weights[trial], expected_weights)
    assert (weights is not None) == return_weights


@pytest.mark.parametrize(("n_heads", "n_bins"), [(1, 60), (4, 60), (4, 3)])
def test_initial_lengths_are_2_bins_to_a_third_of_the_window(n_heads, n_bins):
    attention = TemporalAttention(8, n_heads, dropout=0.0, local_bins=n_bins)
    lengths = attention.log_length.detach().exp()
    assert lengths[0].item() == pytest.approx(2)
    if n_heads > 1:
        assert lengths[-1].item() == pytest.approx(max(n_bins / 3, 2))
    assert (lengths.diff() >= 0).all()


@pytest.mark.parametrize("return_weights", [True, False])
@torch.no_grad()
def test_a_bin_without_any_key_gets_zeros(return_weights):
    attention = TemporalAttention(4, 2, dropout=0.0)
    visible = torch.ones(1, 6, dtype=torch.bool)
    visible[0, 2:5] = False
    out, weights = attention(torch.randn(1, 6, 4), allowed_keys(visible, (1, 1)), return_weights)
    torch.testing.assert_close(out[0, 3], attention.out.bias)
    assert out.isfinite().all()
    if return_weights:
        assert torch.equal(weights[0, :, 3], torch.zeros(2, 6))


def test_attention_weights_are_dropped_only_in_training():
    attention = TemporalAttention(4, 2, dropout=0.5)
    x = torch.randn(1, 6, 4)
    assert not torch.equal(attention(x, None)[0], attention(x, None)[0])
    attention.eval()
    assert torch.equal(attention(x, None)[0], attention(x, None)[0])
    spatial = SpatialAttention(5, 1, 4, dropout=0.5)
    courses, visible = torch.randn(1, 3, 5), torch.ones(1, 3, dtype=torch.bool)
    assert not torch.equal(spatial(courses, visible), spatial(courses, visible))


def naive_spatial_attention(attention, courses, visible):
    """One head, one pair of neurons at a time."""
    n_neurons, n_bins = courses.shape
    n_heads, width = attention.n_heads, attention.head_width
    weight = attention.query_key.weight.view(2, n_heads, width, n_bins)
    bias = attention.query_key.bias.view(2, n_heads, width)
    weights = torch.zeros(n_neurons, n_neurons, dtype=courses.dtype)
    for head in range(n_heads):
        query, key = (courses @ weight[i, head].T + bias[i, head] for i in range(2))
        for q in range(n_neurons):
            keys = [k for k in range(n_neurons) if visible[k]]
            similarity = [math.exp(query[q] @ key[k] / math.sqrt(width)) for k in keys]
            for k, s in zip(keys, similarity, strict=True):
                weights[q, k] += s / sum(similarity) / n_heads
    return weights


@pytest.mark.parametrize(("n_heads", "width"), [(1, 4), (2, 4), (3, 5), (4, 1)])
@torch.no_grad()
def test_spatial_attention_agrees_with_the_definition(n_heads, width):
    attention = SpatialAttention(7, n_heads, width, dropout=0.5).double().eval()
    courses = 2 * torch.randn(3, 5, 7, dtype=torch.float64)
    visible = torch.ones(3, 5, dtype=torch.bool)
    visible[1, 2] = False
    visible[2] = False
    weights = attention(courses, visible)
    for trial in range(3):
        expected = naive_spatial_attention(attention, courses[trial], visible[trial])
        torch.testing.assert_close(weights[trial], expected)
    assert torch.equal(weights[2], torch.zeros(5, 5, dtype=torch.float64))
