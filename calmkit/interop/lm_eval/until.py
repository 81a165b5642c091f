"""Generation that ends at a text, such as a blank line, rather than at a token.

Whether a stop text has appeared is known only after decoding, since a tokenizer may spell it in
many ways and spread it over two chunks. So the rows are generated in rounds: 16 chunks, then 32,
64, ... After each round the text so far is decoded, and rows that have ended leave the batch. A
round starts from the prompt and all of its new chunks. The prompt ends at the same chunk's edge as
before, so every round continues the same distribution; it costs one more reading of the prompt.
"""

from collections.abc import Sequence

import torch

from calmkit.models import LanguageModel, Tokenizer
from calmkit.sampling import Sampler

__all__ = ["before", "write_until"]

_FIRST_ROUND = 16


def before(text: str, until: Sequence[str]) -> str:
    """The text up to the first occurrence of any stop text; empty stop texts are ignored."""
    ends = [place for stop in until if stop and (place := text.find(stop)) >= 0]
    return text[: min(ends, default=len(text))]


def write_until(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    until: Sequence[str],
    max_new_tokens: int,
    sampler: Sampler,
    generator: torch.Generator,
) -> list[str]:
    """Continue prompts until a stop text, an end token or the limit.

    Args:
        model: The model, on any device.
        tokenizer: Its tokenizer.
        prompts: Token ids of each prompt; none empty.
        until: The stop texts, which are cut off.
        max_new_tokens: Maximum number of new tokens.
        sampler: Chooses chunks.
        generator: Source of randomness.

    Returns:
        The new text of each prompt, in order.
    """
    new: list[list[int]] = [[] for _ in prompts]
    left, done, size = list(range(len(prompts))), 0, _FIRST_ROUND * model.chunk_size
    while left and done < max_new_tokens:
        written = model.generate(
            [[*prompts[row], *new[row]] for row in left],
            max_new_tokens=min(size, max_new_tokens - done),
            eos_id=tokenizer.end_id,
            sampler=sampler,
            generator=generator,
        )
        unfinished = []
        for row, one in zip(left, written, strict=True):
            new[row] += one.tokens
            text = tokenizer.decode(new[row])
            if one.finish_reason == "length" and before(text, until) == text:
                unfinished.append(row)
        left, done, size = unfinished, done + size, 2 * size
    return [before(tokenizer.decode(tokens), until) for tokens in new]
