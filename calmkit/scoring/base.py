r"""The contract of a scoring rule.

A rule S(P, v) judges a predictive distribution P by an outcome v. Orientation: **lower is
better**. It is *proper* if E_{v ~ Q} S(P, v) is smallest at P = Q, and *strictly* proper if it
is smallest there only. Trained on a strictly proper rule, a sampler can win only by matching the
data's distribution.

Here P is given by independent samples and the outcome by a Gaussian. A rule takes the expectation
over that Gaussian in closed form where there is one. `score` is a thin shell: it checks its
arguments, raises the precision and draws noise. `score_from` is the deterministic core.

Source: Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation",
JASA 2007.
"""

import abc

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.distributions import DiagonalGaussian, Target, standard_normal
from calmkit.finite import check_finite
from calmkit.numerics import in_full_precision, recomputed
from calmkit.recording import Recorded
from calmkit.typing import typed

from .checks import check_count, check_target

__all__ = ["ScoringRule"]


class ScoringRule(Recorded, abc.ABC):
    """Scores the samples of a predictive distribution; holds settings, no tensors."""

    @property
    @abc.abstractmethod
    def strictly_proper(self) -> bool:
        """Whether only the true distribution attains the smallest expected score."""

    @property
    @abc.abstractmethod
    def condition(self) -> str:
        """In words: on which distributions the rule is strictly proper, or what it cannot see."""

    @property
    def proper(self) -> bool:
        """Whether the true distribution attains the smallest expected score."""
        return True

    @property
    def min_samples(self) -> int:
        """Fewest samples from which the score can be estimated."""
        return 2

    @property
    def noise_size(self) -> int:
        """Standard normal vectors that one score consumes; 0 for closed forms."""
        return 0

    @abc.abstractmethod
    def score_from(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        target: DiagonalGaussian,
        noise: Float[Tensor, "noise *batch latent"],
    ) -> Float[Tensor, "*batch"]:
        """Estimate E_{v ~ target} S(P, v) without bias; the deterministic core of `score`.

        Positions must not mix: each score depends only on its own samples, target and noise.

        Args:
            samples: Independent draws from P, in float32 or better.
            target: Distribution of the outcome.
            noise: `noise_size` independent standard normal vectors for each position.
        """

    @typed
    def score_outcomes(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        outcomes: Float[Tensor, "outcomes *batch latent"],
        noise: Float[Tensor, "noise *batch latent"],
    ) -> Float[Tensor, "*batch"]:
        """The mean of S(P, y) over given outcomes y; holds the graph of one outcome at a time.

        Args:
            samples: Independent draws from P, in float32 or better.
            outcomes: The outcomes y; at least one.
            noise: As in `score_from`; shared by the outcomes.

        Raises:
            ValueError: If there is no outcome, or there are too few samples or no dimensions.
        """
        self._check_outcomes(samples, outcomes)
        total = samples.new_zeros(samples.shape[1:-1])
        for outcome in outcomes:
            total = total + recomputed(self._score_outcome, samples, outcome, noise)
        return total / len(outcomes)

    def _check_outcomes(self, samples: Tensor, outcomes: Tensor) -> None:
        check_count(samples, self.min_samples)
        if len(outcomes) < 1:
            raise ValueError("outcomes must hold at least 1 outcome; got 0.")

    def _score_outcome(self, samples: Tensor, outcome: Tensor, noise: Tensor) -> Tensor:
        return self.score_from(samples, DiagonalGaussian.point_mass(outcome), noise)

    @typed
    def score(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        target: Target,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Estimate E_{v ~ target} S(P, v) without bias, from independent samples of P.

        Computed at least in float32, also under autocast.

        Args:
            samples: Independent draws from P; differentiable.
            target: Distribution of the outcome; or a tensor, the outcome itself.
            generator: Randomness for rules that draw; unused by closed forms.

        Raises:
            ValueError: If there are too few samples or no dimensions, shapes do not fit or a
                standard deviation is negative; as a `NonFiniteError`, if a value of samples, mean
                or std is not finite. (Values are checked on the CPU only.)
        """
        check_count(samples, self.min_samples)
        target = DiagonalGaussian.of(target)
        check_target(samples, target)
        check_finite(samples=samples)
        # A position's vectors are contiguous: distances between them are then computed fastest.
        shape = (*samples.shape[1:-1], self.noise_size, samples.shape[-1])
        dtype = torch.promote_types(samples.dtype, torch.float32)
        noise = standard_normal(shape, generator, dtype=dtype, device=samples.device)
        noise = noise.movedim(-2, 0)
        return in_full_precision(self.score_from)(samples, target, noise)

    def __call__(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        target: Target,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """The same as `score`."""
        return self.score(samples, target, generator)
