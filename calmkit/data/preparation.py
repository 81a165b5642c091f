"""What a prepared folder is made of: its sources, its options, and the key of both."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from calmkit import __version__
from calmkit.bounds import check_at_least, check_in
from calmkit.extras import require
from calmkit.files import file_digest
from calmkit.text import Source, TextTokenizer, check_vocab_size

from .known_tokenizers import find_tokenizer

__all__ = ["SHARD_TOKENS", "Preparation", "key_of"]

SHARD_TOKENS = 2**27

_LEARN = "train:"


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The sources and options of a prepared folder.

    Attributes:
        sources: The files.
        tokenizer: As in `find_tokenizer`, or `train:8192` to train one with that many ids on the
            training side.
        text_field: Key or column of the text.
        validation: Files of held-out text; documents of the sources that occur in them are
            dropped. If empty, documents are held out by a hash of the content.
        validation_fraction: Share of the documents to hold out, in (0, 1).
        seed: Seed of the held-out split and of the tokenizer's training sample.
        end_token: The token that ends a text. None: the one in the tokenizer's files.
        shard_tokens: Tokens in a file.

    Raises:
        ValueError: If an argument is out of range.
    """

    sources: Sequence[Source]
    tokenizer: str
    text_field: str = "text"
    validation: Sequence[Source] = ()
    validation_fraction: float = 0.1
    seed: int = 0
    end_token: str | None = None
    shard_tokens: int = SHARD_TOKENS

    def __post_init__(self) -> None:
        """Refuse values that would fail later."""
        check_in("(0, 1)", validation_fraction=self.validation_fraction)
        check_at_least(0, seed=self.seed)
        check_at_least(1, shard_tokens=self.shard_tokens)
        if self.learns and self.end_token is not None:
            raise ValueError(
                "end_token must be left out when training a tokenizer, which has its own; "
                f"got {self.end_token!r}."
            )
        if self.learns:
            check_vocab_size(self.size_to_learn)

    @cached_property
    def plan(self) -> dict[str, Any]:
        """The options that affect the result, as JSON values; reads all sources for digests."""
        require("tokenizers", "Preparation")
        import tokenizers

        content = self.tokenizer
        if not self.learns:
            content = hashlib.sha256(self.given_tokenizer.to_json().encode()).hexdigest()
        return {
            "calmkit": __version__,
            "tokenizers": tokenizers.__version__,
            "tokenizer": [[self.tokenizer, content]],
            "end_token": self.end_token,
            "text_field": self.text_field,
            "validation_fraction": None if self.validation else self.validation_fraction,
            "seed": self.seed,
            "shard_tokens": self.shard_tokens,
            "validation": [_facts(source) for source in self.validation],
            "sources": [_facts(source) for source in self.sources],
        }

    @property
    def key(self) -> str:
        """A key of contents and options, independent of file names."""
        return key_of(self.plan)

    @property
    def learns(self) -> bool:
        """Whether a tokenizer is trained on the text."""
        return self.tokenizer.startswith(_LEARN)

    @property
    def size_to_learn(self) -> int:
        """Size of the tokenizer to train.

        Raises:
            ValueError: If it is not a number.
        """
        size = self.tokenizer.removeprefix(_LEARN)
        if not size.isdecimal():
            raise ValueError(
                f"tokenizer must be {_LEARN}SIZE, with a whole number; got {self.tokenizer!r}."
            )
        return int(size)

    @cached_property
    def given_tokenizer(self) -> TextTokenizer:
        """The existing tokenizer.

        Raises:
            ValueError: As in `find_tokenizer`.
        """
        return find_tokenizer(self.tokenizer, end_token=self.end_token)


def _facts(source: Source) -> list[Any]:
    """Name, size and digest of a source."""
    return [source.name, source.path.stat().st_size, file_digest(source.path)]


def key_of(plan: Mapping[str, Any]) -> str:
    """The key of the preparation with this plan.

    Args:
        plan: A plan, such as the `options` of a manifest.

    Raises:
        KeyError: If it is not a plan.
    """
    nameless = dict(plan)
    for kind in ("tokenizer", "sources", "validation"):
        nameless[kind] = [facts[1:] for facts in plan[kind]]
    return hashlib.sha256(json.dumps(nameless, sort_keys=True).encode()).hexdigest()
