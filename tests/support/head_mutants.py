"""A right head, and heads that are wrong in one thing each."""

import math

import torch
from torch import nn
from torch.nn.functional import softplus

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import Head, check_num_samples
from calmkit.typing import typed


def draw(shape, generator, like):
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)


class Right(Head):
    """A Gaussian with learnt mean and spread; its loss is the log-density at a drawn point."""

    def __init__(self, cond_size, latent_size, *, width=8):
        super().__init__(cond_size, latent_size)
        self.inner = nn.Linear(cond_size, width)
        self.outer = nn.Linear(width, 2 * latent_size)

    evaluations_per_sample = 1

    def law(self, cond):
        self._check_cond(cond)
        output = self.outer(self.inner(cond).tanh())
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        mean, raw = output.chunk(2, dim=-1)
        return DiagonalGaussian(mean, 0.2 + softplus(raw))

    def point(self, target, generator):
        return target.rsample_from(draw((1, *target.mean.shape), generator, target.mean))[0]

    def loss(self, cond, target, generator=None):
        target = self._checked_target(target)
        return self.law(cond).log_prob(self.point(target, generator)).neg()

    def noise(self, cond, num_samples, generator):
        return draw((num_samples, *cond.shape[:-1], self.latent_size), generator, cond)

    def sample(self, cond, num_samples, generator=None):
        check_num_samples(num_samples)
        noise = self.noise(cond, num_samples, generator)
        return self.law(cond).rsample_from(noise.to(self.law(cond).mean)).to(cond.dtype)

    def log_prob(self, cond, latents):
        latents = self._checked_latents(latents)
        return self.law(cond).log_prob(latents)


class WithoutSamplesAxis(Right):
    def sample(self, cond, num_samples, generator=None):
        return super().sample(cond, 1, generator)[0]


class ScalarLoss(Right):
    def loss(self, cond, target, generator=None):
        return super().loss(cond, target, generator).mean()


class SwappedSizes(Right):
    def __init__(self, cond_size, latent_size):
        super().__init__(cond_size, latent_size)
        self.cond_size, self.latent_size = latent_size, cond_size

    def _check_cond(self, cond):
        pass


def not_a_head(cond_size, latent_size):
    return nn.Linear(cond_size, latent_size)


class FlatLoss(Right):
    def loss(self, cond, target, generator=None):
        return super().loss(cond, target, generator).view(-1)


class FirstAxisOnly(Right):
    def noise(self, cond, num_samples, generator):
        return draw((num_samples, cond.shape[0], self.latent_size), generator, cond)


class Squeezing(Right):
    def sample(self, cond, num_samples, generator=None):
        return super().sample(cond, num_samples, generator).squeeze(1)


class NormalisedByTheLargest(Right):
    def loss(self, cond, target, generator=None):
        loss = super().loss(cond, target, generator)
        return loss + 0 * loss.max()


class FlattensAndGuesses(Right):
    def law(self, cond):
        law = super().law(cond)
        split = law.mean.reshape(*cond.shape[:-1], -1, 1)
        return DiagonalGaussian(split[..., 0], law.std)


class RepeatsRows(Right):
    def sample(self, cond, num_samples, generator=None):
        return torch.stack([super(RepeatsRows, self).sample(c[None], num_samples, generator)[:, 0]
                            for c in cond], dim=1)  # fmt: skip


class AveragesTheLoss(Right):
    def sample(self, cond, num_samples, generator=None):
        got = super().sample(cond, num_samples, generator)
        return got if got.numel() else got.sum(dim=1)


class Viewing(Right):
    def law(self, cond):
        return super().law(cond.view(-1, cond.shape[-1]).view(cond.shape))


class OwnStrides(Right):
    def law(self, cond):
        strides = torch.empty(cond.shape, device="meta").stride()
        return super().law(torch.as_strided(cond, cond.shape, strides))


class ViewingTheTarget(Right):
    def point(self, target, generator):
        return super().point(target, generator) + 0 * target.mean.view(-1)[0]


class ClampsTheCondition(Right):
    def law(self, cond):
        return super().law(cond.clamp_(-0.5, 0.5) if not cond.requires_grad else cond)


class CentresTheTarget(Right):
    def loss(self, cond, target, generator=None):
        target.mean.sub_(0.1)
        return super().loss(cond, target, generator)


class ZeroesAStd(Right):
    def loss(self, cond, target, generator=None):
        target.std[0] = 0
        return super().loss(cond, target, generator)


class UnusedParameter(Right):
    def __init__(self, cond_size, latent_size):
        super().__init__(cond_size, latent_size)
        self.spare = nn.Parameter(torch.ones(3))


class DetachedGate(Right):
    def __init__(self, cond_size, latent_size):
        super().__init__(cond_size, latent_size)
        self.gate = nn.Parameter(torch.ones(1))

    def law(self, cond):
        law = super().law(cond)
        return DiagonalGaussian(law.mean * self.gate.detach(), law.std)


class RoundedGate(DetachedGate):
    def law(self, cond):
        law = Right.law(self, cond)
        return DiagonalGaussian(law.mean * self.gate.round(), law.std)


class RootOfZero(DetachedGate):
    def law(self, cond):
        law = Right.law(self, cond)
        return DiagonalGaussian(law.mean + (0 * self.gate).sqrt(), law.std)


class DetachedCondition(Right):
    def law(self, cond):
        return super().law(cond.detach())


class RoundedCondition(Right):
    def law(self, cond):
        return super().law((8 * cond).round() / 8)


class NormOfZero(Right):
    def law(self, cond):
        law = super().law(cond)
        zero = (cond - cond).square().sum(-1, keepdim=True).sqrt()
        return DiagonalGaussian(law.mean + zero, law.std)


class LogOfTheStd(Right):
    def loss(self, cond, target, generator=None):
        return super().loss(cond, target, generator) + target.std.log().sum(-1)


class Exponential(Right):
    def loss(self, cond, target, generator=None):
        return super().loss(cond, target, generator) + target.mean.abs().exp().sum(-1)


class DividesByTheStd(Right):
    def loss(self, cond, target, generator=None):
        law = self.law(cond)
        error = ((law.mean - target.mean) / target.std).square().sum(-1)
        return super().loss(cond, target, generator) + 0.01 * error


class GlobalNoiseInTheLoss(Right):
    def point(self, target, generator):
        return super().point(target, None)


class GlobalNoiseInSamples(Right):
    def noise(self, cond, num_samples, generator):
        return super().noise(cond, num_samples, None)


class Counting(Right):
    calls = 0

    def noise(self, cond, num_samples, generator):
        self.calls += 1
        return super().noise(cond, num_samples, generator) + 0.1 * self.calls


class Dropping(Right):
    def law(self, cond):
        return super().law(nn.functional.dropout(cond, 0.1))


class SeedingGlobally(Right):
    def sample(self, cond, num_samples, generator=None):
        torch.manual_seed(0)
        return super().sample(cond, num_samples, generator)


def fixed(like):
    return torch.Generator(like.device).manual_seed(0)


class FixedPoint(Right):
    def point(self, target, generator):
        return super().point(target, fixed(target.mean))


class MeanOnly(Right):
    def point(self, target, generator):
        return target.mean


class MultipliedByZero(Right):
    def point(self, target, generator):
        point = super().point(target, generator)
        return target.mean + 0 * (point - target.mean)


class FixedNoise(Right):
    def noise(self, cond, num_samples, generator):
        return super().noise(cond, num_samples, fixed(cond))


class WithoutNoise(Right):
    def noise(self, cond, num_samples, generator):
        return torch.zeros_like(super().noise(cond, num_samples, generator))


class KeptNoise(Right):
    kept = None

    def noise(self, cond, num_samples, generator):
        noise = super().noise(cond, num_samples, generator)
        if self.kept is None or self.kept.shape != noise.shape or self.kept.dtype != noise.dtype:
            self.kept = noise
        return self.kept


class OneNoiseForAllSamples(Right):
    def noise(self, cond, num_samples, generator):
        noise = super().noise(cond, 1, generator)
        return noise.expand(num_samples, *noise.shape[1:])


class OneNoiseForAllPositions(Right):
    def noise(self, cond, num_samples, generator):
        noise = draw((num_samples, self.latent_size), generator, cond)
        return noise.view(num_samples, *(1,) * (cond.ndim - 1), -1).expand(
            num_samples, *cond.shape[:-1], -1
        )


class Mirrored(Right):
    def noise(self, cond, num_samples, generator):
        half = super().noise(cond, (num_samples + 1) // 2, generator)
        return torch.cat([half, -half])[:num_samples]


class PartlyShared(Right):
    def noise(self, cond, num_samples, generator):
        common = super().noise(cond, 1, generator)
        return 0.9 * super().noise(cond, num_samples, generator) + math.sqrt(0.19) * common


class IgnoresInSamples(Right):
    def sample(self, cond, num_samples, generator=None):
        return super().sample(torch.zeros_like(cond), num_samples, generator)


class IgnoresInTheLoss(Right):
    def loss(self, cond, target, generator=None):
        return super().loss(0 * cond, target, generator)


class ReadsTheSize(Right):
    def law(self, cond):
        return super().law(torch.ones_like(cond) * cond.shape[-1])


class BatchNormalised(Right):
    def law(self, cond):
        return super().law(cond - cond.mean(dim=0, keepdim=True))


class SoftmaxOverTheBatch(Right):
    def law(self, cond):
        return super().law(cond.softmax(dim=0))


class Rolled(Right):
    def law(self, cond):
        return super().law(cond.roll(1, dims=0))


class CentredLoss(Right):
    def loss(self, cond, target, generator=None):
        loss = super().loss(cond, target, generator)
        return loss - 0.5 * loss.mean()


class DefaultNoise(Right):
    def sample(self, cond, num_samples, generator=None):
        noise = torch.randn(num_samples, *cond.shape[:-1], self.latent_size, generator=generator)
        law = self.law(cond)
        return law.mean + law.std * noise


class SingleLoss(Right):
    def loss(self, cond, target, generator=None):
        return super().loss(cond, target, generator).float()


class DoubleSamples(Right):
    def sample(self, cond, num_samples, generator=None):
        return super().sample(cond, num_samples, generator).double()


class HalfLoss(Right):
    def loss(self, cond, target, generator=None):
        loss = super().loss(cond, target, generator)
        return loss.bfloat16() if torch.is_autocast_enabled("cpu") else loss


class HardSum(Right):
    def loss(self, cond, target, generator=None):
        large = 3000 + 10 * self.outer(self.inner(cond).tanh()).mean(-1)
        return super().loss(cond, target, generator) + (large - 3000).to(target.mean.dtype)


class Inverting(Right):
    def law(self, cond):
        law = super().law(cond)
        square = cond[..., :1, None] + torch.eye(2, dtype=cond.dtype)
        return DiagonalGaussian(law.mean + 0 * torch.linalg.det(square)[..., None], law.std)


class SingleSamples(Right):
    def sample(self, cond, num_samples, generator=None):
        got = super().sample(cond, num_samples, generator)
        return got.float() if got.dtype == torch.bfloat16 else got


class TinyLogarithm(Right):
    def loss(self, cond, target, generator=None):
        small = (1 + 1e-4 * cond.sigmoid()) - 1
        return super().loss(cond, target, generator) + small.log().sum(-1)


class TinyRoot(Right):
    def loss(self, cond, target, generator=None):
        small = (1 + 1e-4 * self.inner(cond).sigmoid()) - 1
        return super().loss(cond, target, generator) + small.sqrt().sum(-1)


class LayersInAList(Right):
    def __init__(self, cond_size, latent_size):
        super().__init__(cond_size, latent_size)
        self.layers = [nn.Linear(cond_size, cond_size)]

    def law(self, cond):
        return super().law(self.layers[0].to(cond.dtype)(cond))


class LostBuffer(Right):
    def __init__(self, cond_size, latent_size):
        super().__init__(cond_size, latent_size)
        self.register_buffer("shift", torch.randn(latent_size), persistent=False)

    def law(self, cond):
        law = super().law(cond)
        return DiagonalGaussian(law.mean + self.shift, law.std)


class RunningNumber(Right):
    level = 0.0

    def loss(self, cond, target, generator=None):
        loss = super().loss(cond, target, generator)
        self.level += 0.1 * float(target.mean.mean())
        return loss

    def sample(self, cond, num_samples, generator=None):
        return super().sample(cond, num_samples, generator) + self.level


class BranchInTheLoss(Right):
    def loss(self, cond, target, generator=None):
        loss = super().loss(cond, target, generator)
        return loss / 2 if loss.mean() > 1e6 else loss


class LoopInTheLoss(Right):
    def loss(self, cond, target, generator=None):
        loss = super().loss(cond, target, generator)
        for place in (loss > 1e6).nonzero().tolist():
            loss[place] = 1e6
        return loss


class CountingLoss(Right):
    calls = 0

    def loss(self, cond, target, generator=None):
        self.calls += 1
        return super().loss(cond, target, generator) + self.calls


class Rejecting(Right):
    def noise(self, cond, num_samples, generator):
        noise = super().noise(cond, num_samples, generator)
        while (noise.abs() > 8).any():
            noise = super().noise(cond, num_samples, generator)
        return noise


class LoggingSamples(Right):
    def sample(self, cond, num_samples, generator=None):
        got = super().sample(cond, num_samples, generator)
        assert got.isfinite().all().item(), f"not finite: {got}"
        return got


class AnySize(Right):
    def __init__(self, cond_size, latent_size):
        super().__init__(max(cond_size, 1), max(latent_size, 1))


class UnnamedSizes(Right):
    def __init__(self, cond_size, latent_size):
        if min(cond_size, latent_size) < 1:
            raise ValueError("bad sizes")
        super().__init__(cond_size, latent_size)


class DividesBySizes(Right):
    def __init__(self, cond_size, latent_size):
        self_scale = 1 / cond_size / latent_size
        assert self_scale > 0
        super().__init__(cond_size, latent_size)


class Unchecked(Right):
    def _check_cond(self, cond):
        pass


class Padding(Right):
    def law(self, cond):
        missing = self.cond_size - cond.shape[-1]
        return super().law(nn.functional.pad(cond, (0, missing)))


class Unnamed(Right):
    def _check_cond(self, cond):
        if cond.shape[-1] != self.cond_size:
            raise ValueError("wrong shape")


class PlainBroadcast(Right):
    def loss(self, cond, target, generator=None):
        law, point = self.law(cond), self.point(target, generator)
        z = (point - law.mean) / law.std
        return (0.5 * z.square() + law.std.log()).sum(-1)


class Expanding(Right):
    def loss(self, cond, target, generator=None):
        shape = torch.broadcast_shapes(cond.shape[:-1], target.mean.shape[:-1])
        wide = [x.expand(*shape, -1) for x in (target.mean, target.std)]
        cond = cond.expand(*shape, -1)
        return super().loss(cond, DiagonalGaussian(*wide), generator)


class FailsLate(Right):
    def loss(self, cond, target, generator=None):
        if cond.shape[:-1] != target.mean.shape[:-1]:
            raise RuntimeError("The size of tensor a must match the size of tensor b")
        return super().loss(cond, target, generator)


class NegativeIsPositive(Right):
    def sample(self, cond, num_samples, generator=None):
        return super().sample(cond, abs(num_samples), generator)


class NegativeIsNone(Right):
    def sample(self, cond, num_samples, generator=None):
        return super().sample(cond, max(num_samples, 0), generator)


class NegativeFails(Right):
    def sample(self, cond, num_samples, generator=None):
        law = self.law(cond)
        return law.rsample_from(self.noise(cond, num_samples, generator).to(law.mean)).to(cond)


class WrongSamplingArgument(Right):
    sampling_arguments = frozenset({"temperature"})


class SharedSamplingArgument(Right):
    sampling_arguments = frozenset({"cond_size"})


class OneRightSamplingArgument(Right):
    sampling_arguments = frozenset({"width", "steps"})


class MeanDensity(Right):
    def log_prob(self, cond, latents):
        return super().log_prob(cond, latents).mean()


class DensityOfDimensions(Right):
    def log_prob(self, cond, latents):
        law = self.law(cond)
        return torch.distributions.Normal(law.mean, law.std).log_prob(latents)


class DensityOfTheBatch(Right):
    def log_prob(self, cond, latents):
        value = super().log_prob(cond, latents)
        return value - 0.1 * value.sum() if value.numel() else value


class UnnamedLatents(Right):
    def log_prob(self, cond, latents):
        law = self.law(cond)
        z = (latents - law.mean) / law.std
        return -(0.5 * z.square() + law.std.log() + 0.5 * math.log(2 * math.pi)).sum(-1)


class WithoutConstant(Right):
    def log_prob(self, cond, latents):
        return super().log_prob(cond, latents) + 0.5 * math.log(2 * math.pi)


class WithoutLogStd(Right):
    def log_prob(self, cond, latents):
        return super().log_prob(cond, latents) + self.law(cond).std.log().sum(-1)


class MeanOverDimensions(Right):
    def log_prob(self, cond, latents):
        return super().log_prob(cond, latents) / self.latent_size


class SamplesWithVariance(Right):
    def sample(self, cond, num_samples, generator=None):
        check_num_samples(num_samples)
        law = self.law(cond)
        noise = self.noise(cond, num_samples, generator)
        return law.mean + law.std.square() * noise


class ShiftedSamples(Right):
    def noise(self, cond, num_samples, generator):
        return super().noise(cond, num_samples, generator) + 0.2


class Cold(Right):
    def noise(self, cond, num_samples, generator):
        return 0.7 * super().noise(cond, num_samples, generator)


class Uniform(Right):
    def noise(self, cond, num_samples, generator):
        shape = (num_samples, *cond.shape[:-1], self.latent_size)
        uniform = torch.rand(shape, generator=generator, dtype=cond.dtype)
        return math.sqrt(12) * (uniform - 0.5)


class VarianceForStd(Right):
    def point(self, target, generator):
        return super().point(DiagonalGaussian(target.mean, target.std.square()), generator)


class DoubledStd(Right):
    def point(self, target, generator):
        return super().point(DiagonalGaussian(target.mean, 2 * target.std), generator)


class Maximising(Right):
    def loss(self, cond, target, generator=None):
        return 0.001 * super().loss(cond, target, generator).neg().clamp_min(-100)


class Reflected(Right):
    def loss(self, cond, target, generator=None):
        return super().loss(cond, DiagonalGaussian(-target.mean, target.std), generator)


class ShuffledConditions(Right):
    def loss(self, cond, target, generator=None):
        order = torch.randperm(len(cond), generator=generator)
        return super().loss(cond[order], target, generator)


class Tiny(Right):
    def law(self, cond):
        law = super().law(cond)
        return DiagonalGaussian(0.01 * law.mean, 0.2 + 0 * law.std)


MUTANTS = {
    "can_be_built_and_used": {
        WithoutSamplesAxis: "what sample returns has shape (4, 3)",
        ScalarLoss: "the loss has shape ()",
        SwappedSizes: "cond_size = 3, latent_size = 5",
        not_a_head: "a Linear",
    },
    "shapes_fit_any_batch": {
        FlatLoss: "the loss has shape (1,)",
        FirstAxisOnly: "no error",
        Squeezing: "what sample returns has shape",
        RepeatsRows: "cond must have cond_size = 5 features; got 1",
    },
    "empty_batches_are_empty": {
        NormalisedByTheLargest: "expected  no error",
        FlattensAndGuesses: "cannot reshape tensor of 0 elements",
        RepeatsRows: "expects a non-empty TensorList",
        AveragesTheLoss: "what sample returns has shape",
    },
    "layout_in_memory_does_not_matter": {
        Viewing: "view size is not compatible",
        OwnStrides: "numbers differ",
        ViewingTheTarget: "view size is not compatible",
    },
    "arguments_are_left_alone": {
        ClampsTheCondition: "cond was changed in place",
        CentresTheTarget: "target.mean was changed in place",
        ZeroesAStd: "target.std was changed in place",
    },
    "every_parameter_learns": {
        UnusedParameter: "spare has no gradient in any of 10 steps",
        DetachedGate: "gate has no gradient",
        RoundedGate: "the gradient of gate is zero in all of 10 steps",
        RootOfZero: "the gradient of gate: 1 of 1 numbers are NaN",
    },
    "the_condition_learns": {
        DetachedCondition: "no gradient",
        RoundedCondition: "the condition's gradient is zero at all 16 positions",
        NormOfZero: "the condition's gradient: 80 of 80 numbers are NaN",
    },
    "any_target_has_a_finite_loss": {
        LogOfTheStd: "and std 0:",
        Exponential: "at targets of scale 10000",
        DividesByTheStd: "and std 0:",
    },
    "same_seed_same_numbers": {
        GlobalNoiseInTheLoss: "the loss: 4 of 4 numbers differ",
        GlobalNoiseInSamples: "samples: 36 of 36 numbers differ",
        Counting: "samples: 36 of 36 numbers differ",
        Dropping: "numbers differ",
    },
    "global_randomness_is_left_alone": {
        GlobalNoiseInTheLoss: "global generator was moved",
        GlobalNoiseInSamples: "global generator was moved",
        SeedingGlobally: "global generator was moved",
        Dropping: "global generator was moved",
    },
    "loss_depends_on_seed": {
        FixedPoint: "the same as from another seed",
        MeanOnly: "the same as from another seed",
        MultipliedByZero: "the same as from another seed",
    },
    "samples_depend_on_seed": {
        FixedNoise: "what sample returns is the same as from another seed",
        WithoutNoise: "what sample returns is the same",
        KeptNoise: "what sample returns is the same",
    },
    "samples_are_independent": {
        OneNoiseForAllSamples: "two samples of one position are equal",
        OneNoiseForAllPositions: "samples of neighbouring positions are equal",
        Mirrored: "have a correlation of 1.000",
        PartlyShared: "two samples of one position have a correlation of 0.",
        WithoutNoise: "two samples of one position are equal",
    },
    "the_condition_is_read": {
        IgnoresInSamples: "what sample returns is the same as with another condition",
        IgnoresInTheLoss: "the loss is the same as with another condition",
        ReadsTheSize: "the loss is the same as with another condition",
    },
    "positions_do_not_mix": {
        BatchNormalised: "before the condition of position 2 was changed",
        SoftmaxOverTheBatch: "before the condition of position 2 was changed",
        Rolled: "before the condition of position 2 was changed",
        CentredLoss: "the loss of the other three positions: 3 of 3 numbers differ",
    },
    "dtype_is_kept": {
        DefaultNoise: "what sample returns is torch.float64",
        SingleLoss: "the loss is torch.float32",
        DoubleSamples: "what sample returns is torch.float64",
    },
    "autocast_is_close": {
        HalfLoss: "torch.bfloat16",
        HardSum: "the loss:",
        Inverting: "BFloat16",
    },
    "bfloat16_is_finite": {
        SingleSamples: "samples are torch.float32",
        TinyLogarithm: "the loss: 4 of 4 numbers are NaN or infinite",
        TinyRoot: "the gradient of inner.weight",
    },
    "saved_and_loaded_it_is_the_same": {
        LayersInAList: "the loss: 4 of 4 numbers differ",
        LostBuffer: "the loss: 4 of 4 numbers differ",
        RunningNumber: "samples: 24 of 24 numbers differ",
    },
    "loss_compiles": {
        BranchInTheLoss: "Python that looks into a tensor",
        LoopInTheLoss: "data-dependent expression",
        CountingLoss: "the compiled result: 4 of 4 numbers differ",
    },
    "sampling_compiles": {
        Rejecting: "Unsupported",
        LoggingSamples: "data-dependent expression",
        Counting: "the compiled result",
    },
    "sizes_below_one_are_refused": {
        AnySize: "a result",
        UnnamedSizes: "ValueError: bad sizes",
        DividesBySizes: "ZeroDivisionError",
    },
    "wrong_sizes_are_named": {
        Unchecked: "RuntimeError: mat1 and mat2",
        Padding: "a result of shape (4,)",
        Unnamed: "ValueError: wrong shape",
    },
    "batches_do_not_broadcast": {
        PlainBroadcast: "a result of shape (4,)",
        Expanding: "a result of shape (4,)",
        FailsLate: "RuntimeError: The size of tensor a",
    },
    "negative_numbers_of_samples_are_refused": {
        NegativeIsPositive: "a result of shape (1, 4, 3)",
        NegativeIsNone: "a result of shape (0, 4, 3)",
        NegativeFails: "RuntimeError: Trying to create tensor with negative dimension",
    },
    "sampling_arguments_exist": {
        WrongSamplingArgument: "sampling_arguments = ['temperature']",
        SharedSamplingArgument: "sampling_arguments = ['cond_size']",
        OneRightSamplingArgument: "sampling_arguments = ['steps', 'width']",
    },
    "density_of_each_position": {
        MeanDensity: "log_prob has shape ()",
        DensityOfDimensions: "log_prob has shape (3,)",
        DensityOfTheBatch: "log_prob of the other positions",
        UnnamedLatents: "whose message names latents",
    },
    "density_integrates_to_one": {
        WithoutConstant: "the integral over 1 dimensions is 2.5",
        WithoutLogStd: "the integral over 1 dimensions is",
        MeanOverDimensions: "the integral over 2 dimensions is",
    },
    "samples_follow_the_density": {
        SamplesWithVariance: "the 20 quantiles of the density hold these shares",
        ShiftedSamples: "the 20 quantiles of the density hold these shares",
        Cold: "shares near 1; these have a chance of",
        Uniform: "the 20 quantiles",
    },
    "loss_averages_over_the_target": {
        MeanOnly: "standard errors",
        VarianceForStd: "standard errors",
        DoubledStd: "standard errors",
    },
}

# These train: in the profile standard.
SLOW_MUTANTS = {
    "learns_a_conditional_gaussian": {
        IgnoresInSamples: "an energy distance of",
        Reflected: "an energy distance of",
        ShuffledConditions: "without the condition there remain about 1.2",
    },
    "learns_two_moons": {
        Right: "the best single Gaussian has 0.025",
        ShuffledConditions: "an energy distance of",
        Tiny: "an energy distance of",
    },
}


class LinearL1(Head):
    """Draws nothing in its loss: the median, by absolute errors, whose signs may cancel."""

    def __init__(self, cond_size, latent_size):
        super().__init__(cond_size, latent_size)
        self.center = nn.Linear(cond_size, latent_size)

    evaluations_per_sample = 1

    def median(self, cond):
        self._check_cond(cond)
        return self.center(cond)

    @typed
    def loss(self, cond, target, generator=None):
        target = self._checked_target(target)
        return absolute_error(self.median(cond), target)

    def sample(self, cond, num_samples, generator=None):
        check_num_samples(num_samples)
        median = self.median(cond)
        noise = draw((num_samples, *median.shape), generator, median)
        return (median + noise).to(cond.dtype)


def absolute_error(median, target):
    """E |v - median|, summed over dimensions: of a folded normal."""
    if median.shape != target.mean.shape:
        raise ValueError("target must have the condition's batch.")
    gap = (target.mean - median).to(torch.promote_types(median.dtype, torch.float32))
    std = target.std.to(gap.dtype)
    wide = std > 1e-12
    scale = torch.where(wide, std, 1.0)
    z = torch.where(wide, gap / scale, 0.0).clamp(-1e3, 1e3)
    soft = math.sqrt(2 / math.pi) * scale * (-z.square() / 2).exp()
    soft = soft + gap * torch.erf(z / math.sqrt(2))
    return torch.where(wide, soft, gap.abs()).sum(-1)


class OnASphere(Right):
    """Samples have length one; it has no density with respect to volume."""

    log_prob = property()  # hasattr is False

    def loss(self, cond, target, generator=None):
        target = self._checked_target(target)
        law = self.law(cond)
        point = self.point(target, generator)
        point = point / point.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        return law.log_prob(point.to(law.mean)).neg()

    def sample(self, cond, num_samples, generator=None):
        got = super().sample(cond, num_samples, generator)
        return got / got.norm(dim=-1, keepdim=True).clamp_min(1e-6)


class NormalisesItsCondition(Right):
    """A shift of the condition changes nothing."""

    def law(self, cond):
        self._check_cond(cond)
        return super().law(nn.functional.layer_norm(cond, cond.shape[-1:]))


class StartsAtZero(Right):
    """Its output layer starts at zero, as many do: no gradient passes at first."""

    def __init__(self, cond_size, latent_size):
        super().__init__(cond_size, latent_size)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)


class FrozenPart(Right):
    """With a parameter that is not to be trained."""

    def __init__(self, cond_size, latent_size):
        super().__init__(cond_size, latent_size)
        self.unit = nn.Parameter(torch.ones(1), requires_grad=False)


STRANGE = {
    LinearL1: ("loss_depends_on_seed",),
    OnASphere: (),
    NormalisesItsCondition: (),
    StartsAtZero: (),
    FrozenPart: (),
}
