import math

import pytest
import torch

from sklearn_stndt.network.likelihood import MAX_LOG_RATE, Poisson
from sklearn_stndt.network.losses import (
    group_sizes,
    info_nce,
    loss_weights,
    masked_modelling_loss,
)

poisson_nll = Poisson().nll


# One trial of two bins and three neurons at log-rate 0, so that an entry's loss is 1, but for
# four entries at ln 2 with one spike, whose loss is 2 - ln 2.
LOG_RATES = math.log(2) * torch.tensor([[[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]]])
SPIKES = torch.ones(1, 2, 3)
DEARER = 2 - math.log(2)


def entries(*indices):
    group = torch.zeros(1, 2, 3, dtype=torch.bool)
    for index in indices:
        group[(0, *index)] = True
    return group


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        # a mean over the entries of a group
        ({"masked": entries((0, 0))}, 1.0),
        ({"masked": entries((0, 0), (1, 0), (0, 1))}, (2 + DEARER) / 3),
        # three held-out entries have the weight of one masked entry: a sum of means
        (
            {"masked": entries((0, 0)), "heldout": entries((0, 1), (0, 2), (1, 2))},
            1 + DEARER,
        ),
        (
            {
                "masked": entries((0, 0)),
                "heldout": entries((0, 1)),
                "forecast": entries((1, 0), (1, 1)),
            },
            1 + DEARER + (1 + DEARER) / 2,
        ),
        # a group without entries adds nothing
        ({"masked": entries(), "heldout": entries((0, 1))}, DEARER),
        ({"masked": entries((0, 0)), "forecast": entries()}, 1.0),
        ({"masked": entries()}, 0.0),
    ],
)
def test_groups_are_averaged_separately_and_added(groups, expected):
    loss = masked_modelling_loss(poisson_nll(LOG_RATES, SPIKES), loss_weights(**groups))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_gradient_is_finite_where_a_group_has_no_entries():
    log_rates = LOG_RATES.clone().requires_grad_()
    scored = entries((0, 0), (1, 0))
    weights = loss_weights(entries(), heldout=scored)
    masked_modelling_loss(poisson_nll(log_rates, 3 * SPIKES), weights).backward()
    # d/dr (exp(r) - s r) = 1 - 3, halved by the mean over two entries; 0 elsewhere
    torch.testing.assert_close(log_rates.grad, -1.0 * scored)


@pytest.mark.parametrize("value", [MAX_LOG_RATE, -1e4])
def test_log_rates_of_unscored_entries_do_not_influence_the_loss(value):
    log_rates = torch.zeros(1, 2, 3)
    log_rates[0, 0, 2] = value
    log_rates.requires_grad_()
    weights = loss_weights(entries((0, 0)), heldout=entries((0, 1)))
    loss = masked_modelling_loss(poisson_nll(log_rates, 3 * SPIKES), weights)
    loss.backward()
    assert loss.item() == 2.0
    torch.testing.assert_close(log_rates.grad, -2.0 * entries((0, 0), (0, 1)))


def test_losses_of_parts_add_up_to_that_of_the_batch():
    generator = torch.Generator().manual_seed(0)
    log_rates, spikes = torch.rand(2, 7, 5, 3, generator=generator)
    groups = (spikes < 0.4, spikes > 0.8, None)
    weights = loss_weights(*groups)
    parts = list(zip(*(x.split(2) for x in (log_rates, spikes, *groups[:2])), strict=True))
    totals = sum(group_sizes(*part[2:], None) for part in parts)
    total = sum(
        masked_modelling_loss(poisson_nll(*part[:2]), loss_weights(*part[2:], totals=totals))
        for part in parts
    )
    torch.testing.assert_close(
        total, masked_modelling_loss(poisson_nll(log_rates, spikes), weights)
    )


def test_info_nce_has_the_value_computed_by_hand():
    # Views (1, 0), (0, 2), (3, 3), (0, 1) have the cosines
    #   first 1 with first 2, second 1, second 2:  0,        1/sqrt 2, 0
    #   first 2 with first 1, second 1, second 2:  0,        1/sqrt 2, 1
    #   second 1 with first 1, first 2, second 2:  1/sqrt 2, 1/sqrt 2, 1/sqrt 2
    #   second 2 with first 1, first 2, second 1:  0,        1,        1/sqrt 2
    # and the partner of each is: second 1, second 2, first 1, first 2.
    first = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    second = torch.tensor([[3.0, 3.0], [0.0, 1.0]])
    temperature, c = 0.5, 1 / math.sqrt(2)

    def cross_entropy(partner, *others):
        terms = [math.exp(cosine / temperature) for cosine in (partner, *others)]
        return -math.log(terms[0] / sum(terms))

    expected = (
        cross_entropy(c, 0, 0)
        + cross_entropy(1, 0, c)
        + cross_entropy(c, c, c)  # ln 3
        + cross_entropy(1, 0, c)
    ) / 4
    assert info_nce(first, second, temperature).item() == pytest.approx(expected, rel=1e-5)


def test_info_nce_is_lower_for_matching_pairs():
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(8, 16, generator=generator)
    second = first + 0.1 * torch.randn(8, 16, generator=generator)
    matching = info_nce(first, second, 0.1)
    shuffled = info_nce(first, second.roll(1, 0), 0.1)
    assert matching < 0.1
    assert shuffled > 5


def test_info_nce_depends_only_on_directions():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 5, 3, generator=generator)
    lengths = torch.tensor([1.0, 2.0, 3.0, 40.0, 0.5])[:, None]
    torch.testing.assert_close(info_nce(first * lengths, second, 0.2), info_nce(first, second, 0.2))


@pytest.mark.parametrize("representation", [torch.ones(1, 3), torch.zeros(1, 3)])
def test_info_nce_of_a_single_trial_is_zero_and_its_gradient_finite(representation):
    first = representation.clone().requires_grad_()
    loss = info_nce(first, representation, 0.07)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(first.grad, torch.zeros(1, 3))
