"""The gradient of every rule in samples, mean and std, against differences of its score.

Other ways to differentiate are compared with this one in the contracts.
"""

import pytest
import torch
from rule_instances import RULES
from seeding import seeded

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring import VariogramScore


@pytest.mark.parametrize("rule", (*sum(RULES.values(), ()), VariogramScore(0.2)), ids=str)
def test_agrees_with_finite_differences(rule):
    x, noise = (torch.randn(n, 2, 3, generator=seeded(n)) for n in (5, rule.noise_size))
    mean, std = torch.rand(2, 2, 3, generator=seeded())

    def of(x, mean, std):
        return rule.score_from(x, DiagonalGaussian(mean, std), noise)

    inputs = [v.requires_grad_() for v in (x, mean, std + 0.1)]
    # Nodes of a quadrature move with the scale, so that its error enters the differences.
    assert torch.autograd.gradcheck(of, inputs, eps=1e-4, atol=1e-5, rtol=1e-5)
