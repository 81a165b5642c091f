"""Attention on xformers' kernels: NVIDIA GPUs, float16, bfloat16 and float32.

Unlike PyTorch's kernels, it never materialises the masks of packed documents and padded caches,
which are lists of lengths: forward, and for packed documents also backward. xformers is an extra.
It is imported when first needed, since importing it starts CUDA and prints warnings.

A call may be refused even if xformers works. `xformers_refusal` lists what the kernels of xformers
0.0.35 do not support.
"""

import functools
import math
import warnings

import torch
from einops import rearrange
from torch import Tensor

from calmkit.extras import is_installed
from calmkit.private_torch import runs_while_tracing

from .kernel_inputs import kernel_dtype, kernel_inputs
from .mask import AttentionMask
from .xformers_bias import xformers_bias

__all__ = ["xformers_attention", "xformers_missing", "xformers_refusal"]

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@runs_while_tracing
def xformers_missing(device: torch.device) -> str | None:
    """The reason why xformers cannot be used on a device; None if a small test call worked."""
    if device.type != "cuda":
        return f"the tensors are on {device.type}"
    return _probe(device)


@functools.cache
def _probe(device: torch.device) -> str | None:
    if not is_installed("xformers"):
        return "xformers is not installed (pip install 'calmkit[xformers]')"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    try:
        # Importing it uses what Triton and torch call deprecated: no failure where warnings are.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from xformers.ops import memory_efficient_attention

            zeros = torch.zeros(1, 8, 1, 8, dtype=torch.float16, device=device)
            memory_efficient_attention(zeros, zeros, zeros)
    except Exception as error:  # a build for another machine can raise anything
        return f"xformers does not work here: {_cause(error)}"
    return None


def _cause(error: BaseException) -> str:
    """The first line of an error, preferably the one raised when loading xformers' library."""
    try:
        from xformers import _cpp_lib

        found = _cpp_lib._cpp_library_load_exception
    except Exception:
        found = None
    while found is not None:
        error, found = found, found.__cause__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def xformers_refusal(
    q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask, *, dropout: float
) -> str | None:
    """The reason why xformers cannot run a call; None if it can."""
    missing = xformers_missing(q.device)
    if missing is not None:
        return missing
    dtype = kernel_dtype(q)
    if dtype not in _DTYPES:
        return f"{dtype} is not supported, only float16, bfloat16 and float32"
    if q.shape[-1] > 256 and dtype != torch.float32:
        return f"head_dim must be at most 256 in {dtype}; got {q.shape[-1]}"
    if mask.documents is not None and q.shape[1] != k.shape[1]:
        return "packed documents need as many queries as keys"
    if mask.key_lengths is not None and mask.window is not None and dtype == torch.float32:
        return "float32 with a window does not support a padded cache"
    if mask.key_lengths is not None and dropout > 0:
        return "a padded cache does not support dropout"
    if torch.compiler.is_compiling() and not (mask.documents is None and mask.key_lengths is None):
        return "under torch.compile the lengths of documents and caches would be constants"
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return _training_refusal(dtype, mask)
    return None


def _training_refusal(dtype: torch.dtype, mask: AttentionMask) -> str | None:
    if mask.key_lengths is not None:
        return "a padded cache does not support a backward pass"
    if dtype == torch.float32 and mask.window is not None:
        return "float32 with a window does not support a backward pass"
    if dtype == torch.float32 and torch.compiler.is_compiling():
        return "float32 with a backward pass does not compile"
    low = dtype != torch.float32
    if low and mask.documents is not None and torch.are_deterministic_algorithms_enabled():
        return f"the backward pass of packed documents in {dtype} is not deterministic"
    return None


def xformers_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask, *, scale: float | None, dropout: float
) -> Tensor:
    """Compute attention; see `attention`."""
    from xformers.ops import memory_efficient_attention

    batch, q_len, heads, head_dim = q.shape
    kv_len = k.shape[1]
    training = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    q, k, v = kernel_inputs(q, k, v)
    if mask.documents is not None or mask.key_lengths is not None:
        q, k, v = (x.reshape(1, -1, *x.shape[2:]) for x in (q, k, v))
    q, k, v = _grouped(q, k, v, repeat=training)
    out = memory_efficient_attention(
        q,
        k,
        v,
        attn_bias=xformers_bias(mask, batch, q_len, kv_len, q.device),
        p=dropout,
        scale=1 / math.sqrt(head_dim) if scale is None else scale,
    )
    return out.reshape(batch, q_len, heads, -1)[..., :head_dim]


def _grouped(q: Tensor, k: Tensor, v: Tensor, *, repeat: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Assign key/value heads to groups of query heads: a fifth axis, or copies for a backward."""
    groups = q.shape[2] // k.shape[2]
    if groups == 1:
        return q, k, v
    if repeat:
        return q, k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2)
    q = rearrange(q, "b i (kv_heads groups) d -> b i kv_heads groups d", groups=groups)
    k, v = (x[:, :, :, None].expand(-1, -1, -1, groups, -1) for x in (k, v))
    return q, k, v
