r"""Energy score: a strictly proper rule for vectors, estimated from samples alone.

    S(P, y) = E||X - y||^a - 1/2 E||X - X'||^a,    X, X' ~ P independent, 0 < a < 2.

Orientation: **lower is better**, with the 1/2 (the loss of arXiv 2510.27688 is 2 S). The
U-statistic over m >= 2 samples is unbiased. Strictly proper for every 0 < a < 2 on distributions
with finite E||X||^a; at a = 2 it sees the mean only.

Source: Gneiting and Raftery, JASA 2007, section 4.3.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.numerics import in_full_precision
from calmkit.typing import typed

from .moments import check_alpha, expected_distance
from .pairwise import PairwiseScore
from .vectors import Array, Vectors, like

__all__ = ["EnergyScore", "energy_score"]


@typed
def energy_score(
    samples: Float[Array, "samples *batch latent"],
    observation: Float[Array, "*batch latent"],
    *,
    alpha: float = 1.0,
    weights: Float[Array, "*vector"] | None = None,
    mask: Bool[Array, "*batch latent"] | None = None,
    vector_axes: int = 1,
) -> Float[Array, "*scores"]:
    """Estimate the energy score of an observation without bias.

        1/m sum_i ||x_i - y||^a - 1/(m (m-1)) sum_{i < j} ||x_i - x_j||^a

    Args:
        samples: Independent draws from the prediction; at least two. Tensors or NumPy arrays.
        observation: The outcome y.
        alpha: Exponent a in (0, 2).
        weights: Weights of the dimensions; the distance is sqrt(sum_i w_i (x_i - y_i)^2).
        mask: True where a value is observed; the others are left out.
        vector_axes: Number of last axes that make up one vector.

    Raises:
        ValueError: If alpha is out of range, fewer than two samples are given, weights do not fit
            or are negative, or an observed value is not finite.
    """
    given = Vectors.of(samples, observation, weights=weights, mask=mask, vector_axes=vector_axes)
    x, y = given.stretched()
    rule = EnergyScore(alpha)
    return like(samples, in_full_precision(rule.score_outcomes)(x, y[None], x[:0]))


@dataclass(frozen=True)
class EnergyScore(PairwiseScore):
    """The energy score with its target term integrated exactly.

    Attributes:
        alpha: Exponent in (0, 2); 1 as in the paper.
    """

    alpha: float = 1.0

    strictly_proper = True

    def __post_init__(self) -> None:
        """Refuse exponents outside (0, 2)."""
        check_alpha(self.alpha)

    @property
    def condition(self) -> str:
        """That a moment is finite."""
        return f"strictly proper on distributions with finite E||X||^{self.alpha:g}"

    @typed
    def of_distance(self, distance: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Distance to the power alpha. At zero all derivatives are taken as zero."""
        # At zero the power is taken of 1 instead: the gradient at a tie would be 0 * inf.
        apart = distance > torch.finfo(distance.dtype).tiny
        return torch.where(apart, torch.where(apart, distance, 1.0).pow(self.alpha), 0.0)

    @typed
    def expected(
        self, samples: Float[Tensor, "samples *batch latent"], target: DiagonalGaussian
    ) -> Float[Tensor, "samples *batch"]:
        """E||x - z||^alpha; see `expected_distance`."""
        return expected_distance(samples, target, alpha=self.alpha)
