"""Next-chunk accuracy: against a loop, and between two plausible chunks."""

import itertools

import pytest
import torch
from rounding import RoundingAutoencoder, normal, random_tokens

from calmkit.diagnostics import (
    next_chunk_accuracy,
)


class TestNextChunk:
    def test_is_its_formula(self):
        autoencoder = RoundingAutoencoder(3, 4)
        samples, tokens = 2 + 1.5 * normal(5, 12, 3), random_tokens(12, 3, vocab=4)
        found = next_chunk_accuracy(autoencoder, samples, tokens, torch.arange(12))
        right, drawn, places = 0, 0, [0, 0, 0]
        for t, k in itertools.product(range(12), range(3)):
            x = samples[:, t, k].tolist()
            decoded = [min(max(round(v), 0), 3) for v in (sum(x) / 5, *x)]
            right += decoded[0] == tokens[t, k]
            places[k] += int(decoded[0] == tokens[t, k])
            drawn += sum(int(d == tokens[t, k]) for d in decoded[1:])
        assert found.of_mean.value == pytest.approx(float(right) / 36)
        assert found.of_draws.value == pytest.approx(drawn / 180)
        assert found.by_place == pytest.approx([place / 12 for place in places])
        flat = tokens.flatten().tolist()
        assert found.most_frequent == pytest.approx(max(map(flat.count, flat)) / 36)
        assert 0 < found.of_mean.value < 1

    def test_the_mean_of_two_plausible_chunks_is_neither(self):
        samples = torch.tensor([0.0, 4.0]).view(2, 1, 1).expand(2, 6, 1)
        tokens = torch.tensor([[0], [4]] * 3)
        found = next_chunk_accuracy(RoundingAutoencoder(1, 5), samples, tokens, torch.arange(6))
        assert (found.of_mean.value, found.of_draws.value) == (0.0, 0.5)
