"""Heads that lose a dtype, a saved tensor, or the graph of torch.compile."""

import torch
from head_randomness_mutants import Counting
from right_head import Right
from torch import nn

from calmkit.distributions import DiagonalGaussian


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


MUTANTS = {
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
        SingleSamples: "what sample returns is torch.float32",
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
}
