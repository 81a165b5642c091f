"""A tiny model, objective and data for the tests of training; also run as a script.

As a script it trains into the folder given as its argument, slowly, until it is killed.
"""

import sys
import time
from pathlib import Path

import torch
from torch import nn

from calmkit.chunking import ChunkBatch
from calmkit.training import MatrixDecayAdamW, TrainingSettings, fit

VOCAB = 7


class Toy(nn.Module):
    """Every kind of thing a checkpoint must carry: tied and frozen weights, a buffer, dropout."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(VOCAB, 5)
            self.mix = nn.Linear(5, 5)
            self.frozen = nn.Linear(5, 5).requires_grad_(False)
            self.output = nn.Linear(5, VOCAB)
            self.norm = nn.BatchNorm1d(5)
        self.output.weight = self.embedding.weight
        self.dropout = nn.Dropout(0.1)

    def forward(self, tokens, noise):
        hidden = self.dropout(self.embedding(tokens)) + 0.1 * noise
        hidden = self.frozen(torch.tanh(self.mix(hidden)))
        return self.output(self.norm(hidden.flatten(0, -2)))


def objective(module, batch, generator):
    noise = torch.randn((*batch.tokens.shape, 5), generator=generator)
    logits = module(batch.tokens, noise)
    entropy = nn.functional.cross_entropy(logits, batch.tokens.flatten())
    size = module.mix.weight.square().mean()
    return {"loss": entropy + 0.01 * size, "entropy": entropy, "size": size}


def batch_at(step):
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(VOCAB, (4, 3, 2), generator=generator)
    return ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), ((1, 2),) * 4)


def counted_batch(counts, seed=0):
    """Rows of 8 chunks; of row i the last `counts[i]` are scored."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCAB, (len(counts), 8, 2), generator=generator)
    scored = torch.arange(8) >= 8 - torch.tensor(counts)[:, None]
    lengths = ((8,),) * len(counts)
    return ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), lengths, scored)


def optimizer(parameters):
    return MatrixDecayAdamW(parameters, lr=0.02)


def settings(steps=12, **changes):
    defaults = {"warmup_steps": 3, "decay_to": 0.1, "log_every": 5, "checkpoint_every": 4}
    return TrainingSettings(steps, **{**defaults, **changes})


def measure(module):
    """A validation that draws from the global generator, as careless ones do."""
    assert not module.training and not torch.is_grad_enabled()
    return {"weight": float(module.mix.weight.sum() + 0.0 * torch.rand(()))}


def run(module, *, batches=batch_at, aim=objective, **changes):
    arguments = {"settings": settings(), "seed": 1, "optimizer": optimizer, "validate": measure}
    return fit(module, aim, batches, **{**arguments, **changes})


def slow_batch_at(step):
    time.sleep(0.05 if step > 0 else 0.0)
    return batch_at(step)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    run(Toy(), batches=slow_batch_at, directory=Path(sys.argv[1]), settings=settings(300))
