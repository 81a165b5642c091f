"""Noise on what is read: its formula, its size over rows and steps, and that it can be off."""

import math

import pytest
import torch
from calm_models import HIDDEN, LATENT, VOCAB, energy_head, tiny

from calmkit.autoencoders import MLPAutoencoder
from calmkit.chunking import ChunkBatch
from calmkit.models import ChunkEmbedding, InputEncoder, LatentEmbedding, NoisyInput

CHUNK = 3


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(*batch):
    tokens = torch.randint(VOCAB, (*batch, CHUNK), generator=seeded(1))
    return tokens, torch.rand(tokens.shape, generator=seeded(2)) < 0.8


class Vectors(InputEncoder):
    """Vectors of ones and twos, in proportions that the chunk decides; nothing is learned."""

    chunk_size, vocab_size, hidden_size = CHUNK, VOCAB, 2000

    def forward(self, tokens, real):
        ones = torch.ones(*tokens.shape[:-1], 2000)
        return ones + (torch.arange(2000) < 100 * tokens[..., :1])


def noisy(encoder, **arguments):
    return NoisyInput(encoder, **arguments).train()


def test_the_noise_is_its_formula():
    """Read from the difference, chunk by chunk: t is one number for each row."""
    tokens, real = rows(4, 5)
    encoder = noisy(Vectors(), size=0.8)
    plain = encoder(tokens, real)
    noise = (encoder.training_vectors(tokens, real, seeded()) - plain) / plain.square().mean(
        dim=-1, keepdim=True
    ).sqrt()
    # 2000 draws: each standard deviation has an error of 1.6 %, and five of them stand for a row.
    size = noise.std(dim=-1)
    torch.testing.assert_close(size, size.mean(dim=1, keepdim=True).expand(4, 5), rtol=0.1, atol=0)
    share = torch.rand(4, 1, generator=seeded(), dtype=torch.float32).double()
    torch.testing.assert_close(size.mean(dim=1, keepdim=True), 0.8 * share, rtol=0.05, atol=0)
    assert (noise.mean(dim=-1).abs() < 6 * 0.8 / math.sqrt(2000)).all()


@pytest.mark.parametrize("place", ["tokens", "latents"])
def test_it_is_added_to_what_the_encoder_reads(place):
    """A linear reading after the noise is retyped with the same draws."""
    tokens, real = rows(2, 4)
    autoencoder = MLPAutoencoder(CHUNK, VOCAB, LATENT, width=8).freeze()
    inner = (
        ChunkEmbedding(VOCAB, CHUNK, HIDDEN)
        if place == "tokens"
        else LatentEmbedding(autoencoder, HIDDEN)
    )
    got = noisy(inner, size=0.5).training_vectors(tokens, real, seeded(3))
    again = seeded(3)
    share = torch.rand(2, 1, generator=again, dtype=torch.float32)
    read = (
        inner.tokens(tokens) * real[..., None]
        if place == "tokens"
        else autoencoder.encode_partial(tokens, real).mean
    )
    noise = torch.randn(read.shape, generator=again, dtype=read.dtype)
    want = torch.empty_like(got)
    for b in range(2):
        for t in range(4):
            x, e = read[b, t], noise[b, t]
            x = x + 0.5 * share[b, 0] * (x**2).mean(dim=-1, keepdim=True).sqrt() * e
            want[b, t] = inner.mlp(x.flatten())
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)  # the shares are float32


def test_padding_stays_empty():
    tokens, _ = rows(2, 4)
    none = torch.zeros_like(tokens, dtype=torch.bool)
    encoder = noisy(ChunkEmbedding(VOCAB, CHUNK, HIDDEN), size=2.0)
    got = encoder.training_vectors(tokens, none, seeded())
    torch.testing.assert_close(got, encoder(tokens, none), rtol=0, atol=0)


def test_the_size_grows_over_the_warmup_with_the_step_and_not_with_the_passes():
    tokens, real = rows(6, 5)
    encoder = noisy(Vectors(), size=1.0, warmup_steps=4)

    def noise():
        return (encoder.training_vectors(tokens, real, seeded()) - encoder(tokens, real)).norm()

    sizes = []
    for step in range(5):
        encoder.begin_step(step)
        assert noise() == noise()
        sizes.append(noise())
    ratios = torch.stack(sizes) / sizes[-1]
    torch.testing.assert_close(
        ratios, torch.tensor([0.25, 0.5, 0.75, 1.0, 1.0]), rtol=1e-6, atol=0
    )


def batch():
    tokens = torch.randint(VOCAB, (2, 6, CHUNK), generator=seeded(1))
    return ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), ((6,), (2, 4)))


def losses(model):
    model.train()
    loss = model.loss(batch(), seeded(5)).total
    loss.backward()
    return loss, [p.grad for p in model.backbone.parameters()]


def wrapped(model, size):
    model.input_encoder = NoisyInput(model.input_encoder, size=size)
    return model


def test_off_equals_the_model_without_it_to_the_bit():
    plain, off, on = (
        losses(model)
        for model in (
            tiny(build_head=energy_head),
            wrapped(tiny(build_head=energy_head), 0.0),
            wrapped(tiny(build_head=energy_head), 0.5),
        )
    )
    torch.testing.assert_close(off, plain, rtol=0, atol=0)
    assert not torch.isclose(on[0], plain[0])


def test_a_model_reads_without_noise_in_evaluation():
    plain, noisy_model = tiny(build_head=energy_head), wrapped(tiny(build_head=energy_head), 5.0)
    states = [model.eval().hidden_states(batch()) for model in (plain, noisy_model)]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    values = [model.loss(batch(), seeded(5)).total for model in (plain, noisy_model)]
    torch.testing.assert_close(*values, rtol=0, atol=0)
    # Generation too, from a model in training mode.
    noisy_model.train()
    texts = [
        model.generate([[1, 2]], max_new_tokens=6, generator=seeded())[0].tokens
        for model in (plain, noisy_model)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": -0.1}, r"size must be in \[0, inf\); got -0.1"),
        ({"size": math.inf}, r"size must be in \[0, inf\); got inf"),
        ({"size": 1.0, "warmup_steps": -1}, "warmup_steps must be at least 0; got -1"),
    ],
)
def test_sizes_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        NoisyInput(ChunkEmbedding(VOCAB, CHUNK, HIDDEN), **arguments)
