"""A backbone under test."""

import torch
from torch import Tensor

from calmkit.attention import AttentionMask
from calmkit.backbones import Backbone
from calmkit.testing.trial import Trial

__all__ = ["HIDDEN", "BackboneTrial", "without_cache"]

HIDDEN = 8


class BackboneTrial(Trial):
    """Builds a backbone from `(hidden_size)` and calls it."""

    def build(self, number: int = 0) -> Backbone:
        """A new backbone in evaluation mode, where it has no dropout; two of one number agree."""
        return self.built(Backbone, HIDDEN, number=number).eval()

    def vectors(self, batch: int, positions: int, number: int = 0) -> Tensor:
        """Input vectors."""
        return torch.randn(batch, positions, HIDDEN, generator=self.generator(number))

    def states(
        self, backbone: Backbone, vectors: Tensor, mask: AttentionMask | None = None
    ) -> Tensor:
        """Hidden states, without a cache."""
        if mask is None:
            return self.call(backbone, vectors)
        return self.call(backbone, vectors, mask)


def without_cache(trial: BackboneTrial) -> str | None:
    """Why contracts of the cache do not apply: the backbone says that it has none."""
    try:
        trial.build().new_cache(1, 1)
    except NotImplementedError as error:
        return f"new_cache raises NotImplementedError: {error}"
    return None
