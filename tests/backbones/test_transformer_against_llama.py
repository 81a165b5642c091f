"""The Transformer with the weights of transformers' Llama gives Llama's hidden states."""

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from calmkit.attention import AttentionMask
from calmkit.backbones import TransformerBackbone

PLACES = {
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "attention_norm": "input_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
    "feed_forward_norm": "post_attention_layernorm",
}


def weights_of(llama):
    """Llama's weights under the Transformer's names."""
    theirs = llama.state_dict()
    ours = {"norm.weight": theirs["norm.weight"]}
    for index in range(llama.config.num_hidden_layers):
        for name, place in PLACES.items():
            ours[f"layers.{index}.{name}.weight"] = theirs[f"layers.{index}.{place}.weight"]
    return ours


def pair(*, heads, kv_heads, theta):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=48,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
        rms_norm_eps=1e-6,
        initializer_range=0.2,
        vocab_size=8,
    )
    llama = LlamaModel(config).float().eval().requires_grad_(False)
    for name, parameter in llama.named_parameters():
        if "norm" in name:  # ones at first, which would hide a norm in the wrong place
            parameter.uniform_(0.5, 1.5)
    ours = TransformerBackbone(
        32, depth=3, heads=heads, kv_heads=kv_heads, ff_size=48, rope_theta=theta
    )
    ours.load_state_dict(weights_of(llama))
    return ours.float().requires_grad_(False), llama


@pytest.mark.parametrize(
    ("heads", "kv_heads", "theta"), [(4, 4, 10000.0), (4, 2, 10000.0), (4, 1, 500000.0)]
)
def test_hidden_states_are_those_of_llama(heads, kv_heads, theta):
    ours, llama = pair(heads=heads, kv_heads=kv_heads, theta=theta)
    x = torch.randn(2, 40, 32, dtype=torch.float32)
    want = llama(inputs_embeds=x).last_hidden_state
    # float32 over three layers: 2e-6 measured, on states of spread 1.
    torch.testing.assert_close(ours(x), want, rtol=0, atol=1e-5)


def test_packed_documents_are_those_of_llama():
    ours, llama = pair(heads=4, kv_heads=2, theta=10000.0)
    x = torch.randn(1, 9, 32, dtype=torch.float32)
    alone = [llama(inputs_embeds=part).last_hidden_state for part in x.split((5, 4), dim=1)]
    got = ours(x, AttentionMask.packed([(5, 4)]))
    torch.testing.assert_close(got, torch.cat(alone, dim=1), rtol=0, atol=1e-5)
