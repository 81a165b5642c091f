r"""The paper's context-free autoencoder: residual MLPs per token and per chunk.

    tokens -> embedding -> token blocks -> flatten K d to d -> chunk blocks -> norm -> (m, log s)
    latent -> d -> chunk blocks -> K d -> token blocks -> norm -> logits (tied to the embedding)

Training minimises, per chunk and in nats,

    sum_k -log p(x_k | z) + beta sum_i max(c, KL_i),    z ~ N(m, s^2),

where KL_i is the KL of dimension i to a standard normal. Clipped from below at c ("free bits"),
no dimension gains by collapsing to the prior; plain KL (c = 0) collapses most of them. Input
tokens are replaced by a mask embedding and latent dimensions dropped at random, in training
only: information is then spread over the latent, and the decoder tolerates the errors of a
generative head. In evaluation nothing is masked, dropped or drawn: the mean is decoded.

Source: "Continuous Autoregressive Language Models", arXiv 2510.27688.
"""

import math

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from calmkit.autoencoders.base import AutoencoderLoss, ChunkAutoencoder
from calmkit.distributions import DiagonalGaussian
from calmkit.nn import SwiGLU, scaled_normal_
from calmkit.typing import typed

__all__ = ["MLPAutoencoder"]

# Columns of the vocabulary in one product while decoding tokens.
_TOKENS_AT_ONCE = 4096

# exp(-7) = 1e-3 and exp(2) = 7.4: far outside what a trained posterior uses (about 0.3).
_LOG_STD_RANGE = (-7.0, 2.0)


class MLPAutoencoder(ChunkAutoencoder):
    """Chunk autoencoder that sees one chunk at a time."""

    def __init__(
        self,
        chunk_size: int,
        vocab_size: int,
        latent_size: int,
        *,
        width: int = 512,
        ff_size: int | None = None,
        depth: int = 1,
        kl_weight: float = 1e-3,
        kl_clip: float = 0.5,
        token_masking: float = 0.15,
        latent_dropout: float = 0.15,
    ) -> None:
        """Build encoder and decoder.

        Args:
            chunk_size: K, tokens in a chunk.
            vocab_size: Number of token ids.
            latent_size: Dimensions of a latent vector.
            width: Features d inside.
            ff_size: Hidden features of each block; see `SwiGLU`.
            depth: Blocks in each of the four stages.
            kl_weight: beta.
            kl_clip: c, in nats per dimension.
            token_masking: Share of input tokens replaced by the mask embedding in training.
            latent_dropout: Share of latent dimensions set to zero in training, the others
                being scaled up to keep the mean.

        Raises:
            ValueError: If a size, weight or share is out of range.
        """
        super().__init__(chunk_size, vocab_size, latent_size)
        if width < 1 or depth < 0:
            raise ValueError(f"width must be at least 1 and depth 0; got {width} and {depth}.")
        if kl_weight < 0 or kl_clip < 0:
            raise ValueError(
                f"kl_weight and kl_clip must not be negative; got {kl_weight} and {kl_clip}."
            )
        for name, share in {
            "token_masking": token_masking,
            "latent_dropout": latent_dropout,
        }.items():
            if not 0 <= share < 1:
                raise ValueError(f"{name} must be in [0, 1); got {share}.")
        self.kl_weight = kl_weight
        self.kl_clip = kl_clip
        self.token_masking = token_masking
        self.latent_dropout = latent_dropout

        self.embedding = nn.Embedding(vocab_size, width)
        self.mask_embedding = nn.Parameter(torch.zeros(width))
        self.encoder_token_blocks = _blocks(depth, width, ff_size)
        self.squeeze = nn.Linear(chunk_size * width, width)
        self.encoder_chunk_blocks = _blocks(depth, width, ff_size)
        self.encoder_norm = nn.RMSNorm(width, eps=1e-6)
        self.to_posterior = nn.Linear(width, 2 * latent_size)
        self.from_latent = nn.Linear(latent_size, width)
        self.decoder_chunk_blocks = _blocks(depth, width, ff_size)
        self.expand = nn.Linear(width, chunk_size * width)
        self.decoder_token_blocks = _blocks(depth, width, ff_size)
        self.decoder_norm = nn.RMSNorm(width, eps=1e-6)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise: linear layers keep variance; the embedding gives logits of variance 1."""
        scaled_normal_(self)
        nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(self.embedding.embedding_dim))
        nn.init.zeros_(self.mask_embedding)

    @typed
    def encode(self, tokens: Int[Tensor, "*batch chunk"]) -> DiagonalGaussian:
        """The posterior of each chunk, without masking.

        Raises:
            ValueError: If the chunks do not have `chunk_size` tokens.
        """
        self._check_chunks(tokens)
        return self._encode(self.embedding(tokens))

    @typed
    def decode(
        self, latents: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch chunk vocab"]:
        """Logits of the K tokens of each latent.

        Raises:
            ValueError: If the latents do not have `latent_size` dimensions.
        """
        return linear(self._features(latents), self.embedding.weight)

    @typed
    def start_decoding(
        self, latents: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch started"]:
        """The chunk's features, before they are expanded to its places.

        Raises:
            ValueError: If the latents do not have `latent_size` dimensions.
        """
        self._check_latents(latents)
        return self.decoder_chunk_blocks(self.from_latent(latents))

    @typed
    def logits_at(
        self, started: Float[Tensor, "*batch started"], place: int
    ) -> Float[Tensor, "*batch vocab"]:
        """Logits at one place; see `ChunkAutoencoder.logits_at`."""
        return linear(self._features_at(started, place), self.embedding.weight)

    @typed
    @torch.no_grad()
    def tokens_at(
        self, started: Float[Tensor, "*batch started"], place: int
    ) -> Int[Tensor, "*batch"]:
        """The likeliest token at one place; a block of the vocabulary at a time.

        Blocks of many rows by some tokens: the product of few rows by all tokens takes nearly
        twice as long where the vocabulary is large.
        """
        parts = started.reshape(-1, started.shape[-1]).split(self._rows_at_once)
        tokens = [self._likeliest(self._features_at(part, place)) for part in parts]
        return torch.cat(tokens).view(started.shape[:-1])

    @property
    def _rows_at_once(self) -> int:
        return max(1, self._logits_at_once // min(self.vocab_size, _TOKENS_AT_ONCE))

    def _likeliest(self, features: Tensor) -> Tensor:
        """Tokens from the features of places, (rows, width)."""
        best = features.new_full((len(features),), -torch.inf)
        tokens = torch.zeros(len(features), dtype=torch.long, device=features.device)
        for number, weight in enumerate(self.embedding.weight.split(_TOKENS_AT_ONCE)):
            value, token = linear(features, weight).max(dim=-1)
            # Strictly: of equal ones the first counts, as for all logits together.
            better = value > best
            best = torch.where(better, value, best)
            tokens = torch.where(better, number * _TOKENS_AT_ONCE + token, tokens)
        return tokens

    @typed
    @torch.no_grad()
    def decode_tokens(
        self, latents: Float[Tensor, "*batch latent"]
    ) -> Int[Tensor, "*batch chunk"]:
        """The likeliest K tokens of each latent; see `tokens_at`.

        Raises:
            ValueError: If the latents do not have `latent_size` dimensions.
        """
        self._check_latents(latents)
        rows = latents.reshape(-1, latents.shape[-1])
        parts = rows.split(max(1, self._rows_at_once // self.chunk_size))
        tokens = [self._likeliest(self._features(part).flatten(0, 1)) for part in parts]
        return torch.cat(tokens).view(*latents.shape[:-1], self.chunk_size)

    def _features(self, latents: Tensor) -> Tensor:
        """Of all places, (*batch, chunk, width)."""
        hidden = self.expand(self.start_decoding(latents))
        hidden = rearrange(hidden, "... (chunk width) -> ... chunk width", chunk=self.chunk_size)
        return self.decoder_norm(self.decoder_token_blocks(hidden))

    def _features_at(self, started: Tensor, place: int) -> Tensor:
        width = self.embedding.embedding_dim
        part = slice(place * width, (place + 1) * width)
        hidden = linear(started, self.expand.weight[part], self.expand.bias[part])
        return self.decoder_norm(self.decoder_token_blocks(hidden))

    @typed
    def loss(
        self, tokens: Int[Tensor, "*batch chunk"], generator: torch.Generator | None = None
    ) -> AutoencoderLoss:
        """Loss of each chunk; see `ChunkAutoencoder.loss`. In float32 at least.

        Raises:
            ValueError: If the chunks do not have `chunk_size` tokens.
        """
        self._check_chunks(tokens)
        embedded = self.embedding(tokens)
        if self.training:
            masked = self._uniform(tokens.shape, generator) < self.token_masking
            embedded = torch.where(masked[..., None], self.mask_embedding, embedded)
        posterior = self._encode(embedded)
        latents = self._disturb(posterior, generator) if self.training else posterior.mean
        logits = _at_least_float32(self.decode(latents))
        reconstruction = cross_entropy(logits.flatten(0, -2), tokens.flatten(), reduction="none")
        reconstruction = reconstruction.view(tokens.shape).sum(dim=-1)
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

    def _encode(self, embedded: Tensor) -> DiagonalGaussian:
        hidden = rearrange(
            self.encoder_token_blocks(embedded), "... chunk width -> ... (chunk width)"
        )
        hidden = self.encoder_norm(self.encoder_chunk_blocks(self.squeeze(hidden)))
        mean, log_std = self.to_posterior(hidden).chunk(2, dim=-1)
        return DiagonalGaussian(mean, log_std.clamp(*_LOG_STD_RANGE).exp())

    def _disturb(self, posterior: DiagonalGaussian, generator: torch.Generator | None) -> Tensor:
        """A sample of the posterior with some of its dimensions dropped."""
        noise = torch.randn(
            (1, *posterior.mean.shape),
            generator=generator,
            dtype=posterior.mean.dtype,
            device=posterior.mean.device,
        )
        latents = posterior.rsample_from(noise).squeeze(0)
        kept = self._uniform(latents.shape, generator) >= self.latent_dropout
        return latents * kept / (1 - self.latent_dropout)

    def _uniform(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        return torch.rand(shape, generator=generator, device=self.embedding.weight.device)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _blocks(depth: int, width: int, ff_size: int | None) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width, ff_size) for _ in range(depth)))


class ResidualBlock(nn.Module):
    """`x + swiglu(norm(x))`."""

    def __init__(self, width: int, ff_size: int | None) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.feed_forward = SwiGLU(width, ff_size)

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's branch."""
        return x + self.feed_forward(self.norm(x))
