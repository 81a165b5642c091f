r"""Kernels of the Euclidean distance, each a mixture of Gaussians.

A kernel k(r) is the similarity of two points at distance r. With bandwidth b > 0, these are

    GaussianKernel               k(r) = exp(-r^2 / (2 b^2))
    LaplaceKernel                k(r) = exp(-r / b)
    InverseMultiquadricKernel    k(r) = (1 + r^2 / b^2)^(-1/2)

each 1 at r = 0. Several bandwidths give the sum of their kernels; its value at 0 is their number.
The Laplace kernel is the isotropic one, Matern 1/2; some libraries use the name for
exp(-||x - y||_1 / b).

Each is a mixture k(r) = int_0^oo exp(-t r^2) dnu(t) of Gaussians, nu > 0. Hence it is positive
definite and *characteristic* in every dimension: the function E k(||X - .||) determines the
distribution of X. nu is a single point for the Gaussian kernel, t = 1 / (2 b^2). For the others
s ~ Gamma(1/2, 1), with density s^(-1/2) e^(-s) / sqrt(pi), and

    t = s / b^2          inverse multiquadric: E exp(-x s) = (1 + x)^(-1/2)
    t = 1 / (4 b^2 s)    Laplace: a Levy distribution, E exp(-x^2 / (4 s)) = e^(-x)

An integral int f(t) dnu(t) of a function with |f| <= 1 for Re t >= 0, such as the Laplace
transform of `bernstein`, is computed by the trapezoidal rule in u = log s, with spacing h on
[low, high]. The density of u is g = exp(u/2 - e^u) / sqrt(pi). The absolute errors, for every f:

- Spacing: int |g(u + 3i/2)| du = cos(3/2)^(-1/2) < 4, hence at most 8 / (exp(3 pi / h) - 1).
- Large s: the nodes left out weigh at most exp(-e^high).
- Small s: at most 2 exp(low / 2) / sqrt(pi). The first node receives the difference between 1 and
  the sum of all weights, so that constants are integrated exactly: the error of spacing counts
  twice.

Each of the four is set to a quarter of 1e-8 in float64 and of 1.6e-6 in float32, for each
bandwidth. All bandwidths share their nodes: another bandwidth shifts g.

Sources: Sriperumbudur et al., "Hilbert space embeddings and metrics on probability measures",
JMLR 2010, section 3; Gretton et al., "A kernel two-sample test", JMLR 2012, section 8 (median
heuristic); Trefethen and Weideman, "The exponentially convergent trapezoidal rule", SIAM Review
2014, theorem 5.1.
"""

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.bounds import check_positive
from calmkit.finite import check_finite
from calmkit.numerics import in_full_precision
from calmkit.typing import typed

__all__ = [
    "GaussianKernel",
    "InverseMultiquadricKernel",
    "Kernel",
    "LaplaceKernel",
    "median_heuristic",
]

_TOLERANCE = {torch.float64: 1e-8 / 4, torch.float32: 1.6e-6 / 4}


@dataclass(frozen=True)
class Kernel(abc.ABC):
    """A sum of one kernel at several bandwidths; holds settings, no tensors.

    Attributes:
        bandwidths: One bandwidth b or several, in the unit of the data.
    """

    bandwidths: float | Sequence[float] = 1.0

    def __post_init__(self) -> None:
        """Refuse an empty list, and bandwidths that are not positive."""
        if not self.all_bandwidths:
            raise ValueError("bandwidths must hold at least one bandwidth; got none.")
        for bandwidth in self.all_bandwidths:
            check_positive(bandwidths=bandwidth)

    @abc.abstractmethod
    def exponent(self, ratio: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """-log k of one bandwidth at the distance `ratio` = r / b, with a finite derivative."""

    @abc.abstractmethod
    def mixture(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes t and weights with k(r) = sum_j w_j exp(-t_j r^2), r in multiples of `unit`.

        Args:
            like: A tensor of the wanted dtype and device.
        """

    def log_sharp(self, ratio: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """The logarithm of k_sharp(r) = int_r^oo s k(s) ds / b^2, at `ratio` = r / b.

        It is the kernel whose gradient in x is k(||x - y||) (y - x) / b^2.

        Raises:
            ValueError: If this kernel has no such companion.
        """
        raise ValueError(
            f"kernel must have a sharp companion, the integral of s k(s) from r to infinity; "
            f"{type(self).__name__} does not give one. Use GaussianKernel or LaplaceKernel."
        )

    @property
    def all_bandwidths(self) -> tuple[float, ...]:
        """The bandwidths as a tuple, also if there is only one."""
        if isinstance(self.bandwidths, int | float):
            return (self.bandwidths,)
        return tuple(self.bandwidths)

    @property
    def unit(self) -> float:
        """The smallest bandwidth: in this unit, squares and nodes stay within float32."""
        return min(self.all_bandwidths)

    @property
    def at_zero(self) -> float:
        """k(0), the number of bandwidths."""
        return float(len(self.all_bandwidths))

    @typed
    def value(self, distance: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """k, elementwise."""
        total = torch.zeros_like(distance)
        for bandwidth in self.all_bandwidths:
            total = total + (-self.exponent(distance / bandwidth)).exp()
        return total

    @typed
    def dissimilarity(self, distance: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """k(0) - k, elementwise, without cancellation at small distances."""
        total = torch.zeros_like(distance)
        for bandwidth in self.all_bandwidths:
            total = total - (-self.exponent(distance / bandwidth)).expm1()
        return total


@dataclass(frozen=True)
class GaussianKernel(Kernel):
    """sum_b exp(-r^2 / (2 b^2))."""

    @typed
    def exponent(self, ratio: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """ratio^2 / 2."""
        return 0.5 * ratio.square()

    @typed
    def log_sharp(self, ratio: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """-ratio^2 / 2: the kernel itself."""
        return -self.exponent(ratio)

    @typed
    def mixture(self, like: Tensor) -> tuple[Float[Tensor, " nodes"], Float[Tensor, " nodes"]]:
        """One node for each bandwidth, exactly."""
        # Filled one by one: copying a list to an accelerator would wait for it.
        ratios = [like.new_full((), b / self.unit) for b in self.all_bandwidths]
        nodes = 0.5 * torch.stack(ratios).pow(-2)
        return nodes, torch.ones_like(nodes)


@dataclass(frozen=True)
class LaplaceKernel(Kernel):
    """sum_b exp(-r / b), r the Euclidean distance."""

    @typed
    def exponent(self, ratio: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """The ratio itself."""
        return ratio

    @typed
    def log_sharp(self, ratio: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Log(1 + ratio) - ratio, Matern 3/2."""
        return ratio.log1p() - ratio

    @typed
    def mixture(self, like: Tensor) -> tuple[Float[Tensor, " nodes"], Float[Tensor, " nodes"]]:
        """Quadrature in -log t, since s = 1 / (4 b^2 t)."""
        u, weights = _half_gamma([0.25 * (self.unit / b) ** 2 for b in self.all_bandwidths], like)
        return (-u).exp(), weights


@dataclass(frozen=True)
class InverseMultiquadricKernel(Kernel):
    """sum_b (1 + r^2 / b^2)^(-1/2)."""

    @typed
    def exponent(self, ratio: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """log(1 + ratio^2) / 2."""
        return 0.5 * ratio.square().log1p()

    @typed
    def mixture(self, like: Tensor) -> tuple[Float[Tensor, " nodes"], Float[Tensor, " nodes"]]:
        """Quadrature in log t, since s = b^2 t."""
        u, weights = _half_gamma([(b / self.unit) ** 2 for b in self.all_bandwidths], like)
        return u.exp(), weights


def _half_gamma(factors: list[float], like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes u and weights for sum_f E F(log(s / f)), s ~ Gamma(1/2, 1); see above."""
    tolerance = _TOLERANCE[like.dtype]
    spacing = 3 * math.pi / math.log1p(8 / tolerance)
    low = math.log(math.pi / 4) + 2 * math.log(tolerance) - math.log(max(factors))
    high = math.log(-math.log(tolerance)) - math.log(min(factors))
    count = math.ceil((high - low) / spacing) + 1
    u = low + spacing * torch.arange(count, dtype=like.dtype, device=like.device)
    weights = torch.zeros_like(u)
    for factor in factors:
        log_s = u + math.log(factor)
        weights = weights + spacing / math.sqrt(math.pi) * (0.5 * log_s - log_s.exp()).exp()
    missing = len(factors) - weights.sum()
    return u, torch.cat((weights[:1] + missing, weights[1:]))


@typed
@in_full_precision
def median_heuristic(points: Float[Tensor, "points latent"]) -> float:
    """The median distance of two points, a bandwidth at which most kernels can separate points.

    The median is over all pairs i < j at a positive distance: the mean of the middle two if their
    number is even. (Other sources use it as b^2 or 2 b^2, or count ties.)

    Args:
        points: Typical data; the number of pairs grows with the square of theirs.

    Raises:
        ValueError: If all points are equal, or a value is not finite.
    """
    check_finite(points=points)
    distances = torch.pdist(points.detach())
    distances = distances[distances > 0]
    count = len(distances)
    if count == 0:
        raise ValueError(
            f"points must hold at least 2 distinct points; got {len(points)}, none distinct."
        )
    middle = (distances.kthvalue(k).values for k in ((count + 1) // 2, count // 2 + 1))
    return float(sum(middle)) / 2
