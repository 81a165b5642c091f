"""The Transformer's own promises; what every backbone promises is in tests/contracts."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError
from torch.nn.functional import silu

from calmkit.attention import AttentionBackendError, AttentionMask
from calmkit.backbones import LinearScaling, TransformerBackbone
from calmkit.backbones.rotary import apply_rotary, rotation_at


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
        rotation = rotation_at(torch.arange(4)[None], 4, theta=100.0)
        q = apply_rotary((normed @ part.query.weight.T).view(1, 4, 2, 4), rotation)[0]
        k = apply_rotary((normed @ part.key.weight.T).view(1, 4, kv_heads, 4), rotation)[0]
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
        ({"depth": 0}, "depth must be at least 1; got 0"),
        ({"heads": 3}, r"hidden_size must be a multiple of 2 \* heads = 6"),
        ({"heads": 4, "kv_heads": 3}, "kv_heads must divide heads = 4; got 3"),
        ({"kv_heads": 0}, "kv_heads must be at least 1"),
        ({"rope_theta": 0.0}, "rope_theta must be positive and finite; got 0.0"),
        ({"rope_theta": math.nan}, "rope_theta must be positive and finite; got nan"),
        ({"norm_eps": math.nan}, r"norm_eps must be in \[0, inf\); got nan"),
        ({"norm_eps": -1.0}, r"norm_eps must be in \[0, inf\); got -1.0"),
        ({"ff_size": 0}, "ff_size must be at least 1"),
    ],
)
def test_bad_sizes_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        backbone(**arguments)


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


def test_queries_and_keys_can_be_normalised():
    """With a norm, the length of a query does not count: scaling its weights changes nothing."""
    x = torch.randn(1, 5, 8)
    plain, normed = backbone(), backbone(qk_norm=True)
    for model, changes in ((plain, True), (normed, False)):
        before = model(x)
        for layer in model.layers:
            layer.attention.query.weight.mul_(3.0)
            layer.attention.key.weight.mul_(0.5)
        # The norm's 1e-6 is all that is left.
        assert torch.allclose(model(x), before, rtol=1e-4, atol=1e-4) != changes
    normed.layers[0].attention.query_norm.weight.mul_(2.0)
    assert not torch.allclose(normed(x), before)


def gradients(model, x, mask):
    model.requires_grad_()
    model.zero_grad()
    # Not the squares: behind the last norm they add up to a constant.
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    (model(x, mask) * weights).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_activation_checkpointing_changes_no_number():
    mask = AttentionMask.packed([(2, 3), (5,)])
    x = torch.randn(2, 5, 8)
    plain, recomputed = backbone(), backbone(activation_checkpointing=True)
    torch.testing.assert_close(recomputed(x, mask), plain(x, mask), rtol=0, atol=0)
    torch.testing.assert_close(gradients(recomputed, x, mask), gradients(plain, x, mask))


def test_activation_checkpointing_under_torch_func():
    x = torch.randn(2, 5, 8)
    plain, recomputed = backbone(), backbone(activation_checkpointing=True)
    want = torch.func.grad(lambda x: plain(x)[..., 0].sum())(x)
    torch.testing.assert_close(torch.func.grad(lambda x: recomputed(x)[..., 0].sum())(x), want)


def test_activation_checkpointing_keeps_less():
    """Bytes kept for the backward pass: only each layer's input."""

    def kept(model):
        saved = set()
        pack = lambda tensor: saved.add(tensor.data_ptr()) or tensor  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model.requires_grad_()(torch.randn(2, 64, 8))
        return len(saved)

    assert kept(backbone(depth=4, activation_checkpointing=True)) < kept(backbone(depth=4)) / 4


@pytest.mark.parametrize("backend", ["xformers", "sdpa", "reference"])
def test_weights_do_not_depend_on_the_backend(backend):
    """The same draws from the same seed, under the same names; then the same states."""
    model, other = backbone(), backbone(attention_backend=backend)
    weights = model.state_dict()
    torch.testing.assert_close(dict(other.state_dict()), dict(weights), rtol=0, atol=0)
    if backend == "xformers":  # cannot compute without a GPU
        return
    for parameter in model.parameters():
        parameter.normal_()
    other.load_state_dict(model.state_dict())
    x, mask = torch.randn(2, 5, 8), AttentionMask.packed([(2, 3), (5,)])
    torch.testing.assert_close(other(x, mask), model(x, mask))


def test_the_named_backend_is_used():
    with pytest.raises(AttentionBackendError, match="the tensors are on cpu"):
        backbone(attention_backend="xformers")(torch.zeros(1, 2, 8))
    with pytest.raises(ValueError, match=r"backend must be one of auto.* got 'flash'"):
        backbone(attention_backend="flash")


def test_scaling_slows_the_rotation():
    """Linear scaling by 2 at every other position is no scaling at every position."""
    x = torch.randn(1, 5, 8)
    scaled = backbone(depth=1, rope_scaling=LinearScaling(factor=2.0))
    plain = backbone(depth=1)
    assert not torch.allclose(scaled(x), plain(x))
    sparse = torch.zeros(1, 9, 8)
    sparse[:, ::2] = x
    part, hidden = scaled.layers[0].attention, plain.layers[0].attention_norm(sparse)
    rotation = rotation_at(
        torch.arange(9)[None], 4, theta=10000.0, scaling=LinearScaling(factor=2.0)
    )
    q = apply_rotary(part.query(hidden).view(1, 9, 2, 4), rotation)[:, ::2]
    want = rotation_at(torch.arange(5)[None], 4, theta=10000.0)
    torch.testing.assert_close(q, apply_rotary(part.query(hidden[:, ::2]).view(1, 5, 2, 4), want))
