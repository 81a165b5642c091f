"""From new chunks to text: where a row ends, to the token.

A model writes chunk by chunk, for all rows of a batch together. Every row ends at its own end
token, also inside a chunk, or after `max_new_tokens`, which need not be a multiple of K.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Generation", "check_request", "collect", "tokens_of_one_row"]


@dataclass(frozen=True)
class Generation:
    """What was added to one prompt.

    Attributes:
        tokens: The new tokens, without the end token.
        finish_reason: "stop" at an end token, "length" at the limit.
    """

    tokens: list[int]
    finish_reason: Literal["stop", "length"]


def collect(
    chunks: Iterable[Tensor], *, max_new_tokens: int, eos_id: int | None
) -> list[Generation]:
    """Read chunks (batch, chunk) until all rows have ended, and cut each row at its end."""
    read: list[Tensor] = []
    ended: Tensor | bool = False
    for chunk in chunks:
        read.append(chunk)
        if eos_id is not None:
            ended = (chunk == eos_id).any(dim=-1) | ended
            if bool(ended.all()):
                break
    rows = torch.cat(read, dim=-1).tolist()
    return [_cut(row[:max_new_tokens], eos_id) for row in rows]


def tokens_of_one_row(
    chunks: Iterable[Tensor], *, max_new_tokens: int, eos_id: int | None
) -> Iterator[int]:
    """The tokens of chunks (1, chunk) up to the row's end, each as soon as its chunk is there."""
    tokens = (token for chunk in chunks for token in chunk[0].tolist())
    return itertools.takewhile(
        lambda token: token != eos_id, itertools.islice(tokens, max_new_tokens)
    )


def check_request(
    prompts: Sequence[Sequence[int]], vocab_size: int, max_new_tokens: int, eos_id: int | None
) -> None:
    """Refuse what cannot be continued.

    Raises:
        ValueError: If an id is outside the vocabulary or max_new_tokens is not positive.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1; got {max_new_tokens}.")
    if eos_id is not None and not 0 <= eos_id < vocab_size:
        raise ValueError(f"eos_id must be a token id in [0, {vocab_size}), or None; got {eos_id}.")
    for row, prompt in enumerate(prompts):
        for token in prompt:
            if not 0 <= token < vocab_size:
                raise ValueError(
                    f"prompts[{row}] must hold token ids in [0, {vocab_size}); got {token}."
                )


def _cut(tokens: list[int], eos_id: int | None) -> Generation:
    if eos_id is not None and eos_id in tokens:
        return Generation(tokens[: tokens.index(eos_id)], "stop")
    return Generation(tokens, "length")
