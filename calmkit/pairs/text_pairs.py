r"""Prompts with their responses, for fine-tuning.

They are read from JSON lines, one after the other, each with the strings "prompt" and "response":

    {"prompt": "Which animal barks?\n", "response": "The dog."}

As tokens a pair is end + prompt, response + end. That is what `calmkit generate` begins with, and
what it stops at; the last end token is not stored. Prompt and response are encoded apart, as they
are when the model is used: no token straddles their border.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from calmkit.data import TextTokenizer
from calmkit.text import content_key, read_json_lines

from .pair_store import PairStore, TokenPair

__all__ = ["TextPair", "encode_pairs", "read_pairs"]

_TOGETHER = 1024  # pairs that are tokenized at a time


@dataclass(frozen=True)
class TextPair:
    """A prompt and the response to it.

    Attributes:
        prompt: May be empty: the response then begins a document.
        response: Some text.
        path: The file that it is from, for error messages.
        line: Its line there.
    """

    prompt: str
    response: str
    path: str = ""
    line: int = 0


def read_pairs(path: Path | str) -> Iterator[TextPair]:
    """Read a `.jsonl` file of pairs, line by line.

    Raises:
        ValueError: If the file cannot be read, holds fewer than two pairs, or a line lacks one of
            the two strings or has a blank response; names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"finetune must be an existing .jsonl file; got {str(path)!r}.")
    count = 0
    for line, fields in read_json_lines(path, ["prompt", "response"], name="finetune"):
        if not fields["response"].strip():
            raise ValueError(f'"response" must hold some text; {path}:{line} has none.')
        yield TextPair(**fields, path=str(path), line=line)
        count += 1
    if count < 2:
        raise ValueError(
            "finetune must hold at least 2 pairs, one to train on and one to validate on; "
            f"{str(path)!r} holds {count}."
        )


def encode_pairs(pairs: Iterable[TextPair], tokenizer: TextTokenizer) -> PairStore:
    """Tokenize pairs; prompts that agree but for white space count as one.

    Args:
        pairs: At least one pair; they are read once, some at a time.
        tokenizer: Gives the ids.

    Raises:
        ValueError: If there is no pair.
    """
    return PairStore.of(_encoded(iter(pairs), tokenizer))


def _encoded(pairs: Iterator[TextPair], tokenizer: TextTokenizer) -> Iterator[TokenPair]:
    while group := list(islice(pairs, _TOGETHER)):
        prompts = tokenizer.encode_many([pair.prompt for pair in group])
        responses = tokenizer.encode_many([pair.response for pair in group])
        for pair, prompt, response in zip(group, prompts, responses, strict=True):
            yield TokenPair(
                np.array([tokenizer.end_id, *prompt], dtype=np.int32),
                np.array(response, dtype=np.int32),
                pair.path,
                pair.line,
                int.from_bytes(content_key(pair.prompt)[:8], "little"),
            )
