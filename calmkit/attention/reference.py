"""Attention by its formula, in every dtype on every device: the reference for other backends.

    softmax(scale * q k^T, over the visible keys) v

It materialises all scores, (batch, heads, q_len, kv_len), and is meant for tests and small inputs.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import dropout as dropped

from .mask import AttentionMask

__all__ = ["reference_attention"]


def reference_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask, *, scale: float | None, dropout: float
) -> Tensor:
    """Compute attention; see `attention`. A query that sees no key yields zeros."""
    batch, q_len, heads, head_dim = q.shape
    kv_len, kv_heads = k.shape[1:3]
    scale = 1 / math.sqrt(head_dim) if scale is None else scale
    grouped = q.reshape(batch, q_len, kv_heads, heads // kv_heads, head_dim)
    scores = scale * torch.einsum("bikgd,bjkd->bkgij", grouped, k)
    visible = mask.dense(q_len, kv_len, q.device)[:, None, None]
    # The lowest finite number instead of minus infinity keeps rows without a key finite.
    scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1).masked_fill(~visible, 0.0)
    weights = dropped(weights, dropout)
    return torch.einsum("bkgij,bjkd->bikgd", weights, v).reshape(q.shape)
