"""A right head, from which those come that are wrong in one thing each."""

import torch
from torch import nn
from torch.nn.functional import softplus

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import Head, check_num_samples


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
