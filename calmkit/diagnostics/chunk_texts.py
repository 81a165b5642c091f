"""Latents as text: what samples decode to, what they lie near, what lies between two chunks."""

import torch
from torch import Tensor

from calmkit.data import TextTokenizer

from .neighbours import NearestChunks

__all__ = ["texts_of_samples", "texts_of_ways"]

_EXAMPLES = 4


def texts_of_samples(
    drawn: Tensor, came: Tensor, near: NearestChunks, bank: Tensor, tokenizer: TextTokenizer
) -> list[str]:
    """A line for some samples of a head, spread over the points.

    Args:
        drawn: Tokens that each sample decodes to, (points, chunk).
        came: The chunk that came there.
        near: The nearest chunks of each sample.
        bank: Tokens of the chunks that they are from.
        tokenizer: Makes texts of chunks.
    """
    lines = []
    for place in _spread_over(len(drawn)):
        nearest = ", ".join(
            f"{_text(bank[int(index)], tokenizer)} at {float(distance):.3g}"
            for index, distance in zip(near.index[place], near.distance[place], strict=True)
        )
        lines.append(
            f"sample {_text(drawn[place], tokenizer)}: nearest real chunks {nearest}; there came "
            f"{_text(came[place], tokenizer)}"
        )
    return lines


def texts_of_ways(ways: Tensor, tokenizer: TextTokenizer) -> list[str]:
    """A line for some ways from chunk to chunk, step by step.

    Args:
        ways: Tokens, (steps, points, chunk).
        tokenizer: Makes texts of chunks.
    """
    return [
        "between: " + " > ".join(_text(step, tokenizer) for step in ways[:, place])
        for place in _spread_over(ways.shape[1])
    ]


def _spread_over(count: int) -> list[int]:
    return torch.linspace(0, count - 1, _EXAMPLES).long().unique().tolist()


def _text(chunk: Tensor, tokenizer: TextTokenizer) -> str:
    return repr(tokenizer.decode(chunk.tolist()))
