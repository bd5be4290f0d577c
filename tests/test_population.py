"""Scaling of counts for the network."""

import pytest
import torch

from sklearn_stndt.network.population import InputScaling


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("sqrt", [(2 - 1) / 0.5, (3 - 2) / 0.5]),
        ("standardized", [(2 - 1) / 0.25, (3 - 2) / 4]),
        ("counts", [4 * 2**0.5, 9 * 2**0.5]),
    ],
)
def test_scaled_counts_have_the_values_computed_by_hand(kind, values):
    # counts 4 and 9; mean 1 and 2, and standard deviation 0.25 and 4, of their square roots
    spikes, shown = torch.tensor([[[4.0, 9.0]]]), torch.ones(1, 1, 2)
    token = torch.zeros(2) if kind == "counts" else torch.tensor([-5.0, -6.0])
    scaling = InputScaling(2, kind).requires_grad_(False)
    scaling.set_statistics(torch.tensor([1.0, 2.0]), torch.tensor([0.25, 4.0]))
    scaling.token += token
    entering, bare = scaling(spikes, shown)
    torch.testing.assert_close(entering, torch.tensor([[values]]))
    torch.testing.assert_close(bare, torch.tensor([[values]]))
    entering, bare = scaling(spikes, 1 - shown)
    assert torch.equal(entering[0, 0], token)
    assert torch.equal(bare, torch.zeros(1, 1, 2))
