"""Dual numbers against torch's derivatives and against finite differences."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from seeding import seeded
from torch import nn

from calmkit.nn import AdaptiveMLP
from calmkit.nn.dual import Dual, layer_norm, linear, sequential, silu


def random_dual(*shape, seed=0):
    return Dual(*torch.randn(2, *shape, generator=seeded(seed)))


def filled(module, seed=0):
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=seeded(seed + index)))
    return module


NORM = filled(nn.LayerNorm(5, eps=1e-3))
PLAIN_NORM = nn.LayerNorm(5, elementwise_affine=False)
LINEAR = filled(nn.Linear(5, 4))
LAYERS = nn.Sequential(NORM, LINEAR, nn.SiLU())
RULES = {
    "sum": (lambda a, b: a + b, lambda a, b: a + b),
    "difference": (lambda a, b: a - b, lambda a, b: a - b),
    "product": (lambda a, b: a * b, lambda a, b: a * b),
    "plus": (lambda a, b: a.plus(3.0) * b, lambda a, b: (a + 3.0) * b),
    "chunk": (lambda a, b: (a * b).chunk(5)[2], lambda a, b: (a * b)[..., 2:3]),
    "linear": (lambda a, b: linear(LINEAR, a * b), lambda a, b: LINEAR(a * b)),
    "silu": (lambda a, b: silu(a * b), lambda a, b: nn.functional.silu(a * b)),
    "layer_norm": (lambda a, b: layer_norm(NORM, a * b), lambda a, b: NORM(a * b)),
    "sequential": (lambda a, b: sequential(LAYERS, a * b), lambda a, b: LAYERS(a * b)),
    "plain layer_norm": (
        lambda a, b: layer_norm(PLAIN_NORM, a * b),
        lambda a, b: PLAIN_NORM(a * b),
    ),
}


@pytest.mark.parametrize("name", list(RULES))
@given(seed=st.integers(0, 1000), scale=st.sampled_from([1e-2, 1.0, 1e2]))
def test_rules_are_those_of_torch(name, seed, scale):
    """Torch's first derivatives are right (here by two reverse passes)."""
    rule, function = RULES[name]
    a, b = random_dual(2, 3, 5, seed=seed), random_dual(2, 3, 5, seed=seed + 1)
    a = Dual(scale * a.value, a.tangent)
    got = rule(a, b)
    value, tangent = torch.autograd.functional.jvp(
        function, (a.value, b.value), (a.tangent, b.tangent)
    )
    torch.testing.assert_close(got.value, value)
    torch.testing.assert_close(got.tangent, tangent)


def test_a_tensor_is_a_constant_that_may_be_larger():
    a = random_dual(1, 5)
    got = a.plus(torch.ones(4, 5))
    torch.testing.assert_close(got.value, (a.value + 1).expand(4, 5))
    torch.testing.assert_close(got.tangent, a.tangent.expand(4, 5))


def test_value_and_tangent_have_one_shape():
    with pytest.raises(ValueError, match=r"shape of value, \(2, 5\); got \(1, 5\)"):
        Dual(torch.zeros(2, 5), torch.zeros(1, 5))


def test_a_layer_without_a_rule_is_refused():
    with pytest.raises(TypeError, match=r"layers must be Linear, LayerNorm or SiLU; got .*ReLU"):
        sequential(nn.Sequential(LINEAR, nn.ReLU()), random_dual(2, 5))


def test_gradients_of_a_tangent_are_right():
    """What torch.func.jvp gets wrong through a layer norm: checked by finite differences."""

    def tangent(x, dx):
        return layer_norm(PLAIN_NORM, Dual(x, dx)).tangent

    x, dx = (t.requires_grad_() for t in torch.randn(2, 3, 5, generator=seeded()))
    assert torch.autograd.gradcheck(tangent, (x, dx))


def network():
    return filled(AdaptiveMLP(4, 3, 2, width=6, depth=2, resolution=2.0))


def embedded(net, time, cond):
    return net.time_embedding.dual(time).plus(net.cond_embedding(cond))


def test_the_network_and_its_derivative():
    net = network()
    x, cond = random_dual(2, 7, 3), torch.randn(7, 4, generator=seeded(1))
    time = random_dual(2, 7, seed=2)
    got = net.modulated_dual(x, embedded(net, time, cond))
    torch.testing.assert_close(got.value, net(x.value, time.value, cond))
    h = 1e-5
    ahead, behind = (
        net(x.value + s * x.tangent, time.value + s * time.tangent, cond) for s in (h, -h)
    )
    torch.testing.assert_close(got.tangent, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-6)


def test_gradients_of_the_networks_derivative():
    """A loss may hold the derivative: its gradient, for each parameter, by finite differences."""
    net = network()
    x, cond, time = random_dual(1, 3), torch.randn(4, generator=seeded(1)), random_dual(1, seed=2)
    weight = torch.randn(1, 2, generator=seeded(3))

    def loss():
        return (net.modulated_dual(x, embedded(net, time, cond)).tangent * weight).sum()

    gradients = torch.autograd.grad(loss(), list(net.parameters()), allow_unused=True)
    for index, (parameter, gradient) in enumerate(zip(net.parameters(), gradients, strict=True)):
        direction = torch.randn(parameter.shape, generator=seeded(index))
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter.add_(step * direction)
                values.append(loss())
                parameter.sub_(step * direction)
        want = (values[0] - values[1]) / 2e-5
        got = torch.zeros(()) if gradient is None else (gradient * direction).sum()
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_is_computed_in_single_precision_at_least(dtype, autocast):
    """In a model cast to bfloat16 only its result is rounded; under autocast not even that."""
    x = random_dual(64, 5)
    x = Dual(x.value.to(dtype), x.tangent.to(dtype))
    want = layer_norm(PLAIN_NORM, Dual(x.value.double(), x.tangent.double())).tangent
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        got = layer_norm(PLAIN_NORM, x)
    assert got.value.dtype == got.tangent.dtype == (torch.float32 if autocast else dtype)
    rtol = 2**-8 if got.tangent.dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(got.tangent.double(), want, rtol=rtol, atol=1e-5)
