r"""The head's energy score between two bounds: ignoring the text, and knowing the chunk itself.

    marginal: M = mean_t S(Q, z_t),    Q the latents of other chunks of the text,
    model:    S = mean_t S(P_t, z_t),
    floor:    F = mean_t 1/2 E||Z_t - Z_t'||,    Z_t, Z_t' from the posterior of chunk t.

Lower is better. The score is proper, so no head is below F in expectation; the posterior itself
attains it (its entropy term). The skill 1 - S / M is the relative improvement over the marginal.

Source: Gneiting and Raftery, JASA 2007, section 2.2 for entropy and 2.3 for skill.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.metrics import Estimate
from calmkit.scoring import EnergyScore, gaussian_norm_moment
from calmkit.typing import typed

from .aggregate import check_several
from .base import Diagnostic
from .groups import mean_over_groups, within_two_errors

__all__ = ["EnergySkill", "energy_skill", "marginal_samples"]


@dataclass(frozen=True)
class EnergySkill(Diagnostic):
    """Energy scores, lower is better.

    Attributes:
        model: S, the score of the head's samples.
        marginal: M, the score of latents of other chunks.
        gain: M - S, point by point; higher is better.
        floor: F, the lower bound for every head.
    """

    model: Estimate
    marginal: Estimate
    gain: Estimate
    floor: float

    meaning = (
        "random chunks of other text would score as well as the head; if the conditioning gap "
        "is fine, its samples have the wrong spread, otherwise it has learned nothing yet"
    )

    @property
    def skill(self) -> float:
        """1 - S / M: 0 equals the marginal, 1 - F / M is the best possible value."""
        return 1 - self.model.value / self.marginal.value

    @property
    def is_bad(self) -> bool:
        """The gain is not above two standard errors."""
        return within_two_errors(self.gain)

    @property
    def summary(self) -> str:
        """The three scores and the skill."""
        return (
            f"energy score {self.model.value:.3g} between the posterior's {self.floor:.3g} and "
            f"the marginal's {self.marginal.value:.3g} ± {self.gain.standard_error:.2g}: skill "
            f"{self.skill:.1%}"
        )


@typed
def marginal_samples(
    target: DiagonalGaussian, num_samples: int, generator: torch.Generator | None = None
) -> Float[Tensor, "samples points latent"]:
    """Draws from the posteriors of *other* points, chosen at random for each point.

    Args:
        target: Posteriors, `points latent`.
        num_samples: Number of draws for each point.
        generator: Source of randomness; torch's global one if None.

    Raises:
        ValueError: If there is no other point.
    """
    mean, std = target.mean, target.std
    check_several(target=target)
    points = len(mean)
    steps = torch.randint(
        1, points, (num_samples, points), generator=generator, device=mean.device
    )
    other = (torch.arange(points, device=mean.device) + steps) % points
    return DiagonalGaussian(mean[other], std[other]).sample(1, generator).squeeze(0)


@typed
@torch.no_grad()
def energy_skill(
    samples: Float[Tensor, "samples points latent"],
    marginal: Float[Tensor, "references points latent"],
    target: DiagonalGaussian,
    groups: Int[Tensor, " points"],
) -> EnergySkill:
    """Score a head between marginal and posterior; see the module docstring.

    Args:
        samples: The head's samples, at least two at each point.
        marginal: From `marginal_samples`, at least two at each point.
        target: Posterior of the true chunk.
        groups: Document or row of each point, for the standard errors.

    Raises:
        ValueError: If there are fewer than two samples or groups, or a value is not finite.
    """
    rule = EnergyScore()
    model, reference = rule.score(samples, target), rule.score(marginal, target)
    # Z - Z' is a Gaussian with mean zero and twice the variance.
    difference = math.sqrt(2) * target.std
    floor = 0.5 * gaussian_norm_moment(torch.zeros_like(difference), difference)
    return EnergySkill(
        model=mean_over_groups(model, groups),
        marginal=mean_over_groups(reference, groups),
        gain=mean_over_groups(reference - model, groups),
        floor=float(floor.mean()),
    )
