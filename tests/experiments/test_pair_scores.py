"""Which texts count as reproduced: those with all tokens of the response, and no more."""

import types

import numpy as np
import pytest
import torch

from calmkit.experiments.pair_scores import reproduced
from calmkit.pairs import TokenPair

RESPONSES = [[3, 4], [5, 6, 7], [8], [1, 2]]


class Writer:
    """Writes given texts, and records what it was asked."""

    backbone = types.SimpleNamespace(device=torch.device("cpu"))

    def __init__(self, *texts):
        self.texts = texts

    def generate(self, prompts, *, max_new_tokens, eos_id, generator):
        self.asked = prompts, max_new_tokens, eos_id, generator.initial_seed()
        return [types.SimpleNamespace(tokens=text) for text in self.texts]


def pairs():
    return [
        TokenPair(np.array([0, place]), np.array(response))
        for place, response in enumerate(RESPONSES)
    ]


@pytest.mark.parametrize(
    ("texts", "share"),
    [
        (RESPONSES, 1.0),
        (([3, 4], [5, 6], [8, 8], [2, 1]), 0.25),  # cut short, one too many, another order
        (([], [], [], []), 0.0),
        (([3, 4], [5, 6, 7], [8], [1]), 0.75),
    ],
)
def test_share(texts, share):
    writer = Writer(*texts)
    assert reproduced(writer, pairs(), end_id=0, seed=5) == share
    # One token more than the longest response: a text that goes on has room to show it.
    assert writer.asked == ([[0, 0], [0, 1], [0, 2], [0, 3]], 4, 0, 5)
