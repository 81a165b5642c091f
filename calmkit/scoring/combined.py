"""Rules made of rules: sums, a spread weight, sampled targets, and scoring in pieces.

They wrap other rules. In a config, for instance:

    class_path: SampledTarget
    init_args: {rule: {class_path: EnergyScore}, num_targets: 100}

A sum of proper rules with positive weights is proper, and strictly proper if one of them is: the
true distribution minimises each term, and is the only minimum of the strictly proper one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.bounds import check_at_least, check_in, check_positive
from calmkit.distributions import DiagonalGaussian
from calmkit.numerics import recomputed
from calmkit.typing import typed

from .base import ScoringRule
from .checks import check_count
from .pairwise import PairwiseScore

__all__ = ["ChunkedScore", "SampledTarget", "SpreadWeighted", "WeightedSum"]


@dataclass(frozen=True)
class WeightedSum(ScoringRule):
    """sum_k w_k S_k(P, v).

    Attributes:
        rules: The terms; at least one.
        weights: Their positive weights; all one if None.
    """

    rules: Sequence[ScoringRule]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Refuse an empty list, weights that are not positive, and unequal numbers of the two."""
        if not self.rules:
            raise ValueError("rules must hold at least one rule; got none.")
        if self.weights is not None and len(self.weights) != len(self.rules):
            raise ValueError(
                f"weights must hold one weight for each of the {len(self.rules)} rules; "
                f"got {len(self.weights)}."
            )
        for weight in self.weights or ():
            check_positive(weight=weight)

    @property
    def min_samples(self) -> int:
        """The largest number that any term needs."""
        return max(rule.min_samples for rule in self.rules)

    @property
    def proper(self) -> bool:
        """Whether all terms are proper."""
        return all(rule.proper for rule in self.rules)

    @property
    def strictly_proper(self) -> bool:
        """Whether all terms are proper and one is strictly proper."""
        return self.proper and any(rule.strictly_proper for rule in self.rules)

    @property
    def condition(self) -> str:
        """The terms' conditions."""
        return "; ".join(f"{type(rule).__name__}: {rule.condition}" for rule in self.rules)

    @property
    def noise_size(self) -> int:
        """The sum over the terms."""
        return sum(rule.noise_size for rule in self.rules)

    @typed
    def score_from(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        target: DiagonalGaussian,
        noise: Float[Tensor, "noise *batch latent"],
    ) -> Float[Tensor, "*batch"]:
        """The sum; each term has its own noise. See `ScoringRule.score_from`."""
        weights = self.weights or [1.0] * len(self.rules)
        noises = noise.split([rule.noise_size for rule in self.rules])
        total = samples.new_zeros(samples.shape[1:-1])
        for rule, weight, own in zip(self.rules, weights, noises, strict=True):
            total = total + weight * rule.score_from(samples, target, own)
        return total


@dataclass(frozen=True)
class SpreadWeighted(ScoringRule):
    """E rho(||X - y||) - w/2 E rho(||X - X'||): a "training temperature".

    Below w = 1 the optimum is narrower than the true distribution, above it wider.
    **Proper at w = 1 only**: at any other weight the true distribution is not the minimum.

    Attributes:
        rule: A score of pairwise distances.
        weight: w, at least 0.
    """

    rule: PairwiseScore
    weight: float

    def __post_init__(self) -> None:
        """Refuse negative weights."""
        check_in("[0, inf)", weight=self.weight)

    @property
    def proper(self) -> bool:
        """True at weight 1 only."""
        return self.weight == 1.0

    @property
    def strictly_proper(self) -> bool:
        """True at weight 1 only."""
        return self.proper and self.rule.strictly_proper

    @property
    def condition(self) -> str:
        """The rule's condition at weight 1; a statement that it is not proper at any other."""
        if self.proper:
            return self.rule.condition
        direction = "too narrow" if self.weight < 1.0 else "too wide"
        return f"not proper: at weight {self.weight:g} a distribution that is {direction} wins"

    @typed
    def score_from(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        target: DiagonalGaussian,
        noise: Float[Tensor, "noise *batch latent"],
    ) -> Float[Tensor, "*batch"]:
        """The rule's two terms, weighted; see `ScoringRule.score_from`."""
        error = self.rule.expected(samples, target).mean(dim=0)
        return error - 0.5 * self.weight * self.rule.spread(samples)


@dataclass(frozen=True)
class _SameRule(ScoringRule):
    """The same rule, computed in a different way; equally proper."""

    rule: ScoringRule

    @property
    def min_samples(self) -> int:
        """The wrapped rule's."""
        return self.rule.min_samples

    @property
    def proper(self) -> bool:
        """The wrapped rule's."""
        return self.rule.proper

    @property
    def strictly_proper(self) -> bool:
        """The wrapped rule's."""
        return self.rule.strictly_proper

    @property
    def condition(self) -> str:
        """The wrapped rule's."""
        return self.rule.condition


@dataclass(frozen=True)
class SampledTarget(_SameRule):
    """Any rule with its target drawn instead of integrated, as in arXiv 2510.27688 (M = 100).

    The expected score is the same, but the gradient is noisier. Meant for comparisons.

    Attributes:
        rule: The rule whose target is drawn.
        num_targets: M, draws of the target for each position.
    """

    num_targets: int = 100

    def __post_init__(self) -> None:
        """Refuse to draw nothing."""
        check_at_least(1, num_targets=self.num_targets)

    @property
    def noise_size(self) -> int:
        """One vector per target, and the wrapped rule's."""
        return self.num_targets + self.rule.noise_size

    @typed
    def score_from(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        target: DiagonalGaussian,
        noise: Float[Tensor, "noise *batch latent"],
    ) -> Float[Tensor, "*batch"]:
        """The mean over the drawn targets; see `ScoringRule.score_from`."""
        outcomes = target.rsample_from(noise[: self.num_targets])
        return self.rule.score_outcomes(samples, outcomes, noise[self.num_targets :])


@dataclass(frozen=True)
class ChunkedScore(_SameRule):
    """Any rule, a few positions at a time: the same numbers with the memory of one piece.

    Each piece is recomputed in the backward pass, so that the intermediate tensors of two pieces
    are never in memory together.

    Attributes:
        rule: The rule.
        positions: Number of positions in a piece.
    """

    positions: int = 256

    def __post_init__(self) -> None:
        """Refuse empty pieces."""
        check_at_least(1, positions=self.positions)

    @property
    def noise_size(self) -> int:
        """The wrapped rule's."""
        return self.rule.noise_size

    @typed
    def score_from(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        target: DiagonalGaussian,
        noise: Float[Tensor, "noise *batch latent"],
    ) -> Float[Tensor, "*batch"]:
        """The rule's scores, piece by piece; see `ScoringRule.score_from`.

        Raises:
            ValueError: If there are too few samples, or they have no dimensions.
        """
        check_count(samples, self.min_samples)
        batch, latent = samples.shape[1:-1], samples.shape[-1]
        if batch.numel() == 0:
            return self.rule.score_from(samples, target, noise)
        rows = [x.reshape(-1, batch.numel(), latent) for x in (samples, noise)]
        rows += [x.reshape(1, batch.numel(), latent) for x in (target.mean, target.std)]
        pieces = [
            recomputed(self._piece, *piece)
            for piece in zip(*(x.split(self.positions, dim=1) for x in rows), strict=True)
        ]
        return torch.cat(pieces).reshape(batch)

    def _piece(self, samples: Tensor, noise: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        return self.rule.score_from(samples, DiagonalGaussian(mean[0], std[0]), noise)
