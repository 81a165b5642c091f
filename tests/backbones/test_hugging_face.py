"""Hugging Face models as backbones; what every backbone promises is in tests/contracts."""

import importlib.util

import pytest
import torch
import transformers
from torch import nn

from calmkit.attention import AttentionMask
from calmkit.backbones import HuggingFaceBackbone
from calmkit.config import ConfigError, build
from calmkit.models import TokenLM

SIZES = {"num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.3}
SETTINGS = {
    "llama": {**SIZES, "intermediate_size": 12},
    "gpt2": {**SIZES, "max_position_embeddings": 8},
    # Its embedding lies deeper, its positions are shifted, and it asks the cache for its length.
    "opt": {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "init_std": 0.3,
        "ffn_dim": 12,
        "word_embed_proj_dim": 8,
        "max_position_embeddings": 8,
    },
}
KINDS = pytest.mark.parametrize("kind", SETTINGS)
ATTENTION = pytest.mark.parametrize("attention", ["sdpa", "eager"])


def plain(kind, attention="sdpa", **settings):
    """A model of transformers, with random weights."""
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[kind](hidden_size=8, **SETTINGS[kind] | settings)
    config.vocab_size = 11
    return transformers.AutoModel.from_config(config, attn_implementation=attention).eval()


def vectors(batch=2, positions=6):
    return torch.randn(batch, positions, 8, generator=torch.Generator().manual_seed(1))


@KINDS
@ATTENTION
@torch.no_grad()
def test_states_are_those_of_the_model_itself(kind, attention):
    model = plain(kind, attention)
    want = model(inputs_embeds=vectors()).last_hidden_state
    got = HuggingFaceBackbone.from_model(model)(vectors())
    torch.testing.assert_close(got, want, rtol=0, atol=0)


@KINDS
@ATTENTION
@torch.no_grad()
def test_packed_documents_are_those_of_the_model_itself(kind, attention):
    model = plain(kind, attention)
    parts = [vectors()[:, :2], vectors()[:, 2:]]
    want = torch.cat([model(inputs_embeds=part).last_hidden_state for part in parts], dim=1)
    got = HuggingFaceBackbone.from_model(model)(vectors(), AttentionMask.packed([(2, 4)] * 2))
    torch.testing.assert_close(got, want)


@KINDS
@ATTENTION
@torch.no_grad()
def test_cached_states_are_those_of_the_model_itself(kind, attention):
    model = plain(kind, attention)
    backbone = HuggingFaceBackbone.from_model(model)
    cache = backbone.new_cache(2, 8)
    got = [backbone(part, cache=cache) for part in vectors().split((3, 1, 2), dim=1)]
    want = model(inputs_embeds=vectors()).last_hidden_state
    torch.testing.assert_close(torch.cat(got, dim=1), want)


@KINDS
@ATTENTION
@pytest.mark.parametrize("mask", [AttentionMask.full(), AttentionMask.causal(window=3)])
@torch.no_grad()
def test_each_state_sees_what_the_mask_shows(kind, attention, mask):
    """With one layer, a state is the last one of a text that holds only what it sees."""
    model = plain(kind, attention, num_hidden_layers=1)
    got = HuggingFaceBackbone.from_model(model)(vectors(), mask)
    for t in range(6):
        seen = range(6) if not mask.is_causal else range(max(0, t - 2), t + 1)
        places = torch.tensor([*(s for s in seen if s != t), t])
        # The order of keys is nothing to attention; positions say where they are.
        alone = model(
            inputs_embeds=vectors()[:, places],
            position_ids=places.expand(2, -1),
            attention_mask=torch.ones(2, len(places)),
        )
        torch.testing.assert_close(got[:, t], alone.last_hidden_state[:, -1])


@pytest.mark.parametrize(
    ("head", "base"),
    [
        (transformers.LlamaForCausalLM, lambda model: model.model),
        (transformers.GPT2LMHeadModel, lambda model: model.transformer),
    ],
)
def test_of_a_language_model_the_base_is_used(head, base):
    kind = head.config_class.model_type
    model = head(plain(kind).config).eval()
    backbone = HuggingFaceBackbone.from_model(model)
    assert type(backbone.model) is type(base(model))
    torch.testing.assert_close(
        backbone(vectors()), base(model)(inputs_embeds=vectors()).last_hidden_state
    )


@KINDS
def test_a_wrapped_model_shares_its_weights_and_stays_as_it_was(kind):
    model = plain(kind)
    tokens = torch.tensor([[1, 2, 3]])
    before = model(tokens).last_hidden_state
    backbone = HuggingFaceBackbone.from_model(model)
    assert isinstance(model.get_input_embeddings(), nn.Embedding)
    torch.testing.assert_close(model(tokens).last_hidden_state, before, rtol=0, atol=0)
    ours = {id(parameter) for parameter in backbone.parameters()}
    assert {id(p) for p in model.parameters()} - ours == {id(model.get_input_embeddings().weight)}
    assert not any(
        name.endswith(("wte.weight", "tokens.weight")) for name in backbone.state_dict()
    )


@KINDS
def test_pretrained_weights_from_a_folder(kind, tmp_path):
    model = plain(kind)
    model.save_pretrained(tmp_path)
    backbone = HuggingFaceBackbone.from_model(transformers.AutoModel.from_pretrained(tmp_path))
    want = model(inputs_embeds=vectors()).last_hidden_state
    torch.testing.assert_close(backbone(vectors()), want)


CONFIG = {
    "vocab_size": 300,
    "chunk_size": 2,
    "latent_size": 8,
    "hidden_size": 8,
    "autoencoder": {"class_path": "MLPAutoencoder", "init_args": {"width": 16}},
    "head": {"class_path": "EnergyHead", "init_args": {"width": 16}},
}


def config_with(**arguments):
    return CONFIG | {"backbone": {"class_path": "HuggingFaceBackbone", "init_args": arguments}}


@KINDS
def test_as_part_of_a_config(kind):
    model = build(config_with(model_type=kind, settings=SETTINGS[kind]))
    assert type(model.backbone.model) is type(plain(kind))
    assert model.backbone.model.config.num_hidden_layers == 2
    assert len(model.generate([[1, 2, 3], [4]], max_new_tokens=5)[1].tokens) == 5


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"model_type": "lama"}, "model_type must be a name that transformers knows.* got 'lama'"),
        (
            {"model_type": "llama", "settings": {"layers": 2, "num_attention_heads": 2}},
            r"settings must be entries of LlamaConfig; it has no \['layers'\]",
        ),
        (
            {"model_type": "llama", "settings": {**SIZES, "hidden_size": 16}},
            "settings must not change hidden_size = 8; they make it 16",
        ),
        *(
            (
                {"model_type": "llama", "settings": {**SIZES, **named}},
                "settings must not name files or repositories.* got .* = 'owner/kernel'",
            )
            for named in (
                {"_attn_implementation": "owner/kernel"},
                {"rope_scaling": {"rope_type": ["owner/kernel"]}},
            )
        ),
    ],
)
def test_wrong_settings_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        HuggingFaceBackbone(8, **arguments)
    with pytest.raises(ConfigError, match=f"backbone: {match}"):
        build(config_with(**arguments))


def falcon_h1():
    return transformers.FalconH1Config(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=8,
        mamba_d_ssm=16,
        mamba_n_heads=4,
        mamba_d_head=4,
        mamba_d_state=4,
        vocab_size=16,
    )


SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "vocab_size": 11}


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (lambda: transformers.BertConfig(**SMALL), "one causal attention.* BertModel is of anot"),
        (lambda: transformers.BloomConfig(hidden_size=8, n_head=2, vocab_size=11), "position_ids"),
        (falcon_h1, "no other memory.* FalconH1Model is of another kind"),
        (
            lambda: transformers.MistralConfig(
                **SMALL, num_key_value_heads=2, sliding_window=4, num_hidden_layers=1
            ),
            "MistralModel has sliding_window = 4 .*Set sliding_window to null",
        ),
        (
            lambda: transformers.Qwen2Config(
                **SMALL,
                num_key_value_heads=2,
                num_hidden_layers=2,
                layer_types=["full_attention", "sliding_attention"],
            ),
            r"layer_types with \['sliding_attention'\]",
        ),
    ],
)
def test_models_that_a_mask_cannot_tell_what_to_see_are_refused(config, match):
    entries = config()
    entries.pad_token_id = None
    model = transformers.AutoModel.from_config(entries)
    with pytest.raises(ValueError, match=rf"model must .*{match}"):
        HuggingFaceBackbone.from_model(model)


def test_attention_that_takes_no_dense_mask_is_refused():
    model = plain("llama")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match=r"got 'flash_attention_2'. Load it with attn_impl"):
        HuggingFaceBackbone.from_model(model)


def test_other_modules_are_refused():
    with pytest.raises(ValueError, match="model must be a transformers PreTrainedModel; got Lin"):
        HuggingFaceBackbone.from_model(nn.Linear(8, 8))


def test_without_transformers_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for make in (
        lambda: HuggingFaceBackbone(8, model_type="llama"),
        lambda: HuggingFaceBackbone.from_model(nn.Linear(8, 8)),
    ):
        with pytest.raises(ImportError, match=r"pip install 'calmkit\[hf\]'"):
            make()


def test_learned_positions_come_to_an_end():
    backbone = HuggingFaceBackbone.from_model(plain("gpt2"))
    with pytest.raises(ValueError, match=r"positions must be at most the 8 learned.* got 9"):
        backbone(vectors(positions=9))
    with pytest.raises(ValueError, match=r"positions must be at most the 8 learned.* got 9"):
        backbone(vectors(positions=12), AttentionMask.packed([(9, 3)] * 2))
    with pytest.raises(ValueError, match=r"capacity must be at most the 8 learned.* got 9"):
        backbone.new_cache(1, 9)
    # Positions count within each document, and rotary ones have no end.
    assert backbone(vectors(positions=12), AttentionMask.packed([(8, 4)] * 2)).isfinite().all()
    rotary = HuggingFaceBackbone.from_model(plain("llama", max_position_embeddings=8))
    assert rotary(vectors(positions=12)).isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["gpt2", "opt", "llama"])
def test_a_full_cache_is_named_before_a_position_is_missing(kind):
    backbone = HuggingFaceBackbone.from_model(plain(kind))
    cache = backbone.new_cache(2, 8)
    backbone(vectors(positions=8), cache=cache)
    with pytest.raises(ValueError, match=r"capacity must hold .* has 8, 8 are in use and 1 more"):
        backbone(vectors(positions=1), cache=cache)


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
@pytest.mark.parametrize(("prompt", "new"), [(8, 1), (4, 5), (1, 8)])
def test_a_text_may_use_all_learned_positions(kind, prompt, new):
    """The last token is written at the last position, and not read."""
    model = TokenLM(11, backbone=HuggingFaceBackbone.from_model(plain(kind)))
    texts = model.generate([[3] * prompt, [1]], max_new_tokens=new)
    assert [len(text.tokens) for text in texts] == [new, new]
    with pytest.raises(ValueError, match=r"capacity must be at most the 8 learned .* got 9"):
        model.generate([[3] * prompt], max_new_tokens=new + 1)


@torch.no_grad()
def test_compressed_keys_work_without_a_cache_only():
    config = transformers.DeepseekV3Config(
        **SMALL,
        num_hidden_layers=1,
        num_key_value_heads=2,
        q_lora_rank=4,
        kv_lora_rank=4,
        qk_rope_head_dim=2,
        qk_nope_head_dim=2,
        v_head_dim=3,
        first_k_dense_replace=1,
    )
    config.pad_token_id = None
    backbone = HuggingFaceBackbone.from_model(transformers.AutoModel.from_config(config))
    assert backbone(vectors(2, 3)).isfinite().all()
    with pytest.raises(ValueError, match=r"keys of each layer must have \(kv_heads, head_dim\)"):
        backbone(vectors(2, 3), cache=backbone.new_cache(2, 3))
