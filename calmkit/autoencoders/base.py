"""The contract of a chunk autoencoder: from K tokens to a Gaussian over one vector, and back.

`encode` encodes a chunk alone, `encode_rows` encodes it in its context. For most autoencoders the
results are equal; for one that reads neighbouring chunks they differ. Decoding always takes a
single latent without neighbours, since latents are drawn one at a time.
"""

import abc
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from calmkit.bounds import check_at_least
from calmkit.chunking import ChunkBatch
from calmkit.distributions import DiagonalGaussian
from calmkit.finite import require_finite
from calmkit.recording import Recorded
from calmkit.typing import typed

__all__ = ["AutoencoderLoss", "ChunkAutoencoder"]


@typed
@dataclass(frozen=True, eq=False)
class AutoencoderLoss:
    """Loss of each chunk, in nats; lower is better.

    Attributes:
        total: The training loss.
        reconstruction: Negative log-likelihood of the chunk's tokens, summed over them.
        kl: KL of the posterior to the standard normal, summed over dimensions, before any
            clipping or weight.
    """

    total: Float[Tensor, "*batch"]
    reconstruction: Float[Tensor, "*batch"]
    kl: Float[Tensor, "*batch"]


class ChunkAutoencoder(nn.Module, Recorded, abc.ABC):
    """Compresses chunks of tokens to latent vectors.

    Attributes:
        chunk_size: K, tokens in a chunk.
        vocab_size: Number of token ids.
        latent_size: Dimensions of a latent vector.
    """

    extra_repr = Recorded.extra_repr

    # Number of logits in memory at once while decoding tokens: 16 MB in float32. A GPU, where a
    # block takes the time to start its kernels, has eight times as many.
    _logits_at_once = 2**22
    _times_on_gpu = 8

    def __init__(self, chunk_size: int, vocab_size: int, latent_size: int) -> None:
        super().__init__()
        check_at_least(1, chunk_size=chunk_size, vocab_size=vocab_size, latent_size=latent_size)
        self.chunk_size = chunk_size
        self.vocab_size = vocab_size
        self.latent_size = latent_size
        self._frozen = False

    @abc.abstractmethod
    def encode(self, tokens: Int[Tensor, "*batch chunk"]) -> DiagonalGaussian:
        """The posterior over latents of each chunk.

        Raises:
            ValueError: If the chunks do not have `chunk_size` tokens.
        """

    @abc.abstractmethod
    def decode(
        self, latents: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch chunk vocab"]:
        """Logits of the K tokens of each latent.

        Raises:
            ValueError: If the latents do not have `latent_size` dimensions.
        """

    @abc.abstractmethod
    def loss(
        self, tokens: Int[Tensor, "*batch chunk"], generator: torch.Generator | None = None
    ) -> AutoencoderLoss:
        """Loss of each chunk.

        In training mode latents are drawn from the posterior and regularised, with randomness
        from `generator` (torch's global one if None). In evaluation mode the mean is decoded,
        without randomness.

        Raises:
            ValueError: If the chunks do not have `chunk_size` tokens.
        """

    def encode_rows(self, batch: ChunkBatch) -> DiagonalGaussian:
        """The posterior of each chunk in its row, `batch positions latent`: the target of a head.

        By default it is that of the chunk alone. An override that reads other chunks of the row
        must not read other documents, nor places of other chunks that are not real.

        Raises:
            ValueError: If the chunks do not have `chunk_size` tokens.
        """
        return self.encode(batch.tokens)

    def encode_partial(
        self, tokens: Int[Tensor, "*batch chunk"], real: Bool[Tensor, "*batch chunk"]
    ) -> DiagonalGaussian:
        """The posterior of chunks of which only some places are known.

        By default the unknown places hold token 0. An autoencoder that is trained with a mask for
        unknown tokens should use it instead.

        Args:
            tokens: Token ids.
            real: False at unknown places; their ids do not matter.

        Raises:
            ValueError: If the chunks do not have `chunk_size` tokens.
        """
        return self.encode(torch.where(real, tokens, 0))

    def loss_rows(
        self, batch: ChunkBatch, generator: torch.Generator | None = None
    ) -> AutoencoderLoss:
        """Loss of each chunk in its row, `batch positions`; training minimises it.

        It corresponds to `encode_rows`, as `loss` corresponds to `encode`.

        Raises:
            ValueError: If the chunks do not have `chunk_size` tokens.
        """
        return self.loss(batch.tokens, generator)

    @typed
    @torch.no_grad()
    def decode_tokens(
        self, latents: Float[Tensor, "*batch latent"]
    ) -> Int[Tensor, "*batch chunk"]:
        """The likeliest K tokens of each latent, a block of latents at a time.

        Raises:
            ValueError: If the latents do not have `latent_size` dimensions.
            NonFiniteError: If the latents or their likeliest logits are not finite.
        """
        self._check_latents(latents)
        require_finite("latents", latents)
        rows = latents.reshape(-1, latents.shape[-1])
        block = self._rows_at_once(rows, self.chunk_size * self.vocab_size)
        tokens = [self._most_likely(self.decode(part)) for part in rows.split(block)]
        return torch.cat(tokens).view(*latents.shape[:-1], self.chunk_size)

    @typed
    def token_nats(
        self, latents: Float[Tensor, "*batch latent"], tokens: Int[Tensor, "*batch chunk"]
    ) -> Float[Tensor, "*batch chunk"]:
        """Cross entropy of each token given its chunk's latent, -log p(x_k | z), in nats.

        It is differentiable in the latents, and at least in float32. The logits are those of
        `decode`, of a block of latents at a time; the backward pass computes them anew.

        Raises:
            ValueError: If chunks or latents have the wrong size.
        """
        self._check_chunks(tokens)
        self._check_latents(latents)
        rows, ids = latents.reshape(-1, latents.shape[-1]), tokens.reshape(-1, self.chunk_size)
        block = self._rows_at_once(rows, self.chunk_size * self.vocab_size)
        parts = zip(rows.split(block), ids.split(block), strict=True)
        nats = [checkpoint(self._nats, *part, use_reentrant=False) for part in parts]
        return torch.cat(nats).view(tokens.shape)

    def _nats(self, latents: Tensor, tokens: Tensor) -> Tensor:
        logits = self.decode(latents)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return cross_entropy(logits.transpose(-1, -2), tokens.long(), reduction="none")

    def start_decoding(
        self, latents: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch started"]:
        """Features of each latent for `logits_at`, computed once for all places of its chunk.

        By default the latents themselves.
        """
        return latents

    def logits_at(
        self, started: Float[Tensor, "*batch started"], place: int
    ) -> Float[Tensor, "*batch vocab"]:
        """Logits of the token at one place; those of all places, stacked, equal `decode`.

        By default this decodes whole chunks, which is correct but saves nothing.

        Args:
            started: From `start_decoding`.
            place: In [0, chunk_size).
        """
        return self.decode(started)[..., place, :]

    @typed
    @torch.no_grad()
    def tokens_at(
        self, started: Float[Tensor, "*batch started"], places: range
    ) -> Int[Tensor, "*batch places"]:
        """The likeliest tokens at consecutive places, a block of latents at a time.

        Args:
            started: From `start_decoding`.
            places: Within range(chunk_size).

        Raises:
            NonFiniteError: If the likeliest logits are not finite.
        """
        rows = started.reshape(-1, started.shape[-1])
        block = self._rows_at_once(rows, self.vocab_size)
        tokens = [
            torch.stack([self._most_likely(self.logits_at(part, p)) for p in places], dim=-1)
            for part in rows.split(block)
        ]
        return torch.cat(tokens).view(*started.shape[:-1], len(places))

    def _rows_at_once(self, rows: Tensor, logits_of_each: int) -> int:
        times = 1 if rows.device.type == "cpu" else self._times_on_gpu
        return max(1, times * self._logits_at_once // logits_of_each)

    @staticmethod
    def _most_likely(logits: Tensor) -> Tensor:
        """The likeliest tokens. `argmax` would choose a NaN, which is therefore refused."""
        tokens = logits.argmax(dim=-1)
        require_finite("logits of the autoencoder", logits.gather(-1, tokens[..., None]))
        return tokens

    def _check_chunks(self, tokens: Tensor) -> None:
        if tokens.shape[-1] != self.chunk_size:
            raise ValueError(
                f"tokens must come in chunks of chunk_size = {self.chunk_size}; "
                f"got shape {tuple(tokens.shape)}."
            )

    def _check_latents(self, latents: Tensor) -> None:
        if latents.shape[-1] != self.latent_size:
            raise ValueError(
                f"latents must have latent_size = {self.latent_size} dimensions; "
                f"got shape {tuple(latents.shape)}."
            )

    def freeze(self) -> "ChunkAutoencoder":
        """Stop training permanently: no gradients, and evaluation mode even under `.train()`."""
        self.requires_grad_(False)
        self.eval()
        self._frozen = True
        return self

    def train(self, mode: bool = True) -> "ChunkAutoencoder":
        """Set training mode, unless frozen."""
        return super().train(mode and not self._frozen)
