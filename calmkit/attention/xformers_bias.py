"""`AttentionMask` as the mask objects of xformers, which hold lengths instead of booleans.

Packed and cached rows are laid end to end: to xformers they are one row with a block-diagonal
mask. Its objects can be materialised, also on the CPU, and are thus tested against
`AttentionMask.dense`. xformers is imported on first use.
"""

from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .mask import AttentionMask

__all__ = ["xformers_bias"]

# All layers of a model share a mask: its lists of lengths are copied to the device once.
_BIASES: WeakKeyDictionary[AttentionMask, dict[tuple[int, ...], Any]] = WeakKeyDictionary()


def xformers_bias(
    mask: AttentionMask, batch: int, q_len: int, kv_len: int, device: torch.device
) -> Any:
    """The mask as an object of xformers, for rows laid end to end if it is packed or cached.

    Args:
        mask: The keys that each query may attend to.
        batch: Number of rows.
        q_len: Number of queries of a row.
        kv_len: Number of keys of a row.
        device: Device of its lists of lengths.

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
