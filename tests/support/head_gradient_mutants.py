"""Heads whose gradients are missing, zero, or not finite."""

import torch
from right_head import Right
from torch import nn

from calmkit.distributions import DiagonalGaussian


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


MUTANTS = {
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
}
