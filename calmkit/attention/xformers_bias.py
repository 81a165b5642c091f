"""`AttentionMask` as the mask objects of xformers, which hold lengths instead of bools.

Packed and cached rows are laid end to end: to xformers they are one row with blocks on its
diagonal. Its objects can write themselves out, on the CPU too, and are tested so against
`AttentionMask.dense`. xformers is imported when a mask is first asked for.
"""

from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .mask import AttentionMask

__all__ = ["xformers_bias"]

# A mask serves all layers of a model: its lists of lengths go to the device once.
_BIASES: WeakKeyDictionary[AttentionMask, dict[tuple[int, ...], Any]] = WeakKeyDictionary()


def xformers_bias(
    mask: AttentionMask, batch: int, q_len: int, kv_len: int, device: torch.device
) -> Any:
    """The mask as an object of xformers, for rows laid end to end if it is packed or cached.

    Args:
        mask: What each query may see.
        batch: Number of rows.
        q_len: Queries of a row.
        kv_len: Keys of a row.
        device: Where its lists of lengths go.

    Returns:
        None for the full mask.
    """
    if mask.documents is None and mask.key_lengths is None:
        return _plain_bias(mask.window) if mask.is_causal else None
    made = _BIASES.setdefault(mask, {})
    key = (q_len, kv_len, -1 if device.index is None else device.index)
    if key not in made:
        made[key] = _bias_of_lengths(mask, batch, q_len, kv_len, device)
    return made[key]


def _plain_bias(window: int | None) -> Any:
    from xformers.ops.fmha import attn_bias as bias

    if window is None:
        return bias.LowerTriangularFromBottomRightMask()
    return bias.LowerTriangularFromBottomRightLocalAttentionMask(window)


def _bias_of_lengths(
    mask: AttentionMask, batch: int, q_len: int, kv_len: int, device: torch.device
) -> Any:
    from xformers.ops.fmha import attn_bias as bias

    if mask.lengths is not None:
        lengths = [length for row in mask.lengths for length in row]
        packed = bias.BlockDiagonalCausalMask.from_seqlens(lengths, device=device)
        return packed if mask.window is None else packed.make_local_attention(mask.window)
    used = cast(Tensor, mask.key_lengths).tolist()
    queries = [q_len] * batch
    if mask.window is None:
        return bias.BlockDiagonalCausalWithOffsetPaddedKeysMask.from_seqlens(
            queries, kv_len, used, device=device
        )
    return bias.BlockDiagonalCausalLocalAttentionPaddedKeysMask.from_seqlens_local(
        queries, kv_len, used, mask.window
    ).to(device)
