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

A confidence interval has the same two parts, the first by leaving out documents, and a quantile
of Student's t, which is large for two or three seeds that differ. Over rows of few documents there
is none. See `calmkit.metrics.intervals`.

BrierLM = 100 (b_1 b_2 b_3 b_4)^(1/4) of mean Brier-n has the error of its linear part,
BrierLM / 4 sum_n (b_n - mean b_n) / mean b_n; where one b_n is not positive it is 0, without
error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from calmkit.comparison import ComparisonResult, VariantResult
from calmkit.experiments import RunResult
from calmkit.metrics import (
    Estimate,
    brier_lm_interval,
    combine_brier,
    linear_weights,
    ratios_without_each,
    resampled_ratios,
)

from .sample import Sample, difference

__all__ = ["Summary", "summarize"]

_RESAMPLES, _SEED, _LEVEL = 1000, 0, 0.95
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
        brier_lm: In per cent; 0 without an error where it is undefined.
        brier: Brier-1..4, in per cent; empty where no run ended well.
        loss: Energy score, or cross entropy of a softmax model.
        brier_lm_difference: To the first variant; None for that one itself, and where it is
            undefined for one of the two.
        brier_difference: Brier-1..4 less those of the first variant, in per cent; empty for that
            one itself.
        loss_difference: The same of the loss; None where the two are different quantities.
        accuracy: Tokens that the sampler's chunks have right, in per cent; None where that was not
            measured.
        accuracy_difference: To the first variant.
        seeds: How many runs these are means over.
    """

    name: str
    brier_lm: Estimate | None = None
    brier: tuple[Estimate, ...] = ()
    loss: Estimate | None = None
    brier_lm_difference: Estimate | None = None
    brier_difference: tuple[Estimate, ...] = ()
    loss_difference: Estimate | None = None
    accuracy: Estimate | None = None
    accuracy_difference: Estimate | None = None
    seeds: int = 0

    @property
    def has_brier_lm(self) -> bool:
        """Whether BrierLM is defined."""
        return self.brier_lm is not None and self.brier_lm.value > 0


def summarize(result: ComparisonResult) -> list[Summary]:
    """Numbers with errors for every variant that has a run; the first is the one compared with."""
    scored = [_Scores(variant) for variant in result.variants if variant.runs]
    return [_summary(one, scored[0]) for one in scored]


class _Scores:
    """Scores of one variant by seed."""

    def __init__(self, variant: VariantResult) -> None:
        self.name = variant.name
        self.runs = {run.seed: run for run in variant.runs}
        self.metrics = _metrics(variant.runs[0])

    def sample(self, seeds: Sequence[int | None]) -> Sample:
        tables = [_columns(self.runs[seed], self.metrics) for seed in seeds]
        values = torch.stack([sums.sum(dim=0) / counts.sum(dim=0) for sums, counts in tables])
        drawn = [resampled_ratios(*table, resamples=_RESAMPLES, seed=_SEED) for table in tables]
        without_each = [ratios_without_each(*table) for table in tables]
        shares = [counts / counts.sum(dim=0) for _, counts in tables]
        if len(self.groups(seeds)) > 1:
            # Each run has documents of its own: leaving one out changes that run only.
            changes = [w - value for w, value in zip(without_each, values, strict=True)]
            together = values.mean(dim=0) + torch.cat(changes) / len(seeds)
            share = torch.cat(shares) / len(seeds)
        else:
            together, share = (torch.stack(x).mean(dim=0) for x in (without_each, shares))
        units = {unit for unit, _ in self.groups(seeds)}
        level = _LEVEL if units == {"documents"} else None
        return Sample(values, torch.stack(drawn).mean(dim=0), together, share, level)

    def groups(self, seeds: Sequence[int | None]) -> set[tuple[str, tuple[int, ...]]]:
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


def _summary(one: _Scores, first: _Scores) -> Summary:
    seeds = list(one.runs)
    sample = one.sample(seeds)
    orders = len(_BRIER)
    found = dict(zip(one.metrics, sample.estimates(), strict=True))
    differences, of_brier_lm = _differences(one, first)
    loss = one.metrics[orders]
    return Summary(
        name=one.name,
        brier_lm=_brier_lm(sample.of([*range(orders)])),
        brier=tuple(found[name] for name in _BRIER),
        loss=found[loss],
        brier_lm_difference=of_brier_lm,
        brier_difference=tuple(differences[name] for name in _BRIER if name in differences),
        loss_difference=differences.get(loss),
        accuracy=found.get(_ACCURACY),
        accuracy_difference=differences.get(_ACCURACY),
        seeds=len(seeds),
    )


def _differences(one: _Scores, first: _Scores) -> tuple[dict[str, Estimate], Estimate | None]:
    """Of every metric that both have, and of BrierLM, over the seeds that both have."""
    orders, both = len(_BRIER), (one, first)
    seeds = [seed for seed in one.runs if seed in first.runs]
    if one is first or not seeds:
        return {}, None
    paired = one.groups(seeds) == first.groups(seeds) and len(one.groups(seeds)) == 1
    samples = [x.sample(seeds) for x in both]
    shared = [name for name in one.metrics if name in first.metrics]
    chosen = [
        sample.of([x.metrics.index(name) for name in shared])
        for sample, x in zip(samples, both, strict=True)
    ]
    found = dict(zip(shared, difference(*chosen, paired=paired), strict=True))
    brier = [sample.of([*range(orders)]) for sample in samples]
    if not all(_score(sample) > 0 for sample in brier):
        return found, None
    (of_brier_lm,) = difference(*map(_linear, brier), paired=paired)
    return found, of_brier_lm


def _brier_lm(sample: Sample) -> Estimate:
    score, interval, linear = _score(sample), None, _linear(sample)
    if sample.level is not None:
        brier = sample.values.mean(dim=0) / _PER_CENT
        each = sample.variance().scaled(1 / _PER_CENT)
        interval = brier_lm_interval(brier, each, linear.variance(), sample.level)
    if not score > 0:
        return Estimate(0.0, None, interval)
    return Estimate(score, float(linear.errors()), interval)


def _score(sample: Sample) -> float:
    return float(combine_brier(sample.values.mean(dim=0) / _PER_CENT))


def _linear(sample: Sample) -> Sample:
    """BrierLM as a weighted sum of Brier-n: of the means it is BrierLM itself."""
    weights = linear_weights(sample.values.mean(dim=0) / _PER_CENT)
    return sample.weighted(weights / _PER_CENT)
