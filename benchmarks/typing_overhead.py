"""What the shape checks of `calmkit.typing.typed` cost in a small training step on a CPU.

One step is a forward and backward pass and an AdamW update of a CALM with an energy head: K = 2,
hidden 128, 4 layers, 16 rows of 64 chunks. The switch is read at import, so each measurement is
a process of its own; processes with and without checks alternate, so that a machine that slows
down slows down both. The result is the median over rounds of

    (median step with checks) / (median step without) - 1.

    python benchmarks/typing_overhead.py --rounds 5 --steps 30 --json overhead.json
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
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


def time_steps(steps: int) -> list[float]:
    """Seconds of each of `steps` training steps in this process, after a warm-up."""
    generator = torch.Generator().manual_seed(0)
    model = build_model()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-4)
    seconds = []
    for _ in range(5 + steps):
        start = time.perf_counter()
        model.loss(build_batch(generator), generator).total.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return seconds[5:]


def measure(checks: bool, steps: int) -> float:
    """Median seconds of a step in a fresh process with or without checks."""
    environment = {**os.environ, "CALMKIT_TYPECHECK": "1" if checks else "0"}
    command = [sys.executable, __file__, "--worker", "--steps", str(steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return statistics.median(json.loads(done.stdout))


def main() -> None:
    """Measure and print a table, and a JSON object of the same numbers."""
    parser = argparse.ArgumentParser(description="Overhead of calmkit's shape checks.")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of processes")
    parser.add_argument("--steps", type=int, default=30, help="steps timed in each process")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(time_steps(args.steps)))
        return
    checked, bare = [], []
    for round_ in range(args.rounds):
        # Each kind goes first in turn.
        for checks in (True, False) if round_ % 2 == 0 else (False, True):
            (checked if checks else bare).append(measure(checks, args.steps))
        print(
            f"round {round_}: {1e3 * checked[-1]:.2f} ms with checks, {1e3 * bare[-1]:.2f} ms without"
        )
    ratios = [a / b for a, b in zip(checked, bare, strict=True)]
    result = {
        "overhead": statistics.median(ratios) - 1,
        "overhead_of_each_round": [ratio - 1 for ratio in ratios],
        "seconds_with_checks": checked,
        "seconds_without_checks": bare,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    print(f"overhead of the checks: {100 * result['overhead']:+.2f} % of a step")
    text = json.dumps(result, indent=2)
    print(text)
    if args.json is not None:
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
