r"""Spline-flow head: an invertible network, with an exact density and quick samples.

A bijection T of R^l, conditioned on the state h, carries a latent z to Gaussian noise:

    log p(z | h) = log N(T(z; h); 0, I) + log |det dT/dz|      in nats,

and a sample is T^(-1)(eps; h). T is a composition of `transforms`, each of which applies a
monotonic rational-quadratic spline to every dimension. The parameters of a spline depend on h and
on the dimensions before it, in `passes` groups:

- passes = 2, *coupling*: the second half depends on the first. T and its inverse take one and two
  evaluations of each network.
- passes = None, *autoregressive*: each dimension depends on all before it. This is more
  expressive, but a sample takes latent_size evaluations, one after the other.

The loss is -E log p(v | h), v ~ target, from one or several draws of the target. It is the
logarithmic score, which is strictly proper and exact here. Heads with a density can thus be
compared by it, on the same latents.

Splines cover [-5, 5]; outside T is the identity. Give the latents unit scale. The slopes of the
splines lie in [0.001, 1000], which bounds the likelihood of point masses; but a density that
narrows around single latents generalises badly, so train on the posteriors of an autoencoder.

The transforms are those of the library zuko (`pip install 'calmkit[flows]'`).

Source: Durkan et al., "Neural Spline Flows", arXiv 1906.04032.
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.bounds import check_at_least
from calmkit.distributions import Target
from calmkit.extras import require
from calmkit.typing import typed

from .temperature import TemperedHead

if TYPE_CHECKING:
    from zuko.lazy import LazyTransform

__all__ = ["SplineFlowHead"]


class SplineFlowHead(TemperedHead):
    """A conditional neural spline flow, trained by maximum likelihood."""

    def __init__(
        self,
        cond_size: int,
        latent_size: int,
        *,
        width: int = 512,
        depth: int = 2,
        transforms: int = 4,
        bins: int = 8,
        passes: int | None = 2,
        draws: int = 1,
        noise_scale: float = 1.0,
        truncation: float | None = None,
    ) -> None:
        """Build the flow.

        Args:
            cond_size: Features of the condition.
            latent_size: Dimensions of a sample.
            width: Features inside the network of a transform.
            depth: Hidden layers of the network of a transform.
            transforms: Number of transforms; successive ones reverse the order of the dimensions.
            bins: Pieces of a spline.
            passes: Groups of dimensions, each dependent on those before it; None for as many as
                dimensions.
            draws: Draws of the target per position in a training step.
            noise_scale: Factor on the noise of samples; it is 1 in training. See `temperature`.
            truncation: Bound on that noise before scaling, in standard deviations; None for none.

        Raises:
            ValueError: If a number is out of range.
            ImportError: If zuko is not installed.
        """
        super().__init__(cond_size, latent_size)
        check_at_least(1, width=width, depth=depth, transforms=transforms, draws=draws)
        check_at_least(2, bins=bins)
        if passes is not None:
            check_at_least(2, passes=passes)  # with one, no dimension would depend on another
        require("zuko", "SplineFlowHead")
        from zuko.flows import NSF  # slow to import

        self.passes = latent_size if passes is None else min(passes, latent_size)
        self.draws = draws
        self.noise_scale = noise_scale
        self.truncation = truncation
        self._check_sampling()
        self.flow = NSF(
            latent_size,
            cond_size,
            bins=bins,
            transforms=transforms,
            passes=self.passes,
            hidden_features=(width,) * depth,
        )
        # Masks and orders follow from the arguments: a state must not bring those of another head.
        for module in self.flow.modules():
            for name, buffer in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, buffer, persistent=False)

    @property
    def evaluations_per_sample(self) -> int:
        """Evaluations of the network of each transform, one after the other."""
        return self.passes

    @typed
    def log_prob(
        self, cond: Float[Tensor, "*batch cond"], latents: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch"]:
        """Log-density of one latent per position, in nats, at noise scale 1; without autocast.

        Args:
            cond: Conditions.
            latents: Points of the density.

        Raises:
            ValueError: If a size is wrong.
        """
        self._check_cond(cond)
        latents = self._checked_latents(latents)
        if latents.numel() == 0:  # zuko reshapes by -1
            return latents.sum(dim=-1)
        with torch.autocast(latents.device.type, enabled=False):
            cond, noise, log_det = self._read(cond), self._read(latents), 0.0
            for transform in self._transforms():
                noise, change = transform(cond).call_and_ladj(noise)
                log_det = log_det + change.to(latents.dtype)
            squares = noise.to(latents.dtype).square()
            return log_det - 0.5 * (squares + math.log(2 * math.pi)).sum(dim=-1)

    @typed
    def loss(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: Target,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """-log p of draws of the target, their mean; see `Head.loss`."""
        latents = self._checked_target(target).sample(self.draws, generator)
        return -self.log_prob(cond.expand(self.draws, *cond.shape), latents).mean(dim=0)

    @typed
    def sample_from(
        self,
        cond: Float[Tensor, "*batch cond"],
        noise: Float[Tensor, "samples *batch latent"],
    ) -> Float[Tensor, "samples *batch latent"]:
        """T^(-1) of the noise: the deterministic part of sampling."""
        self._check_cond(cond)
        if noise.numel() == 0:
            return self._read(noise)
        with torch.autocast(noise.device.type, enabled=False):
            cond, x = self._read(cond), self._read(noise)
            for transform in reversed(self._transforms()):
                x = transform(cond).inv(x)
            return x

    def _transforms(self) -> "list[LazyTransform]":
        """From latents to noise, one by one: their composition by zuko cannot be compiled."""
        return list(cast("Iterable[LazyTransform]", self.flow.transform.transforms))
