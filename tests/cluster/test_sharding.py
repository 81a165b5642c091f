"""What is gathered at a time, and what stays whole, in a group of one process."""

import pytest
import torch
from calm_models import energy_head, tiny
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from calmkit.backbones import TransformerBackbone
from calmkit.cluster import copy_whole, sharding, units_of
from calmkit.models import TokenLM


def softmax(*, tied):
    backbone = TransformerBackbone(8, depth=3, heads=2)
    return TokenLM(7, backbone=backbone, tie_embeddings=tied)


@pytest.fixture
def mesh():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def test_units_are_layers_head_and_embeddings():
    model = tiny(build_head=energy_head)
    want = {*model.backbone.layers, model.head, model.input_encoder}
    assert {*units_of(model)} == want
    assert {*units_of(nn.Sequential(model))} == want
    assert units_of(nn.Linear(2, 2)) == []


def test_a_tied_embedding_belongs_to_the_rest():
    plain, tied = softmax(tied=False), softmax(tied=True)
    assert {*units_of(plain)} == {*plain.backbone.layers, plain.input_encoder}
    assert {*units_of(tied)} == {*tied.backbone.layers}


def test_units_are_sharded_and_frozen_weights_are_not(mesh):
    model = tiny(build_head=energy_head)
    units, trained = {*units_of(model)}, [p.requires_grad for p in model.parameters()]
    assert not all(trained)
    caller = nn.Sequential(model)
    sharding._shard(caller, mesh)
    sharded = {part for part in caller.modules() if isinstance(part, FSDPModule)}
    assert sharded == {*units, caller}
    assert [isinstance(p, DTensor) for p in model.parameters()] == trained
    assert all(torch.isfinite(p.to_local()).all() for p in model.head.parameters())


def test_neighbours_of_one_dtype_share_an_exchange(mesh, monkeypatch):
    """As many as fit. Those of several processes, with unequal shares, are tested with `fit`."""
    monkeypatch.setattr(sharding, "_BYTES_AT_ONCE", 200)
    shapes = [(3, 2), (5,), (7, 2), (40,), (2, 1), (4,), (3,)]
    dtypes = [torch.float64] * 5 + [torch.float32] * 2
    pairs = zip(shapes, dtypes, strict=True)
    plain = [torch.randn(shape, dtype=dtype) for shape, dtype in pairs]
    sharded = [distribute_tensor(tensor, mesh, [Shard(0)]) for tensor in plain]
    calls, gather = [], distributed.all_gather

    def counting(found, own, **arguments):
        calls.append(own.numel())
        return gather(found, own, **arguments)

    monkeypatch.setattr(distributed, "all_gather", counting)
    sources, wanted = [plain[0], *sharded, plain[1]], [plain[0], *plain, plain[1]]
    targets = [torch.zeros_like(tensor) for tensor in wanted]
    copy_whole(zip(sources, targets, strict=True))
    torch.testing.assert_close(targets, wanted, rtol=0, atol=0)
    assert calls == [6 + 5 + 14, 4 + 3]  # the tensor of 320 bytes, and that after it, are alone
