"""Generate text with a saved model: read prompts, stream the text."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch

from calmkit.data import TextTokenizer
from calmkit.models import Generation, LanguageModel, TokenStream
from calmkit.sampling import Sampler
from calmkit.text import read_json_lines, read_text

__all__ = ["pieces_of_text", "read_prompts", "stream_of_tokens", "write_texts"]

# Number of texts generated in parallel.
_ROWS = 16
# The tokenizer's output for the bytes of an incomplete character.
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


def read_prompts(file: Path) -> list[str]:
    """Read prompts from a file: one per line, or JSON lines with a `prompt` field (`.jsonl`).

    Raises:
        ValueError: If the file cannot be read, holds no prompt, or a line is malformed.
    """
    if file.suffix == ".jsonl":
        prompts = [line["prompt"] for _, line in read_json_lines(file, ["prompt"], name="prompts")]
    else:  # U+2028, U+0085 and form feeds do not end a line
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
    """Continue prompts; yield each prompt with its generation and the generated text.

    Args:
        model: The model, on any device.
        tokenizer: Its tokenizer.
        prompts: Texts; an empty prompt begins a document.
        max_new_tokens: Maximum number of tokens to generate per prompt.
        sampler: Chooses chunks.
        seed: The same seed gives the same texts.
    """
    generator = torch.Generator(model.backbone.device).manual_seed(seed)
    for start in range(0, len(prompts), _ROWS):
        now = prompts[start : start + _ROWS]
        written = model.generate(
            # An end token opens every document, so an empty prompt still has one token.
            [[tokenizer.end_id, *tokenizer.encode(prompt)] for prompt in now],
            max_new_tokens=max_new_tokens,
            eos_id=tokenizer.end_id,
            sampler=sampler,
            generator=generator,
        )
        for prompt, one in zip(now, written, strict=True):
            yield prompt, one, tokenizer.decode(one.tokens)


def stream_of_tokens(
    model: LanguageModel,
    tokenizer: TextTokenizer,
    prompt: str,
    *,
    max_new_tokens: int,
    sampler: Sampler,
    seed: int,
) -> TokenStream:
    """Continue one prompt; the arguments and the tokens are those of `write_texts`."""
    return model.stream(
        [tokenizer.end_id, *tokenizer.encode(prompt)],
        max_new_tokens=max_new_tokens,
        eos_id=tokenizer.end_id,
        sampler=sampler,
        generator=torch.Generator(model.backbone.device).manual_seed(seed),
    )


def pieces_of_text(tokens: Iterable[int], tokenizer: TextTokenizer) -> Iterator[str]:
    """The text of tokens, piece by piece as they come; together the text of all of them."""
    read: list[int] = []
    shown = ""
    for token in tokens:
        read.append(token)
        text = tokenizer.decode(read)
        # A character may span several tokens: wait for the rest.
        if not text.endswith(_UNFINISHED):
            yield text[len(shown) :]
            shown = text
    yield tokenizer.decode(read)[len(shown) :]
