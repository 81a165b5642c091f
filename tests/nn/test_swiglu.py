"""SwiGLU against a loop over its hidden units."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calmkit.nn import SwiGLU


def test_matches_loop_oracle():
    torch.manual_seed(0)
    layer = SwiGLU(3, 5).requires_grad_(False)
    x = torch.randn(3)
    want = torch.zeros(3)
    for unit in range(5):
        gate = sum(float(layer.gate.weight[unit, i] * x[i]) for i in range(3))
        up = sum(float(layer.up.weight[unit, i] * x[i]) for i in range(3))
        hidden = gate / (1 + math.exp(-gate)) * up
        want += layer.down.weight[:, unit] * hidden
    torch.testing.assert_close(layer(x), want)


@given(st.integers(1, 200))
def test_default_width(size):
    """The smallest multiple of 8 that is at least 8/3 size."""
    hidden = SwiGLU(size).gate.out_features
    assert hidden % 8 == 0
    assert hidden >= 8 * size / 3 > hidden - 8


@pytest.mark.parametrize(("size", "ff_size"), [(0, None), (3, 0), (-1, 4)])
def test_bad_sizes_are_refused(size, ff_size):
    with pytest.raises(ValueError, match="size must be at least 1"):
        SwiGLU(size, ff_size)
