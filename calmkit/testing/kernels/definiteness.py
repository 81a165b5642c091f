"""What makes a function of the distance a kernel, and its score strictly proper.

A mixture of Gaussians is positive definite in every dimension, and tells all distributions apart.
The mixture is also what expected scores are computed from, so that it must be the kernel's own.
"""

import math

import torch
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring import Kernel, expected_dissimilarity
from calmkit.testing.contract import contract, expect
from calmkit.testing.expecting import expect_same
from calmkit.testing.kernels.trial import KernelTrial

__all__ = [
    "distinct_points_are_told_apart",
    "expectation_is_an_integral",
    "matrices_are_positive_definite",
    "mixture_is_the_kernel",
]


def _matrix(trial: KernelTrial, kernel: Kernel, points: Tensor) -> Tensor:
    # By differences: an expansion of squares would give equal points a distance.
    apart = (points[:, None] - points).norm(dim=-1)
    return trial.value(kernel, apart)


@contract(searches=True)
def matrices_are_positive_definite(trial: KernelTrial) -> None:
    """The matrix k(x_i, x_j) of any points has no negative eigenvalue: ties, near and far ones."""
    kernel = trial.build()

    def check(example: tuple[int, float, bool, bool, int]) -> None:
        dimensions, scale, even, tied, number = example
        points = torch.randn(12, dimensions, generator=trial.generator(number))
        if even:  # where the transform of a function that is no kernel shows its negative part
            points = torch.arange(12.0)[:, None] * points[:1] / points[:1].norm()
        if tied:
            points[5] = points[2]
        matrix = _matrix(trial, kernel, scale * points)
        least = float(torch.linalg.eigvalsh(matrix).min())
        expect(
            least > -1e-10 * kernel.at_zero * len(points),
            seen=f"of 12 points {'on a line ' if even else ''}in {dimensions} dimensions, about "
            f"{scale:g} units apart{', two of them equal' if tied else ''}, an eigenvalue of "
            f"{least:.3g}",
            expected="none below 0",
            cause="the function of the distance is not of positive type: a power above 2 in the "
            "exponent, a cut-off, or a difference of kernels",
        )

    trial.search(
        lambda st: st.tuples(
            st.integers(1, 6),
            st.sampled_from([1e-3, 0.03, 0.1, 0.3, 0.7, 1.0, 3.0, 30.0]),
            st.booleans(),
            st.booleans(),
            st.integers(0, 10**6),
        ),
        check,
    )


@contract()
def distinct_points_are_told_apart(trial: KernelTrial) -> None:
    """The matrix of distinct points has full rank, so that no two mixtures of them score alike."""
    kernel = trial.build()
    for dimensions in (1, 2, 3):
        grid = torch.cartesian_prod(*[torch.arange(4.0)] * dimensions).view(-1, dimensions)
        chosen = torch.randperm(len(grid), generator=trial.generator(1))[:12]
        shift = 0.6 * torch.rand(len(chosen), dimensions, generator=trial.generator(2))
        matrix = _matrix(trial, kernel, 2 * grid[chosen] + shift)
        least = float(torch.linalg.eigvalsh(matrix).min())
        expect(
            least > 1e-6,
            seen=f"of {len(matrix)} points in {dimensions} dimensions, 1.4 units apart at least, "
            f"an eigenvalue of {least:.3g}",
            expected="all above 1e-6",
            cause="the kernel is constant, a polynomial or a few waves: it sees some moments or "
            "frequencies only, and its score is not strictly proper",
        )


@contract()
def mixture_is_the_kernel(trial: KernelTrial) -> None:
    """`mixture` gives nodes and positive weights with k(r) = sum_j w_j exp(-t_j r^2)."""
    kernel = trial.build()
    ratio = torch.cat([torch.zeros(1), torch.logspace(-9, 6, 300)])
    want = trial.value(kernel, ratio)
    for dtype, tolerance in ((torch.float64, 1e-8), (torch.float32, 2e-6)):
        like = torch.zeros((), dtype=dtype)
        nodes, weights = (x.double() for x in trial.call(kernel.mixture, like))
        least = min(float(nodes.min()), float(weights.min()))
        cause = "quadrature with negative weights, or a kernel that is no mixture of Gaussians"
        # Below zero by rounding: what all weights lack to k(0) is given to one of them.
        seen = f"the smallest node or weight is {least:.3g}"
        expect(least > -tolerance, seen=seen, expected="none below 0", cause=cause)
        got = (weights * (-nodes * ratio[:, None].square()).exp()).sum(dim=-1)
        expect_same(
            got,
            want,
            what=f"the mixture at 301 distances, in {dtype}",
            than=f"value, within {tolerance:g} for each bandwidth",
            cause="nodes are not in multiples of `unit` (the smallest bandwidth), their range is "
            "too small, or bandwidths are left out",
            rtol=0.0,
            atol=tolerance * kernel.at_zero,
        )


@contract()
def expectation_is_an_integral(trial: KernelTrial) -> None:
    """`expected_dissimilarity` against a Gaussian is the integral of k(0) - k over its density."""
    kernel = trial.build()
    for mean, std in (((0.4,), (0.7,)), ((-1.0, 0.5), (0.6, 0.0)), ((0.3, 0.2), (0.5, 0.9))):
        target = DiagonalGaussian(torch.tensor(mean), torch.tensor(std))
        want = _by_quadrature(trial, kernel, target)
        scaled = DiagonalGaussian(kernel.unit * target.mean, kernel.unit * target.std)
        zero = torch.zeros(1, len(mean))
        got = trial.call(expected_dissimilarity, zero, scaled, kernel=kernel)
        expect_same(
            got,
            want,
            what=f"the expectation over N({list(mean)}, {list(std)}^2) units, {float(got):.6f},",
            than=f"by quadrature, {float(want):.6f}, within 1e-5 for each bandwidth",
            cause="`mixture` or `unit` belongs to another kernel than `value` does",
            rtol=0.0,
            atol=1e-5 * kernel.at_zero,
        )


def _by_quadrature(trial: KernelTrial, kernel: Kernel, target: DiagonalGaussian) -> Tensor:
    """E (k(0) - k(||z||)), z ~ target in units, by the trapezoidal rule with a node at zero."""
    sides, weights = [], []
    for mean, std in zip(target.mean.tolist(), target.std.tolist(), strict=True):
        if std == 0:
            sides.append(torch.tensor([mean]))
            weights.append(torch.ones(1))
            continue
        step = std / (500 if len(target.mean) == 1 or 0.0 in target.std.tolist() else 40)
        reach = math.ceil((abs(mean) + 8 * std) / step)
        side = step * torch.arange(-reach, reach + 1)
        sides.append(side)
        weights.append(
            step / (std * math.sqrt(2 * math.pi)) * (-((side - mean) / std).square() / 2).exp()
        )
    points = torch.cartesian_prod(*sides).view(-1, len(sides))
    mass = torch.cartesian_prod(*weights).view(-1, len(sides)).prod(dim=-1)
    return (mass @ trial.dissimilarity(kernel, points.norm(dim=-1)))[None]
