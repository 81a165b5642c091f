"""Attention on PyTorch's own kernels: every device, dtype and mask, forward and backward.

Packed documents are computed one after the other, each with the kernel's own causal mask, so that
work and memory are those of the documents, not of the row. A compiled graph cannot depend on their
lengths. There, and for windows and padded keys, the mask is a boolean tensor.

The kernel of the CPU is made for long rows. Short ones, in training, are computed by plain
products with all scores in memory, in a half to a quarter of the time.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import dropout as dropped
from torch.nn.functional import scaled_dot_product_attention

from .mask import AttentionMask

__all__ = ["needs_no_mask", "sdpa_attention"]

# Longest row that plain products compute faster, by the bytes of a number.
_SHORT = {2: 256, 4: 128, 8: 128}


def needs_no_mask(mask: AttentionMask, q_len: int, kv_len: int) -> bool:
    """Whether the kernels attend as a mask says without a tensor: to all keys, or causally.

    Their own causal mask is aligned top-left: correct only if the lengths are equal.
    """
    return mask.is_plain and (not mask.is_causal or q_len == kv_len)


def sdpa_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask, *, scale: float | None, dropout: float
) -> Tensor:
    """Compute attention; see `attention`."""
    # (batch, length, heads, head_dim) -> (batch, heads, length, head_dim)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if mask.lengths is not None and q.shape[2] == k.shape[2] and not torch.compiler.is_compiling():
        out = _by_document(q, k, v, mask, scale, dropout)
    else:
        out = _kernel(q, k, v, mask, scale, dropout)
    return out.transpose(1, 2)


def _by_document(
    q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask, scale: float | None, dropout: float
) -> Tensor:
    alone = AttentionMask.causal(mask.window)
    rows = []
    for row, lengths in enumerate(mask.lengths or ()):
        documents = zip(*(x[row : row + 1].split(lengths, dim=2) for x in (q, k, v)), strict=True)
        parts = [_kernel(*d, mask=alone, scale=scale, dropout=dropout) for d in documents]
        rows.append(torch.cat(parts, dim=2))
    return torch.cat(rows)


def _kernel(
    q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask, scale: float | None, dropout: float
) -> Tensor:
    q_len, kv_len = q.shape[2], k.shape[2]
    unmasked = needs_no_mask(mask, q_len, kv_len)
    kernel_causal = unmasked and mask.is_causal
    if kernel_causal and _is_short(q, k):
        return _by_products(q, k, v, scale, dropout)
    visible = None if unmasked else mask.dense(q_len, kv_len, q.device)[:, None]
    return scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=visible,
        dropout_p=dropout,
        is_causal=kernel_causal,
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )


def _is_short(q: Tensor, k: Tensor) -> bool:
    # Compiled, the gradient of the products fails for backends other than Inductor.
    if torch.compiler.is_compiling() or q.device.type != "cpu":
        return False
    return (
        q.requires_grad
        and q.shape[1] == k.shape[1]
        and q.shape[2] <= _SHORT.get(q.element_size(), 0)
    )


def _by_products(q: Tensor, k: Tensor, v: Tensor, scale: float | None, dropout: float) -> Tensor:
    """Causal attention of a row to itself, by its formula."""
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    later = q.new_full((q.shape[2], q.shape[2]), -torch.inf).triu(1)
    queries, keys, values = (x.flatten(0, 1) for x in (q, k, v))
    # A product adds the mask for nothing, and the softmax sums in float32 whatever its result.
    scores = torch.baddbmm(later, queries, keys.mT, alpha=scale)
    return (dropped(scores.softmax(dim=-1), dropout) @ values).unflatten(0, q.shape[:2])
