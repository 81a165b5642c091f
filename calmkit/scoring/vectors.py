"""What the scores of vectors accept besides plain tensors: NumPy, weights, gaps, several axes.

A weight w_i stretches dimension i of all vectors by sqrt(w_i), so that ||x||^2 = sum_i w_i x_i^2.
A missing value is left out: the score is that of the observed dimensions alone, and any content
of the others, even NaN, has no effect.
"""

from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from calmkit.finite import check_finite

from .checks import check_not_negative

__all__ = ["Array", "Vectors", "checked_weights", "like", "to_tensor"]

Array = TypeVar("Array", Tensor, np.ndarray)
"""A tensor or a NumPy array; a function returns the kind that it receives."""


@dataclass(frozen=True, eq=False)
class Vectors:
    """Samples and outcomes as vectors along the last axis, zero where a value is missing.

    Attributes:
        samples: Tensor (samples, *batch, latent).
        observation: Tensor (*batch, latent).
        weights: Tensor (latent,), or None for weights of 1.
        mask: Tensor (*batch, latent) of the observed dimensions, or None for all.
    """

    samples: Tensor
    observation: Tensor
    weights: Tensor | None
    mask: Tensor | None

    @classmethod
    def of(
        cls,
        samples: Tensor | np.ndarray,
        observation: Tensor | np.ndarray,
        *,
        weights: Tensor | np.ndarray | None = None,
        mask: Tensor | np.ndarray | None = None,
        vector_axes: int = 1,
    ) -> "Vectors":
        """Check the arguments of a score and flatten its vectors.

        `samples` is (samples, *batch, *vector), with `vector_axes` axes in *vector; `observation`
        and `mask` lack the first axis, and `weights` has the axes of the vector only.

        Raises:
            ValueError: If there are not that many axes, weights do not fit or are negative, or a
                value that is not masked is not finite.
        """
        x, y = to_tensor(samples), to_tensor(observation)
        if not 1 <= vector_axes <= y.dim():
            raise ValueError(
                f"vector_axes must be from 1 to {y.dim()}, the axes of observation; got "
                f"{vector_axes}."
            )
        shape = y.shape[-vector_axes:]
        x, y = x.flatten(-vector_axes), y.flatten(-vector_axes)
        observed = None if mask is None else to_tensor(mask).flatten(-vector_axes)
        if observed is not None:
            x, y = torch.where(observed, x, 0.0), torch.where(observed, y, 0.0)
        check_finite(samples=x, observation=y)
        scales = (
            None if weights is None else checked_weights(weights, shape).flatten().to(y.device)
        )
        return cls(x, y, scales, observed)

    def stretched(self) -> tuple[Tensor, Tensor]:
        """Samples and observation, each dimension times the root of its weight."""
        if self.weights is None:
            return self.samples, self.observation
        scale = self.weights.sqrt()
        return self.samples * scale, self.observation * scale

    def total(self, scores: Tensor) -> Tensor:
        """The weighted sum of the scores (*batch, latent) of the observed dimensions."""
        if self.weights is not None:
            scores = scores * self.weights
        return (scores if self.mask is None else scores * self.mask).sum(dim=-1)


def checked_weights(weights: Tensor | np.ndarray, shape: tuple[int, ...]) -> Tensor:
    """Refuse weights of another shape, negative ones and NaN."""
    found = to_tensor(weights)
    if found.shape != shape:
        raise ValueError(f"weights must have shape {tuple(shape)}; got {tuple(found.shape)}.")
    check_finite(weights=found)
    check_not_negative(weights=found)
    return found


def to_tensor(array: Tensor | np.ndarray) -> Tensor:
    """A tensor as it is; an array as a new tensor."""
    return array if isinstance(array, Tensor) else torch.from_numpy(np.array(array))


def like(given: Array, score: Tensor) -> Array:
    """The score as an array if an array was given, otherwise as it is."""
    return cast(Array, score if isinstance(given, Tensor) else score.numpy(force=True))
