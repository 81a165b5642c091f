"""Seconds of `generate`, and of the choice alone, against the published procedure."""

import argparse
import random
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from agreement import LEVELS, agreeing_head, agreement, build_autoencoder
from chunk_cost import POWER, TEMPERATURE, samplers
from measuring import interleaved_seconds, times_faster
from published_generation import PublishedDraw, choose_with_counter, published_generate
from torch import Generator

from calmkit.backbones import TransformerBackbone
from calmkit.models import CALM, ChunkEmbedding, Generation
from calmkit.sampling import PlainSampler, Sampler, batch_temperature

__all__ = ["compare_generation", "compare_selection"]

# How many times faster than the published procedure.
GOALS = {"generate": 5.0, "selection": 20.0}
# Choices in one turn: a single one is over before caches are warm.
_REPEATS = 10


def compare_generation(args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Tokens per second of `generate` and of the published loop, at two temperatures."""
    autoencoder = build_autoencoder(args, args.vocab, device)
    backbone = TransformerBackbone(args.hidden, depth=args.depth, heads=args.heads)
    backbone = backbone.to(device, torch.float32)
    embedding = ChunkEmbedding(args.vocab, args.chunk, args.hidden).to(device, torch.float32)
    shape = (max(args.batches), args.prompt_chunks, args.chunk)
    prompts = torch.randint(args.vocab, shape, device=device)
    with torch.no_grad():
        vectors = embedding(prompts, torch.ones_like(prompts, dtype=torch.bool))
        states = backbone(vectors)[:4, -1]
    head = agreeing_head(args, autoencoder, states, LEVELS["middle"])
    model = CALM(autoencoder=autoencoder, input_encoder=embedding, backbone=backbone, head=head)
    published = PublishedDraw.of(head, autoencoder)
    generator = Generator(device).manual_seed(0)
    found = []
    for rows in args.batches:
        for temperature, candidates in ((TEMPERATURE, args.candidates), (1.0, 1)):
            ours = samplers(args) if temperature < 1 else {"plain": PlainSampler()}

            def write(sampler: Sampler, rows: int = rows) -> list[Generation]:
                return model.generate(
                    prompts[:rows].flatten(1).tolist(),
                    max_new_tokens=args.chunk * args.new_chunks,
                    sampler=sampler,
                    generator=generator,
                )

            def write_as_published(rows: int = rows, candidates: int = candidates) -> None:
                published_generate(
                    model,
                    published,
                    prompts[:rows],
                    new_chunks=args.new_chunks,
                    power=POWER,
                    candidates=candidates,
                    generator=generator,
                )

            works: dict[str, Callable[[], Any]] = {
                key: partial(write, sampler) for key, sampler in ours.items()
            }
            works["published"] = write_as_published
            seconds = interleaved_seconds(works, args.rounds, device, clock=args.clock)
            tokens = rows * args.chunk * args.new_chunks
            found.append(
                {
                    "batch": rows,
                    "temperature": temperature,
                    "tokens_per_second": {
                        key: tokens / statistics.median(times) for key, times in seconds.items()
                    },
                    "draws": {
                        key: sum(text.draws for text in write(sampler)) / (rows * args.new_chunks)
                        for key, sampler in ours.items()
                    },
                    "times_faster": {
                        key: times_faster(seconds[key], seconds["published"]) for key in ours
                    },
                    "times_faster_wanted": GOALS["generate"] if temperature < 1 else None,
                }
            )
    return found


def compare_selection(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Choosing among given candidates: tensors against a `Counter` for each row."""
    generator, rng = Generator(device).manual_seed(0), random.Random(0)
    # Chunks of a Zipf law: a few are frequent, many occur once.
    chunks = torch.randint(args.vocab, (4096, args.chunk), generator=generator, device=device)
    shares = 1 / torch.arange(1.0, 4097.0, device=device)
    number = args.candidates * args.selection_rows
    picks = shares.multinomial(number, replacement=True, generator=generator)
    candidates = chunks[picks].view(args.candidates, args.selection_rows, args.chunk)

    def ours() -> None:
        for _ in range(_REPEATS):
            batch_temperature(candidates, TEMPERATURE, generator=generator)

    def theirs() -> None:
        for _ in range(_REPEATS):
            choose_with_counter(candidates, POWER, rng)

    works = {"calmkit": ours, "published": theirs}
    seconds = interleaved_seconds(works, args.rounds, device, clock=args.clock)
    return {
        "rows": args.selection_rows,
        "collision_probability": agreement(candidates)[-1],
        "milliseconds": {key: 1e3 * statistics.median(s) / _REPEATS for key, s in seconds.items()},
        "times_faster": times_faster(seconds["calmkit"], seconds["published"]),
        "times_faster_wanted": GOALS["selection"],
    }
