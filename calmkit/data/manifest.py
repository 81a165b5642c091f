"""The manifest of a prepared folder: content and digests of its files, and their sources.

    DIR/manifest.json               written last: marks the folder complete
        tokenizer.json
        train-00000.bin ...         token ids, little-endian, two or four bytes each
        train-documents.bin         the offset of each document, then the number of tokens
        validation-00000.bin ...    likewise
        validation-documents.bin

The tokens of a side form one stream, split into files of `shard_tokens` tokens: token i is in file
i // shard_tokens. A document may start in one file and end in another.
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
# Relative difference of the share of held-out tokens from the one asked for, left unexplained.
_NEAR = 0.2


@dataclass(frozen=True)
class FileFacts:
    """One file of a side.

    Attributes:
        name: Its name in the folder.
        bytes: Its size.
        sha256: Hexadecimal digest of its content.
    """

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SideFacts:
    """The training text or the held-out text.

    Attributes:
        documents: Number of documents.
        tokens: Number of tokens, end tokens included.
        characters: Number of characters, for results per character.
        files: The token files in order, then the file of document offsets.
    """

    documents: int
    tokens: int
    characters: int
    files: tuple[FileFacts, ...]

    @property
    def shards(self) -> tuple[FileFacts, ...]:
        """The token files, in order."""
        return self.files[:-1]

    @property
    def offsets(self) -> FileFacts:
        """The file of the documents' offsets."""
        return self.files[-1]


@dataclass(frozen=True)
class TokenizerFacts:
    """The tokenizer of the ids.

    Attributes:
        sha256: Digest of `tokenizer.json`.
        vocab_size: Number of token ids.
        end_id: The token at both ends of each document.
        padding_id: The tokenizer's padding token; None if there is none.
        name: Its name as given: a file, a repository, `train:8192`.
    """

    sha256: str
    vocab_size: int
    end_id: int
    padding_id: int | None
    name: str

    @property
    def dtype(self) -> np.dtype:
        """Data type of an id in the files: two bytes if the vocabulary allows it, else four."""
        return dtype_of_ids(self.vocab_size)


@dataclass(frozen=True)
class SourceFacts:
    """One source file of the text.

    Attributes:
        name: Its path as given, or below the given folder.
        bytes: Its size.
        sha256: Hexadecimal digest of its content.
        documents: Number of documents taken from it, on both sides.
    """

    name: str
    bytes: int
    sha256: str
    documents: int


@dataclass(frozen=True)
class Manifest:
    """The content of a prepared folder; `read` checks that it is complete.

    Attributes:
        tokenizer: The tokenizer.
        shard_tokens: Tokens in a file; the last one of a side may have fewer.
        train: The training text.
        validation: The held-out text.
        sources: The source files.
        held_out: The rule: {"by": "hash", "fraction": 0.1, "seed": 0}, or {"by": "files", ...}.
        skipped: Skipped bad documents: {"count": 2, "first": ["a.jsonl:7 ...", ...]}.
        options: The options of the preparation.
        calmkit: The version of calmkit that wrote it.
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
        """SHA-256 of the content: the tokens, their documents and the tokenizer."""
        facts = dataclasses.asdict(self.tokenizer)
        tokenizer = {key: value for key, value in facts.items() if key != "name"}
        sides = [dataclasses.asdict(side) for side in (self.train, self.validation)]
        content = [tokenizer, self.shard_tokens, *sides]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def held_out_in_words(self) -> str:
        """The share of the text that is held out, and why it is not the share asked for."""
        side = self.validation
        share = side.tokens / max(1, side.tokens + self.train.tokens)
        both = side.documents + self.train.documents
        told = f"held out: {share:.1%} of the tokens, {side.documents:,} of {both:,} documents"
        asked = self.held_out.get("fraction")
        if asked is None or abs(share - asked) <= _NEAR * asked:
            return f"{told}."
        return (
            f"{told}. validation_fraction = {asked:g} holds out whole documents, each by a hash "
            "of its content; few documents, or a long one among them, make the share of the "
            "tokens differ. --validation FILES holds out a text of your choice."
        )

    def write(self, folder: Path) -> None:
        """Write `manifest.json` atomically.

        Raises:
            WriteError: If the disk is full.
        """
        facts = dataclasses.asdict(self)
        sides = {"train": facts.pop("train"), "validation": facts.pop("validation")}
        content = {"format": _FORMAT, **facts, "sides": sides, "digest": self.digest}
        replace_file(folder / MANIFEST_FILE, json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the manifest of a folder, and check that its files exist in full size.

        Raises:
            ValueError: If there is no manifest, it is damaged or has another format, or a file is
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
        """Read every file and compare its digest with the manifest.

        Raises:
            ValueError: If the digest of a file differs; names the file.
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
    """Data type of a token id: two bytes if the vocabulary allows it, else four."""
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
