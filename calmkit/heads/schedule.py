r"""Noise schedules of diffusion models, as plain tensors; usable without a head.

The forward process adds Gaussian noise in T steps of variance beta_t, t = 0..T-1:

    x_t = sqrt(abar_t) x + sqrt(1 - abar_t) eps,    abar_t = prod_{s <= t} (1 - beta_s),

and the reverse step given x is Gaussian with

    mean      beta_t sqrt(abar_{t-1}) / (1 - abar_t) x
              + (1 - abar_{t-1}) sqrt(1 - beta_t) / (1 - abar_t) x_t,
    variance  beta_t (1 - abar_{t-1}) / (1 - abar_t),              abar_{-1} = 1.

Source: Ho et al., "Denoising Diffusion Probabilistic Models", arXiv 2006.11239, equations 4, 6
and 7; Nichol and Dhariwal, "Improved DDPM", arXiv 2102.09672, equation 17 for the cosine.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.typing import typed

__all__ = ["NoiseSchedule"]


class NoiseSchedule:
    """A discrete schedule: betas, everything derived from them, and which steps they are.

    Attributes:
        betas: Variance added at each step.
        alphas_bar: Share of the signal's variance left after each step.
        alphas_bar_before: The same before each step.
        posterior_variance: Variance of the reverse step given the clean x; 0 at the first step.
        least_variance: The same, but at the first step that of the second, as in published code:
            a lower bound whose logarithm is finite. A schedule of one step has its beta there.
        steps: Index of each step in the schedule that the network was trained on.
        full_length: Number of steps of that schedule.
    """

    def __init__(
        self,
        betas: Float[Tensor, " steps"],
        steps: Int[Tensor, " steps"] | None = None,
        full_length: int | None = None,
    ) -> None:
        """Derive the quantities, in float64.

        Args:
            betas: Variance added at each step, in (0, 1).
            steps: Index of each step in a longer schedule; 0, 1, ... if None.
            full_length: Length of that longer schedule; the number of betas if None.

        Raises:
            ValueError: If a beta is outside (0, 1).
        """
        betas = betas.double()
        if betas.ndim != 1 or len(betas) < 1 or not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError(f"betas must be a vector of numbers in (0, 1); got {betas}.")
        self.betas = betas
        self.alphas_bar = (1 - betas).cumprod(0)
        self.alphas_bar_before = torch.cat([betas.new_ones(1), self.alphas_bar[:-1]])
        self.posterior_variance = betas * (1 - self.alphas_bar_before) / (1 - self.alphas_bar)
        first = self.posterior_variance[1:2] if len(betas) > 1 else betas
        self.least_variance = torch.cat([first, self.posterior_variance[1:]])
        self.steps = torch.arange(len(betas)) if steps is None else steps
        self.full_length = len(betas) if full_length is None else full_length

    def __len__(self) -> int:
        return len(self.betas)

    @classmethod
    def cosine(cls, length: int = 1000, *, offset: float = 0.008) -> "NoiseSchedule":
        """Abar follows cos^2((t / T + offset) / (1 + offset) * pi / 2); betas are at most 0.999.

        Raises:
            ValueError: If the length is not positive.
        """
        if length < 1:
            raise ValueError(f"length must be at least 1; got {length}.")
        u = torch.arange(length + 1, dtype=torch.float64) / length
        alphas_bar = ((u + offset) / (1 + offset) * math.pi / 2).cos().square()
        return cls((1 - alphas_bar[1:] / alphas_bar[:-1]).clamp_max(0.999))

    def respaced(self, length: int) -> "NoiseSchedule":
        """The schedule that visits only `length` evenly spaced steps, first and last included.

        Its betas are such that abar agrees with this schedule's at the steps visited.

        Raises:
            ValueError: If there are more steps than this schedule has, or fewer than 1.
        """
        if not 1 <= length <= len(self):
            raise ValueError(f"length must be in [1, {len(self)}]; got {length}.")
        kept = torch.linspace(0, len(self) - 1, length, dtype=torch.float64).round().long()
        if length == 1:
            kept = torch.tensor([len(self) - 1])
        alphas_bar = self.alphas_bar[kept]
        before = torch.cat([alphas_bar.new_ones(1), alphas_bar[:-1]])
        return NoiseSchedule(1 - alphas_bar / before, self.steps[kept], self.full_length)

    @typed
    def add_noise(
        self,
        x: Float[Tensor, "*batch latent"],
        noise: Float[Tensor, "*batch latent"],
        step: Int[Tensor, "*batch"],
    ) -> Float[Tensor, "*batch latent"]:
        """x_t from a clean x and standard normal noise."""
        signal = self.at(self.alphas_bar, step, x)
        return signal.sqrt() * x + (1 - signal).sqrt() * noise

    @typed
    def posterior_mean(
        self,
        clean: Float[Tensor, "*batch latent"],
        noisy: Float[Tensor, "*batch latent"],
        step: Int[Tensor, "*#batch"],
    ) -> Float[Tensor, "*batch latent"]:
        """Mean of the reverse step from x_t given the clean x; see the module's formula."""
        total = 1 - self.alphas_bar
        of_clean = self.betas * self.alphas_bar_before.sqrt() / total
        of_noisy = (1 - self.alphas_bar_before) * (1 - self.betas).sqrt() / total
        return self.at(of_clean, step, clean) * clean + self.at(of_noisy, step, noisy) * noisy

    def at(self, values: Tensor, step: Tensor, like: Tensor) -> Tensor:
        """One of the schedule's vectors at given steps, with a last axis for the latent."""
        return values.to(device=like.device)[step].to(like.dtype)[..., None]
