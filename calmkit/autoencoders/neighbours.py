r"""The window of chunks that an autoencoder reads around each chunk of a row.

    before 1, after 0:   chunk t  ->  [ chunk t - 1 ] [ chunk t ]

The chunk itself is read completely, including fill, since all of it has to be reconstructed. Of a
neighbour only real tokens are known, and none if it belongs to another document or does not exist.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from calmkit.chunking import ChunkBatch
from calmkit.typing import typed

__all__ = ["neighbourhoods"]


@typed
def neighbourhoods(
    batch: ChunkBatch, *, before: int, after: int
) -> tuple[Int[Tensor, "batch positions places"], Bool[Tensor, "batch positions places"]]:
    """Tokens of each chunk and its neighbours in order, and which of them are known.

    Args:
        batch: Rows of chunks.
        before: Number of chunks read before each chunk.
        after: Number of chunks read after it.

    Returns:
        Both with (before + 1 + after) K places; ids at unknown places have no meaning.
    """
    rows, positions, _ = batch.tokens.shape
    device = batch.tokens.device
    document = torch.tensor(
        [[index for index, n in enumerate(row) for _ in range(n)] for row in batch.lengths],
        dtype=torch.long,
        device=device,
    ).view(rows, positions)
    offset = torch.arange(-before, after + 1, device=device)
    at = torch.arange(positions, device=device)[:, None] + offset
    in_row = (at >= 0) & (at < positions)
    at = at.clamp(0, positions - 1)
    neighbour = in_row & (document[:, at] == document[:, :, None])
    known = (neighbour[..., None] & batch.real[:, at]) | (offset == 0)[:, None]
    return batch.tokens[:, at].flatten(2), known.flatten(2)
