"""How often a 95 % interval over documents holds the truth, for several kinds of interval.

Experiments are drawn from laws whose truth is known: a score for each document, tokens in each,
the ratio of the sums. Each interval is asked how often it holds the true ratio; 95 times in 100
would be right. All experiments of a setting are one call of the library, as so many metrics.

    python benchmarks/interval_coverage.py --json coverage.json
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import print_results
from torch import Generator, Tensor

from calmkit.metrics import combine_brier
from calmkit.metrics.bootstrap import errors_of, resampled_ratios
from calmkit.metrics.brier_lm import brier_lm_interval, linear_weights
from calmkit.metrics.intervals import (
    Variance,
    jackknife,
    ratios_without_each,
    student_quantile,
)

__all__ = ["LENGTHS", "WORLDS", "coverage_of_brier_lm", "coverage_of_ratios", "intervals_of"]

LENGTHS = {"equal": 0.0, "unequal": 0.7, "very unequal": 1.3}
"""Standard deviation of the logarithm of a document's tokens."""
TOKENS = 400
BRIER = (0.08, 0.015, 0.004, 0.001)
"""True Brier-1 to 4, and below the standard deviations of one token's estimate."""
BRIER_NOISE = (0.25, 0.12, 0.06, 0.02)
Ends = tuple[Tensor, Tensor]
World = Callable[[Tensor, Generator], Tensor]


def _normal(counts: Tensor, generator: Generator) -> Tensor:
    return counts * (1 + _noise(counts, generator))


def _heavy(counts: Tensor, generator: Generator) -> Tensor:
    """Student's t with three degrees of freedom."""
    squares = sum((_noise(counts, generator).square() for _ in range(3)), torch.zeros(()))
    return counts * (1 + _noise(counts, generator) / (squares / 3).sqrt())


def _skewed(counts: Tensor, generator: Generator) -> Tensor:
    """A lognormal score: few documents have most of it."""
    return counts * (_noise(counts, generator) - 0.5).exp()


def _brier(counts: Tensor, generator: Generator) -> Tensor:
    """Hits of single tokens, each document with a rate of its own (mean 1, Gamma of shape 3)."""
    return torch.poisson(counts * 0.05 * _gamma(3, counts, generator), generator)


def _rare(counts: Tensor, generator: Generator) -> Tensor:
    """About one hit a document, at rates of an exponential law: as of a Brier-4."""
    return torch.poisson(counts / TOKENS * _gamma(1, counts, generator), generator)


WORLDS: dict[str, tuple[World, float]] = {
    "normal": (_normal, 1.0),
    "heavy tails": (_heavy, 1.0),
    "hits": (_brier, 0.05),
    "skewed": (_skewed, 1.0),
    "rare hits": (_rare, 1 / TOKENS),
}
"""How sums are drawn, and the true ratio."""


def _noise(like: Tensor, generator: Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype)


def _gamma(shape: int, like: Tensor, generator: Generator) -> Tensor:
    uniform = torch.rand((shape, *like.shape), generator=generator, dtype=like.dtype)
    return -uniform.log().mean(dim=0)


def draw_counts(documents: int, experiments: int, spread: float, generator: Generator) -> Tensor:
    """Tokens of each document, (documents, experiments)."""
    noise = torch.randn(documents, experiments, generator=generator, dtype=torch.float64)
    return (TOKENS * (spread * noise - spread**2 / 2).exp()).round().clamp_min(20.0)


def intervals_of(sums: Tensor, counts: Tensor, *, resamples: int, seed: int) -> dict[str, Ends]:
    """Lower and upper ends of every kind of interval, for tables (documents, experiments)."""
    documents, total = len(sums), counts.sum(dim=0)
    values = sums.sum(dim=0) / total
    drawn = resampled_ratios(sums, counts, resamples=resamples, seed=seed)
    variance = jackknife(values, ratios_without_each(sums, counts), counts / total)
    all_count = torch.full_like(values, documents - 1.0)
    ends = torch.tensor([0.025, 0.975], dtype=drawn.dtype)
    low, high = drawn.quantile(ends, dim=0)
    found = {
        "percentiles": (low, high),
        "bootstrap t": _studentised(sums, counts, values, resamples, seed),
        "t of the bootstrap's error": _around(
            values, errors_of(drawn) * math.sqrt(documents / (documents - 1)), all_count
        ),
        "t of the jackknife": _around(values, variance.amount.sqrt(), all_count),
        "calmkit": _around(values, variance.amount.sqrt(), variance.degrees),
    }
    return found


def _around(values: Tensor, errors: Tensor, degrees: Tensor) -> Ends:
    half = student_quantile(0.95, degrees) * errors
    return values - half, values + half


def _studentised(sums: Tensor, counts: Tensor, values: Tensor, resamples: int, seed: int) -> Ends:
    """Bootstrap-t: each resample's distance in units of its own error."""
    generator = Generator().manual_seed(seed)
    chosen = torch.randint(len(sums), (resamples, len(sums)), generator=generator)
    times = torch.zeros(resamples, len(sums), dtype=sums.dtype)
    times.scatter_add_(1, chosen, torch.ones_like(times))
    total = times @ counts
    ratios = (times @ sums) / total
    squares = times @ sums.square() - 2 * ratios * (times @ (sums * counts))
    errors = (squares + ratios.square() * (times @ counts.square())).clamp_min(0).sqrt() / total
    distance = ((ratios - values) / errors).nan_to_num(math.nan, math.nan, math.nan)
    ends = torch.tensor([0.025, 0.975], dtype=sums.dtype)
    low, high = distance.nanquantile(ends, dim=0)
    error = (sums - values * counts).square().sum(dim=0).sqrt() / counts.sum(dim=0)
    return values - high * error, values - low * error


def coverage_of_ratios(
    world: str, lengths: str, documents: int, args: argparse.Namespace
) -> dict[str, Any]:
    """Coverage of each interval, and its median width in widths of calmkit's."""
    generator = Generator().manual_seed(args.seed)
    counts = draw_counts(documents, args.experiments, LENGTHS[lengths], generator)
    draw, truth = WORLDS[world]
    found = intervals_of(draw(counts, generator), counts, resamples=args.resamples, seed=args.seed)
    return _row(found, torch.tensor(truth), world=world, lengths=lengths, documents=documents)


def coverage_of_differences(documents: int, args: argparse.Namespace) -> dict[str, Any]:
    """Two models that share what is hard, on the same documents of unequal lengths."""
    generator = Generator().manual_seed(args.seed)
    counts = draw_counts(documents, args.experiments, LENGTHS["unequal"], generator)
    hard = _noise(counts, generator)
    sums = [counts * (level + hard + 0.3 * _noise(counts, generator)) for level in (1.2, 1.0)]
    total = counts.sum(dim=0)
    values = (sums[0] - sums[1]).sum(dim=0) / total
    drawn, without_each = (
        first - second
        for first, second in (
            [resampled_ratios(s, counts, resamples=args.resamples, seed=args.seed) for s in sums],
            [ratios_without_each(s, counts) for s in sums],
        )
    )
    variance = jackknife(values, without_each, counts / total)
    low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=drawn.dtype), dim=0)
    found = {
        "percentiles": (low, high),
        "calmkit": _around(values, variance.amount.sqrt(), variance.degrees),
    }
    return _row(found, torch.tensor(0.2), documents=documents)


def coverage_of_brier_lm(lengths: str, documents: int, args: argparse.Namespace) -> dict[str, Any]:
    """BrierLM of four ratios, of which the last is now and then not positive."""
    generator = Generator().manual_seed(args.seed)
    experiments = max(1, args.experiments // 4)  # one call for each
    counts = draw_counts(documents, experiments, LENGTHS[lengths], generator)
    hard = _gamma(4, counts, generator)
    lows, highs, drawn_lows, drawn_highs, undefined = [], [], [], [], 0
    for one in range(experiments):
        count = counts[:, one, None].expand(-1, 4)
        noise = count.sqrt() * torch.tensor(BRIER_NOISE) * _noise(count, generator)
        sums = count * torch.tensor(BRIER) * hard[:, one, None] + noise
        brier = sums.sum(dim=0) / count.sum(dim=0)
        without_each, shares = ratios_without_each(sums, count), count / count.sum(dim=0)
        weights = linear_weights(brier)
        linear = jackknife(
            (brier @ weights)[None], (without_each @ weights)[:, None], shares[:, :1]
        )
        ends = brier_lm_interval(brier, jackknife(brier, without_each, shares), linear)
        assert ends is not None
        undefined += int(combine_brier(brier) == 0)
        drawn = combine_brier(
            resampled_ratios(sums, count, resamples=args.resamples, seed=one)
        ).quantile(torch.tensor([0.025, 0.975], dtype=sums.dtype))
        for into, end in zip(
            (lows, highs, drawn_lows, drawn_highs), (*ends, *drawn.tolist()), strict=True
        ):
            into.append(end)
    found = {
        "percentiles": (torch.tensor(drawn_lows), torch.tensor(drawn_highs)),
        "calmkit": (torch.tensor(lows), torch.tensor(highs)),
    }
    row = _row(found, combine_brier(torch.tensor(BRIER)), lengths=lengths, documents=documents)
    return row | {"undefined": undefined / experiments}


def coverage_of_seeds(seeds: int, args: argparse.Namespace) -> dict[str, Any]:
    """A mean over seeds and 20 documents that scatter alike."""
    generator = Generator().manual_seed(args.seed)
    documents, experiments = 20, args.experiments
    of_documents, of_seeds = (
        torch.randn(n, experiments, generator=generator, dtype=torch.float64) * n**0.5 / 4
        for n in (documents, seeds)
    )
    values = of_seeds + of_documents.mean(dim=0)
    mean, equal = values.mean(dim=0), torch.ones_like(of_documents)
    of_text = jackknife(
        mean,
        of_seeds.mean(dim=0) + ratios_without_each(of_documents, equal),
        equal / documents,
    )
    spread = values.var(dim=0) / seeds
    both = of_text + Variance(spread, torch.full_like(spread, seeds - 1.0))
    error = (of_text.amount * (documents - 1) / documents + spread).sqrt()
    found = {
        "1.96 errors": (mean - 1.96 * error, mean + 1.96 * error),
        "calmkit": _around(mean, both.amount.sqrt(), both.degrees),
    }
    return _row(found, torch.tensor(0.0), seeds=seeds)


def coverage_of_rows(documents: int, args: argparse.Namespace) -> dict[str, Any]:
    """Rows of few documents, as if each row were a document: why there are no such intervals."""
    generator = Generator().manual_seed(args.seed)
    rows = 48 // documents
    shape = (documents, rows, args.experiments)
    own = torch.randn(documents, 1, args.experiments, generator=generator, dtype=torch.float64)
    rest = torch.randn(shape, generator=generator, dtype=torch.float64)
    # A tenth of a row's variance is that of its document.
    sums = (math.sqrt(0.1) * own + math.sqrt(0.9) * rest).flatten(0, 1)
    values = sums.mean(dim=0)
    equal = torch.ones_like(sums)
    variance = jackknife(values, ratios_without_each(sums, equal), equal / len(sums))
    found = {"over rows": _around(values, variance.amount.sqrt(), variance.degrees)}
    return _row(found, torch.tensor(0.0), documents=documents)


def _row(found: dict[str, Ends], truth: Tensor, **setting: Any) -> dict[str, Any]:
    widths = {name: float((high - low).nanmedian()) for name, (low, high) in found.items()}
    own = widths.get("calmkit", math.nan)
    return {
        **setting,
        "coverage": {
            name: float(((low <= truth) & (truth <= high)).double().mean())
            for name, (low, high) in found.items()
        },
        "width": {name: width / own for name, width in widths.items() if math.isfinite(own)},
    }


def show(results: dict[str, Any]) -> None:
    """Print coverages as tables, in per cent."""
    for name, rows in results.items():
        if name == "setting":
            continue
        print(f"\n{name}: coverage in per cent")
        kinds = list(rows[0]["coverage"])
        keys = [key for key in rows[0] if key not in ("coverage", "width")]
        print("  ".join(f"{key:>12}" for key in keys), "  ".join(f"{kind:>26}" for kind in kinds))
        for row in rows:
            told = [
                f"{row[k]:12.3g}" if k != "world" and k != "lengths" else f"{row[k]:>12}"
                for k in keys
            ]
            print("  ".join(told), "  ".join(f"{100 * row['coverage'][k]:26.1f}" for k in kinds))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print tables and a JSON object."""
    parser = argparse.ArgumentParser(description="Coverage of intervals over documents.")
    parser.add_argument("--documents", type=int, nargs="+", default=[2, 4, 8, 20, 50])
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 5])
    parser.add_argument("--experiments", type=int, default=4000, help="of each setting")
    parser.add_argument("--resamples", type=int, default=499)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args(arguments)
    torch.set_default_dtype(torch.float64)
    results: dict[str, Any] = {
        "setting": {name: value for name, value in vars(args).items() if name != "json"},
        "ratios": [
            coverage_of_ratios(world, lengths, documents, args)
            for world in WORLDS
            for lengths in LENGTHS
            for documents in args.documents
        ],
        "differences": [coverage_of_differences(documents, args) for documents in args.documents],
        "brier_lm": [
            coverage_of_brier_lm(lengths, documents, args)
            for lengths in LENGTHS
            for documents in args.documents
        ],
        "seeds": [coverage_of_seeds(seeds, args) for seeds in args.seeds],
        "rows": [coverage_of_rows(documents, args) for documents in (2, 4)],
    }
    show(results)
    print_results(results, torch.device("cpu"), args.json)


if __name__ == "__main__":
    main()
