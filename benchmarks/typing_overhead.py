"""What the shape checks of `calmkit.typing.typed` cost on a CPU: least and most.

The model is a CALM with an energy head: K = 2, hidden 128, 4 layers. A *training step* is a
forward and backward pass and an AdamW update on 16 rows of 64 chunks. A *chunk* is one more of a
single row, read into the cache and drawn, where tensors are tiny; `generate` checks its first two
only. The switch is read at import, so there are two processes, one with checks and one without.
They take turns step by step, each first in turn, so that whatever else slows the machine down
slows down both. Seconds are CPU seconds of one thread. The result is the median over pairs of

    (seconds with checks) / (seconds without) - 1.

    python benchmarks/typing_overhead.py --pairs 100 --json overhead.json
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from measuring import print_results

from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.heads import EnergyHead
from calmkit.models import CALM, ChunkEmbedding
from calmkit.sampling import PlainSampler

CHUNK_SIZE, VOCAB_SIZE, LATENT_SIZE, HIDDEN_SIZE = 2, 512, 24, 128
ROWS, POSITIONS = 16, 64
WORKS = ("training step", "chunk")
_CHUNKS = 8  # in one turn: a single one is over before caches are warm


def build_model() -> CALM:
    """The model of the comparison's default preset, in small."""
    torch.manual_seed(0)
    return CALM(
        autoencoder=MLPAutoencoder(CHUNK_SIZE, VOCAB_SIZE, LATENT_SIZE, width=128),
        input_encoder=ChunkEmbedding(VOCAB_SIZE, CHUNK_SIZE, HIDDEN_SIZE),
        backbone=TransformerBackbone(HIDDEN_SIZE, depth=4, heads=4),
        head=EnergyHead(HIDDEN_SIZE, LATENT_SIZE, width=128),
    )


def build_batch(generator: torch.Generator) -> ChunkBatch:
    """Random tokens, two documents packed in each row, as in training."""
    shape = (ROWS, POSITIONS, CHUNK_SIZE)
    return ChunkBatch(
        tokens=torch.randint(VOCAB_SIZE, shape, generator=generator),
        real=torch.ones(shape, dtype=torch.bool),
        lengths=((24, POSITIONS - 24),) * ROWS,
    )


def training_step(model: CALM) -> Callable[[], None]:
    """One step of a training that goes on."""
    generator = torch.Generator().manual_seed(0)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-4)

    def step() -> None:
        model.loss(build_batch(generator), generator).total.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def chunks_of_a_row(model: CALM) -> Callable[[], None]:
    """Some chunks of one row, each drawn after the one before."""
    generator, sampler = torch.Generator().manual_seed(0), PlainSampler()

    @torch.no_grad()
    def write() -> None:
        cache = model.backbone.new_cache(1, _CHUNKS)
        chunk = torch.zeros(1, CHUNK_SIZE, dtype=torch.long)
        for _ in range(_CHUNKS):
            vectors = model.input_encoder(chunk[:, None], torch.ones(1, 1, CHUNK_SIZE).bool())
            state = model.backbone(vectors, cache=cache)[:, 0]
            chunk = sampler(model.draws(state, generator), generator).tokens

    return write


def serve(pipe: Connection) -> None:
    """Do the work that is named, again and again, and send its seconds of CPU time."""
    torch.set_num_threads(1)
    model = build_model()
    works = dict(zip(WORKS, (training_step(model), chunks_of_a_row(model)), strict=True))
    while name := pipe.recv():
        start = time.process_time()
        works[name]()
        pipe.send(time.process_time() - start)


def start_worker(*, checks: bool) -> Connection:
    """A fresh process that works with or without checks."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    os.environ["CALMKIT_TYPECHECK"] = "1" if checks else "0"
    multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True).start()
    return here


def measure(
    workers: tuple[Connection, Connection], name: str, pairs: int, warmup: int = 5
) -> dict[str, float]:
    """What checks add to one kind of work, from a worker with them and one without."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for pair in range(warmup + pairs):
        for kind in (0, 1) if pair % 2 == 0 else (1, 0):
            workers[kind].send(name)
            seconds[kind].append(workers[kind].recv())
    checked, bare = (found[warmup:] for found in seconds)
    ratios = [a / b for a, b in zip(checked, bare, strict=True)]
    quartiles = statistics.quantiles(ratios, n=4)
    number = _CHUNKS if name == "chunk" else 1
    return {
        "overhead": quartiles[1] - 1,
        # Of a median of normal ratios: 1.25 sigma / sqrt(pairs), with sigma = IQR / 1.35.
        "standard_error": 0.93 * (quartiles[2] - quartiles[0]) / len(ratios) ** 0.5,
        "milliseconds_with_checks": 1e3 * statistics.median(checked) / number,
        "milliseconds_without_checks": 1e3 * statistics.median(bare) / number,
    }


def main() -> None:
    """Measure, then print a line for each kind of work and a JSON object."""
    parser = argparse.ArgumentParser(description="Overhead of calmkit's shape checks.")
    parser.add_argument("--pairs", type=int, default=100, help="pairs of each kind of work")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    workers = (start_worker(checks=True), start_worker(checks=False))
    results: dict[str, Any] = {"pairs": args.pairs}
    for name in WORKS:
        found = results[name] = measure(workers, name, args.pairs)
        print(
            f"{name}: {found['milliseconds_with_checks']:.1f} ms with checks, "
            f"{found['milliseconds_without_checks']:.1f} ms without: overhead "
            f"{100 * found['overhead']:+.2f} % (+- {100 * found['standard_error']:.2f})"
        )
    for worker in workers:
        worker.send("")
    print_results(results, torch.device("cpu"), args.json)


if __name__ == "__main__":
    main()
