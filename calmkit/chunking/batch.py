"""Rows of chunks: the batches that models are trained and evaluated on.

Several documents may be packed in one row. `ChunkBatch.lengths` holds their lengths, and attention
does not cross from one to another. A document's first chunk is read but never predicted.
`ChunkBatch.scored` restricts the predicted chunks further, for instance to a prompt's response.
"""

from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from calmkit.typing import typed

__all__ = ["ChunkBatch"]


@typed
@dataclass(frozen=True, eq=False)
class ChunkBatch:
    """Rows of chunks on the grid.

    Attributes:
        tokens: Token ids. Padding holds a valid id that the model does not read. Fill holds the
            end token, which is part of the last chunk's latent but is not scored.
        real: True where a token belongs to the text, False on padding and fill.
        lengths: For each row, the number of chunks of each packed document, in order.
        scored: False at chunks that are only read, such as a prompt's; None means all are scored.
    """

    tokens: Int[Tensor, "batch positions chunk"]
    real: Bool[Tensor, "batch positions chunk"]
    lengths: tuple[tuple[int, ...], ...]
    scored: Bool[Tensor, "batch positions"] | None = None

    def __post_init__(self) -> None:
        """Refuse packings that do not add up to the rows."""
        rows, positions = self.tokens.shape[:2]
        if len(self.lengths) != rows:
            raise ValueError(
                f"lengths must hold one tuple for each of {rows} rows; got {len(self.lengths)}."
            )
        for row, lengths in enumerate(self.lengths):
            if sum(lengths) != positions or min(lengths, default=0) < 1:
                raise ValueError(
                    f"lengths must be positive and add up to {positions} positions in every row; "
                    f"row {row} has {lengths}."
                )

    @typed
    def predictable(self) -> Bool[Tensor, "batch positions"]:
        """True at chunks that a model predicts.

        These are all but empty chunks, the first of each document, and those `scored` leaves out.
        """
        predictable = self.real.any(dim=-1)
        starts = [
            (row, start)
            for row, lengths in enumerate(self.lengths)
            for start in accumulate(lengths[:-1], initial=0)
        ]
        row, start = torch.tensor(starts, dtype=torch.long).view(-1, 2).T.to(self.real.device)
        predictable[row, start] = False
        return predictable if self.scored is None else predictable & self.scored

    def rows(self, chosen: slice) -> "ChunkBatch":
        """Some of the rows."""
        return ChunkBatch(
            self.tokens[chosen],
            self.real[chosen],
            self.lengths[chosen],
            None if self.scored is None else self.scored[chosen],
        )

    def to(self, device: torch.device) -> "ChunkBatch":
        """The same rows on another device."""
        return replace(
            self,
            tokens=self.tokens.to(device),
            real=self.real.to(device),
            scored=None if self.scored is None else self.scored.to(device),
        )
