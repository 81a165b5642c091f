r"""Decoding only the candidates that can still be chosen, with the same law.

To be chosen by the batch algorithm a chunk needs m copies among the candidates, and m equal chunks
have m equal first tokens. So tokens are computed place by place: after each place, candidates
whose prefix occurs fewer than m times are dropped, and the expensive projection onto the
vocabulary is left out for them. Where no chunk has n copies, m goes down by one; at m = 1 every
candidate is as good as any other, and one is decoded. Nothing is decided differently than with
all candidates decoded, and with the same generator the same chunk is chosen.
"""

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from calmkit.sampling.counting import count_copies, leaders_of
from calmkit.typing import typed

__all__ = ["Candidates", "Decoded", "LazyDraw", "Undecoded"]


class Undecoded(Protocol):
    """Candidates whose tokens are computed when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of their tokens, (n, *batch, chunk)."""
        ...

    @property
    def device(self) -> torch.device:
        """Where their tokens are."""
        ...

    def tokens_at(self, place: int, chosen: Int[Tensor, " chosen"]) -> Int[Tensor, " chosen"]:
        """The token at one place of some candidates, by their number in `n *batch` flattened."""
        ...


@runtime_checkable
class LazyDraw(Protocol):
    """A black box that can leave its candidates undecoded."""

    def __call__(self, n: int, /) -> Int[Tensor, "n *batch chunk"]:
        """Draw n independent candidates of every row."""
        ...

    def undecoded(self, n: int, /) -> Undecoded:
        """Draw n independent candidates of every row, without their tokens."""
        ...


class Decoded:
    """Candidates whose tokens are there already."""

    def __init__(self, tokens: Tensor) -> None:
        """Hold tokens, (n, *batch, chunk)."""
        self.shape, self.device = tuple(tokens.shape), tokens.device
        self._tokens = tokens.reshape(-1, tokens.shape[-1])

    def tokens_at(self, place: int, chosen: Int[Tensor, " chosen"]) -> Int[Tensor, " chosen"]:
        """Look them up."""
        return self._tokens[chosen, place]


class Candidates:
    """Candidates of all rows, with what has been decoded of them.

    Attributes:
        tokens: (candidates, rows, chunk); -1 where a token was never needed.
        decoded: How many tokens were computed.
    """

    def __init__(self, first: Undecoded) -> None:
        """Start with some candidates."""
        self._blocks = [first]
        self.tokens = self._empty(first)
        self.decoded = 0

    def __len__(self) -> int:
        """Candidates of a row."""
        return len(self.tokens)

    def add(self, block: Undecoded) -> None:
        """Put more candidates behind those there are."""
        self._blocks.append(block)
        self.tokens = torch.cat([self.tokens, self._empty(block)])

    @staticmethod
    def _empty(block: Undecoded) -> Tensor:
        n, *batch, chunk = block.shape
        return torch.full((n, math.prod(batch), chunk), -1, device=block.device)

    @typed
    def copies(self, level: int, rows: Bool[Tensor, " rows"]) -> Int[Tensor, "rows candidates"]:
        """Copies that each candidate leads, of the chunks with at least `level` of them.

        Args:
            level: m; chunks with fewer copies are not decoded further, and counted as 0.
            rows: Where to look.
        """
        alive = rows.expand(len(self.tokens), -1)
        group = torch.zeros_like(alive, dtype=torch.long)  # leaders of equal prefixes
        apart = torch.arange(group.numel(), device=group.device).view_as(group)
        for place in range(self.tokens.shape[-1]):
            self._decode(place, alive)
            # A dropped candidate is a group of its own.
            token = torch.where(alive, self.tokens[..., place], -1 - apart)
            leaders = leaders_of(torch.stack([group, token], dim=-1))
            counts = count_copies(leaders, alive.T)
            alive = (counts.gather(1, leaders) >= level).T
            group = leaders.T
        return count_copies(group.T, alive.T)

    @typed
    def chunks(self, chosen: Int[Tensor, " rows"]) -> Int[Tensor, "rows chunk"]:
        """Decode one candidate of each row to its end.

        Args:
            chosen: Number of the candidate in each row.
        """
        rows = torch.arange(len(chosen), device=chosen.device)
        picked = torch.zeros_like(self.tokens[..., 0], dtype=torch.bool)
        picked[chosen, rows] = True
        for place in range(self.tokens.shape[-1]):
            self._decode(place, picked)
        return self.tokens[chosen, rows]

    def _decode(self, place: int, wanted: Tensor) -> None:
        """Compute the tokens at a place that are wanted and not there."""
        start = 0
        for block in self._blocks:
            part = slice(start, start + block.shape[0])
            missing = wanted[part] & (self.tokens[part, :, place] < 0)
            index = missing.flatten().nonzero().flatten()
            if len(index):
                rows = self.tokens.shape[1]
                self.tokens[start + index // rows, index % rows, place] = block.tokens_at(
                    place, index
                )
                self.decoded += len(index)
            start += block.shape[0]
