r"""Drifting head: a one-step generator that is trained to be where a drift would carry it.

For N samples z_n = g(h, eps_n) of a position and a drift V of `drift`, with stopped gradient sg,

    loss = 1/N sum_n || z_n - sg(z_n + V(z_n)) ||^2 / latent_size.

Its gradient moves each sample along V, while the value is the mean square of V. That value is an
estimate: it is not zero at the optimum and no score. Compare heads by scores of their samples.

Source: Deng et al., "Generative Modeling via Drifting", arXiv 2602.04770, algorithm 1.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.bounds import check_at_least
from calmkit.distributions import Target
from calmkit.scoring import LaplaceKernel
from calmkit.typing import typed

from .drift import Drift, UnbiasedDrift
from .generator import GeneratorHead
from .noise import Noise

__all__ = ["DriftingHead"]

# In units of sqrt(latent_size), the size of standardised latents.
_BANDWIDTHS = (0.25, 0.5, 1.0)


class DriftingHead(GeneratorHead):
    """A one-step generator trained by a drift of its samples."""

    def __init__(
        self,
        cond_size: int,
        latent_size: int,
        *,
        width: int = 512,
        depth: int = 3,
        noise_size: int = 64,
        num_samples: int = 8,
        noise: Noise | None = None,
        drift: Drift | None = None,
        noise_scale: float = 1.0,
    ) -> None:
        """Build the network.

        Args:
            cond_size: Features of the condition.
            latent_size: Dimensions of a sample.
            width: Features inside.
            depth: Number of residual blocks.
            noise_size: Dimensions of the noise.
            num_samples: N, samples per position in training; at least 2, since they repel each
                other.
            noise: Noise distribution; uniform on [-1/2, 1/2] if None.
            drift: Drift to follow; if None an `UnbiasedDrift` with Laplace kernels of bandwidths
                sqrt(latent_size) times 1/4, 1/2 and 1, for latents of unit variance.
            noise_scale: Factor on the noise of samples; see `EnergyHead`.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(
            cond_size,
            latent_size,
            width=width,
            depth=depth,
            noise_size=noise_size,
            num_samples=num_samples,
            noise=noise,
            noise_scale=noise_scale,
        )
        check_at_least(2, num_samples=num_samples)
        unit = math.sqrt(latent_size)
        default = UnbiasedDrift(LaplaceKernel([unit * b for b in _BANDWIDTHS]))
        self.drift = default if drift is None else drift

    @typed
    def loss(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: Target,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Mean square of the drift of N samples of each position; see `Head.loss`."""
        target = self._checked_target(target)
        samples = self._training_samples(cond, generator)
        with torch.no_grad():
            aim = samples + self.drift.field(samples, target, generator)
        return (samples - aim).square().mean(dim=-1).mean(dim=0)
