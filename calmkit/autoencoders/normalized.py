r"""Latents on a sphere, for any autoencoder: the length of a latent is not predicted.

In many dimensions the means m(x) of all chunks have nearly the same length, and a head spends
capacity on a number that says little. Both wrappers divide by the root mean square of a chunk's
mean, c(x) = sqrt(mean_i m_i(x)^2), and differ in the law that a head learns:

    wrapper   law of the target                              a sample y is read back as
    RMS       N(m / c, diag(s^2) / c^2)                      r y
    sphere    point mass at m / c, of length sqrt(l)         r sqrt(l) y / ||y||

with r the mean of c(x) over the chunks of `fit`. *RMS*: c is a number of each chunk, so that the
law of z / c is exactly Gaussian. A head predicts the direction of the mean together with the
posterior's noise. *Sphere*: a normalised Gaussian draw has no Gaussian law, so the posterior's
noise is dropped and the target is one point of the sphere. A head predicts that point. Only the
direction of its sample is decoded, so that an error of length does no harm.

**Both lose c(x) / r**, the length of the chunk's own mean, which the decoder never sees again.
What that costs is measured, not assumed: in evaluation mode the loss reconstructs from the
presented mean. In training mode it also goes through the presented latents, without token masks
and dropout of latents; an autoencoder that is to keep these is trained first and wrapped then.

Centre the latents first, NormalizedAutoencoder(StandardizedAutoencoder(...)): directions are seen
from zero, and dimensions of large variance would decide them.

Source: for generation on a sphere, "SphereAR" (Ke and Xue, "Hyperspherical latents improve
continuous-token autoregressive generation", arXiv 2509.24335), whose autoencoder is trained with
latents on the sphere.
"""

import abc

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.chunking import ChunkBatch
from calmkit.distributions import DiagonalGaussian, standard_normal
from calmkit.typing import typed

from .base import AutoencoderLoss, ChunkAutoencoder
from .wrapped import WrappedAutoencoder, rounded

__all__ = ["RMSNormalizedAutoencoder", "SphericalAutoencoder"]

# Keeps the length of a latent of zeros and its gradient finite; lengths are near 1.
_LEAST_SQUARE = 1e-12


class _NormalizedAutoencoder(WrappedAutoencoder):
    """Divides latents by the root mean square of the posterior's mean."""

    def __init__(self, autoencoder: ChunkAutoencoder) -> None:
        """Wrap the autoencoder whose latents are normalised."""
        super().__init__(autoencoder)
        dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)
        self.register_buffer("radius", torch.ones((), dtype=dtype))

    @abc.abstractmethod
    def _direction(self, latents: Tensor) -> Tensor:
        """What is decoded of a sample, at root mean square 1 for a mean."""

    def _fit(self, posterior: DiagonalGaussian) -> None:
        self.radius.copy_(_root_mean_square(posterior.mean.to(self.radius.dtype)).mean())

    @typed
    def original(self, latents: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch latent"]:
        """Latents at the wrapped autoencoder's radius; see `WrappedAutoencoder.original`."""
        self._check_latents(latents)
        return rounded(self.radius * self._direction(latents.to(self.radius.dtype)), latents)

    @typed
    def loss(
        self, tokens: Int[Tensor, "*batch chunk"], generator: torch.Generator | None = None
    ) -> AutoencoderLoss:
        """Reconstruction from the presented latent, with the wrapped autoencoder's regularisers.

        See `ChunkAutoencoder.loss`.
        """
        inner = self.autoencoder.loss(tokens, generator)
        return self._reconstructed(inner, self.encode(tokens), tokens, generator)

    @typed
    def loss_rows(
        self, batch: ChunkBatch, generator: torch.Generator | None = None
    ) -> AutoencoderLoss:
        """The same for chunks in their rows; see `ChunkAutoencoder.loss_rows`."""
        inner = self.autoencoder.loss_rows(batch, generator)
        return self._reconstructed(inner, self.encode_rows(batch), batch.tokens, generator)

    def _reconstructed(
        self,
        inner: AutoencoderLoss,
        posterior: DiagonalGaussian,
        tokens: Tensor,
        generator: torch.Generator | None,
    ) -> AutoencoderLoss:
        latents = posterior.mean
        if self.training:
            noise = standard_normal(
                (1, *latents.shape), generator, dtype=latents.dtype, device=latents.device
            )
            latents = posterior.rsample_from(noise).squeeze(0)
        reconstruction = self.token_nats(latents, tokens).sum(dim=-1)
        return AutoencoderLoss(
            total=inner.total - inner.reconstruction + reconstruction,
            reconstruction=reconstruction,
            kl=inner.kl,
        )


class RMSNormalizedAutoencoder(_NormalizedAutoencoder):
    """Presents the law of z / c(x): means of root mean square 1, with the posterior's noise."""

    def presented(self, posterior: DiagonalGaussian) -> DiagonalGaussian:
        """The posterior, divided by the root mean square of its mean."""
        mean, std = posterior.mean, posterior.std
        wide = mean.to(self.radius.dtype)
        length = _root_mean_square(wide)
        return DiagonalGaussian(rounded(wide / length, mean), rounded(std / length, std))

    def _direction(self, latents: Tensor) -> Tensor:
        return latents


class SphericalAutoencoder(_NormalizedAutoencoder):
    """Presents a point of the sphere for each chunk, and decodes the direction of a sample."""

    def presented(self, posterior: DiagonalGaussian) -> DiagonalGaussian:
        """A point mass at the direction of the posterior's mean."""
        mean = posterior.mean
        return DiagonalGaussian.point_mass(
            rounded(self._direction(mean.to(self.radius.dtype)), mean)
        )

    def _direction(self, latents: Tensor) -> Tensor:
        return latents / _root_mean_square(latents)


def _root_mean_square(x: Tensor) -> Tensor:
    return (x.square().mean(dim=-1, keepdim=True) + _LEAST_SQUARE).sqrt()
