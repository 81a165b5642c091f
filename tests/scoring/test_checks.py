"""What every plain score refuses by name; of rules, their contract suite asks for it."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError
from score_problems import SCORES

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import EnergyHead
from calmkit.scoring import EnergyScore

every_score = pytest.mark.parametrize(("score", "least"), SCORES.values(), ids=SCORES)


@every_score
def test_too_few_samples(score, least):
    with pytest.raises(ValueError, match=f"samples must hold at least {least} .* got {least - 1}"):
        score(torch.zeros(least - 1, 3), torch.zeros(3))


@every_score
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite(score, least, value):
    good, bad = torch.zeros(5, 3), torch.tensor([0.0, value, 0.0])
    with pytest.raises(ValueError, match="samples must be finite; 1 of 15"):
        score(good.index_put((torch.tensor(2),), bad), good[0])
    with pytest.raises(ValueError, match="observation must be finite; 1 of 3"):
        score(good, bad)


def test_a_target_is_called_what_it_was_given_as():
    """As a tensor it is `target`; as a Gaussian it has a mean."""
    samples, bad = torch.zeros(5, 3), torch.tensor([0.0, math.nan, 0.0])
    with pytest.raises(ValueError, match=r"^target must be finite; 1 of 3"):
        EnergyScore().score(samples, bad)
    with pytest.raises(ValueError, match=r"^target must be finite; 1 of 3"):
        EnergyHead(2, 3, width=4).loss(torch.zeros(2), bad)
    with pytest.raises(ValueError, match=r"^mean must be finite; 1 of 3"):
        EnergyScore().score(samples, DiagonalGaussian.isotropic(bad, 1.0))


@every_score
def test_broadcasting(score, least):
    with pytest.raises(TypeCheckError):
        score(torch.zeros(5, 2, 4), torch.zeros(1, 4))
