r"""Prompts with their responses, and loss masks that fall on chunk edges.

A model predicts whole chunks, and the loss of a chunk does not split into its tokens. So a
response has to begin at a chunk's edge. The prompt is padded on its left until it does, as
`chunk_prompts` does for generation: training and generation see the same layout.

    K = 4:   [ . . p0 p1 ] [ p2 p3 p4 p5 ] [ r0 r1 r2 r3 ] [ r4 end end end ]
    scored         -               -             yes               yes
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from calmkit.bounds import check_at_least
from calmkit.typing import typed

from .grid import check_tokens, chunk_tokens

__all__ = ["aligned_loss_mask", "chunk_pair"]


@typed
def chunk_pair(
    prompt: Sequence[int],
    response: Sequence[int],
    chunk_size: int,
    *,
    fill_id: int,
    end_id: int | None = None,
) -> tuple[
    Int[Tensor, "positions chunk"], Bool[Tensor, "positions chunk"], Bool[Tensor, " positions"]
]:
    """Lay a prompt and its response on the grid so that the response begins at a chunk's edge.

    Args:
        prompt: Token ids; at least one.
        response: Token ids; at least one.
        chunk_size: K, tokens in a chunk.
        fill_id: The id written on padding and fill. Fill is part of the last chunk's target, so
            use the end token.
        end_id: The end token, put after the response; None to add none.

    Returns:
        The chunks, the mask of tokens that belong to the text (the end token does), and a mask
        that is True at the response's chunks.

    Raises:
        ValueError: If the prompt or the response is empty or holds anything but token ids, or
            `chunk_size` is below 1.
    """
    for name, tokens in (("prompt", prompt), ("response", response)):
        if len(tokens) == 0:
            raise ValueError(f"{name} must hold at least one token; got none.")
        check_tokens(name, tokens)
    check_at_least(1, chunk_size=chunk_size)
    phase = -len(prompt) % chunk_size
    text = [*prompt, *response, *([] if end_id is None else [end_id])]
    tokens, real = chunk_tokens(torch.tensor(text), chunk_size, phase=phase, fill_id=fill_id)
    scored = torch.arange(len(tokens)) >= (phase + len(prompt)) // chunk_size
    return tokens, real, scored


@typed
def aligned_loss_mask(
    mask: Bool[Tensor, "*batch positions chunk"],
    *,
    real: Bool[Tensor, "*batch positions chunk"] | None = None,
) -> Bool[Tensor, "*batch positions"]:
    """Turn a loss mask over tokens into one over chunks, for `ChunkBatch.scored`.

    Args:
        mask: True at tokens that count in the loss.
        real: False on padding and fill, where `mask` is ignored; None means that all is text.

    Returns:
        True at chunks that count in the loss.

    Raises:
        ValueError: If an edge of the mask falls inside a chunk; names row and position.
    """
    text = torch.ones_like(mask) if real is None else real
    scored = (mask & text).any(dim=-1)
    straddled = scored & (~mask & text).any(dim=-1)
    if straddled.any():
        *row, position = straddled.nonzero()[0].tolist()
        where = f"row {', '.join(map(str, row))}, " if row else ""
        found = mask[(*row, position)][text[(*row, position)]].tolist()
        raise ValueError(
            "mask must fall on chunk edges, with all of a chunk's tokens or none of them; "
            f"{where}position {position} has {found}. Pad the prompt on its left until the "
            "response begins at an edge, as `chunk_pair` does."
        )
    return scored
