r"""Noise schedules of diffusion models, as plain tensors; usable without a head.

The forward process adds Gaussian noise in T steps of variance beta_t, t = 0..T-1:

    x_t = a_t x + b_t eps,    a_t^2 = abar_t = prod_{s <= t} (1 - beta_s),    b_t^2 = 1 - abar_t,

and the reverse step given x is Gaussian with

    mean      beta_t a_{t-1} / b_t^2 x  +  b_{t-1}^2 sqrt(1 - beta_t) / b_t^2 x_t,
    variance  beta_t b_{t-1}^2 / b_t^2,                                abar_{-1} = 1.

The signal-to-noise ratio is abar_t / (1 - abar_t). If beta_{T-1} = 1, it is zero at the last step,
and x_{T-1} is pure noise. None of the usual schedules has this property; see `ZeroTerminalSNR`.

A sampler visits only some of the steps. `even_steps` and `trailing_steps` select them, and
`visiting` returns the schedule of the shorter chain.

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

__all__ = ["CosineSchedule", "LinearSchedule", "NoiseSchedule", "ZeroTerminalSNR"]


class NoiseSchedule(Recorded):
    """A discrete schedule: betas, derived quantities, and the indices of the steps.

    All tensors are float64 on the CPU.

    Attributes:
        betas: Variance added at each step.
        alphas_bar: Remaining share of the signal's variance after each step.
        alphas_bar_before: The same before each step.
        signal_scale: a, the factor of the clean x in x_t.
        noise_scale: b, the factor of the noise in x_t.
        posterior_variance: Variance of the reverse step given the clean x; 0 at the first step.
        least_variance: `posterior_variance` with the first entry replaced by the second, as in
            published code, so that its logarithm is finite; beta for a schedule of one step.
        posterior_of_clean: Factor of the clean x in the mean of the reverse step.
        posterior_of_noisy: Factor of x_t in that mean.
        steps: Index of each step in the training schedule.
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
            betas: Variance added at each step, in (0, 1); the last may be 1, which leaves pure
                noise.
            steps: Index of each step in a longer schedule; 0, 1, ... if None.
            full_length: Length of that longer schedule; the number of betas if None.

        Raises:
            ValueError: If a beta is out of range.
        """
        betas = betas.detach().to("cpu", torch.float64)
        # Compiled code only shortens schedules that were checked before.
        if not torch.compiler.is_compiling():
            inside = (betas > 0) & (betas < 1)
            inside[-1:] |= betas[-1:] == 1
            if betas.ndim != 1 or len(betas) < 1 or not bool(inside.all()):
                got = f"shape {tuple(betas.shape)}"
                if betas.ndim == 1 and len(betas):
                    place = int((~inside).nonzero()[0])
                    got = f"{betas[place]:g} at step {place}"
                raise ValueError(
                    f"betas must be a vector of numbers in (0, 1), the last at most 1; got {got}."
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

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} of {self.full_length} steps)"

    @property
    def times(self) -> Float[Tensor, " steps"]:
        """Each step as a share of the full length, in [0, 1): the network's time input."""
        return self.steps.double() / self.full_length

    @property
    def snr(self) -> Float[Tensor, " steps"]:
        """Signal-to-noise ratio abar / (1 - abar) of each step."""
        return self.alphas_bar / (1 - self.alphas_bar)

    @property
    def log_snr(self) -> Float[Tensor, " steps"]:
        """Natural logarithm of `snr`; minus infinity for pure noise."""
        return self.snr.log()

    def even_steps(self, length: int) -> Int[Tensor, " length"]:
        """`length` evenly spaced steps, first and last included; for one step, the last.

        Raises:
            ValueError: If the length is below 1 or above that of this schedule.
        """
        self._check_fits(length)
        last = len(self) - 1
        start = 0 if length > 1 else last
        even = torch.linspace(start, last, length, dtype=torch.float64, device="cpu")
        return even.round().long()

    def trailing_steps(self, length: int) -> Int[Tensor, " length"]:
        """`length` evenly spaced steps up to the last; the first is one stride above the clean x.

        The strides are equal, and no evaluation is spent where x_t is already almost clean.

        Raises:
            ValueError: If the length is below 1 or above that of this schedule.
        """
        self._check_fits(length)
        return torch.arange(1, length + 1, device="cpu") * len(self) // length - 1

    def visiting(self, steps: Int[Tensor, " length"]) -> "NoiseSchedule":
        """The schedule of the chain that visits only some steps of this one.

        Its abar equals this schedule's at the visited steps.

        Args:
            steps: Indices into this schedule, increasing.
        """
        betas = _betas_of(self.alphas_bar[steps])
        return NoiseSchedule(betas, self.steps[steps], self.full_length)

    def at(self, values: Tensor, step: Tensor, like: Tensor) -> Tensor:
        """Look up tables `*tables steps` at given steps, with a last axis for the latent.

        The result has the dtype and device of `like`.
        """
        return values.to(like.dtype).to(like.device)[..., step][..., None]

    def _check_fits(self, length: int) -> None:
        if not 1 <= length <= len(self):
            raise ValueError(
                f"length must be in [1, {len(self)}], the steps of the schedule; got {length}."
            )


class CosineSchedule(NoiseSchedule):
    """Abar follows cos^2((t / T + offset) / (1 + offset) * pi / 2); betas are at most 0.999."""

    def __init__(self, length: int = 1000, *, offset: float = 0.008) -> None:
        """Compute the betas.

        Args:
            length: T, the number of steps.
            offset: Keeps the first betas from being tiny.

        Raises:
            ValueError: If the length is not positive.
        """
        check_at_least(1, length=length)
        u = torch.arange(length + 1, dtype=torch.float64, device="cpu") / length
        alphas_bar = ((u + offset) / (1 + offset) * math.pi / 2).cos().square()
        super().__init__((1 - alphas_bar[1:] / alphas_bar[:-1]).clamp_max(0.999))


class LinearSchedule(NoiseSchedule):
    """Betas increase linearly from `first` to `last`, both times 1000 / length.

    With this factor, as in improved DDPM, the final noise is about the same for any length. At
    1000 steps the schedule is DDPM's.
    """

    def __init__(self, length: int = 1000, *, first: float = 1e-4, last: float = 0.02) -> None:
        """Compute the betas.

        Args:
            length: Number of steps.
            first: First beta of a schedule of 1000 steps.
            last: Its last beta.

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
        super().__init__(ends * (1000 / length))


class ZeroTerminalSNR(NoiseSchedule):
    """A schedule rescaled so that its last step is pure noise, as sampling assumes.

    All a_t are shifted and scaled so that the last is 0 and the first is unchanged. Noise
    prediction is impossible at such a step: x_t is the noise and does not depend on x.
    """

    def __init__(self, schedule: NoiseSchedule) -> None:
        """Rescale a schedule.

        Args:
            schedule: The schedule; it is not changed.

        Raises:
            ValueError: If it has only one step.
        """
        if len(schedule) < 2:
            raise ValueError(f"zero terminal SNR must have at least 2 steps; got {len(schedule)}.")
        scale = schedule.signal_scale - schedule.signal_scale[-1]
        alphas_bar = (scale * (schedule.signal_scale[0] / scale[0])).square()
        super().__init__(_betas_of(alphas_bar), schedule.steps, schedule.full_length)


def _betas_of(alphas_bar: Tensor) -> Tensor:
    before = torch.cat([alphas_bar.new_ones(1), alphas_bar[:-1]])
    return 1 - alphas_bar / before
