"""Training on pairs: responses are learnt, prompts are not asked for, a stopped run resumes."""

import dataclasses

import numpy as np
import pytest
import torch

from calmkit.autoencoders import MLPAutoencoder, StandardizedAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.heads import EnergyHead
from calmkit.models import CALM, ChunkEmbedding
from calmkit.pairs import PairBatches, PairStore, TokenPair
from calmkit.training import CheckpointError, MatrixDecayAdamW, TrainingSettings, fit

VOCAB, K, END = 12, 2, 0
# Prompts that differ in order alone, an even and an odd one; responses of many lengths.
PAIRS = [
    TokenPair(np.array([END, *prompt]), np.array(response))
    for prompt, response in [
        ((1, 2), [3, 4, 5]), ((2, 1), [6, 7]), ((3, 3, 3), [8, 9, 10, 11]),
        ((4, 1, 1), [5]), ((1, 5), [11, 11, 2]), ((6, 6), [1, 9, 4, 3, 7]),
    ]
]  # fmt: skip


def chunks_at(step):
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(VOCAB, (16, 4, K), generator=generator)
    return ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), ((4,),) * 16)


def reconstruction(module, batch, generator):
    return {"loss": module.loss(batch.tokens, generator).total.mean()}


def train(module, objective, batch_at, *, steps, rate, **arguments):
    return fit(
        module, objective, batch_at, seed=0,
        settings=TrainingSettings(steps=steps, warmup_steps=5, decay_to=0.0, checkpoint_every=3),
        optimizer=lambda parameters: MatrixDecayAdamW(parameters, lr=rate),
        **arguments,
    )  # fmt: skip


@pytest.fixture(scope="module")
def autoencoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inner = MLPAutoencoder(K, VOCAB, 8, width=16)
    train(inner, reconstruction, chunks_at, steps=150, rate=0.02)
    whole = StandardizedAutoencoder(inner.eval())
    tokens = chunks_at(999).tokens.flatten(0, 1)
    whole.fit(tokens)
    assert torch.equal(whole.decode_tokens(whole.encode(tokens).mean), tokens)
    return whole


def new_model(autoencoder, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CALM(
            autoencoder=autoencoder,
            input_encoder=ChunkEmbedding(VOCAB, K, 16),
            backbone=TransformerBackbone(16, depth=2, heads=2),
            head=EnergyHead(16, 8, width=32, depth=2, num_samples=4),
        ).eval()


def batches(pairs=PAIRS, seed=0):
    return PairBatches(
        PairStore.of(pairs), chunk_size=K, positions=8, batch_size=8, seed=seed, end_id=END
    )


def objective(module, batch, generator):
    return {"loss": module.loss(batch, generator).total}


def hits(model, repeats=10):
    """How many of the responses are written exactly, and ended."""
    written = model.generate(
        [pair.prompt.tolist() for pair in PAIRS] * repeats,
        max_new_tokens=6, eos_id=END, generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    wanted = [pair.response.tolist() for pair in PAIRS] * repeats
    return sum(
        one.tokens == want and one.finish_reason == "stop"
        for one, want in zip(written, wanted, strict=True)
    )


def test_responses_are_reproduced_after_training(autoencoder):
    model = new_model(autoencoder)
    before = hits(model)
    frozen = {name: x.clone() for name, x in autoencoder.state_dict().items()}
    result = train(model, objective, batches().batch_at, steps=150, rate=5e-3)
    # Measured for ten seeds of the weights: 0 of 60 before, 60 after, losses fall to 0.05 to 0.06.
    assert before <= 2 and hits(model) >= 55
    assert result.losses[-1][1] < 0.15 * result.losses[0][1]
    torch.testing.assert_close(autoencoder.state_dict(), frozen, rtol=0, atol=0)


class Stop(Exception):
    pass


def test_stopped_and_resumed_equals_never_stopped(autoencoder, tmp_path):
    whole, resumed = new_model(autoencoder), new_model(autoencoder, seed=5)
    train(whole, objective, batches().batch_at, steps=9, rate=5e-3)
    pairs = batches()

    def stopping(step):
        if step == 5:
            raise Stop
        return pairs.batch_at(step)

    with pytest.raises(Stop):
        train(new_model(autoencoder), objective, stopping, steps=9, rate=5e-3, directory=tmp_path)
    train(resumed, objective, batches().batch_at, steps=9, rate=5e-3, directory=tmp_path)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_another_loss_mask_is_another_run(autoencoder, tmp_path):
    arguments = {"steps": 5, "rate": 5e-3, "directory": tmp_path}
    settled = batches().batch_at(0)
    train(new_model(autoencoder), objective, lambda step: settled, **arguments)
    for scored in (None, torch.ones_like(settled.scored)):
        other = dataclasses.replace(settled, scored=scored)
        with pytest.raises(CheckpointError, match="first batch must be as in checkpoint"):
            train(new_model(autoencoder), objective, lambda step, x=other: x, **arguments)
