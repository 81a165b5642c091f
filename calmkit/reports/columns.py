"""The columns of a comparison's tables as text, shared by the terminal and the page.

A number with an error is rounded to two significant digits of the error; tiny numbers use
scientific notation. Columns without numbers are omitted, as are differences if there is only one
variant.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from calmkit.experiments import RunResult
from calmkit.metrics import Estimate

from .lines import CONTINUED, Baseline, Line, continued, ranges, some_choose

__all__ = ["Cell", "Column", "columns_of", "rounded", "short"]

_MOST_DIGITS = 5


@dataclass(frozen=True)
class Cell:
    """A number and its standard error; empty if missing."""

    value: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One quantity, for every variant and then for every baseline.

    Attributes:
        heading: Its name, on two lines.
        about: A description, including which direction is better.
        group: The table that it belongs to.
        cells: Its numbers.
    """

    heading: tuple[str, str]
    about: str
    group: Literal["scores", "costs", "texts"]
    cells: tuple[Cell, ...]


def columns_of(lines: Sequence[Line], baselines: Sequence[Baseline]) -> list[Column]:
    """All columns with at least one number; those of continued text are the last."""
    count = len(lines) + len(baselines)
    every = [*_scores(lines, baselines), *_costs(lines)]
    every.sort(key=lambda column: column.group == "texts")
    return [
        replace(column, cells=(*column.cells, *[Cell()] * (count - len(column.cells))))
        for column in every
        if any(cell.value for cell in column.cells)
    ]


def rounded(estimate: Estimate | None, *, signed: bool = False) -> Cell:
    """Round a number to two significant digits of its error; empty for None."""
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
    """Three digits: 81.2, 412k, 1.35M; scientific notation from 10^12. Empty for None."""
    if value is None:
        return ""
    if abs(value) >= 1e12:
        return f"{value:.2e}".replace("e+", "e")
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # A number that rounds to 1000 belongs to the next unit.
        if abs(value) >= 0.9995 * limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def _nth(estimates: Sequence[Estimate], n: int) -> Estimate | None:
    return estimates[n] if n < len(estimates) else None


def _scores(lines: Sequence[Line], baselines: Sequence[Baseline]) -> Iterable[Column]:
    def column(
        heading: tuple[str, str],
        about: str,
        score: Callable[[Line], Estimate | None],
        below: Sequence[Cell] = (),
        *,
        signed: bool = False,
        group: Literal["scores", "texts"] = "scores",
    ) -> Column:
        cells = [rounded(score(line), signed=signed) for line in lines]
        return Column(heading=heading, about=about, group=group, cells=(*cells, *below))

    first = column(
        ("BrierLM", "% ↑"), "100 times the geometric mean of Brier-1 to 4; higher is better",
        lambda line: line.summary.brier_lm,
        [rounded(Estimate(baseline.brier_lm, None)) for baseline in baselines],
    )  # fmt: skip
    scored = [line for line in lines if not line.has_failed]
    failed = [Cell("failed") if line.has_failed else cell
              for line, cell in zip(lines, first.cells, strict=False)]  # fmt: skip
    yield replace(first, cells=(*failed, *first.cells[len(lines) :]))
    for n in range(4):
        yield column(
            (f"Brier-{n + 1}", "% ↑"),
            f"Brier score of {n + 1}-grams, signed, in per cent; higher is better",
            lambda line, n=n: _nth(line.summary.brier, n),
            [rounded(baseline.brier[n]) for baseline in baselines],
        )
    yield column(
        ("energy", "score ↓"),
        "energy score of drawn latents against the held-out posteriors; lower is better",
        lambda line: line.loss("energy_score"),
    )
    yield column(
        ("cross", "entropy ↓"), "cross entropy in nats per token; lower is better",
        lambda line: line.loss("cross_entropy"),
    )  # fmt: skip
    if some_choose(lines):
        yield column(
            ("accuracy", "% ↑"), "share of held-out tokens that the variant's sampler gets right",
            lambda line: line.summary.accuracy,
        )  # fmt: skip
    if len({ranges(line.summary.seeds) for line in scored}) > 1:
        yield _of_seeds(
            ("training", "seeds"), "seeds of the row's runs, whose means it shows",
            [line.summary.seeds for line in lines],
        )  # fmt: skip
    if len(scored) > 1:
        less = f"minus that of {scored[0].name}, over the documents and seeds of both; "
        less += "above 0 is better"
        differences: dict[str, Callable[[Line], Estimate | None]] = {
            "BrierLM": lambda line: line.summary.brier_lm_difference,
            "Brier-1": lambda line: _nth(line.summary.brier_difference, 0),
        }
        if some_choose(lines):
            differences["accuracy"] = lambda line: line.summary.accuracy_difference
        for name, score in differences.items():
            yield column((f"Δ{name}", "to first"), f"{name} {less}", score, signed=True)
        if not all(line.shares_all_with(scored[0]) for line in scored[1:]):
            yield _of_seeds(
                ("Δ over", "seeds"), "seeds of both rows, over which the difference is taken",
                [line.summary.shared_seeds for line in lines],
            )  # fmt: skip
    for name, shown in CONTINUED.items():
        yield column(
            (shown, "% ↑"), f"{shown} of continued text in common with the true text",
            lambda line, name=name: continued(line.variant.runs, name), group="texts",
        )  # fmt: skip


def _of_seeds(
    heading: tuple[str, str], about: str, seeds: Iterable[Sequence[int | None]]
) -> Column:
    cells = tuple(Cell(ranges(one)) for one in seeds)
    return Column(heading=heading, about=about, group="scores", cells=cells)


def _costs(lines: Sequence[Line]) -> Iterable[Column]:
    def mean(number: Callable[[RunResult], float | None]) -> Callable[[Line], Cell]:
        return lambda line: Cell(short(line.mean(number)))

    costs: list[tuple[str, str, str, Callable[[Line], Cell]]] = [
        ("params", "all", "trained parameters",
         lambda line: Cell(short(line.variant.parameters))),
        ("params", "head", "parameters of the head, or of a softmax model's output",
         lambda line: Cell(short(line.variant.head_parameters))),
        ("training", "steps", "optimiser steps of backbone and head",
         mean(lambda run: run.steps)),
        ("training", "FLOPs", "of these steps, by accounting",
         mean(lambda run: run.training_flops)),
        ("training", "s", "seconds of these steps", mean(lambda run: run.training_seconds)),
        ("evals/", "sample", "evaluations of the head's network per latent", _evaluations),
        ("FLOPs/", "token", "FLOPs per new token with plain sampling",
         mean(lambda run: run.sampling_flops)),
        ("µs/", "token", "time per new token with the variant's sampler: median of repeats, and "
         "half the distance between their quartiles", _time),
    ]  # fmt: skip
    if some_choose(lines):
        costs += [
            ("draws/", "chunk", "candidates that the sampler used per chunk",
             mean(lambda run: run.draws_per_chunk)),
            ("unsettled", "%", "chunks for which the candidates did not suffice",
             mean(lambda run: 100 * run.unsettled)),
        ]  # fmt: skip
    for upper, lower, about, cell in costs:
        cells = tuple(Cell() if line.has_failed else cell(line) for line in lines)
        yield Column(heading=(upper, lower), about=about, group="costs", cells=cells)


def _evaluations(line: Line) -> Cell:
    counts = {run.evaluations_per_sample for run in line.variant.runs}
    if counts == {None} and line.loss("cross_entropy") is not None:
        return Cell()  # a softmax model does not sample latents
    count = counts.pop() if len(counts) == 1 else None
    return Cell("varies" if count is None else str(count))


def _time(line: Line) -> Cell:
    if line.timing is None:
        return Cell()
    if not line.timing.spread:
        return Cell(short(line.timing.median))
    return rounded(Estimate(line.timing.median, line.timing.spread))
