r"""Whether draws agree with each other as often as with the text.

For draws x, x' and the text y at one point, reduced to the first n tokens of the chunk,

    hit_n = P(x = y),    collision_n = P(x = x') = sum_x P(x)^2.

If the model is calibrated, the text is distributed like one more draw from it, and E hit_n =
E collision_n over the points. With more collisions than hits, the model is overconfident and
repeats itself. With fewer, it is too diffuse: probability is spread over chunks that do not occur.
Both are estimated without bias from two draws or more. The Brier score is 2 hit - collision; this
diagnostic shows which of its two terms is at fault.

The converse does not hold: the marginal, which ignores the context, is calibrated, too.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from calmkit.metrics import Estimate
from calmkit.scoring import collision_rate, hit_rate
from calmkit.typing import typed

from .base import Diagnostic
from .groups import mean_over_groups

__all__ = ["CollisionCalibration", "collision_calibration"]

# Three errors occur by chance in one case of 370. The difference must also exceed a quarter:
# with enough text, small differences are always significant.
_ERRORS = 3.0
_FACTOR = 1.25


@dataclass(frozen=True)
class CollisionCalibration(Diagnostic):
    """Rates for the first n = 1, 2, ... tokens of a chunk.

    Attributes:
        hit: Rate at which a draw equals the target.
        collision: Rate at which two draws are equal.
        excess: `collision` minus `hit`, point by point; zero is best, positive is overconfident.
    """

    hit: tuple[Estimate, ...]
    collision: tuple[Estimate, ...]
    excess: tuple[Estimate, ...]

    meaning = (
        "with more collisions than hits, the model is overconfident and repeats itself; with "
        "fewer, it babbles: draw at a lower temperature, or train longer"
    )

    @property
    def is_bad(self) -> bool:
        """Whether, for some n, the rates differ by a quarter and by three standard errors."""
        return any(
            abs(excess.value) > _ERRORS * (excess.standard_error or 0.0)
            and max(hit.value, collision.value) > _FACTOR * min(hit.value, collision.value)
            for hit, collision, excess in zip(self.hit, self.collision, self.excess, strict=True)
        )

    @property
    def summary(self) -> str:
        """Both rates for each n."""
        rates = "; ".join(
            f"{n}: {collision.value:.2%} and {hit.value:.2%} (± {excess.standard_error:.2%})"
            for n, (hit, collision, excess) in enumerate(
                zip(self.hit, self.collision, self.excess, strict=True), start=1
            )
        )
        return f"draws equal each other and the text, for the first n tokens: {rates}"


@typed
@torch.no_grad()
def collision_calibration(
    draws: Int[Tensor, "samples points chunk"],
    tokens: Int[Tensor, "points chunk"],
    groups: Int[Tensor, " points"],
) -> CollisionCalibration:
    """Measure hits and collisions; see the module docstring.

    Args:
        draws: Independent draws of the next chunk, at least two at each point.
        tokens: The true chunk at each point.
        groups: Document or row of each point, for the standard errors.

    Raises:
        ValueError: If there are fewer than two draws or groups.
    """
    orders = range(1, tokens.shape[-1] + 1)
    hits = [hit_rate(draws[..., :n], tokens[..., :n]) for n in orders]
    collisions = [collision_rate(draws[..., :n]) for n in orders]
    excess = [c - h for c, h in zip(collisions, hits, strict=True)]
    found = (
        tuple(mean_over_groups(x, groups) for x in kind) for kind in (hits, collisions, excess)
    )
    return CollisionCalibration(*found)
