"""Heads that take what they should refuse, or refuse it without a name."""

import torch
from right_head import Right
from torch import nn

from calmkit.distributions import DiagonalGaussian


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


MUTANTS = {
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
}
