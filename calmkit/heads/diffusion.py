r"""Diffusion head: a network that removes noise step by step, with a learned variance.

The network maps (x_t, t, cond) to an estimate of the clean x (by way of a `Prediction`) and, per
dimension, a fraction f that sets the variance of the reverse step between its two bounds,

    log var_t = f log beta_t + (1 - f) log posterior_variance_t,    f = (output + 1) / 2.

Training minimises the hybrid loss, averaged over dimensions,

    || target - output ||^2 + KL(true reverse step || model's step) / log 2,

whose second term trains the variance only (the estimate is held fixed there); at t = 0 it is the
negative log-density of x instead. Sampling runs the reverse process over an evenly spaced subset
of the steps.

The default is velocity prediction. The published head predicts noise (`NoisePrediction`), which
is the same model once it is trained well, but diverges when it is sampled early in training.

Source: Ho et al., arXiv 2006.11239; Nichol and Dhariwal, arXiv 2102.09672, sections 3.1 and 4; as
a head, Li et al., arXiv 2406.11838, and arXiv 2510.27688.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.heads.base import Head, starting_noise
from calmkit.heads.prediction import Prediction, VelocityPrediction
from calmkit.heads.schedule import NoiseSchedule
from calmkit.nn import AdaptiveMLP
from calmkit.typing import typed

__all__ = ["DiffusionHead"]


@dataclass(frozen=True, eq=False)
class _ReverseStep:
    """Gaussian over x_{t-1}: `output` is what `mean` was computed from."""

    output: Tensor
    mean: Tensor
    log_variance: Tensor


class DiffusionHead(Head):
    """DDPM with the cosine schedule and learned variance."""

    def __init__(
        self,
        cond_size: int,
        latent_size: int,
        *,
        width: int = 512,
        depth: int = 3,
        draws: int = 4,
        steps: int = 100,
        training_steps: int = 1000,
        prediction: Prediction | None = None,
    ) -> None:
        """Build the network.

        Args:
            cond_size: Features of the condition.
            latent_size: Dimensions of a sample.
            width: Features inside.
            depth: Number of residual blocks.
            draws: Draws of step, noise and latent per position in a training step.
            steps: Reverse steps of a sample, one evaluation each.
            training_steps: Steps of the schedule that is trained on.
            prediction: What the network predicts; the velocity if None.

        Raises:
            ValueError: If a size is out of range.
        """
        super().__init__(cond_size, latent_size)
        if draws < 1:
            raise ValueError(f"draws must be at least 1; got {draws}.")
        if not 1 <= steps <= training_steps:
            raise ValueError(
                f"steps must be in [1, training_steps = {training_steps}]; got {steps}."
            )
        self.draws = draws
        self.prediction = VelocityPrediction() if prediction is None else prediction
        self.schedule = NoiseSchedule.cosine(training_steps)
        self.sampling_schedule = self.schedule.respaced(steps)
        self.network = AdaptiveMLP(
            cond_size, latent_size, 2 * latent_size, width=width, depth=depth
        )

    @property
    def evaluations_per_sample(self) -> int:
        """One for each reverse step."""
        return len(self.sampling_schedule)

    @typed
    def loss_from(
        self,
        cond: Float[Tensor, "*batch cond"],
        latents: Float[Tensor, "draws *batch latent"],
        noise: Float[Tensor, "draws *batch latent"],
        step: Int[Tensor, "draws *batch"],
    ) -> Float[Tensor, "*batch"]:
        """Hybrid loss at given draws, averaged over draws and dimensions.

        Args:
            cond: Conditions.
            latents: Clean vectors.
            noise: Standard normal noise added to them.
            step: Step of the schedule at which each is looked at.
        """
        noisy = self.schedule.add_noise(latents, noise, step)
        model = self._reverse_step(self.schedule, cond, noisy, step)
        signal = self.schedule.at(self.schedule.alphas_bar, step, noisy)
        squared_error = (model.output - self.prediction.target(latents, noise, signal)).square()

        mean = model.mean.detach()
        true_mean = self.schedule.posterior_mean(latents, noisy, step)
        # The true variance but at step 0, where it is zero and the KL is not used.
        true_variance = self.schedule.at(self.schedule.least_variance, step, noisy)
        kl = 0.5 * (
            model.log_variance
            - true_variance.log()
            - 1
            + (true_variance + (true_mean - mean).square()) / model.log_variance.exp()
        )
        nll = 0.5 * (
            model.log_variance
            + math.log(2 * math.pi)
            + (latents - mean).square() / model.log_variance.exp()
        )
        bound = torch.where(step[..., None] == 0, nll, kl) / math.log(2)
        return (squared_error + bound).mean(dim=-1).mean(dim=0)

    @typed
    def loss(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: DiagonalGaussian,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Hybrid loss of each position; see `Head.loss`."""
        self._check_cond(cond)
        self._check_target(target)
        latents = target.sample(self.draws, generator)
        noise = starting_noise(latents[0], self.draws, self.latent_size, generator)
        step = torch.randint(
            len(self.schedule), latents.shape[:-1], generator=generator, device=latents.device
        )
        return self.loss_from(cond, latents, noise, step)

    @typed
    def sample_from(
        self,
        cond: Float[Tensor, "*batch cond"],
        start: Float[Tensor, "samples *batch latent"],
        noise: Float[Tensor, "steps samples *batch latent"],
    ) -> Float[Tensor, "samples *batch latent"]:
        """Run the reverse process: the deterministic part of sampling.

        Args:
            cond: Conditions.
            start: Standard normal x at the last step.
            noise: Standard normal noise of each reverse step, in the order of use; the last
                step adds none.

        Raises:
            ValueError: If there is not one noise less than steps.
        """
        schedule = self.sampling_schedule
        if len(noise) != len(schedule) - 1:
            raise ValueError(
                f"noise must hold one draw for each step but the last, {len(schedule) - 1}; "
                f"got {len(noise)}."
            )
        return self._run(cond, start, iter(noise))

    @typed
    def sample(
        self,
        cond: Float[Tensor, "*batch cond"],
        num_samples: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples *batch latent"]:
        """Draw independent samples for each condition; see `Head.sample`."""
        self._check_cond(cond)

        def draw() -> Tensor:
            return starting_noise(cond, num_samples, self.latent_size, generator)

        # Drawn as they are needed: all noise at once would take `steps` times the memory.
        return self._run(cond, draw(), iter(draw, None))

    def _run(self, cond: Tensor, x: Tensor, noise: Iterator[Tensor]) -> Tensor:
        schedule = self.sampling_schedule
        for index in reversed(range(len(schedule))):
            shared = torch.full((1,) * (x.ndim - 1), index, device=x.device)
            model = self._reverse_step(schedule, cond, x, shared)
            x = model.mean
            if index > 0:
                x = x + (0.5 * model.log_variance).exp() * next(noise)
        return x

    def _reverse_step(
        self, schedule: NoiseSchedule, cond: Tensor, noisy: Tensor, step: Tensor
    ) -> _ReverseStep:
        """The model's step back from x_t; `step` has axes of size 1 where it is shared."""
        time = schedule.at(schedule.steps, step, noisy)[..., 0] / schedule.full_length
        output, fraction = self.network(noisy, time, cond).chunk(2, dim=-1)
        signal = schedule.at(schedule.alphas_bar, step, noisy)
        clean = self.prediction.clean(output, noisy, signal)
        mean = schedule.posterior_mean(clean, noisy, step)
        upper = schedule.at(schedule.betas, step, noisy).log()
        lower = schedule.at(schedule.least_variance, step, noisy).log()
        fraction = (fraction + 1) / 2
        return _ReverseStep(output, mean, fraction * upper + (1 - fraction) * lower)
