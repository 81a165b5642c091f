"""The generation loop, which ends each row at the exact token.

All rows of a batch are generated together, chunk by chunk. A row ends at its own end token, even
inside a chunk, or after `max_new_tokens`, which need not be a multiple of K. A finished row is no
longer sampled, and finished rows leave the batch when they are half of it.

Shapes are checked only for the first two chunks, which cover all code paths: with a single row and
a small model, checking every chunk would take as long as the rest.
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
    "TokenStream",
    "Writer",
    "Written",
    "check_request",
    "collect",
    "step_by_step",
    "write",
]


# One chunk after the prompt and one after a generated chunk.
_CHECKED = 2


@dataclass(frozen=True)
class Generation:
    """The continuation of one prompt.

    Attributes:
        tokens: The new tokens, without the end token.
        finish_reason: "stop" at an end token, "length" at the limit.
        chunks: Number of chunks sampled.
        draws: Number of candidates drawn for these chunks.
        unsettled: Number of chunks with too few draws for the requested temperature; see
            `SampledChunks.settled`.
        text: The new tokens as text; None if the prompts were token ids.
    """

    tokens: list[int]
    finish_reason: Literal["stop", "length"]
    chunks: int
    draws: int
    unsettled: int
    text: str | None = None


@dataclass(frozen=True)
class Written:
    """One more chunk for each unfinished row.

    Attributes:
        rows: Their indices in the batch.
        tokens: The chunk of each row.
        draws: Number of candidates drawn for each row.
        settled: Whether the draws of each row sufficed.
    """

    rows: list[int]
    tokens: list[list[int]]
    draws: list[int]
    settled: list[bool]


@runtime_checkable
class Writer(Protocol):
    """The interface of a model that generation needs; every `LanguageModel` has it."""

    input_encoder: InputEncoder
    backbone: Backbone

    def draws(self, states: Tensor, generator: torch.Generator | None = None) -> Draw:
        """The next chunk given states."""
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
    """Generate chunks on demand until all rows have ended.

    The caller disables gradients.

    Args:
        model: The model, in evaluation mode.
        grid: Prompts from `chunk_prompts`.
        new_chunks: Maximum number of chunks.
        eos_id: A row ends with the chunk that contains this token.
        sampler: Chooses each chunk.
        generator: Source of randomness; torch's global one if None.

    Raises:
        NonFiniteError: If states, latents or logits are not finite.
        ValueError: If the sampler does not return a chunk of token ids for each row.
    """
    tokens, real, lengths = (x.to(model.backbone.device) for x in grid)
    rows = torch.arange(len(tokens), device=tokens.device)
    # The last chunk is not read, so the cache needs no place for it.
    cache = model.backbone.new_cache(len(tokens), tokens.shape[1] + new_chunks - 1)
    states = model.backbone(model.input_encoder(tokens, real), cache=cache)
    state = states[rows, lengths - 1]
    # Prompts of different lengths: each row's cache ends where its prompt does.
    cache = cache.select(rows, lengths)
    # The cache rows of the unfinished rows, and their latest chunks.
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
    """Disable gradients within each step, but not between steps, where other code runs."""
    while True:
        with torch.no_grad():
            step = next(written, None)
        if step is None:
            return
        yield step


def collect(
    written: Iterable[Written], rows: int, *, max_new_tokens: int, eos_id: int | None
) -> list[Generation]:
    """Collect all chunks and truncate each row at its end."""
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


class TokenStream(Iterator[int]):
    """The tokens of the only row up to its end, as soon as their chunk is available."""

    def __init__(
        self, written: Iterator[Written], *, max_new_tokens: int, eos_id: int | None
    ) -> None:
        """Take the chunks; none is generated yet."""
        self._limits = (max_new_tokens, eos_id)
        self._read: list[tuple[list[int], int, bool]] = []
        tokens = itertools.chain.from_iterable(map(self._keep, written))
        self._tokens = itertools.takewhile(
            lambda token: token != eos_id, itertools.islice(tokens, max_new_tokens)
        )

    def __next__(self) -> int:
        """The next token."""
        return next(self._tokens)

    @property
    def generation(self) -> Generation:
        """The continuation so far; at the end of the stream, all of it and why it ended."""
        return _generation(self._read, *self._limits)

    def _keep(self, step: Written) -> list[int]:
        self._read.append((step.tokens[0], step.draws[0], step.settled[0]))
        return step.tokens[0]


def check_request(
    prompts: Sequence[Sequence[int]], vocab_size: int, max_new_tokens: int, eos_id: int | None
) -> None:
    """Refuse ids outside the vocabulary, and a number of new tokens that is not positive."""
    check_at_least(1, max_new_tokens=max_new_tokens)
    if eos_id is not None and not 0 <= eos_id < vocab_size:
        raise ValueError(f"eos_id must be a token id in [0, {vocab_size}), or None; got {eos_id}.")
    for row, prompt in enumerate(prompts):
        check_tokens(f"prompts[{row}]", prompt, vocab_size)
