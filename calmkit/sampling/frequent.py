"""The limit of low temperature: the most frequent of many draws."""

from dataclasses import dataclass

import torch
from jaxtyping import Integer
from torch import Tensor

from calmkit.typing import typed

from .base import Draw, SampledChunks, check_number, draw_checked
from .batch import batch_temperature

__all__ = ["MostFrequent", "most_frequent"]


@typed
def most_frequent(
    candidates: Integer[Tensor, "candidates *batch chunk"],
    *,
    generator: torch.Generator | None = None,
) -> Integer[Tensor, "*batch chunk"]:
    """The chunk that occurs most often in each row; ties are broken at random.

    Args:
        candidates: Independent draws.
        generator: Randomness of the ties.

    Raises:
        ValueError: If there is no candidate.
    """
    # More copies are required than there are candidates, so the largest count decides.
    cold = 1 / (candidates.shape[0] + 1)
    return batch_temperature(candidates, cold, generator=generator)


@dataclass(frozen=True)
class MostFrequent:
    """Greedy decoding of a black box: the most frequent draw, an estimate of its mode.

    Attributes:
        candidates: N, the number of candidates drawn for each row.
    """

    candidates: int = 64

    def __post_init__(self) -> None:
        """Refuse numbers below 1."""
        check_number("candidates", self.candidates, 1)

    def __call__(self, draw: Draw, generator: torch.Generator | None = None) -> SampledChunks:
        """Draw and count. Every row is settled, since no number of copies is required."""
        tokens = most_frequent(draw_checked(draw, self.candidates), generator=generator)
        draws = torch.full_like(tokens[..., 0], self.candidates, dtype=torch.long)
        return SampledChunks(tokens, draws, torch.ones_like(draws, dtype=torch.bool))
