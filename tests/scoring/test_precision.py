"""Every plain function computes in float32 at least, in one dtype, whatever it is given."""

import pytest
import torch
from score_problems import SCORES

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring import expected_distance, gaussian_norm_moment

FUNCTIONS = {
    **{name: score for name, (score, _) in SCORES.items()},
    "distance": lambda x, y: expected_distance(x, DiagonalGaussian(y, y.abs())),
    "moment": lambda x, y: gaussian_norm_moment(x[0], y.abs()),
}

every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def problem():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 4, 3, generator=generator), torch.randn(4, 3, generator=generator)


@every_function
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_raised_also_under_autocast(function, dtype):
    x, y = (v.to(dtype) for v in problem())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = function(x, y)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, function(x.float(), y.float()), rtol=0.0, atol=0.0)


@every_function
def test_of_two_dtypes_the_wider_counts(function):
    x, y = problem()
    found = function(x.float(), y)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, function(x.float().double(), y), rtol=1e-14, atol=0.0)
