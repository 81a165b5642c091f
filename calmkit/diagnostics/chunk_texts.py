"""Latents as text: decoded samples with their nearest chunks, and decoded interpolations."""

import torch
from torch import Tensor

from calmkit.data import TextTokenizer

from .neighbours import NearestChunks

__all__ = ["texts_of_interpolations", "texts_of_samples"]

_EXAMPLES = 4


def texts_of_samples(
    drawn: Tensor, true: Tensor, near: NearestChunks, bank: Tensor, tokenizer: TextTokenizer
) -> list[str]:
    """A line for some samples of a head, spread over the points.

    Args:
        drawn: Tokens that each sample decodes to, (points, chunk).
        true: The chunk of the text there.
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
            f"sample {_text(drawn[place], tokenizer)}: nearest real chunks {nearest}; "
            f"the text has {_text(true[place], tokenizer)}"
        )
    return lines


def texts_of_interpolations(steps: Tensor, tokenizer: TextTokenizer) -> list[str]:
    """A line for some interpolations from chunk to chunk, step by step.

    Args:
        steps: Tokens, (steps, points, chunk).
        tokenizer: Makes texts of chunks.
    """
    return [
        "between: " + " > ".join(_text(step, tokenizer) for step in steps[:, place])
        for place in _spread_over(steps.shape[1])
    ]


def _spread_over(count: int) -> list[int]:
    return torch.linspace(0, count - 1, _EXAMPLES).long().unique().tolist()


def _text(chunk: Tensor, tokenizer: TextTokenizer) -> str:
    return repr(tokenizer.decode(chunk.tolist()))
