"""Residual MLP against its formula, and its scale at the start."""

import pytest
import torch
from torch.nn.functional import silu

from calmkit.nn.residual import ResidualBlock, ResidualMLP


def randomized(module):
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            generator = torch.Generator().manual_seed(index)
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module.requires_grad_(False)


def rms_norm(x, weight):
    return x / (x.square().mean() + 1e-6).sqrt() * weight


def literal_block(block, x):
    swiglu, inner = block.feed_forward, rms_norm(x, block.norm.weight)
    hidden = silu(swiglu.gate.weight @ inner) * (swiglu.up.weight @ inner)
    return x + swiglu.down.weight @ hidden


def test_block_matches_its_formula():
    block = randomized(ResidualBlock(4, 6))
    x = torch.randn(4, generator=torch.Generator().manual_seed(9))
    torch.testing.assert_close(block(x), literal_block(block, x))


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)
def test_network_matches_its_formula(batch):
    net = randomized(ResidualMLP(3, 5, width=4, depth=2))
    x = torch.randn(*batch, 3, generator=torch.Generator().manual_seed(9))
    got = net(x).reshape(-1, 5)
    for row, vector in zip(got, x.reshape(-1, 3), strict=True):
        hidden = net.input.weight @ vector + net.input.bias
        for block in net.blocks:
            hidden = literal_block(block, hidden)
        hidden = rms_norm(hidden, net.output_norm.weight)
        torch.testing.assert_close(row, net.output.weight @ hidden + net.output.bias)


@pytest.mark.parametrize("depth", [1, 8])
def test_starts_at_unit_scale_whatever_the_depth(depth):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ResidualMLP(64, 64, width=128, depth=depth)
        x = torch.randn(500, 64)
    hidden = []
    net.output_norm.register_forward_pre_hook(lambda _, args: hidden.append(args[0]))
    with torch.no_grad():
        assert 0.9 < net(x).std() < 1.1
    assert 1.0 < hidden[0].std() < 1.5  # the input's 1, and a little from all branches together


@pytest.mark.parametrize("name", ["in_size", "out_size", "width", "depth"])
def test_bad_sizes_are_refused(name):
    sizes = {"in_size": 4, "out_size": 3, "width": 6, "depth": 1} | {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
        ResidualMLP(**sizes)
