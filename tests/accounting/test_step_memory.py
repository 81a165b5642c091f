"""The forecast of a step's memory, beside what the allocator reports of real steps."""

import warnings

import pytest
import torch
from allocations import peak_bytes
from lightning_fabric import Fabric
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from calmkit.accounting.step_memory import MemoryRun, step_memory
from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.experiments import autoencoder_objective
from calmkit.heads import EnergyHead
from calmkit.models import CALM, ChunkEmbedding, TokenLM
from calmkit.nn import distinct
from calmkit.training import MatrixDecayAdamW, Means, TrainingSettings, fit
from calmkit.training.objective import means_of

ROWS, POSITIONS = 8, 48


def calm():
    return CALM(
        autoencoder=MLPAutoencoder(2, 500, 16, width=48),
        input_encoder=ChunkEmbedding(500, 2, 64),
        backbone=TransformerBackbone(64, depth=2, heads=2),
        head=EnergyHead(64, 16, width=64, depth=2),
    )


def token_lm():
    return TokenLM(500, backbone=TransformerBackbone(64, depth=2, heads=2))


def autoencoder():
    return MLPAutoencoder(2, 500, 16, width=48, token_masking=0.15, latent_dropout=0.15)


def batch_of(rows, chunk):
    """Two documents in each row."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(500, (rows, POSITIONS, chunk), generator=generator)
    real = torch.ones_like(tokens, dtype=torch.bool)
    return ChunkBatch(tokens, real, ((20, POSITIONS - 20),) * rows)


def objective(module, batch, generator):
    if isinstance(module, MLPAutoencoder):
        return autoencoder_objective(module, batch, generator)
    loss = module.loss(batch, generator)
    return Means({"loss": loss.total}, loss.counted.sum())


@pytest.mark.parametrize("micro_batch", [None, 2])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(("build", "chunk"), [(calm, 2), (token_lm, 1), (autoencoder, 2)])
def test_the_forecast_is_what_training_allocates(
    monkeypatch, build, chunk, precision, micro_batch
):
    """Within 10 %: weights, gradients, optimiser and activations of several steps.

    All tokens are encoded, as on a GPU; what a CPU saves depends on the text.
    """
    monkeypatch.setattr(distinct, "_FEW", 10**9)
    batch = batch_of(ROWS, chunk)

    def train():
        settings = TrainingSettings(
            steps=2, warmup_steps=0, batch_size=ROWS, micro_batch=micro_batch
        )
        fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
        fit(
            build().float(), objective, lambda step: batch, settings=settings, seed=0,
            fabric=fabric,
        )  # fmt: skip

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a mixed norm is slow on a CPU
        measured = peak_bytes(train)
        micro = batch.rows(slice(micro_batch))
        found = step_memory(
            build().float(),
            lambda outline: means_of(objective(outline, micro, None), micro).values["loss"],
            MatrixDecayAdamW,
            mixed=precision == "bf16-mixed",
            accumulates=micro_batch is not None,
        )
    parts = (
        found.weights, found.gradients, found.optimizer_state, found.activations,
        found.temporaries,
    )  # fmt: skip
    assert 0.9 < sum(parts) / measured < 1.1, (measured, found)


def test_each_kind_of_memory():
    """Float64 weights of a linear layer, by hand."""
    layer = nn.Linear(30, 50, bias=False)
    layer.register_buffer("table", torch.zeros(7))
    x = torch.zeros(4, 30)
    found = step_memory(layer, lambda outline: outline(x).square().sum(), MatrixDecayAdamW)
    assert found.weights == 8 * (30 * 50 + 7)
    assert found.gradients == 8 * 30 * 50
    assert found.optimizer_state == pytest.approx(2 * 8 * 30 * 50, abs=16)  # and a step's number
    # The result of the layer, for the square, and the loss; the input is not the step's own.
    assert found.activations == 8 * (4 * 50 + 1)
    assert found.flops == 2 * 2 * 4 * 30 * 50


@pytest.mark.parametrize("build", [calm, token_lm])
def test_flops_are_those_of_pytorchs_counter(build):
    """Attention in documents this short is matrix products, which the counter knows."""
    module = build()
    batch = batch_of(2, module.chunk_size)
    found = step_memory(
        module, lambda outline: objective(outline, batch, None).values["loss"], MatrixDecayAdamW
    )
    with FlopCounterMode(display=False) as counter:
        objective(module, batch, None).values["loss"].backward()
    assert found.flops == counter.get_total_flops()


@pytest.mark.parametrize("chunk", [1, 4])
def test_a_large_vocabulary_takes_no_logits(chunk):
    """1,024 tokens of 128,257: their logits alone would take 525 MB."""
    vocab, positions = 128_257, 128 // chunk
    if chunk == 1:
        module = TokenLM(vocab, backbone=TransformerBackbone(16, depth=1, heads=2))
    else:
        module = MLPAutoencoder(chunk, vocab, 16, width=16)
    tokens = torch.zeros(ROWS, positions, chunk, dtype=torch.long)
    batch = ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), ((positions,),) * ROWS)
    found = step_memory(
        module.float(),
        lambda outline: means_of(objective(outline, batch, None), batch).values["loss"],
        MatrixDecayAdamW,
    )
    assert found.activations + found.temporaries < 100e6


def test_what_is_recomputed_is_no_work():
    """And needs less memory."""
    layers = nn.ModuleList(
        nn.Sequential(nn.Linear(40, 40), nn.Tanh(), nn.Softplus(), nn.Sigmoid()) for _ in range(6)
    )
    x = torch.zeros(200, 40, requires_grad=True)

    def loss(apply):
        def run(outline):
            hidden = x
            for layer in outline:
                hidden = apply(layer, hidden)
            return hidden.sum()

        return run

    plain, again = (
        step_memory(layers, loss(apply), MatrixDecayAdamW)
        for apply in (
            lambda layer, hidden: layer(hidden),
            lambda layer, hidden: checkpoint(layer, hidden, use_reentrant=False),
        )
    )
    assert again.flops == plain.flops
    assert again.activations < 0.7 * plain.activations


def test_logits_that_are_computed_again_are_no_work(monkeypatch):
    """As for a large vocabulary, whose logits are forgotten after the forward pass."""
    module, batch = token_lm(), batch_of(2, 1)

    def loss(outline):
        return objective(outline, batch, None).values["loss"]

    plain = step_memory(module, loss, MatrixDecayAdamW)
    monkeypatch.setattr("calmkit.nn.vocabulary._LOGITS_AT_ONCE", 2000)
    blocks = step_memory(module, loss, MatrixDecayAdamW)
    assert blocks.flops == plain.flops
    assert blocks.activations < plain.activations


def test_tensors_count_while_they_are_alive():
    with MemoryRun() as run:
        first = torch.zeros(10)
        view = first[2:]
        second = first + 1
        assert run.alive == run.most == 160
        del first
        assert run.alive == 160  # a view keeps all of it
        del view, second
    assert (run.alive, run.most) == (0, 160)


def test_the_module_is_left_alone():
    module = calm()
    before = {name: x.clone() for name, x in module.state_dict().items()}
    batch = batch_of(2, 2)
    step_memory(module, lambda o: objective(o, batch, None).values["loss"], MatrixDecayAdamW)
    for name, x in module.state_dict().items():
        torch.testing.assert_close(x, before[name], rtol=0, atol=0)
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize("name", ["Adafactor", "Adagrad", "Adam", "NAdam", "RMSprop", "SGD"])
def test_the_state_of_other_optimisers(name):
    kind = getattr(torch.optim, name)
    layer = nn.Linear(30, 50)
    x = torch.zeros(4, 30)
    found = step_memory(layer, lambda outline: outline(x).sum(), kind)
    real = kind(layer.parameters())
    layer(x).sum().backward()
    real.step()
    states = [t for state in real.state.values() for t in state.values() if torch.is_tensor(t)]
    assert found.optimizer_state == pytest.approx(sum(t.nbytes for t in states), abs=64)
