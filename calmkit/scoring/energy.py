r"""Energy score: a strictly proper rule for vectors, estimated from samples alone.

    S(P, y) = E||X - y||^a - 1/2 E||X - X'||^a,    X, X' ~ P independent, 0 < a < 2.

Orientation: **lower is better**, with the 1/2 (the loss of arXiv 2510.27688 is 2 S). The
U-statistic over m >= 2 samples is unbiased. Strictly proper for every 0 < a < 2 on distributions
with finite E||X||^a; at a = 2 it sees the mean only.

Source: Gneiting and Raftery, JASA 2007, section 4.3.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring.base import ScoringRule
from calmkit.scoring.moments import check_alpha, expected_distance
from calmkit.typing import typed

__all__ = ["EnergyScore", "energy_score"]


@typed
def energy_score(
    samples: Float[Tensor, "samples *batch latent"],
    observation: Float[Tensor, "*batch latent"],
    *,
    alpha: float = 1.0,
) -> Float[Tensor, "*batch"]:
    """Estimate the energy score of an observation without bias.

        1/m sum_i ||x_i - y||^a - 1/(m (m-1)) sum_{i < j} ||x_i - x_j||^a

    Args:
        samples: Independent draws from the prediction; at least two.
        observation: The outcome y.
        alpha: Exponent a in (0, 2).

    Raises:
        ValueError: If alpha is out of range or fewer than two samples are given.
    """
    check_alpha(alpha)
    error = _distance(samples - observation, alpha).mean(dim=0)
    return error - 0.5 * mean_pair_distance(samples, alpha=alpha)


@typed
def mean_pair_distance(
    samples: Float[Tensor, "samples *batch latent"], *, alpha: float = 1.0
) -> Float[Tensor, "*batch"]:
    """Estimate E||X - X'||^alpha without bias, from pairs i < j of independent samples.

    Raises:
        ValueError: If fewer than two samples are given.
    """
    num_samples = samples.shape[0]
    if num_samples < 2:
        raise ValueError(f"samples must hold at least 2 draws to be unbiased; got {num_samples}.")
    first, second = torch.triu_indices(num_samples, num_samples, offset=1, device=samples.device)
    return _distance(samples[first] - samples[second], alpha).mean(dim=0)


@dataclass(frozen=True)
class EnergyScore(ScoringRule):
    """The energy score with its target term integrated exactly.

    Attributes:
        alpha: Exponent in (0, 2); 1 as in the paper.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        """Refuse exponents outside (0, 2)."""
        check_alpha(self.alpha)

    @property
    def strictly_proper(self) -> bool:
        """True: for every exponent in (0, 2)."""
        return True

    @typed
    def score(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        target: DiagonalGaussian,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """E_{v ~ target} S(P, v), without bias and without drawing targets.

        Computed in float32 at least, also under autocast.

        Raises:
            ValueError: If fewer than two samples are given, or shapes do not fit.
        """
        with torch.autocast(samples.device.type, enabled=False):
            dtype = torch.promote_types(samples.dtype, torch.float32)
            samples = samples.to(dtype)
            target = DiagonalGaussian(target.mean.to(dtype), target.std.to(dtype))
            error = expected_distance(samples, target, alpha=self.alpha).mean(dim=0)
            return error - 0.5 * mean_pair_distance(samples, alpha=self.alpha)


def _distance(difference: Tensor, alpha: float) -> Tensor:
    # Clamped squares: at a tie the gradient is zero instead of infinite times zero. The power of
    # the clamp itself is far from zero for a small alpha.
    squares = difference.square().sum(dim=-1)
    tiny = torch.finfo(squares.dtype).tiny
    return torch.where(squares > tiny, squares.clamp_min(tiny).pow(alpha / 2), 0.0)
