import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_stndt.network.dropout import LEVELS, Dropout

pytestmark = pytest.mark.usefixtures("torch_seed")


def quantised(p):
    """The nearest multiple of 1 / 256 below 1."""
    return min(round(256 * p), 255) / 256


@pytest.mark.parametrize("p", [0.004, 0.1, 0.3, 0.5, 0.9])
def test_entries_are_dropped_with_the_probability(p):
    n = 1_000_000
    dropped = (Dropout(p)(torch.ones(n)) == 0).double().mean().item()
    assert abs(dropped - quantised(p)) < 4 * (p * (1 - p) / n) ** 0.5
    assert abs(quantised(p) - p) <= 1 / 512


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_entries_are_dropped_independently_along_every_axis(axis):
    dropped = (Dropout(0.5)(torch.ones(40, 41, 42)) == 0).double()
    share = dropped.mean(axis)
    spread = 0.5 / dropped.shape[axis] ** 0.5  # of a mean of coin flips
    assert share.std().item() == pytest.approx(spread, rel=0.1)
    neighbours = torch.stack([dropped.narrow(axis, i, 39).flatten() for i in (0, 1)])
    assert abs(torch.corrcoef(neighbours)[0, 1]) < 0.02


@pytest.mark.parametrize("p", [0.004, 0.1, 0.3, 0.5, 0.999])
def test_kept_entries_are_scaled_up(p):
    x = torch.linspace(-3, 5, 10_000)
    out = Dropout(p)(x)
    kept = out != 0
    # kept with probability 1 - q and divided by it, so that the expectation is x
    torch.testing.assert_close(out[kept], x[kept] / (1 - quantised(p)), rtol=1e-6, atol=0)
    assert kept.any()


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_dropout_does_nothing_in_evaluation_or_at_probability_0(p):
    x = torch.randn(5, 7)
    dropout = Dropout(p)
    assert torch.equal(dropout.eval()(x), x)
    assert torch.equal(dropout.train()(x), x) == (p == 0)


def test_the_seed_determines_the_masks_and_draws_differ():
    dropout, x = Dropout(0.5), torch.ones(100)
    torch.manual_seed(3)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(second, first)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.lists(st.integers(0, 9), max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    strided=st.booleans(),
)
def test_any_shape_keeps_its_shape_and_precision(shape, dtype, strided):
    x = torch.ones(shape, dtype=dtype)
    x = x.mT if strided and x.ndim > 1 else x
    out = Dropout(0.5)(x)
    assert out.shape == x.shape
    assert out.dtype == dtype
    assert set(out.unique().tolist()) <= {0.0, 2.0}


@pytest.mark.parametrize("n", [1, 7, 9, 15])
def test_every_entry_may_be_dropped_at_odd_sizes(n):
    dropout = Dropout(0.5)
    n_dropped = sum((dropout(torch.ones(n)) == 0).int() for _ in range(200))
    assert (n_dropped > 50).all()
    assert (n_dropped < 150).all()


def test_only_kept_entries_have_a_gradient():
    x = torch.randn(13, 5, requires_grad=True)
    out = Dropout(0.25)(x)
    out.sum().backward()
    kept = out != 0
    assert 0 < kept.sum() < x.numel()
    torch.testing.assert_close(x.grad, kept / 0.75)


def test_a_probability_near_1_keeps_a_few_entries():
    out = Dropout(0.9999)(torch.ones(100_000))
    assert 0 < (out != 0).sum() < 1000
    assert out.max() == LEVELS


@pytest.mark.gpu
def test_dropout_on_a_gpu_has_the_exact_probability():
    out = Dropout(0.3)(torch.ones(100_000, device="cuda"))
    assert (out == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert out.max().item() == pytest.approx(1 / 0.7)
