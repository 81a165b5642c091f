"""What a sampler is given, and what it gives back.

A *black box* draws independent candidates of a chunk for every row of a batch; it gives them no
probabilities. A sampler chooses one chunk per row from such draws.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from calmkit.typing import typed

__all__ = ["Draw", "PlainSampler", "SampledChunks", "Sampler", "SelectableDraw", "draw_checked"]


class Draw(Protocol):
    """A black box."""

    def __call__(self, n: int, /) -> Int[Tensor, "n *batch chunk"]:
        """Draw n independent candidates of every row."""
        ...


@runtime_checkable
class SelectableDraw(Protocol):
    """A black box that can draw for some of its rows alone, which saves the others' work."""

    def __call__(self, n: int, /) -> Int[Tensor, "n *batch chunk"]:
        """Draw n independent candidates of every row."""
        ...

    def select(self, rows: Int[Tensor, " chosen"]) -> "SelectableDraw":
        """The same black box for these rows of the flattened batch."""
        ...


@typed
@dataclass(frozen=True, eq=False)
class SampledChunks:
    """One chunk for each row.

    Attributes:
        tokens: The chunks.
        draws: Candidates that were drawn for each row.
        settled: False where the draws did not suffice for the temperature that was asked for, and
            the chunk comes from a less sharp law; each sampler says from which.
    """

    tokens: Int[Tensor, "*batch chunk"]
    draws: Int[Tensor, "*batch"]
    settled: Bool[Tensor, "*batch"]


class Sampler(Protocol):
    """Chooses one chunk per row."""

    def __call__(self, draw: Draw, generator: torch.Generator | None = None) -> SampledChunks:
        """Choose.

        Args:
            draw: The black box.
            generator: Randomness of the choice itself.
        """
        ...


@dataclass(frozen=True)
class PlainSampler:
    """Temperature 1: the first draw."""

    def __call__(self, draw: Draw, generator: torch.Generator | None = None) -> SampledChunks:
        """Draw once."""
        tokens = draw_checked(draw, 1)[0]
        ones = torch.ones_like(tokens[..., 0])
        return SampledChunks(tokens, ones, ones.bool())


def draw_checked(draw: Draw, n: int) -> Tensor:
    """Candidates of a black box; one that gives another number of them is refused.

    Raises:
        ValueError: If the draws are no integers, or there are not n of them.
    """
    candidates = draw(n)
    if candidates.ndim < 2 or candidates.shape[0] != n or candidates.is_floating_point():
        raise ValueError(
            f"draw({n}) must return integers of shape ({n}, *batch, chunk); got "
            f"{candidates.dtype} of shape {tuple(candidates.shape)}."
        )
    return candidates
