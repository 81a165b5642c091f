"""Expected scores on a finite support, where they are finite sums.

    S(p, q) = sum_y q(y) sum_{x_1 ... x_m} p(x_1) ... p(x_m) s(x_1, ..., x_m; y)

is the expected score of a prediction p under a truth q, so that unbiasedness and propriety are
checked to rounding, without a single draw. It is also a polynomial in p, which can be searched for
a wrong distribution that scores as well as the truth.
"""

import torch
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring import ScoringRule
from calmkit.testing.rules.trial import RuleTrial

__all__ = ["PROBLEMS", "expected", "problem", "scores_of"]

PROBLEMS = range(10**6)  # by number

_FEW = 3


def scores_of(trial: RuleTrial, rule: ScoringRule, support: Tensor, samples: int) -> Tensor:
    """S for each outcome and each tuple of samples from a support: (outcome, x_1, ..., x_m)."""
    size = len(support)
    index = torch.cartesian_prod(*[torch.arange(size)] * (1 + samples))
    outcome, *drawn = index.view(-1, 1 + samples).T
    # One noise for all: each of its values is a proper score of its own.
    noise = trial.noise(rule, (1,), support.shape[-1]).expand(-1, len(outcome), -1)
    target = DiagonalGaussian.point_mass(support[outcome])
    score = trial.call(rule.score_from, torch.stack([support[i] for i in drawn]), target, noise)
    return score.view(*[size] * (1 + samples))


def expected(scores: Tensor, prediction: Tensor, truth: Tensor) -> Tensor:
    """S(p, q) from all scores."""
    total = torch.tensordot(truth, scores, dims=1)
    while total.ndim:
        total = torch.tensordot(prediction, total, dims=1)
    return total


def problem(trial: RuleTrial, number: int, size: int = _FEW) -> tuple[Tensor, Tensor, Tensor]:
    """Points in the plane at least 1/2 apart, a truth on them, and a rival."""
    generator = trial.generator(number)
    while True:
        support = 1.5 * torch.randn(size, 2, generator=generator)
        if torch.pdist(support).min() > 0.5:
            break
    truth, rival = torch.randn(2, size, generator=generator).softmax(dim=-1)
    return support, truth, rival
