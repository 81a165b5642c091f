"""A backbone under test."""

import torch
from torch import Tensor

from calmkit.attention import AttentionMask
from calmkit.backbones import Backbone
from calmkit.testing.contract import expect
from calmkit.testing.trial import Trial

__all__ = ["HIDDEN", "BackboneTrial", "without_cache"]

HIDDEN = 8


class BackboneTrial(Trial):
    """Builds a backbone from `(hidden_size)` and calls it."""

    def build(self, number: int = 0) -> Backbone:
        """A new backbone; two of one number are equal."""
        torch.manual_seed(1_000_003 * self.seed + number)
        backbone = self.call(self.factory, HIDDEN)
        expect(
            isinstance(backbone, Backbone),
            seen=f"a {type(backbone).__name__}",
            expected="a subclass of calmkit.backbones.Backbone",
            cause="the factory returns something else, or the class does not derive from it",
        )
        return backbone

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
