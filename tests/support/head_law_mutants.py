"""Heads whose densities, samples and losses are of different laws, and heads that cannot learn."""

import math

import torch
from head_randomness_mutants import IgnoresInSamples, MeanOnly
from right_head import Right

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import check_num_samples


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
