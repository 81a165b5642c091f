"""minGRU's own promises; what every backbone promises is in tests/contracts."""

import math

import pytest
import torch
from torch.nn.functional import silu

from calmkit.attention import AttentionMask
from calmkit.backbones import MinGRUBackbone


def backbone(**arguments):
    torch.manual_seed(0)
    model = MinGRUBackbone(8, **{"depth": 2} | arguments).requires_grad_(False)
    for layer in model.layers:
        layer.gate.bias.normal_()
    return model


def rms_norm(x, weight):
    return x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * weight


@pytest.mark.parametrize("ff_size", [None, 5])
def test_matches_its_formula_position_by_position(ff_size):
    model = backbone(ff_size=ff_size)
    x = torch.randn(1, 5, 8)
    got = model(x)
    stream = x[0]
    for layer in model.layers:
        normed = rms_norm(stream, layer.memory_norm.weight)
        h, states = torch.zeros(8), []
        for t in range(5):
            z = 1 / (1 + torch.exp(-(layer.gate.weight @ normed[t] + layer.gate.bias)))
            h = (1 - z) * h + z * (layer.candidate.weight @ normed[t])
            states.append(h)
        stream = stream + torch.stack(states) @ layer.output.weight.T
        normed = rms_norm(stream, layer.feed_forward_norm.weight)
        ff = layer.feed_forward
        hidden = silu(normed @ ff.gate.weight.T) * (normed @ ff.up.weight.T)
        stream = stream + hidden @ ff.down.weight.T
    torch.testing.assert_close(got[0], rms_norm(stream, model.norm.weight))


def test_initial_spread_is_as_in_the_transformer():
    torch.manual_seed(0)
    model = MinGRUBackbone(256, depth=2)
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            written = name.endswith(("output.weight", "down.weight"))
            want = (1 / math.sqrt(4) if written else 1.0) / math.sqrt(weight.shape[1])
            # At least 65,536 weights: a standard error of 0.3 per cent.
            torch.testing.assert_close(weight.std().item(), want, rtol=0.015, atol=0)


def test_a_document_starts_without_memory_bitwise():
    model = backbone()
    x, y = torch.randn(1, 7, 8), torch.randn(1, 7, 8)
    y[:, 3:] = x[:, 3:]
    mask = AttentionMask.packed([(3, 4)])
    torch.testing.assert_close(model(x, mask)[:, 3:], model(y, mask)[:, 3:], rtol=0, atol=0)


def test_long_memory_survives_in_bfloat16():
    """Gates of 1/2000 still move the state, in the scan and through the cache step by step.

    With 1 - z or the state in bfloat16, whose steps near 1 are 1/256, nothing would be written.
    """
    model = MinGRUBackbone(8, depth=1).requires_grad_(False)
    model.layers[0].gate.weight.zero_()
    model.layers[0].gate.bias.fill_(math.log(1 / 2000))
    low = MinGRUBackbone(8, depth=1).requires_grad_(False)
    low.load_state_dict(model.state_dict())
    low = low.bfloat16()
    x = torch.randn(1, 1, 8).expand(1, 400, 8)
    exact, cache = model.new_cache(1, 400), low.new_cache(1, 400)
    model(x, cache=exact)
    for vector in x.bfloat16().split(1, dim=1):
        low(vector, cache=cache)
    scanned = low.new_cache(1, 400)
    low(x.bfloat16(), cache=scanned)
    want = exact.last(0)
    # Measured: 0.7 per cent of the largest feature, from gates and candidates in bfloat16.
    for got in (cache, scanned):
        error = (got.last(0).double() - want).abs().max() / want.abs().max()
        assert error < 0.02


@pytest.mark.parametrize(
    ("mask", "got"),
    [
        (AttentionMask.full(), "is_causal=False"),
        (AttentionMask.causal(window=2), "window=2"),
        (AttentionMask.cached(torch.tensor([3])), "key_lengths=tensor"),
    ],
)
def test_masks_that_a_state_cannot_honour_are_refused(mask, got):
    with pytest.raises(ValueError, match=rf"mask must be causal or packed.*{got}.*any mask"):
        backbone()(torch.zeros(1, 3, 8), mask)


def test_a_causal_mask_changes_nothing():
    x = torch.randn(2, 4, 8)
    model = backbone()
    torch.testing.assert_close(model(x, AttentionMask.causal()), model(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"depth": 0}, "depth must be at least 1; got 0"),
        ({"ff_size": 0}, "ff_size must be at least 1"),
    ],
)
def test_bad_sizes_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        backbone(**arguments)
