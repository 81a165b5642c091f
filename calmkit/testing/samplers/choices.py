"""What a sampler gives back for a black box, and what that depends on."""

import math
from typing import Any

import torch
from torch import Tensor

from calmkit.sampling import Sampler
from calmkit.testing.contract import Broken, contract, expect
from calmkit.testing.expecting import (
    expect_refused,
    expect_shape,
    expect_untouched_randomness,
)
from calmkit.testing.samplers.box import Box
from calmkit.testing.samplers.trial import SamplerTrial

__all__ = [
    "any_batch_and_chunk",
    "can_be_built_and_used",
    "draws_are_reported_honestly",
    "randomness_is_the_generators",
    "sure_rows_are_settled",
    "wrong_draws_are_refused",
]

_P = (0.5, 0.3, 0.15, 0.05)


def _rows(count: int) -> Tensor:
    return torch.tensor(_P).expand(count, -1)


@contract()
def can_be_built_and_used(trial: SamplerTrial) -> None:
    """A sampler is built and chooses one chunk of each row, with its number of draws."""
    for temperature in trial.temperatures:
        sampler = trial.build(temperature)
        box = trial.box(_rows(6), logits=trial.needs_logits(sampler))
        chosen = trial.choose(sampler, box)
        cause = "an axis of candidates is left, or the rows are flattened"
        expect_shape(chosen.tokens, (6, 1), what="tokens", cause=cause)
        for name in ("draws", "settled"):
            expect_shape(getattr(chosen, name), (6,), what=name, cause=cause)


def _boxes(strategies: Any) -> Any:
    sides = strategies.lists(strategies.integers(1, 3), max_size=2).map(tuple)
    return strategies.tuples(
        sides, strategies.integers(1, 3), strategies.booleans(), strategies.integers(0, 99)
    )


@contract(searches=True)
def any_batch_and_chunk(trial: SamplerTrial) -> None:
    """For any batch and chunk a row's choice is one of the chunks that were drawn for it."""
    samplers = {temperature: trial.build(temperature) for temperature in trial.temperatures}
    logits = trial.needs_logits(samplers[1.0])

    def check(example: tuple[tuple[int, ...], int, bool, int]) -> None:
        batch, chunk, selectable, number = example
        chunk = 1 if logits else chunk
        for sampler in samplers.values():
            box = trial.box(
                _rows(math.prod(batch)), batch=batch, chunk=chunk, number=number, logits=logits,
                selectable=selectable,
            )  # fmt: skip
            chosen = trial.choose(sampler, box, number=number)
            cause = "rows are flattened and not brought back into their batch"
            expect_shape(chosen.tokens, (*batch, chunk), what="tokens", cause=cause)
            expect_shape(chosen.draws, batch, what="draws", cause=cause)
            if not logits:
                _expect_drawn(box, chosen.tokens.reshape(-1, chunk))

    trial.search(_boxes, check)


def _expect_drawn(box: Box, tokens: Tensor) -> None:
    for row, chunk in enumerate(tokens):
        candidates = box.tokens[: int(box.counts[row]), row]
        expect(
            (candidates == chunk).all(dim=-1).any(),
            seen=f"row {row} got the chunk {chunk.tolist()}, which was never drawn for it",
            expected=f"one of its {len(candidates)} draws",
            cause="rows or places of a chunk are mixed, by a reshape in the wrong order",
        )


@contract()
def draws_are_reported_honestly(trial: SamplerTrial) -> None:
    """A choice depends on no draw beyond those that are reported, and no fewer were made.

    All draws behind the reported ones are replaced, and the choice must be the same.
    """
    for temperature in trial.temperatures:
        sampler = trial.build(temperature)
        logits = trial.needs_logits(sampler)
        box = trial.box(_rows(200), logits=logits)
        chosen = trial.choose(sampler, box)
        drawn, told = box.counts, chosen.draws
        expect(
            bool((told >= 1).all()),
            seen=f"{int((told < 1).sum())} of 200 rows report fewer than one draw",
            expected="at least one",
            cause="the count starts from zero, or leaves out the last draw",
        )
        if logits:  # it draws from the probabilities by itself
            continue
        more = told > drawn
        if bool(more.any()):
            row = int(more.nonzero()[0])
            raise Broken(
                seen=f"row {row} reports {int(told[row])} draws; {int(drawn[row])} were made",
                expected="no more than were made",
                cause="draws of another row, or of a later round, are counted",
            )
        other, new = (trial.box(_rows(200), number=n, logits=False) for n in (1, 2))
        behind = torch.arange(len(other.tokens))[:, None] >= told
        other.tokens[behind] = new.tokens[behind]
        again = trial.choose(sampler, other)
        changed = int((again.tokens != chosen.tokens).any(dim=-1).sum())
        expect(
            changed == 0,
            seen=f"at temperature {temperature:.3g} {changed} of 200 choices change when draws "
            "beyond the reported number do",
            expected="choices from the reported draws alone",
            cause="draws are undercounted: those of a restart, of a fallback, or the last one",
        )


@contract()
def randomness_is_the_generators(trial: SamplerTrial) -> None:
    """One seed and one box give one choice, and torch's global generator is left alone."""
    for temperature in trial.temperatures:
        sampler = trial.build(temperature)
        logits = trial.needs_logits(sampler)

        def run(sampler: Sampler = sampler, logits: bool = logits) -> Tensor:
            return trial.choose(sampler, trial.box(_rows(200), logits=logits)).tokens

        cause = "a draw such as torch.rand or multinomial without generator="
        first = expect_untouched_randomness(run, cause=cause)
        again = run()
        expect(
            torch.equal(first, again),
            seen=f"{int((first != again).sum())} of 200 choices differ",
            expected="the same choices from the same seed and the same draws",
            cause="something is kept between calls",
        )


@contract()
def sure_rows_are_settled(trial: SamplerTrial) -> None:
    """A row that always draws the same chunk gets it, and is settled."""
    for temperature in trial.temperatures:
        sampler = trial.build(temperature)
        sure = torch.tensor([[0.0, 1.0, 0.0]]).expand(20, -1)
        chosen = trial.choose(sampler, trial.box(sure, logits=trial.needs_logits(sampler)))
        expect(
            bool((chosen.tokens == 1).all()) and bool(chosen.settled.all()),
            seen=f"{int((chosen.tokens == 1).sum())} of 20 rows got their only chunk, "
            f"{int(chosen.settled.sum())} are settled",
            expected="all 20",
            cause="`settled` is inverted, or equal draws are not seen to agree",
        )


def _needs_logits(trial: SamplerTrial) -> str | None:
    if trial.needs_logits(trial.build()):
        return "the sampler reads logits, not draws"
    return None


@contract(applies=_needs_logits)
def wrong_draws_are_refused(trial: SamplerTrial) -> None:
    """A black box that gives another number of draws, or no integers, is refused by name."""
    for temperature in trial.temperatures:
        sampler = trial.build(temperature)
        for rule, draw in {
            "a black box gives as many draws as it is asked for": lambda n: torch.zeros(
                n + 1, 4, 2, dtype=torch.long
            ),
            "a black box gives integers": lambda n: torch.zeros(n, 4, 2),
        }.items():
            expect_refused(trial, sampler, draw, trial.generator(), naming="draw", rule=rule)
