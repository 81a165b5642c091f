"""Which text an evaluation scores, and sums of scores over it.

Positions are scored once they have enough true text before them. At each, the n-grams of n = 1, 2,
... that start in the predicted chunk are outcomes, as far as they are text. Every token of a chunk
is the start of one, for any chunk size.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from calmkit.data import EvaluationRows
from calmkit.metrics import (
    BrierLMResult,
    DocumentScores,
    NgramSums,
    counted_ngrams,
    summarize_brier,
)

__all__ = [
    "BRANCHES_AT_ONCE",
    "ENOUGH_DOCUMENTS",
    "HIGHEST_ORDER",
    "ROWS_AT_ONCE",
    "Tally",
    "Targets",
    "check_context",
    "chunks_to_draw",
    "find_targets",
    "positions_read",
]

HIGHEST_ORDER = 4  # as published
# Rows that are read together, and branches that go on from them together: a bound on memory.
ROWS_AT_ONCE = 8
BRANCHES_AT_ONCE = 128
ENOUGH_DOCUMENTS = 8


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
    scored = int(_scored_rows(rows, min_context).sum())
    if scored < 2:
        raise ValueError(
            f"at least 2 rows must hold text after min_context = {min_context} chunks, "
            f"for a standard error; {scored} of {len(rows.document)} do. Lower min_context, or "
            "give more text."
        )


def _scored_rows(rows: EvaluationRows, min_context: int) -> Tensor:
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


class Tally:
    """Sums over the tokens of each group of rows.

    A group is a document; or a row, as if rows were independent, where documents are too few
    for a bootstrap. Beside the Brier scores of n-grams it keeps one more number of each point.
    """

    def __init__(
        self, rows: EvaluationRows, min_context: int, highest_order: int = HIGHEST_ORDER
    ) -> None:
        documents = rows.document[_scored_rows(rows, min_context)].unique()
        few = len(documents) < ENOUGH_DOCUMENTS
        names = torch.arange(len(rows.document)) if few else rows.document
        groups, self._group = names.unique(return_inverse=True)
        self._names: list[int] = groups.tolist()
        self._unit: Literal["documents", "rows"] = "rows" if few else "documents"
        self._shape, self._min_context = rows.batch.tokens.shape, min_context
        self._ngrams = NgramSums.zeros(len(groups), highest_order, self._shape[2])
        self._values = torch.zeros(len(groups), 1, dtype=torch.float64)
        self._points = torch.zeros(len(groups), 1, dtype=torch.float64)

    @property
    def context(self) -> str:
        """How much text a scored chunk has before it."""
        positions, chunk_size = self._shape[1:]
        of = "" if chunk_size == 1 else f" chunks of {chunk_size}"
        return f"{self._min_context} to {positions - 1}{of} tokens"

    @property
    def rows(self) -> str:
        """How many rows there are."""
        return f"{self._shape[0]} rows without overlap"

    @property
    def resampled(self) -> str:
        """What the bootstrap draws: the groups in which anything was scored."""
        return f"{int(self._ngrams.seen.sum())} {self._unit}"

    @property
    def scored_tokens(self) -> int:
        """Tokens that Brier-1 is a mean over."""
        return int(self._ngrams.counts[:, 0].sum())

    def add_draws(self, chosen: Tensor, targets: Targets, draws: Tensor) -> None:
        """Count draws (samples, points, tokens) at the targets of the chosen rows."""
        group = self._group_of(chosen, targets).to(draws.device)
        counted = targets.counted
        self._add(NgramSums.of_draws(draws, targets.tokens, counted, group, len(self._names)))

    def add_rates(
        self, chosen: Tensor, targets: Targets, hits: Tensor, collisions: Tensor
    ) -> None:
        """Count known or estimated rates (points, orders, places)."""
        group = self._group_of(chosen, targets).to(hits.device)
        self._add(NgramSums.over(hits, collisions, targets.counted, group, len(self._names)))

    def add_values(self, chosen: Tensor, targets: Targets, values: Tensor) -> None:
        """Count the further number of each point, (points,)."""
        group = self._group_of(chosen, targets)
        self._values.index_add_(0, group, values.double().cpu()[:, None])
        self._points.index_add_(0, group, torch.ones_like(values).double().cpu()[:, None])

    def brier(self, resamples: int, seed: int, protocol: str) -> BrierLMResult:
        """BrierLM with its errors; groups without any token are left out.

        Rows of one document are alike: over rows there are no intervals.
        """
        return summarize_brier(
            self._ngrams.counted_groups(),
            resamples=resamples,
            seed=seed,
            level=0.95 if self._unit == "documents" else None,
            protocol=protocol,
        )

    def scores(self, further: str) -> DocumentScores:
        """Sums of all metrics over groups.

        Args:
            further: Name of the further number.
        """
        ngrams = self._ngrams.scores(tuple(self._names), self._unit)
        seen = self._ngrams.seen
        return DocumentScores(
            names=(*ngrams.names, further),
            sums=torch.cat([ngrams.sums, self._values], dim=1)[seen],
            counts=torch.cat([ngrams.counts, self._points], dim=1)[seen],
            groups=tuple(name for name, kept in zip(self._names, seen, strict=True) if kept),
            unit=self._unit,
        )

    def _group_of(self, chosen: Tensor, targets: Targets) -> Tensor:
        return self._group[chosen][targets.row.cpu()]

    def _add(self, sums: NgramSums) -> None:
        here = (x.cpu() for x in (sums.hits, sums.collisions, sums.counts))
        self._ngrams = self._ngrams + NgramSums(*here)
