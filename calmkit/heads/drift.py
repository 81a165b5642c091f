r"""Drifts: where the samples of a generator should move to be distributed like their target.

For a kernel k of `calmkit.scoring` with bandwidth b, and a law p of vectors y, let

    pull_p(x) = E_{y ~ p} k(||x - y||) (y - x),      mass_p(x) = E_{y ~ p} k(||x - y||).

A drift V attracts a sample x to the target p and repels it from the generator's own law q, given
by the other samples at the same position, so that V = 0 if p = q.

*Mean shift*, as published, summed over the bandwidths:

    V = pull_p / mass_p - pull_q / mass_q.

With a Gaussian kernel this is b^2 times the difference of the scores of p and q, both smoothed by
N(0, b^2 I), and thus a gradient in x. With other kernels it is not, unless each pull is divided by
the mass of the *sharp* kernel k_sharp(r) = int_r^oo s k(s) ds / b^2. Then, with any kernel,

    V = b^2 grad log E_p k_sharp(||x - y||) - b^2 grad log E_q k_sharp(||x - y||).

*Unbiased*, k being the sum over the bandwidths:

    V = (pull_p - pull_q) / mass_q.

This drift is linear in p, and the mean shift is not. The difference matters if training shows one
outcome per condition, as text does: a sample then follows the mean over outcomes of drifts towards
one posterior N(m, s^2) each. For a Gaussian kernel, the mean shift towards it is (m - x) b^2 /
(b^2 + s^2), whose mean is the shift towards N(E m, s^2). At equilibrium q is *that* law: the mean
of the outcomes with the width of one posterior. The published drift was made for images, with many
outcomes per class. A drift that is linear in p has the right equilibrium in both cases.

*Scoring rules* are drifts with a constant normaliser. A pairwise score S of N samples (see
`PairwiseScore`), rho' being the derivative of its rho, has

    -N dS/dx_i = pull_p(x_i) - pull_q(x_i)      for the kernel k(r) = rho'(r) / r,

which is 1 / r for the energy score with alpha = 1, and k(r) / b^2 for the score of a Gaussian
kernel k.

*Estimates.* A sample is not compared with itself. `MeanShiftDrift` draws as many outcomes as a
sample has others, N - 1. If p = q, both ratios have the same law and E V = 0 for any N. (With the
closed form above in place of draws, a trial learned a std of 1.13 where 0.35 was right: the mean
shift towards few samples is larger than towards their law.) `UnbiasedDrift` integrates pull_p, and
computes the mass for each pair (i, j) without x_j. If p = q, x_j and y are then exchangeable, and
E V = 0 for any N.

Sources: Deng et al., "Generative Modeling via Drifting", arXiv 2602.04770 (here without the second
softmax, over x, and without division by the mean size of V in a batch, which would mix positions);
sharp kernels: "Drifting Fields are not Conservative", arXiv 2604.06333; Gaussian kernels: Lai et
al., "A Unified View of Drifting and Score-Based Models", arXiv 2603.07514.
"""

import abc
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.bounds import check_at_least
from calmkit.distributions import DiagonalGaussian, standard_normal
from calmkit.numerics import in_full_precision
from calmkit.recording import Recorded
from calmkit.scoring import Kernel, expected_pull
from calmkit.typing import typed

__all__ = ["Drift", "MeanShiftDrift", "UnbiasedDrift"]


class Drift(Recorded, abc.ABC):
    """A vector for each sample, zero in the mean where samples and target have the same law."""

    @abc.abstractmethod
    def noise_size(self, num_samples: int) -> int:
        """Standard normal vectors that one call consumes, for a number of samples."""

    @abc.abstractmethod
    def field_from(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        target: DiagonalGaussian,
        noise: Float[Tensor, "noise *batch latent"],
    ) -> Float[Tensor, "samples *batch latent"]:
        """The drift of each sample; the deterministic core of `field`. Positions must not mix.

        Args:
            samples: At least two independent draws of the generator, in float32 or better.
            target: Distribution of the outcome.
            noise: `noise_size` independent standard normal vectors for each position.
        """

    @abc.abstractmethod
    def field_towards(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        outcomes: Float[Tensor, "outcomes *batch latent"],
    ) -> Float[Tensor, "samples *batch latent"]:
        """The drift of each sample if the target is the empirical law of given outcomes."""

    @typed
    @torch.no_grad()
    def field(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        target: DiagonalGaussian,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples *batch latent"]:
        """The drift of each sample, without a graph and at least in float32.

        Args:
            samples: At least two independent draws of the generator.
            target: Distribution of the outcome.
            generator: Source of randomness; torch's global one if None.

        Raises:
            ValueError: If there are fewer than two samples.
        """
        check_at_least(2, num_samples=len(samples))
        shape = (self.noise_size(len(samples)), *samples.shape[1:])
        dtype = torch.promote_types(samples.dtype, torch.float32)
        noise = standard_normal(shape, generator, dtype=dtype, device=samples.device)
        return in_full_precision(self.field_from)(samples, target, noise)


@dataclass(frozen=True)
class MeanShiftDrift(Drift):
    """The published drift: two means near x, each weighted by the kernel and normalised.

    **Not linear in the target**: use it where each position's target is its whole law.

    Attributes:
        kernel: The kernel k; its bandwidths are the temperatures of the paper.
        sharp: Whether to divide by the mass of the sharp kernel, which makes V a gradient.
    """

    kernel: Kernel
    sharp: bool = False

    def __post_init__(self) -> None:
        """Refuse a kernel without a sharp one."""
        if self.sharp:
            self.kernel.log_sharp(torch.zeros(()))

    def noise_size(self, num_samples: int) -> int:
        """One outcome for each other sample."""
        return num_samples - 1

    @typed
    def field_from(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        target: DiagonalGaussian,
        noise: Float[Tensor, "noise *batch latent"],
    ) -> Float[Tensor, "samples *batch latent"]:
        """See `Drift.field_from`."""
        return self.field_towards(samples, target.rsample_from(noise))

    @typed
    def field_towards(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        outcomes: Float[Tensor, "outcomes *batch latent"],
    ) -> Float[Tensor, "samples *batch latent"]:
        """See `Drift.field_towards`."""
        return self._shift(samples, outcomes) - self._shift(samples, samples, own=True)

    def _shift(self, samples: Tensor, others: Tensor, *, own: bool = False) -> Tensor:
        """The mean of y - x over the others, weighted and normalised, summed over bandwidths."""
        distance, there = _distances(samples, others), others.movedim(0, -2)
        total = torch.zeros_like(samples)
        for bandwidth in self.kernel.all_bandwidths:
            log_kernel = -self.kernel.exponent(distance / bandwidth)
            if own:
                log_kernel = _without_self(log_kernel, -torch.inf)
            shift = (log_kernel.softmax(dim=-1) @ there).movedim(-2, 0) - samples
            if self.sharp:
                log_sharp = self.kernel.log_sharp(distance / bandwidth)
                if own:
                    log_sharp = _without_self(log_sharp, -torch.inf)
                log_ratio = log_kernel.logsumexp(dim=-1) - log_sharp.logsumexp(dim=-1)
                shift = log_ratio.exp().movedim(-1, 0)[..., None] * shift
            total = total + shift
        return total


@dataclass(frozen=True)
class UnbiasedDrift(Drift):
    """A drift that is linear in the target: one outcome per condition suffices.

    Attributes:
        kernel: The kernel k; for several bandwidths the sum of their kernels.
        normalized: Whether to divide by the mass of the other samples; otherwise by k(0), and the
            drift is a scoring rule's gradient.
    """

    kernel: Kernel
    normalized: bool = True

    def noise_size(self, num_samples: int) -> int:
        """None: the target is integrated."""
        return 0

    @typed
    def field_from(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        target: DiagonalGaussian,
        noise: Float[Tensor, "noise *batch latent"],
    ) -> Float[Tensor, "samples *batch latent"]:
        """See `Drift.field_from`."""
        return self._against_own(samples, expected_pull(samples, target, kernel=self.kernel))

    @typed
    def field_towards(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        outcomes: Float[Tensor, "outcomes *batch latent"],
    ) -> Float[Tensor, "samples *batch latent"]:
        """See `Drift.field_towards`."""
        kernel = self.kernel.value(_distances(samples, outcomes)) / len(outcomes)
        return self._against_own(samples, _pull(kernel, samples, outcomes))

    def _against_own(self, samples: Tensor, pull: Tensor) -> Tensor:
        """(pull_p - pull_q) / mass_q, the mean over the other samples j of each sample i."""
        others = len(samples) - 1
        kernel = _without_self(self.kernel.value(_distances(samples, samples)), 0.0)
        scale = torch.full_like(kernel, 1 / self.kernel.at_zero)
        if self.normalized:
            # x_i itself stands in for x_j: the mass is at least k(0) / (N - 1).
            mass = kernel.sum(dim=-1, keepdim=True) - kernel + self.kernel.at_zero
            scale = others / mass
        scale = _without_self(scale, 0.0) / others
        attraction = scale.sum(dim=-1).movedim(-1, 0)[..., None] * pull
        return attraction - _pull(scale * kernel, samples, samples)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """||a_i - b_j||, (*batch, i, j), without the shortcut that rounds small ones away."""
    a, b = a.movedim(0, -2).contiguous(), b.movedim(0, -2).contiguous()
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _without_self(table: Tensor, value: float) -> Tensor:
    own = torch.eye(table.shape[-1], dtype=torch.bool, device=table.device)
    return table.masked_fill(own, value)


def _pull(weights: Tensor, samples: Tensor, others: Tensor) -> Tensor:
    """sum_j weights_ij (y_j - x_i), (i, *batch, latent)."""
    toward = (weights @ others.movedim(0, -2)).movedim(-2, 0)
    return toward - weights.sum(dim=-1).movedim(-1, 0)[..., None] * samples
