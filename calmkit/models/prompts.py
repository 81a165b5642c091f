"""Prompts as texts, for a model that has its tokenizer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from .generation import Generation

__all__ = ["Tokenizer", "encoded", "with_texts"]


@runtime_checkable
class Tokenizer(Protocol):
    """What a model needs of its tokenizer."""

    @property
    def end_id(self) -> int:
        """Id of the token at both ends of a text."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without end tokens."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of token ids."""
        ...


def encoded(
    prompts: Sequence[Sequence[int]] | Sequence[str] | str, tokenizer: Tokenizer | None
) -> tuple[list[Sequence[int]], Tokenizer | None]:
    """Token ids of prompts.

    An end token opens every document, so an empty text still has one token.

    Args:
        prompts: Texts or token ids; a single text is one prompt.
        tokenizer: The model's.

    Returns:
        The ids, and the tokenizer if the prompts are texts.

    Raises:
        ValueError: If texts are given and there is no tokenizer, both texts and ids, or the ids
            of one prompt without a list around them.
    """
    listed = [prompts] if isinstance(prompts, str) else list(prompts)
    if any(isinstance(prompt, int) for prompt in listed):
        raise ValueError(
            "prompts must be a list of prompts, each a text or a list of token ids; got token ids "
            "alone. A single prompt stands in a list, too: [[1, 2, 3]]."
        )
    texts = [prompt for prompt in listed if isinstance(prompt, str)]
    if not texts:
        return [prompt for prompt in listed if not isinstance(prompt, str)], None
    if len(texts) != len(listed):
        raise ValueError("prompts must be all texts or all token ids; got both.")
    if tokenizer is None:
        raise ValueError(
            "prompts must be token ids for a model without a tokenizer; got text. Set "
            "model.tokenizer, or save the model with its tokenizer: calmkit.load then sets it."
        )
    return [[tokenizer.end_id, *tokenizer.encode(text)] for text in texts], tokenizer


def with_texts(generations: list[Generation], tokenizer: Tokenizer | None) -> list[Generation]:
    """The generations with their texts, if the prompts were texts."""
    if tokenizer is None:
        return generations
    return [replace(one, text=tokenizer.decode(one.tokens)) for one in generations]
