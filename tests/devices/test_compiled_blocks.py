"""Blocks compiled in place: the same numbers, few compilations, and no trace afterwards."""

import copy
import pickle
import shutil

import pytest
import torch
from torch import nn
from torch._dynamo.exc import Unsupported
from torch._dynamo.utils import counters
from torch.testing import assert_close

from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import MinGRUBackbone, TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.devices import check_compiler, compiled_blocks, uncompiled
from calmkit.devices.compiled_blocks import blocks_of, compile_alike
from calmkit.heads import EnergyHead, FlowHead
from calmkit.models import CALM, ChunkEmbedding
from calmkit.private_torch import compiled_call
from calmkit.training import TrainingSettings, fit

PACKINGS = [((7,), (7,)), ((3, 4), (7,)), ((2, 5), (1, 6)), ((7,), (5, 1, 1)), ((1, 6), (7,))]


@pytest.fixture(autouse=True)
def _fresh():
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def build(head=EnergyHead, backbone=TransformerBackbone, **options):
    torch.manual_seed(0)
    return CALM(
        autoencoder=MLPAutoencoder(2, 20, 4, width=8),
        input_encoder=ChunkEmbedding(20, 2, 8),
        backbone=backbone(8, depth=3, **options),
        head=head(8, 4, width=8, depth=2),
    )


def batch_at(step):
    tokens = torch.randint(20, (2, 7, 2), generator=torch.Generator().manual_seed(step))
    return ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), PACKINGS[step % 5])


def train(module, steps=3, **options):
    """The losses of a training of the module."""
    losses = []
    fit(
        module,
        lambda module, batch, generator: {"loss": module.loss(batch, generator).total},
        batch_at,
        settings=TrainingSettings(steps=steps, warmup_steps=0),
        seed=0,
        progress=lambda progress: losses.append(progress.loss),
        **options,
    )
    return losses


PARTS = {
    "energy": {},
    "flow": {"head": FlowHead},
    "recomputed": {"activation_checkpointing": True},
    "minGRU": {"backbone": MinGRUBackbone},
}


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_compiled_trains_to_the_same_weights(parts):
    plain, compiled = build(**parts), build(**parts)
    losses = train(plain)
    with compiled_blocks(compiled, backend="aot_eager"):
        assert_close(train(compiled), losses)
    assert counters["stats"]["unique_graphs"] > 1
    assert_close(dict(compiled.state_dict()), dict(plain.state_dict()))


def test_new_packings_compile_nothing_new():
    model, found = build(), []

    def validate(module):
        found.append(counters["stats"]["unique_graphs"])
        return {"loss": float(model.loss(batch_at(0)).total)}

    with compiled_blocks(model, backend="eager"):
        settings = TrainingSettings(steps=15, warmup_steps=0, validate_every=5)
        fit(
            model,
            lambda module, batch, generator: {"loss": module.loss(batch, generator).total},
            batch_at,
            settings=settings,
            seed=0,
            validate=uncompiled(validate),
        )
    # Layers with one document a row and with several, blocks of the head, and of the encoder.
    assert found[0] == found[1] == found[2] <= 5


class Broken(nn.Module):
    """A block that the compiler cannot trace in one piece."""

    def forward(self, x):
        torch._dynamo.graph_break()
        return x + 1


def test_a_break_of_the_graph_is_an_error():
    """It would pass unseen, and cost more than compiling saves."""
    module = nn.ModuleList([Broken()])
    assert module[0](torch.ones(2)).tolist() == [2.0, 2.0]
    with compiled_blocks(module, backend="eager"), pytest.raises(Unsupported):
        module[0](torch.ones(2))


def test_blocks_are_what_stands_in_lists():
    model = build()
    layers, blocks = list(model.backbone.layers), list(model.head.blocks)
    encoder = model.autoencoder
    residual = [encoder.encoder_token_blocks[0], encoder.encoder_chunk_blocks[0]]
    residual += [encoder.decoder_chunk_blocks[0], encoder.decoder_token_blocks[0]]
    assert {*blocks_of(model)} == {*layers, *blocks, *residual}
    # Neither PyTorch's own layers nor a block's inner lists.
    inner = nn.Sequential(build().head.blocks[0])
    outer = nn.ModuleList([nn.Linear(2, 2), model.backbone])
    assert blocks_of(nn.Sequential(nn.Linear(2, 2), nn.SiLU())) == []
    assert blocks_of(outer) == [model.backbone] and blocks_of(inner) == [inner[0]]


def test_names_and_pickles_are_those_of_the_plain_module():
    model = build()
    names, part = list(model.state_dict()), model.backbone.layers[0]
    with compiled_blocks(model, backend="eager"):
        assert compiled_call(part) is not None
        assert list(model.state_dict()) == names
        assert compiled_call(copy.deepcopy(model).backbone.layers[0]) is None
        compile_alike(twin := copy.deepcopy(model), model)
        assert all(compiled_call(block) is not None for block in blocks_of(twin))
        assert compiled_call(pickle.loads(pickle.dumps(model)).backbone.layers[0]) is None
    assert compiled_call(part) is None


def test_measurements_see_the_plain_module():
    model = build()
    layer = model.backbone.layers[0]
    with compiled_blocks(model, backend="eager"):
        before = compiled_call(layer)
        assert uncompiled(lambda module: compiled_call(layer))(model) is None
        assert compiled_call(layer) is before is not None
        with pytest.raises(KeyError):
            uncompiled(lambda module: {}["missing"])(model)
        assert compiled_call(layer) is before


def test_without_compilation_nothing_changes():
    model = build()
    with compiled_blocks(model, when=False):
        assert compiled_call(model.backbone.layers[0]) is None
        compile_alike(twin := copy.deepcopy(model), model)
        assert compiled_call(twin.backbone.layers[0]) is None


def test_a_missing_compiler_is_told_before_the_first_step(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"found no no-such-compiler\. Install one"):
        check_compiler(torch.device("cpu"))
    check_compiler(torch.device("cuda"))
    monkeypatch.setenv("CXX", "python3")  # any program will do
    check_compiler(torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler of PyTorch needs a C++ one")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_code_trains_to_the_same_weights():
    plain, compiled = build(), build()
    losses = train(plain)
    with compiled_blocks(compiled):
        assert_close(train(compiled), losses)
    assert_close(dict(compiled.state_dict()), dict(plain.state_dict()))
