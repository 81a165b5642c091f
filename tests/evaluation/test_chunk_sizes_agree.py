"""Where chunking does not matter, every chunk size gives the same Brier scores."""

import math

import pytest
import torch
from rounding import RoundingAutoencoder

from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.data import EvaluationRows
from calmkit.evaluation import EvaluationSettings, evaluate
from calmkit.heads import Head
from calmkit.models import CALM, ChunkEmbedding

LAW = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)  # of the text
MODEL = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)  # and of the model, which errs
ROWS, LENGTH, CONTEXT = 24, 48, 8
SIZES = (1, 2, 3, 4, 8)


class Independent(Head):
    """Every token is drawn by itself, whatever came before."""

    def __init__(self, chunk_size):
        super().__init__(8, chunk_size)

    @property
    def evaluations_per_sample(self):
        return 1

    def loss(self, cond, target, generator=None):
        raise NotImplementedError

    def sample(self, cond, num_samples, generator=None):
        shape = (num_samples, *cond.shape[:-1], self.latent_size)
        count = torch.Size(shape).numel()
        drawn = torch.multinomial(MODEL, count, replacement=True, generator=generator)
        return drawn.view(shape).double()


@pytest.fixture(scope="module")
def results():
    """Evaluations of one text in chunks of each size, after as many tokens."""
    generator = torch.Generator().manual_seed(0)
    text = torch.multinomial(LAW, ROWS * LENGTH, replacement=True, generator=generator)
    found = {}
    for size in SIZES:
        tokens = text.view(ROWS, -1, size)
        positions = tokens.shape[1]
        batch = ChunkBatch(tokens, torch.ones_like(tokens).bool(), ((positions,),) * ROWS)
        rows = EvaluationRows(batch, torch.arange(ROWS))
        model = CALM(
            autoencoder=RoundingAutoencoder(size, len(LAW)),
            input_encoder=ChunkEmbedding(len(LAW), size, 8),
            backbone=TransformerBackbone(8, depth=1, heads=2),
            head=Independent(size),
        )
        context = -(-CONTEXT // size)
        settings = EvaluationSettings(rows=ROWS, draws=4, min_context=context)
        found[size] = evaluate(model, rows, settings, seed=size)
    return found


@pytest.mark.parametrize("size", SIZES)
def test_brier_is_that_of_the_source(results, size):
    """2 (sum_y q(y) p(y))^n - (sum_x p(x)^2)^n, for text of law q and a model of law p."""
    for n, score in enumerate(results[size].brier.ngrams, start=1):
        hit, collision = float(LAW @ MODEL) ** n, float(MODEL @ MODEL) ** n
        wanted = {"brier": 2 * hit - collision, "hit": hit, "collision": collision}
        for kind, want in wanted.items():
            got = getattr(score, kind)
            assert abs(got.value - 100 * want) < 5 * got.standard_error, (n, kind)
            assert got.standard_error < 4, "the comparison must be sharp"


@pytest.mark.parametrize("size", SIZES)
def test_every_token_after_the_context_is_scored(results, size):
    result, context = results[size], -(-CONTEXT // size) * size
    assert result.scored_tokens == ROWS * (LENGTH - context)
    # And at each place of the chunk with the same result, also the last of eight.
    want = 100 * float(2 * LAW @ MODEL - MODEL @ MODEL)
    for place in result.brier.places[0]:
        assert abs(place.brier.value - want) < 5 * place.brier.standard_error


def test_places_of_longer_n_grams(results):
    """Those that fit into what was drawn: from the chunk itself, if it has four tokens."""
    for size, result in results.items():
        drawn = -(-4 // size) * size
        for n, places in enumerate(result.brier.places, start=1):
            scored = [not math.isnan(place.brier.value) for place in places]
            assert scored == [start + n <= drawn for start in range(size)]
