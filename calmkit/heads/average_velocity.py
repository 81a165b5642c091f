r"""The base class of the one-step heads: average velocities of a flow, and their sampler.

As in flow matching, a velocity field carries noise to latents: x' = v(x, t) from x_0 ~ N(0, I) at
t = 0 to a latent at t = 1. The path through x at time t reaches, at a later time e,

    X(x, t, e) = x + (e - t) u(x, t, e),      u(x, t, e) = 1 / (e - t) int_t^e v(x_s, s) ds,

where u is the average velocity between t and e, and u(x, t, t) = v(x, t). A network for u draws a
sample in one evaluation, X(x_0, 0, 1) = x_0 + u(x_0, 0, 1). The exact u gives the same sample in
any number of steps, X(X(x, t, s), s, e) = X(x, t, e); a learned u is more accurate with several.

The data contain no target for a jump from t to e. Two equations supply one:

- X is constant if the start moves along the path (Eulerian; `MeanFlowHead`):
  u = v + (e - t) du/dt,  where du/dt is the derivative along (x, t, e) -> (v, 1, 0);
- X follows the field if the end moves (Lagrangian; `FlowMapHead`):
  d/de X(x, t, e) = v(X, e).

A training step uses some draws at e = t, where the target is the velocity z - x_0 of flow
matching, and some jumps between two sorted times.

Source: Boffi et al., "How to build a consistency model: Learning flow maps via
self-distillation", arXiv 2505.18825.
"""

import abc
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.bounds import check_at_least
from calmkit.distributions import Target, standard_uniform
from calmkit.nn import AverageVelocity
from calmkit.typing import typed

from .base import guided, starting_noise
from .temperature import TemperedHead
from .times import TimeDistribution, UniformTimes, stratified

__all__ = ["AverageVelocityHead"]


class AverageVelocityHead(TemperedHead):
    """A head for average velocities; subclasses define the error of a jump."""

    sampling_arguments = TemperedHead.sampling_arguments | {"steps"}

    def __init__(
        self,
        cond_size: int,
        latent_size: int,
        *,
        width: int = 512,
        depth: int = 3,
        draws: int = 4,
        jumps: int = 1,
        steps: int = 1,
        times: TimeDistribution | None = None,
        noise_scale: float = 1.0,
        truncation: float | None = None,
    ) -> None:
        """Build the network.

        Args:
            cond_size: Features of the condition.
            latent_size: Dimensions of a sample.
            width: Features inside.
            depth: Number of residual blocks.
            draws: Draws of times, noise and latent per position in a training step.
            jumps: Number of these draws that are jumps, with an end after their time.
            steps: Evaluations per sample, on equal parts of the path.
            times: Distribution of the training times; uniform if None.
            noise_scale: Factor on the noise of samples; it is 1 in training. See `temperature`.
            truncation: Bound on that noise before scaling, in standard deviations; None for none.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(cond_size, latent_size)
        if not 1 <= jumps < draws:
            raise ValueError(f"jumps must be in [1, draws - 1] = [1, {draws - 1}]; got {jumps}.")
        self.draws = draws
        self.jumps = jumps
        self.steps = steps
        self.noise_scale = noise_scale
        self.truncation = truncation
        self._check_sampling()
        self.times = UniformTimes() if times is None else times
        self.velocity = AverageVelocity(cond_size, latent_size, width=width, depth=depth)

    def _check_sampling(self) -> None:
        super()._check_sampling()
        check_at_least(1, steps=self.steps)

    @property
    def evaluations_per_sample(self) -> int:
        """One per step."""
        return self.steps

    @abc.abstractmethod
    def _jump_error(
        self, x: Tensor, time: Tensor, end: Tensor, velocity: Tensor, cond: Tensor
    ) -> Tensor:
        """Error of the jumps from x at their time to their end, (jumps, *batch, latent).

        Args:
            x: Points of the straight paths.
            time: Times t of these points.
            end: Ends e >= t of the jumps.
            velocity: Velocities z - x_0 of the paths.
            cond: Conditions.
        """

    def _weighted(self, error: Tensor) -> Tensor:
        """The squared errors of the draws, (draws, *batch), as they enter the loss."""
        return error

    @typed
    def loss_from(
        self,
        cond: Float[Tensor, "*batch cond"],
        latents: Float[Tensor, "draws *batch latent"],
        noise: Float[Tensor, "draws *batch latent"],
        times: Float[Tensor, "draws *batch"],
        ends: Float[Tensor, "jumps *batch"],
    ) -> Float[Tensor, "*batch"]:
        """Loss at given draws, averaged over draws and dimensions.

        Args:
            cond: Conditions.
            latents: Ends z of the straight paths.
            noise: Starts x_0 of the straight paths.
            times: Times t in [0, 1].
            ends: Ends e >= t of the jumps, which are the first of the draws. All other draws
                end where they start.
        """
        x = torch.lerp(noise, latents, times[..., None])
        velocity = latents - noise
        x, times, ends = self._read(x), self._read(times), self._read(ends)
        jumps = len(ends)
        still = times[jumps:]
        flow = self.velocity(x[jumps:], still, still, cond) - velocity[jumps:]
        jump = self._jump_error(x[:jumps], times[:jumps], ends, velocity[:jumps], cond)
        return self._weighted(torch.cat([jump, flow]).square().mean(dim=-1)).mean(dim=0)

    @typed
    def loss(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: Target,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """`loss_from` at random draws; see `Head.loss`."""
        self._check_cond(cond)
        latents = self._checked_target(target).sample(self.draws, generator)
        noise = starting_noise(latents[0], self.draws, self.latent_size, generator)
        shape = (self.draws + self.jumps, *noise.shape[1:-1])
        uniform = standard_uniform(shape, generator, dtype=noise.dtype, device=noise.device)
        pairs, still = uniform.split([2 * self.jumps, self.draws - self.jumps])
        first, second = self.times.from_uniform(pairs).chunk(2)
        still = self.times.from_uniform(stratified(still))
        times = torch.cat([torch.minimum(first, second), still])
        return self.loss_from(cond, latents, noise, times, torch.maximum(first, second))

    @typed
    def sample_from(
        self,
        cond: Float[Tensor, "*batch cond"],
        noise: Float[Tensor, "samples *batch latent"],
    ) -> Float[Tensor, "samples *batch latent"]:
        """Carry standard normal noise to t = 1: the deterministic part of sampling."""
        return self._follow(lambda *jump: self._velocity(jump, cond), noise)

    @typed
    def sample_guided(
        self,
        cond: Float[Tensor, "*batch cond"],
        null: Float[Tensor, " cond"],
        scale: float,
        num_samples: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples *batch latent"]:
        """Follow the guided average velocity; see `Head.sample_guided`."""
        self._check_cond(cond)

        def velocity(*jump: Tensor) -> Tensor:
            return guided(lambda c: self._velocity(jump, c), cond, null, scale)

        noise = self._sampling_noise(cond, num_samples, generator)
        return self._follow(velocity, noise)

    def _velocity(self, jump: tuple[Tensor, ...], cond: Tensor) -> Tensor:
        x, time, end = (self._read(value) for value in jump)
        return self.velocity(x, time, end, cond)

    def _follow(self, velocity: Callable[..., Tensor], x: Tensor) -> Tensor:
        shared = (1,) * (x.ndim - 1)  # all samples share the times
        for index in range(self.steps):
            time, end = (x.new_full(shared, k / self.steps) for k in (index, index + 1))
            x = x + velocity(x, time, end) / self.steps
        return x
