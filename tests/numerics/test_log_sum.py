"""Sums of many terms, most of them negligible, beside PyTorch's own."""

import math

import pytest
import torch

from calmkit.numerics import log_sum_exp


def logarithms(spread, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return (spread * torch.randn(5, 300, generator=generator)).to(dtype).requires_grad_()


@pytest.mark.parametrize("spread", [0.1, 10.0, 300.0])
def test_values_and_gradients_are_pytorchs(spread):
    x = logarithms(spread)
    ours, theirs = log_sum_exp(x), x.logsumexp(dim=-1)
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-14)
    gradients = [torch.autograd.grad(y.sum(), x)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_derivatives_of_second_order():
    assert torch.autograd.gradgradcheck(log_sum_exp, logarithms(3.0))


def test_no_gradient_is_subnormal():
    x = logarithms(30.0, torch.float32)
    (plain,) = torch.autograd.grad(x.logsumexp(dim=-1).sum(), x)
    assert ((plain > 0) & (plain < torch.finfo(torch.float32).tiny)).any()
    (gradient,) = torch.autograd.grad(log_sum_exp(x).sum(), x)
    assert gradient[gradient != 0].min() > math.exp(-61)


@pytest.mark.parametrize(
    "terms",
    [
        [-math.inf, -math.inf, -math.inf],
        [0.0, -math.inf, -100.0],
        [math.inf, 0.0, -math.inf],
        [math.inf, math.inf, 1e300],
    ],
)
def test_infinite_terms_have_pytorchs_sum(terms):
    x = torch.tensor([terms, [0.0, 1.0, -70.0]])
    torch.testing.assert_close(log_sum_exp(x), x.logsumexp(dim=-1), rtol=1e-14, atol=0)


def test_a_row_that_is_infinite_does_not_touch_the_gradients_of_others():
    x = torch.tensor([[-math.inf, -math.inf], [0.0, 1.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(log_sum_exp(x)[1], x)
    torch.testing.assert_close(gradient[1], x[1].softmax(dim=-1))


def test_nan_stays():
    assert log_sum_exp(torch.tensor([0.0, math.nan])).isnan()
