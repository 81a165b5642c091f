"""From states to text: the loop of generation, and where each row ends, to the token.

All rows of a batch are written together, chunk by chunk. Every row ends at its own end token, also
inside a chunk, or after `max_new_tokens`, which need not be a multiple of K. A row that has ended
is not sampled any more, and leaves the batch when half of it has ended.

Shapes are checked for two chunks, which go through all that the others do: with a single row and a
small model, checks of every chunk would take as long as the rest.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from calmkit.backbones import Backbone
from calmkit.bounds import check_at_least
from calmkit.chunking import check_tokens
from calmkit.finite import read_together
from calmkit.sampling import Draw, SampledChunks, Sampler
from calmkit.typing import unchecked

from .input_encoder import InputEncoder

__all__ = [
    "Generation",
    "Writer",
    "Written",
    "check_request",
    "collect",
    "step_by_step",
    "tokens_of_one_row",
    "write",
]


# One chunk after the prompt, and one after a chunk.
_CHECKED = 2


@dataclass(frozen=True)
class Generation:
    """What was added to one prompt.

    Attributes:
        tokens: The new tokens, without the end token.
        finish_reason: "stop" at an end token, "length" at the limit.
        chunks: Chunks that were sampled for them.
        draws: Candidates that were drawn for these chunks.
        unsettled: Chunks for which the draws did not suffice for the temperature asked for; see
            `SampledChunks.settled`.
    """

    tokens: list[int]
    finish_reason: Literal["stop", "length"]
    chunks: int
    draws: int
    unsettled: int


@dataclass(frozen=True)
class Written:
    """One more chunk of the rows that have not ended.

    Attributes:
        rows: Their numbers in the batch.
        tokens: The chunk of each.
        draws: Candidates drawn for each.
        settled: Whether these sufficed for each.
    """

    rows: list[int]
    tokens: list[list[int]]
    draws: list[int]
    settled: list[bool]


@runtime_checkable
class Writer(Protocol):
    """What writing asks of a model; every `LanguageModel` has it."""

    input_encoder: InputEncoder
    backbone: Backbone

    def draws(self, states: Tensor, generator: torch.Generator | None = None) -> Draw:
        """The next chunk after some states."""
        ...


def write(
    model: Writer,
    grid: tuple[Tensor, Tensor, Tensor],
    *,
    new_chunks: int,
    eos_id: int | None,
    sampler: Sampler,
    generator: torch.Generator | None,
) -> Iterator[Written]:
    """Write chunks, each computed when it is asked for, until all rows have ended.

    Whoever asks turns gradients off.

    Args:
        model: The model, in evaluation mode.
        grid: Prompts, from `chunk_prompts`.
        new_chunks: Most chunks to write.
        eos_id: A row ends with a chunk that holds this token.
        sampler: Chooses each chunk.
        generator: Source of randomness; torch's global one if None.

    Raises:
        NonFiniteError: If a chunk would come from what is not finite.
        ValueError: If the sampler chooses what is no chunk of token ids for each row.
    """
    tokens, real, lengths = (x.to(model.backbone.device) for x in grid)
    rows = torch.arange(len(tokens), device=tokens.device)
    # The last chunk is not read any more, and needs no place.
    cache = model.backbone.new_cache(len(tokens), tokens.shape[1] + new_chunks - 1)
    states = model.backbone(model.input_encoder(tokens, real), cache=cache)
    state = states[rows, lengths - 1]
    # Prompts of different lengths: each row's cache ends where its prompt does.
    cache = cache.select(rows, lengths)
    # Where the rows that go on are in the cache, and the chunk that each has just written.
    places, chunk = rows, None
    for number in range(new_chunks):
        with unchecked(number >= _CHECKED), read_together():
            if chunk is not None:
                read = chunk.new_zeros(len(cache.lengths), 1, chunk.shape[-1])
                read[places, 0] = chunk
                vectors = model.input_encoder(read, torch.ones_like(read, dtype=torch.bool))
                state = model.backbone(vectors, cache=cache)[places, 0]
            sampled = sampler(model.draws(state, generator), generator)
        yield _written(rows, sampled, model.input_encoder)
        chunk = sampled.tokens
        if eos_id is not None:
            left = (chunk != eos_id).all(dim=-1)
            rows, places, chunk = rows[left], places[left], chunk[left]
            if len(rows) == 0:
                return
            if 2 * len(rows) <= len(cache.lengths):
                cache = cache.select(places, cache.lengths[places])
                places = torch.arange(len(rows), device=rows.device)


def _written(rows: Tensor, sampled: SampledChunks, reader: InputEncoder) -> Written:
    want = (len(rows), reader.chunk_size)
    if sampled.tokens.shape != want:
        raise ValueError(
            f"sampler must choose chunks of shape {want}, one a row; got "
            f"{tuple(sampled.tokens.shape)}."
        )
    chunks: list[list[int]] = sampled.tokens.tolist()
    for token in itertools.chain.from_iterable(chunks):
        if not 0 <= token < reader.vocab_size:
            raise ValueError(
                f"sampler must choose token ids in [0, {reader.vocab_size}); got {token}."
            )
    return Written(rows.tolist(), chunks, sampled.draws.tolist(), sampled.settled.tolist())


def step_by_step(written: Iterator[Written]) -> Iterator[Written]:
    """The same, without gradients in a step, not between steps, where other code runs."""
    while True:
        with torch.no_grad():
            step = next(written, None)
        if step is None:
            return
        yield step


def collect(
    written: Iterable[Written], rows: int, *, max_new_tokens: int, eos_id: int | None
) -> list[Generation]:
    """Read all that is written, and cut each row at its end."""
    read: list[list[tuple[list[int], int, bool]]] = [[] for _ in range(rows)]
    for step in written:
        chunks = zip(step.tokens, step.draws, step.settled, strict=True)
        for row, chunk in zip(step.rows, chunks, strict=True):
            read[row].append(chunk)
    return [_generation(chunks, max_new_tokens, eos_id) for chunks in read]


def _generation(
    chunks: list[tuple[list[int], int, bool]], max_new_tokens: int, eos_id: int | None
) -> Generation:
    tokens = [token for chunk, _, _ in chunks for token in chunk][:max_new_tokens]
    text = list(itertools.takewhile(lambda token: token != eos_id, tokens))
    return Generation(
        tokens=text,
        finish_reason="stop" if len(text) < len(tokens) else "length",
        chunks=len(chunks),
        draws=sum(draws for _, draws, _ in chunks),
        unsettled=sum(not settled for _, _, settled in chunks),
    )


def tokens_of_one_row(
    written: Iterable[Written], *, max_new_tokens: int, eos_id: int | None
) -> Iterator[int]:
    """The tokens of the only row up to its end, each as soon as its chunk is there."""
    tokens = (token for step in written for token in step.tokens[0])
    return itertools.takewhile(
        lambda token: token != eos_id, itertools.islice(tokens, max_new_tokens)
    )


def check_request(
    prompts: Sequence[Sequence[int]], vocab_size: int, max_new_tokens: int, eos_id: int | None
) -> None:
    """Refuse what cannot be continued.

    Raises:
        ValueError: If an item is no id of the vocabulary or max_new_tokens is not positive.
    """
    check_at_least(1, max_new_tokens=max_new_tokens)
    if eos_id is not None and not 0 <= eos_id < vocab_size:
        raise ValueError(f"eos_id must be a token id in [0, {vocab_size}), or None; got {eos_id}.")
    for row, prompt in enumerate(prompts):
        check_tokens(f"prompts[{row}]", prompt, vocab_size)
