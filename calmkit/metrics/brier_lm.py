r"""BrierLM: one number for a language model that can only be sampled.

    BrierLM = 100 (Brier-1 Brier-2 ... Brier-n)^(1/n),    n = 4 as published

Orientation: **higher is better**, at most 100. Each Brier-n is estimated without bias and can
therefore be negative, for a weak model or by chance. The geometric mean is then undefined:
`brier_lm` is 0, and `not_positive` names the orders. (The published code clips the *product* at
zero, so a collapsed model with four negative scores reaches 100.)

Standard errors, including that of BrierLM, come from a bootstrap over documents: each resample has
its own Brier-n and BrierLM, which is 0 where a Brier-n is not positive. Intervals are those of
`intervals`. The interval of BrierLM is that of its linearisation,

    BrierLM / n sum_k (b_k - Brier-k) / Brier-k,

cut off at 0. If BrierLM is undefined, its interval reaches from 0 to the BrierLM of the upper ends
of all Brier-k.

Source: "Continuous Autoregressive Language Models", arXiv 2510.27688.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.typing import typed

from .bootstrap import Estimate, bootstrap_ratio, errors_of, resampled_ratios
from .intervals import Interval, Variance, jackknife, ratios_without_each
from .ngram_sums import NgramSums

__all__ = [
    "BrierLMResult",
    "NgramScore",
    "brier_lm_interval",
    "combine_brier",
    "linear_weights",
    "summarize_brier",
]


@dataclass(frozen=True)
class NgramScore:
    """Brier-n and its two terms, times 100.

    Attributes:
        brier: 2 `hit` - `collision`; higher is better.
        hit: Rate at which a draw equals the target.
        collision: Rate at which two draws are equal.
    """

    brier: Estimate
    hit: Estimate
    collision: Estimate


@dataclass(frozen=True)
class BrierLMResult:
    """BrierLM with its components; all numbers are in per cent.

    Attributes:
        estimate: The score, 0 if it is undefined, with its error and interval.
        ngrams: Brier-1, Brier-2, ..., signed, and their terms.
        places: For each n, the same for the n-grams that start at each place of the chunk; NaN
            at places where no n-gram counts.
        protocol: The evaluation in one sentence, printed with its numbers.
    """

    estimate: Estimate
    ngrams: tuple[NgramScore, ...]
    places: tuple[tuple[NgramScore, ...], ...]
    protocol: str = ""

    @property
    def brier_lm(self) -> float:
        """The score, 0 if it is undefined."""
        return self.estimate.value

    @property
    def brier(self) -> tuple[Estimate, ...]:
        """Brier-1, Brier-2, ..., signed."""
        return tuple(score.brier for score in self.ngrams)

    @property
    def not_positive(self) -> tuple[int, ...]:
        """The orders n whose Brier-n is zero or negative, which makes BrierLM 0."""
        return tuple(n for n, brier in enumerate(self.brier, start=1) if brier.value <= 0)

    @property
    def is_deterministic(self) -> bool:
        """Whether all draws equal each other but not the text, as without any randomness.

        Each Brier-n is then 2 hit - 100 and says nothing of the model's distribution.
        """
        equal = all(score.collision.value > 100 - 1e-7 for score in self.ngrams)
        return equal and self.ngrams[0].hit.value < 100 - 1e-7

    def __str__(self) -> str:
        """The numbers as a table, why there is no BrierLM if there is none, and the protocol."""
        lines = [f"BrierLM  {_text(self.estimate)}"]
        if self.not_positive:
            which = ", ".join(f"Brier-{n}" for n in self.not_positive)
            lines = [f"BrierLM  0, since not positive: {which}"]
        if self.is_deterministic:
            lines.append("         ALARM: all draws are equal, as from a deterministic sampler")
        for n, (score, places) in enumerate(zip(self.ngrams, self.places, strict=True), start=1):
            terms = f"hit {score.hit.value:.2f}, collision {score.collision.value:.2f}"
            lines.append(f"Brier-{n}  {_text(score.brier)}; {terms}")
            values = [place.brier.value for place in places]
            if sum(map(math.isfinite, values)) > 1:
                each = ", ".join(f"{value:.2f}" for value in values if math.isfinite(value))
                lines.append(f"         by place in the chunk: {each}")
        return "\n".join([*lines, f"Protocol: {self.protocol or 'not stated'}"])


@typed
def combine_brier(brier: Float[Tensor, "*batch orders"]) -> Float[Tensor, "*batch"]:
    """BrierLM of Brier-1, Brier-2, ...: 100 times their geometric mean, or 0.

    Args:
        brier: The scores, at most 1 each. If any is not positive, BrierLM is undefined and the
            result is 0. If any is NaN, the result is NaN.
    """
    defined = (brier > 0).all(dim=-1)
    mean = torch.where(defined[..., None], brier, 1.0).log().mean(dim=-1).exp()
    score = torch.where(defined, 100 * mean, 0.0)
    return torch.where(brier.isnan().any(dim=-1), math.nan, score)


@typed
def linear_weights(brier: Float[Tensor, " orders"]) -> Float[Tensor, " orders"]:
    """The gradient of BrierLM with respect to each Brier-n."""
    return combine_brier(brier) / len(brier) / brier


@typed
def brier_lm_interval(
    brier: Float[Tensor, " orders"], each: Variance, linear: Variance, level: float = 0.95
) -> Interval | None:
    """The confidence interval of BrierLM (module docstring); None if there is no variance.

    Args:
        brier: Brier-1, Brier-2, ...
        each: Their variances.
        linear: The variance of their sum, weighted by `linear_weights`; one number.
        level: Nominal coverage of the interval.

    Raises:
        ValueError: If the level is not in (0, 1).
    """
    score = combine_brier(brier)
    if score > 0:
        (interval,) = linear.intervals(score[None], level)
        return interval and (max(interval[0], 0.0), min(interval[1], 100.0))
    ends = [interval[1] for interval in each.intervals(brier, level) if interval is not None]
    if len(ends) < len(brier):
        return None
    return 0.0, float(combine_brier(brier.new_tensor(ends).clamp_max(1.0)))


@typed
def summarize_brier(
    sums: NgramSums,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float | None = 0.95,
    protocol: str = "",
) -> BrierLMResult:
    """Combine sums over n-grams into BrierLM.

    Args:
        sums: Sums over at least two groups.
        resamples: Number of bootstrap draws over groups.
        seed: Seed of the bootstrap.
        level: Nominal coverage of the confidence intervals. None, for groups that are not
            independent, means no intervals.
        protocol: How the sums were measured, in one sentence.

    Raises:
        ValueError: If there are fewer than two groups or resamples, or no n-gram of some order
            counts.
    """
    counts = sums.counts.sum(dim=-1)
    empty = [f"Brier-{n}" for n, count in enumerate(counts.sum(dim=0), start=1) if count == 0]
    if empty:
        raise ValueError(
            f"sums must count n-grams of every order; {', '.join(empty)} has none. Give longer "
            "texts, or a lower highest order."
        )
    total = 2 * sums.hits.sum(dim=-1) - sums.collisions.sum(dim=-1)
    drawn = combine_brier(resampled_ratios(total, counts, resamples=resamples, seed=seed))
    error = float(errors_of(drawn[:, None]))
    estimate = Estimate(
        value=float(combine_brier(total.sum(dim=0) / counts.sum(dim=0))),
        standard_error=None if math.isnan(error) else error,
        interval=None if level is None else _interval(total, counts, level),
    )
    whole, *places = zip(*_scores(sums, resamples=resamples, seed=seed, level=level), strict=True)
    return BrierLMResult(estimate, whole, tuple(zip(*places, strict=True)), protocol)


def _interval(
    total: Float[Tensor, "groups orders"], counts: Float[Tensor, "groups orders"], level: float
) -> Interval | None:
    brier = total.sum(dim=0) / counts.sum(dim=0)
    without_each, shares = ratios_without_each(total, counts), counts / counts.sum(dim=0)
    weights = linear_weights(brier)
    linear = jackknife(
        (brier @ weights)[None], (without_each @ weights)[:, None], shares.mean(dim=1)[:, None]
    )
    return brier_lm_interval(brier, jackknife(brier, without_each, shares), linear, level)


def _scores(
    sums: NgramSums, *, resamples: int, seed: int, level: float | None
) -> list[tuple[NgramScore, ...]]:
    """For each order, Brier-n over all places of the chunk, then at each place."""
    terms = torch.stack([2 * sums.hits - sums.collisions, sums.hits, sums.collisions], dim=-1)
    terms = torch.cat([terms.sum(dim=2, keepdim=True), terms], dim=2)
    counts = torch.cat([sums.counts.sum(dim=2, keepdim=True), sums.counts], dim=2)
    shape = terms.shape[1:]  # orders, 1 + places, 3
    counts = counts[..., None].expand_as(terms).flatten(1)
    counted = counts.sum(dim=0) > 0
    found = iter(
        bootstrap_ratio(
            terms.flatten(1)[:, counted],
            counts[:, counted],
            resamples=resamples,
            seed=seed,
            level=level,
        )
    )
    each = iter(next(found).scaled(100) if there else _NOTHING for there in counted.tolist())
    return [
        tuple(NgramScore(next(each), next(each), next(each)) for _ in range(shape[1]))
        for _ in range(shape[0])
    ]


_NOTHING = Estimate(math.nan, None)


def _text(estimate: Estimate) -> str:
    text = f"{estimate.value:.2f}"
    if estimate.standard_error is not None:
        text += f" ± {estimate.standard_error:.2f}"
    if estimate.interval is not None:
        text += f" ({estimate.interval[0]:.2f} to {estimate.interval[1]:.2f})"
    return text
