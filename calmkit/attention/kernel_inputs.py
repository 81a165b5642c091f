"""Queries, keys and values as fused kernels take them.

The kernels ignore autocast and read rows of 16 bytes. Appended zeros change no product, as long as
the scale stays that of the original features.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["kernel_dtype", "kernel_inputs"]

_ROW_BYTES = 16


def kernel_dtype(q: Tensor) -> torch.dtype:
    """The dtype that a kernel computes in: autocast's where enabled, else that of the queries."""
    if torch.is_autocast_enabled(q.device.type):
        return torch.get_autocast_dtype(q.device.type)
    return q.dtype


def kernel_inputs(*inputs: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values in the kernel's dtype, with rows padded to whole 16 bytes."""
    dtype = kernel_dtype(inputs[0])
    extra = -inputs[0].shape[-1] % (_ROW_BYTES // dtype.itemsize)
    return tuple(pad(x.to(dtype), (0, extra)) if extra else x.to(dtype) for x in inputs)
