r"""Flow-matching head: a velocity field that carries noise to latents.

On the straight path x_t = (1 - t) x_0 + t z between noise x_0 ~ N(0, I) and a latent z, the
network learns the mean velocity

    v(x, t) = E[z - x_0 | x_t = x]      from      E || v(x_t, t) - (z - x_0) ||^2 / latent_size,

and sampling integrates x' = v(x, t) from noise at t = 0 to a sample at t = 1. Times are uniform
and continuous (the published code embeds floor(1000 t), which has no derivative).

Source: Lipman et al., "Flow Matching for Generative Modeling", arXiv 2210.02747; as a head in
arXiv 2510.27688.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.heads.base import Head, starting_noise
from calmkit.heads.ode import integrate_midpoint
from calmkit.nn import AdaptiveMLP
from calmkit.typing import typed

__all__ = ["FlowHead"]


class FlowHead(Head):
    """Flow matching with a residual MLP and the midpoint solver."""

    def __init__(
        self,
        cond_size: int,
        latent_size: int,
        *,
        width: int = 512,
        depth: int = 3,
        draws: int = 4,
        steps: int = 10,
    ) -> None:
        """Build the network.

        Args:
            cond_size: Features of the condition.
            latent_size: Dimensions of a sample.
            width: Features inside.
            depth: Number of residual blocks.
            draws: Draws of time, noise and latent per position in a training step.
            steps: Midpoint steps of a sample, two evaluations each.

        Raises:
            ValueError: If a size is out of range.
        """
        super().__init__(cond_size, latent_size)
        if draws < 1 or steps < 1:
            raise ValueError(f"draws and steps must be at least 1; got {draws} and {steps}.")
        self.draws = draws
        self.steps = steps
        self.velocity = AdaptiveMLP(cond_size, latent_size, latent_size, width=width, depth=depth)

    @property
    def evaluations_per_sample(self) -> int:
        """Two for each midpoint step."""
        return 2 * self.steps

    @typed
    def loss_from(
        self,
        cond: Float[Tensor, "*batch cond"],
        latents: Float[Tensor, "draws *batch latent"],
        noise: Float[Tensor, "draws *batch latent"],
        times: Float[Tensor, "draws *batch"],
    ) -> Float[Tensor, "*batch"]:
        """Mean squared error of the velocity at given draws, averaged over draws and dimensions.

        Args:
            cond: Conditions.
            latents: Ends z of the paths.
            noise: Starts x_0 of the paths.
            times: Times in [0, 1].
        """
        x = torch.lerp(noise, latents, times[..., None])
        error = self.velocity(x, times, cond) - (latents - noise)
        return error.square().mean(dim=-1).mean(dim=0)

    @typed
    def loss(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: DiagonalGaussian,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Flow-matching loss of each position; see `Head.loss`."""
        self._check_cond(cond)
        self._check_target(target)
        latents = target.sample(self.draws, generator)
        noise = starting_noise(latents[0], self.draws, self.latent_size, generator)
        times = torch.rand(
            latents.shape[:-1], generator=generator, dtype=latents.dtype, device=latents.device
        )
        return self.loss_from(cond, latents, noise, times)

    @typed
    def sample_from(
        self, cond: Float[Tensor, "*batch cond"], noise: Float[Tensor, "samples *batch latent"]
    ) -> Float[Tensor, "samples *batch latent"]:
        """Carry standard normal noise along the field: the deterministic part of sampling."""
        shared = (1,) * (noise.ndim - 1)  # All samples share the solver's time.

        def field(x: Tensor, time: Tensor) -> Tensor:
            return self.velocity(x, time.expand(shared), cond)

        return integrate_midpoint(field, noise, self.steps)

    @typed
    def sample(
        self,
        cond: Float[Tensor, "*batch cond"],
        num_samples: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples *batch latent"]:
        """Draw independent samples for each condition; see `Head.sample`."""
        self._check_cond(cond)
        noise = starting_noise(cond, num_samples, self.latent_size, generator)
        return self.sample_from(cond, noise)
