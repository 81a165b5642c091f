"""The gate by place, on an autoencoder of known tolerance, and the noise of a known head."""

import math

import pytest
import torch
from rounding import RoundingAutoencoder, normal, random_tokens

from calmkit.chunking import ChunkBatch
from calmkit.diagnostics import DecoderGate, decoder_gate, head_noise, latent_variance

VOCAB = 9


class TestGate:
    def test_accuracy_is_that_of_noise_of_this_size_at_each_place(self):
        """One place of the latent has twice the spread: it takes half as much of its own."""
        autoencoder = RoundingAutoencoder(2, VOCAB)
        tokens = random_tokens(400, 2, vocab=VOCAB)
        tokens[:, 1] = tokens[:, 1] // 4 + 3
        posterior, noise = autoencoder.encode(tokens), normal(3, 400, 2, seed=1)
        found = decoder_gate(autoencoder, posterior, tokens, noise, size=0.2)
        for k in range(2):
            values = tokens[:, k].double()
            std = math.sqrt(float((values**2).mean() - values.mean() ** 2))
            right = [
                min(max(round(float(values[t] + 0.2 * std * noise[n, t, k])), 0), VOCAB - 1)
                == int(values[t])
                for n in range(3)
                for t in range(400)
            ]
            assert found.by_place[k] == pytest.approx(sum(right) / 1200)
        assert found.from_mean == (1.0, 1.0)
        assert found.by_place[0] < 0.95 < found.by_place[1]
        assert found.is_bad and "gate failed at a head's noise of 0.2" in found.verdict
        assert not decoder_gate(autoencoder, posterior, tokens, noise, size=0.01).is_bad

    def test_one_place_that_fails_is_enough_whatever_the_mean_is(self):
        assert DecoderGate(size=0.2, by_place=(0.94, 1.0), from_mean=(1.0, 1.0)).is_bad
        assert not DecoderGate(size=0.2, by_place=(0.95, 0.95), from_mean=(1.0, 1.0)).is_bad

    @pytest.mark.parametrize("size", [-0.1, math.nan])
    def test_a_negative_size_is_refused(self, size):
        autoencoder, tokens = RoundingAutoencoder(2, VOCAB), random_tokens(4, 2)
        with pytest.raises(ValueError, match="size must be at least 0"):
            decoder_gate(
                autoencoder, autoencoder.encode(tokens), tokens, normal(1, 4, 2), size=size
            )


class InRows(RoundingAutoencoder):
    """The latent of a chunk is shifted by the sum of the chunk before."""

    def encode_rows(self, batch):
        posterior = super().encode(batch.tokens)
        before = batch.tokens.sum(dim=-1).roll(1, dims=1)
        before[:, 0] = 0
        mean = posterior.mean + 100 * before[..., None]
        return type(posterior)(mean, posterior.std)

    def decode(self, latents):
        return super().decode((latents + 50) % 100 - 50)


class TestHeadNoise:
    def test_is_the_distance_to_the_chunk_that_is_decoded_in_its_place(self):
        """Errors of 0.1 and 0.3, in units of the spread; dimension 2 does not vary."""
        autoencoder = InRows(3, VOCAB)
        tokens = torch.randint(VOCAB, (4, 5, 3), generator=torch.Generator().manual_seed(0))
        batch = ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), ((5,),) * 4)
        row, position = torch.tensor([0, 1, 3]), torch.tensor([2, 4, 1])
        drawn = random_tokens(3, 3, vocab=VOCAB, seed=2)
        error = torch.tensor([0.1, -0.3, 0.25])
        before = tokens[row, position - 1].sum(dim=-1, keepdim=True)
        samples = drawn + 100 * before + error
        variance = torch.tensor([4.0, 9.0, 0.0])
        found = head_noise(autoencoder, batch, row, position, samples, variance)
        assert found == pytest.approx(math.sqrt((0.1**2 / 4 + 0.3**2 / 9) / 2))

    def test_a_head_that_draws_posteriors_has_their_noise(self):
        autoencoder = RoundingAutoencoder(2, VOCAB, std=0.1)
        tokens = torch.randint(VOCAB, (40, 25, 2), generator=torch.Generator().manual_seed(0))
        batch = ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), ((25,),) * 40)
        row, position = (x.flatten() for x in torch.meshgrid(torch.arange(40), torch.arange(25),
                                                             indexing="ij"))  # fmt: skip
        posterior = autoencoder.encode(tokens)
        samples = posterior.sample(1, torch.Generator().manual_seed(1))[0].flatten(0, 1)
        variance = latent_variance(posterior)
        found = head_noise(autoencoder, batch, row, position, samples, variance)
        want = math.sqrt(float((0.01 / variance).mean()))
        assert found == pytest.approx(want, rel=0.07)  # 2000 numbers: 1.6 %
