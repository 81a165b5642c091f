r"""Input encoders that read latents: the mean m(x) of the frozen autoencoder's posterior.

    LatentEmbedding            LN(W2 silu(W1 m(x))),     l -> 2 d -> d
    TokenAndLatentEmbedding    (t(x) + z(x)) / sqrt(2),  t a ChunkEmbedding, z a LatentEmbedding

Each term has unit variance, and so does the scaled sum. The chunk is encoded alone even if the
autoencoder could read its neighbours, so that a text can be continued chunk by chunk.

A partial chunk, such as the first of a prompt whose length is not a multiple of K, has places
without a token. There the autoencoder reads its mask token (`encode_partial`), as it often did in
training; a padding token would be read as text.

In the paper, latents were the weaker input: BrierLM was 3.25 with latents, 4.40 with both and 4.70
with tokens.

**One autoencoder.** It belongs to the model; an input encoder only refers to it. Its weights are
therefore counted once, saved once, moved with the model and hidden from the optimiser. `CALM`
refuses an input encoder that refers to another autoencoder. Without a model, move the autoencoder
yourself.

Source: "Continuous Autoregressive Language Models", arXiv 2510.27688.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.bounds import check_at_least
from calmkit.nn import scaled_normal_
from calmkit.typing import typed

from .embedding import ChunkEmbedding
from .input_encoder import InputEncoder, unchanged

__all__ = ["LatentEmbedding", "TokenAndLatentEmbedding"]


class LatentEmbedding(InputEncoder):
    """Embeds the latents of chunks; no gradient reaches the autoencoder."""

    def __init__(self, autoencoder: ChunkAutoencoder, hidden_size: int) -> None:
        """Build the MLP.

        Args:
            autoencoder: The model's own.
            hidden_size: Features of the vector.

        Raises:
            ValueError: If the size is not positive.
        """
        super().__init__()
        check_at_least(1, hidden_size=hidden_size)
        self.vocab_size = autoencoder.vocab_size
        self.chunk_size = autoencoder.chunk_size
        self.hidden_size = hidden_size
        # A tuple prevents its registration as a submodule.
        self._referred = (autoencoder,)
        self.mlp = nn.Sequential(
            nn.Linear(autoencoder.latent_size, 2 * hidden_size),
            nn.SiLU(),
            nn.Linear(2 * hidden_size, hidden_size),
            nn.LayerNorm(hidden_size, eps=1e-6),
        )
        scaled_normal_(self)

    @property
    def autoencoder(self) -> ChunkAutoencoder:
        """The autoencoder whose latents are read."""
        return self._referred[0]

    @typed
    def forward(
        self, tokens: Int[Tensor, "*batch chunk"], real: Bool[Tensor, "*batch chunk"]
    ) -> Float[Tensor, "*batch hidden"]:
        """Embed chunks; see `InputEncoder.forward`."""
        return self.perturbed(tokens, real, unchanged)

    @typed
    def perturbed(
        self,
        tokens: Int[Tensor, "*batch chunk"],
        real: Bool[Tensor, "*batch chunk"],
        perturb: Callable[[Tensor], Tensor],
    ) -> Float[Tensor, "*batch hidden"]:
        """As `InputEncoder.perturbed`: changes the latents, `*batch latent`."""
        with torch.no_grad():
            posterior = self.autoencoder.encode_partial(tokens, real)
        return self.mlp(perturb(posterior.mean))


class TokenAndLatentEmbedding(InputEncoder):
    """The sum of a `ChunkEmbedding` and a `LatentEmbedding`, at unit variance."""

    def __init__(self, autoencoder: ChunkAutoencoder, hidden_size: int) -> None:
        """Build both, with the arguments of `LatentEmbedding`.

        Raises:
            ValueError: If the size is not positive.
        """
        super().__init__()
        self.latents = LatentEmbedding(autoencoder, hidden_size)
        self.vocab_size, self.chunk_size = autoencoder.vocab_size, autoencoder.chunk_size
        self.hidden_size = hidden_size
        self.tokens = ChunkEmbedding(self.vocab_size, self.chunk_size, hidden_size)

    @property
    def autoencoder(self) -> ChunkAutoencoder:
        """The autoencoder whose latents are read."""
        return self.latents.autoencoder

    @typed
    def forward(
        self, tokens: Int[Tensor, "*batch chunk"], real: Bool[Tensor, "*batch chunk"]
    ) -> Float[Tensor, "*batch hidden"]:
        """Embed chunks; see `InputEncoder.forward`."""
        return self.perturbed(tokens, real, unchanged)

    @typed
    def perturbed(
        self,
        tokens: Int[Tensor, "*batch chunk"],
        real: Bool[Tensor, "*batch chunk"],
        perturb: Callable[[Tensor], Tensor],
    ) -> Float[Tensor, "*batch hidden"]:
        """As `InputEncoder.perturbed`: changes both, token embeddings and latents."""
        of_tokens = self.tokens.perturbed(tokens, real, perturb)
        return (of_tokens + self.latents.perturbed(tokens, real, perturb)) / math.sqrt(2)
