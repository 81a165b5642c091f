r"""Flow-map head: a self-distilled flow with one evaluation per sample.

The network is the average velocity u of `heads.average_velocity`, and X(x, t, e) = x + (e - t) u
is the flow map. The loss has two terms, both averaged over dimensions:

    || u(x_t, t, t) - (z - x_0) ||^2                         the velocity, by flow matching,
    || d/de X(x_t, t, e) - u(X(x_t, t, e), e, e) ||^2        the jumps,

on x_t = (1 - t) x_0 + t z. The second term requires the end of a jump to move with the velocity
there. That velocity is the teacher and receives no gradient.

This consistency model was chosen for three reasons. The teacher is the network itself with the
same weights, so there is no second network, no schedule of step sizes and no bias from a finite
step. Nothing is differentiated in x. The jump term has no noise, since its target does not contain
the drawn latent: it is zero at the optimum for every single draw. With a Lipschitz velocity, a
small loss bounds the Wasserstein distance of one-step samples to the target.

Source: Boffi et al., "How to build a consistency model: Learning flow maps via
self-distillation", arXiv 2505.18825 (Lagrangian self-distillation).
"""

import torch
from torch import Tensor

from calmkit.nn import Dual

from .average_velocity import AverageVelocityHead

__all__ = ["FlowMapHead"]


class FlowMapHead(AverageVelocityHead):
    """A one-step sampler trained by flow matching and Lagrangian self-distillation."""

    def _jump_error(
        self, x: Tensor, time: Tensor, end: Tensor, velocity: Tensor, cond: Tensor
    ) -> Tensor:
        span = (end - time)[..., None]
        u = self.velocity.dual(
            Dual(x, torch.zeros_like(x)),
            Dual(time, torch.zeros_like(time)),
            Dual(end, torch.ones_like(end)),
            cond,
        )
        with torch.no_grad():
            there = self.velocity(x + span * u.value, end, end, cond)
        return u.value + span * u.tangent - there
