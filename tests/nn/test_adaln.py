"""The adaptive MLP against its formulas, and its shared computation against the plain one."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn
from torch.nn.functional import silu

from calmkit.nn import AdaptiveMLP
from calmkit.nn.adaln import AdaptiveBlock, TimeEmbedding
from calmkit.nn.dual import Dual


def network(depth=2):
    """A small network in which nothing is zero."""
    torch.manual_seed(0)
    net = AdaptiveMLP(4, 3, 5, width=6, depth=depth)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return net


def layer_norm(x):
    centred = x - x.mean()
    return centred / (centred.square().mean() + 1e-6).sqrt()


def test_block_matches_its_formula():
    torch.manual_seed(1)
    block = AdaptiveBlock(6)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    x, signal = torch.randn(1, 6), torch.randn(1, 6)
    a, b, g = (block.modulation.weight @ signal[0] + block.modulation.bias).split(6)
    inner = (layer_norm(x[0]) * block.norm.weight + block.norm.bias) * (1 + b) + a
    hidden = silu(block.mlp[0].weight @ inner + block.mlp[0].bias)
    want = x[0] + g * (block.mlp[2].weight @ hidden + block.mlp[2].bias)
    torch.testing.assert_close(block(x, signal)[0], want)


def test_network_matches_its_formula():
    net = network(depth=1)
    x, cond, time = torch.randn(1, 3), torch.randn(4), torch.tensor([0.3])
    signal = silu(net.time_embedding(time)[0] + net.cond_embedding(cond))
    hidden = net.blocks[0](net.input(x), signal[None])[0]
    shift, scale = net.output_modulation(signal).split(6)
    want = net.output(layer_norm(hidden) * (1 + scale) + shift)
    torch.testing.assert_close(net(x, time, cond)[0], want)


def test_time_embedding_matches_its_formula():
    torch.manual_seed(0)
    embedding = TimeEmbedding(3, resolution=10.0)
    angles = [10.0 * 0.3 * 10000 ** (-j / 128) for j in range(128)]
    features = torch.tensor([*map(math.cos, angles), *map(math.sin, angles)])
    torch.testing.assert_close(embedding(torch.tensor(0.3)), embedding.mlp(features))


def test_sinusoids_are_not_computed_in_bfloat16():
    """Those of a model cast to bfloat16 are right to the last digit that it can hold."""
    embedding = TimeEmbedding(3, resolution=1000.0).bfloat16()
    embedding.mlp = nn.Sequential()
    time = torch.tensor([0.37, 0.99]).bfloat16()
    speeds = 1000 * 10000 ** (-torch.arange(128) / 128)
    angles = time.double()[:, None] * speeds
    want = torch.cat([angles.cos(), angles.sin()], dim=-1)
    slope = torch.cat([-angles.sin() * speeds, angles.cos() * speeds], dim=-1)
    pair = embedding.dual(Dual(time, torch.ones_like(time)))
    for got in (embedding(time), pair.value):
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.double(), want, rtol=2**-8, atol=1e-4)
    assert pair.tangent.dtype == torch.bfloat16
    torch.testing.assert_close(pair.tangent.double(), slope, rtol=2**-8, atol=0.1)


def test_starts_with_output_zero_and_blocks_as_the_identity():
    torch.manual_seed(0)
    net = AdaptiveMLP(4, 3, 5, width=6, depth=2)
    x, cond, time = torch.randn(2, 7, 3), torch.randn(7, 4), torch.rand(2, 7)
    assert (net(x, time, cond) == 0).all()
    hidden, signal = torch.randn(2, 7, 6), torch.randn(2, 7, 6)
    torch.testing.assert_close(net.blocks[0](hidden, signal), hidden, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 1)])
def test_shared_times_give_what_repeated_ones_give(shape):
    net = network()
    x, cond, time = torch.randn(2, 7, 3), torch.randn(7, 4), torch.rand(shape)
    torch.testing.assert_close(net(x, time, cond), net(x, time.expand(2, 7), cond))


def test_each_row_depends_on_its_own_condition_and_time():
    net = network()
    x, cond, time = torch.randn(2, 7, 3), torch.randn(7, 4), torch.rand(2, 7)
    want = torch.stack(
        [
            torch.stack([net(x[s : s + 1, p], time[s : s + 1, p], cond[p])[0] for p in range(7)])
            for s in range(2)
        ]
    )
    torch.testing.assert_close(net(x, time, cond), want)


def test_differentiable_in_time():
    net = network()
    x, cond = torch.randn(1, 3), torch.randn(4)
    time = torch.tensor([0.3], requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: net(x, t, cond), (time,))


def test_condition_does_not_broadcast():
    net = network()
    with pytest.raises(TypeCheckError, match="parameter 'cond'"):
        net(torch.randn(2, 7, 3), torch.rand(2, 7), torch.randn(1, 4))


@pytest.mark.parametrize("name", ["cond_size", "in_size", "out_size", "width", "depth"])
def test_bad_sizes_are_refused(name):
    sizes = {"cond_size": 4, "in_size": 3, "out_size": 5, "width": 6, "depth": 1} | {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
        AdaptiveMLP(**sizes)
