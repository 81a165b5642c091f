"""The vectors whose features are sought, each with the chunk that it stands for.

`latents` are the posterior means of the chunks. `states` are the backbone's, where the head reads
them; a state stands for the chunk *after* it, which it is to predict.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.data import EvaluationRows
from calmkit.finite import read_together
from calmkit.models import CALM
from calmkit.nn import evaluation_view
from calmkit.typing import typed

__all__ = ["ChunkVectors", "Kind", "chunk_vectors"]

Kind = Literal["latents", "states"]
_ROWS_AT_ONCE = 32


@typed
@dataclass(frozen=True, eq=False)
class ChunkVectors:
    """Vectors and their chunks, in the order of the rows.

    Attributes:
        vectors: Latents or states.
        tokens: The chunk of each.
        row: Its row.
        position: Its position there.
    """

    vectors: Float[Tensor, "points size"]
    tokens: Int[Tensor, "points chunk"]
    row: Int[Tensor, " points"]
    position: Int[Tensor, " points"]


@torch.no_grad()
def chunk_vectors(model: CALM, rows: EvaluationRows, kind: Kind) -> ChunkVectors:
    """Collect the vectors of all full chunks, in evaluation mode.

    Args:
        model: The model, on any device; the vectors stay there.
        rows: Rows of text, each one piece of one document.
        kind: Which vectors.

    Raises:
        ValueError: If no chunk is full.
    """
    model, device = evaluation_view(model), model.backbone.device
    is_point = rows.batch.real.all(dim=-1)
    if kind == "states":
        is_point[:, 0] = False  # no state comes before it
    if not bool(is_point.any()):
        raise ValueError("rows must hold at least one full chunk; got none. Give more text.")
    vectors = []
    for start in range(0, len(is_point), _ROWS_AT_ONCE):
        chosen = slice(start, start + _ROWS_AT_ONCE)
        batch = rows.batch.rows(chosen).to(device)
        with read_together():
            row, position = is_point[chosen].to(device).nonzero(as_tuple=True)
            if kind == "states":
                vectors.append(model.hidden_states(batch)[row, position - 1])
            else:
                vectors.append(model.autoencoder.encode_rows(batch).mean[row, position])
    row, position = is_point.nonzero(as_tuple=True)
    return ChunkVectors(torch.cat(vectors), rows.batch.tokens[row, position], row, position)
