r"""CALM: a language model over chunks.

    chunk t --input encoder--> vector --backbone--> state h_t --head--> latent of chunk t + 1
                                                     latent --frozen decoder--> K tokens

At every position, the head is trained to sample the frozen autoencoder's posterior of the next
chunk. The first chunk of a document is read but never predicted.

Two terms can be added to the head's loss, cross entropy through the decoder and a pull to the
aggregate posterior; see `sample_terms`. Without them nothing is drawn for them.

Source: "Continuous Autoregressive Language Models", arXiv 2510.27688.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.backbones import Backbone
from calmkit.bounds import check_in
from calmkit.chunking import ChunkBatch
from calmkit.distributions import DiagonalGaussian
from calmkit.heads import Head
from calmkit.nn import evaluation_view
from calmkit.typing import typed

from .base import LanguageModel, ModelLoss
from .draws import ChunkDraws, draw_latents
from .input_encoder import InputEncoder
from .sample_terms import decoded_nats, differentiable_latents, pooled_score

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
        cross_entropy_weight: float = 0.0,
        pull_weight: float = 0.0,
    ) -> None:
        """Assemble the parts and freeze the autoencoder.

        Args:
            autoencoder: Maps chunks to latents and back.
            input_encoder: Reads chunks.
            backbone: Maps vectors to states.
            head: Draws latents given states.
            cross_entropy_weight: Weight of the cross entropy of a decoded sample in the loss, in
                nats per token.
            pull_weight: Weight of the pull of samples to the aggregate posterior.

        Raises:
            ValueError: If a part is not built yet, shared sizes of two parts differ, the input
                encoder reads latents of another autoencoder, or a weight is negative or not
                finite.
        """
        super().__init__()
        check_in("[0, inf)", cross_entropy_weight=cross_entropy_weight, pull_weight=pull_weight)
        self.cross_entropy_weight = cross_entropy_weight
        self.pull_weight = pull_weight
        parts = {"autoencoder": autoencoder, "input_encoder": input_encoder,
                 "backbone": backbone, "head": head}  # fmt: skip
        for name, part in parts.items():
            if not isinstance(part, nn.Module):
                named = getattr(part, "__qualname__", repr(part))
                raise ValueError(f"{name} must be a part that is built already; got {named}.")
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
        """The head's loss for every next chunk, with the terms; see `LanguageModel.loss`.

        Raises:
            ValueError: As there, or if a term is to train a head whose samples have no gradient.
        """
        cond = self._predicting_states(batch, generator)
        with torch.no_grad():
            posterior = self.autoencoder.encode_rows(batch)
        per_position = self.head.loss(cond, posterior[:, 1:], generator)
        if per_position.shape != cond.shape[:-1]:
            raise ValueError(
                f"loss of {type(self.head).__name__} must give one number per position, "
                f"{tuple(cond.shape[:-1])}; got {tuple(per_position.shape)}."
            )
        counted = batch.predictable()[:, 1:]
        if not self.cross_entropy_weight and not self.pull_weight:
            return ModelLoss.over(per_position, counted)
        parts = {"head": per_position}
        for name, weight, term in self._terms(cond, posterior[:, 1:], batch, generator):
            parts[name] = term
            per_position = per_position + weight * term
        return ModelLoss.over(per_position, counted, parts)

    def _terms(
        self,
        cond: Tensor,
        target: DiagonalGaussian,
        batch: ChunkBatch,
        generator: torch.Generator | None,
    ) -> Iterator[tuple[str, float, Tensor]]:
        """Name, weight and values of each term; all read the same sample of each position."""
        latents = differentiable_latents(self.head, cond, generator)
        if weight := self.cross_entropy_weight:
            tokens, real = batch.tokens[:, 1:], batch.real[:, 1:]
            yield "cross_entropy", weight, decoded_nats(self.autoencoder, latents, tokens, real)
        if weight := self.pull_weight:
            counted = batch.predictable()[:, 1:]
            yield "pull", weight, pooled_score(latents, target, counted, generator)

    @typed
    def draws(
        self, states: Float[Tensor, "*batch hidden"], generator: torch.Generator | None = None
    ) -> ChunkDraws:
        """The next chunk given states; see `LanguageModel.draws`."""
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
