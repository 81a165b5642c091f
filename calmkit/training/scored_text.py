"""Which text an evaluation scores, and sums of scores over it.

Positions are scored once they have enough true text before them. At each, the n-grams of n = 1 to
4 that start in the predicted chunk are outcomes, as far as they are text.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from calmkit.data import EvaluationRows
from calmkit.metrics import Estimate, bootstrap_ratio

__all__ = ["ORDERS", "Tally", "Targets", "check_context", "chunks_to_draw", "find_targets"]

ORDERS = (1, 2, 3, 4)
_ENOUGH_DOCUMENTS = 8


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
        chunk_size: K, tokens in a chunk.
    """

    row: Tensor
    place: Tensor
    tokens: Tensor
    is_text: Tensor
    chunk_size: int

    def counted(self, order: int) -> Tensor:
        """Which n-grams count: those that start in the predicted chunk and are all text."""
        valid = self.is_text.unfold(-1, order, 1).all(dim=-1)
        valid[:, self.chunk_size :] = False
        return valid


def find_targets(tokens: Tensor, real: Tensor, min_context: int) -> Targets:
    """Positions of rows (batch, positions, chunk) with at least `min_context` chunks before."""
    chunk_size = tokens.shape[-1]
    asked = real.any(dim=-1)
    asked[:, :min_context] = False
    row, place = asked.nonzero(as_tuple=True)
    # Behind the row's end there is no text.
    length = chunks_to_draw(chunk_size) * chunk_size
    places = place[:, None] * chunk_size + torch.arange(length, device=place.device)
    known, is_text = (
        torch.nn.functional.pad(x.flatten(1), (0, length))[row[:, None], places]
        for x in (tokens, real)
    )
    return Targets(row, place, known, is_text, chunk_size)


def chunks_to_draw(chunk_size: int) -> int:
    """Chunks that hold at least four tokens."""
    return max(1, -(-ORDERS[-1] // chunk_size))


class Tally:
    """Sums of each metric over the tokens of each group of rows.

    A group is a document; or a row, as if rows were independent, where documents are too few
    for a bootstrap.
    """

    def __init__(self, rows: EvaluationRows, min_context: int, metrics: int) -> None:
        documents = rows.document[_scored_rows(rows, min_context)].unique()
        few = len(documents) < _ENOUGH_DOCUMENTS
        names = torch.arange(len(rows.document)) if few else rows.document
        groups, self._group = names.unique(return_inverse=True)
        self._sums = torch.zeros(len(groups), metrics, dtype=torch.float64)
        self._counts = torch.zeros(len(groups), metrics, dtype=torch.float64)
        self._unit = "rows" if few else "documents"

    @property
    def resampled(self) -> str:
        """What the bootstrap draws: the groups in which anything was scored."""
        return f"{int((self._counts[:, 0] > 0).sum())} {self._unit}"

    @property
    def scored_tokens(self) -> int:
        """Tokens that Brier-1 is a mean over."""
        return int(self._counts[:, 0].sum())

    def add(
        self, metric: int, chosen: Tensor, targets: Targets, values: Tensor, valid: Tensor
    ) -> None:
        """Count the valid ones of (points, starts) values of the chosen rows."""
        group = self._group[chosen][targets.row.cpu()]
        kept = torch.where(valid, values, 0.0).sum(dim=-1).double()
        self._sums[:, metric].index_add_(0, group, kept.cpu())
        self._counts[:, metric].index_add_(0, group, valid.sum(dim=-1).double().cpu())

    def estimates(self, resamples: int, seed: int) -> list[Estimate]:
        """Mean and standard error of each metric; groups without any token are left out."""
        seen = self._counts[:, 0] > 0
        return bootstrap_ratio(
            self._sums[seen], self._counts[seen], resamples=resamples, seed=seed
        )
