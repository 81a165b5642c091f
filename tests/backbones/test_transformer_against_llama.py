"""With weights of transformers' Llama or Qwen 3, the Transformer gives their hidden states."""

import pytest
import torch
from transformers import LlamaConfig, LlamaModel, Qwen3Config, Qwen3Model

from calmkit.attention import AttentionMask
from calmkit.backbones import Llama3Scaling, TransformerBackbone

PLACES = {
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "attention.query_norm": "self_attn.q_norm",
    "attention.key_norm": "self_attn.k_norm",
    "attention_norm": "input_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
    "feed_forward_norm": "post_attention_layernorm",
}


def weights_of(theirs):
    """A model's weights under the Transformer's names."""
    weights = theirs.state_dict()
    ours = {"norm.weight": weights["norm.weight"]}
    for index in range(theirs.config.num_hidden_layers):
        for name, place in PLACES.items():
            weight = weights.get(f"layers.{index}.{place}.weight")
            if weight is not None:  # Llama has no norms of queries and keys
                ours[f"layers.{index}.{name}.weight"] = weight
    return ours


def pair(config, model=LlamaModel, *, heads, kv_heads, theta, rope=None, **arguments):
    """Ours and theirs, with the same weights."""
    torch.manual_seed(0)
    config = config(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=32 // heads,
        intermediate_size=48,
        rope_parameters={"rope_type": "default", "rope_theta": theta} | (rope or {}),
        rms_norm_eps=1e-6,
        initializer_range=0.2,
        vocab_size=8,
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    )
    theirs = model(config).float().eval().requires_grad_(False)
    for name, parameter in theirs.named_parameters():
        if "norm" in name:  # ones at first, which would hide a norm in the wrong place
            parameter.uniform_(0.5, 1.5)
    ours = TransformerBackbone(
        32, depth=3, heads=heads, kv_heads=kv_heads, ff_size=48, rope_theta=theta, **arguments
    )
    ours.load_state_dict(weights_of(theirs))
    return ours.float().requires_grad_(False), theirs


def assert_same_states(ours, theirs):
    x = torch.randn(2, 40, 32, dtype=torch.float32)
    want = theirs(inputs_embeds=x).last_hidden_state
    # float32 over three layers: 2e-6 measured, on states of spread 1.
    torch.testing.assert_close(ours(x), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "theta"), [(4, 4, 10000.0), (4, 2, 10000.0), (4, 1, 500000.0)]
)
def test_hidden_states_are_those_of_llama(heads, kv_heads, theta):
    assert_same_states(*pair(LlamaConfig, heads=heads, kv_heads=kv_heads, theta=theta))


def test_scaled_rotary_positions_are_those_of_llama():
    """At positions up to 40, of which 8 count as trained: most pairs are slowed."""
    factors = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope = {"rope_type": "llama3", "original_max_position_embeddings": 8} | factors
    scaling = Llama3Scaling(original_positions=8, **factors)
    sizes = {"heads": 4, "kv_heads": 2, "theta": 100.0}
    scaled, theirs = pair(LlamaConfig, **sizes, rope=rope, rope_scaling=scaling)
    assert_same_states(scaled, theirs)
    unscaled, _ = pair(LlamaConfig, **sizes)
    with pytest.raises(AssertionError, match="not close"):
        assert_same_states(unscaled, theirs)


def test_normalised_queries_and_keys_are_those_of_qwen_3():
    assert_same_states(
        *pair(Qwen3Config, Qwen3Model, heads=4, kv_heads=2, theta=10000.0, qk_norm=True)
    )


def test_packed_documents_are_those_of_llama():
    ours, llama = pair(LlamaConfig, heads=4, kv_heads=2, theta=10000.0)
    x = torch.randn(1, 9, 32, dtype=torch.float32)
    alone = [llama(inputs_embeds=part).last_hidden_state for part in x.split((5, 4), dim=1)]
    got = ours(x, AttentionMask.packed([(5, 4)]))
    torch.testing.assert_close(got, torch.cat(alone, dim=1), rtol=0, atol=1e-5)
