"""Latents as text: decoded samples with their nearest chunks, and decoded interpolations."""

import torch
from torch import Tensor

from calmkit.data import TextTokenizer

from .neighbours import NearestChunks

__all__ = ["interpolation_texts", "sample_texts"]

_EXAMPLES = 4


def sample_texts(
    drawn: Tensor, target: Tensor, near: NearestChunks, bank: Tensor, tokenizer: TextTokenizer
) -> list[str]:
    """A line for each of a few samples of a head, spread over the points.

    Args:
        drawn: The decoded tokens of each sample, (points, chunk).
        target: The true chunk at each point.
        near: The nearest chunks of each sample.
        bank: Tokens of the chunks that these were chosen from.
        tokenizer: Decodes tokens to text.
    """
    lines = []
    for point in _spread_over(len(drawn)):
        nearest = ", ".join(
            f"{_text(bank[int(index)], tokenizer)} at {float(distance):.3g}"
            for index, distance in zip(near.index[point], near.distance[point], strict=True)
        )
        lines.append(
            f"sample {_text(drawn[point], tokenizer)}: nearest real chunks {nearest}; target "
            f"{_text(target[point], tokenizer)}"
        )
    return lines


def interpolation_texts(tokens: Tensor, tokenizer: TextTokenizer) -> list[str]:
    """A line for each of a few interpolations from chunk to chunk, step by step.

    Args:
        tokens: Decoded tokens, (steps, points, chunk).
        tokenizer: Decodes tokens to text.
    """
    return [
        "between: " + " > ".join(_text(step, tokenizer) for step in tokens[:, point])
        for point in _spread_over(tokens.shape[1])
    ]


def _spread_over(count: int) -> list[int]:
    return torch.linspace(0, count - 1, _EXAMPLES).long().unique().tolist()


def _text(chunk: Tensor, tokenizer: TextTokenizer) -> str:
    return repr(tokenizer.decode(chunk.tolist()))
