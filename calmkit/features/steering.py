r"""Steering: a head whose states or samples are shifted along a direction.

    x ~ head(h + w d_h) + w d_x,    w = `strength`,

with a direction d_h of the states, or d_x of the latents, such as a feature of a
`SparseAutoencoder`. Training and its loss are those of the head alone; w = 0 samples as the head
does. A shifted state or latent need not be one that occurs, so text of a strong shift is worse
text: measure what it costs.
"""

import copy
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.bounds import check_in
from calmkit.distributions import Target
from calmkit.heads import EnergyHead, Head, WrappingHead
from calmkit.models import CALM
from calmkit.recording import built_by
from calmkit.typing import typed

__all__ = ["SteeredHead", "steered"]


class SteeredHead(WrappingHead):
    """Wraps a head, whose samples are steered along a direction; both directions start as zero."""

    sampling_arguments = frozenset({"strength"})

    cond_direction: Tensor
    latent_direction: Tensor

    def __init__(
        self,
        cond_size: int,
        latent_size: int,
        *,
        head: Callable[[int, int], Head] | None = None,
        strength: float = 1.0,
    ) -> None:
        """Build the head.

        Args:
            cond_size: Features of the condition.
            latent_size: Dimensions of a sample.
            head: Builds the head from both sizes; an `EnergyHead` if None.
            strength: Factor w on the directions; negative to steer away.

        Raises:
            ValueError: If the strength is not finite, or `head` does not build a head of these
                sizes.
        """
        super().__init__(cond_size, latent_size)
        self.strength = strength
        make = EnergyHead if head is None else head
        self.head = built_by("head", make, Head, cond_size=cond_size, latent_size=latent_size)
        self.register_buffer("cond_direction", torch.zeros(cond_size))
        self.register_buffer("latent_direction", torch.zeros(latent_size))
        self._check_sampling()

    def _check_sampling(self) -> None:
        check_in("(-inf, inf)", strength=self.strength)

    @property
    def evaluations_per_sample(self) -> int | None:
        """The evaluations of the wrapped head."""
        return self.head.evaluations_per_sample

    @typed
    def loss(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: Target,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Loss of the wrapped head, without the shift; see `Head.loss`."""
        return self.head.loss(cond, target, generator)

    @typed
    def sample(
        self,
        cond: Float[Tensor, "*batch cond"],
        num_samples: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples *batch latent"]:
        """Draw steered samples; see `Head.sample`."""
        self._check_cond(cond)
        cond = cond + (self.strength * self.cond_direction).to(cond.dtype)
        samples = self.head.sample(cond, num_samples, generator)
        return samples + (self.strength * self.latent_direction).to(samples.dtype)


def steered(
    model: CALM,
    *,
    cond_direction: Tensor | None = None,
    latent_direction: Tensor | None = None,
    strength: float = 1.0,
) -> CALM:
    """A model that shares all weights with this one and is steered in generation.

    Args:
        model: The model; it is not changed.
        cond_direction: Direction of the states; none if None.
        latent_direction: Direction of the latents; none if None.
        strength: Factor on the directions.

    Raises:
        ValueError: If a direction has the wrong size.
    """
    head = SteeredHead(
        model.head.cond_size, model.head.latent_size, head=lambda *_: model.head, strength=strength
    ).to(model.backbone.device)
    for name, direction in (
        ("cond_direction", cond_direction), ("latent_direction", latent_direction)
    ):  # fmt: skip
        own = getattr(head, name)
        if direction is not None:
            if direction.shape != own.shape:
                raise ValueError(
                    f"{name} must have shape {tuple(own.shape)}; got {tuple(direction.shape)}."
                )
            own.copy_(direction)
    other = copy.copy(model)
    # Both share the dictionary of modules until it is copied.
    vars(other)["_modules"] = dict(model._modules)
    other.head = head.train(model.head.training)
    return other
