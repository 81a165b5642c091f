"""A kernel under test."""

from collections.abc import Sequence

import torch
from torch import Tensor

from calmkit.scoring import Kernel
from calmkit.testing.trial import Trial

__all__ = ["KernelTrial", "without_bandwidths"]


class KernelTrial(Trial):
    """Builds a kernel from the keyword `bandwidths`, if it takes it, or from nothing."""

    def build(self, bandwidths: float | Sequence[float] | None = None) -> Kernel:
        """A new kernel; of its own bandwidths if None."""
        if bandwidths is None:
            return self.built(Kernel)
        return self.built(Kernel, bandwidths=bandwidths)

    def value(self, kernel: Kernel, distance: Tensor) -> Tensor:
        """Values k of distances in multiples of the kernel's unit."""
        return self.call(kernel.value, distance * kernel.unit)

    def dissimilarity(self, kernel: Kernel, distance: Tensor) -> Tensor:
        """k(0) - k of distances in multiples of the kernel's unit."""
        return self.call(kernel.dissimilarity, distance * kernel.unit)

    def distances(self, *shape: int) -> Tensor:
        """Distances from 0 to 3, none of them 0."""
        return 3 * (1 - torch.rand(shape, generator=self.generator(1)))


def without_bandwidths(trial: KernelTrial) -> str | None:
    """Why contracts of the bandwidths do not apply."""
    return None if trial.takes("bandwidths") else "the factory takes no bandwidths"
