r"""How clearly the draws at a point agree on one chunk, and whether the majority is right.

At each point, n draws of the next chunk, reduced to its first k tokens, vote. With c_1 >= c_2 the
numbers of draws of the two most frequent outcomes (c_2 = 0 if there is only one),

    top = c_1 / n,    margin = (c_1 - c_2) / n,    agreement = P(x = x') over pairs of draws,

and `vote` is the rate at which the most frequent outcome is that of the text. Only agreement does
not depend on n: top is at least 1 / n. Samplers below temperature 1 choose among outcomes that
agree, and if none do, more draws are pure cost.

If all draws at every point are equal, and some are wrong, the sampler is deterministic: agreement
is 1, Brier-n is 2 hit - 1, and BrierLM is 0 unless the model is right in more than half of all
cases.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from calmkit.metrics import Estimate
from calmkit.scoring import collision_rate
from calmkit.typing import typed

from .base import Diagnostic
from .groups import mean_over_groups

__all__ = ["SampleVotes", "sample_votes"]

# Of 200 draws, which the paper takes at temperature 1/2, 19,900 pairs can agree.
_PAIRS = 19_900


@dataclass(frozen=True)
class SampleVotes(Diagnostic):
    """Means over points, for the first k = 1, 2, ... tokens of a chunk.

    Attributes:
        agreement: Rate at which two draws agree.
        margin: Lead of the most frequent outcome, as a share of the draws.
        top: Share of the draws that are the most frequent outcome.
        vote: Rate at which that outcome is right; the first one drawn counts among equals.
        draws: n, draws at each point.
        is_deterministic: Whether all draws are equal at every point, and not all of them right.
    """

    agreement: tuple[Estimate, ...]
    margin: tuple[Estimate, ...]
    top: tuple[Estimate, ...]
    vote: tuple[Estimate, ...]
    draws: int
    is_deterministic: bool

    meaning = (
        "draws that are all equal come from a deterministic sampler (noise_scale 0, an argmax "
        "inside), and BrierLM says nothing; draws that never agree leave temperatures below 1 "
        "without effect: train longer, or use shorter chunks"
    )

    @property
    def is_bad(self) -> bool:
        """Whether draws are all equal, or fewer than one pair in 200 draws of a chunk agrees."""
        return self.is_deterministic or self.agreement[-1].value * _PAIRS < 1

    @property
    def summary(self) -> str:
        """Agreement, margin and the accuracy of the vote for each k."""
        if self.is_deterministic:
            return f"all {self.draws} draws are equal at every point"
        rates = "; ".join(
            f"{k}: {agreement.value:.2%}, margin {margin.value:.1%}, vote right {vote.value:.2%}"
            for k, (agreement, margin, vote) in enumerate(
                zip(self.agreement, self.margin, self.vote, strict=True), start=1
            )
        )
        return f"of {self.draws} draws, pairs agree in the first k tokens: {rates}"


@typed
@torch.no_grad()
def sample_votes(
    draws: Int[Tensor, "samples points chunk"],
    tokens: Int[Tensor, "points chunk"],
    groups: Int[Tensor, " points"],
) -> SampleVotes:
    """Let the draws at each point vote; see the module docstring.

    Args:
        draws: Independent draws of the next chunk, at least two at each point.
        tokens: The true chunk at each point.
        groups: Document or row of each point, for the standard errors.

    Raises:
        ValueError: If there are fewer than two draws or groups.
    """
    found: dict[str, list[Estimate]] = {"agreement": [], "margin": [], "top": [], "vote": []}
    for k in range(1, tokens.shape[-1] + 1):
        prefix, number = draws[..., :k], draws.shape[0]
        agreement = collision_rate(prefix)
        equal = (prefix[:, None] == prefix).all(dim=-1)  # samples samples points
        counts = equal.sum(dim=1)
        first, winner = counts.max(dim=0)
        of_winner = equal.gather(0, winner.expand(1, number, -1)).squeeze(0)
        second = torch.where(of_winner, 0, counts).amax(dim=0)
        chosen = prefix.gather(0, winner[None, :, None].expand(1, -1, k)).squeeze(0)
        found["agreement"].append(mean_over_groups(agreement, groups))
        found["margin"].append(mean_over_groups((first - second) / number, groups))
        found["top"].append(mean_over_groups(first / number, groups))
        right = (chosen == tokens[:, :k]).all(dim=-1).double()
        found["vote"].append(mean_over_groups(right, groups))
    return SampleVotes(
        **{name: tuple(values) for name, values in found.items()},
        draws=draws.shape[0],
        is_deterministic=bool((draws == draws[0]).all()) and bool((draws[0] != tokens).any()),
    )
