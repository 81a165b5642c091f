"""Packed documents on PyTorch's flash attention for sequences of varying length.

`varlen_attn` takes all rows laid end to end and a tensor of the positions where documents start.
No mask is materialised, documents cost what they are long, and one compiled graph serves every
packing: their number and lengths are data. It needs an NVIDIA GPU of compute capability 8.0 or
higher and 16 bits.
"""

import inspect
import math
from typing import Any, cast

import torch
from torch import Tensor

from calmkit.private_torch import in_transform, runs_while_tracing

from .kernel_inputs import kernel_dtype, kernel_inputs
from .mask import AttentionMask

__all__ = ["varlen_attention", "varlen_missing", "varlen_refusal"]


@runs_while_tracing
def varlen_missing(device: torch.device) -> str | None:
    """The reason why the kernel cannot be used on a device; None if it can."""
    if device.type != "cuda":
        return f"the tensors are on {device.type}"
    if not _has_kernel():
        return f"torch {torch.__version__} has no varlen_attn with scale and window_size"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return f"{torch.cuda.get_device_name(device)} is older than compute capability 8.0"
    return None


def _has_kernel() -> bool:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return {"scale", "window_size"} <= set(inspect.signature(varlen_attn).parameters)


def varlen_refusal(
    q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask, *, dropout: float
) -> str | None:
    """The reason why the kernel cannot run a call; None if it can."""
    missing = varlen_missing(q.device)
    if missing is not None:
        return missing
    if mask.documents is None or q.shape[1] != k.shape[1]:
        return "it is made for packed documents, with as many queries as keys"
    dtype = kernel_dtype(q)
    if dtype not in (torch.float16, torch.bfloat16):
        return f"{dtype} is not supported, only float16 and bfloat16"
    if q.shape[-1] > 256:
        return f"head_dim must be at most 256; got {q.shape[-1]}"
    if dropout > 0:
        return "dropout is not supported"
    if in_transform():
        return "transforms of torch.func are not supported"
    return None


def varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask, *, scale: float | None, dropout: float
) -> Tensor:
    """Compute attention; see `attention`."""
    from torch.nn.attention.varlen import varlen_attn

    batch, length, heads, head_dim = q.shape
    groups = heads // k.shape[2]
    if groups > 1:
        k, v = (x.repeat_interleave(groups, dim=2) for x in (k, v))
    starts = cast(Tensor, mask.starts).to(q.device)
    # No document is longer than its row. The longest itself would be a constant of the graph.
    out: Any = varlen_attn(
        *(x.flatten(0, 1) for x in kernel_inputs(q, k, v)),
        cu_seq_q=starts,
        cu_seq_k=starts,
        max_q=length,
        max_k=length,
        scale=1 / math.sqrt(head_dim) if scale is None else scale,
        window_size=(-1 if mask.window is None else mask.window - 1, 0),
    )
    return out.unflatten(0, (batch, length))[..., :head_dim]
