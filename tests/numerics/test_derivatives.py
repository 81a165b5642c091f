"""Which derivatives are left to plain operations, and a norm that is smooth at zero."""

import pytest
import torch
import torch.autograd.forward_ad as forward_mode

from calmkit.numerics import needs_plain_operations, smooth_norm

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")


def test_a_plain_backward_pass_needs_no_plain_operations():
    assert not needs_plain_operations(torch.ones(3, requires_grad=True))


def test_forward_mode_and_transforms_need_them():
    answers = []

    def ask(x):
        answers.append(needs_plain_operations(torch.ones(3), x))
        return x.sum()

    x = torch.ones(2)
    with forward_mode.dual_level():
        ask(forward_mode.make_dual(x, x))
    torch.func.grad(ask)(x)
    torch.vmap(ask)(x)
    assert answers == [True] * 3


@pytest.mark.parametrize("dim", [0, -1])
def test_norm_and_its_derivatives(dim):
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    want = x.square().sum(dim=dim).sqrt()
    torch.testing.assert_close(smooth_norm(x, dim), want)
    assert torch.autograd.gradcheck(smooth_norm, (x, dim))
    assert torch.autograd.gradgradcheck(smooth_norm, (x, dim))


def test_all_derivatives_of_the_norm_of_zero_are_zero():
    x = torch.zeros(2, 3, requires_grad=True)
    norm = smooth_norm(x, -1).sum()
    first = torch.autograd.grad(norm, x, create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), x)[0]
    for found in (norm, first, second):
        assert (found == 0).all()
