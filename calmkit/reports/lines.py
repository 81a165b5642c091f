"""The lines of a report: each variant's scores with errors, its costs, and the baselines.

A cost is the mean over the seeds that have it. Baselines score what counting the training text
reaches: token frequencies and n-grams. Variants that are scored at different places of the text
have different baselines.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from calmkit.comparison import ComparisonResult, Summary, VariantResult, summarize
from calmkit.diagnostics import TextQuality
from calmkit.evaluation import Timing
from calmkit.experiments import RunResult
from calmkit.metrics import Estimate, combine_brier

__all__ = [
    "CONTINUED", "Baseline", "Line", "baselines", "continued", "lines_of", "listed", "mean_of",
    "ranges", "some_choose",
]  # fmt: skip

CONTINUED = {"chrf": "chrF", "bleu": "BLEU", "accuracy": "tokens"}
"""The scores of continued text, and their names in reports."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One variant, over all its seeds.

    Attributes:
        variant: Its runs.
        summary: Its scores.
    """

    variant: VariantResult
    summary: Summary

    @property
    def name(self) -> str:
        """Name of the variant."""
        return self.variant.name

    @property
    def has_failed(self) -> bool:
        """Whether every run failed."""
        return not self.variant.runs

    @property
    def baselines(self) -> Mapping[str, tuple[Estimate, ...]]:
        """Brier-1..4 of each baseline; empty if the training text is unknown."""
        return {} if self.has_failed else self.variant.runs[0].baselines or {}

    @property
    def text_quality(self) -> TextQuality | None:
        """The scores beside those of the trigrams; None if there are none to compare."""
        if (counted := self.baselines.get("trigram")) is None:
            return None
        model, trigram = (
            tuple(score.value for score in scores) for scores in (self.summary.brier, counted)
        )
        return TextQuality(model, trigram)

    @property
    def timing(self) -> Timing | None:
        """Microseconds per generated token, of the run that was timed."""
        times = (run.microseconds_per_token for run in self.variant.runs)
        return next((time for time in times if time is not None), None)

    def shares_all_with(self, other: "Line") -> bool:
        """Whether differences are over all seeds and documents of both lines."""
        one, base = self.summary, other.summary
        same = one.shared_seeds == one.seeds and set(one.seeds) == set(base.seeds)
        return same and one.shared_documents == max(one.documents, base.documents)

    def mean(self, number: Callable[[RunResult], float | None]) -> float | None:
        """Mean of a number over the runs that have it; None if no run has it."""
        return mean_of(number(run) for run in self.variant.runs)

    def loss(self, name: str) -> Estimate | None:
        """The loss of this name (`energy_score` or `cross_entropy`), if the variant has it."""
        if self.has_failed or name not in self.variant.runs[0].documents.names:
            return None
        return self.summary.loss


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A baseline of some variants, scored at the same places.

    Attributes:
        name: `unigram`, for example, followed by the variants if there are several of this kind.
        variants: Names of these variants.
        brier: Brier-1..4, in per cent.
    """

    name: str
    variants: tuple[str, ...]
    brier: tuple[Estimate, ...]

    @property
    def brier_lm(self) -> float:
        """100 times the geometric mean of Brier-1..4; 0 where one is not positive."""
        values = torch.tensor([score.value for score in self.brier], dtype=torch.float64)
        return float(combine_brier(values / 100))


def lines_of(result: ComparisonResult) -> list[Line]:
    """One line per variant, in order, including failed ones."""
    summaries = iter(summarize(result))
    return [
        Line(
            variant=variant,
            summary=next(summaries) if variant.runs else Summary(name=variant.name),
        )
        for variant in result.variants
    ]


def baselines(lines: Sequence[Line]) -> list[Baseline]:
    """The distinct baselines, each with its variants; the weakest kind first."""
    found: dict[tuple[str, ...], list[Line]] = {}
    for kind in dict.fromkeys(kind for line in lines for kind in line.baselines):
        for line in lines:
            if kind in line.baselines:
                # Compare three digits, since the order of sums may differ for the same text.
                shown = (f"{score.value:.3g}" for score in line.baselines[kind])
                found.setdefault((kind, *shown), []).append(line)
    kinds = [kind for kind, *_ in found]
    return [
        Baseline(
            name=kind
            if kinds.count(kind) == 1
            else f"{kind} of {listed([line.name for line in group])}",
            variants=tuple(line.name for line in group),
            brier=group[0].baselines[kind],
        )
        for (kind, *_), group in found.items()
    ]


def some_choose(lines: Sequence[Line]) -> bool:
    """Whether the sampler of any variant chooses among candidates, so accuracy is reported."""
    return any((line.mean(lambda run: run.draws_per_chunk) or 0) > 1 for line in lines)


def continued(runs: Sequence[RunResult], name: str) -> Estimate | None:
    """Mean of a score of `CONTINUED` over the runs that have it; None if no run has it."""
    scores = [getattr(run.continuations.model, name) for run in runs if run.continuations]
    return Estimate.mean(scores) if scores else None


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean of the known values; None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def listed(words: Sequence[str], most: int = 6) -> str:
    """`a`, `a and b`, `a, b and c`; a long list ends with the number of further words."""
    if len(words) > most:
        return f"{', '.join(words[: most - 1])} and {len(words) - most + 1} more"
    before = ", ".join(words[:-1])
    return " and ".join(([before] if before else []) + list(words[-1:]))


def ranges(seeds: Sequence[int | None]) -> str:
    """Seeds in order, `0` to `2` and `5` as `0-2,5`; `unknown` for None."""
    parts: list[list[int]] = []
    for seed in sorted(seed for seed in seeds if seed is not None):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    texts = ["-".join(map(str, dict.fromkeys([part[0], part[-1]]))) for part in parts]
    return ",".join(texts + ["unknown"] * (None in seeds))
