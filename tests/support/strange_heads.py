"""Heads that are strange but right, and what they are exempt from."""

import math

import torch
from right_head import Right, draw
from torch import nn

from calmkit.heads import Head, check_num_samples
from calmkit.typing import typed


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


ACCEPTED = {
    Right: ("learns_two_moons",),
    LinearL1: ("loss_depends_on_seed",),
    OnASphere: (),
    NormalisesItsCondition: (),
    StartsAtZero: (),
    FrozenPart: (),
}
