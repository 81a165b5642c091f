r"""An autoencoder that reads a chunk in its context, by attention.

    tokens of chunk and neighbours + places -> self-attention -> a learned query attends to them
                                            -> norm -> (m, log s)
    latent -> M memory vectors -> K learned queries attend to them in each layer -> norm -> logits

The encoder reads the neighbours. The decoder reads only one latent, since a head draws latents one
at a time. A missing neighbour, at a document's border or in `encode`, holds the mask embedding at
all its places, as padding does.

The encoder reads windows of tokens, not hidden states of other chunks: text beyond the neighbours
has no influence, whatever the number of layers.

In the paper, such an autoencoder had a better loss of its own, but the model on top of it had a
BrierLM lower by 0.5: latents that share information with their context are harder to predict.
Judge it by the model. Loss and regularisers: see `regularized`.

Source: "Continuous Autoregressive Language Models", arXiv 2510.27688.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from calmkit.bounds import check_at_least
from calmkit.chunking import ChunkBatch
from calmkit.distributions import DiagonalGaussian
from calmkit.typing import typed

from .attending import AttendingLayer
from .base import AutoencoderLoss
from .neighbours import neighbourhoods
from .regularized import RegularizedAutoencoder

__all__ = ["ContextualAutoencoder"]


class ContextualAutoencoder(RegularizedAutoencoder):
    """Chunk autoencoder whose encoder reads neighbouring chunks."""

    def __init__(
        self,
        chunk_size: int,
        vocab_size: int,
        latent_size: int,
        *,
        width: int = 512,
        depth: int = 2,
        heads: int = 8,
        memory_size: int = 4,
        neighbours_before: int = 1,
        neighbours_after: int = 0,
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
            width: Features of the hidden layers.
            depth: Self-attention layers of the encoder, and cross-attention layers of the decoder.
            heads: Attention heads of each layer.
            memory_size: M, the number of vectors that the decoder makes of a latent; at least 2.
            neighbours_before: Number of chunks read before each chunk.
            neighbours_after: Number of chunks read after it. To predict such latents, a head has
                to guess the later text.
            kl_weight: beta.
            kl_clip: c, in nats per dimension.
            token_masking: Share of input tokens, including the neighbours', that are replaced by
                the mask embedding in training.
            latent_dropout: Share of latent dimensions set to zero in training, the others
                being scaled up to keep the mean.

        Raises:
            ValueError: If a size, weight or share is out of range, or the heads do not divide the
                width.
        """
        check_at_least(1, width=width, depth=depth, heads=heads)
        # Of a single vector every query reads the same, whatever it asks for.
        check_at_least(2, memory_size=memory_size)
        check_at_least(0, neighbours_before=neighbours_before, neighbours_after=neighbours_after)
        if width % heads != 0:
            raise ValueError(f"heads must divide width = {width}; got {heads}.")
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
        self.neighbours_before = neighbours_before
        self.neighbours_after = neighbours_after
        chunks = neighbours_before + 1 + neighbours_after
        self.places = nn.Parameter(torch.empty(chunks * chunk_size, width))
        self.encoder_layers = _layers(depth, width, heads)
        self.pooling_query = nn.Parameter(torch.empty(1, width))
        self.pooling = AttendingLayer(width, heads=heads)
        self.encoder_norm = nn.RMSNorm(width, eps=1e-6)
        self.to_posterior = nn.Linear(width, 2 * latent_size)
        self.from_latent = nn.Linear(latent_size, memory_size * width)
        self.decoder_queries = nn.Parameter(torch.empty(chunk_size, width))
        self.decoder_layers = _layers(depth, width, heads)
        self.decoder_norm = nn.RMSNorm(width, eps=1e-6)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As the base class; branches are scaled so that their sum has about unit variance."""
        super().reset_parameters()
        for parameter in (self.places, self.pooling_query, self.decoder_queries):
            nn.init.normal_(parameter)
        for layer in self.modules():
            if isinstance(layer, AttendingLayer):
                layer.scale_branches(1 / math.sqrt(2 * len(self.encoder_layers)))

    @typed
    def encode_rows(self, batch: ChunkBatch) -> DiagonalGaussian:
        """The posterior of each chunk, given its neighbours; see the module docstring."""
        self._check_chunks(batch.tokens)
        return self._encode(*self._in_rows(batch))

    @typed
    def loss_rows(
        self, batch: ChunkBatch, generator: torch.Generator | None = None
    ) -> AutoencoderLoss:
        """Loss of each chunk, given its neighbours; see `ChunkAutoencoder.loss_rows`."""
        self._check_chunks(batch.tokens)
        return self._loss(batch.tokens, *self._in_rows(batch), generator)

    @typed
    def start_decoding(
        self, latents: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch started"]:
        """The memory vectors, concatenated.

        Raises:
            ValueError: If the latents do not have `latent_size` dimensions.
        """
        self._check_latents(latents)
        return self.from_latent(latents)

    def _in_rows(self, batch: ChunkBatch) -> tuple[Tensor, Tensor]:
        return neighbourhoods(batch, before=self.neighbours_before, after=self.neighbours_after)

    def _alone(self, tokens: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        missing = [n * self.chunk_size for n in (self.neighbours_before, self.neighbours_after)]
        return pad(tokens, missing), pad(real, missing)

    def _parameters_of(self, read: Tensor) -> Tensor:
        # An embedding has about norm 1; scaled, its entries are as large as those of the places.
        places, width = self.places.shape
        hidden = math.sqrt(width) * read.reshape(-1, places, width) + self.places
        for layer in self.encoder_layers:
            hidden = layer(hidden, hidden)
        pooled = self.pooling(self.pooling_query.expand(len(hidden), -1, -1), hidden)
        parameters = self.to_posterior(self.encoder_norm(pooled))
        return parameters.view(*read.shape[:-2], 2 * self.latent_size)

    def _features_at(self, started: Tensor, places: range) -> Tensor:
        """The features of the places; no place attends to another."""
        queries = self.decoder_queries[places.start : places.stop]
        count, width = queries.shape
        memory = started.reshape(-1, started.shape[-1] // width, width)
        hidden = queries.expand(len(memory), -1, -1)
        for layer in self.decoder_layers:
            hidden = layer(hidden, memory)
        return self.decoder_norm(hidden).view(*started.shape[:-1], count, width)


def _layers(depth: int, width: int, heads: int) -> nn.ModuleList:
    return nn.ModuleList(AttendingLayer(width, heads=heads) for _ in range(depth))
