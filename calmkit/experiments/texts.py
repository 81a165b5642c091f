"""Texts by a saved model: which prompts, which sampler, and text that appears as it is made."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from calmkit.data import TextTokenizer
from calmkit.models import Generation, LanguageModel, TokenLM
from calmkit.sampling import (
    BatchTemperature,
    ExactTemperature,
    PlainSampler,
    Sampler,
    SoftmaxSampler,
)
from calmkit.text import read_json_lines, read_text

__all__ = ["choose_sampler", "pieces_of_text", "read_prompts", "sample_text", "write_texts"]

# Texts that are written side by side.
_ROWS = 16
# What a tokenizer gives for bytes that are not yet a whole character.
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


def choose_sampler(
    model: LanguageModel,
    temperature: float,
    candidates: int,
    *,
    exact: bool = False,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> Sampler:
    """The sampler that options ask for.

    Args:
        model: The model: a `TokenLM` has probabilities, others can only be drawn from.
        temperature: T, in (0, 1] for models that can only be drawn from.
        candidates: N of the batch algorithm.
        exact: Whether to draw until the exact algorithm is done; where it does not end within
            10 000 draws, the batch algorithm decides.
        top_k: Keep that many of a softmax's likeliest tokens; all if None.
        top_p: Keep the likeliest tokens, or the most frequent chunks, with this share.

    Raises:
        ValueError: If a number is out of range, or the model cannot be sampled so.
    """
    if isinstance(model, TokenLM):
        return SoftmaxSampler(temperature, top_k, top_p)
    if top_k is not None:
        raise ValueError(
            "top_k must be left out for a model that can only be drawn from: it has no "
            f"probabilities to rank; got {top_k}. Use top_p, which goes by counts."
        )
    batch = BatchTemperature(temperature, candidates, top_p=top_p)
    if temperature == 1 and top_p == 1:
        return PlainSampler()
    return ExactTemperature(temperature, fallback=batch) if exact else batch


def read_prompts(file: Path) -> list[str]:
    """Prompts from a file: one a line, or JSON lines with a `prompt` field (`.jsonl`).

    Raises:
        ValueError: If the file cannot be read, holds no prompt, or a line is not as it should be.
    """
    if file.suffix == ".jsonl":
        prompts = [line["prompt"] for _, line in read_json_lines(file, ["prompt"], name="prompts")]
    else:  # U+2028, U+0085 and form feeds belong to a line
        prompts = [line for line in read_text(file, name="prompts").split("\n") if line]
    if not prompts:
        raise ValueError(f"prompts must hold at least one line of text; {file} has none.")
    return prompts


def write_texts(
    model: LanguageModel,
    tokenizer: TextTokenizer,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    sampler: Sampler,
    seed: int,
) -> Iterator[tuple[str, Generation, str]]:
    """Continue prompts; each comes with what was generated and with its text.

    Args:
        model: The model, on any device.
        tokenizer: Its tokenizer.
        prompts: Texts; an empty one begins a document.
        max_new_tokens: Most tokens to add to each.
        sampler: Chooses chunks.
        seed: The same seed gives the same texts.
    """
    generator = torch.Generator(model.backbone.device).manual_seed(seed)
    for start in range(0, len(prompts), _ROWS):
        now = prompts[start : start + _ROWS]
        written = model.generate(
            # A document starts after an end token, so an empty prompt is one too.
            [[tokenizer.end_id, *tokenizer.encode(prompt)] for prompt in now],
            max_new_tokens=max_new_tokens,
            eos_id=tokenizer.end_id,
            sampler=sampler,
            generator=generator,
        )
        for prompt, one in zip(now, written, strict=True):
            yield prompt, one, tokenizer.decode(one.tokens)


def pieces_of_text(
    model: LanguageModel,
    tokenizer: TextTokenizer,
    prompt: str,
    *,
    max_new_tokens: int,
    sampler: Sampler,
    seed: int,
) -> Iterator[str]:
    """Continue one prompt; each piece of text comes as soon as its tokens are there.

    The pieces together are the text that `write_texts` gives for this prompt alone.
    """
    tokens = model.stream(
        [tokenizer.end_id, *tokenizer.encode(prompt)],
        max_new_tokens=max_new_tokens,
        eos_id=tokenizer.end_id,
        sampler=sampler,
        generator=torch.Generator(model.backbone.device).manual_seed(seed),
    )
    read: list[int] = []
    shown = ""
    for token in tokens:
        read.append(token)
        text = tokenizer.decode(read)
        # A character may be spread over several tokens: wait for the rest.
        if not text.endswith(_UNFINISHED):
            yield text[len(shown) :]
            shown = text
    yield tokenizer.decode(read)[len(shown) :]


def sample_text(
    model: LanguageModel,
    tokenizer: TextTokenizer,
    prompt: list[int],
    *,
    sampler: Sampler | None,
    max_new_tokens: int,
    seed: int,
) -> str:
    """A text after its prompt, which stands in brackets.

    Args:
        model: The model, on any device.
        tokenizer: Its tokenizer.
        prompt: Tokens before the text.
        sampler: Chooses chunks. None: at temperature 1/2, where texts begin to be fluent (the
            batch algorithm with 64 candidates, or the softmax).
        max_new_tokens: Most tokens to write.
        seed: Decides the draws.
    """
    if sampler is None:
        softmax = isinstance(model, TokenLM)
        sampler = SoftmaxSampler(0.5) if softmax else BatchTemperature(0.5, candidates=64)
    (written,) = model.generate(
        [prompt],
        max_new_tokens=max_new_tokens,
        eos_id=tokenizer.end_id,
        sampler=sampler,
        generator=torch.Generator(model.backbone.device).manual_seed(seed),
    )
    return f"[{tokenizer.decode(prompt)}]{tokenizer.decode(written.tokens)}"
