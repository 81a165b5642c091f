"""A kernel as a function of the distance: its shape, its ends and its arithmetic."""

import math

import torch
from torch import Tensor

from calmkit.testing.compiling import expect_one_graph
from calmkit.testing.contract import contract, expect
from calmkit.testing.expecting import (
    expect_dtype,
    expect_finite,
    expect_refused,
    expect_same,
    expect_shape,
    expect_unchanged,
)
from calmkit.testing.kernels.trial import KernelTrial, without_bandwidths
from calmkit.testing.tensors import EMPTY_BATCHES, laid_out, layouts_and_batches
from calmkit.testing.trial import neutral

__all__ = [
    "argument_is_left_alone",
    "at_distance_zero",
    "bandwidths_scale_and_add",
    "can_be_built_and_used",
    "compiles",
    "dtype_is_kept",
    "each_distance_by_itself",
    "falls_with_distance",
    "finite_at_any_distance",
    "value_and_dissimilarity_add_up",
    "wrong_bandwidths_are_refused",
]

_ELEMENTWISE = "an operation along an axis: a sum, a norm, or a scale of all distances"


@contract()
def can_be_built_and_used(trial: KernelTrial) -> None:
    """A kernel is built, knows its bandwidths, and has a value for each distance."""
    kernel = trial.build()
    found = kernel.all_bandwidths
    expect(
        len(found) > 0 and all(0 < b < math.inf for b in found) and kernel.unit == min(found),
        seen=f"all_bandwidths = {found}, unit = {kernel.unit}",
        expected="positive numbers, and the smallest of them",
        cause="a property is overridden, or the constructor does not call __post_init__",
    )
    r = trial.distances(4)
    for name, run in (("value", trial.value), ("dissimilarity", trial.dissimilarity)):
        expect_shape(run(kernel, r), (4,), what=f"what {name} returns", cause=_ELEMENTWISE)


@contract(searches=True)
def each_distance_by_itself(trial: KernelTrial) -> None:
    """In tensors of any shape and layout, value and dissimilarity are those of each distance."""
    kernel = trial.build()

    def check(example: tuple[str, tuple[int, ...]]) -> None:
        layout, batch = example
        r = laid_out(trial.distances(2, *batch), layout)
        for name, run in (("value", trial.value), ("dissimilarity", trial.dissimilarity)):
            got = run(kernel, r)
            alone = [run(kernel, one) for one in r.flatten().clone()]
            want = torch.stack(alone).view(r.shape)
            expect_same(got, want, what=name, than="of each distance alone", cause=_ELEMENTWISE)

    trial.search(layouts_and_batches, check)
    for empty in EMPTY_BATCHES:
        cause = "a maximum over no distances, or a reshape that infers an axis with -1"
        got = trial.value(kernel, torch.ones(empty))
        expect_shape(got, empty, what="the value of no distances", cause=cause)


@contract()
def argument_is_left_alone(trial: KernelTrial) -> None:
    """Distances are read, never written."""
    kernel, r = trial.build(), trial.distances(5)
    before = r.clone()
    for run in (kernel.value, kernel.dissimilarity, kernel.exponent):
        trial.call(run, r)
        expect_unchanged([before], [r], names="distance")


@contract()
def at_distance_zero(trial: KernelTrial) -> None:
    """Equal points have k(0) = `at_zero`, the number of bandwidths, and no dissimilarity."""
    kernel = trial.build()
    count, zero = len(kernel.all_bandwidths), torch.zeros(2)
    seen = f"at_zero = {kernel.at_zero} with {count} bandwidths"
    cause = "the kernel is divided by its number of bandwidths, or by a norm"
    expect(kernel.at_zero == count, seen=seen, expected=count, cause=cause)
    cause = "a factor, a constant inside a root, or an exponent that is not 0 at distance 0"
    got, want = trial.value(kernel, zero), torch.full((2,), float(count))
    expect_same(got, want, what="k(0)", than="at_zero", cause=cause, rtol=1e-12)
    got = trial.dissimilarity(kernel, zero)
    what = "the dissimilarity of equal points"
    expect_same(got, zero, what=what, than="0", cause=cause, atol=0.0)


@contract()
def value_and_dissimilarity_add_up(trial: KernelTrial) -> None:
    """Value and dissimilarity add up to k(0), also in float32 where points nearly agree."""
    kernel = trial.build()
    r = torch.cat([torch.logspace(-6, 3, 50), trial.distances(20)])
    total = trial.value(kernel, r) + trial.dissimilarity(kernel, r)
    cause = "one of the two is overridden, and sums other bandwidths or another formula"
    want = torch.full_like(r, kernel.at_zero)
    expect_same(total, want, what="their sum", than="k(0)", cause=cause, rtol=1e-12)
    near = torch.tensor([1e-3, 1e-2, 0.1])
    got = trial.dissimilarity(kernel, near.float()).double()
    want = trial.dissimilarity(kernel, near)
    cause = "1 - exp(-x), which cancels at small x; -expm1(-x) does not"
    what, than = "the dissimilarity of close points in float32", "in float64, to 1e-4 of itself"
    expect_same(got, want, what=what, than=than, cause=cause, rtol=1e-4, atol=0.0)


@contract()
def falls_with_distance(trial: KernelTrial) -> None:
    """With the distance k falls from k(0) towards 0, as every mixture of Gaussians does."""
    kernel = trial.build()
    r = torch.cat([torch.zeros(1), torch.logspace(-4, 4, 400)])
    value = trial.value(kernel, r)
    cause = "a kernel that waves or rises is no mixture of Gaussians; its sign may be wrong too"
    lowest, highest = float(value.min()), float(value.max())
    seen = f"values from {lowest:.6g} to {highest:.6g}"
    within = lowest >= 0 and highest <= kernel.at_zero * (1 + 1e-12)
    expect(within, seen=seen, expected=f"from 0 to {kernel.at_zero}", cause=cause)
    rising = value.diff() > 1e-12
    where = float(r[:-1][rising][0]) if bool(rising.any()) else 0.0
    seen = (
        f"it rises at {int(rising.sum())} of 400 places, first at a distance of {where:.3g} units"
    )
    expect(not bool(rising.any()), seen=seen, expected="none", cause=cause)


@contract()
def finite_at_any_distance(trial: KernelTrial) -> None:
    """Values and gradients are finite at ties, and at distances from 1e-30 to 1e30, in float32."""
    kernel = trial.build()
    for dtype in (torch.float64, torch.float32):
        for distance in (0.0, 1e-30, 1e-6, 1.0, 1e6, 1e18, 1e30):
            r = torch.tensor([distance], dtype=dtype, requires_grad=True)
            for name, run in (("value", kernel.value), ("dissimilarity", kernel.dissimilarity)):
                got = trial.call(run, r)
                where = f"of a distance of {distance:g} in {dtype}"
                cause = "a root or a power at zero, or a square that overflows before a logarithm"
                expect_finite(got, what=f"the {name} {where}", cause=cause)
                (gradient,) = torch.autograd.grad(got.sum(), r)
                expect_finite(gradient, what=f"the gradient of the {name} {where}", cause=cause)


@contract()
def dtype_is_kept(trial: KernelTrial) -> None:
    """Exponent, value and mixture have the dtype that is given, whatever torch's default is."""
    kernel = trial.build()
    for dtype, default in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
        r = trial.distances(4).to(dtype)
        with neutral(trial.seed, default):
            results = {
                "the exponent": trial.call(kernel.exponent, r),
                "the value": trial.call(kernel.value, r),
                "the dissimilarity": trial.call(kernel.dissimilarity, r),
                **dict(zip(("nodes", "weights"), trial.call(kernel.mixture, r), strict=True)),
            }
            for what, got in results.items():
                cause = "a tensor is made without dtype=, or cast to a fixed one"
                expect_dtype(got, dtype, what=what, cause=cause)


@contract()
def compiles(trial: KernelTrial) -> None:
    """Value and dissimilarity are one graph for torch.compile, with the same gradient."""
    kernel, name = trial.build(), type(trial.build()).__name__
    r = trial.distances(6).requires_grad_()
    expect_one_graph(trial, lambda: kernel.value(r), name=f"{name}.value", wrt=r)
    expect_one_graph(trial, lambda: kernel.dissimilarity(r), name=f"{name}.dissimilarity", wrt=r)


@contract(applies=without_bandwidths)
def bandwidths_scale_and_add(trial: KernelTrial) -> None:
    """Distances are read in bandwidths, and several bandwidths have the sum of their kernels."""
    r = torch.cat([torch.zeros(1), trial.distances(20)])

    def value(bandwidths: float | list[float], distance: Tensor) -> Tensor:
        return trial.call(trial.build(bandwidths).value, distance)

    cause = "the bandwidth is squared, is not used, or is a rate rather than a length"
    what, than = "k of three times the distance at three times the bandwidth", "k"
    expect_same(value(3.0, 3 * r), value(1.0, r), what=what, than=than, cause=cause)
    got = value([0.5, 1.0, 4.0], r)
    want = sum((value(b, r) for b in (0.5, 1.0, 4.0)), torch.zeros_like(r))
    cause = "a mean instead of a sum, or some of the bandwidths are not read"
    than = "the sum of three kernels"
    expect_same(got, want, what="k of three bandwidths", than=than, cause=cause)


@contract(applies=without_bandwidths)
def wrong_bandwidths_are_refused(trial: KernelTrial) -> None:
    """No bandwidths, and those that are not positive and finite, are refused by name."""
    for wrong in (0.0, -1.0, math.nan, math.inf, [1.0, 0.0], []):
        rule = "bandwidths are positive and finite, and there is one at least"
        expect_refused(
            trial, lambda b: trial.factory(bandwidths=b), wrong, naming="bandwidth", rule=rule
        )
