"""oneDNN's float32 products: taken only where they are as exact, and only inside the block."""

import pytest
import torch
from torch.testing import assert_close

from calmkit.training import fast_products, float32_products

CPU = torch.device("cpu")


def precision():
    return torch.get_float32_matmul_precision()


@pytest.fixture
def as_exact(monkeypatch):
    """What the probe finds, whatever the processor."""

    def say(found):
        monkeypatch.setattr(float32_products, "_rounds_as_float32", lambda: found)

    return say


def test_products_inside_are_float32():
    x = torch.randn(300, 200, dtype=torch.float32)
    y = torch.randn(200, 100, dtype=torch.float32)
    exact = x.double() @ y.double()
    with fast_products(CPU):
        found = x @ y
    # bfloat16 would be off by 1e-2.
    assert_close(found.double(), exact, rtol=0, atol=1e-4)


def test_the_setting_is_the_blocks_alone(as_exact):
    as_exact(True)
    assert precision() == "highest"
    with fast_products(CPU):
        assert precision() == "medium"
    assert precision() == "highest"
    with pytest.raises(KeyError), fast_products(CPU):
        raise KeyError
    assert precision() == "highest"


def test_rounded_products_are_refused(as_exact):
    as_exact(False)
    with fast_products(CPU):
        assert precision() == "highest"


def test_another_device_keeps_its_products(as_exact):
    as_exact(True)
    with fast_products(torch.device("cuda")):
        assert precision() == "highest"


def test_a_setting_of_the_user_is_kept(as_exact):
    as_exact(True)
    torch.set_float32_matmul_precision("high")
    try:
        with fast_products(CPU):
            assert precision() == "high"
        assert precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_probe_sees_bfloat16(monkeypatch):
    probe = float32_products._rounds_as_float32.__wrapped__

    def rounded(x, y):
        return (x.bfloat16().double() @ y.bfloat16().double()).to(x.dtype)

    plain = torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor,
        "__matmul__",
        lambda x, y: rounded(x, y) if x.dtype == torch.float32 else plain(x, y),
    )
    assert not probe()
    assert precision() == "highest"
