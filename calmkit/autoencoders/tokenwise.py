"""Tokenwise autoencoder: the latents of a chunk's tokens, side by side, are its latent.

    z = (z_1, ..., z_K),    z_k ~ q(z_k | x_k),    logits of x_k = decoder(z_k),

where one autoencoder of single tokens, with l / K dimensions, encodes and decodes all places. Its
losses are summed over the chunk. A chunk is thus not compressed jointly. In return, each block of
the latent stands for one token, and a head may predict the blocks one after another; see
`BlockwiseHead`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.recording import built_by
from calmkit.typing import typed

from .base import AutoencoderLoss, ChunkAutoencoder
from .mlp import MLPAutoencoder

__all__ = ["TokenwiseAutoencoder"]


class TokenwiseAutoencoder(ChunkAutoencoder):
    """Encodes and decodes each token of a chunk by itself.

    Attributes:
        autoencoder: The autoencoder of single tokens.
    """

    def __init__(
        self,
        chunk_size: int,
        vocab_size: int,
        latent_size: int,
        *,
        autoencoder: Callable[[int, int, int], ChunkAutoencoder] | None = None,
    ) -> None:
        """Build the autoencoder of single tokens.

        Args:
            chunk_size: K, tokens in a chunk.
            vocab_size: Number of token ids.
            latent_size: Dimensions of a chunk's latent vector, of which each token has its share.
            autoencoder: Builds the autoencoder of single tokens from its three sizes, the first
                of which is 1; an `MLPAutoencoder` if None. It is given no neighbours, even if it
                reads some.

        Raises:
            ValueError: If a size is below 1, latent_size is no multiple of chunk_size, or
                `autoencoder` does not build one of the sizes that it is given.
        """
        super().__init__(chunk_size, vocab_size, latent_size)
        if latent_size % chunk_size != 0:
            raise ValueError(
                f"latent_size must be a multiple of chunk_size = {chunk_size}, so that all tokens "
                f"of a chunk have equal shares; got {latent_size}."
            )
        make = MLPAutoencoder if autoencoder is None else autoencoder
        sizes = {"vocab_size": vocab_size, "latent_size": latent_size // chunk_size}
        self.autoencoder = built_by("autoencoder", make, ChunkAutoencoder, chunk_size=1, **sizes)

    @typed
    def encode(self, tokens: Int[Tensor, "*batch chunk"]) -> DiagonalGaussian:
        """The posteriors of the tokens, side by side; see `ChunkAutoencoder.encode`."""
        self._check_chunks(tokens)
        return _joined(self.autoencoder.encode(tokens[..., None]))

    @typed
    def encode_partial(
        self, tokens: Int[Tensor, "*batch chunk"], real: Bool[Tensor, "*batch chunk"]
    ) -> DiagonalGaussian:
        """The same, with unknown tokens as the autoencoder of single tokens takes them."""
        self._check_chunks(tokens)
        return _joined(self.autoencoder.encode_partial(tokens[..., None], real[..., None]))

    @typed
    def decode(
        self, latents: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch chunk vocab"]:
        """Logits of each token from its part of the latent; see `ChunkAutoencoder.decode`."""
        return self.autoencoder.decode(self._apart(latents)).squeeze(-2)

    @typed
    def loss(
        self, tokens: Int[Tensor, "*batch chunk"], generator: torch.Generator | None = None
    ) -> AutoencoderLoss:
        """The sum of the tokens' losses; see `ChunkAutoencoder.loss`."""
        self._check_chunks(tokens)
        loss = self.autoencoder.loss(tokens[..., None], generator)
        return AutoencoderLoss(
            total=loss.total.sum(dim=-1),
            reconstruction=loss.reconstruction.sum(dim=-1),
            kl=loss.kl.sum(dim=-1),
        )

    @typed
    def token_nats(
        self, latents: Float[Tensor, "*batch latent"], tokens: Int[Tensor, "*batch chunk"]
    ) -> Float[Tensor, "*batch chunk"]:
        """As the autoencoder of single tokens; see `ChunkAutoencoder.token_nats`."""
        self._check_chunks(tokens)
        return self.autoencoder.token_nats(self._apart(latents), tokens[..., None]).squeeze(-1)

    @typed
    def decode_tokens(
        self, latents: Float[Tensor, "*batch latent"]
    ) -> Int[Tensor, "*batch chunk"]:
        """As the autoencoder of single tokens; see `ChunkAutoencoder.decode_tokens`."""
        return self.autoencoder.decode_tokens(self._apart(latents)).squeeze(-1)

    @typed
    def start_decoding(
        self, latents: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch started"]:
        """Features of all tokens, side by side; see `ChunkAutoencoder.start_decoding`."""
        return self.autoencoder.start_decoding(self._apart(latents)).flatten(-2)

    @typed
    def logits_at(
        self, started: Float[Tensor, "*batch started"], place: int
    ) -> Float[Tensor, "*batch vocab"]:
        """As the autoencoder of single tokens; see `ChunkAutoencoder.logits_at`."""
        return self.autoencoder.logits_at(self._each(started)[..., place, :], 0)

    @typed
    def tokens_at(
        self, started: Float[Tensor, "*batch started"], places: range
    ) -> Int[Tensor, "*batch places"]:
        """As the autoencoder of single tokens; see `ChunkAutoencoder.tokens_at`."""
        part = self._each(started)[..., places.start : places.stop, :]
        return self.autoencoder.tokens_at(part, range(1)).squeeze(-1)

    def _apart(self, latents: Tensor) -> Tensor:
        """The latents of the tokens, (*batch, chunk, latent / chunk)."""
        self._check_latents(latents)
        return self._each(latents)

    def _each(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.chunk_size, x.shape[-1] // self.chunk_size))


def _joined(posterior: DiagonalGaussian) -> DiagonalGaussian:
    """Posteriors of the tokens of each chunk, side by side."""
    return DiagonalGaussian(posterior.mean.flatten(-2), posterior.std.flatten(-2))
