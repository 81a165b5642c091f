"""A small instance of each exported backbone; every one has 8 features."""

from calmkit.backbones import (
    HuggingFaceBackbone,
    MinGRUBackbone,
    TransformerBackbone,
    YarnScaling,
)

LLAMA = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 12,
    "initializer_range": 0.3,
}
GPT2 = {
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "initializer_range": 0.3,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "resid_pdrop": 0.0,
}

BACKBONES = {
    "TransformerBackbone": lambda: TransformerBackbone(8, depth=2, heads=2),
    "TransformerBackbone, grouped queries": lambda: TransformerBackbone(
        8, depth=2, heads=4, kv_heads=2, ff_size=12
    ),
    "TransformerBackbone, every option": lambda: TransformerBackbone(
        8,
        depth=2,
        heads=2,
        kv_heads=1,
        rope_theta=100.0,
        rope_scaling=YarnScaling(factor=2.0, original_positions=4),
        qk_norm=True,
        activation_checkpointing=True,
        attention_backend="sdpa",
    ),
    "MinGRUBackbone": lambda: MinGRUBackbone(8, depth=2),
    "HuggingFaceBackbone, llama": lambda: HuggingFaceBackbone(
        8, model_type="llama", settings=LLAMA
    ),
    "HuggingFaceBackbone, gpt2": lambda: HuggingFaceBackbone(8, model_type="gpt2", settings=GPT2),
}
