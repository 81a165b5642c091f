r"""MeanFlow head: one evaluation per sample, by regression on an average velocity.

The network is u(x, t, e) of `heads.average_velocity`, the average of v along the path from x at
time t to time e. Differentiating its definition, (e - t) u = int_t^e v(x_s, s) ds, in t along the
path (x moves with v, e is fixed) gives -u + (e - t) du/dt = -v, the MeanFlow identity

    u = v + (e - t) du/dt,      du/dt = v . d_x u + d_t u.

The loss is the distance to the right-hand side, with stopped gradient, at x_t = (1 - t) x_0 + t z:

    || u(x_t, t, e) - sg(v + (e - t) du/dt) ||^2 / latent_size,      v = z - x_0.

The paper has noise at t = 1 and writes r for the other end: u = v - (t - r) du/dt. Here time runs
from noise to latents, as in all heads of this package, and the other end is later.

The right-hand side is linear in v, so the velocity z - x_0 of one draw can replace its mean given
x_t: the expected gradient is zero at the exact u. With e = t the loss is flow matching.

In the derivative, the noise of that draw is multiplied by d_x u. The network's own u(x, t, t),
learned from the draws with e = t, has the same mean at the optimum without the noise.
`own_velocity = True` takes the derivative along it, as in the improved MeanFlow. In small trials
it was better after short trainings and in two dimensions, but not after a long training in
sixteen.

`power` p turns the squared error L of a draw into L / sg(L + 0.001)^p; the paper uses p = 1. It
damps draws far from their target. With p = 0 the optimum is the mean of the target, and thus the
exact flow. With p > 0 it is closer to a median, which defines another flow if the velocities at a
point are not symmetric about their mean.

Source: Geng et al., "Mean Flows for One-step Generative Modeling", arXiv 2505.13447; own velocity:
Geng et al., "Improved Mean Flows: On the Challenges of Fastforward Generative Models", arXiv
2512.02012.
"""

import torch
from torch import Tensor

from calmkit.bounds import check_in
from calmkit.nn import Dual

from .average_velocity import AverageVelocityHead
from .times import TimeDistribution

__all__ = ["MeanFlowHead"]

_FLOOR = 1e-3  # in the denominator of the weight, as published


class MeanFlowHead(AverageVelocityHead):
    """A one-step sampler trained by the MeanFlow identity."""

    def __init__(
        self,
        cond_size: int,
        latent_size: int,
        *,
        width: int = 512,
        depth: int = 3,
        draws: int = 4,
        jumps: int = 2,
        steps: int = 1,
        times: TimeDistribution | None = None,
        power: float = 0.0,
        own_velocity: bool = False,
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
            power: Exponent p of the adaptive weight, in [0, 1]; 0 disables it.
            own_velocity: Whether the derivative follows the network's velocity instead of the
                draw's.
            noise_scale: Factor on the noise of samples; it is 1 in training. See `temperature`.
            truncation: Bound on that noise before scaling, in standard deviations; None for none.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(
            cond_size,
            latent_size,
            width=width,
            depth=depth,
            draws=draws,
            jumps=jumps,
            steps=steps,
            times=times,
            noise_scale=noise_scale,
            truncation=truncation,
        )
        check_in("[0, 1]", power=power)
        self.power = power
        self.own_velocity = own_velocity

    def _jump_error(
        self, x: Tensor, time: Tensor, end: Tensor, velocity: Tensor, cond: Tensor
    ) -> Tensor:
        direction = self._read(velocity)
        if self.own_velocity:
            with torch.no_grad():
                direction = self.velocity(x, time, time, cond).to(x.dtype)
        u = self.velocity.dual(
            Dual(x, direction),
            Dual(time, torch.ones_like(time)),
            Dual(end, torch.zeros_like(end)),
            cond,
        )
        target = velocity + (end - time)[..., None] * u.tangent
        return u.value - target.detach()

    def _weighted(self, error: Tensor) -> Tensor:
        return error / (error.detach() + _FLOOR) ** self.power if self.power > 0 else error
