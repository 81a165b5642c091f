"""Every diagnostic: one line, a limit with two sides, and none that escapes these tests."""

import inspect
import math

import pytest
import torch

from calmkit import diagnostics
from calmkit.diagnostics import (
    CollisionCalibration,
    ConditioningGap,
    DecoderGate,
    Diagnostic,
    EnergySkill,
    Interpolation,
    LatentError,
    LatentUse,
    NearestChunks,
    NextChunkAccuracy,
    NoiseCurve,
    PrincipalMap,
    PriorGap,
    SampleSpread,
    SampleVotes,
    StateRank,
    TextQuality,
)
from calmkit.diagnostics.latent_error import Distances
from calmkit.metrics import Estimate


def curve(from_mean, from_posterior):
    return NoiseCurve((0.0, 0.5, 1.0), (1.0, 0.9, 0.3), from_mean, from_posterior, 0.1)


def use(signal, active):
    """Some of ten dimensions are active, the others at the limit."""
    return LatentUse((signal,) * active + (0.01,) * (10 - active), (1.0,) * 10)


def prior(marginal, correlation):
    return PriorGap((0.0,) * 2, (1.0,) * 2, (marginal, 0.0), correlation)


def gap(value, error):
    return ConditioningGap(Estimate(3.0, 0.1), Estimate(3.2, 0.1), Estimate(value, error))


def skill(gain, error):
    return EnergySkill(Estimate(3.0, 0.1), Estimate(4.0, 0.1), Estimate(gain, error), 1.0)


def rates(hit, collision, error):
    """The first order is fine; the second is as asked."""
    fine = Estimate(0.2, 0.1)
    excess = Estimate(collision - hit, error)
    return CollisionCalibration(
        (fine, Estimate(hit, 0.1)), (fine, Estimate(collision, 0.1)), (Estimate(0, 0.1), excess)
    )


def near(distance):
    return NearestChunks(
        torch.tensor([[0, 1]]), torch.tensor([[distance, 9.0]]), torch.tensor([2.0])
    )


def way(foreign):
    """Of four tokens between the ends, some are foreign."""
    between = torch.tensor([7] * foreign + [1] * (4 - foreign)).view(2, 1, 2)
    return Interpolation(torch.cat((torch.full((1, 1, 2), 1), between, torch.full((1, 1, 2), 2))))


def plane(*variances):
    return PrincipalMap(torch.zeros(20), torch.zeros(2, 20), torch.tensor(variances))


def guesses(of_mean, of_draws):
    return NextChunkAccuracy(
        Estimate(of_mean, 0.01), Estimate(of_draws, 0.01), (of_mean, of_mean), 0.1
    )


def votes(agreement, *, equal=False):
    rate = (Estimate(agreement, 0.01),)
    return SampleVotes(rate, rate, rate, rate, draws=8, is_deterministic=equal)


def gain(value, error):
    four = Distances(*(Estimate(x, 0.1) for x in (2.0, 1.0, 1.5, 3.0)))
    return LatentError(four, four, Estimate(value, error), 8)


# Just on the right side of each limit, and just on the wrong one.
CASES = [
    (curve(0.99, 0.95), curve(0.989, 1.0)),
    (curve(1.0, 1.0), curve(1.0, 0.949)),
    (use(0.011, 9), use(0.9, 8)),
    (prior(0.6, math.inf), prior(0.61, 0.0)),
    (gap(0.21, 0.1), gap(0.2, 0.1)),
    (gap(1e-9, 0.0), gap(0.0, 0.0)),
    (skill(0.21, 0.1), skill(0.2, 0.1)),
    (gain(0.21, 0.1), gain(0.2, 0.1)),
    (SampleSpread(0.8, 0.5, 2.0, 1.0), SampleSpread(0.79, 0.5, 2.0, 1.0)),
    (SampleSpread(1.25, 0.5, 2.0, 1.0), SampleSpread(1.26, 0.5, 2.0, 1.0)),
    (SampleSpread(0.0, 0.0, 2.0, 0.0), SampleSpread(0.0, 0.0, 2.0, 1.0)),
    (rates(0.1, 0.125, 1e-9), rates(0.1, 0.1251, 1e-9)),
    (rates(0.1, 0.08, 1e-9), rates(0.1, 0.0799, 1e-9)),
    (rates(0.1, 0.4, 0.1001), rates(0.1, 0.4, 0.0999)),
    (near(3.0), near(3.01)),
    (way(2), way(3)),
    (plane(1.0, 1.0), plane(1.0, 0.9)),
    (guesses(0.11, 0.0), guesses(0.1, 0.1)),
    (guesses(0.0, 0.11), guesses(0.0, 0.0)),
    (DecoderGate(0.3, (1.0, 0.95), (1.0, 1.0)), DecoderGate(0.3, (1.0, 0.949), (1.0, 1.0))),
    (StateRank(6.4, 64, 0.9), StateRank(6.3, 64, 0.0)),
    (votes(1 / 19_900), votes(1 / 20_000)),
    (votes(1.0), votes(1.0, equal=True)),
    (TextQuality((4, 1, 1, 1.1), (1, 1, 2, 2)), TextQuality((4, 1, 1, 1), (1, 1, 2, 2))),
    # Trigrams that are no better than chance from the third token on.
    (TextQuality((5, 2, -1, 0), (3, 3, -1, 5)), TextQuality((4, 2, 9, 9), (3, 3, 0, 5))),
    (TextQuality((0.1, 0, 0, 0), (0, 1, 1, 1)), TextQuality((-1, -1, 1, 1), (0, 1, 1, 1))),
]  # fmt: skip


@pytest.mark.parametrize(("good", "bad"), CASES)
def test_each_limit_has_two_sides(good, bad):
    assert not good.is_bad and bad.is_bad
    assert good.verdict.startswith("ok ") and bad.verdict.startswith("BAD")


@pytest.mark.parametrize("diagnostic", [case for pair in CASES for case in pair])
def test_the_verdict_is_one_line_with_numbers_and_meaning(diagnostic):
    text = diagnostic.verdict
    assert "\n" not in text and text.endswith(".") and ".." not in text
    assert diagnostic.summary in text and diagnostic.meaning in text
    assert any(character.isdigit() for character in diagnostic.summary)


def test_no_diagnostic_escapes():
    exported = {
        value
        for value in vars(diagnostics).values()
        if inspect.isclass(value) and issubclass(value, Diagnostic)
    }
    tested = {type(case) for pair in CASES for case in pair}
    assert exported == tested | {Diagnostic}


class TestDerivedNumbers:
    def test_tolerated_noise_ends_at_the_first_fall(self):
        sizes, accuracy = (0.0, 0.1, 0.2, 0.3), (1.0, 0.9, 0.89, 0.95)
        assert NoiseCurve(sizes, accuracy, 1.0, 1.0, 0.1).tolerated == 0.1
        assert NoiseCurve(sizes, (0.5,) * 4, 1.0, 1.0, 0.1).tolerated == 0.0

    def test_ratio_of_spreads_without_a_posterior_spread(self):
        assert SampleSpread(1.0, 0.5, 2.0, 1.0).ratio == 2.0
        assert SampleSpread(1.0, 0.0, 2.0, 1.0).ratio == math.inf
        assert SampleSpread(0.0, 0.0, 2.0, 1.0).ratio == 1.0

    def test_skill_is_the_share_that_is_saved(self):
        assert skill(1.0, 0.1).skill == 0.25

    def test_effective_dimensions(self):
        assert plane(2.0, 2.0, 2.0).effective_dimensions == pytest.approx(3.0)
        assert plane(3.0, 1.0).effective_dimensions == pytest.approx(16 / 10)
        assert plane(0.0, 0.0).effective_dimensions == 0.0

    def test_foreign_tokens_are_of_neither_end_at_their_place(self):
        tokens = torch.tensor([[1, 2], [2, 2], [1, 3], [4, 3]])  # 2 is known at the second place
        assert Interpolation(tokens).foreign == 1 / 4
