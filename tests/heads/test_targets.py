"""A tensor as the target of a head or a rule is a point mass."""

import pytest
import torch
from head_instances import HEADS
from jaxtyping import TypeCheckError
from rule_instances import RULES

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import GaussianHead


def problem():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 5, generator=generator), torch.randn(4, 3, generator=generator)


@pytest.mark.parametrize("kind", HEADS)
def test_the_loss_of_a_tensor_is_that_of_a_point_mass(kind):
    torch.manual_seed(0)
    head = HEADS[kind](5, 3)
    cond, outcome = problem()

    def loss(target):
        return head.loss(cond, target, torch.Generator().manual_seed(1))

    assert (loss(outcome) == loss(DiagonalGaussian.point_mass(outcome))).all()


@pytest.mark.parametrize("kind", HEADS)
def test_a_tensor_of_another_batch_is_refused_in_one_sentence(kind):
    cond, outcome = problem()
    with pytest.raises(TypeCheckError, match="target"):
        HEADS[kind](5, 3).loss(cond, outcome[:2])


def test_a_target_of_another_batch_than_the_condition_is_refused():
    head = HEADS[GaussianHead](5, 3)
    cond, outcome = problem()
    assert head._checked_target(outcome, cond).mean.shape == (4, 3)
    for target in (outcome[:1], outcome[0], DiagonalGaussian.point_mass(outcome[None])):
        with pytest.raises(ValueError, match=r"target must have the batch of cond, \(4,\); got"):
            head._checked_target(target, cond)


@pytest.mark.parametrize("kind", RULES)
def test_a_rule_is_called_with_samples_and_an_outcome(kind):
    rule = RULES[kind][0]
    _, outcome = problem()
    samples = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(2))

    def score(target):
        return rule(samples, target, torch.Generator().manual_seed(1))

    assert (score(outcome) == score(DiagonalGaussian.point_mass(outcome))).all()
