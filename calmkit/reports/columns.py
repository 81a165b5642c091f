"""The columns of a comparison's tables, as texts: the same ones on a screen and on a page.

A number with an error has as many digits as show two of the error; a tiny one is a power of ten. A
column in which no variant has a number is left out, and so are differences where there is one
variant.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from calmkit.experiments import RunResult
from calmkit.metrics import Estimate

from .lines import Baseline, Line, some_choose

__all__ = ["Cell", "Column", "columns_of", "rounded", "short"]

_MOST_DIGITS = 5


@dataclass(frozen=True)
class Cell:
    """A number and its standard error; both empty where there is none."""

    value: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One quantity, for every variant and then for every baseline.

    Attributes:
        heading: Its name, in two lines.
        about: What it is, and which way is better.
        group: The table that it belongs to.
        cells: Its numbers.
    """

    heading: tuple[str, str]
    about: str
    group: Literal["scores", "costs"]
    cells: tuple[Cell, ...]


def columns_of(lines: Sequence[Line], baselines: Sequence[Baseline]) -> list[Column]:
    """All columns that hold anything."""
    every = [*_scores(lines, baselines), *_costs(lines, baselines)]
    return [column for column in every if any(cell.value for cell in column.cells)]


def rounded(estimate: Estimate | None, *, signed: bool = False) -> Cell:
    """A number and its error, with two digits of the error; empty for None."""
    if estimate is None:
        return Cell()
    sign = "+" if signed else ""
    if not estimate.standard_error:
        return Cell(f"{estimate.value:{sign}.3g}".replace("e-0", "e-"))
    digits = max(0, 1 - math.floor(math.log10(estimate.standard_error)))
    if digits > _MOST_DIGITS:
        return Cell(
            f"{estimate.value:{sign}.1e}".replace("e-0", "e-"),
            f"±{estimate.standard_error:.0e}".replace("e-0", "e-"),
        )
    return Cell(f"{estimate.value:{sign}.{digits}f}", f"±{estimate.standard_error:.{digits}f}")


def short(value: float | None) -> str:
    """Three digits: 81.2, 412k, 1.35M; from 10^12 on as a power of ten. Empty for None."""
    if value is None:
        return ""
    if abs(value) >= 1e12:
        return f"{value:.2e}".replace("e+", "e")
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # What rounds to 1000 belongs to the next unit.
        if abs(value) >= 0.9995 * limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def _nth(estimates: Sequence[Estimate], n: int) -> Estimate | None:
    return estimates[n] if n < len(estimates) else None


def _scores(lines: Sequence[Line], baselines: Sequence[Baseline]) -> Iterable[Column]:
    blank = (Cell(),) * len(baselines)

    def column(
        heading: tuple[str, str],
        about: str,
        cell: Callable[[Line], Cell],
        below: Sequence[Cell] = blank,
    ) -> Column:
        cells = map(cell, lines)
        return Column(heading=heading, about=about, group="scores", cells=(*cells, *below))

    yield Column(
        heading=("BrierLM", "% ↑"),
        about="100 times the geometric mean of Brier-1 to 4; higher is better",
        group="scores",
        cells=(
            *(
                Cell("failed") if line.has_failed else rounded(line.summary.brier_lm)
                for line in lines
            ),
            *blank,
        ),
    )  # fmt: skip
    for n in range(4):
        yield column(
            (f"Brier-{n + 1}", "% ↑"),
            f"of {n + 1}-grams, signed, in per cent; higher is better",
            lambda line, n=n: rounded(_nth(line.summary.brier, n)),
            [rounded(baseline.brier[n]) for baseline in baselines],
        )
    for name, about in (
        ("energy score", "of drawn latents against the held-out posteriors; lower is better"),
        ("cross entropy", "nats per token; lower is better"),
    ):
        yield column(
            (name.split()[0], f"{name.split()[1]} ↓"),
            f"{name} {about}",
            lambda line, name=name: rounded(line.loss(name.replace(" ", "_"))),
        )
    if some_choose(lines):
        yield column(
            ("accuracy", "% ↑"),
            "held-out tokens that a chunk of the variant's sampler has right",
            lambda line: rounded(line.summary.accuracy),
        )
    if len(lines) > 1:
        first = next((line.name for line in lines if not line.has_failed), "")
        less = f"less that of {first}, on the same documents and seeds; above 0 is better"
        yield column(
            ("ΔBrierLM", "to first"), f"BrierLM {less}",
            lambda line: rounded(line.summary.brier_lm_difference, signed=True),
        )  # fmt: skip
        yield column(
            ("ΔBrier-1", "to first"), f"Brier-1 {less}",
            lambda line: rounded(_nth(line.summary.brier_difference, 0), signed=True),
        )  # fmt: skip
        if some_choose(lines):
            yield column(
                ("Δaccuracy", "to first"), f"accuracy {less}",
                lambda line: rounded(line.summary.accuracy_difference, signed=True),
            )  # fmt: skip


def _costs(lines: Sequence[Line], baselines: Sequence[Baseline]) -> Iterable[Column]:
    def column(heading: tuple[str, str], about: str, text: Callable[[Line], str]) -> Column:
        cells = [Cell(text(line) if not line.has_failed else "") for line in lines]
        return Column(
            heading=heading,
            about=about,
            group="costs",
            cells=(*cells, *(Cell() for _ in baselines)),
        )

    def mean(number: Callable[[RunResult], float | None]) -> Callable[[Line], str]:
        return lambda line: short(line.mean(number))

    yield column(
        ("params", "all"), "trained parameters", lambda line: short(line.variant.parameters)
    )
    yield column(
        ("params", "head"), "those of the head, or of a softmax model's output",
        lambda line: short(line.variant.head_parameters),
    )  # fmt: skip
    yield column(
        ("training", "steps"), "optimiser steps of backbone and head",
        mean(lambda run: run.steps),
    )  # fmt: skip
    yield column(
        ("training", "FLOPs"),
        "of those steps, by accounting",
        mean(lambda run: run.training_flops),
    )
    yield column(
        ("training", "s"), "seconds of those steps", mean(lambda run: run.training_seconds)
    )
    yield column(
        ("evals/", "sample"), "evaluations of the head's network for one latent", _evaluations
    )
    yield column(
        ("FLOPs/", "token"), "of a new token, with plain sampling",
        mean(lambda run: run.sampling_flops),
    )  # fmt: skip
    yield column(
        ("µs/", "token"), "time of a new token, with the variant's sampler",
        mean(lambda run: run.microseconds_per_token),
    )  # fmt: skip
    if some_choose(lines):
        yield column(
            ("draws/", "chunk"), "candidates that the sampler took for a chunk",
            mean(lambda run: run.draws_per_chunk),
        )  # fmt: skip
        yield column(
            ("unsettled", "%"), "chunks for which they did not suffice",
            mean(lambda run: 100 * run.unsettled),
        )  # fmt: skip


def _evaluations(line: Line) -> str:
    counts = {run.evaluations_per_sample for run in line.variant.runs}
    if counts == {None}:
        # A softmax model has no sample of a latent.
        return "varies" if line.loss("cross_entropy") is None else ""
    return str(counts.pop()) if len(counts) == 1 else "varies"
