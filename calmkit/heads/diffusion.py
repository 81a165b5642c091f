r"""Diffusion head: a network that removes noise step by step.

The network maps (x_t, t, cond) to an estimate of the clean x (through a `Prediction`). If the
variance of the reverse steps is learned, it also predicts its position between the bounds. The
training loss, averaged over dimensions, is

    w_t || target - output ||^2 + bound_t,

with the weights of a `LossWeighting` and the bound of a `ReverseVariance`. By default the weights
are 1 and the bound is that of a learned variance (the hybrid loss). A `ReverseSampler` draws
samples; the network is the same for all samplers.

The steps of a position's draws are stratified: draw k of D takes its step from the k-th of D equal
parts of the schedule. Over the draws all steps are equally likely. This reduced the variation of a
trained head's loss by up to a third, but hardly that of its gradient, where the noise dominates.

The default is velocity prediction. The published head predicts noise (`NoisePrediction`). A well
trained model is the same, but its samples diverge early in training.

Source: Ho et al., arXiv 2006.11239; Nichol and Dhariwal, arXiv 2102.09672, sections 3.1 and 4; as
a head, Li et al., arXiv 2406.11838, and arXiv 2510.27688.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.bounds import check_at_least
from calmkit.distributions import Target
from calmkit.nn import AdaptiveMLP
from calmkit.typing import typed

from .base import starting_noise
from .prediction import Prediction, VelocityPrediction
from .reverse import DDPMSampler, Denoised, Denoiser, ReverseSampler, guided_denoiser
from .schedule import CosineSchedule, NoiseSchedule
from .temperature import TemperedHead
from .variance import LearnedVariance, ReverseVariance
from .weighting import LossWeighting, UniformWeighting

__all__ = ["DiffusionHead"]


class DiffusionHead(TemperedHead):
    """Denoising diffusion, assembled from schedule, prediction, variance, weights and sampler."""

    sampling_arguments = TemperedHead.sampling_arguments | {"sampler"}

    def __init__(
        self,
        cond_size: int,
        latent_size: int,
        *,
        width: int = 512,
        depth: int = 3,
        draws: int = 4,
        schedule: NoiseSchedule | None = None,
        prediction: Prediction | None = None,
        variance: ReverseVariance | None = None,
        weighting: LossWeighting | None = None,
        sampler: ReverseSampler | None = None,
        noise_scale: float = 1.0,
        truncation: float | None = None,
    ) -> None:
        """Build the network.

        Args:
            cond_size: Features of the condition.
            latent_size: Dimensions of a sample.
            width: Features inside.
            depth: Number of residual blocks.
            draws: Draws of step, noise and latent per position in a training step.
            schedule: Noise schedule of training; 1000 cosine steps if None.
            prediction: Quantity that the network predicts; the velocity if None.
            variance: Variance of the reverse steps; learned if None.
            weighting: Weight of each step's squared error; uniform if None.
            sampler: Reverse sampler; DDPM with 100 steps if None.
            noise_scale: Factor on the noise of samples, at the start and at each step that adds
                noise; it is 1 in training. See `temperature`.
            truncation: Bound on that noise before scaling, in standard deviations; None for none.

        Raises:
            ValueError: If a number is out of range, or the parts are incompatible.
        """
        super().__init__(cond_size, latent_size)
        check_at_least(1, draws=draws)
        self.draws = draws
        self.schedule = CosineSchedule() if schedule is None else schedule
        self.prediction = VelocityPrediction() if prediction is None else prediction
        self.variance = LearnedVariance() if variance is None else variance
        self.weighting = UniformWeighting() if weighting is None else weighting
        self.sampler = DDPMSampler() if sampler is None else sampler
        self.noise_scale = noise_scale
        self.truncation = truncation
        self._check_sampling()
        self._weights = self._checked_weights()
        self.network = AdaptiveMLP(
            cond_size, latent_size, self.variance.outputs * latent_size, width=width, depth=depth
        )

    def _check_sampling(self) -> None:
        super()._check_sampling()
        if not isinstance(self.sampler, ReverseSampler):
            raise ValueError(
                f"sampler must be a ReverseSampler, such as DDIMSampler(20); got {self.sampler!r}."
            )
        self.sampler.visited(self.schedule)  # refuses a schedule that is too short

    @property
    def evaluations_per_sample(self) -> int:
        """The evaluations of the head's sampler."""
        return self.sampler.evaluations

    @typed
    def loss_from(
        self,
        cond: Float[Tensor, "*batch cond"],
        latents: Float[Tensor, "draws *batch latent"],
        noise: Float[Tensor, "draws *batch latent"],
        step: Int[Tensor, "draws *batch"],
    ) -> Float[Tensor, "*batch"]:
        """Loss at given draws, averaged over draws and dimensions.

        Args:
            cond: Conditions.
            latents: Clean vectors.
            noise: Standard normal noise added to them.
            step: Step of the schedule of each draw.
        """
        schedule = self.schedule
        # Stacked, so that one copy to the latents' device suffices.
        signal_scale, noise_scale, time, weight, of_clean, upper, lower = schedule.at(
            torch.stack(
                [
                    schedule.signal_scale,
                    schedule.noise_scale,
                    schedule.times,
                    self._weights,
                    schedule.posterior_of_clean,
                    schedule.betas.log(),
                    schedule.least_variance.log(),
                ]
            ),
            step,
            latents,
        )
        noisy = signal_scale * latents + noise_scale * noise
        output, fraction = self._evaluate(cond, noisy, time[..., 0])
        error = output - self.prediction.target(latents, noise, signal_scale, noise_scale)
        clean = self.prediction.clean(output.detach(), noisy, signal_scale, noise_scale)
        # The x_t terms of both means of the reverse step cancel.
        mean_error = of_clean * (latents - clean)
        first = (step == 0)[..., None]
        bound = self.variance.bound(fraction, mean_error, upper, lower, first)
        return (weight * error.square() + bound).mean(dim=-1).mean(dim=0)

    @typed
    def loss(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: Target,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Loss of each position at stratified steps; see `Head.loss`."""
        self._check_cond(cond)
        latents = self._checked_target(target).sample(self.draws, generator)
        noise = starting_noise(latents[0], self.draws, self.latent_size, generator)
        length = len(self.schedule)
        step = torch.randint(
            length, latents.shape[:-1], generator=generator, device=latents.device
        )
        part = torch.arange(self.draws, device=step.device).view(-1, *[1] * (step.ndim - 1))
        # Over the draws, part * length + step is uniform on [0, draws * length).
        step = (part * length + step) // self.draws
        return self.loss_from(cond, latents, noise, step)

    @typed
    def denoiser(self, cond: Float[Tensor, "*batch cond"]) -> Denoiser:
        """The network as a denoiser of `samples *batch latent`, for any sampler.

        Args:
            cond: Conditions.

        Raises:
            ValueError: If the condition has the wrong size.
        """
        self._check_cond(cond)
        # Moved once, not per evaluation.
        dtype = torch.promote_types(cond.dtype, torch.float32)
        schedule = self.schedule
        levels = torch.stack([schedule.signal_scale, schedule.noise_scale, schedule.times])
        levels = levels.to(dtype).to(cond.device)

        def denoise(noisy: Tensor, step: Tensor) -> Denoised:
            # Index with a vector: a scalar index would synchronise with the host.
            signal_scale, noise_scale, time = levels[:, step[None]].squeeze(1)
            shared = time.expand((1,) * (noisy.ndim - 1))  # by all samples and positions
            output, fraction = self._evaluate(cond, noisy, shared)
            clean = self.prediction.clean(output, noisy, signal_scale, noise_scale)
            return Denoised(clean, fraction)

        return denoise

    @typed
    def sample_from(
        self,
        cond: Float[Tensor, "*batch cond"],
        start: Float[Tensor, "samples *batch latent"],
        noise: Float[Tensor, "noises samples *batch latent"] | None = None,
    ) -> Float[Tensor, "samples *batch latent"]:
        """Run the reverse process: the deterministic part of sampling.

        Args:
            cond: Conditions.
            start: Standard normal x at the last step.
            noise: Standard normal noise that the sampler adds, in the order of use; None if it
                adds none.

        Raises:
            ValueError: If the number of noise draws is wrong.
        """
        return self.sampler.sample_from(self.denoiser(cond), self.schedule, start, noise)

    @typed
    def sample(
        self,
        cond: Float[Tensor, "*batch cond"],
        num_samples: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples *batch latent"]:
        """Draw independent samples for each condition; see `Head.sample`."""
        return self._sample(self.denoiser(cond), cond, num_samples, generator)

    @typed
    def sample_guided(
        self,
        cond: Float[Tensor, "*batch cond"],
        null: Float[Tensor, " cond"],
        scale: float,
        num_samples: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples *batch latent"]:
        """Sample from `guided_denoiser`; see `Head.sample_guided`."""
        with_cond, without = self.denoiser(cond), self.denoiser(null.expand_as(cond))
        denoise = guided_denoiser(with_cond, without, scale)
        return self._sample(denoise, cond, num_samples, generator)

    def _sample(
        self,
        denoise: Denoiser,
        cond: Tensor,
        num_samples: int,
        generator: torch.Generator | None,
    ) -> Tensor:
        def draw() -> Tensor:
            return self._sampling_noise(cond, num_samples, generator)

        return self.sampler.run(denoise, self.schedule, draw(), draw)

    def _evaluate(
        self, cond: Tensor, noisy: Tensor, time: Tensor
    ) -> tuple[Tensor, Tensor | float]:
        """The network's output and variance fraction; shared axes of `time` have size 1."""
        output = self.network(self._read(noisy), self._read(time.to(noisy.dtype)), cond)
        # Autocast leaves half precision, too coarse for accumulating steps.
        return self.variance.split(output.to(noisy.dtype))

    def _checked_weights(self) -> Tensor:
        schedule, name = self.schedule, type(self.prediction).__name__
        gain = self.prediction.gain(schedule.signal_scale, schedule.noise_scale)
        if not bool(gain.isfinite().all()):
            raise ValueError(
                f"prediction must fix the clean x at every step; {name} does not where no signal "
                f"is left (zero terminal SNR). Use VelocityPrediction or CleanPrediction."
            )
        weights = self.weighting.weights(schedule, self.prediction)
        if not bool((weights > 0).all()):
            raise ValueError(
                "weighting must give every step a positive weight, else a step is sampled that "
                f"was never trained; {type(self.weighting).__name__} gives 0 to step "
                f"{int((weights <= 0).nonzero()[0])}. Use UniformWeighting, or a schedule "
                "without zero terminal SNR."
            )
        return weights
