r"""Summarize runs: means over seeds and differences to the first variant, with errors.

Every variant v is trained with seeds s and measured on documents d. A score is a ratio of sums
over documents, averaged over seeds:

    m_v = 1/S sum_s (sum_d sums_vsd) / (sum_d counts_vsd)

Another experiment would have other documents and other seeds, so the error has two parts,

    se^2 = Var*[m_v] + 1/S Var_s[m_vs].

The first part is over resampled documents (the same ones in all runs), the second over seeds. With
a single seed the second part is missing, and the error says nothing about training. Interactions
of documents and seeds enter both parts, so the error is slightly conservative.

A difference to the first variant is over the seeds and the documents that both have, with the same
resampled documents in both, so that shared difficulty cancels. A document counts as shared if the
same number of its tokens was scored in both. If errors are over rows, only the same set of rows
is shared. Without a shared seed, or with fewer than two shared documents, there is no difference.

A confidence interval combines the same two parts, the first from a jackknife over documents, with
a quantile of Student's t, which is large for two or three seeds that differ. If errors are over
rows there is no interval. See `calmkit.metrics.intervals`.

BrierLM = 100 (b_1 b_2 b_3 b_4)^(1/4) of mean Brier-n has the error of its linear part,
BrierLM / 4 sum_n (b_n - mean b_n) / mean b_n. If one b_n is not positive, BrierLM is 0 without an
error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calmkit.metrics import (
    DocumentScores,
    Estimate,
    brier_lm_interval,
    combine_brier,
    linear_weights,
    ratios_without_each,
    resampled_ratios,
)

from .resampled_metrics import Sample
from .results import ComparisonResult

__all__ = ["Summary", "summarize"]

_RESAMPLES, _SEED, _LEVEL = 1000, 0, 0.95
_BRIER = tuple(f"brier_{n}" for n in (1, 2, 3, 4))
_ACCURACY = "chosen_accuracy"
_LOSSES = ("energy_score", "cross_entropy")
# Brier scores and accuracy are reported in per cent.
_PER_CENT = 100.0
_IN_PER_CENT = (*_BRIER, _ACCURACY)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The scores of one variant, over all its seeds.

    Attributes:
        name: Name of the variant.
        brier_lm: BrierLM; 0 without an error if undefined.
        brier: Brier-1..4, in per cent; empty if every run failed.
        loss: Energy score, or cross entropy of a softmax model.
        brier_lm_difference: BrierLM minus that of the first variant; None for the first variant,
            and if one of the two is undefined.
        brier_difference: Brier-1..4 minus those of the first variant, in per cent; empty for the
            first variant.
        loss_difference: Loss minus that of the first variant; None if the losses are different
            quantities.
        accuracy: Sampler accuracy, in per cent; None if it was not measured.
        accuracy_difference: Accuracy minus that of the first variant.
        seeds: Seeds of the runs in the means.
        documents: Smallest number of documents (or rows) of a run.
        shared_seeds: Seeds in the differences; empty if there are none.
        shared_documents: Smallest number of documents (or rows) of a seed in the differences.
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
    seeds: tuple[int | None, ...] = ()
    documents: int = 0
    shared_seeds: tuple[int | None, ...] = ()
    shared_documents: int = 0

    @property
    def has_brier_lm(self) -> bool:
        """Whether BrierLM is defined."""
        return self.brier_lm is not None and self.brier_lm.value > 0


def summarize(result: ComparisonResult) -> list[Summary]:
    """Summarize every variant that has a run; differences are to the first of them."""
    scored = [
        (variant.name, _Scores({run.seed: run.documents for run in variant.runs}))
        for variant in result.variants
        if variant.runs
    ]
    return [_summary(name, one, scored[0][1]) for name, one in scored]


@dataclass(frozen=True, eq=False)
class _Scores:
    """Scores of one variant by seed."""

    runs: Mapping[int | None, DocumentScores]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Brier-1..4, the loss, and the sampler accuracy if it was measured."""
        known = next(iter(self.runs.values())).names
        return (*_BRIER, *(name for name in (*_LOSSES, _ACCURACY) if name in known))

    @property
    def documents(self) -> int:
        """Smallest number of documents of a run."""
        return min((len(run.groups) for run in self.runs.values()), default=0)

    def sample(self) -> Sample:
        tables = [_columns(run, self.metrics) for run in self.runs.values()]
        values = torch.stack([sums.sum(dim=0) / counts.sum(dim=0) for sums, counts in tables])
        drawn = [resampled_ratios(*table, resamples=_RESAMPLES, seed=_SEED) for table in tables]
        without_each = [ratios_without_each(*table) for table in tables]
        shares = [counts / counts.sum(dim=0) for _, counts in tables]
        if len({(run.unit, run.groups) for run in self.runs.values()}) > 1:
            # The runs have different documents: leaving one out changes a single run.
            changes = [w - value for w, value in zip(without_each, values, strict=True)]
            together = values.mean(dim=0) + torch.cat(changes) / len(tables)
            share = torch.cat(shares) / len(tables)
        else:
            together, share = (torch.stack(x).mean(dim=0) for x in (without_each, shares))
        units = {run.unit for run in self.runs.values()}
        level = _LEVEL if units == {"documents"} else None
        return Sample(values, torch.stack(drawn).mean(dim=0), together, share, level)

    def shared_with(self, other: "_Scores") -> "_Scores":
        """The seeds and documents that the other variant has as well."""
        found = {
            seed: _rows(run, _shared_groups(run, other.runs[seed]))
            for seed, run in self.runs.items()
            if seed in other.runs
        }
        return _Scores(
            {
                seed: run
                for seed, run in found.items()
                if len(run.groups) > 1 and bool((run.counts.sum(dim=0) > 0).all())
            }
        )


def _shared_groups(one: DocumentScores, other: DocumentScores) -> list[int]:
    """Places in the first scores of the documents of which the others score the same tokens."""
    counts = [scores.select(_BRIER[0]).counts[:, 0].tolist() for scores in (one, other)]
    scored = dict(zip(other.groups, counts[1], strict=True))
    both = zip(one.groups, counts[0], strict=True)
    places = [place for place, (name, count) in enumerate(both) if scored.get(name) == count]
    if "rows" in (one.unit, other.unit):  # numbered in each evaluation
        whole = (one.unit, one.groups) == (other.unit, other.groups)
        return places if whole and len(places) == len(one.groups) else []
    return places


def _rows(scores: DocumentScores, places: list[int]) -> DocumentScores:
    """The scores of some documents."""
    return replace(
        scores,
        sums=scores.sums[places],
        counts=scores.counts[places],
        groups=tuple(scores.groups[place] for place in places),
    )


def _columns(scores: DocumentScores, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    found = scores.select(*names)
    scale = [_PER_CENT if name in _IN_PER_CENT else 1.0 for name in names]
    return found.sums * torch.tensor(scale).to(found.sums.dtype), found.counts


def _summary(name: str, one: _Scores, first: _Scores) -> Summary:
    sample = one.sample()
    found = dict(zip(one.metrics, sample.estimates(), strict=True))
    shared = _Scores({}) if one is first else one.shared_with(first)
    differences, of_brier_lm = _differences(shared, first)
    loss = one.metrics[len(_BRIER)]
    return Summary(
        name=name,
        brier_lm=_brier_lm(sample.of([*range(len(_BRIER))])),
        brier=tuple(found[name] for name in _BRIER),
        loss=found[loss],
        brier_lm_difference=of_brier_lm,
        brier_difference=tuple(differences[name] for name in _BRIER if name in differences),
        loss_difference=differences.get(loss),
        accuracy=found.get(_ACCURACY),
        accuracy_difference=differences.get(_ACCURACY),
        seeds=tuple(one.runs),
        documents=one.documents,
        shared_seeds=tuple(shared.runs),
        shared_documents=shared.documents,
    )


def _differences(one: _Scores, first: _Scores) -> tuple[dict[str, Estimate], Estimate | None]:
    """Differences in all shared metrics and in BrierLM, over the shared seeds and documents."""
    if not one.runs:
        return {}, None
    both = one, first.shared_with(one)
    samples = [x.sample() for x in both]
    shared = [name for name in one.metrics if name in first.metrics]
    chosen, base = (
        sample.of([x.metrics.index(name) for name in shared])
        for sample, x in zip(samples, both, strict=True)
    )
    found = dict(zip(shared, chosen.less(base).estimates(), strict=True))
    brier = [sample.of([*range(len(_BRIER))]) for sample in samples]
    if not all(_score(sample) > 0 for sample in brier):
        return found, None
    linear, linear_base = map(_linear, brier)
    (of_brier_lm,) = linear.less(linear_base).estimates()
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
    """BrierLM linearised at the means, as a weighted sum of Brier-n."""
    weights = linear_weights(sample.values.mean(dim=0) / _PER_CENT)
    return sample.weighted(weights / _PER_CENT)
