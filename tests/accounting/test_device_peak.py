"""Peaks: data sheets of GPUs, a measurement of a CPU."""

import time

import pytest
import torch

from calmkit.accounting import device_peak, matrix_peak
from calmkit.accounting.device_peak import peak_of_gpu
from calmkit.devices import float32_products


@pytest.mark.parametrize(
    ("name", "mixed", "single"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12, 67e12),
        ("NVIDIA H100 PCIe", 756e12, 51e12),
        ("NVIDIA H100 NVL", 835e12, 60e12),
        ("NVIDIA H200", 989e12, 67e12),
        ("NVIDIA A100-SXM4-80GB", 312e12, 19.5e12),
        ("Some GPU", None, None),
    ],
)
def test_data_sheets(name, mixed, single):
    assert peak_of_gpu(name, mixed=True) == mixed
    assert peak_of_gpu(name, mixed=False) == single


def test_tf32_is_half_of_bfloat16(monkeypatch):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert peak_of_gpu("NVIDIA A100-SXM4-80GB", mixed=False) == 156e12


def test_a_cpu_is_measured_once_and_quickly():
    """No product is faster than the peak, by far."""
    cpu = torch.device("cpu")
    began = time.process_time()
    peak = matrix_peak(cpu)
    assert time.process_time() - began < 1.0
    assert matrix_peak(cpu) == peak
    a = torch.ones(1024, 1024, dtype=torch.float32)
    began = time.perf_counter()
    a @ a
    reached = 2 * 1024**3 / (time.perf_counter() - began)
    assert 1e8 < peak < 1e14
    assert reached < 3 * peak


def test_a_cpu_is_measured_with_the_products_of_a_training(monkeypatch):
    """Else a training could reach more than its peak: MKL takes half of the speed of some CPUs."""
    seen, linear = [], torch.nn.functional.linear

    def watched(x, weight):
        seen.append((torch.get_float32_matmul_precision(), x.dtype))
        return linear(x, weight)

    monkeypatch.setattr(float32_products, "_rounds_as_float32", lambda: True)
    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    monkeypatch.setattr(device_peak, "_SECONDS", 0.0)
    device_peak._measured.__wrapped__(False, 1)
    assert set(seen) == {("medium", torch.float32)}


def test_other_devices_are_unknown():
    assert matrix_peak(torch.device("meta")) is None
