r"""The contract of a scoring rule.

A rule S(P, v) judges a predictive distribution P by an outcome v. Orientation: **lower is
better**. It is *proper* if E_{v ~ Q} S(P, v) is smallest at P = Q, and *strictly* proper if it
is smallest there only. Trained on a strictly proper rule, a sampler can win only by matching the
data's distribution.

Source: Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation",
JASA 2007.
"""

import abc

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.distributions import DiagonalGaussian

__all__ = ["ScoringRule"]


class ScoringRule(abc.ABC):
    """Scores the samples of a predictive distribution; holds settings, no tensors."""

    @property
    @abc.abstractmethod
    def strictly_proper(self) -> bool:
        """Whether only the true distribution attains the smallest expected score."""

    @abc.abstractmethod
    def score(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        target: DiagonalGaussian,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Estimate E_{v ~ target} S(P, v) without bias, from independent samples of P.

        Args:
            samples: Independent draws from P; differentiable.
            target: Distribution of the outcome; a point mass for a plain observation.
            generator: Randomness for rules that draw; unused by closed forms.

        Raises:
            ValueError: If there are too few samples, or shapes do not fit.
        """
