"""The peak of a device: FLOPs per second of matrix products, at most.

For known GPUs it is the number of the data sheet, for dense products. For a CPU it is measured,
since it depends on cores, threads and library: the fastest of a few products of square matrices,
by the library that a training takes (`calmkit.devices.fast_products`).
A share of a measured peak says how much of a step is anything but large matrix products.
"""

import functools
import time

import torch

from calmkit.devices import fast_products

__all__ = ["DATA_SHEET", "matrix_peak", "peak_of_gpu"]

DATA_SHEET = {
    # name in `torch.cuda.get_device_name`: bfloat16 with tensor cores, float32 without, in TFLOP/s
    "H200": (989.0, 67.0),
    "GH200": (989.0, 67.0),
    "H100 NVL": (835.0, 60.0),
    "H100 PCIe": (756.0, 51.0),
    "H100": (989.0, 67.0),
    "A100": (312.0, 19.5),
}
"""Peaks of GPUs in TFLOP/s. Source: NVIDIA's data sheets, without sparsity."""

_SIZE = 1024
_SECONDS = 0.2


def matrix_peak(device: torch.device, *, mixed: bool = False) -> float | None:
    """FLOPs per second of one device at most; None for an unknown GPU or another device.

    Args:
        device: The device.
        mixed: Whether matrix products are in bfloat16; else they are in float32.
    """
    if device.type == "cpu":
        return _measured(mixed, torch.get_num_threads())
    if device.type != "cuda":
        return None
    return peak_of_gpu(torch.cuda.get_device_name(device), mixed=mixed)


def peak_of_gpu(name: str, *, mixed: bool) -> float | None:
    """The data sheet's peak; the more specific of several names is the right one."""
    known = max((key for key in DATA_SHEET if key in name), key=len, default=None)
    if known is None:
        return None
    half, single = DATA_SHEET[known]
    if not mixed and torch.get_float32_matmul_precision() != "highest":
        return half / 2 * 1e12  # TF32
    return (half if mixed else single) * 1e12


@functools.lru_cache
def _measured(mixed: bool, threads: int) -> float:
    """The fastest of some products, measured within a fraction of a second."""
    dtype = torch.bfloat16 if mixed else torch.float32
    # A layer's own form, for which the library has its fastest path.
    x, weight = (torch.ones(_SIZE, _SIZE, dtype=dtype) for _ in range(2))
    times, end = [], time.perf_counter() + _SECONDS
    with torch.inference_mode(), fast_products(x.device):
        while len(times) < 2 or time.perf_counter() < end:
            began = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            times.append(time.perf_counter() - began)
    return 2.0 * _SIZE**3 / min(times)
