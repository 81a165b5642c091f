r"""Prompts with their responses, for fine-tuning.

They are read from JSON lines, each with the strings "prompt" and "response":

    {"prompt": "Which animal barks?\n", "response": "The dog."}

As tokens a pair is end + prompt, response + end. That is what `calmkit generate` begins with, and
what it stops at. Prompt and response are encoded apart, as they are when the model is used: no
token straddles their border.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calmkit.text import content_key, read_json_lines

from .tokenizer import TextTokenizer

__all__ = ["TextPair", "TokenPair", "encode_pairs", "read_pairs", "split_pairs"]


@dataclass(frozen=True)
class TextPair:
    """A prompt and the response to it.

    Attributes:
        prompt: May be empty: the response then begins a document.
        response: Some text.
        place: Where it is from, "file:line", for error messages.
    """

    prompt: str
    response: str
    place: str


@dataclass(frozen=True, eq=False)
class TokenPair:
    """A tokenized pair.

    Attributes:
        prompt: The end token, then the prompt's ids.
        response: The response's ids, without an end token.
        place: Where it is from, "file:line", for error messages.
    """

    prompt: np.ndarray
    response: np.ndarray
    place: str


def read_pairs(path: Path | str) -> list[TextPair]:
    """Read a `.jsonl` file of pairs.

    Raises:
        ValueError: If the file cannot be read, holds fewer than two pairs, or a line lacks one of
            the two strings or has a blank response; names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"finetune must be an existing .jsonl file; got {str(path)!r}.")
    pairs = [
        TextPair(place=place, **fields)
        for place, fields in read_json_lines(path, ["prompt", "response"], name="finetune")
    ]
    for pair in pairs:
        if not pair.response.strip():
            raise ValueError(f'"response" must hold some text; {pair.place} has none.')
    if len(pairs) < 2:
        raise ValueError(
            "finetune must hold at least 2 pairs, one to train on and one to validate on; "
            f"{str(path)!r} holds {len(pairs)}."
        )
    return pairs


def split_pairs(
    pairs: Sequence[TextPair], *, validation_fraction: float, seed: int
) -> tuple[list[TextPair], list[TextPair]]:
    """Hold out random prompts, each with all of its responses.

    Prompts that agree but for white space count as one.

    Args:
        pairs: At least two different prompts.
        validation_fraction: Share of the prompts to hold out, in (0, 1); at least one prompt is
            on either side.
        seed: The same seed gives the same split.

    Returns:
        Training pairs, validation pairs, each in the given order.

    Raises:
        ValueError: If there are fewer than two different prompts or an argument is out of range.
    """
    if not 0.0 < validation_fraction < 1.0:
        raise ValueError(f"validation_fraction must be in (0, 1); got {validation_fraction}.")
    if seed < 0:
        raise ValueError(f"seed must be at least 0; got {seed}.")
    keys = [content_key(pair.prompt) for pair in pairs]
    prompts = list(dict.fromkeys(keys))
    if len(prompts) < 2:
        raise ValueError(
            "pairs must have at least 2 different prompts, one to train on and one to validate "
            f"on; got {len(prompts)}."
        )
    count = min(max(1, round(validation_fraction * len(prompts))), len(prompts) - 1)
    order = np.random.default_rng(seed).permutation(len(prompts))
    held_out = {prompts[index] for index in order[:count].tolist()}
    sides: tuple[list[TextPair], list[TextPair]] = ([], [])
    for pair, key in zip(pairs, keys, strict=True):
        sides[int(key in held_out)].append(pair)
    return sides


def encode_pairs(pairs: Sequence[TextPair], tokenizer: TextTokenizer) -> list[TokenPair]:
    """Tokenize pairs.

    Args:
        pairs: Any pairs.
        tokenizer: Gives the ids.
    """
    prompts = tokenizer.encode_many([pair.prompt for pair in pairs])
    responses = tokenizer.encode_many([pair.response for pair in pairs])
    return [
        TokenPair(
            np.array([tokenizer.end_id, *prompt], dtype=np.int32),
            np.array(response, dtype=np.int32),
            pair.place,
        )
        for pair, prompt, response in zip(pairs, prompts, responses, strict=True)
    ]
