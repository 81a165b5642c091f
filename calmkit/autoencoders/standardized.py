r"""Latents of unit variance, for any autoencoder.

The aggregate posterior (the mixture over all chunks) has mean mu_i and variance v_i in dimension
i. The wrapper presents heads with the latents (z - mu) / sqrt(v). Every dimension then has the
same weight in a distance, and a head's output starts at the right scale. The map is affine and is
inverted before decoding: no information is lost, and the wrapped autoencoder does not change.

Shift and scale stay at least in float32, even if the model is cast to bfloat16: a shift that is
off by one part in 256 would move every latent in the same direction. The result has the dtype of
the latents.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from calmkit.chunking import ChunkBatch
from calmkit.distributions import DiagonalGaussian
from calmkit.nn import WideBuffers
from calmkit.typing import typed

from .base import AutoencoderLoss, ChunkAutoencoder

__all__ = ["StandardizedAutoencoder"]


class StandardizedAutoencoder(WideBuffers, ChunkAutoencoder):
    """Shifts and scales the latents of another autoencoder; the identity until `fit`."""

    def __init__(self, autoencoder: ChunkAutoencoder) -> None:
        """Wrap an autoencoder.

        Args:
            autoencoder: The autoencoder whose latents are standardised.
        """
        super().__init__(autoencoder.chunk_size, autoencoder.vocab_size, autoencoder.latent_size)
        self.autoencoder = autoencoder
        dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)
        self.register_buffer("shift", torch.zeros(self.latent_size, dtype=dtype))
        self.register_buffer("scale", torch.ones(self.latent_size, dtype=dtype))

    @typed
    @torch.no_grad()
    def fit(self, tokens: Int[Tensor, "*batch chunk"]) -> "StandardizedAutoencoder":
        """Measure mean and variance of the aggregate posterior over given chunks.

            mu_i = E[m_i],    v_i = Var[m_i] + E[s_i^2]

        Raises:
            ValueError: If there is no chunk, or a dimension has no variance.
        """
        if tokens.numel() == 0:
            raise ValueError("tokens must hold at least one chunk; got none.")
        return self._fit(self.autoencoder.encode(tokens))

    @torch.no_grad()
    def fit_rows(self, batches: Sequence[ChunkBatch]) -> "StandardizedAutoencoder":
        """Like `fit`, over the full chunks of some rows, each encoded in its context.

        Raises:
            ValueError: If there is no full chunk, or a dimension has no variance.
        """
        full = [batch.real.all(dim=-1) for batch in batches]
        if not any(bool(chunks.any()) for chunks in full):
            raise ValueError("batches must hold at least one full chunk; got none.")
        posteriors = [self.autoencoder.encode_rows(batch) for batch in batches]
        pairs = list(zip(posteriors, full, strict=True))
        means, stds = (
            torch.cat([getattr(posterior, name)[chunks] for posterior, chunks in pairs])
            for name in ("mean", "std")
        )
        return self._fit(DiagonalGaussian(means, stds))

    def _fit(self, posterior: DiagonalGaussian) -> "StandardizedAutoencoder":
        means, stds = (
            x.to(self.shift.dtype).reshape(-1, self.latent_size)
            for x in (posterior.mean, posterior.std)
        )
        variance = means.var(dim=0, correction=0) + stds.square().mean(dim=0)
        if not bool((variance > 0).all()):
            dead = int((variance <= 0).nonzero()[0])
            raise ValueError(
                f"tokens must give each latent dimension some variance; dimension {dead} has none."
            )
        self.shift.copy_(means.mean(dim=0))
        self.scale.copy_(variance.sqrt())
        return self

    @typed
    def encode(self, tokens: Int[Tensor, "*batch chunk"]) -> DiagonalGaussian:
        """The posterior in standardised coordinates."""
        return self._standardized(self.autoencoder.encode(tokens))

    @typed
    def encode_rows(self, batch: ChunkBatch) -> DiagonalGaussian:
        """The posterior of each chunk in its row, in standardised coordinates."""
        return self._standardized(self.autoencoder.encode_rows(batch))

    @typed
    def encode_partial(
        self, tokens: Int[Tensor, "*batch chunk"], real: Bool[Tensor, "*batch chunk"]
    ) -> DiagonalGaussian:
        """The posterior of partly known chunks, in standardised coordinates."""
        return self._standardized(self.autoencoder.encode_partial(tokens, real))

    def _standardized(self, posterior: DiagonalGaussian) -> DiagonalGaussian:
        mean, std = posterior.mean, posterior.std
        return DiagonalGaussian(
            _rounded((mean - self.shift) / self.scale, mean), _rounded(std / self.scale, std)
        )

    def _raw(self, latents: Tensor) -> Tensor:
        """Latents in the coordinates of the wrapped autoencoder.

        Raises:
            ValueError: If they do not have `latent_size` dimensions.
        """
        self._check_latents(latents)
        return _rounded(latents * self.scale + self.shift, latents)

    @typed
    def decode(
        self, latents: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch chunk vocab"]:
        """Logits of standardised latents.

        Raises:
            ValueError: If the latents do not have `latent_size` dimensions.
        """
        return self.autoencoder.decode(self._raw(latents))

    @typed
    def start_decoding(
        self, latents: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch started"]:
        """The wrapped autoencoder's features, computed in its own coordinates."""
        return self.autoencoder.start_decoding(self._raw(latents))

    @typed
    def logits_at(
        self, started: Float[Tensor, "*batch started"], place: int
    ) -> Float[Tensor, "*batch vocab"]:
        """As the wrapped autoencoder."""
        return self.autoencoder.logits_at(started, place)

    @typed
    def tokens_at(
        self, started: Float[Tensor, "*batch started"], places: range
    ) -> Int[Tensor, "*batch places"]:
        """As the wrapped autoencoder."""
        return self.autoencoder.tokens_at(started, places)

    @typed
    def decode_tokens(
        self, latents: Float[Tensor, "*batch latent"]
    ) -> Int[Tensor, "*batch chunk"]:
        """As the wrapped autoencoder, in its coordinates."""
        return self.autoencoder.decode_tokens(self._raw(latents))

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


def _rounded(x: Tensor, like: Tensor) -> Tensor:
    """Cast back for a model in bfloat16; under autocast, layers cast their own inputs."""
    return x if torch.is_autocast_enabled(like.device.type) else x.to(like.dtype)
