"""Expected scores on a finite support, computed as finite sums.

    S(p, q) = sum_y q(y) sum_{x_1 ... x_m} p(x_1) ... p(x_m) s(x_1, ..., x_m; y)

is the expected score of a prediction p under a truth q. Unbiasedness and propriety are therefore
checked to rounding, without random draws. S is also a polynomial in p, which can be searched for a
wrong distribution that scores as well as the truth. The rule scores many problems in one call.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring import ScoringRule
from calmkit.testing.rules.trial import RuleTrial

__all__ = ["Problems", "expected", "problem_blocks", "problems", "scores_of"]

# A problem costs a fraction of an example, and few problems reveal a slightly improper rule.
_PROBLEMS_PER_EXAMPLE = 10
_FEW = 3
# Positions in one call of the rule.
_POSITIONS = 20_000


@dataclass(frozen=True)
class Problems:
    """Points in the plane at least 1/2 apart, a truth on them, and a rival, for each problem.

    Attributes:
        support: The points, `problems size 2`.
        truth: Their probabilities, `problems size`.
        rival: Other probabilities, `problems size`.
    """

    support: Tensor
    truth: Tensor
    rival: Tensor

    @property
    def distance(self) -> Tensor:
        """The total variation between rival and truth."""
        return (self.rival - self.truth).abs().sum(dim=-1) / 2


def problems(trial: RuleTrial, numbers: range, size: int = _FEW) -> Problems:
    """The problems of some numbers, each from a generator of its own."""
    rows = [_problem(trial.generator(number), size) for number in numbers]
    return Problems(*map(torch.stack, zip(*rows, strict=True)))


def problem_blocks(trial: RuleTrial, samples: int) -> Iterator[Problems]:
    """All problems of the profile, in blocks whose tuples of samples fit into one call."""
    count = _PROBLEMS_PER_EXAMPLE * trial.profile.examples
    block = max(1, _POSITIONS // _FEW ** (1 + samples))
    for first in range(0, count, block):
        yield problems(trial, range(first, min(first + block, count)))


def _problem(generator: torch.Generator, size: int) -> tuple[Tensor, Tensor, Tensor]:
    while True:
        support = 1.5 * torch.randn(size, 2, generator=generator)
        if torch.pdist(support).min() > 0.5:
            break
    truth, rival = torch.randn(2, size, generator=generator).softmax(dim=-1)
    return support, truth, rival


def scores_of(trial: RuleTrial, rule: ScoringRule, support: Tensor, samples: int) -> Tensor:
    """S for each outcome and each tuple of samples: (problems, outcome, x_1, ..., x_m)."""
    count, size, dimensions = support.shape
    index = torch.cartesian_prod(*[torch.arange(size)] * (1 + samples))
    outcome, *drawn = support[:, index.view(-1, 1 + samples)].unbind(dim=2)
    # One noise for all outcomes: for each value of it, the score is proper.
    noise = trial.noise(rule, (1, 1), dimensions).expand(-1, *outcome.shape)
    target = DiagonalGaussian.point_mass(outcome)
    score = trial.call(rule.score_from, torch.stack(drawn), target, noise)
    return score.view(count, *[size] * (1 + samples))


def expected(scores: Tensor, prediction: Tensor, truth: Tensor) -> Tensor:
    """S(p, q) of each problem from all its scores."""
    total = _averaged(scores, truth)
    while total.ndim > 1:
        total = _averaged(total, prediction)
    return total


def _averaged(scores: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("pi...,pi->p...", scores, weights)
