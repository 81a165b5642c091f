"""Seconds and bytes of a chunk at a temperature against the published procedure."""

import argparse
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from agreement import LEVELS, agreeing_head, agreement, build_autoencoder
from measuring import interleaved_seconds, peak_bytes, times_faster
from published_generation import PublishedDraw, choose_with_counter, counter_weights
from torch import Generator, Tensor

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.heads import EnergyHead
from calmkit.models.draws import ChunkDraws, LatentChunks
from calmkit.sampling import BatchTemperature, ExactTemperature, Sampler
from calmkit.sampling.candidates import Candidates
from calmkit.sampling.weights import count_weights

__all__ = ["POWER", "TEMPERATURE", "compare_chunks", "samplers"]

# How many times faster than the published procedure, and how many times less memory.
GOALS = {"small": 4.0, "large": 6.0, "bytes": 8.0}
POWER = 2
TEMPERATURE = 1 / POWER


def samplers(args: argparse.Namespace) -> dict[str, Sampler]:
    """The batch algorithm, whose law is the published one, and the exact one."""
    batch = BatchTemperature(TEMPERATURE, args.candidates)
    exact = ExactTemperature(TEMPERATURE, max_draws=args.candidates, fallback=batch)
    return {"batch": batch, "exact": exact}


def compare_chunks(args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """One chunk for each row, from its state, at each vocabulary and level of agreement."""
    found = []
    for size, vocab_size, rows in (
        ("small", args.vocab, args.rows),
        ("large", args.large_vocab, 1),
    ):
        states = torch.randn(rows, args.hidden, device=device, dtype=torch.float32)
        for level, wanted in LEVELS.items():
            autoencoder = build_autoencoder(args, vocab_size, device, level)
            head = agreeing_head(args, autoencoder, states[:4], wanted)
            row = compare_samplers(args, head, autoencoder, states)
            middle = level == "middle"
            found.append(
                {
                    "vocabulary": vocab_size,
                    "rows": rows,
                    "agreement": level,
                    **row,
                    "times_faster_wanted": GOALS[size] if middle else None,
                    "times_smaller_wanted": GOALS["bytes"] if middle else None,
                }
            )
    return found


def compare_samplers(
    args: argparse.Namespace, head: EnergyHead, autoencoder: ChunkAutoencoder, states: Tensor
) -> dict[str, Any]:
    """Ours and the published procedure after the same states, measured in turns."""
    device = states.device
    generator, rng = Generator(device).manual_seed(0), random.Random(0)
    latents = head.sample(states, args.candidates, generator).detach()
    endings = agreement(autoencoder.decode_tokens(latents))
    draws = ChunkDraws(head, autoencoder, states, generator)
    published = PublishedDraw.of(head, autoencoder)

    def choose(sampler: Sampler) -> None:
        sampler(draws, generator)

    def choose_as_published() -> None:
        choose_with_counter(published(states, args.candidates, generator), POWER, rng)

    ours = samplers(args)
    works: dict[str, Callable[[], None]] = {k: partial(choose, s) for k, s in ours.items()}
    works["published"] = choose_as_published
    seconds = interleaved_seconds(works, args.rounds, device, clock=args.clock)
    size = {key: peak_bytes(works[key], device) for key in ("batch", "published")}
    return {
        "collision_probability": endings[-1],
        "equal_endings": endings,
        "law_difference": law_difference(autoencoder, latents),
        "draws": {k: float(s(draws, generator).draws.double().mean()) for k, s in ours.items()},
        "milliseconds": {k: 1e3 * statistics.median(v) for k, v in seconds.items()},
        "megabytes": {k: v / 1e6 for k, v in size.items()},
        "times_faster": {k: times_faster(seconds[k], seconds["published"]) for k in ours},
        "times_smaller": size["published"] / size["batch"],
    }


@dataclass(frozen=True)
class GivenLatents:
    """A black box whose draws are there already, as latents (n, rows, latent)."""

    autoencoder: ChunkAutoencoder
    latents: Tensor

    def __call__(self, n: int) -> Tensor:
        """Decode the first n."""
        return self.autoencoder.decode_tokens(self.latents[:n])

    def undecoded(self, n: int) -> LatentChunks:
        """The first n."""
        return LatentChunks.of(self.autoencoder, self.latents[:n])


def law_difference(autoencoder: ChunkAutoencoder, latents: Tensor) -> float:
    """Total variation, meaned over rows, between our choice and the published one.

    Of the same latents; only rows with agreeing candidates. Rounding of logits may make it more
    than zero, a candidate in many thousands.

    Raises:
        RuntimeError: If it is more than rounding.
    """
    number, rows, _ = latents.shape
    drawn = Candidates(GivenLatents(autoencoder, latents), number, first=number)
    counts = drawn.copies(POWER, torch.arange(rows, device=latents.device))
    agreed = counts.amax(dim=-1) >= POWER
    ours = count_weights(counts, number, TEMPERATURE)
    literal = autoencoder.decode(latents).argmax(dim=-1)
    total = 0.0
    for row in agreed.nonzero().flatten().tolist():
        chunks = [tuple(chunk) for chunk in literal[:, row].tolist()]
        theirs = {k: float(w) for k, w in counter_weights(chunks, POWER).items()}
        all_theirs, all_ours = sum(theirs.values()), float(ours[row].sum())
        distance = {chunk: weight / all_theirs for chunk, weight in theirs.items()}
        for leader in ours[row].nonzero().flatten().tolist():
            chunk = tuple(drawn.tokens[row, leader].tolist())
            distance[chunk] = distance.get(chunk, 0.0) - float(ours[row, leader]) / all_ours
        total += sum(map(abs, distance.values())) / 2
    difference = total / max(int(agreed.sum()), 1)
    if not difference < 0.01:
        raise RuntimeError(f"both must choose with the same law; they differ by {difference:.2g}.")
    return difference
