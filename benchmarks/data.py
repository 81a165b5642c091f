r"""What text costs: preparing it, opening it, making a batch of it, starting a training on it.

- preparation: characters per second of `calmkit prepare` in one process, next to those of
  `tokenizers.encode_batch_fast` alone on the same text and threads;
- peak memory of that process, in MB;
- ready: seconds until `TrainingBatches` is made of the prepared folder, and of simulated offsets
  of 10 billion tokens, and a first batch with it;
- a batch of 64 x 512 x 4 tokens, of documents of about 1,000 and of about 200 tokens each;
- a start of `calmkit train` on the prepared folder against one on the embedded text that lies in
  the cache, in seconds, for four steps of a tiny model each.

    python benchmarks/data.py books/*.parquet --json data.json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import print_results

from calmkit.data import Preparation, TextTokenizer, TokenStore, TrainingBatches, prepare_folder
from calmkit.text import DocumentStream, find_sources

# One thread of the tokenizer on either side of a ratio.
os.environ.setdefault("RAYON_NUM_THREADS", "1")

# What is aimed at.
GOALS = {
    "share of encode_batch_fast": 0.8,
    "peak MB": 600,
    "seconds until ready": 1.0,
    "milliseconds a batch": 3.0,
    "seconds a start is longer": 1.0,
}
BATCH: dict[str, int] = {"chunk_size": 4, "positions": 512, "batch_size": 64, "seed": 0}
TINY = (
    "--training.steps=4", "--training.warmup_steps=1", "--autoencoder_training.steps=4",
    "--autoencoder_training.warmup_steps=1", "--evaluation.rows=4", "--positions=32",
    "--sample_tokens=4", "--accelerator=cpu",
)  # fmt: skip


class EvenOffsets:
    """Offsets of documents of one size, computed where they are read."""

    def __init__(self, documents: int, size: int) -> None:
        self.documents, self.size = documents, size

    def __len__(self) -> int:
        return self.documents + 1

    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return np.arange(*place.indices(len(self))) * self.size
        return (place % len(self)) * self.size

    def searchsorted(self, values: np.ndarray, side: str = "left") -> np.ndarray:
        """As of an array."""
        return values // self.size + 1 if side == "right" else -(-values // self.size)


def simulated(tokens: int, size: int) -> TokenStore:
    """A store of so many tokens that are not there, in documents of one size."""
    offsets: Any = EvenOffsets(tokens // size, size)
    zeros = np.broadcast_to(np.zeros((), np.uint16), tokens // size * size)  # without memory
    return TokenStore(zeros, offsets, 2**16, 0, 0)


def scattered(tokens: int, mean: int) -> TokenStore:
    """A store in memory with documents of `mean` / 2 to 3 `mean` / 2 tokens."""
    generator = np.random.default_rng(0)
    sizes = generator.integers(mean // 2, mean * 3 // 2, tokens // mean)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    ids = generator.integers(0, 8192, offsets[-1]).astype(np.uint16)
    return TokenStore(ids, offsets, 8192, 0, 0)


def seconds_of(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def ready(store: TokenStore) -> float:
    """Seconds from a store to a first batch."""
    return seconds_of(lambda: TrainingBatches(store, **BATCH).batch_at(0))


def milliseconds_a_batch(store: TokenStore, rounds: int) -> dict[str, float]:
    """Of batches one after the other, the first not counted."""
    batches = TrainingBatches(store, **BATCH)
    batches.batch_at(0)
    found = [1000 * seconds_of(lambda s=step: batches.batch_at(s)) for step in range(1, rounds)]
    return {"median": statistics.median(found), "least": min(found), "most": max(found)}


def speed_of_preparing(files: Sequence[str], tokenizer: Path, folder: Path) -> dict[str, float]:
    """Characters per second of preparing and of the tokenizer alone, and the peak of the first."""
    program = (
        "import sys, pathlib, resource, time; from calmkit.text import find_sources; "
        "from calmkit.data import Preparation, prepare_folder; "
        "*files, tokenizer, folder = sys.argv[1:]; "
        "asked = Preparation(sources=find_sources(files), tokenizer=tokenizer); "
        "begun = time.perf_counter(); "
        "made = prepare_folder(asked, pathlib.Path(folder), processes=0); "
        "print(made.train.characters + made.validation.characters, time.perf_counter() - begun, "
        "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)"
    )
    command = [sys.executable, "-c", program, *files, str(tokenizer), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    characters, seconds, peak = map(float, done.stdout.split())
    alone = TextTokenizer.load(tokenizer)._tokenizer
    texts = list(DocumentStream.of_sources(find_sources(list(files)), "text").texts())
    begun = time.perf_counter()
    alone.encode_batch_fast(texts, add_special_tokens=False)
    theirs = sum(map(len, texts)) / (time.perf_counter() - begun)
    ours = characters / seconds
    return {
        "characters per second": ours,
        "encode_batch_fast": theirs,
        "share": ours / theirs,
        "peak MB": peak,
    }


def seconds_of_starts(folder: Path, rounds: int) -> dict[str, float]:
    """Of `calmkit train` for some steps, on embedded text and on a folder, the first left out."""
    with tempfile.TemporaryDirectory() as place:
        found: dict[str, list[float]] = {"embedded text": [], "prepared folder": []}
        for turn in range(rounds + 1):
            for name, data in (("embedded text", ()), ("prepared folder", (f"--data={folder}",))):
                vocabulary = f"--vocab_size={_vocab_size(folder)}" if not data else ""
                options = [*TINY, *data, *([vocabulary] if vocabulary else [])]
                output = f"--output={place}/{turn}-{len(data)}"
                command = [sys.executable, "-m", "calmkit", "train", *options, output]
                environment = {**os.environ, "XDG_CACHE_HOME": place}
                found[name].append(
                    seconds_of(
                        lambda c=command, e=environment: subprocess.run(
                            c, env=e, check=True, capture_output=True
                        )
                    )
                )
    least = {name: min(seconds[1:]) for name, seconds in found.items()}
    return least | {"longer": least["prepared folder"] - least["embedded text"]}


def _vocab_size(folder: Path) -> int:
    """Of the embedded text's tokenizer: what that text gives at most is some thousands."""
    size = json.loads((folder / "manifest.json").read_text())["tokenizer"]["vocab_size"]
    return min(size, 2048)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", help="sources of calmkit prepare")
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--simulated", type=int, default=10**10)
    parser.add_argument("--in-memory", type=int, default=40_000_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        first, folder = Path(place) / "first", Path(place) / "prepared"
        sources = find_sources(args.files)
        prepare_folder(Preparation(sources=sources, tokenizer=f"train:{args.vocab}"), first)
        preparing = speed_of_preparing(args.files, first / "tokenizer.json", folder)
        opened = seconds_of(lambda: ready(TokenStore.open(folder, "train")))
        results: dict[str, Any] = {
            "goals": GOALS,
            "preparing": preparing,
            "seconds until ready": {
                "prepared folder": opened,
                f"{args.simulated:g} tokens, simulated": ready(simulated(args.simulated, 1000)),
            },
            "milliseconds a batch": {
                "prepared folder": milliseconds_a_batch(
                    TokenStore.open(folder, "train"), args.rounds
                ),
                **{
                    f"documents of {mean} tokens": milliseconds_a_batch(
                        scattered(args.in_memory, mean), args.rounds
                    )
                    for mean in (1000, 200)
                },
            },
        }
        if args.starts:
            results["seconds of a start"] = seconds_of_starts(folder, args.starts)
    print_results(results, torch.device("cpu"), args.json)


if __name__ == "__main__":
    main()
