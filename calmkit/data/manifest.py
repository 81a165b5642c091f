"""The manifest of a prepared folder: what its files hold, with digests, and where it came from.

    DIR/manifest.json               written last: its presence means that the folder is whole
        tokenizer.json
        train-00000.bin ...         token ids, little-endian, two bytes each or four
        train-documents.bin         where each document begins, and last the number of tokens
        validation-00000.bin ...    likewise
        validation-documents.bin

The tokens of a side are one stream, cut every `shard_tokens`: token i lies in file
i // shard_tokens. A document may begin in one file and end in another.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calmkit import __version__
from calmkit.files import file_digest, replace_file

__all__ = [
    "MANIFEST_FILE",
    "TOKENIZER_FILE",
    "FileFacts",
    "Manifest",
    "SideFacts",
    "SourceFacts",
    "TokenizerFacts",
    "dtype_of_ids",
    "is_prepared",
]

MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"

_FORMAT = 1


@dataclass(frozen=True)
class FileFacts:
    """One file of a side.

    Attributes:
        name: In the folder.
        bytes: Its size.
        sha256: Of its content, in hexadecimal.
    """

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SideFacts:
    """The training text or the held-out text.

    Attributes:
        documents: How many.
        tokens: How many, end tokens included.
        characters: Of the text, for results per character.
        files: The files of tokens in their order, and last that of the documents' offsets.
    """

    documents: int
    tokens: int
    characters: int
    files: tuple[FileFacts, ...]

    @property
    def shards(self) -> tuple[FileFacts, ...]:
        """The files of tokens, in their order."""
        return self.files[:-1]

    @property
    def offsets(self) -> FileFacts:
        """The file of the documents' offsets."""
        return self.files[-1]


@dataclass(frozen=True)
class TokenizerFacts:
    """The tokenizer that gave the ids.

    Attributes:
        sha256: Of `tokenizer.json`.
        vocab_size: Number of token ids.
        end_id: The token on both ends of each document.
        padding_id: The token that fills rows elsewhere; None if there is none.
        name: What it was called: a file, a repository, `train:8192`.
    """

    sha256: str
    vocab_size: int
    end_id: int
    padding_id: int | None
    name: str

    @property
    def dtype(self) -> np.dtype:
        """What holds an id in the files: two bytes while the vocabulary allows it, else four."""
        return dtype_of_ids(self.vocab_size)


@dataclass(frozen=True)
class SourceFacts:
    """One file that text was read from.

    Attributes:
        name: Its path as given, or below the folder given.
        bytes: Its size.
        sha256: Of its content, in hexadecimal.
        documents: How many were taken from it, on both sides.
    """

    name: str
    bytes: int
    sha256: str
    documents: int


@dataclass(frozen=True)
class Manifest:
    """What a prepared folder holds; `read` checks that all of it is there.

    Attributes:
        tokenizer: The tokenizer.
        shard_tokens: Tokens in a file; the last of a side may have fewer.
        train: The text to learn from.
        validation: The text held out.
        sources: Where the text came from.
        held_out: The rule: {"by": "hash", "fraction": 0.1, "seed": 0}, or {"by": "files", ...}.
        skipped: Bad lines that were left out: {"count": 2, "first": ["a.jsonl:7 ...", ...]}.
        options: What it was asked for.
        calmkit: The version that wrote it.
    """

    tokenizer: TokenizerFacts
    shard_tokens: int
    train: SideFacts
    validation: SideFacts
    sources: tuple[SourceFacts, ...]
    held_out: Mapping[str, Any]
    skipped: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    calmkit: str = __version__

    @property
    def digest(self) -> str:
        """SHA-256 of what defines the content: the tokens, their documents, the tokenizer."""
        facts = dataclasses.asdict(self.tokenizer)
        tokenizer = {key: value for key, value in facts.items() if key != "name"}
        sides = [dataclasses.asdict(side) for side in (self.train, self.validation)]
        content = [tokenizer, self.shard_tokens, *sides]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Write `manifest.json`, whole or not at all.

        Args:
            folder: Holds all other files.

        Raises:
            WriteError: If the disk is full.
        """
        facts = dataclasses.asdict(self)
        sides = {"train": facts.pop("train"), "validation": facts.pop("validation")}
        content = {"format": _FORMAT, **facts, "sides": sides, "digest": self.digest}
        replace_file(folder / MANIFEST_FILE, json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the manifest of a folder, and see that its files are there in their full size.

        Args:
            folder: A prepared folder.

        Raises:
            ValueError: If there is no manifest, it is of another format or damaged, or a file is
                missing or has another size.
        """
        path = folder / MANIFEST_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found = content.pop("format")
            manifest = _manifest_of(content) if found == _FORMAT else None
        except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"folder must be one that calmkit prepare wrote; {path} cannot be read "
                f"({type(error).__name__}: {error}). Prepare the text again."
            ) from error
        if manifest is None:
            raise ValueError(
                f"{path} must be of format {_FORMAT}; it is of {found}, of calmkit "
                f"{content.get('calmkit')}. Prepare the text again, or use that version."
            )
        if content["digest"] != manifest.digest:
            raise ValueError(
                f"{path} is damaged: its digest does not fit. Prepare the text again."
            )
        for file in manifest.files:
            size = (folder / file.name).stat().st_size if (folder / file.name).is_file() else None
            if size != file.bytes:
                raise ValueError(
                    f"{folder / file.name} must have {file.bytes} bytes, by {path}; "
                    f"{'it is missing' if size is None else f'it has {size}'}. Prepare the text "
                    "again."
                )
        return manifest

    def check_digests(self, folder: Path) -> None:
        """Read every file once, and compare it with the manifest.

        Args:
            folder: The folder that this is the manifest of.

        Raises:
            ValueError: If a file is another one; names it.
        """
        wanted = {file.name: file.sha256 for file in self.files}
        wanted[TOKENIZER_FILE] = self.tokenizer.sha256
        for name, digest in wanted.items():
            if not (folder / name).is_file() or file_digest(folder / name) != digest:
                raise ValueError(
                    f"{folder / name} is not the file that was written: its SHA-256 differs from "
                    f"that in {MANIFEST_FILE}. Prepare the text again."
                )

    @property
    def files(self) -> tuple[FileFacts, ...]:
        """The files of both sides."""
        return (*self.train.files, *self.validation.files)


def dtype_of_ids(vocab_size: int) -> np.dtype:
    """What holds a token id: two bytes while the vocabulary allows it, else four."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def is_prepared(path: Path) -> bool:
    """Whether a path is a prepared folder: one with a manifest."""
    return (path / MANIFEST_FILE).is_file()


def _manifest_of(content: dict[str, Any]) -> Manifest:
    def side(name: str) -> SideFacts:
        facts = content["sides"][name]
        files = tuple(FileFacts(**file) for file in facts["files"])
        return SideFacts(facts["documents"], facts["tokens"], facts["characters"], files)

    return Manifest(
        tokenizer=TokenizerFacts(**content["tokenizer"]),
        shard_tokens=content["shard_tokens"],
        train=side("train"),
        validation=side("validation"),
        sources=tuple(SourceFacts(**source) for source in content["sources"]),
        held_out=content["held_out"],
        skipped=content["skipped"],
        options=content["options"],
        calmkit=content["calmkit"],
    )
