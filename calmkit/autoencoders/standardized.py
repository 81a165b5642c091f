r"""Latents of unit variance, for any autoencoder.

The aggregate posterior (the mixture over all chunks) has mean mu_i and variance v_i in dimension
i. The wrapper presents heads with the latents (z - mu) / sqrt(v). Every dimension then has the
same weight in a distance, and a head's output starts at the right scale. The map is affine and is
inverted before decoding: no information is lost, and the wrapped autoencoder does not change.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.chunking import ChunkBatch
from calmkit.distributions import DiagonalGaussian
from calmkit.typing import typed

from .base import AutoencoderLoss, ChunkAutoencoder
from .wrapped import WrappedAutoencoder, rounded

__all__ = ["StandardizedAutoencoder"]


class StandardizedAutoencoder(WrappedAutoencoder):
    """Shifts and scales the latents of another autoencoder; the identity until `fit`.

    `fit` measures, over the given chunks with posteriors N(m, diag(s^2)),

        mu_i = E[m_i],    v_i = Var[m_i] + E[s_i^2].
    """

    def __init__(self, autoencoder: ChunkAutoencoder) -> None:
        """Wrap the autoencoder whose latents are standardised."""
        super().__init__(autoencoder)
        dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)
        self.register_buffer("shift", torch.zeros(self.latent_size, dtype=dtype))
        self.register_buffer("scale", torch.ones(self.latent_size, dtype=dtype))

    def _fit(self, posterior: DiagonalGaussian) -> None:
        means, stds = (x.to(self.shift.dtype) for x in (posterior.mean, posterior.std))
        variance = means.var(dim=0, correction=0) + stds.square().mean(dim=0)
        if not bool((variance > 0).all()):
            dead = int((variance <= 0).nonzero()[0])
            raise ValueError(
                f"tokens must give each latent dimension some variance; dimension {dead} has none."
            )
        self.shift.copy_(means.mean(dim=0))
        self.scale.copy_(variance.sqrt())

    def presented(self, posterior: DiagonalGaussian) -> DiagonalGaussian:
        """The posterior in standardised coordinates."""
        mean, std = posterior.mean, posterior.std
        return DiagonalGaussian(
            rounded((mean - self.shift) / self.scale, mean), rounded(std / self.scale, std)
        )

    @typed
    def original(self, latents: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch latent"]:
        """Latents in the wrapped autoencoder's coordinates; see `WrappedAutoencoder.original`."""
        self._check_latents(latents)
        return rounded(latents * self.scale + self.shift, latents)

    @typed
    def loss(
        self, tokens: Int[Tensor, "*batch chunk"], generator: torch.Generator | None = None
    ) -> AutoencoderLoss:
        """The wrapped autoencoder's loss."""
        return self.autoencoder.loss(tokens, generator)

    @typed
    def loss_rows(
        self, batch: ChunkBatch, generator: torch.Generator | None = None
    ) -> AutoencoderLoss:
        """The wrapped autoencoder's loss of chunks in their rows."""
        return self.autoencoder.loss_rows(batch, generator)
