"""From sources to a prepared folder, as a stream: any size, all cores, bounded memory.

    files -> documents -> side by hash, token ids -> shards, offsets -> manifest
                          in worker processes         in order

A killed run resumes where it stopped if its options and sources are unchanged, and writes the same
bytes. The manifest is written last. The bytes do not depend on the number of processes either.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from calmkit import __version__
from calmkit.disk import writing
from calmkit.extras import require
from calmkit.files import file_digest
from calmkit.locks import LOCK_FILE
from calmkit.text import WORK_FOLDER, Journal, Source, check_same_plan

from .folder_work import FolderWork
from .known_tokenizers import find_tokenizer
from .manifest import Manifest, is_prepared
from .tokenizer import TextTokenizer, check_vocab_size

__all__ = ["SHARD_TOKENS", "Preparation", "key_of", "source_of_stream"]

SHARD_TOKENS = 2**27

_LEARN = "train:"


def _ignore(*message: object) -> None:
    """Discard messages and progress."""


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
        if not 0.0 < self.validation_fraction < 1.0:
            raise ValueError(
                f"validation_fraction must be in (0, 1); got {self.validation_fraction}."
            )
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0; got {self.seed}.")
        if self.shard_tokens < 1:
            raise ValueError(f"shard_tokens must be at least 1; got {self.shard_tokens}.")
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

    def write(
        self,
        folder: Path,
        *,
        skip_bad: int = 0,
        processes: int | None = None,
        tell: Callable[[str], None] = _ignore,
        progress: Callable[[int, int], None] = _ignore,
    ) -> Manifest:
        """Write or complete a folder; no other process may write to it (`locks`).

        Args:
            folder: A new or empty folder, or one started by the same preparation.
            skip_bad: Number of bad documents that may be skipped.
            processes: Number of encoding processes. None: one per core, or only this process if
                there is little text.
            tell: Called with a message before each long step.
            progress: Called with the bytes of the sources done so far and in total.

        Returns:
            The manifest; the existing one if the folder is already complete.

        Raises:
            ValueError: If the folder has other content, or the text cannot be read, is too small
                or has too many bad documents.
            WriteError: If the disk is full.
        """
        journal, plan = Journal(folder), self.plan
        if is_prepared(folder):
            journal.remove()
            manifest = Manifest.read(folder)
            check_same_plan(plan, manifest.options, folder)
            return manifest
        _check_output(folder)
        with writing(folder, kept="finished work is kept, and the next run resumes there"):
            state = journal.begin(plan)
            work = FolderWork(
                self,
                folder,
                journal,
                state,
                skip_bad=skip_bad,
                processes=processes,
                tell=tell,
                progress=progress,
            )
            manifest = work.done()
            manifest.write(folder)
        journal.remove()
        return manifest

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


def source_of_stream(stream: BinaryIO, folder: Path) -> Source:
    """Save JSON lines from a pipe beside the folder's journal until the folder is complete.

    Args:
        stream: The pipe, which is read to its end.
        folder: The folder to prepare.

    Raises:
        ValueError: If the folder has other files.
    """
    _check_output(folder)
    path = folder / WORK_FOLDER / "stdin.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(folder, kept="nothing was prepared"), path.open("wb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)
    return Source(path, ".jsonl", "standard input")


def _check_output(folder: Path) -> None:
    """Refuse a folder with other files.

    Raises:
        ValueError: If it has some and was not started by `calmkit prepare`.
    """
    if not folder.exists() or (folder / WORK_FOLDER).exists() or is_prepared(folder):
        return
    if others := [path.name for path in folder.iterdir() if path.name != LOCK_FILE]:
        raise ValueError(
            f"output must be a new, empty or unfinished folder; {folder} holds "
            f"{sorted(others)[0]}. Choose another."
        )
