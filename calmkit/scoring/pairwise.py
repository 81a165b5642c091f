r"""Scores made of distances between pairs of samples.

    S(P, y) = E rho(||X - y||) - 1/2 E rho(||X - X'||),    X, X' ~ P independent.

rho is a function of the distance with rho(0) = 0 that is *of negative type*. All functions used
here are of the form

    rho(r) = int_0^oo (1 - exp(-t r^2)) dmu(t),    mu >= 0 not all at 0,

Bernstein functions of the squared distance: rho = r^a gives the energy score, rho = k(0) - k(r)
the kernel score up to a constant, for a radial kernel k that is a mixture of Gaussians. Each
makes S strictly proper on distributions with finite E rho(||X||).

From m >= 2 samples the score is estimated without bias by

    1/m sum_i rho(||x_i - y||) - 1/(m (m-1)) sum_{i < j} rho(||x_i - x_j||),

which leaves out self-pairs. Distances come from `torch.cdist` without its matrix-product shortcut,
which rounds small distances away. No tensor of shape (samples, outcomes, batch, latent) is formed,
except for derivatives other than the gradient of a plain backward pass.

Sources: Gneiting and Raftery, JASA 2007, sections 4.3 and 5.1; Sejdinovic et al., "Equivalence of
distance-based and RKHS-based statistics in hypothesis testing", Annals of Statistics 2013;
Schoenberg, "Metric spaces and completely monotone functions", 1938.
"""

import abc
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.numerics import needs_plain_operations, smooth_norm
from calmkit.private_torch import distance_gradient
from calmkit.typing import typed

from .base import ScoringRule
from .checks import check_count

__all__ = ["PairwiseScore", "outcome_distances", "pair_distances"]


class PairwiseScore(ScoringRule):
    """A scoring rule E rho(||X - y||) - 1/2 E rho(||X - X'||)."""

    @abc.abstractmethod
    def of_distance(self, distance: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """rho, elementwise, with a finite derivative also at distance zero."""

    @abc.abstractmethod
    def expected(
        self, samples: Float[Tensor, "samples *batch latent"], target: DiagonalGaussian
    ) -> Float[Tensor, "samples *batch"]:
        """E_{z ~ target} rho(||x - z||) for each sample x, in closed form."""

    @typed
    def spread(self, samples: Float[Tensor, "samples *batch latent"]) -> Float[Tensor, "*batch"]:
        """Estimate E rho(||X - X'||) without bias, from pairs i < j.

        Raises:
            ValueError: If fewer than two samples are given, or samples have no dimensions.
        """
        check_count(samples)
        return self.of_distance(pair_distances(samples)).mean(dim=0)

    @typed
    def score_from(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        target: DiagonalGaussian,
        noise: Float[Tensor, "noise *batch latent"],
    ) -> Float[Tensor, "*batch"]:
        """The score with its target term in closed form; see `ScoringRule.score_from`."""
        return self.expected(samples, target).mean(dim=0) - 0.5 * self.spread(samples)

    @typed
    def score_outcomes(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        outcomes: Float[Tensor, "outcomes *batch latent"],
        noise: Float[Tensor, "noise *batch latent"],
    ) -> Float[Tensor, "*batch"]:
        """The mean score over given outcomes; see `ScoringRule.score_outcomes`."""
        self._check_outcomes(samples, outcomes)
        error = self.of_distance(outcome_distances(samples, outcomes)).mean(dim=(0, 1))
        return error - 0.5 * self.spread(samples)


@typed
def pair_distances(
    samples: Float[Tensor, "samples *batch latent"],
) -> Float[Tensor, "pairs *batch"]:
    """||x_i - x_j|| for each pair i < j, in lexicographic order."""
    count = samples.shape[0]
    first, second = torch.triu_indices(count, count, offset=1, device=samples.device)
    rows = samples.movedim(0, -2)
    distances = _distances(rows, rows).flatten(-2)
    return distances.index_select(-1, first * count + second).movedim(-1, 0)


@typed
def outcome_distances(
    samples: Float[Tensor, "samples *batch latent"],
    outcomes: Float[Tensor, "outcomes *batch latent"],
) -> Float[Tensor, "samples outcomes *batch"]:
    """||x_i - y_k|| for each sample and outcome."""
    found = _distances(samples.movedim(0, -2), outcomes.movedim(0, -2))
    return found.movedim((-2, -1), (0, 1))


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # Otherwise the backward pass copies them again.
    a, b = a.contiguous(), b.contiguous()
    if torch.compiler.is_compiling():
        return _cdist(a, b)
    if needs_plain_operations(a, b):
        return smooth_norm(_all_differences(a, b), dim=-1)
    return _Distances.apply(a, b)


def _cdist(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _all_differences(a: Tensor, b: Tensor) -> Tensor:
    return a[..., :, None, :] - b[..., None, :, :]


class _Distances(torch.autograd.Function):
    """`torch.cdist` with a gradient that can be differentiated again."""

    @staticmethod
    def forward(*args: Any) -> Tensor:
        return _cdist(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        (grad,), (a, b, distance) = grad_outputs, ctx.saved_tensors
        by_a, by_b = ctx.needs_input_grad
        if not torch.is_grad_enabled():
            return (
                distance_gradient(grad, a, b, distance) if by_a else None,
                distance_gradient(grad.mT, b, a, distance.mT) if by_b else None,
            )
        differences = _all_differences(a, b)
        distance = smooth_norm(differences, dim=-1)
        apart = distance > 0
        pulls = torch.where(apart, grad / torch.where(apart, distance, 1.0), 0.0)
        moves = pulls[..., None] * differences
        return moves.sum(dim=-2) if by_a else None, -moves.sum(dim=-3) if by_b else None
