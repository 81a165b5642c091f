"""Scaled dot-product attention over the masks of `AttentionMask`.

    softmax(scale * q k^T, over the visible keys) v

Layout (batch, length, heads, head_dim). With fewer key/value heads than query heads, groups of
`heads / kv_heads` neighbouring query heads share one (grouped-query attention).
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from calmkit.attention.mask import AttentionMask
from calmkit.typing import typed

__all__ = ["attention"]


@typed
def attention(
    q: Float[Tensor, "batch q_len heads head_dim"],
    k: Float[Tensor, "batch kv_len kv_heads head_dim"],
    v: Float[Tensor, "batch kv_len kv_heads head_dim"],
    mask: AttentionMask,
    *,
    scale: float | None = None,
) -> Float[Tensor, "batch q_len heads head_dim"]:
    """Attend, on PyTorch's own kernels.

    Args:
        q: Queries: the last `q_len` positions of the keys.
        k: Keys.
        v: Values.
        mask: What each query may see.
        scale: Factor on the scores; `1 / sqrt(head_dim)` if None.

    Raises:
        ValueError: If the heads cannot be grouped, or the mask does not fit rows and lengths.
    """
    heads, kv_heads = q.shape[2], k.shape[2]
    if kv_heads < 1 or heads % kv_heads != 0:
        raise ValueError(f"kv_heads must divide heads; got {kv_heads} and {heads}.")
    if mask.rows not in (None, q.shape[0]):
        raise ValueError(f"mask must be made for the {q.shape[0]} rows of q; it has {mask.rows}.")
    q_len, kv_len = q.shape[1], k.shape[1]
    if mask.is_causal and q_len > kv_len:
        raise ValueError(
            f"q must be the last positions of k under a causal mask; "
            f"got {q_len} queries for {kv_len} keys."
        )
    plain = mask.lengths is None and mask.key_lengths is None and mask.window is None
    # The kernel's own causal mask is aligned top-left: right only where the lengths agree.
    kernel_causal = plain and mask.is_causal and q_len == kv_len
    visible = None
    if not (kernel_causal or (plain and not mask.is_causal)):
        visible = mask.dense(q_len, kv_len, q.device)[:, None]
    out = scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=visible,
        is_causal=kernel_causal,
        scale=scale,
        enable_gqa=heads != kv_heads,
    )
    return out.transpose(1, 2)
