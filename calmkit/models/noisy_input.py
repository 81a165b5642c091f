r"""Noise on what an input encoder reads, in training only.

    x' = x + t rms(x) e,    e ~ N(0, I),    t ~ U[0, size] for each row of text,

where x is a token embedding (`ChunkEmbedding`), a latent (`LatentEmbedding`) or, for an encoder
that has neither, its vector, and rms(x) its root mean square. Noise relative to x cannot be evaded
by larger embeddings. All chunks of a row share t, so that the backbone can tell how far to trust
its context; half of the rows have less than half of the noise, and rows without noise, as in
evaluation, are among those it was trained on. The size grows linearly from 0 over the first
`warmup_steps` training steps, since noise from the start delays the condition. `fit` tells the
number of each step; a loop of your own calls `begin_step`.

In generation a model reads its own chunks, which are worse than the text that it was trained on.
Noise makes it rely less on each of them. It costs accuracy after true text, which is what a Brier
score measures.

Source: for noise on the context of a continuous model, Rouard et al., "Continuous audio language
models", arXiv 2509.06926.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.bounds import check_at_least, check_in
from calmkit.distributions import standard_normal, standard_uniform
from calmkit.typing import typed

from .input_encoder import InputEncoder

__all__ = ["NoisyInput"]


class NoisyInput(InputEncoder):
    """Adds noise to what another input encoder reads, while a model is trained.

    Attributes:
        encoder: The encoder.
        size: Largest t, reached after the warm-up.
    """

    def __init__(self, encoder: InputEncoder, *, size: float, warmup_steps: int = 0) -> None:
        """Wrap an encoder.

        Args:
            encoder: The encoder.
            size: Largest noise, relative to what is read; 0 changes nothing.
            warmup_steps: Training steps over which the size grows from 0.

        Raises:
            ValueError: If the size is not finite or negative, or the number of steps negative.
        """
        super().__init__()
        check_in("[0, inf)", size=size)
        check_at_least(0, warmup_steps=warmup_steps)
        self.encoder = encoder
        self.vocab_size, self.chunk_size = encoder.vocab_size, encoder.chunk_size
        self.hidden_size = encoder.hidden_size
        self.size = size
        self.warmup_steps = warmup_steps
        # Not counted here: a step can have several passes, in several processes.
        self.register_buffer("growth", torch.ones(()), persistent=False)
        self.begin_step(0)

    def begin_step(self, step: int) -> None:
        """Set the size for a training step.

        Args:
            step: Number of the step, from 0.
        """
        self.growth.fill_(min(1.0, (step + 1) / max(1, self.warmup_steps)))

    @property
    def autoencoder(self) -> ChunkAutoencoder | None:
        """The autoencoder whose latents the encoder reads; or None."""
        return self.encoder.autoencoder

    @typed
    def forward(
        self, tokens: Int[Tensor, "*batch chunk"], real: Bool[Tensor, "*batch chunk"]
    ) -> Float[Tensor, "*batch hidden"]:
        """Encode chunks without noise; see `InputEncoder.forward`."""
        return self.encoder(tokens, real)

    @typed
    def training_vectors(
        self,
        tokens: Int[Tensor, "*batch chunk"],
        real: Bool[Tensor, "*batch chunk"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch hidden"]:
        """Encode chunks with noise, in training mode; see `InputEncoder.training_vectors`."""
        if not self.training or self.size == 0:
            return self.encoder.training_vectors(tokens, real, generator)
        size = self.size * self.growth
        # One number for each row of chunks, and for a chunk without a row.
        shape = (*tokens.shape[:-2], 1) if tokens.dim() > 1 else ()

        def perturb(features: Tensor) -> Tensor:
            like = {"dtype": features.dtype, "device": features.device}
            noise = standard_normal(features.shape, generator, **like)
            scale = features.detach().square().mean(dim=-1, keepdim=True).sqrt()
            each = share.view(*shape, *[1] * (features.dim() - len(shape)))
            return features + (size * each).to(features.dtype) * scale * noise

        share = standard_uniform(shape, generator, dtype=torch.float32, device=tokens.device)
        return self.encoder.perturbed(tokens, real, perturb)

    @typed
    def perturbed(
        self,
        tokens: Int[Tensor, "*batch chunk"],
        real: Bool[Tensor, "*batch chunk"],
        perturb: Callable[[Tensor], Tensor],
    ) -> Float[Tensor, "*batch hidden"]:
        """As `InputEncoder.perturbed`: changes what the encoder reads."""
        return self.encoder.perturbed(tokens, real, perturb)
