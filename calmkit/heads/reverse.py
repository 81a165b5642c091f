r"""Reverse samplers of diffusion models, from noise to a clean x; usable without a head.

A sampler visits some steps of a schedule, from the noisiest to the least noisy. At each step a
denoiser estimates the clean x from x_t = a x + b eps, and the sampler moves to the next level
(a', b'), at the end to (1, 0):

    DDPM         x' ~ N(posterior mean given the estimate, variance between its bounds)
    DDIM         x' = a' clean + sqrt(b'^2 - s^2) (x_t - a clean) / b + s eps',
                 s = eta sqrt(posterior variance)
    DPM-Solver   x' = b' / b x_t - a' (exp(-h) - 1) D,    h = log(a' / b') - log(a / b),
                 D = clean + h / (2 h_before) (clean - clean_before)

Here h is half the increase of the log-SNR. DDIM with eta = 0 and DPM-Solver++(2M) solve the
probability-flow equation with order 1 and 2 in the number of steps; they map noise to a sample
deterministically. DDIM with eta = 1 is DDPM with the posterior variance. D is `clean` at the first
move, which has no previous estimate, and at the last, where h is infinite.

DDPM visits evenly spaced steps, first and last included, as in improved DDPM. The other two visit
trailing steps, uniform in time, the lowest one stride above the clean x. For DPM-Solver, the
uneven jump to the first step of a schedule would make D extrapolate far. Steps uniform in log-SNR,
most of which lie where x_t is almost all noise or all signal, were less accurate here.

Source: Ho et al., arXiv 2006.11239, algorithm 2; Nichol and Dhariwal, arXiv 2102.09672, section
4; Song et al., "Denoising Diffusion Implicit Models", arXiv 2010.02502, equations 12 and 16; Lu
et al., "DPM-Solver++", arXiv 2211.01095, algorithm 2.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.bounds import check_at_least, check_in
from calmkit.typing import typed

from .schedule import NoiseSchedule

__all__ = [
    "DDIMSampler",
    "DDPMSampler",
    "DPMSolverSampler",
    "Denoised",
    "Denoiser",
    "ReverseSampler",
    "guided_denoiser",
]


@typed
@dataclass(frozen=True, eq=False)
class Denoised:
    """The output of a denoiser at x_t.

    Attributes:
        clean: Estimate of the clean x, ideally E[x | x_t].
        variance_fraction: Position of the log-variance of a reverse step between the posterior's
            (0) and log beta (1); used only by DDPM.
    """

    clean: Float[Tensor, "*batch latent"]
    variance_fraction: Float[Tensor, "*batch latent"] | float = 0.0


# Arguments: x_t and the index of its step in the schedule, a scalar tensor on the device of x_t.
Denoiser = Callable[[Tensor, Tensor], Denoised]


def guided_denoiser(conditional: Denoiser, unconditional: Denoiser, scale: float) -> Denoiser:
    """Classifier-free guidance: (1 - scale) unconditional + scale conditional, of the clean x.

    This equals guidance of the network's outputs: for given x_t the clean x is affine in the
    output, and the weights add up to 1. The variance is interpolated but never extrapolated: for
    scale >= 1 it is the conditional one.

    Args:
        conditional: Denoiser with the condition.
        unconditional: Denoiser without the condition.
        scale: 0 is the unconditional denoiser, 1 the conditional; larger values exaggerate the
            condition.
    """

    def denoise(noisy: Tensor, step: Tensor) -> Denoised:
        with_cond, without = conditional(noisy, step), unconditional(noisy, step)
        clean = torch.lerp(without.clean, with_cond.clean, scale)
        share = min(scale, 1.0)
        fraction = (1 - share) * without.variance_fraction + share * with_cond.variance_fraction
        return Denoised(clean, fraction)

    return denoise


# Arguments of a move: its index, x_t, the estimate, the previous one (None at first), the noise.
Move = Callable[[int, Tensor, Denoised, Denoised | None, Callable[[], Tensor]], Tensor]


@dataclass(frozen=True)
class ReverseSampler(abc.ABC):
    """A method of running the reverse process.

    Attributes:
        steps: Steps of the schedule that it visits, one evaluation each.
    """

    steps: int

    def __post_init__(self) -> None:
        """Refuse fewer than one step."""
        check_at_least(1, steps=self.steps)

    @property
    def evaluations(self) -> int:
        """Number of calls of the denoiser."""
        return self.steps

    @property
    @abc.abstractmethod
    def noises(self) -> int:
        """Number of noise draws that are added."""

    @abc.abstractmethod
    def visited(self, schedule: NoiseSchedule) -> Int[Tensor, " visited"]:
        """The visited steps of a schedule, in increasing order.

        Raises:
            ValueError: If the schedule has too few steps.
        """

    @abc.abstractmethod
    def moves(self, chain: NoiseSchedule) -> Move:
        """The step from x_t to the next x, with its coefficients for all steps.

        Args:
            chain: The schedule of the visited steps alone.
        """

    def run(
        self,
        denoise: Denoiser,
        schedule: NoiseSchedule,
        start: Float[Tensor, "*batch latent"],
        draw: Callable[[], Tensor],
    ) -> Float[Tensor, "*batch latent"]:
        """Carry `start` to a clean x.

        Args:
            denoise: Estimate of the clean x.
            schedule: Schedule of the denoiser's steps.
            start: Standard normal x at the last step.
            draw: Draws standard normal noise in the shape of `start` when it is added; drawing all
                of it in advance would need `noises` times the memory.

        Raises:
            ValueError: If the schedule has too few steps.
        """
        visited = self.visited(schedule)
        move = self.moves(schedule.visiting(visited))
        visited, x, before = visited.to(start.device), start, None
        for i in reversed(range(len(visited))):
            estimate = denoise(x, visited[i])
            x = move(i, x, estimate, before, draw)
            before = estimate
        return x

    @typed
    def sample_from(
        self,
        denoise: Denoiser,
        schedule: NoiseSchedule,
        start: Float[Tensor, "*batch latent"],
        noise: Float[Tensor, "noises *batch latent"] | None = None,
    ) -> Float[Tensor, "*batch latent"]:
        """`run` with given noise, in the order of use; None if none is added.

        Raises:
            ValueError: If the number of draws is not `noises`, or the schedule has too few steps.
        """
        draws = [] if noise is None else list(noise.unbind())
        if len(draws) != self.noises:
            raise ValueError(f"noise must hold {self.noises} draws; got {len(draws)}.")
        rest = iter(draws)
        return self.run(denoise, schedule, start, lambda: next(rest))


@dataclass(frozen=True)
class DDPMSampler(ReverseSampler):
    """Ancestral sampling: each reverse step adds noise of the denoiser's variance."""

    steps: int = 100

    @property
    def noises(self) -> int:
        """One per step except the last, which returns the clean x."""
        return self.steps - 1

    def visited(self, schedule: NoiseSchedule) -> Int[Tensor, " visited"]:
        """Evenly spaced steps, first and last included."""
        return schedule.even_steps(self.steps)

    def moves(self, chain: NoiseSchedule) -> Move:
        """Mean and noise of the posterior q(x_{t-1} | x_t, x_0) at the estimated clean x."""
        upper, lower = chain.betas.log(), chain.least_variance.log()

        def move(
            i: int, x: Tensor, now: Denoised, before: Denoised | None, draw: Callable[[], Tensor]
        ) -> Tensor:
            x = chain.posterior_of_clean[i] * now.clean + chain.posterior_of_noisy[i] * x
            if i == 0:
                return x
            fraction = now.variance_fraction
            log_variance = fraction * upper[i] + (1 - fraction) * lower[i]
            return x + (0.5 * log_variance).exp() * draw()

        return move


@dataclass(frozen=True)
class DDIMSampler(ReverseSampler):
    """Implicit sampling: order 1, deterministic at eta = 0, DDPM with small variance at 1.

    Attributes:
        eta: Standard deviation of the noise added, in those of the posterior; in [0, 1].
    """

    steps: int = 50
    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_in("[0, 1]", eta=self.eta)

    @property
    def noises(self) -> int:
        """0 at eta = 0, otherwise one per step except the last."""
        return self.steps - 1 if self.eta > 0 else 0

    def visited(self, schedule: NoiseSchedule) -> Int[Tensor, " visited"]:
        """Trailing steps."""
        return schedule.trailing_steps(self.steps)

    def moves(self, chain: NoiseSchedule) -> Move:
        """The clean x and the noise that the estimate implies, at the next noise level."""
        std = self.eta * chain.posterior_variance.sqrt()
        # sqrt(b'^2 - s^2) / b with b'^2 factored out, since b' is 0 at the end.
        share = 1 - self.eta**2 * chain.betas / chain.noise_scale.square()
        of_noisy = ((1 - chain.alphas_bar_before) * share).sqrt() / chain.noise_scale
        of_clean = chain.alphas_bar_before.sqrt() - chain.signal_scale * of_noisy

        def move(
            i: int, x: Tensor, now: Denoised, before: Denoised | None, draw: Callable[[], Tensor]
        ) -> Tensor:
            x = of_noisy[i] * x + of_clean[i] * now.clean
            return x + std[i] * draw() if i > 0 and self.eta > 0 else x

        return move


@dataclass(frozen=True)
class DPMSolverSampler(ReverseSampler):
    """DPM-Solver++(2M): order 2 at one evaluation a step, from the estimate of the step before."""

    steps: int = 20

    noises = 0

    def visited(self, schedule: NoiseSchedule) -> Int[Tensor, " visited"]:
        """Trailing steps."""
        return schedule.trailing_steps(self.steps)

    def moves(self, chain: NoiseSchedule) -> Move:
        """The exponential integrator with clean x extrapolated from two estimates."""
        half_log_snr = 0.5 * chain.log_snr
        h = torch.cat([half_log_snr.new_full((1,), torch.inf), half_log_snr[:-1]]) - half_log_snr
        of_noisy = (1 - chain.alphas_bar_before).sqrt() / chain.noise_scale
        of_clean = -chain.alphas_bar_before.sqrt() * torch.expm1(-h)
        # Zero at both ends, where D is the estimate itself.
        extrapolation = torch.cat([h.new_zeros(1), 0.5 * h[1:-1] / h[2:], h.new_zeros(1)])

        def move(
            i: int, x: Tensor, now: Denoised, before: Denoised | None, draw: Callable[[], Tensor]
        ) -> Tensor:
            best = now.clean
            if before is not None:
                best = best + extrapolation[i] * (best - before.clean)
            return of_noisy[i] * x + of_clean[i] * best

        return move
