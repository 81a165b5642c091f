"""Candidates whose tokens are computed on demand, as a black box may offer them."""

from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from .base import Draw, DrawForm, draw_checked

__all__ = ["Decoded", "LazyDraw", "Undecoded", "draw_undecoded"]

U = TypeVar("U")


@runtime_checkable
class Undecoded(Protocol):
    """Candidates without their tokens; they are indexed by `n *batch`, flattened."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of their tokens, (n, *batch, chunk)."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of their tokens."""
        ...

    def tokens_at(
        self, places: range, chosen: Int[Tensor, " chosen"]
    ) -> Int[Tensor, "chosen places"]:
        """The tokens of some candidates, by index, at consecutive places."""
        ...

    def joined(self: U, others: U) -> U:
        """These candidates, followed by others of the same black box."""
        ...


@runtime_checkable
class LazyDraw(Draw, Protocol):
    """A black box that can leave its candidates undecoded."""

    def undecoded(self, n: int, /) -> Undecoded:
        """Draw n independent candidates of every row, without their tokens."""
        ...


class Decoded:
    """Candidates whose tokens are already known."""

    def __init__(self, tokens: Tensor) -> None:
        """Store tokens, (n, *batch, chunk)."""
        self.shape, self.device, self.dtype = tuple(tokens.shape), tokens.device, tokens.dtype
        self._tokens = tokens.reshape(-1, tokens.shape[-1])

    def tokens_at(
        self, places: range, chosen: Int[Tensor, " chosen"]
    ) -> Int[Tensor, "chosen places"]:
        """Look them up."""
        return self._tokens[chosen, places.start : places.stop]

    def joined(self, others: "Decoded") -> "Decoded":
        """One list; its only batch axis is its length."""
        return Decoded(torch.cat([self._tokens, others._tokens]))


def draw_undecoded(draw: Draw, n: int, like: DrawForm | None = None) -> Undecoded:
    """Candidates of every row, undecoded if the black box supports it.

    Args:
        draw: The black box.
        n: Number of candidates.
        like: The form of its earlier draws; None at the first.

    Raises:
        ValueError: If there are not n of them, rows or chunk size differ from those of earlier
            draws, or the tokens of a plain box are not integers.
    """
    if not isinstance(draw, LazyDraw):
        return Decoded(draw_checked(draw, n, like))
    candidates = draw.undecoded(n)
    if like is not None and tuple(candidates.shape) != (n, *like.batch, like.chunk):
        raise ValueError(
            f"undecoded({n}) must give candidates of shape {(n, *like.batch, like.chunk)}, as "
            f"earlier draws do; got {tuple(candidates.shape)}."
        )
    if len(candidates.shape) < 2 or candidates.shape[0] != n:
        raise ValueError(
            f"undecoded({n}) must give candidates of shape ({n}, *batch, chunk); got "
            f"{tuple(candidates.shape)}."
        )
    return candidates
