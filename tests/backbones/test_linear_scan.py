"""The scan over positions against the recurrence, one step after another."""

import pytest
import torch
from jaxtyping import TypeCheckError

from calmkit.backbones.linear_scan import linear_scan


def steps(keep, inputs, before):
    states = []
    for t in range(keep.shape[1]):
        before = keep[:, t] * before + inputs[:, t]
        states.append(before)
    return torch.stack(states, dim=1)


def case(positions, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(2, positions, 3, generator=generator).to(dtype)
    inputs = torch.randn(2, positions, 3, generator=generator).to(dtype)
    return keep, inputs, torch.randn(2, 3, generator=generator).to(dtype)


@pytest.mark.parametrize("positions", [1, 2, 3, 4, 5, 7, 8, 9, 33])
def test_scan_is_the_recurrence(positions):
    keep, inputs, before = case(positions)
    torch.testing.assert_close(linear_scan(keep, inputs, before), steps(keep, inputs, before))
    torch.testing.assert_close(linear_scan(keep, inputs), steps(keep, inputs, torch.zeros(2, 3)))


def test_gradients_are_those_of_the_recurrence():
    tensors = [tensor.requires_grad_() for tensor in case(6)]
    weights = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(1))
    got = torch.autograd.grad((linear_scan(*tensors) * weights).sum(), tensors)
    want = torch.autograd.grad((steps(*tensors) * weights).sum(), tensors)
    torch.testing.assert_close(got, want)


def test_what_was_kept_none_of_is_gone():
    """After a factor of 0 the states are bitwise those of a scan that starts there."""
    keep, inputs, before = case(11)
    keep[:, 4] = 0
    inputs[:, :4] *= 1e200
    got = linear_scan(keep, inputs, before)[:, 4:]
    torch.testing.assert_close(got, steps(keep[:, 4:], inputs[:, 4:], before), rtol=0, atol=1e-15)
    assert torch.isfinite(got).all()


@pytest.mark.parametrize("keep", [0.0, 1e-30, 0.999, 1.0])
def test_extreme_factors_over_a_long_row(keep):
    """In float32, against float64: no factor over- or underflows into something else."""
    _, inputs, before = case(2000)
    factors = torch.full_like(inputs, keep).float()
    want = steps(factors.double(), inputs, before)
    got = linear_scan(factors, inputs.float(), before.float())
    # Measured: at most 4e-6 of the largest state.
    torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-5 * want.abs().max().item())


def test_a_state_of_another_size_does_not_broadcast():
    keep, inputs, before = case(4)
    with pytest.raises(TypeCheckError, match="parameter 'before'"):
        linear_scan(keep, inputs, before[:, :1])
