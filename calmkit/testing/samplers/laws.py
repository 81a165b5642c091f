"""The distribution of a sampler: P^(1/T) / Z, row by row, at every temperature T."""

import torch
from torch import Tensor

from calmkit.sampling import DrawBudgetError
from calmkit.testing.chance import CHANCE, LIMIT, chi_square_chance
from calmkit.testing.contract import contract, expect
from calmkit.testing.samplers.trial import SamplerTrial

__all__ = ["budget_is_kept", "law_is_tempered", "rows_are_independent", "temperature_is_used"]

# Neighbouring rows have different distributions, so that mixing them is detected.
_LAWS = ((0.5, 0.3, 0.15, 0.05), (0.1, 0.2, 0.2, 0.5))


def _choices(trial: SamplerTrial, temperature: float, laws: Tensor, number: int) -> Tensor:
    """Outcomes chosen for rows of alternating distributions, (rows / laws, laws)."""
    sampler = trial.build(temperature)
    rows = min(trial.profile.rows, 20_000)
    probabilities = laws.repeat(rows // len(laws), 1)
    box = trial.box(probabilities, number=number, logits=trial.needs_logits(sampler))
    chosen = trial.choose(sampler, box, number=number + 1)
    return chosen.tokens.view(-1, len(laws))


@contract()
def law_is_tempered(trial: SamplerTrial) -> None:
    """Chunks are chosen with probability P^(1/T) / Z, by a chi-square test per distribution."""
    laws = torch.tensor(_LAWS)
    for temperature in trial.temperatures:
        chosen = _choices(trial, temperature, laws, 20)
        for law, outcomes in zip(laws, chosen.T, strict=True):
            sharp = law ** (1 / temperature)
            want = len(outcomes) * sharp / sharp.sum()
            got = torch.bincount(outcomes, minlength=len(law)).to(want.dtype)
            chance = chi_square_chance(got, want)
            shares = [round(x / len(outcomes), 4) for x in got.tolist()]
            expect(
                chance > CHANCE,
                seen=f"at temperature {temperature:.3g} shares {shares} over {len(outcomes)} rows",
                expected=f"{[round(x / len(outcomes), 4) for x in want.tolist()]}; that far off "
                f"has a chance of {chance:.1g}",
                cause="a distribution that is sharpened too little or too much, draws that are "
                "used twice, or rows that get another row's draws; exempt a sampler that is exact "
                "only for many candidates",
            )


def _without_temperature(trial: SamplerTrial) -> str | None:
    return None if trial.tempered else "the factory takes no temperature"


@contract(applies=_without_temperature)
def temperature_is_used(trial: SamplerTrial) -> None:
    """At half the temperature the most likely chunk is chosen more often."""
    laws = torch.tensor(_LAWS[:1])
    shares = []
    for temperature in (1.0, 0.5):
        likeliest = _choices(trial, temperature, laws, 30) == 0
        shares.append(float(likeliest.double().mean()))
        rows = len(likeliest)
    warm, cold = shares
    error = LIMIT / rows**0.5
    expect(
        cold - warm > min(error, 0.1),
        seen=f"the likeliest chunk, of probability 0.5, has the share {cold:.3f} at temperature "
        f"0.5 and {warm:.3f} at 1",
        expected="a larger share at the lower temperature; the exact one is 0.685",
        cause="the temperature is not used, or used as its inverse",
    )


@contract()
def rows_are_independent(trial: SamplerTrial) -> None:
    """Two rows with the same distribution are chosen independently."""
    law = torch.tensor(_LAWS[0])
    for temperature in trial.temperatures:
        pairs = _choices(trial, temperature, law.expand(2, -1), 40)
        size = len(law)
        got = torch.bincount(size * pairs[:, 0] + pairs[:, 1], minlength=size**2)
        got = got.view(size, size).double()
        want = got.sum(1, keepdim=True) * got.sum(0) / got.sum()
        chance = chi_square_chance(got.flatten(), want.flatten())
        same = float((pairs[:, 0] == pairs[:, 1]).double().mean())
        expect(
            chance > CHANCE,
            seen=f"at temperature {temperature:.3g} neighbouring rows choose alike in "
            f"{100 * same:.1f} per cent of {len(pairs)} pairs",
            expected=f"{100 * float(want.diagonal().sum() / got.sum()):.1f} per cent, as rows of "
            "their own",
            cause="one random number is drawn and used for all rows",
        )


def _without_budget(trial: SamplerTrial) -> str | None:
    if isinstance(getattr(trial.build(), "max_draws", None), int):
        return None
    return "the sampler has no max_draws"


@contract(applies=_without_budget)
def budget_is_kept(trial: SamplerTrial) -> None:
    """If draws never agree, at most `max_draws` are made, and the row does not settle."""
    sampler = trial.build(0.5)
    budget, made = sampler.max_draws, 0  # pyrefly: ignore[missing-attribute]

    def never_equal(n: int) -> Tensor:
        nonlocal made
        made += n
        return (made - n + torch.arange(n))[:, None, None].expand(n, 2, 1)

    try:
        chosen = trial.call(sampler, never_equal, trial.generator())
        settled = bool(chosen.settled.any())
    except DrawBudgetError:
        settled = False
    expect(
        made <= budget and not settled,
        seen=f"{made} draws of a row{', which is then settled' if settled else ''}",
        expected=f"at most max_draws = {budget}, and a row that is not settled, or an error",
        cause="the last block of draws is not cut to what is left, or `settled` is always True",
    )
