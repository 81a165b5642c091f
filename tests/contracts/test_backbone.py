"""The suite of backbones over all exported ones, and what our own promise besides."""

import pytest
import torch
from backbone_instances import BACKBONES
from exported import exported_finals
from torch._dynamo.testing import CompileCounterWithBackend

from calmkit import backbones
from calmkit.attention import AttentionMask
from calmkit.backbones import Backbone
from calmkit.testing import parametrize_contracts

HIDDEN = 8


@pytest.fixture(params=BACKBONES)
def model(request):
    torch.manual_seed(0)
    return BACKBONES[request.param]()


def vectors(batch, positions, seed=0, size=HIDDEN):
    return torch.randn(batch, positions, size, generator=torch.Generator().manual_seed(seed))


def test_no_exported_backbone_escapes():
    covered = {type(make()).__name__ for make in BACKBONES.values()}
    assert covered == exported_finals(backbones, Backbone)


@parametrize_contracts(
    "backbone",
    {name: lambda hidden, make=make: make() for name, make in BACKBONES.items()},
    profile="quick",
)
def test_contract(check):
    check()


def gradients(model, run, x, mask=None):
    """Of a random functional: the states' squares add up to a constant behind the last norm."""
    (run(x, mask) * vectors(*x.shape[:2], seed=1)).sum().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    return found


# Root mean square of the error over that of the states, after two layers. bfloat16 keeps 8 bits:
# one rounding is off by up to 0.4 per cent, and 0.4 to 0.8 were measured over eight seeds.
ERROR = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 0.015}


def relative_error(got, want):
    return ((got.double() - want).norm() / want.norm()).item()


@pytest.mark.parametrize("dtype", ERROR)
@torch.no_grad()
def test_dtypes(model, dtype):
    """Plain and through a cache, states keep the dtype and stay close to those of float64."""
    want = model(vectors(2, 5))
    low, x = model.to(dtype), vectors(2, 5).to(dtype)
    cache = low.new_cache(2, 5)
    plain = low(x)
    cached = torch.cat([low(part, cache=cache) for part in x.split((3, 1, 1), dim=1)], dim=1)
    assert plain.dtype == cached.dtype == dtype
    assert relative_error(plain, want) <= ERROR[dtype]
    assert relative_error(cached, want) <= ERROR[dtype]


def test_gradients_in_bfloat16_stay_close(model):
    """All parameters' together. Measured over six seeds: 0.7 to 2.7 per cent."""
    x, mask = vectors(2, 6), AttentionMask.packed([(2, 4), (6,)])
    want = gradients(model, model, x, mask)
    got = gradients(model, model.bfloat16(), x.bfloat16(), mask)
    assert {gradient.dtype for gradient in got.values()} == {torch.bfloat16}
    together = [torch.cat([part.flatten() for part in found.values()]) for found in (got, want)]
    assert relative_error(*together) < 0.04


# PyTorch says that its norm is not fused where autocast mixes dtypes: slower, not wrong.
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")
@torch.no_grad()
def test_autocast(model):
    model = model.float()
    x = vectors(2, 5).float()
    want = model(x).double()
    cache = model.new_cache(2, 5)
    with torch.autocast("cpu", torch.bfloat16):
        plain, cached = model(x), model(x, cache=cache)
    assert 1e-4 < relative_error(plain, want) < ERROR[torch.bfloat16]
    assert relative_error(cached, want) < ERROR[torch.bfloat16]


def test_training_compiles_to_one_graph(model):
    """Forward and backward; another packing of the same shape needs no other graph."""
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    x = vectors(2, 6)
    for lengths in ([(2, 4), (6,)], [(1, 3, 2), (3, 3)]):
        mask = AttentionMask.packed(lengths)
        torch.testing.assert_close(
            gradients(model, compiled, x, mask), gradients(model, model, x, mask)
        )
    assert counter.frame_count == 1


@torch.no_grad()
def test_a_decode_step_compiles_and_serves_every_length(model):
    """The first step fixes the number of used positions in its graph, the second frees it."""
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    x = vectors(2, 8)
    prompt = model.new_cache(2, 8)
    model(x[:, :3], cache=prompt)
    cache = prompt.select(torch.arange(2), torch.tensor([3, 1]))  # rows of different lengths
    rows = [x[row, start : start + 5] for row, start in enumerate((3, 1))]
    states = [compiled(step, cache=cache) for step in torch.stack(rows).split(1, dim=1)]
    got = torch.cat(states, dim=1)
    torch.testing.assert_close(got[0], model(x)[0, 3:])
    torch.testing.assert_close(got[1], model(x)[1, 1:6])
    assert counter.frame_count == 2
