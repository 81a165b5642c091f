r"""Distributions of the training time t in [0, 1] of a flow.

Each is defined by its quantile function Q, so that all randomness comes from uniform numbers:
t = Q(u) with u ~ U[0, 1].

    UniformTimes        Q(u) = u
    LogitNormalTimes    Q(u) = sigmoid(m + s Phi^-1(u)),   logit t ~ N(m, s^2)

Every t in (0, 1) has positive density under both, so the optimal network is the same. The
distribution is the weight of each t as long as the network is not optimal.

The draws of one position are *stratified*: the k-th of n uniform numbers is (k + u_k) / n,
k = 0, ..., n - 1. One of them chosen at random is uniform, so a mean over the draws is unbiased.
Its variance is lower, since the draws cover the whole path.

Source: Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis",
arXiv 2403.03206, section 3.1; stratification, in another form, Kingma et al., "Variational
Diffusion Models", arXiv 2107.00630, appendix I.1.
"""

import abc
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.bounds import check_in, check_positive
from calmkit.typing import typed

__all__ = [
    "LogitNormalTimes",
    "TimeDistribution",
    "UniformTimes",
    "stratified",
]


@dataclass(frozen=True)
class TimeDistribution(abc.ABC):
    """A distribution on [0, 1]; holds settings, no tensors."""

    @abc.abstractmethod
    def from_uniform(self, uniform: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """The quantile function, elementwise: maps U[0, 1] to this distribution."""


@dataclass(frozen=True)
class UniformTimes(TimeDistribution):
    """The uniform distribution of times."""

    @typed
    def from_uniform(self, uniform: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """The number itself."""
        return uniform


@dataclass(frozen=True)
class LogitNormalTimes(TimeDistribution):
    """logit t = log(t / (1 - t)) is normal: few times are near the ends.

    Attributes:
        mean: m; positive for more times near the data at t = 1. (In the paper t = 1 is noise, so
            its m has the opposite sign.)
        std: s.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a standard deviation that is not positive, and a mean that is not finite."""
        check_in("(-inf, inf)", mean=self.mean)
        check_positive(std=self.std)

    @typed
    def from_uniform(self, uniform: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """`sigmoid(mean + std * Phi^-1(uniform))`."""
        normal = torch.special.ndtri(uniform.to(torch.promote_types(uniform.dtype, torch.float32)))
        return torch.sigmoid(self.mean + self.std * normal).to(uniform.dtype)


@typed
def stratified(uniform: Float[Tensor, "draws *batch"]) -> Float[Tensor, "draws *batch"]:
    """`(k + u_k) / draws` for k = 0, 1, ...: one draw in each of `draws` equal parts.

    Args:
        uniform: Independent U[0, 1] draws u_k.
    """
    first = torch.arange(len(uniform), dtype=uniform.dtype, device=uniform.device)
    return (first.view(-1, *(1,) * (uniform.ndim - 1)) + uniform) / len(uniform)
