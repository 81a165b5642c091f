"""Modules are built without memory, and without the work that their numbers would be."""

import torch
from torch import nn

from calmkit.backbones import TransformerBackbone
from calmkit.nn import without_memory
from calmkit.private_torch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """Notes the names of all that run."""

    def __enter__(self):
        self.names = []
        return super().__enter__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class Reader(nn.Module):
    """Reads one of its numbers: it cannot be built without memory."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3).normal_())
        self.first = self.weight[0].item()


def test_no_normal_numbers_are_drawn_for_tensors_without_memory():
    """PyTorch would work out their shape in Python, for which it loads its compiler."""
    with Operations() as seen:
        model = without_memory(lambda: TransformerBackbone(8, depth=2, heads=2))
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert "empty" in seen.names and "normal_" not in seen.names


def test_a_constructor_that_reads_its_numbers_is_run_with_memory():
    state = torch.get_rng_state()
    part = without_memory(Reader)
    assert part.first == part.weight[0].item() != 0
    assert torch.equal(torch.get_rng_state(), state)


def test_tensors_with_memory_get_their_numbers():
    part = without_memory(lambda: nn.ParameterList([torch.zeros(9, device="cpu").normal_()]))
    assert not part[0].is_meta and part[0].abs().min() > 0
