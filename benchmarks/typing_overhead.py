"""What the shape checks of `calmkit.typing.typed` cost in a small training step on a CPU.

One step is a forward and backward pass and an AdamW update of a CALM with an energy head: K = 2,
hidden 128, 4 layers, 16 rows of 64 chunks. The switch is read at import, so there are two
processes, one with checks and one without. They take turns step by step, each first in turn, so
that whatever else slows the machine down slows down both. Seconds are CPU seconds of one thread.
The result is the median over pairs of

    (seconds with checks) / (seconds without) - 1.

    python benchmarks/typing_overhead.py --pairs 100 --json overhead.json
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.heads import EnergyHead
from calmkit.models import CALM, ChunkEmbedding

CHUNK_SIZE, VOCAB_SIZE, LATENT_SIZE, HIDDEN_SIZE = 2, 512, 24, 128
ROWS, POSITIONS = 16, 64


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


def work(pipe: Connection) -> None:
    """Train one step for each True received, and send its seconds of CPU time."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    model = build_model()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-4)
    while pipe.recv():
        start = time.process_time()
        model.loss(build_batch(generator), generator).total.backward()
        optimizer.step()
        optimizer.zero_grad()
        pipe.send(time.process_time() - start)


def start_worker(*, checks: bool) -> Connection:
    """A fresh process that trains with or without checks."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    os.environ["CALMKIT_TYPECHECK"] = "1" if checks else "0"
    multiprocessing.get_context("spawn").Process(target=work, args=(there,), daemon=True).start()
    return here


def measure(pairs: int, warmup: int = 5) -> tuple[list[float], list[float]]:
    """Seconds of each step with checks, and of its neighbour without."""
    workers = (start_worker(checks=True), start_worker(checks=False))
    seconds: tuple[list[float], list[float]] = ([], [])
    for pair in range(warmup + pairs):
        for kind in (0, 1) if pair % 2 == 0 else (1, 0):
            workers[kind].send(True)
            seconds[kind].append(workers[kind].recv())
    for worker in workers:
        worker.send(False)
    return seconds[0][warmup:], seconds[1][warmup:]


def main() -> None:
    """Measure, then print one line and a JSON object."""
    parser = argparse.ArgumentParser(description="Overhead of calmkit's shape checks.")
    parser.add_argument("--pairs", type=int, default=100, help="pairs of steps")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    checked, bare = measure(args.pairs)
    ratios = sorted(a / b for a, b in zip(checked, bare, strict=True))
    quartiles = statistics.quantiles(ratios, n=4)
    result = {
        "overhead": quartiles[1] - 1,
        # Of a median of normal ratios: 1.25 sigma / sqrt(pairs), with sigma = IQR / 1.35.
        "standard_error": 0.93 * (quartiles[2] - quartiles[0]) / len(ratios) ** 0.5,
        "milliseconds_with_checks": 1e3 * statistics.median(checked),
        "milliseconds_without_checks": 1e3 * statistics.median(bare),
        "pairs": args.pairs,
        "threads": 1,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    print(
        f"{result['milliseconds_with_checks']:.1f} ms with checks, "
        f"{result['milliseconds_without_checks']:.1f} ms without: overhead "
        f"{100 * result['overhead']:+.2f} % (+- {100 * result['standard_error']:.2f})"
    )
    text = json.dumps(result, indent=2)
    print(text)
    if args.json is not None:
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
