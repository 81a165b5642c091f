"""Propriety: no wrong distribution scores better than the truth."""

import math

import torch
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.testing.chance import LIMIT, expect_equal_means
from calmkit.testing.contract import contract, expect
from calmkit.testing.expecting import expect_same
from calmkit.testing.rules.enumeration import expected, problem_blocks, problems, scores_of
from calmkit.testing.rules.trial import RuleTrial

__all__ = [
    "mean_over_outcomes",
    "no_wrong_distribution_scores_as_well",
    "proper_on_finite_supports",
    "score_averages_over_the_target",
    "truth_beats_rivals_of_a_gaussian",
    "unbiased_for_any_number_of_samples",
]


def _not_proper(trial: RuleTrial) -> str | None:
    rule = trial.build()
    return None if rule.proper else f"the rule says that it is not proper: {rule.condition}"


@contract()
def unbiased_for_any_number_of_samples(trial: RuleTrial) -> None:
    """The enumerated expected score does not change with one more sample."""
    rule = trial.build()
    least = rule.min_samples
    for block in problem_blocks(trial, least + 1):
        few, more = (
            expected(scores_of(trial, rule, block.support, count), block.rival, block.truth)
            for count in (least, least + 1)
        )
        expect_same(
            few,
            more,
            what=f"the expected score from {least} samples",
            than=f"from {least + 1} samples",
            cause="pairs of a sample with itself are counted, a divisor is m instead of m - 1, "
            "or a function of an estimate stands for the estimate of a function",
            rtol=1e-10,
            atol=1e-12,
        )


@contract(applies=_not_proper)
def proper_on_finite_supports(trial: RuleTrial) -> None:
    """By enumeration, no rival scores better than the truth; if strict, none as well."""
    rule = trial.build()
    for block in problem_blocks(trial, rule.min_samples):
        scores = scores_of(trial, rule, block.support, rule.min_samples)
        rivals, truths = (expected(scores, p, block.truth) for p in (block.rival, block.truth))
        excess, distance = rivals - truths, block.distance
        rounding = -1e-12 * scores.flatten(1).abs().amax(dim=-1)
        least = 1e-9 * distance.square() if rule.strictly_proper else rounding
        worst = int((excess - least).nan_to_num(-math.inf).argmin())
        expect(
            excess[worst] > least[worst],
            seen=f"a rival at total variation {distance[worst]:.3f} from the truth scores better "
            f"than it by {-excess[worst]:.3g}",
            expected=f"worse by more than {least[worst]:.1g}",
            cause="a wrong weight of a term (the 1/2 of the pair term), a wrong sign, or a "
            "function of distance that is not of negative type",
        )


@contract(applies=_not_proper)
def no_wrong_distribution_scores_as_well(trial: RuleTrial) -> None:
    """A gradient search finds no prediction better than the truth; if strict, none as good."""
    rule = trial.build()
    # More points than first and second moments, to expose a rule that depends only on these.
    size = 7 if rule.min_samples <= 2 else 4
    for number in range(3):
        block = problems(trial, range(number, number + 1), size)
        truth = block.truth[0]
        scores = scores_of(trial, rule, block.support, rule.min_samples)
        best = float(expected(scores, block.truth, block.truth))
        for start in 3 * torch.eye(size)[:4]:
            found = _attack(scores, block.truth, start)
            excess = float(expected(scores, found[None], block.truth)) - best
            distance = float((found - truth).abs().sum() / 2)
            seen = (
                f"the prediction {[round(p, 4) for p in found.tolist()]} scores {excess:+.3g} "
                f"compared with the truth {[round(p, 4) for p in truth.tolist()]}"
            )
            cause = (
                "the rule sees only part of the distribution (a mean, some projection, one "
                "dimension), or rewards spread too much or too little"
            )
            expect(excess > -1e-9, seen=seen, expected="a score that is no better", cause=cause)
            if rule.strictly_proper:
                expect(
                    excess > 1e-9 or distance < 0.05,
                    seen=seen,
                    expected="a worse score: the rule says that it is strictly proper",
                    cause=cause,
                )


def _attack(scores: Tensor, truth: Tensor, start: Tensor) -> Tensor:
    """The prediction with the smallest expected score found by descent."""
    logits = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=200, line_search_fn="strong_wolfe",
        tolerance_grad=1e-11, tolerance_change=1e-14,
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = expected(scores, logits.softmax(dim=-1)[None], truth).squeeze()
        value.backward()
        return value

    optimizer.step(closure)
    return logits.detach().softmax(dim=-1)


@contract(applies=_not_proper)
def truth_beats_rivals_of_a_gaussian(trial: RuleTrial) -> None:
    """Against a Gaussian, its own samples score no worse than shifted, wider or narrower ones."""
    rule = trial.build()
    rows, size = trial.profile.rows, max(2, rule.min_samples)
    draws = 0.6 * torch.randn(size, rows, 2, generator=trial.generator(5))
    target = DiagonalGaussian(torch.zeros(rows, 2), torch.full((rows, 2), 0.6))
    truth = trial.score(rule, draws, target, number=6)
    for name, rival in {
        "shifted by 0.3": draws + 0.3,
        "1.7 times as wide": 1.7 * draws,
        "half as wide": 0.5 * draws,
        "of equal coordinates": draws[..., :1].expand(-1, -1, 2),
    }.items():
        excess = trial.score(rule, rival, target, number=6) - truth
        error = LIMIT * float(excess.std()) / rows**0.5
        mean = float(excess.mean())
        expect(
            mean > -error,
            seen=f"samples {name} score {mean:+.4g} compared with the truth, give or take "
            f"{error:.2g}",
            expected="no better score",
            cause="the target's std does not enter as it should: ignored, or as a variance",
        )


@contract()
def score_averages_over_the_target(trial: RuleTrial) -> None:
    """The expected score against a Gaussian equals that against points drawn from it."""
    rule = trial.build()
    rows = trial.profile.rows
    samples = torch.randn(rule.min_samples + 1, 2, generator=trial.generator(3))
    samples = samples[:, None].expand(-1, rows, -1)
    mean = torch.randn(2, generator=trial.generator(4)).expand(rows, -1)
    target = DiagonalGaussian(mean, torch.tensor([0.7, 0.2]).expand(rows, -1))
    points = DiagonalGaussian.point_mass(target.sample(1, trial.generator(5))[0])
    of_points = trial.score(rule, samples, points, number=6)
    of_gaussian = trial.score(rule, samples, target, number=7)
    cause = "the target's std is ignored, taken for a variance, or the closed form is wrong"
    expect_equal_means(of_gaussian, of_points, cause=cause)


@contract()
def mean_over_outcomes(trial: RuleTrial) -> None:
    """`score_outcomes` is the mean over point masses, with the same gradient."""
    rule = trial.build()
    samples, target = trial.problem((4,))
    outcomes = target.sample(3, trial.generator(5))
    noise = trial.noise(rule, (4,))
    results = []
    for at_once in (True, False):
        x = samples.clone().requires_grad_()
        if at_once:
            score = trial.call(rule.score_outcomes, x, outcomes, noise)
        else:
            points = map(DiagonalGaussian.point_mass, outcomes)
            score = torch.stack([rule.score_from(x, y, noise) for y in points]).mean(dim=0)
        score.sum().backward()
        assert x.grad is not None
        results.append((score.detach(), x.grad))
    cause = "score_outcomes is overridden with another divisor, or other pairs"
    for what, got, want in zip(("the score", "its gradient"), *results, strict=True):
        expect_same(got, want, what=what, than="the mean over outcomes", cause=cause)
