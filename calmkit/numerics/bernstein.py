r"""Expectations of functions of a Gaussian's squared norm, by one quadrature.

For v ~ N(m, diag(s^2)) it suffices to know the Laplace transform of ||v||^2,

    phi(t) = E exp(-t ||v||^2) = prod_i (1 + 2 t s_i^2)^(-1/2) exp(-t m_i^2 / (1 + 2 t s_i^2)),

since a function rho(r) = int_0^oo (1 - exp(-t r^2)) dmu(t) of the distance (`pairwise` lists these
functions) has the expectation

    E rho(||v||) = int_0^oo (1 - phi(t)) dmu(t) ~ slope E||v||^2 + sum_j w_j (1 - phi(t_j)) + rest.

`slope` stands for the nodes left out at small t, where 1 - phi = t E||v||^2, and `rest` for those
at large t, where phi = 0. A rule chooses nodes and weights. This module takes the sum for N
samples at once, v = x_n - z, which share a Gaussian and its nodes. Logarithms and divisions are
done once per position, not per sample, and the exponent is one matrix product. The derivatives

    d/dm_i^2 = slope + sum_j w_j phi_j r_ji,    r_ji = t_j / (1 + 2 t_j s_i^2),
    d/ds_i^2 = slope + sum_j w_j phi_j (r_ji - 2 m_i^2 r_ji^2)

need the same phi and r and are therefore computed in the forward pass. Positions are processed in
blocks, so that their (nodes, latent) tables fit the processor's cache and are freed after use.
If these derivatives are to be differentiated, they are computed again for all positions at once.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .derivatives import needs_plain_operations

__all__ = ["Quadrature", "derivative_by_squares", "expected_by", "log_grid"]

# Entries of a (positions, nodes, latent) table: about a core's cache, or a little GPU memory.
_TABLE = {"cpu": 2**18}
_TABLE_ELSEWHERE = 2**24


@dataclass(frozen=True)
class Quadrature:
    """A discrete measure mu for each position, with terms that replace the nodes left out.

    Attributes:
        nodes: t_j, (positions, nodes).
        weights: w_j, (positions, nodes).
        slope: Factor of E||v||^2, (positions, 1).
        rest: Constant, (positions, 1).
    """

    nodes: Tensor
    weights: Tensor
    slope: Tensor
    rest: Tensor


def expected_by(quadrature: Quadrature, mean: Tensor, std: Tensor) -> Tensor:
    """The sum slope E||v||^2 + sum_j w_j (1 - phi(t_j)) + rest.

    Args:
        quadrature: The measure of each position; taken as constant.
        mean: m_i of each sample, (positions, samples, latent).
        std: s_i shared by the samples, (positions, latent).

    Returns:
        One number per position and sample.
    """
    inputs = mean, std, quadrature.nodes, quadrature.weights, quadrature.slope
    if needs_plain_operations(mean, std):
        value, *_ = _value(*_squared(*inputs))
    else:
        value, *_ = _Integral.apply(*inputs, std.requires_grad)
    return value + quadrature.rest


def derivative_by_squares(quadrature: Quadrature, mean: Tensor, std: Tensor) -> Tensor:
    """The derivative of each sum by its own m_i^2; arguments as `expected_by`.

    Returns:
        One number per position, sample and dimension.
    """
    inputs = mean, std, quadrature.nodes, quadrature.weights, quadrature.slope
    if needs_plain_operations(mean, std):  # a number of blocks would fix the shapes of a graph
        return _value_and_derivatives(*_squared(*inputs), with_variance=False)[1]
    return _in_blocks(inputs, with_variance=False)[1]


def log_grid(low: Tensor, high: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`count` equally spaced points u from low to high, and their spacing h.

    The trapezoidal rule in u = log t converges geometrically in 1/h for integrands that are
    analytic in a strip around the real line.
    """
    spacing = (high - low) / (count - 1)
    return low + spacing * torch.arange(count, dtype=low.dtype, device=low.device), spacing


class _Integral(torch.autograd.Function):
    """The sum over nodes; also returns its derivatives by squares and by variance."""

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
        return _in_blocks(args[:-1], with_variance=args[-1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        ctx.with_variance = inputs[-1]
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs[:-1], *output[1:])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        *inputs, by_squares, by_variance = ctx.saved_tensors
        if torch.is_grad_enabled():  # these derivatives will be differentiated themselves
            _, by_squares, by_variance = _value_and_derivatives(
                *_squared(*inputs), with_variance=ctx.with_variance
            )
        (mean, std, *_), grad = inputs, 2 * grad_outputs[0][..., None]
        grad_mean = (grad * by_squares).mul_(mean)  # in place: it is as large as all samples
        grad_std = (grad * by_variance).sum(dim=1) * std if ctx.with_variance else None
        return grad_mean, grad_std, None, None, None, None


def _in_blocks(
    inputs: tuple[Tensor, ...], *, with_variance: bool
) -> tuple[Tensor, Tensor, Tensor]:
    mean, _, nodes, _, _ = inputs
    table = nodes.shape[-1] * mean.shape[-1]
    positions = max(1, _TABLE.get(mean.device.type, _TABLE_ELSEWHERE) // max(1, table))
    pieces = [
        _value_and_derivatives(*_squared(*piece), with_variance=with_variance)
        for piece in zip(*(x.split(positions) for x in inputs), strict=True)
    ]
    value, by_squares, by_variance = (torch.cat(x) for x in zip(*pieces, strict=True))
    return value, by_squares, by_variance


def _squared(mean: Tensor, std: Tensor, *measure: Tensor) -> tuple[Tensor, ...]:
    return mean.square(), std.square(), *measure


def _value(
    squares: Tensor, variance: Tensor, nodes: Tensor, weights: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum (positions, samples), log phi (positions, samples, nodes) and the rates r."""
    doubled = 2 * nodes[..., None] * variance[:, None]  # 2 t s^2, (positions, nodes, latent)
    log_root = doubled.log1p().sum(dim=-1)
    rate = nodes[..., None] / (1 + doubled)
    log_phi = -0.5 * log_root[:, None] - squares @ rate.mT
    value = -(log_phi.expm1() @ weights[..., None]).squeeze(-1)
    second = squares.sum(dim=-1) + variance.sum(dim=-1, keepdim=True)
    return value + slope * second, log_phi, rate


def _value_and_derivatives(
    squares: Tensor,
    variance: Tensor,
    nodes: Tensor,
    weights: Tensor,
    slope: Tensor,
    with_variance: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum, and its derivatives by squares and by variance."""
    value, log_phi, rate = _value(squares, variance, nodes, weights, slope)
    weighted = log_phi.exp() * weights[:, None]
    by_squares = slope[..., None] + weighted @ rate
    if not with_variance:
        return value, by_squares, by_squares[:, :0]
    # Where the square would overflow, s_i is 0 next to the other scales, and so is the result's
    # derivative by s_i, 2 s_i times this.
    square = rate.clamp_max(torch.finfo(rate.dtype).max ** 0.49).square()
    return value, by_squares, by_squares - 2 * squares * (weighted @ square)
