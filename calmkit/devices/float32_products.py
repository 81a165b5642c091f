"""Float32 matrix products on the CPU by the faster of PyTorch's two libraries, oneDNN.

PyTorch multiplies float32 matrices by MKL, which takes half of the speed of some processors, among
them AMD's. oneDNN is used only where float32 products may be rounded to bfloat16
(`torch.set_float32_matmul_precision("medium")`). It does round on processors with AMX, and nowhere
else: there it computes in float32. Both are measured, not guessed: one product shows whether its
error is that of float32, and only then does oneDNN take over.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["fast_products"]

_ROUNDING = 1e-5  # of the largest entry: float32 stays below 1e-6, bfloat16 is above 1e-3


@contextmanager
def fast_products(device: torch.device) -> Iterator[None]:
    """Inside the block, float32 products on the CPU are oneDNN's if they are float32's.

    Nothing changes on another device, or if the precision was set before: it is the caller's.
    """
    if device.type != "cpu" or not _untouched() or not _rounds_as_float32():
        yield
        return
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def _untouched() -> bool:
    """Whether products have PyTorch's default precision."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set for single backends
        return False


@functools.cache
def _rounds_as_float32() -> bool:
    """Whether oneDNN is there and, on this processor, rounds no factor to bfloat16."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator("cpu").manual_seed(0)
    x = torch.randn(256, 256, generator=generator, dtype=torch.float32, device="cpu")
    exact = x.double() @ x.double()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", enabled=False):
            error = (x @ x - exact).abs().max() / exact.abs().max()
    finally:
        torch.set_float32_matmul_precision("highest")
    return bool(error < _ROUNDING)
