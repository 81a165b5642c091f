r"""CALM: a language model over chunks.

    chunk t --input encoder--> vector --backbone--> state h_t --head--> latent of chunk t + 1
                                                     latent --frozen decoder--> K tokens

Training asks the head, at every position, for the posterior that the frozen autoencoder gives
the next chunk. The first chunk of a document is read and never asked for.

Source: "Continuous Autoregressive Language Models", arXiv 2510.27688.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.backbones import Backbone
from calmkit.chunking import ChunkBatch
from calmkit.heads import Head
from calmkit.nn import evaluation_view
from calmkit.typing import typed

from .base import LanguageModel, ModelLoss
from .draws import ChunkDraws, draw_latents
from .input_encoder import InputEncoder

__all__ = ["CALM"]


class CALM(LanguageModel):
    """Continuous autoregressive language model, assembled from built parts."""

    def __init__(
        self,
        *,
        autoencoder: ChunkAutoencoder,
        input_encoder: InputEncoder,
        backbone: Backbone,
        head: Head,
    ) -> None:
        """Join the parts; the autoencoder is frozen.

        Raises:
            ValueError: If sizes that two parts share differ, or the input encoder reads latents
                of another autoencoder.
        """
        super().__init__()
        for name, first, second in (
            ("chunk_size of autoencoder and input_encoder",
             autoencoder.chunk_size, input_encoder.chunk_size),
            ("vocab_size of autoencoder and input_encoder",
             autoencoder.vocab_size, input_encoder.vocab_size),
            ("hidden_size of input_encoder and backbone",
             input_encoder.hidden_size, backbone.hidden_size),
            ("hidden_size of the backbone and cond_size of the head",
             backbone.hidden_size, head.cond_size),
            ("latent_size of autoencoder and head", autoencoder.latent_size, head.latent_size),
        ):  # fmt: skip
            if first != second:
                raise ValueError(f"{name} must be equal; got {first} and {second}.")
        if input_encoder.autoencoder not in (None, autoencoder):
            raise ValueError(
                "input_encoder must read the latents of the model's own autoencoder; got one "
                f"that was made with another {type(input_encoder.autoencoder).__name__}. Give "
                "the same object to both."
            )
        self.autoencoder = autoencoder.freeze()
        self.input_encoder = input_encoder
        self.backbone = backbone
        self.head = head

    @property
    def chunk_size(self) -> int:
        """K, tokens in a chunk."""
        return self.autoencoder.chunk_size

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.autoencoder.vocab_size

    def loss(self, batch: ChunkBatch, generator: torch.Generator | None = None) -> ModelLoss:
        """The head's loss of every next chunk; see `LanguageModel.loss`."""
        cond = self._predicting_states(batch)
        with torch.no_grad():
            posterior = self.autoencoder.encode_rows(batch)
        per_position = self.head.loss(cond, posterior[:, 1:], generator)
        if per_position.shape != cond.shape[:-1]:
            raise ValueError(
                f"loss of {type(self.head).__name__} must give one number per position, "
                f"{tuple(cond.shape[:-1])}; got {tuple(per_position.shape)}."
            )
        return ModelLoss.over(per_position, batch.predictable()[:, 1:])

    @typed
    def draws(
        self, states: Float[Tensor, "*batch hidden"], generator: torch.Generator | None = None
    ) -> ChunkDraws:
        """The next chunk after some states; see `LanguageModel.draws`."""
        return ChunkDraws(self.head, self.autoencoder, states, generator)

    @typed
    @torch.no_grad()
    def sample_chunks(
        self,
        cond: Float[Tensor, "*batch hidden"],
        num_samples: int,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "samples *batch chunk"]:
        """Draw the next chunk's tokens, given hidden states, in evaluation mode.

        Raises:
            NonFiniteError: If states, latents or logits are not finite.
        """
        head, autoencoder = evaluation_view(self.head), evaluation_view(self.autoencoder)
        return autoencoder.decode_tokens(draw_latents(head, cond, num_samples, generator))
