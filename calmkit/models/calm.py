r"""CALM: a language model over chunks.

    chunk t --input encoder--> vector --backbone--> state h_t --head--> latent of chunk t + 1
                                                     latent --frozen decoder--> K tokens

Training asks the head, at every position, for the posterior that the frozen autoencoder gives
the next chunk. The first chunk of a document is read and never asked for.

Source: "Continuous Autoregressive Language Models", arXiv 2510.27688.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from calmkit.attention import AttentionMask
from calmkit.autoencoders import ChunkAutoencoder
from calmkit.backbones import Backbone
from calmkit.chunking import ChunkBatch, chunk_prompts
from calmkit.heads import Head
from calmkit.models.embedding import ChunkEmbedding
from calmkit.models.generation import Generation, check_request, collect, tokens_of_one_row
from calmkit.nn import evaluation_mode
from calmkit.sampling import PlainSampler, Sampler
from calmkit.typing import typed

__all__ = ["CALM", "CALMLoss"]


@typed
@dataclass(frozen=True, eq=False)
class CALMLoss:
    """Loss of a batch, in the head's own unit; lower is better.

    Attributes:
        total: Mean over the counted positions; zero if there is none.
        per_position: Loss of predicting the chunk after each position.
        counted: False where that chunk is the first of a document, or empty.
    """

    total: Float[Tensor, ""]
    per_position: Float[Tensor, "batch predictions"]
    counted: Bool[Tensor, "batch predictions"]


class CALM(nn.Module):
    """Continuous autoregressive language model, assembled from built parts."""

    def __init__(
        self,
        *,
        autoencoder: ChunkAutoencoder,
        input_encoder: ChunkEmbedding,
        backbone: Backbone,
        head: Head,
    ) -> None:
        """Join the parts; the autoencoder is frozen.

        Raises:
            ValueError: If sizes that two parts share differ.
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
        self.autoencoder = autoencoder.freeze()
        self.input_encoder = input_encoder
        self.backbone = backbone
        self.head = head

    @property
    def chunk_size(self) -> int:
        """K, tokens in a chunk."""
        return self.autoencoder.chunk_size

    @typed
    def hidden_states(self, batch: ChunkBatch) -> Float[Tensor, "batch positions hidden"]:
        """The backbone's state after each chunk, packed documents kept apart."""
        vectors = self.input_encoder(batch.tokens, batch.real)
        one_document_each = all(len(row) == 1 for row in batch.lengths)
        mask = AttentionMask.causal() if one_document_each else AttentionMask.packed(batch.lengths)
        return self.backbone(vectors, mask)

    def loss(self, batch: ChunkBatch, generator: torch.Generator | None = None) -> CALMLoss:
        """The head's loss at every position that has a next chunk in its document.

        Args:
            batch: Rows of chunks, at least two positions long.
            generator: Source of randomness; torch's global one if None.

        Raises:
            ValueError: If the rows hold fewer than two chunks, or chunks of another size.
        """
        if batch.tokens.shape[1] < 2:
            raise ValueError(
                "batch must be at least 2 chunks long to predict one; "
                f"got {batch.tokens.shape[1]}."
            )
        cond = self.hidden_states(batch)[:, :-1]
        with torch.no_grad():
            target = self.autoencoder.encode(batch.tokens[:, 1:])
        per_position = self.head.loss(cond, target, generator)
        counted = batch.predictable()[:, 1:]
        total = torch.where(counted, per_position, 0.0).sum() / counted.sum().clamp_min(1)
        return CALMLoss(total, per_position, counted)

    @typed
    @torch.no_grad()
    def sample_chunks(
        self,
        cond: Float[Tensor, "*batch hidden"],
        num_samples: int,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "samples *batch chunk"]:
        """Draw the next chunk's tokens, given hidden states."""
        return self.autoencoder.decode_tokens(self.head.sample(cond, num_samples, generator))

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        eos_id: int | None = None,
        sampler: Sampler | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Generation]:
        """Continue prompts of any lengths.

        Each prompt is padded on the left of its first chunk, so that it ends at a chunk's edge
        and the text goes on directly after it; training rows begin with such chunks too.

        Args:
            prompts: Token ids of each prompt; none empty.
            max_new_tokens: Most tokens to add to a prompt; need not be a multiple of K.
            eos_id: The end token: text stops before it, also inside a chunk.
            sampler: How a chunk is chosen; plain sampling at temperature 1 if None.
            generator: Source of randomness; torch's global one if None.

        Returns:
            One result for each prompt, in order.

        Raises:
            ValueError: If there is no prompt, one is empty or an id is outside the vocabulary,
                or max_new_tokens is not positive.
        """
        chunks = self._chunks(prompts, max_new_tokens, eos_id, sampler, generator)
        return collect(chunks, max_new_tokens=max_new_tokens, eos_id=eos_id)

    def stream(
        self,
        prompt: Sequence[int],
        *,
        max_new_tokens: int,
        eos_id: int | None = None,
        sampler: Sampler | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[int]:
        """Continue one prompt and give each token as soon as its chunk is drawn.

        Arguments, and the tokens of the same seed, are those of `generate` with this prompt
        alone. Mistakes are found at once, before the first token is asked for.

        Raises:
            ValueError: As in `generate`.
        """
        chunks = self._chunks([prompt], max_new_tokens, eos_id, sampler, generator)
        return tokens_of_one_row(chunks, max_new_tokens=max_new_tokens, eos_id=eos_id)

    def _chunks(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        eos_id: int | None,
        sampler: Sampler | None,
        generator: torch.Generator | None,
    ) -> Iterator[Tensor]:
        """New chunks (batch, chunk), each computed when it is asked for; checks come at once."""
        check_request(prompts, self.autoencoder.vocab_size, max_new_tokens, eos_id)
        grid = chunk_prompts(prompts, self.chunk_size, fill_id=0)
        sampler = PlainSampler() if sampler is None else sampler
        return self._write(grid, -(-max_new_tokens // self.chunk_size), sampler, generator)

    def _write(
        self,
        grid: tuple[Tensor, Tensor, Tensor],
        new_chunks: int,
        sampler: Sampler,
        generator: torch.Generator | None,
    ) -> Iterator[Tensor]:
        tokens, real, lengths = (x.to(self.backbone.device) for x in grid)
        rows = torch.arange(len(tokens), device=tokens.device)
        cache = self.backbone.new_cache(len(tokens), tokens.shape[1] + new_chunks)
        # Modes hold for a step, not between steps, where the caller's code runs.
        with torch.no_grad(), evaluation_mode(self):
            states = self.backbone(self.input_encoder(tokens, real), cache=cache)
            state = states[rows, lengths - 1]
            # Prompts of different lengths: each row's cache ends where its prompt does.
            cache = cache.select(rows, lengths)
        chunk = None
        for _ in range(new_chunks):
            with torch.no_grad(), evaluation_mode(self):
                if chunk is not None:
                    read = chunk[:, None]
                    vectors = self.input_encoder(read, torch.ones_like(read, dtype=torch.bool))
                    state = self.backbone(vectors, cache=cache)[:, 0]
                draw = partial(self.sample_chunks, state, generator=generator)
                chunk = sampler(draw, generator)
            yield chunk
