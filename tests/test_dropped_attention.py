import pytest
import torch

from sklearn_stndt.network import dropped_attention
from sklearn_stndt.network.dropout import LEVELS
from sklearn_stndt.network.dropped_attention import query_blocks
from sklearn_stndt.network.temporal import TemporalAttention, allowed_keys

# (batch, bins, width, heads, band, local): uneven heads, bands of one bin, a single bin
SHAPES = [
    (5, 23, 10, 3, None, True),
    (5, 23, 12, 4, (3, 2), True),
    (4, 40, 12, 2, (0, 0), False),
    (4, 40, 12, 2, (5, 0), True),
    (3, 40, 8, 2, (60, 60), False),
    (2, 1, 8, 2, None, False),
]


pytestmark = pytest.mark.usefixtures("torch_seed")


@pytest.fixture(params=["kept", "computed once more"])
def memory(request, monkeypatch):
    """Keep attention weights for the backward pass, or compute them again."""
    if request.param == "computed once more":
        monkeypatch.setattr(dropped_attention, "KEPT_ENTRIES", 0)


@pytest.fixture(params=["all at once", "a few trials", "parts of a trial"])
def blocks(request, memory, monkeypatch):
    """Set block sizes so that batches are not split, split by trials, or split within trials."""
    entries = {"all at once": 2**17, "a few trials": 3000, "parts of a trial": 60}
    monkeypatch.setattr(dropped_attention, "CACHED_ENTRIES", entries[request.param])
    monkeypatch.setattr(dropped_attention, "SHORTEST_BLOCK", 4)


@pytest.mark.parametrize("hidden", ["here and there", "at the end", "nothing"])
@pytest.mark.parametrize(("batch", "n_bins", "width", "n_heads", "band", "local"), SHAPES)
def test_values_and_gradients_equal_those_of_plain_attention(
    blocks, batch, n_bins, width, n_heads, band, local, hidden
):
    attention = TemporalAttention(width, n_heads, 0.0, n_bins if local else None).double()
    visible = torch.ones(batch, n_bins, dtype=torch.bool)
    if hidden == "here and there":
        visible = torch.rand(batch, n_bins) < 0.8
        visible[0] = False
    elif hidden == "at the end":
        visible[:, n_bins - n_bins // 4 :] = False
    allowed = allowed_keys(visible, band)
    x = torch.randn(batch, n_bins, width, dtype=torch.float64, requires_grad=True)
    expected, _ = attention(x, allowed, return_weights=True)  # with torch's own operations
    direction = torch.randn_like(expected)
    inputs = [x, *attention.parameters()]
    expected_gradients = torch.autograd.grad(expected, inputs, direction)
    out, weights = attention(x, allowed, band=band)
    assert weights is None
    torch.testing.assert_close(out, expected)
    for gradient, other in zip(
        torch.autograd.grad(out, inputs, direction), expected_gradients, strict=True
    ):
        torch.testing.assert_close(gradient, other)
    with torch.no_grad():  # the kernel used in inference
        torch.testing.assert_close(attention(x, allowed, band=band)[0], expected)


def test_dropped_weights_are_0_and_the_rest_is_scaled(blocks):
    n_bins = 24
    attention = TemporalAttention(n_bins, 1, 0.25)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.zero_()
        # values and output are the identity, so the output shows the weights, all 1 / n_bins
        attention.query_key_value.weight[2 * n_bins :] = torch.eye(n_bins)
        attention.out.weight.copy_(torch.eye(n_bins))
    out, _ = attention(torch.eye(n_bins).expand(200, -1, -1), None)
    weights = out.detach() * n_bins
    assert weights.unique().numpy() == pytest.approx([0, LEVELS / (LEVELS - 64)], rel=1e-5)
    assert (weights == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert (weights == 0).float().mean(0).max() < 0.5  # each trial has its own dropped weights


def test_the_gradient_is_that_of_the_kept_weights(blocks):
    attention = TemporalAttention(6, 2, 0.5, local_bins=9).double()
    x = torch.randn(3, 9, 6, dtype=torch.float64, requires_grad=True)

    def run(x):
        torch.manual_seed(1)  # the same weights are dropped
        return attention(x, None)[0]

    assert torch.autograd.gradcheck(run, x)


@pytest.mark.parametrize("band", [None, (0, 0), (3, 1), (200, 200)])
@pytest.mark.parametrize("n_bins", [1, 31, 400, 3000])
def test_blocks_hold_every_query_once_and_all_keys_of_its_band(n_bins, band):
    blocks = query_blocks(n_bins, n_bins, 4, band)
    queries = [t for rows, _ in blocks for t in range(n_bins)[rows]]
    assert queries == list(range(n_bins))
    back, ahead = band or (n_bins, n_bins)
    for rows, columns in blocks:
        assert columns.start <= max(rows.start - back, 0)
        assert columns.stop >= min(rows.stop + ahead, n_bins)


def test_the_cost_of_a_narrow_band_is_linear_in_the_bins():
    def cost(n_bins):
        return sum(
            (rows.stop - rows.start) * (columns.stop - columns.start)
            for rows, columns in query_blocks(n_bins, n_bins, 4, (10, 10))
        )

    assert cost(1600) / cost(400) < 4.2
