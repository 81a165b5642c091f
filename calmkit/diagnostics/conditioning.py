r"""Whether the head uses its condition, or has only learned the marginal.

With the energy score S of the head's samples at point t against the latent of point t's chunk,

    gap = mean_t [S(P_t, z_{t+1}) - S(P_t, z_t)],

where t + 1 is the next point, and the last point uses the target of the first. If the head ignores
its condition, targets rolled by one point are as likely as the right ones, and the gap is zero. It
is positive if samples are nearer to their own target. It has the unit of the latents. The second
term of S is the same for both and cancels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.metrics import Estimate
from calmkit.scoring import EnergyScore
from calmkit.typing import typed

from .base import Diagnostic
from .groups import mean_over_groups, within_two_errors

__all__ = ["ConditioningGap", "conditioning_gap"]


@dataclass(frozen=True)
class ConditioningGap(Diagnostic):
    """Energy score against wrong targets minus that against the right ones.

    Attributes:
        matched: Score against the right target; lower is better.
        rolled: Score against the target of the next point.
        gap: `rolled` minus `matched`, point by point; higher is better.
    """

    matched: Estimate
    rolled: Estimate
    gap: Estimate

    meaning = (
        "the head ignores its condition and draws from the marginal, so text has no thread; "
        "train longer, standardise latents, look at the backbone's learning rate"
    )

    @property
    def is_bad(self) -> bool:
        """Not above two standard errors."""
        return within_two_errors(self.gap)

    @property
    def summary(self) -> str:
        """The gap and the score."""
        return (
            f"conditioning gap {self.gap.value:.3g} ± {self.gap.standard_error:.2g} on an energy "
            f"score of {self.matched.value:.3g}"
        )


@typed
@torch.no_grad()
def conditioning_gap(
    samples: Float[Tensor, "samples points latent"],
    target: DiagonalGaussian,
    groups: Int[Tensor, " points"],
) -> ConditioningGap:
    """Measure the conditioning gap; see the module docstring.

    Args:
        samples: The head's samples, at least two at each point; points in the order of the text.
        target: Posterior of the true chunk, `points latent`.
        groups: Document or row of each point, for the standard errors.

    Raises:
        ValueError: If there are fewer than two samples or groups, or a value is not finite.
    """
    rule = EnergyScore()
    following = DiagonalGaussian(target.mean.roll(-1, dims=0), target.std.roll(-1, dims=0))
    matched, rolled = rule.score(samples, target), rule.score(samples, following)
    return ConditioningGap(
        matched=mean_over_groups(matched, groups),
        rolled=mean_over_groups(rolled, groups),
        gap=mean_over_groups(rolled - matched, groups),
    )
