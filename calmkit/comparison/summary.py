r"""From runs to numbers with errors: means over seeds, and differences to the first variant.

Every variant v is trained with seeds s and measured on documents d. A score is a ratio of sums
over documents, averaged over seeds:

    m_v = 1/S sum_s (sum_d sums_vsd) / (sum_d counts_vsd)

Both the text and the seed would have been others in another experiment, so the error has two
parts,

    se^2 = Var*[m_v] + 1/S Var_s[m_vs],

the first over resampled documents (the same ones in all runs), the second the usual one over
seeds; with a single seed it is missing, and the error says nothing of training. What documents and
seeds do together is in both parts, so the error is a little too large rather than too small.

A difference to the first variant takes the same resampled documents and the same seeds in both, so
that what is hard for both cancels. Variants whose rows differ have no documents in common; their
errors are added instead.

BrierLM = 100 (b_1 b_2 b_3 b_4)^(1/4) of mean Brier-n has the error of its linear part,
BrierLM / 4 sum_n (b_n - mean b_n) / mean b_n; where one b_n is not positive it is 0, without
error.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from calmkit.comparison.results import ComparisonResult, RunResult, VariantResult
from calmkit.metrics import Estimate
from calmkit.metrics.bootstrap import resampled_ratios

__all__ = ["Summary", "summarize"]

_RESAMPLES, _SEED = 1000, 0
_BRIER = tuple(f"brier_{n}" for n in (1, 2, 3, 4))
_ACCURACY = "chosen_accuracy"
_LOSSES = ("energy_score", "cross_entropy")
# Scores of tokens are reported in per cent.
_PER_CENT = 100.0
_IN_PER_CENT = (*_BRIER, _ACCURACY)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One variant over all its seeds.

    Attributes:
        name: Of the variant.
        brier_lm: In per cent; 0 with an error of NaN where it has no value.
        brier: Brier-1..4, in per cent.
        loss: Energy score, or cross entropy of a softmax model.
        brier_lm_difference: To the first variant; NaN for that one itself, and where one of the
            two has no value.
        brier_difference: Brier-1..4 less those of the first variant, in per cent.
        loss_difference: The same of the loss; NaN where the two are different quantities.
        accuracy: Tokens that the sampler's chunks have right, in per cent; NaN where that was not
            measured.
        accuracy_difference: To the first variant.
        seeds: Runs that are meant.
    """

    name: str
    brier_lm: Estimate
    brier: tuple[Estimate, ...]
    loss: Estimate
    brier_lm_difference: Estimate
    brier_difference: tuple[Estimate, ...]
    loss_difference: Estimate
    accuracy: Estimate
    accuracy_difference: Estimate
    seeds: int


def summarize(result: ComparisonResult) -> list[Summary]:
    """Numbers with errors for every variant that has a run; the first is the one compared with."""
    scored = [_Scores(variant) for variant in result.variants if variant.runs]
    return [_summary(one, scored[0]) for one in scored]


class _Scores:
    """Scores of one variant: values (seeds, metrics), and resampled ones (resamples, metrics)."""

    def __init__(self, variant: VariantResult) -> None:
        self.name = variant.name
        self.runs = {run.seed: run for run in variant.runs}
        self.metrics = _metrics(variant.runs[0])

    def values(self, seeds: Sequence[int]) -> Tensor:
        return torch.stack([_means(self.runs[seed], self.metrics) for seed in seeds])

    def resampled(self, seeds: Sequence[int]) -> Tensor:
        drawn = [_resampled(self.runs[seed], self.metrics) for seed in seeds]
        return torch.stack(drawn).mean(dim=0)

    def groups(self, seeds: Sequence[int]) -> set[tuple[str, tuple[int, ...]]]:
        documents = [self.runs[seed].documents for seed in seeds]
        return {(one.unit, one.groups) for one in documents}


def _metrics(run: RunResult) -> tuple[str, ...]:
    """Brier-1..4, the loss, and the accuracy of choices where it was measured."""
    return (*_BRIER, *(name for name in (*_LOSSES, _ACCURACY) if name in run.documents.names))


def _columns(run: RunResult, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    places = [run.documents.names.index(name) for name in names]
    scale = torch.tensor([_PER_CENT if name in _IN_PER_CENT else 1.0 for name in names])
    scale = scale.to(run.documents.sums.dtype)
    return run.documents.sums[:, places] * scale, run.documents.counts[:, places]


def _means(run: RunResult, names: Sequence[str]) -> Tensor:
    sums, counts = _columns(run, names)
    return sums.sum(dim=0) / counts.sum(dim=0)


def _resampled(run: RunResult, names: Sequence[str]) -> Tensor:
    return resampled_ratios(*_columns(run, names), resamples=_RESAMPLES, seed=_SEED)


def _summary(one: _Scores, first: _Scores) -> Summary:
    seeds = list(one.runs)
    values, drawn = one.values(seeds), one.resampled(seeds)
    orders = len(_BRIER)
    found = {name: _estimate(values[:, m], drawn[:, m]) for m, name in enumerate(one.metrics)}
    differences, of_brier_lm = _differences(one, first)
    loss = one.metrics[orders]
    return Summary(
        name=one.name,
        brier_lm=_brier_lm(values[:, :orders], drawn[:, :orders]),
        brier=tuple(found[name] for name in _BRIER),
        loss=found[loss],
        brier_lm_difference=of_brier_lm,
        brier_difference=tuple(differences.get(name, _NONE) for name in _BRIER),
        loss_difference=differences.get(loss, _NONE),
        accuracy=found.get(_ACCURACY, _NONE),
        accuracy_difference=differences.get(_ACCURACY, _NONE),
        seeds=len(seeds),
    )


_NONE = Estimate(math.nan, math.nan)


def _differences(one: _Scores, first: _Scores) -> tuple[dict[str, Estimate], Estimate]:
    """Of every metric that both have, and of BrierLM, over the seeds that both have."""
    orders, both = len(_BRIER), (one, first)
    seeds = [seed for seed in one.runs if seed in first.runs]
    if one is first or not seeds:
        return {}, _NONE
    values, drawn = [x.values(seeds) for x in both], [x.resampled(seeds) for x in both]
    paired = one.groups(seeds) == first.groups(seeds) and len(one.groups(seeds)) == 1
    found = {}
    for name in one.metrics:
        if name in first.metrics:
            places = [x.metrics.index(name) for x in both]
            found[name] = _difference(
                [v[:, m] for v, m in zip(values, places, strict=True)],
                [d[:, m] for d, m in zip(drawn, places, strict=True)],
                paired=paired,
            )
    scores = [_score(v[:, :orders].mean(dim=0)) for v in values]
    if min(scores) <= 0:
        return found, _NONE
    linear = [s / orders / v[:, :orders].mean(dim=0) for s, v in zip(scores, values, strict=True)]
    error = _difference(
        [v[:, :orders] @ w for v, w in zip(values, linear, strict=True)],
        [d[:, :orders] @ w for d, w in zip(drawn, linear, strict=True)],
        paired=paired,
    ).standard_error
    return found, Estimate(scores[0] - scores[1], error)


def _difference(values: Sequence[Tensor], drawn: Sequence[Tensor], *, paired: bool) -> Estimate:
    """A number of one variant less that of the first: of each seed, and of each resample."""
    change = values[0] - values[1]
    if paired:
        return _estimate(change, drawn[0] - drawn[1])
    apart = [_estimate(v, d).standard_error for v, d in zip(values, drawn, strict=True)]
    return Estimate(float(change.mean()), math.hypot(*apart))


def _estimate(values: Tensor, drawn: Tensor) -> Estimate:
    """A mean over seeds, with both parts of its error."""
    known = drawn[~drawn.isnan()]
    of_text = float(known.var()) if len(known) > 1 else math.nan
    of_seeds = float(values.var() / len(values)) if len(values) > 1 else 0.0
    return Estimate(float(values.mean()), math.sqrt(of_text + of_seeds))


def _score(brier: Tensor) -> float:
    """The geometric mean; 0 where it has no value."""
    return float(brier.log().mean().exp()) if bool((brier > 0).all()) else 0.0


def _brier_lm(values: Tensor, drawn: Tensor) -> Estimate:
    brier = values.mean(dim=0)
    score = _score(brier)
    if score == 0:
        return Estimate(0.0, math.nan)
    weights = score / len(brier) / brier
    return Estimate(score, _estimate(values @ weights, drawn @ weights).standard_error)
