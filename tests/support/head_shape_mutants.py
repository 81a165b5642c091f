"""Heads with wrong shapes, and heads that write into what they are given."""

import torch
from right_head import Right, draw
from torch import nn

from calmkit.distributions import DiagonalGaussian


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
}
