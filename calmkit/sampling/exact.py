r"""Exact sampling at any temperature in (0, 1], from draws alone.

The target is P(x)^s / Z with s = 1/T = n + a, 0 <= a < 1. For each row:

1. Draw until n draws in a row, counted from the last restart, are equal; at the first that
   differs, restart. They are equal to x with probability proportional to P(x)^n.
2. If a = 0, return x. Otherwise, for i = 1, 2, ...: draw. If the draw is x, return x. If it is
   not, restart with probability a / i.

Step 2 ends at x with probability P(x)^a, since the products of the probabilities (1 - a / i) of
not restarting give (1 - (1 - P))^a as a binomial series. The expected number of draws is at most

    (n + [a > 0] sum_x P(x)^(s - 1)) / Z,

since a restart in step 1 does not wait for n draws. It grows without limit where no chunk is
likely. The draw that ends an attempt is not used again: it is known to differ from the one before.

All rows of a batch advance together, in blocks of draws. Finished rows stop drawing at the end of
their block. The draws are compared on the CPU: that takes many small operations.

Source: "Continuous Autoregressive Language Models", arXiv 2510.27688, algorithm 1.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from calmkit.typing import typed, unchecked

from .base import (
    Draw,
    DrawForm,
    SampledChunks,
    Sampler,
    SelectableDraw,
    at_once,
    check_number,
    draw_checked,
    flattened,
)
from .weights import check_temperature, exponent_of

__all__ = ["DrawBudgetError", "ExactTemperature", "exact_temperature"]

_LARGEST_BLOCK = 64


class DrawBudgetError(RuntimeError):
    """Some rows did not finish within their budget of draws.

    Attributes:
        rows: Indices of these rows in the flattened batch.
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
        draw: The black box for P. If it has `select` (see `SelectableDraw`), finished rows cost
            nothing more.
        temperature: T in (0, 1].
        generator: Randomness of the restarts.
        max_draws: Budget of draws for each row.
        fallback: Chooses for rows that have used their budget, from new draws; they are marked
            as not settled.

    Returns:
        The chunks, and the number of candidates drawn for each row. It counts whole blocks, even
        where a row needed only the first draws: the model computed all of them.

    Raises:
        DrawBudgetError: If rows have used their budget and there is no fallback.
        ValueError: If the temperature or the budget is out of range, or a draw has a wrong shape.
    """
    _check_settings(temperature, max_draws)
    whole, part = exponent_of(temperature)
    block, used, form = whole, 0, None
    now: DrawForm | None = None
    state: ExactState | None = None
    result = rows = torch.zeros(0)
    draws = settled = rows
    current = draw
    while used < max_draws:
        n = min(block, max_draws - used)
        candidates = draw_checked(current, n, now)
        device, flat = candidates.device, flattened(candidates)
        uniforms = torch.rand(
            flat.shape[:2], generator=generator, dtype=torch.float64, device=device
        )
        flat = flat.cpu()
        if form is None or state is None:
            now = form = DrawForm.of(candidates)
            state = ExactState.start(flat[0])
            result, rows = flat[0].clone(), torch.arange(flat.shape[1], device=flat.device)
            draws = torch.zeros_like(rows)
            settled = torch.zeros_like(rows, dtype=torch.bool)
        with unchecked(used > 0):  # shapes are those of the first block
            for tokens, uniform in zip(flat, uniforms.cpu(), strict=True):
                state = state.after(tokens, uniform, whole, part)
        used, block = used + n, min(2 * block, _LARGEST_BLOCK)
        if device.type != "cpu":
            block = max(block, min(_LARGEST_BLOCK, at_once(device) // len(rows)))
        result[rows], settled[rows] = state.held, state.done
        draws[rows] += n
        if bool(state.done.all()):
            break
        if isinstance(current, SelectableDraw) and bool(state.done.any()):
            left = (~state.done).nonzero().flatten()
            current, state = current.select(left.to(device)), state.select(left)
            rows = rows[left]
            now = form.of_rows(len(left))
    assert form is not None  # max_draws is at least one
    late = (~settled).nonzero().flatten()
    if len(late):
        if fallback is None:
            raise DrawBudgetError(late.tolist(), max_draws, temperature)
        result, draws = _fall_back(fallback, draw, form, late, result, draws, generator, device)
    tokens = result.view(*form.batch, form.chunk).to(form.dtype)
    return SampledChunks(
        tokens.to(device), draws.view(form.batch).to(device), settled.view(form.batch).to(device)
    )


def _check_settings(temperature: float, max_draws: int) -> None:
    check_temperature(temperature)
    least, _ = exponent_of(temperature)
    check_number("max_draws", max_draws, least, f"1 / temperature = {1 / temperature:g}")


def _fall_back(
    fallback: Sampler,
    draw: Draw,
    form: DrawForm,
    late: Tensor,
    result: Tensor,
    draws: Tensor,
    generator: torch.Generator | None,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    if isinstance(draw, SelectableDraw):
        form, here, place = form.of_rows(len(late)), draw.select(late.to(device)), late
    else:  # it draws for all rows; only the chunks of the late ones are kept
        here, place = draw, torch.arange(len(result), device=result.device)
    chosen = fallback(here, generator)
    if tuple(chosen.tokens.shape) != (*form.batch, form.chunk):
        raise ValueError(
            f"fallback must choose chunks of shape {(*form.batch, form.chunk)}, one a row; got "
            f"{tuple(chosen.tokens.shape)}."
        )
    tokens = torch.zeros_like(result)
    tokens[place] = chosen.tokens.reshape(len(place), -1).long().cpu()
    tokens = result.index_copy(0, late, tokens[late])
    return tokens, draws.index_add(0, place, chosen.draws.flatten().long().cpu())


@typed
@dataclass(frozen=True, eq=False)
class ExactState:
    """The state of each row.

    Attributes:
        held: x, the chunk that further draws are compared with.
        run: Number of equal draws since the last restart, up to n.
        misses: i of step 2.
        done: Whether x is the row's chunk.
    """

    held: Int[Tensor, "rows chunk"]
    run: Int[Tensor, " rows"]
    misses: Int[Tensor, " rows"]
    done: Bool[Tensor, " rows"]

    @staticmethod
    def start(like: Tensor) -> "ExactState":
        """The state before the first draw; `like` is any draw, (rows, chunk)."""
        zeros = torch.zeros(len(like), dtype=torch.long, device=like.device)
        return ExactState(like, zeros, zeros + 1, zeros.bool())

    def select(self, rows: Int[Tensor, " chosen"]) -> "ExactState":
        """Some rows only."""
        return ExactState(self.held[rows], self.run[rows], self.misses[rows], self.done[rows])

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
        )


@dataclass(frozen=True)
class ExactTemperature:
    """`exact_temperature` as a sampler.

    Attributes:
        temperature: T in (0, 1].
        max_draws: Budget of a row.
        fallback: Chooses for rows that have used it; if None, they raise a `DrawBudgetError`.
    """

    temperature: float = 0.5
    max_draws: int = 10_000
    fallback: Sampler | None = None

    def __post_init__(self) -> None:
        """Refuse a temperature out of range, and a budget too small for it."""
        _check_settings(self.temperature, self.max_draws)

    def __call__(self, draw: Draw, generator: torch.Generator | None = None) -> SampledChunks:
        """Draw until every row is done."""
        return exact_temperature(
            draw,
            self.temperature,
            generator=generator,
            max_draws=self.max_draws,
            fallback=self.fallback,
        )
