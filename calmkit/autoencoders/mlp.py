"""The paper's context-free autoencoder: residual MLPs per token and per chunk.

    tokens -> embedding -> token blocks -> flatten K d to d -> chunk blocks -> norm -> (m, log s)
    latent -> d -> chunk blocks -> K d -> token blocks -> norm -> logits (tied to the embedding)

The token blocks of the encoder read one token each, so they run once for each distinct token of a
batch (`for_each_distinct`). Loss and regularisers: see `regularized`.

Source: "Continuous Autoregressive Language Models", arXiv 2510.27688.
"""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from calmkit.bounds import check_at_least, check_in
from calmkit.nn import ResidualBlock, for_each_distinct
from calmkit.typing import typed

from .regularized import RegularizedAutoencoder

__all__ = ["MLPAutoencoder"]


class MLPAutoencoder(RegularizedAutoencoder):
    """Chunk autoencoder that reads one chunk at a time."""

    def __init__(
        self,
        chunk_size: int,
        vocab_size: int,
        latent_size: int,
        *,
        width: int = 512,
        ff_size: int | None = None,
        depth: int = 1,
        decoder_depth: int | None = None,
        kl_weight: float = 1e-3,
        kl_clip: float = 0.5,
        token_masking: float = 0.15,
        latent_dropout: float = 0.15,
        norm_eps: float = 1e-6,
    ) -> None:
        """Build encoder and decoder.

        Args:
            chunk_size: K, tokens in a chunk.
            vocab_size: Number of token ids.
            latent_size: Dimensions of a latent vector.
            width: d, features of the hidden layers.
            ff_size: Hidden features of each block; see `SwiGLU`.
            depth: Number of blocks in each of the two stages of the encoder.
            decoder_depth: The same for the decoder; equal to `depth` if None.
            kl_weight: beta.
            kl_clip: c, in nats per dimension.
            token_masking: Share of input tokens replaced by the mask embedding in training.
            latent_dropout: Share of latent dimensions set to zero in training, the others
                being scaled up to keep the mean.
            norm_eps: Added to the mean square in the norms.

        Raises:
            ValueError: If a size, weight, share or `norm_eps` is out of range.
        """
        decoder_depth = depth if decoder_depth is None else decoder_depth
        check_at_least(1, width=width)
        check_at_least(0, depth=depth, decoder_depth=decoder_depth)
        check_in("[0, inf)", norm_eps=norm_eps)
        super().__init__(
            chunk_size,
            vocab_size,
            latent_size,
            width=width,
            kl_weight=kl_weight,
            kl_clip=kl_clip,
            token_masking=token_masking,
            latent_dropout=latent_dropout,
        )
        self.encoder_token_blocks = _blocks(depth, width, ff_size, norm_eps)
        self.squeeze = nn.Linear(chunk_size * width, width)
        self.encoder_chunk_blocks = _blocks(depth, width, ff_size, norm_eps)
        self.encoder_norm = nn.RMSNorm(width, eps=norm_eps)
        self.to_posterior = nn.Linear(width, 2 * latent_size)
        self.from_latent = nn.Linear(latent_size, width)
        self.decoder_chunk_blocks = _blocks(decoder_depth, width, ff_size, norm_eps)
        self.expand = nn.Linear(width, chunk_size * width)
        self.decoder_token_blocks = _blocks(decoder_depth, width, ff_size, norm_eps)
        self.decoder_norm = nn.RMSNorm(width, eps=norm_eps)
        self.reset_parameters()

    @typed
    def start_decoding(
        self, latents: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch started"]:
        """The chunk's features, before they are expanded to places.

        Raises:
            ValueError: If the latents do not have `latent_size` dimensions.
        """
        self._check_latents(latents)
        return self.decoder_chunk_blocks(self.from_latent(latents))

    def _read(self, ids: Tensor) -> Tensor:
        read = super()._read
        return for_each_distinct(lambda some: self.encoder_token_blocks(read(some)), ids)

    def _parameters_of(self, read: Tensor) -> Tensor:
        hidden = rearrange(read, "... chunk width -> ... (chunk width)")
        return self.to_posterior(
            self.encoder_norm(self.encoder_chunk_blocks(self.squeeze(hidden)))
        )

    def _features_at(self, started: Tensor, places: range) -> Tensor:
        width = self.embedding.embedding_dim
        part = slice(places.start * width, places.stop * width)
        hidden = linear(started, self.expand.weight[part], self.expand.bias[part])
        hidden = rearrange(hidden, "... (place width) -> ... place width", width=width)
        return self.decoder_norm(self.decoder_token_blocks(hidden))


def _blocks(depth: int, width: int, ff_size: int | None, norm_eps: float) -> nn.Sequential:
    blocks = (ResidualBlock(width, ff_size, norm_eps=norm_eps) for _ in range(depth))
    return nn.Sequential(*blocks)
