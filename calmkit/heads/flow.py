r"""Flow-matching head: a velocity field that carries noise to latents.

On the straight path x_t = (1 - t) x_0 + t z between noise x_0 ~ N(0, I) and a latent z, the
network learns the mean velocity

    v(x, t) = E[z - x_0 | x_t = x]      from      E || v(x_t, t) - (z - x_0) ||^2 / latent_size,

and sampling integrates x' = v(x, t) from noise at t = 0 to a sample at t = 1. Times are
continuous (the published code embeds floor(1000 t), which has no derivative). Integrated
backwards, the same equation gives the log-density; see `calmkit.heads.density`.

Noise and latents are paired at random. Optimal-transport pairing within a batch, as used for
unconditional flows, would bias this head: each position has its own condition, and pairing across
positions makes noise and condition dependent, while sampling starts from noise independent of the
condition. Pairing among the draws of *one* position is valid, but they differ only by the width of
the autoencoder's posterior: no gain was measured.

Source: Lipman et al., "Flow Matching for Generative Modeling", arXiv 2210.02747; as a head in
arXiv 2510.27688.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.bounds import check_at_least
from calmkit.distributions import Target, standard_uniform
from calmkit.nn import AdaptiveMLP
from calmkit.typing import typed

from .base import guided, starting_noise
from .density import estimated_log_density, log_density
from .ode import Field, MidpointSolver, RungeKutta4Solver, Solver
from .temperature import TemperedHead
from .times import TimeDistribution, UniformTimes, stratified

__all__ = ["FlowHead"]

# A density needs more accuracy than a sample: on small trained heads the mean error was below 2e-4
# nats with this solver, and about 0.03 with the 20 evaluations that suffice for sampling.
_DENSITY_SOLVER = RungeKutta4Solver(25)

# Resolution of the time embedding. With 1000, as for discrete steps, the field oscillates in time:
# on small trained heads, log-densities had 30 to 900 times the error with the same solver, and
# neither loss nor samples were better. At 10 the loss on a narrow target was higher.
_RESOLUTION = 30.0


class FlowHead(TemperedHead):
    """Flow matching with a residual MLP."""

    sampling_arguments = TemperedHead.sampling_arguments | {"solver"}

    def __init__(
        self,
        cond_size: int,
        latent_size: int,
        *,
        width: int = 512,
        depth: int = 3,
        draws: int = 4,
        solver: Solver | None = None,
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
            draws: Draws of time, noise and latent per position in a training step.
            solver: Solver for sampling; 10 midpoint steps if None.
            times: Distribution of the training times; uniform if None.
            noise_scale: Factor on the noise of samples; it is 1 in training. See `temperature`.
            truncation: Bound on that noise before scaling, in standard deviations; None for none.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(cond_size, latent_size)
        check_at_least(1, draws=draws)
        self.draws = draws
        self.solver = MidpointSolver(10) if solver is None else solver
        self.times = UniformTimes() if times is None else times
        self.noise_scale = noise_scale
        self.truncation = truncation
        self.velocity = AdaptiveMLP(
            cond_size, latent_size, latent_size, width=width, depth=depth, resolution=_RESOLUTION
        )
        self._check_sampling()

    def _check_sampling(self) -> None:
        super()._check_sampling()
        if not isinstance(self.solver, Solver):
            raise ValueError(
                f"solver must be a Solver, such as EulerSolver(10); got {self.solver!r}."
            )

    @property
    def evaluations_per_sample(self) -> int | None:
        """The evaluations of the head's solver; None if they depend on the field."""
        return self.solver.evaluations

    @typed
    def field(self, cond: Float[Tensor, "*batch cond"]) -> Field:
        """The velocity f(x, t) under given conditions, for x of `samples *batch latent`.

        All samples share the scalar t: the network's modulations are computed once per position.
        """
        self._check_cond(cond)
        shared = (1,) * cond.ndim

        def velocity(x: Tensor, time: Tensor) -> Tensor:
            return self.velocity(self._read(x), self._read(time).expand(shared), cond)

        return velocity

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
        error = self.velocity(self._read(x), self._read(times), cond) - (latents - noise)
        return error.square().mean(dim=-1).mean(dim=0)

    @typed
    def loss(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: Target,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Flow-matching loss of each position; see `Head.loss`."""
        self._check_cond(cond)
        latents = self._checked_target(target).sample(self.draws, generator)
        noise = starting_noise(latents[0], self.draws, self.latent_size, generator)
        uniform = standard_uniform(
            noise.shape[:-1], generator, dtype=noise.dtype, device=noise.device
        )
        times = self.times.from_uniform(stratified(uniform))
        return self.loss_from(cond, latents, noise, times)

    @typed
    def sample_from(
        self,
        cond: Float[Tensor, "*batch cond"],
        noise: Float[Tensor, "samples *batch latent"],
    ) -> Float[Tensor, "samples *batch latent"]:
        """Carry standard normal noise along the field: the deterministic part of sampling."""
        return self.solver.integrate(self.field(cond), noise)

    @typed
    def sample_guided(
        self,
        cond: Float[Tensor, "*batch cond"],
        null: Float[Tensor, " cond"],
        scale: float,
        num_samples: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples *batch latent"]:
        """Follow the guided velocity; see `Head.sample_guided`."""
        self._check_cond(cond)

        def field(x: Tensor, time: Tensor) -> Tensor:
            return guided(lambda c: self.field(c)(x, time), cond, null, scale)

        noise = self._sampling_noise(cond, num_samples, generator)
        return self.solver.integrate(field, noise)

    @typed
    def log_prob(
        self,
        cond: Float[Tensor, "*batch cond"],
        latents: Float[Tensor, "*batch latent"],
        *,
        solver: Solver = _DENSITY_SOLVER,
    ) -> Float[Tensor, "*batch"]:
        """Log-density of one latent per position, in nats, with the exact divergence.

        It is that of samples at noise scale 1 without truncation, whatever the head's settings. It
        is computed without autocast, since a density sums many small differences. Each
        evaluation of the solver also costs latent_size backward passes through the network.

        Args:
            cond: Conditions.
            latents: Points of the density.
            solver: Solver of this call.

        Raises:
            ValueError: If a size is wrong.
        """
        latents = self._checked_latents(latents)
        self._check_cond(cond)
        cond = self._read(cond)  # autocast will be off
        with torch.autocast(latents.device.type, enabled=False):
            return log_density(self.field(cond), latents[None], solver)[0]

    @typed
    def estimated_log_prob(
        self,
        cond: Float[Tensor, "*batch cond"],
        latents: Float[Tensor, "*batch latent"],
        probes: Float[Tensor, "probes *batch latent"],
        *,
        solver: Solver = _DENSITY_SOLVER,
    ) -> Float[Tensor, "*batch"]:
        """An unbiased estimate of `log_prob`, with one backward pass per probe.

        Args:
            cond: Conditions.
            latents: Points of the density.
            probes: Independent draws of random signs or of N(0, I), which are averaged.
            solver: Solver of this call.

        Raises:
            ValueError: If a size is wrong.
        """
        latents = self._checked_latents(latents)
        self._check_cond(cond)
        cond, probes = self._read(cond), probes.to(latents.dtype)
        with torch.autocast(latents.device.type, enabled=False):
            field = self.field(cond)
            return estimated_log_density(field, latents[None], probes[:, None], solver)[0]
