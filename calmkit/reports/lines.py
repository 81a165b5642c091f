"""What every report shows of a variant: its scores with errors, its costs, and the baseline.

A cost is the mean over the seeds that have it. The unigram baseline is token frequencies without
any context; variants that are scored at other places of the text have another one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from calmkit.comparison import ComparisonResult, VariantResult
from calmkit.experiments import RunResult
from calmkit.metrics import Estimate

from .summary import Summary, summarize

__all__ = [
    "Baseline", "Row", "baselines", "finite_mean", "listed", "rows_of", "some_choose",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant over its seeds.

    Attributes:
        variant: All its runs.
        summary: Its scores; all NaN where no run ended well.
        is_paired: Whether it was measured on the documents of the first variant.
    """

    variant: VariantResult
    summary: Summary
    is_paired: bool

    @property
    def name(self) -> str:
        """The variant's."""
        return self.variant.name

    @property
    def has_failed(self) -> bool:
        """Whether no run ended well."""
        return not self.variant.runs

    def mean(self, number: Callable[[RunResult], float]) -> float:
        """Mean of a number over the runs in which it is finite; NaN where there is none."""
        return finite_mean([number(run) for run in self.variant.runs])

    def loss(self, name: str) -> Estimate:
        """The loss of this name (`energy_score` or `cross_entropy`), if it is the variant's."""
        if self.has_failed or name not in self.variant.runs[0].documents.names:
            return _MISSING
        return self.summary.loss


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Token frequencies at the places where some variants are scored.

    Attributes:
        name: `unigram`, with the variants where there are several.
        variants: Those variants.
        brier: Brier-1..4, in per cent.
    """

    name: str
    variants: tuple[str, ...]
    brier: tuple[Estimate, ...]


def rows_of(result: ComparisonResult) -> list[Row]:
    """One row for each variant, in order; the failed ones too."""
    summaries = iter(summarize(result))
    scored = [variant for variant in result.variants if variant.runs]
    return [
        Row(
            variant=variant,
            summary=next(summaries) if variant.runs else _no_summary(variant.name),
            is_paired=bool(variant.runs) and _documents(variant) == _documents(scored[0]),
        )
        for variant in result.variants
    ]


def baselines(rows: Sequence[Row]) -> list[Baseline]:
    """The different baselines, each with its variants."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if not row.has_failed:
            brier = row.variant.runs[0].unigram_brier
            # To three digits: the same text may be summed in another order.
            shown = tuple(f"{score.value:.3g}" for score in brier)
            found.setdefault(shown, []).append(row)
    groups = list(found.values())
    of = " of {}" if len(groups) > 1 else ""
    return [
        Baseline(
            name="unigram" + of.format(listed([row.name for row in group])),
            variants=tuple(row.name for row in group),
            brier=group[0].variant.runs[0].unigram_brier,
        )
        for group in groups
    ]


def some_choose(rows: Sequence[Row]) -> bool:
    """Whether a variant's sampler chooses among candidates, so that its choices are reported."""
    return any(row.mean(lambda run: run.draws_per_chunk) > 1 for row in rows)


def finite_mean(values: Sequence[float]) -> float:
    """Mean of the finite ones; NaN where there is none."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def listed(words: Sequence[str], most: int = 6) -> str:
    """`a`, `a and b`, `a, b and c`; of many, the first ones and how many more."""
    if len(words) > most:
        return f"{', '.join(words[: most - 1])} and {len(words) - most + 1} more"
    before = ", ".join(words[:-1])
    return " and ".join(([before] if before else []) + list(words[-1:]))


_MISSING = Estimate(math.nan, math.nan)


def _no_summary(name: str) -> Summary:
    return Summary(
        name=name,
        brier_lm=_MISSING,
        brier=(_MISSING,) * 4,
        loss=_MISSING,
        brier_lm_difference=_MISSING,
        brier_difference=(_MISSING,) * 4,
        loss_difference=_MISSING,
        accuracy=_MISSING,
        accuracy_difference=_MISSING,
        seeds=0,
    )


def _documents(variant: VariantResult) -> set[tuple[str, tuple[int, ...]]]:
    return {(run.documents.unit, run.documents.groups) for run in variant.runs}
