r"""Lower temperatures without probabilities: count how often draws agree.

A head can be sampled but gives no probability to sharpen. Yet if n independent draws of a chunk
are all equal to x, that has probability P(x)^n: picking among such agreeing n-tuples samples from
P^n / Z, the law at temperature T = 1/n. The *batch* algorithm draws N candidates and uses all
their n-subsets at once: a chunk x that occurs c_x times is in C(c_x, n) agreeing subsets. Where no
n candidates agree, it goes on with n - 1, and so on; at 1 it picks any candidate.

    weight of x:  C(c_x, m),    m = min(n, max_x c_x)

It is exact as N grows and biased towards diversity at finite N.

Source: "Continuous Autoregressive Language Models", arXiv 2510.27688.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Int
from torch import Tensor

from calmkit.typing import typed

__all__ = ["BatchTemperature", "PlainSampler", "Sampler", "batch_temperature"]

Draw = Callable[[int], Tensor]


class Sampler(Protocol):
    """Chooses one chunk per row, given only the means to draw candidates."""

    def __call__(
        self, draw: Draw, generator: torch.Generator | None = None
    ) -> Int[Tensor, "*batch chunk"]:
        """Choose.

        Args:
            draw: `draw(n)` returns n independent candidates of every row, (n, *batch, chunk).
            generator: Randomness of the choice itself.
        """
        ...


@dataclass(frozen=True)
class PlainSampler:
    """Temperature 1: the first draw."""

    def __call__(
        self, draw: Draw, generator: torch.Generator | None = None
    ) -> Int[Tensor, "*batch chunk"]:
        """Draw once."""
        return draw(1)[0]


@dataclass(frozen=True)
class BatchTemperature:
    """The batch algorithm at T = 1 / power.

    Attributes:
        power: n, how many candidates have to agree; 2 is temperature 0.5.
        candidates: N, candidates drawn for each row.
    """

    power: int = 2
    candidates: int = 64

    def __post_init__(self) -> None:
        """Refuse settings that could never agree."""
        if self.power < 1 or self.candidates < self.power:
            raise ValueError(
                f"power must be at least 1 and candidates at least power; "
                f"got {self.power} and {self.candidates}."
            )

    def __call__(
        self, draw: Draw, generator: torch.Generator | None = None
    ) -> Int[Tensor, "*batch chunk"]:
        """Draw all candidates and choose among them."""
        return batch_temperature(draw(self.candidates), self.power, generator=generator)


@typed
def batch_temperature(
    candidates: Int[Tensor, "candidates *batch chunk"],
    power: int,
    *,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "*batch chunk"]:
    """Choose one candidate of each row by the batch algorithm at T = 1 / power.

    Args:
        candidates: Independent draws; all rows advance together, without a loop.
        power: n, how many candidates have to agree.
        generator: Randomness of the choice.

    Raises:
        ValueError: If there is no candidate or power is not positive.
    """
    if power < 1 or candidates.shape[0] < 1:
        raise ValueError(
            f"power and the number of candidates must be at least 1; "
            f"got {power} and {candidates.shape[0]}."
        )
    rows = candidates.flatten(1, -2) if candidates.ndim > 2 else candidates[:, None]
    rows = rows.movedim(0, 1)  # (rows, candidates, chunk)
    counts = (rows[:, :, None] == rows[:, None]).all(dim=-1).sum(dim=-1).double()
    agree = counts.amax(dim=-1, keepdim=True).clamp_max(power)
    # C(c, m) for the chunk, shared by its c copies.
    log_choose = torch.lgamma(counts + 1) - torch.lgamma((counts - agree).clamp_min(0) + 1)
    log_choose = log_choose - torch.lgamma(agree + 1)
    # Relative to the largest: C(c, m) itself overflows from about 1000 candidates on.
    log_choose = log_choose - log_choose.amax(dim=-1, keepdim=True)
    weights = torch.where(counts >= agree, log_choose.exp() / counts, 0.0)
    chosen = torch.multinomial(weights, 1, generator=generator)
    chunk = rows.gather(1, chosen[..., None].expand(-1, 1, rows.shape[-1]))[:, 0]
    return chunk.view(candidates.shape[1:])
