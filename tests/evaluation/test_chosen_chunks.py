"""Chunks that a sampler chooses, counted against the text by a plain loop."""

import types

import pytest
import torch
from torch import nn

from calmkit.chunking import ChunkBatch
from calmkit.data import EvaluationRows
from calmkit.evaluation.chosen_chunks import choose
from calmkit.metrics import DocumentScores
from calmkit.sampling import SampledChunks

ROWS, POSITIONS, CHUNK, CONTEXT = 5, 300, 2, 3
DOCUMENT = torch.tensor([7, 7, 2, 9, 2])


class Places(nn.Module):
    """States are places of the text, and so is what is drawn from them."""

    backbone = types.SimpleNamespace(device=torch.device("cpu"))

    def hidden_states(self, batch):
        rows, positions = batch.tokens.shape[:2]
        return torch.cartesian_prod(torch.arange(rows), torch.arange(positions)).view(
            rows, positions, 2
        )

    def draws(self, states, generator):
        return states


class Guess:
    """Chooses what a table says of the chunk after a place; four draws in even places."""

    def __init__(self, table):
        self.table = table

    def __call__(self, draw, generator):
        row, place = draw.unbind(dim=-1)
        draws = torch.where(place % 2 == 0, 4, 1)
        return SampledChunks(self.table[row, place + 1], draws, place % 3 != 0)


@pytest.fixture
def rows():
    """Row 3 ends within a chunk, row 4 within the context."""
    torch.manual_seed(0)
    tokens = torch.randint(3, (ROWS, POSITIONS, CHUNK))
    real = torch.ones_like(tokens).bool()
    real.flatten(1)[3, 41:] = False
    real.flatten(1)[4, 5:] = False
    return EvaluationRows(ChunkBatch(tokens, real, ((POSITIONS,),) * ROWS), DOCUMENT)


@pytest.mark.parametrize("unit", ["documents", "rows"])
def test_right_tokens_of_each_group(rows, unit):
    guesses = torch.randint(3, rows.batch.tokens.shape)
    names = DOCUMENT.tolist() if unit == "documents" else [0, 1, 2, 3, 4]
    groups = (2, 7, 9) if unit == "documents" else (0, 1, 2, 3)
    right, counted = dict.fromkeys(groups, 0), dict.fromkeys(groups, 0)
    draws, unsettled, chosen = 0, 0, 0
    for row in range(ROWS):
        for place in range(CONTEXT, POSITIONS):
            text = rows.batch.real[row, place]
            if text.any():
                chosen += 1
                draws += 4 if (place - 1) % 2 == 0 else 1
                unsettled += (place - 1) % 3 == 0
            for token in range(CHUNK):
                if text[token]:
                    hit = rows.batch.tokens[row, place, token] == guesses[row, place, token]
                    right[names[row]] += int(hit)
                    counted[names[row]] += 1
    zeros = torch.zeros(len(groups), 1, dtype=torch.float64)
    before = DocumentScores(("brier_1",), zeros, zeros + 1, groups, unit)

    found = choose(Places(), rows, Guess(guesses), before, min_context=CONTEXT, seed=0)

    assert found.documents.names == ("brier_1", "chosen_accuracy")
    accuracy = found.documents.select("chosen_accuracy")
    assert accuracy.sums.flatten().tolist() == list(right.values())
    assert accuracy.counts.flatten().tolist() == list(counted.values())
    assert sum(counted.values()) == 3 * 594 + 35
    assert found.draws_per_chunk == pytest.approx(draws / chosen)
    assert found.unsettled == pytest.approx(unsettled / chosen)
