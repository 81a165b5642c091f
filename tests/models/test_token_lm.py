"""The softmax baseline: its loss against transformers, its text against a literal loop."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from seeding import seeded
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from calmkit.backbones import MinGRUBackbone, TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.models import TokenLM
from calmkit.sampling import BatchTemperature, SoftmaxSampler

VOCAB, HIDDEN = 11, 8


def tiny(seed=0, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = changes.pop("backbone", None) or TransformerBackbone(HIDDEN, depth=2, heads=2)
        model = TokenLM(VOCAB, backbone=backbone, **changes)
        model.output.weight.data *= 8  # a softmax that has an opinion
        return model


def batch_of(tokens, lengths=None):
    rows, positions = tokens.shape
    lengths = ((positions,),) * rows if lengths is None else lengths
    return ChunkBatch(tokens[..., None], torch.ones(rows, positions, 1, dtype=torch.bool), lengths)


def tokens_of(rows=2, positions=6, seed=0):
    return torch.randint(VOCAB, (rows, positions), generator=seeded(seed))


@pytest.mark.parametrize("tie", [False, True])
def test_cross_entropy_is_that_of_transformers(tie):
    model = tiny(tie_embeddings=tie)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=model.backbone.layers[0].feed_forward.gate.out_features,
        rms_norm_eps=1e-6, tie_word_embeddings=tie, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    llama = LlamaForCausalLM(config).double()
    names = {
        "attention.query": "self_attn.q_proj", "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj", "attention.output": "self_attn.o_proj",
        "feed_forward.gate": "mlp.gate_proj", "feed_forward.up": "mlp.up_proj",
        "feed_forward.down": "mlp.down_proj", "attention_norm": "input_layernorm",
        "feed_forward_norm": "post_attention_layernorm",
    }  # fmt: skip
    weights = {
        "model.embed_tokens.weight": model.input_encoder.tokens.weight,
        "lm_head.weight": model.output.weight,
    }
    for name, weight in model.backbone.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(f".{ours}.", f".{theirs}.")
        weights[f"model.{name}"] = weight
    llama.load_state_dict(weights)
    tokens = tokens_of()
    want = llama(input_ids=tokens, labels=tokens)
    loss = model.loss(batch_of(tokens))
    # Rotary angles are float32 in both.
    torch.testing.assert_close(loss.total, want.loss.double(), rtol=1e-5, atol=1e-6)
    logits = model.logits(model.hidden_states(batch_of(tokens)))
    torch.testing.assert_close(logits, want.logits.double(), rtol=1e-4, atol=1e-5)


def test_loss_is_the_mean_over_what_counts():
    model, tokens = tiny(), tokens_of()
    batch = batch_of(tokens, ((2, 4), (6,)))
    loss = model.loss(batch)
    assert loss.counted.tolist() == [[True, False, True, True, True], [True] * 5]
    logits = model.logits(model.hidden_states(batch))[:, :-1]
    total, count = 0.0, 0
    for row in range(2):
        for place in range(5):
            nats = cross_entropy(logits[row, place], tokens[row, place + 1])
            torch.testing.assert_close(loss.per_position[row, place], nats)
            total, count = (
                total + loss.counted[row, place] * nats,
                count + loss.counted[row, place],
            )
    torch.testing.assert_close(loss.total, total / count)


@pytest.mark.parametrize("tie", [False, True])
def test_gradients_reach_every_parameter(tie):
    model = tiny(tie_embeddings=tie)
    model.loss(batch_of(tokens_of())).total.backward()
    assert len(list(model.parameters())) == len(list(model.backbone.parameters())) + 2 - tie
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0, name


def test_chunks_of_more_tokens_are_refused():
    tokens = torch.zeros(1, 3, 2, dtype=torch.long)
    batch = ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), ((3,),))
    with pytest.raises(ValueError, match="chunks of one token for a TokenLM; got 2"):
        tiny().loss(batch)
    with pytest.raises(ValueError, match="at least 2 chunks long"):
        tiny().loss(batch_of(tokens_of(positions=1)))
    with pytest.raises(ValueError, match="vocab_size must be at least 1; got 0"):
        TokenLM(0, backbone=TransformerBackbone(HIDDEN, depth=1, heads=2))


class Greedy:
    """The likeliest token: text then depends on the states alone."""

    def __call__(self, draw, generator=None):
        sampler = SoftmaxSampler(top_k=1)
        return sampler(draw, generator)


@given(
    st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=6), min_size=1, max_size=3),
    st.sampled_from([None, 3]),
)
def test_generation_equals_the_literal_loop(prompts, eos_id):
    model = tiny()
    got = model.generate(prompts, max_new_tokens=5, eos_id=eos_id, sampler=Greedy())
    for prompt, generation in zip(prompts, got, strict=True):
        text = list(prompt)
        for _ in range(5):
            batch = batch_of(torch.tensor([text]))
            text.append(int(model.logits(model.hidden_states(batch))[0, -1].argmax()))
        want = text[len(prompt) :]
        want = want[: want.index(eos_id)] if eos_id in want else want
        assert generation.tokens == want


def test_other_backbones_and_samplers_serve_it_too():
    model = tiny(backbone=MinGRUBackbone(HIDDEN, depth=1))
    (row,) = model.generate(
        [[1, 2]], max_new_tokens=6, sampler=BatchTemperature(0.5, 9), generator=seeded()
    )
    assert len(row.tokens) == 6 and row.draws == 54
    assert list(model.stream([1, 2], max_new_tokens=6, generator=seeded())) == (
        model.generate([[1, 2]], max_new_tokens=6, generator=seeded())[0].tokens
    )


def test_draws_follow_the_softmax():
    model = tiny()
    states = torch.randn(3, HIDDEN, generator=seeded(5))
    draws = model.draws(states, seeded())
    tokens = draws(20_000)
    assert tokens.shape == (20_000, 3, 1)
    p = model.logits(states).softmax(dim=-1)
    for row in range(3):
        share = torch.bincount(tokens[:, row, 0], minlength=VOCAB) / 20_000
        error = (p[row] * (1 - p[row]) / 20_000).sqrt()
        assert ((share - p[row]).abs() < 5.5 * error + 1e-4).all()
    some = draws.select(torch.tensor([2]))
    torch.testing.assert_close(some.logits, draws.logits[2:])
    assert model.draws(states[:0])(4).shape == (4, 0, 1)
