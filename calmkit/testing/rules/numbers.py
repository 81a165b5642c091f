"""A rule's arithmetic: gradients, dtypes, randomness and compilation."""

import torch

from calmkit.distributions import DiagonalGaussian
from calmkit.testing.compiling import expect_one_graph
from calmkit.testing.contract import contract
from calmkit.testing.expecting import (
    expect_dtype,
    expect_finite,
    expect_same,
    expect_untouched_randomness,
)
from calmkit.testing.rules.trial import RuleTrial
from calmkit.testing.trial import neutral

__all__ = [
    "compiles",
    "dtype_is_kept",
    "gradients_are_finite_at_ugly_points",
    "half_precision_is_raised",
    "randomness_is_the_generators",
    "single_precision_is_close",
]


@contract(searches=True)
def gradients_are_finite_at_ugly_points(trial: RuleTrial) -> None:
    """Score and gradients are finite at ties, at point masses, and at tiny and huge scales."""
    rule = trial.build()

    def check(example: tuple[float, float, bool]) -> None:
        scale, std, tied = example
        samples, target = trial.problem((3,))
        samples, mean = scale * samples, scale * target.mean
        if tied:
            samples[1] = samples[0]
            mean[0] = samples[2, 0]
        spread = torch.full_like(mean, std)
        for tensor in (samples, mean, spread):
            tensor.requires_grad_()
        score = trial.score(rule, samples, DiagonalGaussian(mean, spread))
        where = f"at scale {scale:g} and std {std:g}{', with ties' if tied else ''}"
        cause = "the gradient of a norm or a power at zero, or a square that overflows"
        expect_finite(score, what=f"the score {where}", cause=cause)
        score.sum().backward()
        named = {"samples": samples, "target.mean": mean, "target.std": spread}
        for name, tensor in named.items():
            if tensor.grad is not None:
                what = f"the gradient of {name} {where}"
                expect_finite(tensor.grad, what=what, cause=cause)

    scales, stds = (0.0, 1e-6, 1e-3, 1.0, 1e3, 1e6), (0.0, 1e-8, 1e-3, 0.5, 1e3, 1e8)
    trial.search(
        lambda st: st.tuples(st.sampled_from(scales), st.sampled_from(stds), st.booleans()), check
    )


@contract()
def randomness_is_the_generators(trial: RuleTrial) -> None:
    """One seed gives one score, and torch's global generator is left alone."""
    rule = trial.build()
    samples, target = trial.problem((4,))
    cause = "a draw beside the noise that is passed in; state it in noise_size"
    first = expect_untouched_randomness(
        lambda: trial.score(rule, samples, target, number=3), cause=cause
    )
    again = trial.score(rule, samples, target, number=3)
    expect_same(again, first, what="the score", than="from the same seed before", cause=cause)
    noise = trial.noise(rule, (4,))
    first, again = (trial.call(rule.score_from, samples, target, noise) for _ in range(2))
    expect_same(again, first, what="score_from", than="from the same noise", cause=cause)


@contract()
def dtype_is_kept(trial: RuleTrial) -> None:
    """The score has the dtype of the samples, whatever torch's default is."""
    rule = trial.build()
    for dtype, default in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
        samples, target = trial.problem((4,), dtype=dtype)
        with neutral(trial.seed, default):
            score = trial.score(rule, samples, target)
            cause = "a tensor is made without dtype=, or cast to a fixed one"
            expect_dtype(score, dtype, what="the score", cause=cause)


@contract()
def single_precision_is_close(trial: RuleTrial) -> None:
    """In float32 and 32 dimensions the score is that of float64, to 3e-5."""
    rule = trial.build()
    samples, target = trial.problem((4,), 32)
    # Distances of about one, where no kernel of unit bandwidth has vanished.
    samples, target = samples / 8, DiagonalGaussian(target.mean / 8, target.std / 8)
    noise = trial.noise(rule, (4,), 32)
    want = trial.call(rule.score_from, samples, target, noise)
    single = DiagonalGaussian(target.mean.float(), target.std.float())
    got = trial.call(rule.score_from, samples.float(), single, noise.float()).double()
    cause = "large numbers that cancel, such as |x|^2 + |y|^2 - 2 x.y for a distance"
    expect_same(got, want, what="the score", than="in float64", cause=cause, rtol=3e-5, atol=3e-5)


@contract()
def half_precision_is_raised(trial: RuleTrial) -> None:
    """bfloat16 samples, also under autocast, are scored in float32."""
    rule = trial.build()
    samples, target = trial.problem((4,), dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = trial.score(rule, samples, target)
    single = DiagonalGaussian(target.mean.float(), target.std.float())
    want = trial.score(rule, samples.float(), single)
    cause = "`score` is overridden; override `score_from`, which `score` calls in float32"
    expect_dtype(got, torch.float32, what="the score", cause=cause)
    expect_same(got, want, what="the score", than="of the same numbers in float32", cause=cause,
                rtol=1e-5, atol=1e-5)  # fmt: skip


@contract()
def compiles(trial: RuleTrial) -> None:
    """The score is one graph for torch.compile with fullgraph=True, and has the same gradient."""
    rule = trial.build()
    samples, target = trial.problem((6,))
    noise, name = trial.noise(rule, (6,)), type(rule).__name__
    samples.requires_grad_()
    expect_one_graph(
        trial,
        lambda: rule.score_from(samples, target, noise),
        name=f"{name}.score_from",
        wrt=samples,
    )
    expect_one_graph(trial, lambda: rule.score(samples, target), name=f"{name}.score")
