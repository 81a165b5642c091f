"""Rows of chunks: what training and evaluation hand to a model.

Several documents may be packed in one row; `ChunkBatch.lengths` tells where each begins, and
attention does not cross that border. A document's first chunk is read and never asked for.
`ChunkBatch.scored` narrows down what is asked for, chunk by chunk: of a prompt and its response,
the response.
"""

from dataclasses import dataclass, replace

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
            end token: it is part of the last chunk's latent, but no score counts it.
        real: True where a token belongs to the text, False on padding and fill.
        lengths: For each row, the number of chunks of each packed document, in order.
        scored: False at chunks that are only read, such as a prompt's; None scores all.
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
        """True at chunks that a model is asked for.

        Not the first of a document, not empty, and not left out by `scored`.
        """
        predictable = self.real.any(dim=-1)
        for row, lengths in enumerate(self.lengths):
            starts = torch.tensor((0, *lengths[:-1]), device=self.real.device).cumsum(0)
            predictable[row, starts] = False
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
