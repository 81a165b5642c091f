"""What is no weight survives a cast of the whole model, for every exported part.

A weight is rounded by `.bfloat16()`: that is its purpose. Tables, shifts, schedules and sums are
not weights. After a cast there and back they are what they were, to the bit.
"""

import copy
import dataclasses
import tempfile
from pathlib import Path

import pytest
import torch
from autoencoder_instances import AUTOENCODERS, standardized
from backbone_instances import BACKBONES, LLAMA
from head_instances import HEADS, energy_head
from torch import nn

from calmkit.backbones import HuggingFaceBackbone, TransformerBackbone
from calmkit.metrics import BrierLM
from calmkit.models import CALM, ChunkEmbedding, LatentEmbedding, TokenLM
from calmkit.saving import load, save


def llama():
    """One head: with two features in each, its only rate would be 1."""
    settings = LLAMA | {"num_attention_heads": 1, "num_key_value_heads": 1}
    return HuggingFaceBackbone(8, model_type="llama", settings=settings)


def calm():
    autoencoder = standardized()
    return CALM(
        autoencoder=autoencoder,
        input_encoder=LatentEmbedding(autoencoder, 8),
        backbone=llama(),
        head=energy_head(8, 6),
    )


PARTS = {
    **AUTOENCODERS,
    **BACKBONES,
    "HuggingFaceBackbone, one head": llama,
    **{kind.__name__: lambda make=make: make(6, 4) for kind, make in HEADS.items()},
    "BrierLM": lambda: metric(),
    "CALM": calm,
    "ChunkEmbedding": lambda: ChunkEmbedding(11, 3, 8),
    "TokenLM": lambda: TokenLM(11, backbone=TransformerBackbone(8, depth=1, heads=2)),
}


def metric():
    """257 and a third of a token: too many bits for half precision."""
    one = BrierLM(3, 2)
    draws = torch.randint(2, (3, 300, 4), generator=torch.Generator().manual_seed(0))
    one.update(draws, draws[0], document=torch.arange(300) // 290)
    return one


def numbers(part):
    """All floating tensors that are no parameters, by where they are."""
    found, seen = {}, set()

    def visit(x, place):
        if isinstance(x, nn.Parameter) or id(x) in seen:
            return
        seen.add(id(x))
        if isinstance(x, torch.Tensor):
            if x.is_floating_point():
                found[place] = x.clone()
        elif isinstance(x, dict):
            for key, value in x.items():
                visit(value, f"{place}.{key}")
        elif isinstance(x, list | tuple):
            for n, value in enumerate(x):
                visit(value, f"{place}.{n}")
        elif isinstance(x, nn.Module) or dataclasses.is_dataclass(x) or hasattr(x, "__dict__"):
            if type(x).__module__.startswith(("calmkit", "torch.nn", "transformers", __name__)):
                visit(vars(x), place)

    visit(part, type(part).__name__)
    return found


@pytest.mark.parametrize("name", PARTS)
def test_numbers_that_are_no_weights_survive(name):
    part = PARTS[name]().to(torch.get_default_dtype())
    before = numbers(part)
    for cast in (nn.Module.bfloat16, nn.Module.half, lambda x: x.to(torch.bfloat16)):
        there_and_back = nn.Sequential(part)  # a model that holds it
        cast(there_and_back).to(torch.get_default_dtype())
        after = numbers(part)
        assert after.keys() == before.keys()
        for place, tensor in before.items():
            torch.testing.assert_close(
                after[place], tensor, rtol=0, atol=0, msg=lambda text, p=place: f"{p}: {text}"
            )


def test_there_is_something_to_lose():
    """The walk finds what it must: buffers, tables that are not saved, and sums."""
    found = " ".join(numbers(calm()) | numbers(metric()))
    for name in ("shift", "scale", "inv_freq", "hits", "collisions", "counts"):
        assert name in found, name


def test_every_exported_part_is_here():
    known = {name.partition(",")[0] for name in PARTS}
    assert {kind.__name__ for kind in HEADS} <= known
    assert {"HuggingFaceBackbone", "MinGRUBackbone", "StandardizedAutoencoder"} <= known


def test_a_model_in_bfloat16_is_loaded_equal():
    model = calm().bfloat16()
    with tempfile.TemporaryDirectory() as folder:
        save(model, Path(folder) / "model")
        again = load(Path(folder) / "model")
    before, after = numbers(model), numbers(again)
    assert before.keys() == after.keys()
    for place, tensor in before.items():
        assert tensor.dtype == after[place].dtype != torch.bfloat16, place
        torch.testing.assert_close(after[place], tensor, rtol=0, atol=0)
    for (name, one), (_, other) in zip(
        model.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert one.dtype == other.dtype and torch.equal(one, other), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_cast_model_is_as_good_as_its_weights(dtype):
    """The loss of a cast model is that of the model with rounded weights and everything else."""
    tokens = torch.randint(11, (2, 4, 3), generator=torch.Generator().manual_seed(0))
    model = calm().eval()
    rounded = copy.deepcopy(model)
    for parameter in rounded.parameters():
        parameter.data = parameter.data.to(dtype).to(parameter.dtype)
    want = rounded.autoencoder.encode(tokens)
    got = model.to(dtype).autoencoder.encode(tokens)
    assert got.mean.dtype == got.std.dtype == dtype
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(got.mean.double(), want.mean, rtol=tolerance, atol=tolerance)
    logits = model.autoencoder.decode(got.mean)
    assert logits.dtype == dtype and bool(logits.isfinite().all())
