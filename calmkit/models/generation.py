"""Generation on the chunk grid, with a cache.

Each prompt is padded on the left of its first chunk, so that it ends at a chunk's edge and the
text goes on directly after it; training rows start with such chunks too. Prompts of different
lengths share a batch: their caches have different lengths. Every row ends at its own end token
or at `max_new_tokens`, whichever comes first, to the token.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from calmkit.chunking import chunk_prompts
from calmkit.nn import evaluation_mode
from calmkit.sampling import PlainSampler, Sampler

if TYPE_CHECKING:
    from calmkit.models.calm import CALM

__all__ = ["Generation", "generate", "stream"]


@dataclass(frozen=True)
class Generation:
    """What was added to one prompt.

    Attributes:
        tokens: The new tokens, without the end token.
        finish_reason: "stop" at an end token, "length" at the limit.
    """

    tokens: list[int]
    finish_reason: Literal["stop", "length"]


def generate(
    model: "CALM",
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    eos_id: int | None,
    sampler: Sampler | None,
    generator: torch.Generator | None,
) -> list[Generation]:
    """Continue prompts; arguments and errors as in `CALM.generate`."""
    _check(prompts, model.autoencoder.vocab_size, max_new_tokens, eos_id)
    grid = chunk_prompts(prompts, model.chunk_size, fill_id=0)
    chunks: list[Tensor] = []
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=model.backbone.device)
    for chunk in _chunks(model, grid, max_new_tokens, sampler, generator):
        chunks.append(chunk)
        if eos_id is not None:
            ended = ended | (chunk == eos_id).any(dim=-1)
            if bool(ended.all()):
                break
    new_tokens = torch.cat(chunks, dim=-1).tolist()
    return [_cut(row, max_new_tokens, eos_id) for row in new_tokens]


def stream(
    model: "CALM",
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    eos_id: int | None,
    sampler: Sampler | None,
    generator: torch.Generator | None,
) -> Iterator[int]:
    """Continue one prompt, token by token; arguments and errors as in `CALM.stream`."""
    _check([prompt], model.autoencoder.vocab_size, max_new_tokens, eos_id)
    grid = chunk_prompts([prompt], model.chunk_size, fill_id=0)
    chunks = _chunks(model, grid, max_new_tokens, sampler, generator)
    tokens = (token for chunk in chunks for token in chunk[0].tolist())
    return itertools.takewhile(
        lambda token: token != eos_id, itertools.islice(tokens, max_new_tokens)
    )


def _chunks(
    model: "CALM",
    grid: tuple[Tensor, Tensor, Tensor],
    max_new_tokens: int,
    sampler: Sampler | None,
    generator: torch.Generator | None,
) -> Iterator[Tensor]:
    """New chunks (batch, chunk), one after the other; computed when they are asked for."""
    sampler = PlainSampler() if sampler is None else sampler
    device = model.backbone.device
    tokens, real, lengths = (x.to(device) for x in grid)
    new_chunks = -(-max_new_tokens // model.chunk_size)
    rows = torch.arange(len(tokens), device=device)
    cache = model.backbone.new_cache(len(tokens), tokens.shape[1] + new_chunks)
    # Modes hold for a step, not between steps, where the caller's code runs.
    with torch.no_grad(), evaluation_mode(model):
        states = model.backbone(model.input_encoder(tokens, real), cache=cache)
    state = states[rows, lengths - 1]
    cache = cache.select(rows, lengths)
    chunk = None
    for _ in range(new_chunks):
        with torch.no_grad(), evaluation_mode(model):
            if chunk is not None:
                read = chunk[:, None]
                vectors = model.input_encoder(read, torch.ones_like(read, dtype=torch.bool))
                state = model.backbone(vectors, cache=cache)[:, 0]
            chunk = sampler(partial(model.sample_chunks, state, generator=generator), generator)
        yield chunk


def _cut(tokens: list[int], limit: int, eos_id: int | None) -> Generation:
    tokens = tokens[:limit]
    if eos_id is not None and eos_id in tokens:
        return Generation(tokens[: tokens.index(eos_id)], "stop")
    return Generation(tokens, "length")


def _check(
    prompts: Sequence[Sequence[int]], vocab_size: int, max_new_tokens: int, eos_id: int | None
) -> None:
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
