"""Scaled dot-product attention over the masks of `AttentionMask`.

    softmax(scale * q k^T, over the visible keys) v

The layout is (batch, length, heads, head_dim). With fewer key/value heads than query heads, groups
of `heads / kv_heads` neighbouring query heads share one (grouped-query attention).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.bounds import check_in
from calmkit.typing import typed

from .backends import choose_backend
from .mask import AttentionMask

__all__ = ["attention"]

_CAUSAL = AttentionMask.causal()


@typed
def attention(
    q: Float[Tensor, "batch q_len heads head_dim"],
    k: Float[Tensor, "batch kv_len kv_heads head_dim"],
    v: Float[Tensor, "batch kv_len kv_heads head_dim"],
    mask: AttentionMask = _CAUSAL,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
    backend: str = "auto",
) -> Float[Tensor, "batch q_len heads head_dim"]:
    """Compute attention.

    Args:
        q: Queries, at the last `q_len` positions of the keys.
        k: Keys.
        v: Values.
        mask: The keys that each query may attend to; causal by default.
        scale: Factor on the scores; `1 / sqrt(head_dim)` if None.
        dropout: Probability that a weight is dropped, in [0, 1).
        backend: `auto`, `xformers`, `varlen`, `sdpa`, `reference` or a registered name; see
            `backends`.

    Raises:
        AttentionBackendError: If a backend requested by name cannot run the call.
        ValueError: If the heads cannot be grouped, the mask does not match rows and lengths, the
            dtypes differ outside autocast, or dropout or backend is invalid.
    """
    heads, kv_heads = q.shape[2], k.shape[2]
    if kv_heads < 1 or heads % kv_heads != 0:
        raise ValueError(f"kv_heads must divide heads; got {kv_heads} and {heads}.")
    if mask.rows not in (None, q.shape[0]):
        raise ValueError(f"mask must be made for the {q.shape[0]} rows of q; it has {mask.rows}.")
    if not q.dtype == k.dtype == v.dtype and not torch.is_autocast_enabled(q.device.type):
        raise ValueError(
            f"q, k and v must have one dtype; got {q.dtype}, {k.dtype} and {v.dtype}. "
            "Cast them, or attend under autocast."
        )
    check_in("[0, 1)", dropout=dropout)
    q_len, kv_len = q.shape[1], k.shape[1]
    if mask.is_causal and q_len > kv_len:
        raise ValueError(
            f"q must be the last positions of k under a causal mask; "
            f"got {q_len} queries for {kv_len} keys."
        )
    mask.check_length(kv_len)
    run = choose_backend(backend, q, k, v, mask, dropout=dropout)
    return run(q, k, v, mask, scale=scale, dropout=dropout)
