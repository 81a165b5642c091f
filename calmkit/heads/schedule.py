r"""Noise schedules of diffusion models, as plain tensors; usable without a head.

The forward process adds Gaussian noise in T steps of variance beta_t, t = 0..T-1:

    x_t = a_t x + b_t eps,    a_t^2 = abar_t = prod_{s <= t} (1 - beta_s),    b_t^2 = 1 - abar_t,

and the reverse step given x is Gaussian with

    mean      beta_t a_{t-1} / b_t^2 x  +  b_{t-1}^2 sqrt(1 - beta_t) / b_t^2 x_t,
    variance  beta_t b_{t-1}^2 / b_t^2,                                abar_{-1} = 1.

The signal-to-noise ratio is abar_t / (1 - abar_t). It is zero at the last step, and x_{T-1} is
noise alone, where beta_{T-1} = 1; of the usual schedules none is so, see `zero_terminal_snr`.

A sampler visits some of the steps only: choose them with `even_steps` or `trailing_steps`, and
`visiting` gives the schedule of the shorter chain.

Source: Ho et al., "Denoising Diffusion Probabilistic Models", arXiv 2006.11239, equations 4, 6
and 7 and section 4 (linear); Nichol and Dhariwal, "Improved DDPM", arXiv 2102.09672, equation 17
(cosine); Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed",
arXiv 2305.08891, algorithm 1 (zero terminal SNR) and table 2 (trailing steps).
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.bounds import check_at_least
from calmkit.recording import Recorded
from calmkit.typing import typed

__all__ = ["CosineSchedule", "LinearSchedule", "NoiseSchedule", "ZeroTerminalSNR"]


class NoiseSchedule(Recorded):
    """A discrete schedule: betas, everything derived from them, and which steps they are.

    All tensors are float64 on the CPU.

    Attributes:
        betas: Variance added at each step.
        alphas_bar: Share of the signal's variance left after each step.
        alphas_bar_before: The same before each step.
        signal_scale: a, the factor of the clean x in x_t.
        noise_scale: b, the factor of the noise in x_t.
        posterior_variance: Variance of the reverse step given the clean x; 0 at the first step.
        least_variance: The same, but at the first step that of the second, as in published code:
            a lower bound whose logarithm is finite. A schedule of one step has its beta there.
        posterior_of_clean: Factor of the clean x in the mean of the reverse step.
        posterior_of_noisy: Factor of x_t in that mean.
        steps: Index of each step in the schedule that the network was trained on.
        full_length: Number of steps of that schedule.
    """

    def __init__(
        self,
        betas: Float[Tensor, " steps"],
        steps: Int[Tensor, " steps"] | None = None,
        full_length: int | None = None,
    ) -> None:
        """Derive the quantities.

        Args:
            betas: Variance added at each step, in (0, 1); the last may be 1, which leaves noise
                alone.
            steps: Index of each step in a longer schedule; 0, 1, ... if None.
            full_length: Length of that longer schedule; the number of betas if None.

        Raises:
            ValueError: If a beta is out of range.
        """
        betas = betas.detach().to("cpu", torch.float64)
        # Under compilation only schedules that passed are cut shorter.
        if not torch.compiler.is_compiling():
            inside = (betas > 0) & (betas < 1)
            inside[-1:] |= betas[-1:] == 1
            if betas.ndim != 1 or len(betas) < 1 or not bool(inside.all()):
                raise ValueError(
                    f"betas must be a vector of numbers in (0, 1), the last at most 1; "
                    f"got {betas}."
                )
        self.betas = betas
        self.alphas_bar = (1 - betas).cumprod(0)
        self.alphas_bar_before = torch.cat([betas.new_ones(1), self.alphas_bar[:-1]])
        total, total_before = 1 - self.alphas_bar, 1 - self.alphas_bar_before
        self.signal_scale = self.alphas_bar.sqrt()
        self.noise_scale = total.sqrt()
        self.posterior_variance = betas * total_before / total
        first = self.posterior_variance[1:2] if len(betas) > 1 else betas
        self.least_variance = torch.cat([first, self.posterior_variance[1:]])
        self.posterior_of_clean = betas * self.alphas_bar_before.sqrt() / total
        self.posterior_of_noisy = total_before * (1 - betas).sqrt() / total
        self.steps = torch.arange(len(betas), device="cpu") if steps is None else steps
        self.full_length = len(betas) if full_length is None else full_length

    def __len__(self) -> int:
        return len(self.betas)

    @staticmethod
    def cosine(length: int = 1000, *, offset: float = 0.008) -> "NoiseSchedule":
        """Abar follows cos^2((t / T + offset) / (1 + offset) * pi / 2); betas are at most 0.999.

        Raises:
            ValueError: If the length is not positive.
        """
        check_at_least(1, length=length)
        u = torch.arange(length + 1, dtype=torch.float64, device="cpu") / length
        alphas_bar = ((u + offset) / (1 + offset) * math.pi / 2).cos().square()
        return NoiseSchedule((1 - alphas_bar[1:] / alphas_bar[:-1]).clamp_max(0.999))

    @staticmethod
    def linear(length: int = 1000, *, first: float = 1e-4, last: float = 0.02) -> "NoiseSchedule":
        """Betas rise evenly from `first` to `last`, both times 1000 / length.

        The factor, as in improved DDPM, leaves about the same noise at the end for any length;
        at 1000 steps the schedule is DDPM's.

        Raises:
            ValueError: If the length is not positive, or so short that a beta reaches 1.
        """
        check_at_least(1, length=length)
        if not 0 < first * 1000 / length < 1 or not 0 < last * 1000 / length < 1:
            raise ValueError(
                f"first and last must be positive and below length / 1000 = {length / 1000}, "
                f"else a beta reaches 1; got {first} and {last}."
            )
        ends = torch.linspace(first, last, length, dtype=torch.float64, device="cpu")
        return NoiseSchedule(ends * (1000 / length))

    def zero_terminal_snr(self) -> "NoiseSchedule":
        """The schedule whose last step leaves noise alone, as sampling assumes at its start.

        All a_t are shifted and stretched so that the last is 0 and the first is kept. Noise
        prediction is impossible at such a step: x_t is the noise, and says nothing of x.

        Raises:
            ValueError: If there is one step only, which is first and last.
        """
        if len(self) < 2:
            raise ValueError(f"zero terminal SNR must have at least 2 steps; got {len(self)}.")
        scale = self.signal_scale - self.signal_scale[-1]
        alphas_bar = (scale * (self.signal_scale[0] / scale[0])).square()
        return self._with(alphas_bar, self.steps)

    @property
    def times(self) -> Float[Tensor, " steps"]:
        """Each step as a share of the full length, in [0, 1): what a network is told."""
        return self.steps.double() / self.full_length

    @property
    def snr(self) -> Float[Tensor, " steps"]:
        """Signal-to-noise ratio abar / (1 - abar) of each step."""
        return self.alphas_bar / (1 - self.alphas_bar)

    @property
    def log_snr(self) -> Float[Tensor, " steps"]:
        """Its natural logarithm; minus infinity where no signal is left."""
        return self.snr.log()

    def even_steps(self, length: int) -> Int[Tensor, " length"]:
        """`length` evenly spaced steps, first and last included; the last alone if one.

        Raises:
            ValueError: If there are more steps than this schedule has, or fewer than 1.
        """
        self._check_fits(length)
        last = len(self) - 1
        start = 0 if length > 1 else last
        even = torch.linspace(start, last, length, dtype=torch.float64, device="cpu")
        return even.round().long()

    def trailing_steps(self, length: int) -> Int[Tensor, " length"]:
        """`length` evenly spaced steps up to the last; the first is one stride above the clean x.

        No evaluation is spent where x_t is all but clean already, and strides are equal.

        Raises:
            ValueError: If there are more steps than this schedule has, or fewer than 1.
        """
        self._check_fits(length)
        return torch.arange(1, length + 1, device="cpu") * len(self) // length - 1

    def visiting(self, steps: Int[Tensor, " length"]) -> "NoiseSchedule":
        """The schedule of the chain that visits only some steps of this one.

        Its betas are such that abar agrees with this schedule's at the steps visited.

        Args:
            steps: Indices into this schedule, rising.
        """
        return self._with(self.alphas_bar[steps], self.steps[steps])

    def respaced(self, length: int) -> "NoiseSchedule":
        """`visiting(even_steps(length))`, the respacing of improved DDPM.

        Raises:
            ValueError: If there are more steps than this schedule has, or fewer than 1.
        """
        return self.visiting(self.even_steps(length))

    @typed
    def add_noise(
        self,
        x: Float[Tensor, "*batch latent"],
        noise: Float[Tensor, "*batch latent"],
        step: Int[Tensor, "*batch"],
    ) -> Float[Tensor, "*batch latent"]:
        """x_t from a clean x and standard normal noise."""
        signal_scale, noise_scale = self.at(
            torch.stack([self.signal_scale, self.noise_scale]), step, x
        )
        return signal_scale * x + noise_scale * noise

    @typed
    def posterior_mean(
        self,
        clean: Float[Tensor, "*batch latent"],
        noisy: Float[Tensor, "*batch latent"],
        step: Int[Tensor, "*#batch"],
    ) -> Float[Tensor, "*batch latent"]:
        """Mean of the reverse step from x_t given the clean x; see the module's formula."""
        of_clean, of_noisy = self.at(
            torch.stack([self.posterior_of_clean, self.posterior_of_noisy]), step, clean
        )
        return of_clean * clean + of_noisy * noisy

    def at(self, values: Tensor, step: Tensor, like: Tensor) -> Tensor:
        """Vectors `*tables steps` read at given steps, with a last axis for the latent.

        Dtype and device are those of `like`.
        """
        return values.to(like.dtype).to(like.device)[..., step][..., None]

    def _with(self, alphas_bar: Tensor, steps: Tensor) -> "NoiseSchedule":
        before = torch.cat([alphas_bar.new_ones(1), alphas_bar[:-1]])
        return NoiseSchedule(1 - alphas_bar / before, steps, self.full_length)

    def _check_fits(self, length: int) -> None:
        if not 1 <= length <= len(self):
            raise ValueError(
                f"length must be in [1, {len(self)}], the steps of the schedule; got {length}."
            )


# The same schedules by the names of classes, so that a config can build them.
class CosineSchedule(NoiseSchedule):
    """`NoiseSchedule.cosine` as a part."""

    def __init__(self, length: int = 1000, *, offset: float = 0.008) -> None:
        """Build it; see `NoiseSchedule.cosine`."""
        super().__init__(NoiseSchedule.cosine(length, offset=offset).betas)


class LinearSchedule(NoiseSchedule):
    """`NoiseSchedule.linear` as a part."""

    def __init__(self, length: int = 1000, *, first: float = 1e-4, last: float = 0.02) -> None:
        """Build it; see `NoiseSchedule.linear`."""
        super().__init__(NoiseSchedule.linear(length, first=first, last=last).betas)


class ZeroTerminalSNR(NoiseSchedule):
    """`NoiseSchedule.zero_terminal_snr` as a part that wraps another."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        """Build it; see `NoiseSchedule.zero_terminal_snr`."""
        rescaled = schedule.zero_terminal_snr()
        super().__init__(rescaled.betas, rescaled.steps, rescaled.full_length)
