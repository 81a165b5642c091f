"""Which text an evaluation scores.

Positions are scored once they have enough true text before them. At each, the n-grams of n = 1, 2,
... that start in the predicted chunk are outcomes, as far as they are text. Every token of a chunk
is the start of one, for any chunk size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

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
# Rows that are read together, and branches that go on from them together: a bound on memory.
ROWS_AT_ONCE = 8
BRANCHES_AT_ONCE = 128


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What is scored, and how often it is drawn.

    Attributes:
        rows: Rows of held-out text, spread over its documents.
        draws: Continuations drawn at each scored position, all pairs of which enter a Brier-n.
        min_context: Chunks of true text before the first scored one of a row.
        bootstrap: Resamples of the documents for standard errors and intervals.
    """

    rows: int = 128
    draws: int = 8
    min_context: int = 16
    bootstrap: int = 1000

    def __post_init__(self) -> None:
        """Refuse settings that make no estimate."""
        for name, least in {"rows": 2, "draws": 2, "min_context": 1, "bootstrap": 10}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}.")


def check_context(rows: EvaluationRows, min_context: int) -> None:
    """Refuse rows of which too few have text after the context.

    Raises:
        ValueError: If fewer than two have.
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
    """The scored positions of some rows, and the true tokens from each on.

    Attributes:
        row: Row of each scored position.
        place: Its place in the row: the chunk to predict.
        tokens: The tokens from there on, of as many chunks as are drawn.
        is_text: False where they are padding, fill, or behind the row's end.
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
    """Positions of rows (batch, positions, chunk) with at least `min_context` chunks before."""
    chunk_size = tokens.shape[-1]
    asked = real.any(dim=-1)
    asked[:, :min_context] = False
    row, place = asked.nonzero(as_tuple=True)
    # Behind the row's end there is no text.
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
    """How many positions a model reads of rows and of what it draws after them.

    A branch begins after the last position but one, and the last chunk drawn is not read.

    Args:
        positions: Of a row.
        chunk_size: K, tokens in a chunk.
        highest_order: n of the longest n-grams.
    """
    return positions + max(0, chunks_to_draw(chunk_size, highest_order) - 2)
