"""Samples per second of each head, at a width that gives them all about the same parameters."""

import argparse
import inspect
import statistics
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from measuring import interleaved_seconds
from torch import Generator, nn

from calmkit import heads
from calmkit.heads import EnergyHead, Head
from calmkit.nn import without_memory

__all__ = ["compare_heads", "count_parameters", "every_head", "fit_width"]


def every_head() -> dict[str, Callable[..., Head]]:
    """The public heads; not those that wrap another head."""
    return {
        name: value
        for name, value in vars(heads).items()
        if inspect.isclass(value) and issubclass(value, Head) and not inspect.isabstract(value)
        if "head" not in inspect.signature(value).parameters
    }


def count_parameters(head: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in head.parameters())


def fit_width(build: Callable[..., Head], wanted: int) -> int:
    """The multiple of 8 at which the number of parameters comes closest to `wanted`."""

    @cache
    def size(width: int) -> int:
        return count_parameters(without_memory(partial(build, width=width)))

    high = 8
    while size(high) < wanted:
        high *= 2
    low = 8
    while high - low > 8:
        middle = (low + high) // 16 * 8
        low, high = (middle, high) if size(middle) < wanted else (low, middle)
    return min((low, high), key=lambda width: abs(size(width) - wanted))


def compare_heads(args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Samples per second of each head with its defaults, at about equal numbers of parameters."""
    wanted = count_parameters(EnergyHead(args.head_cond, args.latent, width=args.head_width))
    generator = Generator(device).manual_seed(1)
    shape = (args.head_positions, args.head_cond)
    cond = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
    rows, works = {}, {}
    for name, build in every_head().items():
        options = {}
        if "width" in inspect.signature(build).parameters:
            options["width"] = fit_width(partial(build, args.head_cond, args.latent), wanted)
        head = build(args.head_cond, args.latent, **options).to(device, torch.float32).eval()
        parameters = count_parameters(head)
        rows[name] = {
            "head": name,
            "width": options.get("width"),
            "parameters": parameters,
            "share_of_parameters_wanted": parameters / wanted,
            "evaluations": head.evaluations_per_sample,
        }

        @torch.no_grad()
        def work(head: Head = head) -> None:
            head.sample(cond, args.head_samples, generator)

        works[name] = work
    seconds = interleaved_seconds(works, args.head_rounds, device, clock=args.clock)
    count = args.head_samples * args.head_positions
    for name, row in rows.items():
        row["samples_per_second"] = count / statistics.median(seconds[name])
    return list(rows.values())
