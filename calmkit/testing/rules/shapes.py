"""What a rule takes and what it gives back."""

import itertools

import torch

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring import ScoringRule
from calmkit.testing.contract import contract, expect
from calmkit.testing.expecting import (
    expect_finite,
    expect_refused,
    expect_same,
    expect_shape,
    expect_unchanged,
    no_shape_checks,
)
from calmkit.testing.first_use import REDUCED_SCORE, use_rule
from calmkit.testing.rules.trial import LATENT, RuleTrial
from calmkit.testing.tensors import EMPTY_BATCHES, batches, laid_out, layouts_and_batches

__all__ = [
    "arguments_are_left_alone",
    "can_be_built_and_used",
    "empty_batches_are_empty",
    "layout_in_memory_does_not_matter",
    "order_of_samples_does_not_matter",
    "positions_do_not_mix",
    "shapes_fit_any_batch",
    "wrong_arguments_are_named",
]


@contract()
def can_be_built_and_used(trial: RuleTrial) -> None:
    """A rule is built, says whether and where it is proper, and has a score for each position."""
    rule = trial.build()
    use_rule(trial, rule)
    expect(
        isinstance(rule.condition, str) and rule.condition,
        seen=f"condition = {rule.condition!r}",
        expected="words on where the rule is proper, or what it cannot see",
        cause="the property returns nothing",
    )
    expect(
        rule.proper or not rule.strictly_proper,
        seen="strictly_proper is True, proper is False",
        expected="a strictly proper rule to be proper",
        cause="one of the two is not overridden",
    )


@contract(searches=True)
def shapes_fit_any_batch(trial: RuleTrial) -> None:
    """For any batch the score has its shape, and is finite."""
    rule = trial.build()
    # What is between dimensions needs two of them.
    trial.search(
        lambda st: st.tuples(st.integers(2, 4), batches(st), st.integers(0, 3)),
        lambda example: _expect_scores(trial, rule, *example),
    )


@contract()
def empty_batches_are_empty(trial: RuleTrial) -> None:
    """Without a position there are no scores, but their axes."""
    rule = trial.build()
    for batch in EMPTY_BATCHES:
        _expect_scores(trial, rule, LATENT, batch, 1)


def _expect_scores(
    trial: RuleTrial, rule: ScoringRule, latent: int, batch: tuple[int, ...], more: int
) -> None:
    samples, target = trial.problem(batch, latent, samples=rule.min_samples + more)
    score = trial.score(rule, samples, target)
    expect_shape(score, batch, what="the score", cause=REDUCED_SCORE)
    expect_finite(score, what="the score", cause="a division by zero")


@contract(searches=True)
def layout_in_memory_does_not_matter(trial: RuleTrial) -> None:
    """Expanded and non-contiguous tensors give the same as their contiguous copies."""
    rule = trial.build()

    def check(example: tuple[str, tuple[int, ...]]) -> None:
        layout, batch = example
        samples, target = trial.problem((2, *batch), samples=rule.min_samples + 1)
        odd, mean, std = (laid_out(x, layout) for x in (samples, target.mean, target.std))
        plain = DiagonalGaussian(mean.contiguous(), std.contiguous())
        want = trial.score(rule, odd.contiguous(), plain)
        got = trial.score(rule, odd, DiagonalGaussian(mean, std))
        than = f"for contiguous copies (layout: {layout})"
        cause = "`view` where `reshape` is needed, or a result written through an expanded tensor"
        expect_same(got, want, what="the score", than=than, cause=cause)

    trial.search(layouts_and_batches, check)


@contract()
def arguments_are_left_alone(trial: RuleTrial) -> None:
    """Samples and target are read, never written."""
    rule = trial.build()
    samples, target = trial.problem((4,))
    given = (samples, target.mean, target.std)
    before = [tensor.clone() for tensor in given]
    trial.score(rule, samples, target)
    expect_unchanged(before, given, names="samples target.mean target.std")


@contract()
def positions_do_not_mix(trial: RuleTrial) -> None:
    """Scored together or alone, from the same noise, a position has the same score."""
    rule = trial.build()
    samples, target = trial.problem((2, 3))
    noise = trial.noise(rule, (2, 3))
    together = trial.call(rule.score_from, samples, target, noise)
    for i, j in itertools.product(range(2), range(3)):
        alone = DiagonalGaussian(target.mean[i, j], target.std[i, j])
        got = trial.call(rule.score_from, samples[:, i, j], alone, noise[:, i, j])
        than = f"that of position ({i}, {j}) among the others"
        cause = "an operation along a batch axis, such as one bandwidth or scale for all positions"
        expect_same(got, together[i, j], what="the score alone", than=than, cause=cause)


@contract()
def order_of_samples_does_not_matter(trial: RuleTrial) -> None:
    """Samples are a set: in another order they have the same score."""
    rule = trial.build()
    samples, target = trial.problem((4,))
    want = trial.score(rule, samples, target)
    # No two neighbours stay neighbours, and another sample comes first.
    got = trial.score(rule, samples[[2, 0, 4, 1, 3]], target)
    cause = "neighbouring samples only are compared, or one of them is singled out"
    expect_same(got, want, what="the score", than="in another order", cause=cause)


@contract(applies=no_shape_checks)
def wrong_arguments_are_named(trial: RuleTrial) -> None:
    """Wrong shapes, too few samples, NaN, infinity and negative spreads are refused by name."""
    rule = trial.build()
    samples, target = trial.problem((4,))
    for wrong in (samples[:, :1], samples[..., :2], samples[:, None], samples[:, 0]):
        rule_text = "samples have one axis more than the target"
        expect_refused(trial, rule.score, wrong, target, naming="samples", rule=rule_text)
    few = samples[: rule.min_samples - 1]
    rule_text = f"there are at least {rule.min_samples} samples"
    expect_refused(trial, rule.score, few, target, naming="samples", rule=rule_text)
    for value in (float("nan"), float("inf")):
        bad = samples.clone()
        bad[1, 2, 0] = value
        rule_text = "samples are finite"
        expect_refused(trial, rule.score, bad, target, naming="samples", rule=rule_text)
        broken = DiagonalGaussian(bad[1], target.std)
        expect_refused(trial, rule.score, samples, broken, naming="mean", rule="it is finite")
    negative = DiagonalGaussian(target.mean, torch.full_like(target.std, -0.5))
    rule_text = "it is not negative"
    expect_refused(trial, rule.score, samples, negative, naming="std", rule=rule_text)
