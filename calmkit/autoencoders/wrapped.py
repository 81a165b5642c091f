"""The base class of wrappers that present the latents of another autoencoder to heads.

    tokens --autoencoder--> posterior --presented--> the head's target
    the head's sample --original--> latent of the autoencoder --decoder--> tokens

The wrapped autoencoder does not change. A wrapper is fitted on chunks after the autoencoder has
been trained; until then it uses no statistics of them. Statistics stay at least in float32, even
if the model is cast to bfloat16: a shift that is off by one part in 256 would move every latent in
the same direction. Results have the dtype of the latents.
"""

import abc
from collections.abc import Sequence
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from calmkit.chunking import ChunkBatch
from calmkit.distributions import DiagonalGaussian
from calmkit.nn import WideBuffers
from calmkit.typing import typed

from .base import ChunkAutoencoder

__all__ = ["WrappedAutoencoder", "rounded"]

W = TypeVar("W", bound="WrappedAutoencoder")


class WrappedAutoencoder(WideBuffers, ChunkAutoencoder):
    """Changes the coordinates of another autoencoder's latents.

    A subclass states how a posterior is presented and how a presented latent is read back, how
    both are fitted, and the loss.

    Attributes:
        autoencoder: The wrapped autoencoder.
    """

    def __init__(self, autoencoder: ChunkAutoencoder) -> None:
        """Wrap an autoencoder.

        Args:
            autoencoder: The autoencoder whose latents are presented.
        """
        super().__init__(autoencoder.chunk_size, autoencoder.vocab_size, autoencoder.latent_size)
        self.autoencoder = autoencoder

    @abc.abstractmethod
    def presented(self, posterior: DiagonalGaussian) -> DiagonalGaussian:
        """A posterior of the wrapped autoencoder in the coordinates of the head."""

    @abc.abstractmethod
    def original(self, latents: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch latent"]:
        """Latents in the coordinates of the wrapped autoencoder.

        Raises:
            ValueError: If they do not have `latent_size` dimensions.
        """

    @abc.abstractmethod
    def _fit(self, posterior: DiagonalGaussian) -> None:
        """Measure statistics of posteriors with shape (chunks, latent)."""

    @typed
    @torch.no_grad()
    def fit(self: W, tokens: Int[Tensor, "*batch chunk"]) -> W:
        """Fit the wrapper, and wrappers inside it before it, to given chunks.

        Raises:
            ValueError: If there is no chunk, or a dimension has no variance.
        """
        if tokens.numel() == 0:
            raise ValueError("tokens must hold at least one chunk; got none.")
        if isinstance(self.autoencoder, WrappedAutoencoder):
            self.autoencoder.fit(tokens)
        posterior = self.autoencoder.encode(tokens)
        self._fit(DiagonalGaussian(posterior.mean.flatten(0, -2), posterior.std.flatten(0, -2)))
        return self

    @torch.no_grad()
    def fit_rows(self: W, batches: Sequence[ChunkBatch]) -> W:
        """Like `fit`, over the full chunks of some rows, each encoded in its context.

        Raises:
            ValueError: If there is no full chunk, or a dimension has no variance.
        """
        full = [batch.real.all(dim=-1) for batch in batches]
        if not any(bool(chunks.any()) for chunks in full):
            raise ValueError("batches must hold at least one full chunk; got none.")
        if isinstance(self.autoencoder, WrappedAutoencoder):
            self.autoencoder.fit_rows(batches)
        posteriors = [self.autoencoder.encode_rows(batch) for batch in batches]
        pairs = list(zip(posteriors, full, strict=True))
        means, stds = (
            torch.cat([getattr(posterior, name)[chunks] for posterior, chunks in pairs])
            for name in ("mean", "std")
        )
        self._fit(DiagonalGaussian(means, stds))
        return self

    @typed
    def encode(self, tokens: Int[Tensor, "*batch chunk"]) -> DiagonalGaussian:
        """The presented posterior of each chunk."""
        return self.presented(self.autoencoder.encode(tokens))

    @typed
    def encode_rows(self, batch: ChunkBatch) -> DiagonalGaussian:
        """The presented posterior of each chunk in its row."""
        return self.presented(self.autoencoder.encode_rows(batch))

    @typed
    def encode_partial(
        self, tokens: Int[Tensor, "*batch chunk"], real: Bool[Tensor, "*batch chunk"]
    ) -> DiagonalGaussian:
        """The presented posterior of partly known chunks."""
        return self.presented(self.autoencoder.encode_partial(tokens, real))

    @typed
    def decode(
        self, latents: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch chunk vocab"]:
        """Logits of presented latents; see `ChunkAutoencoder.decode`."""
        return self.autoencoder.decode(self.original(latents))

    @typed
    def token_nats(
        self, latents: Float[Tensor, "*batch latent"], tokens: Int[Tensor, "*batch chunk"]
    ) -> Float[Tensor, "*batch chunk"]:
        """As the wrapped autoencoder, in its coordinates."""
        return self.autoencoder.token_nats(self.original(latents), tokens)

    @typed
    def start_decoding(
        self, latents: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch started"]:
        """The wrapped autoencoder's features, computed in its own coordinates."""
        return self.autoencoder.start_decoding(self.original(latents))

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
        return self.autoencoder.decode_tokens(self.original(latents))


def rounded(x: Tensor, like: Tensor) -> Tensor:
    """Cast back for a model in bfloat16; under autocast, layers cast their own inputs."""
    return x if torch.is_autocast_enabled(like.device.type) else x.to(like.dtype)
