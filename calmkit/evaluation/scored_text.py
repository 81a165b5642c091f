"""The positions and n-grams that an evaluation scores.

A position is scored if it has enough true text before it. Its outcomes are the n-grams, n = 1, 2,
..., that start in the predicted chunk and consist of text. Every token of a chunk starts an
n-gram, for any chunk size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from calmkit.bounds import check_at_least
from calmkit.data import EvaluationRows
from calmkit.metrics import counted_ngrams

__all__ = [
    "BRANCHES_AT_ONCE",
    "HIGHEST_ORDER",
    "ROWS_AT_ONCE",
    "EvaluationSettings",
    "Targets",
    "check_context",
    "chunks_to_draw",
    "find_targets",
    "positions_read",
    "scored_rows",
]

HIGHEST_ORDER = 4  # as published
# Rows per batch, and branches per batch of their extensions, which bounds the memory.
ROWS_AT_ONCE = 8
BRANCHES_AT_ONCE = 128


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """The protocol of an evaluation.

    Attributes:
        rows: Rows of held-out text, spread over its documents.
        draws: Continuations drawn at each scored position; a Brier-n uses all pairs of them.
        min_context: Chunks of true text before the first scored one of a row.
        bootstrap: Resamples of the documents for standard errors and intervals.
        continued: Tokens that the model writes after each row's context, to be compared with the
            true text; 0 for none.
    """

    rows: int = 128
    draws: int = 8
    min_context: int = 16
    bootstrap: int = 1000
    continued: int = 32

    def __post_init__(self) -> None:
        """Refuse settings that do not give an estimate."""
        lowest = {"rows": 2, "draws": 2, "min_context": 1, "bootstrap": 10, "continued": 0}
        for name, least in lowest.items():
            check_at_least(least, **{name: getattr(self, name)})


def check_context(rows: EvaluationRows, min_context: int) -> None:
    """Check that at least two rows have text after the context.

    Raises:
        ValueError: If fewer do.
    """
    positions = rows.batch.tokens.shape[1]
    if min_context >= positions:
        raise ValueError(
            f"min_context must be below the {positions} positions of a row; got {min_context}."
        )
    scored = int(scored_rows(rows, min_context).sum())
    if scored < 2:
        raise ValueError(
            f"at least 2 rows must hold text after min_context = {min_context} chunks, "
            f"for a standard error; {scored} of {len(rows.document)} do. Lower min_context, or "
            "give more text."
        )


def scored_rows(rows: EvaluationRows, min_context: int) -> Tensor:
    """Which rows have text after the context."""
    return rows.batch.real[:, min_context:].flatten(1).any(dim=-1)


@dataclass(frozen=True, eq=False)
class Targets:
    """The scored positions of some rows, and their true continuations.

    Attributes:
        row: Row of each scored position.
        place: Its position in the row, which is the index of the chunk to predict.
        tokens: The true tokens from there on, for as many chunks as are drawn.
        is_text: False for padding, fill and tokens beyond the row's end.
        counted: Which n-grams count, (points, orders, places); see `counted_ngrams`.
    """

    row: Tensor
    place: Tensor
    tokens: Tensor
    is_text: Tensor
    counted: Tensor


def find_targets(
    tokens: Tensor, real: Tensor, min_context: int, highest_order: int = HIGHEST_ORDER
) -> Targets:
    """Find positions in rows (batch, positions, chunk) with `min_context` chunks before them."""
    chunk_size = tokens.shape[-1]
    asked = real.any(dim=-1)
    asked[:, :min_context] = False
    row, place = asked.nonzero(as_tuple=True)
    # Pad beyond the row's end, where there is no text.
    length = chunks_to_draw(chunk_size, highest_order) * chunk_size
    places = place[:, None] * chunk_size + torch.arange(length, device=place.device)
    known, is_text = (
        torch.nn.functional.pad(x.flatten(1), (0, length))[row[:, None], places]
        for x in (tokens, real)
    )
    counted = counted_ngrams(is_text, highest_order, chunk_size)
    return Targets(row, place, known.long(), is_text, counted)


def chunks_to_draw(chunk_size: int, highest_order: int = HIGHEST_ORDER) -> int:
    """Chunks that hold at least as many tokens as the longest n-gram."""
    return max(1, -(-highest_order // chunk_size))


def positions_read(positions: int, chunk_size: int, highest_order: int = HIGHEST_ORDER) -> int:
    """Number of positions that a model reads in a row and in the chunks drawn after it.

    The last branch starts after the second-to-last position, and the last drawn chunk is not read.

    Args:
        positions: Positions in a row.
        chunk_size: K, tokens in a chunk.
        highest_order: n of the longest n-grams.
    """
    return positions + max(0, chunks_to_draw(chunk_size, highest_order) - 2)
