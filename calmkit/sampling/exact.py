r"""Exact sampling at any temperature in (0, 1], from draws alone.

The target is P(x)^s / Z with s = 1/T = n + a, 0 <= a < 1. For each row:

1. Draw until n draws in a row, counted from the last restart, are equal; at the first that
   differs, restart. They are x with probability proportional to P(x)^n.
2. If a = 0, the chunk is x. Else, for i = 1, 2, ...: draw; at x, the chunk is x; at anything
   else, restart with probability a / i.

Step 2 ends at x with probability P(x)^a, since a product of the probabilities (1 - a / i) of not
restarting gives (1 - (1 - P))^a as a binomial series. The expected number of draws is

    (n + [a > 0] sum_x P(x)^(s - 1)) / Z    at most: a restart in step 1 does not wait for n draws

so it grows without limit where no chunk is likely. A draw that ended an attempt is not used
again: it would be known to differ from the one before.

All rows of a batch advance together, on their device; rows that are done stop drawing.

Source: "Continuous Autoregressive Language Models", arXiv 2510.27688, algorithm 1.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from calmkit.sampling.base import Draw, SampledChunks, Sampler, SelectableDraw, draw_checked
from calmkit.sampling.weights import check_temperature, exponent_of
from calmkit.typing import typed

__all__ = ["DrawBudgetError", "ExactTemperature", "exact_temperature"]

_LARGEST_BLOCK = 64


class DrawBudgetError(RuntimeError):
    """Rows were not done within their budget of draws.

    Attributes:
        rows: Numbers of these rows in the flattened batch.
    """

    def __init__(self, rows: list[int], max_draws: int, temperature: float) -> None:
        super().__init__(
            f"max_draws = {max_draws} draws were not enough at temperature {temperature} for "
            f"rows {rows}: none of their chunks is likely. Raise max_draws or the temperature, or "
            "pass a fallback such as BatchTemperature()."
        )
        self.rows = rows


def exact_temperature(
    draw: Draw,
    temperature: float,
    *,
    generator: torch.Generator | None = None,
    max_draws: int = 10_000,
    fallback: Sampler | None = None,
) -> SampledChunks:
    """Sample one chunk of each row from P^(1/T) / Z.

    Args:
        draw: The black box for P. Where it offers `select` (see `SelectableDraw`), rows that are
            done cost nothing more.
        temperature: T in (0, 1].
        generator: Randomness of the restarts.
        max_draws: Budget of a row.
        fallback: Chooses for rows that have used their budget, from new draws; they are marked
            as not settled.

    Returns:
        The chunks, with the draws that each row needed.

    Raises:
        DrawBudgetError: If rows have used their budget and there is no fallback.
        ValueError: If the temperature or the budget is out of range, or `draw` gives other shapes.
    """
    check_temperature(temperature)
    whole, part = exponent_of(temperature)
    if max_draws < whole:
        raise ValueError(
            f"max_draws must be at least 1 / temperature = {1 / temperature:g}; got {max_draws}."
        )
    block, used, batch = whole, 0, None
    state: ExactState | None = None
    result = rows = torch.zeros(0)
    draws = settled = rows
    current = draw
    while used < max_draws:
        n = min(block, max_draws - used)
        candidates = draw_checked(current, n)
        if state is None:
            batch = candidates.shape[1:-1]
            flat = candidates.reshape(n, -1, candidates.shape[-1])
            state = ExactState.start(flat[0])
            result, rows = flat[0].clone(), torch.arange(flat.shape[1], device=flat.device)
            draws = torch.zeros_like(rows)
            settled = torch.zeros_like(rows, dtype=torch.bool)
        for tokens in candidates.reshape(n, -1, candidates.shape[-1]):
            uniform = torch.rand(
                len(state.run), generator=generator, dtype=torch.float64, device=tokens.device
            )
            state = state.after(tokens, uniform, whole, part)
        used, block = used + n, min(2 * block, _LARGEST_BLOCK)
        result[rows], draws[rows], settled[rows] = state.held, state.draws, state.done
        if bool(state.done.all()):
            break
        if isinstance(current, SelectableDraw) and bool(state.done.any()):
            left = (~state.done).nonzero().flatten()
            current, state, rows = current.select(left), state.select(left), rows[left]
    assert batch is not None  # max_draws is at least one
    late = (~settled).nonzero().flatten()
    if len(late):
        if fallback is None:
            raise DrawBudgetError(late.tolist(), max_draws, temperature)
        result, draws = _fall_back(fallback, draw, late, result, draws, generator)
    return SampledChunks(
        result.view(*batch, result.shape[-1]), draws.view(batch), settled.view(batch)
    )


def _fall_back(
    fallback: Sampler,
    draw: Draw,
    late: Tensor,
    result: Tensor,
    draws: Tensor,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    if isinstance(draw, SelectableDraw):
        chosen = fallback(draw.select(late), generator)
        tokens, more = chosen.tokens, chosen.draws
    else:
        chosen = fallback(draw, generator)
        tokens, more = chosen.tokens.view_as(result)[late], chosen.draws.flatten()[late]
    return result.index_copy(0, late, tokens), draws.index_add(0, late, more)


@typed
@dataclass(frozen=True, eq=False)
class ExactState:
    """Where each row stands.

    Attributes:
        held: x, the chunk that further draws are compared with.
        run: Equal draws since the last restart, up to n.
        misses: i of step 2.
        done: Whether x is the row's chunk.
        draws: Draws used so far.
    """

    held: Int[Tensor, "rows chunk"]
    run: Int[Tensor, " rows"]
    misses: Int[Tensor, " rows"]
    done: Bool[Tensor, " rows"]
    draws: Int[Tensor, " rows"]

    @staticmethod
    def start(like: Tensor) -> "ExactState":
        """Before the first draw; `like` is any draw, (rows, chunk)."""
        zeros = torch.zeros(len(like), dtype=torch.long, device=like.device)
        return ExactState(like, zeros, zeros + 1, zeros.bool(), zeros)

    def select(self, rows: Int[Tensor, " chosen"]) -> "ExactState":
        """Some rows only."""
        return ExactState(
            self.held[rows], self.run[rows], self.misses[rows], self.done[rows], self.draws[rows]
        )

    @typed
    def after(
        self,
        tokens: Int[Tensor, "rows chunk"],
        uniform: Float[Tensor, " rows"],
        whole: int,
        part: float,
    ) -> "ExactState":
        """The state after one more draw of each row.

        Args:
            tokens: The draw.
            uniform: In [0, 1): below a / i, step 2 restarts.
            whole: n.
            part: a.
        """
        same = (tokens == self.held).all(dim=-1)
        first, second = self.run == 0, self.run >= whole
        restart = ~first & ~same & (~second | (uniform < part / self.misses))
        run = torch.where(second, self.run, self.run + 1).masked_fill(restart, 0)
        missed = second & ~same & ~restart
        misses = torch.where(missed, self.misses + 1, 1)
        # At a = 0 there is no step 2.
        ends = (second & same) if part > 0 else (run >= whole)
        held = torch.where((first & ~self.done)[:, None], tokens, self.held)
        return ExactState(
            held,
            torch.where(self.done, self.run, run),
            torch.where(self.done, self.misses, misses),
            self.done | ends,
            self.draws + (~self.done).long(),
        )


@dataclass(frozen=True)
class ExactTemperature:
    """`exact_temperature` as a sampler.

    Attributes:
        temperature: T in (0, 1].
        max_draws: Budget of a row.
        fallback: Chooses for rows that have used it; an error tells of them if None.
    """

    temperature: float = 0.5
    max_draws: int = 10_000
    fallback: Sampler | None = None

    def __post_init__(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            ValueError: If the temperature is out of range or the budget too small for it.
        """
        check_temperature(self.temperature)
        if self.max_draws < exponent_of(self.temperature)[0]:
            raise ValueError(
                f"max_draws must be at least 1 / temperature = {1 / self.temperature:g}; "
                f"got {self.max_draws}."
            )

    def __call__(self, draw: Draw, generator: torch.Generator | None = None) -> SampledChunks:
        """Draw until every row is done."""
        return exact_temperature(
            draw,
            self.temperature,
            generator=generator,
            max_draws=self.max_draws,
            fallback=self.fallback,
        )
