r"""Lower temperatures by counting how often draws agree.

If n independent draws of a chunk are all equal to x, that has probability P(x)^n: choosing among
such agreeing n-tuples samples from P^n / Z, the law at temperature 1/n. The *batch* algorithm
draws N candidates and uses all their n-subsets at once: a chunk that occurs c times is in C(c, n)
agreeing ones. `weights` has the rule for temperatures between.

Where no chunk occurs n times, the most frequent ones share the choice: the n-subsets are followed
by smaller ones. The law is exact as N grows and biased towards diversity at finite N.

Source: "Continuous Autoregressive Language Models", arXiv 2510.27688, for T = 1/n.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from calmkit.sampling.base import Draw, SampledChunks, draw_checked
from calmkit.sampling.counting import count_copies, leaders_of
from calmkit.sampling.pruning import Candidates, Decoded, LazyDraw, Undecoded
from calmkit.sampling.weights import (
    check_temperature,
    choose,
    count_weights,
    exponent_of,
    nucleus,
)
from calmkit.typing import typed

__all__ = ["BatchTemperature", "batch_temperature"]


@typed
def batch_temperature(
    candidates: Int[Tensor, "candidates *batch chunk"],
    temperature: float,
    *,
    generator: torch.Generator | None = None,
    num_candidates: Int[Tensor, "*batch"] | None = None,
    top_p: float = 1.0,
) -> Int[Tensor, "*batch chunk"]:
    """Choose one candidate of each row by the batch algorithm.

    Args:
        candidates: Independent draws; all rows advance together, without a loop.
        temperature: T in (0, 1]; towards 0 the most frequent chunk is taken.
        generator: Randomness of the choice.
        num_candidates: How many of a row's candidates count, the first ones, at least 1; all of
            them if None.
        top_p: Keep the most frequent chunks that together make up this share of the draws; see
            `nucleus`.

    Raises:
        ValueError: If there is no candidate, or temperature or top_p is out of range.
    """
    rows = _flattened(candidates)
    valid = None
    if num_candidates is not None:
        place = torch.arange(len(candidates), device=candidates.device)
        valid = place < num_candidates.flatten()[:, None]
    counts = count_copies(leaders_of(rows), valid)
    weights = count_weights(counts, len(candidates), temperature)
    if top_p < 1:
        weights = weights * nucleus(counts, top_p)
    chosen = choose(weights, generator)
    tokens = rows[chosen, torch.arange(rows.shape[1], device=rows.device)]
    return tokens.view(candidates.shape[1:])


def _flattened(candidates: Tensor) -> Tensor:
    if candidates.shape[0] < 1:
        raise ValueError("candidates must hold at least one draw; got none.")
    rows = math.prod(candidates.shape[1:-1])
    return candidates.reshape(candidates.shape[0], rows, candidates.shape[-1])


@dataclass(frozen=True)
class BatchTemperature:
    """The batch algorithm as a sampler.

    With `at_once` the number of candidates adapts to each row: they are drawn in blocks of that
    size, and a row stops after the first block with which some chunk has occurred n times
    (n = floor(1/T)), at the latest with `candidates`. Certain rows are then cheap. The law is the
    same mixture of choices, but at the number of candidates at which the row stopped.

    Attributes:
        temperature: T in (0, 1]; 0.5 lets pairs decide.
        candidates: N, candidates drawn for each row; at most, with `at_once`.
        at_once: Size of a block; None draws all at once.
        top_p: Share of the draws that may be chosen from; see `nucleus`.
    """

    temperature: float = 0.5
    candidates: int = 64
    at_once: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Refuse settings that could never agree."""
        check_temperature(self.temperature)
        if self.candidates < exponent_of(self.temperature)[0]:
            raise ValueError(
                f"candidates must be at least 1 / temperature = {1 / self.temperature:g}, or they "
                f"can never agree; got {self.candidates}."
            )
        if self.at_once is not None and self.at_once < 1:
            raise ValueError(f"at_once must be at least 1, or None; got {self.at_once}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1]; got {self.top_p}.")

    def __call__(self, draw: Draw, generator: torch.Generator | None = None) -> SampledChunks:
        """Draw candidates and choose; a row in which fewer than n agree is not settled."""
        whole, _ = exponent_of(self.temperature)
        size = self.candidates if self.at_once is None else min(self.at_once, self.candidates)
        first = _undecoded(draw, size)
        batch, drawn = first.shape[1:-1], Candidates(first)
        rows = math.prod(batch)
        settled = torch.zeros(rows, dtype=torch.bool, device=first.device)
        draws = torch.full((rows,), self.candidates, device=first.device)
        weights = torch.zeros(rows, self.candidates, dtype=torch.float64, device=first.device)
        # Shares of all draws can only be told when all have been decoded.
        level = whole if self.top_p == 1 else 1
        while True:
            counts = drawn.copies(level, ~settled)
            agreed = counts.amax(dim=-1) >= whole
            found = count_weights(counts[agreed], len(drawn), self.temperature)
            if self.top_p < 1:
                found = found * nucleus(counts[agreed], self.top_p)
            weights[agreed, : len(drawn)] = found
            draws[agreed], settled = len(drawn), settled | agreed
            if len(drawn) == self.candidates or bool(settled.all()):
                break
            drawn.add(_undecoded(draw, min(size, self.candidates - len(drawn))))
        self._choose_from_fewer(drawn, whole, settled, weights)
        tokens = drawn.chunks(choose(weights[:, : len(drawn)], generator))
        return SampledChunks(
            tokens.view(*batch, tokens.shape[-1]), draws.view(batch), settled.view(batch)
        )

    @staticmethod
    def _choose_from_fewer(
        drawn: Candidates, whole: int, settled: Tensor, weights: Tensor
    ) -> None:
        """Fill in the weights of rows in which fewer than n candidates agree."""
        left = ~settled
        for level in range(whole - 1, 1, -1):
            counts = drawn.copies(level, left)
            agreed = counts.amax(dim=-1) >= level
            weights[agreed] = (counts[agreed] == level).to(weights.dtype)
            left = left & ~agreed
        weights[left] = 1.0  # no two are equal


def _undecoded(draw: Draw, n: int) -> Undecoded:
    return draw.undecoded(n) if isinstance(draw, LazyDraw) else Decoded(draw_checked(draw, n))
