"""The precision that users have; the suite computes in float64."""

from contextlib import contextmanager

import torch


@contextmanager
def in_float32():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
