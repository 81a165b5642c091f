r"""Diagonal Gaussians: the posterior of an autoencoder and the target of every head.

    v_i = m_i + s_i e_i,    e_i ~ N(0, 1) independent,    s_i >= 0.

`s = 0` is a point mass, so that the plain latents of any other autoencoder can be targets, too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.typing import typed

__all__ = ["DiagonalGaussian", "Target", "standard_normal", "standard_uniform"]


def standard_normal(
    shape: Sequence[int],
    generator: torch.Generator | None,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Independent N(0, 1) draws; the shape may be symbolic, under `torch.compile`.

    Args:
        shape: Shape of the result.
        generator: Source of randomness; torch's global one if None.
        dtype: Precision of the result.
        device: Device of the result.
    """
    if generator is None:  # passing None on would specialise the shape under torch.compile
        return torch.randn(shape, dtype=dtype, device=device)
    return torch.randn(shape, generator=generator, dtype=dtype, device=device)


def standard_uniform(
    shape: Sequence[int],
    generator: torch.Generator | None,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Independent draws from U[0, 1); arguments as of `standard_normal`."""
    if generator is None:
        return torch.rand(shape, dtype=dtype, device=device)
    return torch.rand(shape, generator=generator, dtype=dtype, device=device)


@typed
@dataclass(frozen=True, eq=False)
class DiagonalGaussian:
    """A Gaussian with independent dimensions.

    Attributes:
        mean: Location of each dimension.
        std: Standard deviation of each dimension; zero is allowed and means a point mass.

    Raises:
        ValueError: If mean and std differ in dtype or device.
    """

    mean: Float[Tensor, "*batch latent"]
    std: Float[Tensor, "*batch latent"]

    def __post_init__(self) -> None:
        """Refuse different dtypes, of which the coarser would decide, and different devices."""
        for name in ("dtype", "device"):
            of_mean, of_std = getattr(self.mean, name), getattr(self.std, name)
            if of_mean != of_std:
                raise ValueError(
                    f"mean and std must have the same {name}; got {of_mean} and {of_std}. "
                    f"Convert one to the other's."
                )

    @classmethod
    def point_mass(cls, location: Float[Tensor, "*batch latent"]) -> "DiagonalGaussian":
        """A distribution that always returns `location`."""
        return cls(location, torch.zeros_like(location))

    @classmethod
    def isotropic(cls, mean: Float[Tensor, "*batch latent"], std: float) -> "DiagonalGaussian":
        """A Gaussian with the same standard deviation in each dimension."""
        return cls(mean, torch.full_like(mean, std))

    @classmethod
    def of(cls, target: "Target") -> "DiagonalGaussian":
        """A Gaussian as it is, and a tensor as a point mass."""
        return target if isinstance(target, DiagonalGaussian) else cls.point_mass(target)

    def to(self, *args: Any, **kwargs: Any) -> "DiagonalGaussian":
        """Convert dtype or device, with the arguments of `torch.Tensor.to`."""
        return DiagonalGaussian(self.mean.to(*args, **kwargs), self.std.to(*args, **kwargs))

    def __getitem__(self, index: Any) -> "DiagonalGaussian":
        """The Gaussians at an index of the batch; it must not index the latent's dimensions."""
        return DiagonalGaussian(self.mean[index], self.std[index])

    @typed
    def rsample_from(
        self, noise: Float[Tensor, "samples *batch latent"]
    ) -> Float[Tensor, "samples *batch latent"]:
        """`mean + std * noise`, differentiable in mean and std.

        Args:
            noise: Independent standard normal draws.
        """
        return _scale_and_shift(self.mean, self.std, noise)

    @typed
    def sample(
        self, num_samples: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "samples *batch latent"]:
        """Draw `num_samples` independent samples, without gradient.

        Args:
            num_samples: Number of draws.
            generator: Source of randomness; torch's global one if None.
        """
        with torch.no_grad():
            mean = self.mean
            noise = standard_normal(
                (num_samples, *mean.shape), generator, dtype=mean.dtype, device=mean.device
            )
            return self.rsample_from(noise)

    @typed
    def log_prob(self, value: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch"]:
        """Log-density, summed over dimensions, in nats: sum_i log N(value_i; m_i, s_i^2).

        A point mass has no density: where `std = 0` the result is not finite.
        """
        return _log_density(self.mean, self.std, value)

    @typed
    def kl_to_standard_normal(self) -> Float[Tensor, "*batch latent"]:
        """KL(self || N(0, 1)) of each dimension, in nats: (m^2 + s^2 - 1) / 2 - log s.

        Infinite for a point mass.
        """
        return 0.5 * (self.mean.square() + self.std.square() - 1) - self.std.log()


Target = DiagonalGaussian | Float[Tensor, "*batch latent"]
"""What a head learns and a rule scores: a Gaussian, or the outcome itself."""


# A method's annotations do not include the fields. These functions annotate both with one batch,
# so that nothing broadcasts silently.
@typed
def _scale_and_shift(
    mean: Float[Tensor, "*batch latent"],
    std: Float[Tensor, "*batch latent"],
    noise: Float[Tensor, "samples *batch latent"],
) -> Float[Tensor, "samples *batch latent"]:
    return torch.addcmul(mean, std, noise)


@typed
def _log_density(
    mean: Float[Tensor, "*batch latent"],
    std: Float[Tensor, "*batch latent"],
    value: Float[Tensor, "*batch latent"],
) -> Float[Tensor, "*batch"]:
    per_dimension = ((value - mean) / std).square() + 2 * std.log() + math.log(2 * math.pi)
    return -0.5 * per_dimension.sum(dim=-1)
