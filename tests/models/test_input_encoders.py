"""Input encoders: what they read, and that one autoencoder serves model and input."""

import copy
import math

import pytest
import torch
from calm_models import HIDDEN, LATENT, VOCAB, energy_head, tiny
from torch.nn.functional import silu

from calmkit.accounting import account
from calmkit.autoencoders import (
    ContextualAutoencoder,
    MLPAutoencoder,
    StandardizedAutoencoder,
)
from calmkit.chunking import ChunkBatch, chunk_prompts
from calmkit.models import (
    ChunkEmbedding,
    InputEncoder,
    LatentEmbedding,
    TokenAndLatentEmbedding,
)
from calmkit.models.token_lm import TokenEmbedding
from calmkit.training import TrainingSettings, fit

K = 3
READ_LATENTS = [LatentEmbedding, TokenAndLatentEmbedding]
AUTOENCODERS = {
    "MLP": lambda: MLPAutoencoder(K, VOCAB, LATENT, width=8),
    "standardized": lambda: StandardizedAutoencoder(MLPAutoencoder(K, VOCAB, LATENT, width=8)).fit(
        tokens_of(30)
    ),
    "contextual": lambda: ContextualAutoencoder(K, VOCAB, LATENT, width=8, depth=1, heads=2),
}


def tokens_of(*batch, seed=0):
    return torch.randint(VOCAB, (*batch, K), generator=torch.Generator().manual_seed(seed))


def whole(tokens, lengths):
    return ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), lengths)


@pytest.fixture(params=AUTOENCODERS)
def autoencoder(request):
    torch.manual_seed(0)
    made = AUTOENCODERS[request.param]()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("mask_embedding"):  # zero at first: it would not be seen
                parameter.normal_()
    return made


@pytest.fixture(params=READ_LATENTS, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


def model_of(kind, autoencoder, **changes):
    torch.manual_seed(1)
    encoder = kind(autoencoder, HIDDEN)
    return tiny(K, autoencoder=autoencoder, input_encoder=encoder, **changes)


def latent_input(encoder, latent):
    """The MLP and layer norm of one latent."""
    first, _, second, norm = encoder.mlp
    hidden = second.weight @ silu(first.weight @ latent + first.bias) + second.bias
    normed = (hidden - hidden.mean()) / (hidden.var(correction=0) + 1e-6).sqrt()
    return normed * norm.weight + norm.bias


def test_what_models_read_is_of_one_kind(kind, autoencoder):
    encoders = (
        ChunkEmbedding(VOCAB, K, HIDDEN),
        TokenEmbedding(VOCAB, HIDDEN),
        kind(autoencoder, HIDDEN),
    )
    for encoder in encoders:
        assert isinstance(encoder, InputEncoder)
        size = encoder.chunk_size
        assert (encoder.vocab_size, encoder.hidden_size) == (VOCAB, HIDDEN)
        assert size == (1 if isinstance(encoder, TokenEmbedding) else K)
        for batch in ((), (4,), (2, 3), (0,)):
            tokens = torch.zeros(*batch, size, dtype=torch.long)
            vectors = encoder(tokens, torch.ones_like(tokens, dtype=torch.bool))
            assert vectors.shape == (*batch, HIDDEN)
    assert [encoder.autoencoder for encoder in encoders] == [None, None, autoencoder]


@torch.no_grad()
def test_is_the_formula(autoencoder):
    latents = LatentEmbedding(autoencoder, HIDDEN)
    both = TokenAndLatentEmbedding(autoencoder, HIDDEN)
    tokens, real = tokens_of(6), torch.ones(6, K, dtype=torch.bool)
    for row in range(6):
        mean = autoencoder.encode(tokens[row]).mean
        torch.testing.assert_close(latents(tokens, real)[row], latent_input(latents, mean))
        want = both.tokens(tokens[row], real[row]) + latent_input(both.latents, mean)
        torch.testing.assert_close(both(tokens, real)[row], want / math.sqrt(2))


def test_starts_with_unit_variance(kind, autoencoder):
    vectors = kind(autoencoder, 64)(tokens_of(300), torch.ones(300, K, dtype=torch.bool))
    variance = vectors.square().mean().item()
    torch.testing.assert_close(variance, 1.0, rtol=0.3, atol=0)


@torch.no_grad()
def test_a_chunk_with_padding_is_read_as_a_partial_one(kind, autoencoder):
    """A prompt of 4 tokens: two places of padding, then one token of text; then a full chunk."""
    encoder = kind(autoencoder, HIDDEN)
    tokens, real, _ = chunk_prompts([[1, 2, 3, 4]], K, fill_id=0)
    assert real[0].tolist() == [[False, False, True], [True, True, True]]
    other = torch.where(real, tokens, 5)
    torch.testing.assert_close(encoder(tokens, real), encoder(other, real), rtol=0, atol=0)
    latents = encoder if kind is LatentEmbedding else encoder.latents
    want = latent_input(latents, autoencoder.encode_partial(tokens, real).mean[0, 0])
    torch.testing.assert_close(latents(tokens, real)[0, 0], want)
    as_text = encoder(tokens, torch.ones_like(real))
    assert not torch.isclose(as_text[0, 0], encoder(tokens, real)[0, 0]).any()


class TestOneAutoencoderForModelAndInput:
    def test_another_one_is_refused(self, kind, autoencoder):
        other = copy.deepcopy(autoencoder)
        with pytest.raises(ValueError, match="own autoencoder; got one that was made with anoth"):
            tiny(K, autoencoder=autoencoder, input_encoder=kind(other, HIDDEN))
        # What it wraps is another one too: its latents have other units.
        if isinstance(autoencoder, StandardizedAutoencoder):
            inner = kind(autoencoder.autoencoder, HIDDEN)
            with pytest.raises(ValueError, match="Give the same object to both"):
                tiny(K, autoencoder=autoencoder, input_encoder=inner)

    def test_weights_are_there_once(self, kind, autoencoder):
        model = model_of(kind, autoencoder)
        parts = (model.autoencoder, model.input_encoder, model.backbone, model.head)
        counts = [sum(p.numel() for p in part.parameters()) for part in parts]
        assert sum(counts) == sum(p.numel() for p in model.parameters())
        assert list(account(model, context=4).parameters.values()) == counts
        names = [name for name in model.state_dict() if name.startswith("input_encoder")]
        assert names and not any("autoencoder" in name.partition(".")[2] for name in names)

    def test_it_is_frozen_and_stays_so(self, kind, autoencoder):
        model = model_of(kind, autoencoder).train()
        read = model.input_encoder.autoencoder
        assert read is model.autoencoder is autoencoder
        assert not any(module.training for module in read.modules())
        assert not any(parameter.requires_grad for parameter in read.parameters())
        assert model.input_encoder.training

    def test_it_moves_with_the_model(self, kind, autoencoder):
        model = model_of(kind, autoencoder).to(torch.float32)
        vectors = model.input_encoder(tokens_of(2), torch.ones(2, K, dtype=torch.bool))
        assert vectors.dtype == torch.float32

    def test_a_copy_reads_its_own(self, kind, autoencoder):
        model = model_of(kind, autoencoder)
        copied = copy.deepcopy(model)
        assert copied.input_encoder.autoencoder is copied.autoencoder is not autoencoder

    def test_loading_weights_reaches_what_is_read(self, kind, autoencoder):
        model, other = (model_of(kind, copy.deepcopy(autoencoder)) for _ in range(2))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
        other.load_state_dict(model.state_dict())
        batch = whole(tokens_of(2, 4), ((4,), (4,)))
        torch.testing.assert_close(model.hidden_states(batch), other.hidden_states(batch))

    def test_training_leaves_it_alone(self, kind, tmp_path):
        model = model_of(kind, AUTOENCODERS["MLP"](), build_head=energy_head)
        before = copy.deepcopy(model.state_dict())
        batch = whole(tokens_of(2, 4), ((4,), (4,)))
        settings = TrainingSettings(steps=2, batch_size=2, warmup_steps=1)

        def objective(module, batch, generator):
            return {"loss": module.loss(batch, generator).total}

        for _ in range(2):  # the second one is read from the checkpoint
            fit(model, objective, lambda step: batch, settings=settings, seed=0,
                directory=tmp_path, loggers=[])  # fmt: skip
            for name, tensor in model.state_dict().items():
                assert torch.equal(tensor, before[name]) == name.startswith("autoencoder."), name
            model.load_state_dict(before)


def test_text_is_written_as_it_is_read(kind, autoencoder):
    """Chunk by chunk with a cache equals all of the text at once; the head draws nothing."""
    model = model_of(kind, autoencoder)
    prompts = [[1, 2, 3, 4], [5], [6, 0, 2]]
    got = model.generate(prompts, max_new_tokens=3 * K)
    for prompt, generation in zip(prompts, got, strict=True):
        text = list(prompt)
        for _ in range(3):
            tokens, real, _ = chunk_prompts([text], K, fill_id=0)
            states = model.hidden_states(ChunkBatch(tokens, real, ((tokens.shape[1],),)))
            text += model.sample_chunks(states[0, -1], 1)[0].tolist()
        assert generation.tokens == text[len(prompt) :]


def test_compiles_to_one_graph():
    encoder = TokenAndLatentEmbedding(AUTOENCODERS["standardized"]().freeze(), HIDDEN)
    tokens, real = tokens_of(2, 4), torch.ones(2, 4, K, dtype=torch.bool)
    compiled = torch.compile(encoder, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(tokens, real), encoder(tokens, real))


def test_the_head_is_asked_for_posteriors_in_their_rows():
    torch.manual_seed(0)
    autoencoder = AUTOENCODERS["contextual"]()
    model, tokens = tiny(K, autoencoder=autoencoder), tokens_of(2, 4)
    batch = whole(tokens, ((4,), (1, 3)))
    states, loss = model.hidden_states(batch), model.loss(batch).per_position
    for row, begin, t in [(0, 0, 0), (0, 0, 1), (0, 0, 2), (1, 1, 1), (1, 1, 2)]:
        document = whole(tokens[row : row + 1, begin : t + 2], ((t + 2 - begin,),))
        target = autoencoder.encode_rows(document).mean[0, -1]
        want = (model.head.map(states[row, t]) - target).square().sum()
        torch.testing.assert_close(loss[row, t], want)


def test_bad_sizes_and_chunks_are_named(kind, autoencoder):
    with pytest.raises(ValueError, match="must be at least 1"):
        kind(autoencoder, 0)
    wrong = torch.zeros(2, K + 1, dtype=torch.long)
    with pytest.raises(ValueError, match="chunks of chunk_size = 3"):
        kind(autoencoder, HIDDEN)(wrong, torch.ones_like(wrong, dtype=torch.bool))
