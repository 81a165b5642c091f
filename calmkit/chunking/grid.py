r"""Texts and prompts on the chunk grid.

Position t of a row holds K consecutive tokens. A document whose first chunk has fewer than K
tokens is padded on its *left*, so that text continues directly after a prompt; the padding is
masked wherever it is read. The rest of the last chunk after the document's end is filled with the
end token: text after an end token is cut anyway. No chunk straddles two documents.

    phase 1, K = 4:   [ . d0 d1 d2 ] [ d3 d4 d5 d6 ] [ d7 end end end ]
                        ^ padding                          ^ fill
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from calmkit.bounds import check_at_least
from calmkit.typing import typed

__all__ = ["check_tokens", "chunk_prompts", "chunk_tokens"]


def check_tokens(name: str, tokens: Sequence[int], vocab_size: int | None = None) -> None:
    """Refuse a list that holds anything but token ids; checks every item.

    Args:
        name: Name of the list.
        tokens: The list.
        vocab_size: Number of token ids; None allows all ids that are not negative.

    Raises:
        ValueError: If an item is not an `int`, or out of range.
    """
    for token in tokens:
        if not isinstance(token, int) or isinstance(token, bool):
            raise ValueError(
                f"{name} must hold token ids, each an int; got {token!r}. Convert a tensor or "
                "array with tolist()."
            )
        if token < 0 or (vocab_size is not None and token >= vocab_size):
            rule = "of at least 0" if vocab_size is None else f"in [0, {vocab_size})"
            raise ValueError(f"{name} must hold token ids {rule}; got {token}.")


@typed
def chunk_tokens(
    tokens: Int[Tensor, " length"], chunk_size: int, *, phase: int, fill_id: int
) -> tuple[Int[Tensor, "positions chunk"], Bool[Tensor, "positions chunk"]]:
    """Lay one text on the grid.

    Args:
        tokens: The text's token ids; at least one.
        chunk_size: K, tokens in a chunk.
        phase: Number of padding places before the first token, in [0, K).
        fill_id: The id written on padding and fill.

    Returns:
        The chunks, and a mask that is True where a token belongs to the text.

    Raises:
        ValueError: If the text is empty or an argument is out of range.
    """
    check_at_least(1, chunk_size=chunk_size)
    if not 0 <= phase < chunk_size:
        raise ValueError(f"phase must be in [0, chunk_size = {chunk_size}); got {phase}.")
    if tokens.shape[0] == 0:
        raise ValueError("tokens must hold at least one token; got an empty text.")
    positions = -(-(phase + tokens.shape[0]) // chunk_size)
    grid = tokens.new_full((positions * chunk_size,), fill_id)
    real = torch.zeros(positions * chunk_size, dtype=torch.bool, device=tokens.device)
    text = slice(phase, phase + tokens.shape[0])
    grid[text] = tokens
    real[text] = True
    return grid.view(positions, chunk_size), real.view(positions, chunk_size)


@typed
def chunk_prompts(
    prompts: Sequence[Sequence[int]], chunk_size: int, *, fill_id: int
) -> tuple[
    Int[Tensor, "batch positions chunk"],
    Bool[Tensor, "batch positions chunk"],
    Int[Tensor, " batch"],
]:
    """Lay prompts on the grid so that each *ends* at a chunk's edge.

    Rows shorter than the longest end with empty chunks.

    Args:
        prompts: Token ids of each prompt, of any lengths; none empty.
        chunk_size: K, tokens in a chunk.
        fill_id: The id written where there is no text.

    Returns:
        Chunks, the mask of real tokens, and the number of chunks of each prompt.

    Raises:
        ValueError: If there is no prompt, or one of them is empty or holds anything but token ids.
    """
    if not prompts:
        raise ValueError("prompts must hold at least one prompt; got none.")
    for row, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise ValueError(
                f"prompts[{row}] must hold at least one token; start from a start token."
            )
        check_tokens(f"prompts[{row}]", prompt)
    grids = [
        chunk_tokens(
            torch.as_tensor(prompt, dtype=torch.long),
            chunk_size,
            phase=-len(prompt) % chunk_size,
            fill_id=fill_id,
        )
        for prompt in prompts
    ]
    lengths = torch.tensor([len(chunks) for chunks, _ in grids])
    shape = (len(prompts), int(lengths.max()), chunk_size)
    tokens = torch.full(shape, fill_id, dtype=torch.long)
    real = torch.zeros(shape, dtype=torch.bool)
    for row, (chunks, mask) in enumerate(grids):
        tokens[row, : len(chunks)] = chunks
        real[row, : len(chunks)] = mask
    return tokens, real, lengths
