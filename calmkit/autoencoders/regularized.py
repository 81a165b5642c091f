r"""The loss that trainable autoencoders share, and decoding over a large vocabulary.

Training minimises, per chunk and in nats,

    sum_k -log p(x_k | z) + beta sum_i max(c, KL_i),    z ~ N(m, s^2),

where KL_i is the KL of dimension i to a standard normal. It is clipped from below at c ("free
bits"), so that no dimension gains by collapsing to the prior; the plain KL (c = 0) collapses most
of them. In training, input tokens are replaced by a mask embedding and latent dimensions are
dropped at random. This spreads information over the latent and makes the decoder tolerate the
errors of a generative head. In evaluation nothing is masked, dropped or drawn: the mean is
decoded.

The mask embedding also represents unknown tokens and places without text.

Source: "Continuous Autoregressive Language Models", arXiv 2510.27688.
"""

import abc
import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear

from calmkit.bounds import check_in
from calmkit.distributions import DiagonalGaussian, standard_normal, standard_uniform
from calmkit.finite import require_finite
from calmkit.nn import scaled_normal_, vocabulary_nats
from calmkit.typing import typed

from .base import AutoencoderLoss, ChunkAutoencoder

__all__ = ["RegularizedAutoencoder"]

# Number of vocabulary entries in one matrix product while decoding tokens.
_TOKENS_AT_ONCE = 4096

# Stands for the mask embedding among token ids.
_MASKED = torch.iinfo(torch.int64).min

# exp(-7) = 1e-3 and exp(2) = 7.4: far outside what a trained posterior uses (about 0.3).
_LOG_STD_RANGE = (-7.0, 2.0)


class RegularizedAutoencoder(ChunkAutoencoder):
    """Embeds tokens, has the loss of the module docstring, and ties logits to the embedding.

    A subclass maps embedded places to a posterior, and a latent to the features of places.
    """

    def __init__(
        self,
        chunk_size: int,
        vocab_size: int,
        latent_size: int,
        *,
        width: int,
        kl_weight: float,
        kl_clip: float,
        token_masking: float,
        latent_dropout: float,
    ) -> None:
        """Make the embedding; see the subclasses for the arguments.

        Raises:
            ValueError: If a size, weight or share is out of range.
        """
        super().__init__(chunk_size, vocab_size, latent_size)
        check_in("[0, inf)", kl_weight=kl_weight, kl_clip=kl_clip)
        check_in("[0, 1)", token_masking=token_masking, latent_dropout=latent_dropout)
        self.kl_weight = kl_weight
        self.kl_clip = kl_clip
        self.token_masking = token_masking
        self.latent_dropout = latent_dropout
        self.embedding = nn.Embedding(vocab_size, width)
        self.mask_embedding = nn.Parameter(torch.zeros(width))

    @abc.abstractmethod
    def _parameters_of(self, read: Tensor) -> Tensor:
        """Mean and log std, concatenated: (*batch, 2 latent), from what `_read` returns."""

    @abc.abstractmethod
    def _features_at(self, started: Tensor, places: range) -> Tensor:
        """Features of consecutive places, (*batch, places, width), from `start_decoding`."""

    def _alone(self, tokens: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """The places that `encode` reads for a chunk without context, and which are known.

        By default those of the chunk itself.
        """
        return tokens, real

    def reset_parameters(self) -> None:
        """Initialise so that linear layers keep variance and logits have variance 1."""
        scaled_normal_(self)
        nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(self.embedding.embedding_dim))
        nn.init.zeros_(self.mask_embedding)

    @typed
    def encode(self, tokens: Int[Tensor, "*batch chunk"]) -> DiagonalGaussian:
        """The posterior of each chunk, without masking; see `ChunkAutoencoder.encode`."""
        return self.encode_partial(tokens, torch.ones_like(tokens, dtype=torch.bool))

    @typed
    def encode_partial(
        self, tokens: Int[Tensor, "*batch chunk"], real: Bool[Tensor, "*batch chunk"]
    ) -> DiagonalGaussian:
        """As `ChunkAutoencoder.encode_partial`; unknown places are masked."""
        self._check_chunks(tokens)
        return self._encode(*self._alone(tokens, real))

    @typed
    def decode(
        self, latents: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch chunk vocab"]:
        """Logits of the K tokens of each latent; see `ChunkAutoencoder.decode`."""
        self._check_latents(latents)
        features = self._features_at(self.start_decoding(latents), range(self.chunk_size))
        return linear(features, self.embedding.weight)

    @typed
    def token_nats(
        self, latents: Float[Tensor, "*batch latent"], tokens: Int[Tensor, "*batch chunk"]
    ) -> Float[Tensor, "*batch chunk"]:
        """Cross entropy of each token; see `ChunkAutoencoder.token_nats` and `vocabulary_nats`."""
        self._check_chunks(tokens)
        self._check_latents(latents)
        features = self._features_at(self.start_decoding(latents), range(self.chunk_size))
        return vocabulary_nats(features, self.embedding.weight, tokens)

    @typed
    def logits_at(
        self, started: Float[Tensor, "*batch started"], place: int
    ) -> Float[Tensor, "*batch vocab"]:
        """Logits at one place; see `ChunkAutoencoder.logits_at`."""
        features = self._features_at(started, range(place, place + 1)).squeeze(-2)
        return linear(features, self.embedding.weight)

    @typed
    @torch.no_grad()
    def tokens_at(
        self, started: Float[Tensor, "*batch started"], places: range
    ) -> Int[Tensor, "*batch places"]:
        """As `ChunkAutoencoder.tokens_at`, but a block of the vocabulary at a time.

        A block multiplies many rows by some tokens. Multiplying few rows by all tokens takes
        nearly twice as long if the vocabulary is large.
        """
        rows = started.reshape(-1, started.shape[-1])
        parts = rows.split(self._rows_at_once(rows, max(1, len(places)) * self._tokens_at_once))
        tokens = [self._likeliest(self._features_at(part, places).flatten(0, 1)) for part in parts]
        return torch.cat(tokens).view(*started.shape[:-1], len(places))

    @typed
    @torch.no_grad()
    def decode_tokens(
        self, latents: Float[Tensor, "*batch latent"]
    ) -> Int[Tensor, "*batch chunk"]:
        """The likeliest K tokens of each latent; see `tokens_at`."""
        self._check_latents(latents)
        require_finite("latents", latents)
        rows = latents.reshape(-1, latents.shape[-1])
        places = range(self.chunk_size)
        parts = rows.split(self._rows_at_once(rows, self.chunk_size * self._tokens_at_once))
        tokens = [self.tokens_at(self.start_decoding(part), places) for part in parts]
        return torch.cat(tokens).view(*latents.shape[:-1], self.chunk_size)

    @property
    def _tokens_at_once(self) -> int:
        return min(self.vocab_size, _TOKENS_AT_ONCE)

    def _likeliest(self, features: Tensor) -> Tensor:
        """Tokens from the features of places, (rows, width)."""
        best = features.new_full((len(features),), -torch.inf)
        tokens = torch.zeros(len(features), dtype=torch.long, device=features.device)
        for number, weight in enumerate(self.embedding.weight.split(_TOKENS_AT_ONCE)):
            value, token = linear(features, weight).max(dim=-1)
            # Strictly greater: the first of equal logits counts, as in one argmax over all.
            better = value > best
            best = torch.maximum(best, value)  # NaN stays NaN
            tokens = torch.where(better, number * _TOKENS_AT_ONCE + token, tokens)
        require_finite("logits of the autoencoder", best)
        return tokens

    @typed
    def loss(
        self, tokens: Int[Tensor, "*batch chunk"], generator: torch.Generator | None = None
    ) -> AutoencoderLoss:
        """Loss of each chunk, at least in float32; see `ChunkAutoencoder.loss`."""
        self._check_chunks(tokens)
        read = self._alone(tokens, torch.ones_like(tokens, dtype=torch.bool))
        return self._loss(tokens, *read, generator)

    def _loss(
        self, tokens: Tensor, read: Tensor, known: Tensor, generator: torch.Generator | None
    ) -> AutoencoderLoss:
        """Loss of reconstructing `tokens` from the posterior of the places `read`."""
        if self.training:
            known = known & (self._uniform(read.shape, generator) >= self.token_masking)
        posterior = self._encode(read, known)
        latents = self._disturb(posterior, generator) if self.training else posterior.mean
        reconstruction = self.token_nats(latents, tokens).sum(dim=-1)
        posterior = DiagonalGaussian(
            _at_least_float32(posterior.mean), _at_least_float32(posterior.std)
        )
        kl = posterior.kl_to_standard_normal()
        clipped = kl.clamp_min(self.kl_clip).sum(dim=-1)
        return AutoencoderLoss(
            total=reconstruction + self.kl_weight * clipped,
            reconstruction=reconstruction,
            kl=kl.sum(dim=-1),
        )

    def _encode(self, read: Tensor, known: Tensor) -> DiagonalGaussian:
        features = self._read(torch.where(known, read.long(), _MASKED))
        mean, log_std = self._parameters_of(features).chunk(2, dim=-1)
        std = log_std.clamp(*_LOG_STD_RANGE).exp()
        return DiagonalGaussian(mean.to(std.dtype), std)  # on GPUs autocast widens exp

    def _read(self, ids: Tensor) -> Tensor:
        """What the encoder makes of each token by itself: its embedding, or the mask's."""
        masked = ids == _MASKED
        embedded = self.embedding(torch.where(masked, 0, ids))
        return torch.where(masked[..., None], self.mask_embedding, embedded)

    def _disturb(self, posterior: DiagonalGaussian, generator: torch.Generator | None) -> Tensor:
        """A sample of the posterior with some of its dimensions dropped."""
        mean = posterior.mean
        noise = standard_normal((1, *mean.shape), generator, dtype=mean.dtype, device=mean.device)
        latents = posterior.rsample_from(noise).squeeze(0)
        kept = self._uniform(latents.shape, generator) >= self.latent_dropout
        return latents * kept / (1 - self.latent_dropout)

    def _uniform(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        device = self.embedding.weight.device
        return standard_uniform(shape, generator, dtype=torch.get_default_dtype(), device=device)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
