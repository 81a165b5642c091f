"""From sources to a prepared folder, as a stream: any size, all cores, a bounded memory.

    files -> documents -> side by hash, token ids -> shards, offsets -> manifest
                          in worker processes         in order

A run that was killed goes on where it was, if its options and its sources are the same, and
writes the same bytes; the manifest comes last. Bytes do not depend on the number of processes
either.
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


def _nobody(*told: object) -> None:
    """Nobody watches."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What is to be prepared, and how.

    Attributes:
        sources: The files.
        tokenizer: As in `find_tokenizer`, or `train:8192` to learn one of that many ids from the
            training side.
        text_field: Key or column of the text.
        validation: Files of held-out text; a document of the sources that is in them too is left
            out. None: held out of the sources by a hash of the content.
        validation_fraction: Share of the documents to hold out, in (0, 1).
        seed: Chooses what is held out, and what a tokenizer is learnt from.
        end_token: The token that ends a text. None: what the tokenizer's files say.
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
        """Refuse what would fail later."""
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
                "end_token must be left out where a tokenizer is learnt, since that has its own; "
                f"got {self.end_token!r}."
            )
        if self.learns:
            check_vocab_size(self.size_to_learn)

    @cached_property
    def plan(self) -> dict[str, Any]:
        """All that shapes the result, as JSON has it; reads every source once, for its digest."""
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
        """Equal for equal contents and options, whatever the files are called."""
        return key_of(self.plan)

    def write(
        self,
        folder: Path,
        *,
        skip_bad: int = 0,
        processes: int | None = None,
        tell: Callable[[str], None] = _nobody,
        progress: Callable[[int, int], None] = _nobody,
    ) -> Manifest:
        """Write a folder, or the rest of one; no other process may write in it (`locks`).

        Args:
            folder: New, empty, or begun by the same preparation.
            skip_bad: How many bad documents may be left out.
            processes: How many encode. None: one for each core, or none beside this one if there
                is little text.
            tell: Is told what begins, where that takes long.
            progress: Is told the bytes of the sources that are done, and all of them.

        Returns:
            The manifest; that of before if the folder was whole already.

        Raises:
            ValueError: If the folder holds something else, the text cannot be read, is too small
                or has too many bad documents.
            WriteError: If the disk is full.
        """
        journal, plan = Journal(folder), self.plan
        if is_prepared(folder):
            journal.remove()
            manifest = Manifest.read(folder)
            check_same_plan(plan, manifest.options, folder)
            return manifest
        _check_begun_here(folder)
        with writing(folder, kept="what was done is kept, and goes on from there"):
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
        """Whether a tokenizer is learnt from the text."""
        return self.tokenizer.startswith(_LEARN)

    @property
    def size_to_learn(self) -> int:
        """Ids of the tokenizer to learn.

        Raises:
            ValueError: If it is no number.
        """
        size = self.tokenizer.removeprefix(_LEARN)
        if not size.isdecimal():
            raise ValueError(
                f"tokenizer must be {_LEARN}SIZE, with a whole number; got {self.tokenizer!r}."
            )
        return int(size)

    @cached_property
    def given_tokenizer(self) -> TextTokenizer:
        """The tokenizer that is not learnt.

        Raises:
            ValueError: As in `find_tokenizer`.
        """
        return find_tokenizer(self.tokenizer, end_token=self.end_token)


def _facts(source: Source) -> list[Any]:
    """Name, size and digest of a source."""
    return [source.name, source.path.stat().st_size, file_digest(source.path)]


def key_of(plan: Mapping[str, Any]) -> str:
    """The key of the preparation with this plan; a manifest's `options` are one.

    Args:
        plan: Its plan.

    Raises:
        KeyError: If it is none.
    """
    nameless = dict(plan)
    for kind in ("tokenizer", "sources", "validation"):
        nameless[kind] = [facts[1:] for facts in plan[kind]]
    return hashlib.sha256(json.dumps(nameless, sort_keys=True).encode()).hexdigest()


def source_of_stream(stream: BinaryIO, folder: Path) -> Source:
    """JSON lines from a pipe, kept beside the folder's notes until it is whole.

    Args:
        stream: Read to its end.
        folder: Where they are to be prepared.

    Raises:
        ValueError: If the folder holds other files.
    """
    _check_begun_here(folder)
    path = folder / WORK_FOLDER / "stdin.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(folder, kept="nothing was prepared"), path.open("wb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)
    return Source(path, ".jsonl", "standard input")


def _check_begun_here(folder: Path) -> None:
    """Refuse a folder with other files.

    Raises:
        ValueError: If it has some, and was not begun by `calmkit prepare`.
    """
    if not folder.exists() or (folder / WORK_FOLDER).exists() or is_prepared(folder):
        return
    if others := [path.name for path in folder.iterdir() if path.name != LOCK_FILE]:
        raise ValueError(
            f"output must be a new or empty folder, or one that was begun; {folder} holds "
            f"{sorted(others)[0]}. Choose another."
        )
