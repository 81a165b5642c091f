r"""Lower temperatures by counting how often draws agree.

n independent draws of a chunk are all equal to x with probability P(x)^n. Choosing among such
agreeing n-tuples therefore samples from P^n / Z, the distribution at temperature 1/n. The *batch*
algorithm draws N candidates and uses all their n-subsets at once: a chunk that occurs c times is
in C(c, n) agreeing subsets. `weights` has the rule for temperatures in between.

If no chunk occurs n times, the most frequent chunks share the choice: the algorithm falls back to
smaller subsets. The distribution is exact as N grows and biased towards diversity at finite N.

Source: "Continuous Autoregressive Language Models", arXiv 2510.27688, for T = 1/n.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Integer
from torch import Tensor

from calmkit.typing import typed

from .base import Draw, PlainSampler, SampledChunks, at_once, check_number, flattened
from .candidates import Candidates
from .counting import count_copies, leaders_of
from .subsets import draw_subsets, first_agreeing, numbers_of_subsets
from .weights import check_temperature, check_top_p, choose, count_weights, exponent_of, nucleus

__all__ = ["BatchTemperature", "batch_temperature"]


@typed
def batch_temperature(
    candidates: Integer[Tensor, "candidates *batch chunk"],
    temperature: float,
    *,
    generator: torch.Generator | None = None,
    top_p: float = 1.0,
) -> Integer[Tensor, "*batch chunk"]:
    """Choose one candidate of each row by the batch algorithm.

    Args:
        candidates: Independent draws, integers of any dtype; all rows advance together, without
            a loop.
        temperature: T in (0, 1]; towards 0 the most frequent chunk is taken.
        generator: Randomness of the choice.
        top_p: Keep the most frequent chunks that together make up this share of the draws; see
            `nucleus`.

    Raises:
        ValueError: If there is no candidate, or temperature or top_p is out of range.
    """
    check_top_p(top_p)
    if len(candidates) < 1:
        raise ValueError("candidates must hold at least one draw; got none.")
    rows = flattened(candidates)
    counts = count_copies(leaders_of(rows))
    weights = count_weights(counts, len(candidates), temperature)
    if top_p < 1:
        weights = weights * nucleus(counts, top_p)
    chosen = choose(weights, generator)
    tokens = rows[chosen, torch.arange(rows.shape[1], device=rows.device)]
    return tokens.view(candidates.shape[1:]).to(candidates.dtype)


@dataclass(frozen=True)
class BatchTemperature:
    """The batch algorithm as a sampler; it draws as few of the N candidates as it needs.

    If 1/T is a whole number, rows in which candidates agree draw and decode only some of them, as
    long as all candidates would take the device longer than a few. The distribution stays the
    same; see `subsets`.

    Attributes:
        temperature: T in (0, 1]; at 0.5, pairs decide.
        candidates: N, candidates of each row; the distribution is that of choosing among all N.
        top_p: Share of the draws that may be chosen from; see `nucleus`.
    """

    temperature: float = 0.5
    candidates: int = 64
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a temperature or top_p out of range, and too few candidates."""
        check_temperature(self.temperature)
        least, _ = exponent_of(self.temperature)
        rule = f"1 / temperature = {1 / self.temperature:g}, or they can never agree"
        check_number("candidates", self.candidates, least, rule)
        check_top_p(self.top_p)

    def __call__(self, draw: Draw, generator: torch.Generator | None = None) -> SampledChunks:
        """Draw candidates and choose; a row in which fewer than n agree is not settled."""
        whole, part = exponent_of(self.temperature)
        by_subsets = part == 0 and self.top_p == 1
        if by_subsets and whole == 1:
            return PlainSampler()(draw, generator)
        first, subsets = numbers_of_subsets(self.candidates, whole) if by_subsets else (0, 0)
        drawn = Candidates(
            draw, self.candidates, first=min(first * whole or self.candidates, self.candidates)
        )
        rows, device = len(drawn.tokens), drawn.tokens.device
        chosen = torch.zeros(rows, dtype=torch.long, device=device)
        settled = torch.zeros_like(chosen, dtype=torch.bool)
        if first and rows * self.candidates >= at_once(device):
            tested = draw_subsets(rows, subsets, whole, self.candidates, generator, device)
            chosen, settled = first_agreeing(drawn, tested, first)
        left = (~settled).nonzero().flatten()
        if len(left):
            chosen[left], settled[left] = self._choose_by_counting(drawn, left, generator)
        tokens = drawn.chunks(chosen)
        return SampledChunks(
            tokens.view(*drawn.batch, tokens.shape[-1]),
            drawn.drawn.view(drawn.batch),
            settled.view(drawn.batch),
        )

    def _choose_by_counting(
        self, drawn: Candidates, rows: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """The chosen candidate of some rows, from all N, and whether at least n agreed."""
        whole, _ = exponent_of(self.temperature)
        # The shares of all draws are known only when all have been decoded.
        counts = drawn.copies(whole if self.top_p == 1 else 1, rows)
        settled = counts.amax(dim=-1) >= whole
        weights = count_weights(counts, self.candidates, self.temperature)
        if self.top_p < 1:
            weights = weights * nucleus(counts, self.top_p)
        left = (~settled).nonzero().flatten()
        for level in range(whole - 1, 0, -1):
            if len(left) == 0:
                break
            # At level 1 no two are equal, which is known without decoding.
            fewer = drawn.copies(level, rows[left]) if level > 1 else torch.ones_like(counts[left])
            weights[left] = (fewer == level).to(weights.dtype)
            left = left[fewer.amax(dim=-1) < level]
        return choose(weights, generator), settled
