"""n-grams on held-out rows: against enumeration, and against the exact unigram."""

import itertools

import numpy as np
import pytest
import torch

from calmkit.chunking import ChunkBatch
from calmkit.data import EvaluationRows, TokenStore
from calmkit.evaluation import EvaluationSettings, NgramModel, evaluate_ngrams, evaluate_unigram

VOCAB = 3
SETTINGS = EvaluationSettings(rows=2, draws=2, min_context=1, bootstrap=20)


def counting(size, generator):
    """0 1 2 0 1 2 ..., with an error now and then."""
    right = np.arange(size) % VOCAB
    wrong = generator.integers(VOCAB, size=size)
    return np.where(generator.random(size) < 0.3, wrong, right)


def store(documents):
    return TokenStore(
        tokens=np.concatenate(documents),
        offsets=np.cumsum([0, *map(len, documents)]),
        vocab_size=VOCAB,
        end_id=0,
        num_characters=0,
    )


def training_text():
    generator = np.random.default_rng(5)
    return store([counting(40, generator) for _ in range(3)])


def rows(chunk_size):
    text = counting(24 * chunk_size, np.random.default_rng(1))
    tokens = torch.from_numpy(text).view(4, 6, chunk_size)
    sizes = torch.tensor([6, 5, 6, 4]) * chunk_size - torch.tensor([0, 1, 0, 0])
    places = torch.arange(6 * chunk_size).view(1, 6, chunk_size)
    real = places < sizes.view(-1, 1, 1)
    return EvaluationRows(ChunkBatch(tokens, real, ((6,),) * 4), torch.arange(4))


def exactly(model, held_out):
    """Brier-1..4 with every continuation of a chunk enumerated."""
    tokens, real = held_out.batch.tokens.flatten(1), held_out.batch.real.flatten(1)
    size = held_out.batch.tokens.shape[2]
    longest = -(-4 // size) * size
    every = np.array(list(itertools.product(range(VOCAB), repeat=longest)))
    sums, counts = np.zeros(4), np.zeros(4)
    for text, is_text in zip(tokens.numpy(), real.numpy(), strict=True):
        for begin in range(size, len(text), size):
            context = np.tile(text[max(0, begin - 2) : begin], (len(every), 1))
            if context.shape[1] < 2:
                context = np.pad(context, ((0, 0), (1, 0)), constant_values=-1)
            law = np.ones(len(every))
            for step in range(longest):
                before = np.concatenate([context, every[:, :step]], axis=1)[:, -2:]
                law = law * model.probability(before, every[:, step])
            for place, n in itertools.product(range(size), range(1, 5)):
                end = begin + place + n
                inside = place + n <= longest and end <= len(text)
                if not (inside and is_text[begin + place : end].all()):
                    continue
                grams = every[:, place : place + n] @ VOCAB ** np.arange(n)
                marginal = np.bincount(grams, weights=law, minlength=VOCAB**n)
                truth = text[begin + place : end] @ VOCAB ** np.arange(n)
                sums[n - 1] += 2 * marginal[truth] - np.square(marginal).sum()
                counts[n - 1] += 1
    return 100 * sums / counts


@pytest.mark.parametrize("chunk_size", [1, 2, 4])
def test_equals_enumeration(chunk_size):
    model = NgramModel.fit(training_text(), order=3)
    held_out = rows(chunk_size)
    want = exactly(model, held_out)
    got = evaluate_ngrams(model, held_out, SETTINGS, seed=0, draws=3000)
    # Pairs of 3000 draws at each of some 15 points.
    assert [x.value for x in got.brier] == pytest.approx(want, abs=1.0)
    wrong = NgramModel.fit(training_text(), order=1)
    assert abs(exactly(wrong, held_out) - want).max() > 2  # it can fail


@pytest.mark.parametrize("chunk_size", [1, 3])
def test_one_gram_is_the_unigram(chunk_size):
    text = [np.array([0] * 600 + [1] * 300 + [2] * 100)]
    held_out = rows(chunk_size)
    frequencies = torch.tensor([0.6, 0.3, 0.1])
    want = evaluate_unigram(frequencies, held_out, SETTINGS, seed=0)
    model = NgramModel.fit(store(text), order=1)
    got = evaluate_ngrams(model, held_out, SETTINGS, seed=0, draws=3000)
    assert [x.value for x in got.brier] == pytest.approx([x.value for x in want.brier], abs=0.8)
