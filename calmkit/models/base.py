"""The base class of language models, which read rows of chunks and generate text.

    tokens --input encoder--> vectors --backbone--> states --?--> the next chunk

A concrete model defines the distribution of the next chunk given a state, and the loss. A model
over single tokens has chunks of one token.
"""

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from calmkit.attention import AttentionMask
from calmkit.backbones import Backbone
from calmkit.chunking import ChunkBatch, chunk_prompts
from calmkit.nn import evaluation_view
from calmkit.recording import Recorded
from calmkit.sampling import (
    BatchTemperature,
    Draw,
    ExactTemperature,
    MostFrequent,
    PlainSampler,
    Sampler,
)
from calmkit.typing import typed

from .generation import (
    Generation,
    TokenStream,
    Written,
    check_request,
    collect,
    step_by_step,
    write,
)
from .input_encoder import InputEncoder
from .prompts import Tokenizer, encoded, with_texts

__all__ = ["LanguageModel", "ModelLoss"]


@typed
@dataclass(frozen=True, eq=False)
class ModelLoss:
    """Loss of a batch, in the model's own unit; lower is better.

    Attributes:
        total: Mean over the counted positions; zero if there are none.
        per_position: Loss of predicting the chunk after each position.
        counted: False where that chunk is the first of a document, empty or not scored.
        parts: Means of the terms that the total is a weighted sum of, without their weights; empty
            if there is only one.
    """

    total: Float[Tensor, ""]
    per_position: Float[Tensor, "batch predictions"]
    counted: Bool[Tensor, "batch predictions"]
    parts: Mapping[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def over(
        per_position: Tensor, counted: Tensor, parts: Mapping[str, Tensor] | None = None
    ) -> "ModelLoss":
        """Build the loss, with means over the counted positions.

        Args:
            per_position: The loss at each position.
            counted: Which of them count.
            parts: Its terms at each position.
        """

        def mean(values: Tensor) -> Tensor:
            return torch.where(counted, values, 0.0).sum() / counted.sum().clamp_min(1)

        means = {name: mean(values).detach() for name, values in (parts or {}).items()}
        return ModelLoss(mean(per_position), per_position, counted, means)


class LanguageModel(nn.Module, Recorded, abc.ABC):
    """Predicts the next chunk of tokens from the previous ones.

    Attributes:
        input_encoder: Maps chunks `*batch chunk`, with a mask of real tokens, to `*batch hidden`.
        backbone: Maps vectors to states.
        tokenizer: Makes token ids of prompts that are texts; None if the model has none.
            `calmkit.load` sets it.
    """

    extra_repr = Recorded.extra_repr

    input_encoder: InputEncoder
    backbone: Backbone
    tokenizer: Tokenizer | None = None

    @property
    @abc.abstractmethod
    def chunk_size(self) -> int:
        """K, tokens in a chunk."""

    @property
    @abc.abstractmethod
    def vocab_size(self) -> int:
        """Number of token ids."""

    @abc.abstractmethod
    def draws(
        self, states: Float[Tensor, "*batch hidden"], generator: torch.Generator | None = None
    ) -> Draw:
        """The next chunk given states, as a black box to draw from.

        Args:
            states: From the backbone.
            generator: Source of randomness; torch's global one if None.
        """

    @abc.abstractmethod
    def loss(self, batch: ChunkBatch, generator: torch.Generator | None = None) -> ModelLoss:
        """The loss at every position that has a next chunk in its document.

        Args:
            batch: Rows of chunks, at least two positions long.
            generator: Source of randomness; torch's global one if None.

        Raises:
            ValueError: If the rows hold fewer than two chunks, or chunks of another size.
        """

    @typed
    def hidden_states(self, batch: ChunkBatch) -> Float[Tensor, "batch positions hidden"]:
        """The backbone's state after each chunk, with packed documents kept separate."""
        return self._states(self.input_encoder(batch.tokens, batch.real), batch)

    def _states(self, vectors: Tensor, batch: ChunkBatch) -> Tensor:
        one_document_each = all(len(row) == 1 for row in batch.lengths)
        mask = AttentionMask.causal() if one_document_each else AttentionMask.packed(batch.lengths)
        return self.backbone(vectors, mask)

    def _predicting_states(self, batch: ChunkBatch, generator: torch.Generator | None) -> Tensor:
        """The states before a next chunk, (batch, predictions, hidden), as training reads it."""
        if batch.tokens.shape[1] < 2:
            raise ValueError(
                "batch must be at least 2 chunks long to predict one; "
                f"got {batch.tokens.shape[1]}."
            )
        vectors = self.input_encoder.training_vectors(batch.tokens, batch.real, generator)
        return self._states(vectors, batch)[:, :-1]

    def sampler_at(
        self,
        temperature: float,
        *,
        candidates: int = 64,
        exact: bool = False,
        top_k: int | None = None,
        top_p: float = 1.0,
    ) -> Sampler:
        """The usual sampler of a temperature, here for a model that only gives draws.

        Args:
            temperature: In (0, 1]; 0 is greedy.
            candidates: Draws per chunk below temperature 1.
            exact: Draw until a chunk is exact; `candidates` are used after 10 000 draws in vain.
            top_k: Keep this many of a softmax's most likely tokens; all if None.
            top_p: Keep the most likely tokens, or the most frequent chunks, with this total share.

        Raises:
            ValueError: If a number is out of range, or the model has no probabilities to rank.
        """
        if temperature == 0 and not exact:
            return MostFrequent(candidates)
        if top_k is not None:
            raise ValueError(
                "top_k must be omitted for a model that only gives draws, since it has no "
                f"probabilities to rank; got {top_k}. Use top_p, which ranks chunks by counts."
            )
        batch = BatchTemperature(temperature, candidates, top_p=top_p)
        if temperature == 1 and top_p == 1:
            return PlainSampler()
        return ExactTemperature(temperature, fallback=batch) if exact else batch

    def generate(
        self,
        prompts: Sequence[Sequence[int]] | Sequence[str] | str,
        *,
        max_new_tokens: int = 100,
        eos_id: int | None = None,
        temperature: float | None = None,
        sampler: Sampler | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Generation]:
        """Continue prompts of any lengths.

        Each prompt is padded on the left of its first chunk, so that it ends at a chunk's edge and
        the new text follows directly. Training rows start with such chunks too.

        Generation always uses evaluation mode and does not change the model, so that other threads
        can use it at the same time.

        Args:
            prompts: Token ids of each prompt, none empty; or texts, if the model has its
                tokenizer. A single text is one prompt.
            max_new_tokens: Maximum number of new tokens; need not be a multiple of K. The default
                is that of `calmkit generate`.
            eos_id: The end token; text stops before it, even inside a chunk. None: no end, or the
                tokenizer's end token if the prompts are texts.
            temperature: Of `sampler_at`; 1 if None.
            sampler: Chooses each chunk, instead of a temperature.
            generator: Source of randomness; torch's global one if None.

        Returns:
            One result per prompt, in order.

        Raises:
            ValueError: If there is no prompt, one is empty or an id is outside the vocabulary,
                max_new_tokens is not positive, the temperature is out of range or given with a
                sampler, or the prompts are texts and the model has no tokenizer.
            NonFiniteError: If states, latents or logits are not finite.
        """
        ids, tokenizer = encoded(prompts, self.tokenizer)
        eos_id = tokenizer.end_id if tokenizer is not None and eos_id is None else eos_id
        chosen = self._chosen(temperature, sampler)
        written = self._write(ids, max_new_tokens, eos_id, chosen, generator)
        with torch.no_grad():
            found = collect(written, len(ids), max_new_tokens=max_new_tokens, eos_id=eos_id)
        return with_texts(found, tokenizer)

    def stream(
        self,
        prompt: Sequence[int] | str,
        *,
        max_new_tokens: int = 100,
        eos_id: int | None = None,
        temperature: float | None = None,
        sampler: Sampler | None = None,
        generator: torch.Generator | None = None,
    ) -> TokenStream:
        """Continue one prompt and yield each token as soon as its chunk is drawn.

        The arguments, and the tokens for a given seed, are those of `generate` with this prompt
        alone. Arguments are checked immediately, before the first token is requested. At the end,
        `generation` of the stream says why it ended.

        Raises:
            ValueError: As in `generate`.
            NonFiniteError: As in `generate`, when the non-finite chunk is reached.
        """
        single = [prompt] if isinstance(prompt, str) else [list(prompt)]
        ids, tokenizer = encoded(single, self.tokenizer)
        eos_id = tokenizer.end_id if tokenizer is not None and eos_id is None else eos_id
        chosen = self._chosen(temperature, sampler)
        written = step_by_step(self._write(ids, max_new_tokens, eos_id, chosen, generator))
        return TokenStream(written, max_new_tokens=max_new_tokens, eos_id=eos_id)

    def _chosen(self, temperature: float | None, sampler: Sampler | None) -> Sampler:
        """The given sampler, or that of the temperature."""
        if sampler is None:
            return self.sampler_at(1.0 if temperature is None else temperature)
        if temperature is not None:
            raise ValueError(
                f"temperature must be left out with a sampler, which has its own; got "
                f"{temperature}."
            )
        return sampler

    def _write(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        eos_id: int | None,
        sampler: Sampler,
        generator: torch.Generator | None,
    ) -> Iterator[Written]:
        """Yield new chunks, each computed on demand; arguments are checked immediately."""
        check_request(prompts, self.vocab_size, max_new_tokens, eos_id)
        return write(
            evaluation_view(self),
            chunk_prompts(prompts, self.chunk_size, fill_id=0),
            new_chunks=-(-max_new_tokens // self.chunk_size),
            eos_id=eos_id,
            sampler=sampler,
            generator=generator,
        )
