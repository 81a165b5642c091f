"""Heads whose randomness is not the generator's, and heads that mix conditions or positions."""

import math

import torch
from right_head import Right, draw
from torch import nn


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


MUTANTS = {
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
}
