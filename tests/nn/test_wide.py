"""Buffers that stay wide: each cast and move, alone and inside of another module."""

import pytest
import torch
from torch import nn

from calmkit.nn import WideBuffers

CASTS = {
    "bfloat16": lambda module: module.bfloat16(),
    "half": lambda module: module.half(),
    "to": lambda module: module.to(torch.bfloat16),
    "to, as of": lambda module: module.to(torch.zeros((), dtype=torch.float16)),
    "type": lambda module: module.type(torch.float16),
}


class Shift(WideBuffers, nn.Linear):
    def __init__(self, dtype=torch.float32):
        super().__init__(2, 2, dtype=dtype)
        self.register_buffer("amount", torch.tensor([1 / 3, 2 / 3], dtype=dtype))
        self.register_buffer("count", torch.tensor(257))
        self.register_buffer("nothing", None)


@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_cast_to_fewer_bits_changes_weights_only(cast, dtype):
    part = Shift(dtype)
    amount, count = part.amount.clone(), part.count.clone()
    cast(nn.Sequential(nn.Sequential(part)))
    assert part.weight.dtype in (torch.bfloat16, torch.float16)
    torch.testing.assert_close(part.amount, amount, rtol=0, atol=0)
    torch.testing.assert_close(part.count, count)
    part.to(dtype)
    torch.testing.assert_close(part.amount, amount, rtol=0, atol=0)


def test_float32_and_float64_are_followed():
    part = Shift()
    assert part.double().amount.dtype == torch.float64
    assert part.float().amount.dtype == torch.float32


def test_what_was_narrow_may_stay_so():
    """As in a model that was saved before."""
    part = Shift(torch.bfloat16)
    assert part.half().amount.dtype == torch.float16
    assert part.float().amount.dtype == torch.float32


def test_moves_are_followed():
    part = Shift().to("meta", torch.bfloat16)
    assert part.amount.is_meta and part.amount.dtype == torch.float32
    assert part.to_empty(device="cpu").amount.device.type == "cpu"


def test_is_still_a_buffer():
    part = Shift().bfloat16()
    assert dict(part.named_buffers()).keys() == {"amount", "count"}
    assert part.state_dict()["amount"].dtype == torch.float32
