"""Bytes that PyTorch's own allocator reports, as the benchmarks measure them."""

import importlib.util

import torch
from benchmark_runs import BENCHMARKS

_SPEC = importlib.util.spec_from_file_location("measuring", BENCHMARKS / "measuring.py")
_measuring = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_measuring)


def peak_bytes(work):
    """Most bytes of tensors alive at once during `work`, on the CPU."""
    return _measuring.peak_bytes(work, torch.device("cpu"))
