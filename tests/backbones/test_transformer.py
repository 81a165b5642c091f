"""The Transformer's own promises; what every backbone promises is in tests/contracts."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError
from torch.nn.functional import silu

from calmkit.attention import AttentionMask
from calmkit.backbones import Cache, TransformerBackbone
from calmkit.backbones.rotary import apply_rotary, rotary_angles


def backbone(**arguments):
    torch.manual_seed(0)
    return TransformerBackbone(8, **{"depth": 2, "heads": 2} | arguments).requires_grad_(False)


def rms_norm(x, weight):
    return x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * weight


@pytest.mark.parametrize("kv_heads", [2, 1])
def test_matches_its_formula_position_by_position(kv_heads):
    model = backbone(kv_heads=kv_heads, rope_theta=100.0)
    x = torch.randn(1, 4, 8)
    got = model(x)
    states = x[0]
    for layer in model.layers:
        part = layer.attention
        normed = rms_norm(states, layer.attention_norm.weight)
        angles = rotary_angles(torch.arange(4)[None], 4, theta=100.0)
        q = apply_rotary((normed @ part.query.weight.T).view(1, 4, 2, 4), angles)[0]
        k = apply_rotary((normed @ part.key.weight.T).view(1, 4, kv_heads, 4), angles)[0]
        v = (normed @ part.value.weight.T).view(4, kv_heads, 4)
        out = torch.zeros(4, 2, 4)
        for i in range(4):
            for h in range(2):
                group = h * kv_heads // 2
                scores = torch.stack([q[i, h] @ k[j, group] / 2 for j in range(i + 1)])
                weights = scores.softmax(dim=0)
                out[i, h] = sum(weights[j] * v[j, group] for j in range(i + 1))
        states = states + out.view(4, 8) @ part.output.weight.T
        normed = rms_norm(states, layer.feed_forward_norm.weight)
        ff = layer.feed_forward
        hidden = silu(normed @ ff.gate.weight.T) * (normed @ ff.up.weight.T)
        states = states + hidden @ ff.down.weight.T
    torch.testing.assert_close(got[0], rms_norm(states, model.norm.weight))


def test_initial_spread_is_as_documented():
    torch.manual_seed(0)
    model = TransformerBackbone(256, depth=2, heads=2)
    gain = 1 / math.sqrt(4)
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            written = name.endswith(("attention.output.weight", "feed_forward.down.weight"))
            want = (gain if written else 1.0) / math.sqrt(weight.shape[1])
            # At least 65,536 weights: a standard error of 0.3 per cent.
            torch.testing.assert_close(weight.std().item(), want, rtol=0.015, atol=0)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"depth": 0}, "depth, heads and kv_heads must be at least 1; got 0, 2, 2"),
        ({"heads": 3}, r"hidden_size must be a multiple of 2 \* heads = 6"),
        ({"heads": 4, "kv_heads": 3}, "kv_heads must divide heads = 4; got 3"),
        ({"kv_heads": 0}, "kv_heads must be at least 1"),
        ({"rope_theta": 0.0}, "rope_theta must be positive; got 0.0"),
        ({"ff_size": 0}, "ff_size must be at least 1"),
    ],
)
def test_bad_sizes_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        backbone(**arguments)


def test_only_its_own_kind_of_cache_is_taken():
    class Foreign:
        lengths = torch.zeros(1, dtype=torch.long)

        def select(self, rows, lengths):
            return self

    assert isinstance(Foreign(), Cache)
    with pytest.raises(ValueError, match=r"cache must be a KVCache.* got Foreign"):
        backbone()(torch.zeros(1, 1, 8), cache=Foreign())


def test_a_window_limits_what_is_seen():
    """With a window of 1 and one layer, each state is a function of its own vector."""
    model = backbone(depth=1)
    x = torch.randn(1, 4, 8)
    mask = AttentionMask.causal(window=1)
    alone = torch.cat([model(x[:, i : i + 1]) for i in range(4)], dim=1)
    torch.testing.assert_close(model(x, mask), alone)
    assert not torch.isclose(model(x)[:, 1:], alone[:, 1:]).any(dim=-1).all()


def test_vectors_must_be_floats():
    with pytest.raises(TypeCheckError, match="parameter 'vectors'"):
        backbone()(torch.zeros(1, 1, 8, dtype=torch.long))
