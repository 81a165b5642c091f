"""Every rule is finite, with finite gradients, at ties, point masses and the ends of float32."""

import itertools

import pytest
import torch
from rule_instances import RULES

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring import (
    GaussianKernel,
    InverseMultiquadricKernel,
    KernelScore,
    LaplaceKernel,
    VariogramScore,
)

KERNELS = (GaussianKernel, InverseMultiquadricKernel, LaplaceKernel)
EXTRA = (
    VariogramScore(0.2),
    *(KernelScore(kind(b)) for kind in KERNELS for b in (1.0, [1e-4, 1e-3], 1e4)),
)
# The least normal number of float32 is 1.18e-38.
SCALES = (0.0, 1e-39, 2e-37, 1e-30, 1e-6, 1.0, 1e8)
SPREADS = (0.0, 1e-39, 1.2e-38, 1e-30, 1e-12, 1.0, 1e8)


@pytest.mark.parametrize("rule", (*sum(RULES.values(), ()), *EXTRA), ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("certain", [0, 1], ids=["spread", "a dimension without"])
def test_finite(rule, dtype, certain):
    """Some ties, all ties on the outcome, all ties beside the outcome; one of the noise zero."""
    scale, std = torch.tensor(list(itertools.product(SCALES, SPREADS)), dtype=dtype).T[..., None]
    pattern = [[1, 1, 1], [1, 1, 1], [0.5, 1, 1], [-2, 1, 1], [0.3, 1, 1]]
    x = (scale * torch.tensor(pattern, dtype=dtype)[:, None]).requires_grad_()
    mean = (scale * torch.tensor([1, 1, 2], dtype=dtype)).requires_grad_()
    spread = std.repeat(1, 3)
    spread[:, :certain] = 0.0
    noise = torch.randn(rule.noise_size, *mean.shape, generator=torch.Generator().manual_seed(0))
    noise[:1] = 0.0
    target = DiagonalGaussian(mean, spread.requires_grad_())
    value = rule.score_from(x, target, noise.to(dtype))
    value.sum().backward()
    for tensor in (value, x.grad, mean.grad, spread.grad):
        assert torch.isfinite(tensor).all()
