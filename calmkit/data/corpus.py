r"""From a path to tokenized training and validation text, prepared once.

    documents -> split by document -> tokenizer (training side only) -> two token stores

Copies of one document stand on one side (`content`): what is held out has not been learnt from.

The result is kept in a cache folder under a key made of the text and everything that shapes the
result; a second call only reads the text and maps the files. An entry is written aside and moved
into place in one step, so a killed run leaves no half entry. It carries its key and the SHA-256 of
each of its files, so one that is damaged or renamed is noticed and made anew.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calmkit import __version__
from calmkit.disk import writing
from calmkit.extras import require
from calmkit.files import file_digest

from .content import content_key
from .manifest import Manifest, is_prepared
from .sources import EMBEDDED_NAME, read_documents
from .store import TokenStore
from .text_mixture import TextMixture
from .tokenizer import TextTokenizer, check_vocab_size

__all__ = ["Corpus", "digest_of", "prepare_corpus", "split_documents"]

_LAYOUT = 2  # of an entry; and of what `split_documents` does
_MANIFEST = "manifest.json"
_WRITING = ".writing-"
_STALE_SECONDS = 24 * 3600
_ATTEMPTS = 100
_NEAR_ENOUGH = 0.01


@dataclass(frozen=True, eq=False)
class Corpus:
    """Text that is ready for training.

    Attributes:
        train: Documents to learn from.
        validation: Documents held out; the tokenizer has not seen them either.
        tokenizer: Learnt from the training documents.
        name: What the text is called in results: the file's or folder's name.
        digest: SHA-256 of the documents, to be printed with results: the embedded text differs
            between Python versions, files change.
    """

    train: TokenStore | TextMixture
    validation: TokenStore | TextMixture
    tokenizer: TextTokenizer
    name: str
    digest: str

    @classmethod
    def of_folder(cls, folder: Path, *, name: str) -> "Corpus":
        """Map a prepared folder."""
        return cls(
            train=TokenStore.open(folder, "train"),
            validation=TokenStore.open(folder, "validation"),
            tokenizer=TextTokenizer.load(folder / "tokenizer.json"),
            name=name,
            digest=Manifest.read(folder).digest,
        )


def prepare_corpus(
    path: Path | str | None = None,
    *,
    vocab_size: int,
    validation_fraction: float = 0.1,
    seed: int = 0,
    cache_dir: Path | str | None = None,
) -> Corpus:
    """Read, split and tokenize text, or find it in the cache.

    Args:
        path: A `.txt` or `.jsonl` file, a folder of them, or None for the embedded text.
        vocab_size: Number of token ids, at least 257.
        validation_fraction: Share of the characters to hold out, in (0, 1); whole documents are
            held out, so it is met as nearly as they allow.
        seed: Chooses the documents that are held out.
        cache_dir: Where to keep the result; `calmkit` in `$XDG_CACHE_HOME` or `~/.cache` if None.

    Raises:
        ValueError: If an argument is out of range, the text cannot be read or split or is too
            small for `vocab_size`, or the cache folder cannot be written.
        WriteError: If the disk of the cache folder is full.
    """
    if path is not None and is_prepared(Path(path)):
        corpus = Corpus.of_folder(Path(path), name=Path(path).resolve().name)
        if vocab_size is not None and corpus.tokenizer.vocab_size != vocab_size:
            raise ValueError(
                f"vocab_size must be {corpus.tokenizer.vocab_size}, that of the tokenizer of "
                f"{corpus.name}; got {vocab_size}."
            )
        return corpus
    check_vocab_size(vocab_size)
    _check_split(validation_fraction, seed)
    require("tokenizers", "prepare_corpus")
    import tokenizers

    documents = read_documents(path)
    digest = digest_of(documents)
    key = digest_of(
        [
            digest,
            json.dumps([_LAYOUT, vocab_size, float(validation_fraction), seed]),
            __version__,
            tokenizers.__version__,
        ]
    )
    entry = _cache_folder(cache_dir) / f"corpus-{key[:32]}"
    if not _is_whole(entry):
        train, validation = split_documents(
            documents, validation_fraction=validation_fraction, seed=seed
        )
        tokenizer = TextTokenizer.train(train, vocab_size=vocab_size)
        _write_entry(
            entry,
            tokenizer=tokenizer,
            train=TokenStore.from_documents(train, tokenizer),
            validation=TokenStore.from_documents(validation, tokenizer),
        )
    return Corpus(
        train=TokenStore.load(entry / "train"),
        validation=TokenStore.load(entry / "validation"),
        tokenizer=TextTokenizer.load(entry / "tokenizer.json"),
        name=EMBEDDED_NAME if path is None else Path(path).resolve().name,
        digest=digest,
    )


def split_documents(
    documents: Sequence[str], *, validation_fraction: float, seed: int
) -> tuple[list[str], list[str]]:
    """Hold out random documents with nearly the wanted share of the characters.

    Documents that agree but for white space count as one, with the characters of all, and stay on
    one side. The held-out ones are the first of a random order, as many as come nearest to the
    share. Up to 100 orders are drawn until one is within 1 % of it; else the nearest is taken.
    Both sides keep the given order and have at least one document.

    Args:
        documents: Texts, at least two of which differ.
        validation_fraction: Share of the characters to hold out, in (0, 1).
        seed: The same seed gives the same split.

    Returns:
        Training documents, validation documents.

    Raises:
        ValueError: If there are fewer than two different documents or an argument is out of range.
    """
    _check_split(validation_fraction, seed)
    if len(documents) < 2:
        raise ValueError(
            "data must hold at least 2 documents, one to train on and one to validate on; got "
            f"{len(documents)}, without a line end to cut it at."
        )
    numbers: dict[bytes, int] = {}  # of different contents, in the order in which they occur
    content = [numbers.setdefault(content_key(text), len(numbers)) for text in documents]
    if len(numbers) < 2:
        raise ValueError(
            "data must hold at least 2 different documents, one to train on and one to validate "
            f"on; got {len(documents)} copies of one. Add other text."
        )
    sizes = np.bincount(content, weights=[len(document) for document in documents])
    wanted = validation_fraction * sizes.sum()
    generator = np.random.default_rng(seed)
    held_out, nearest = np.empty(0, dtype=np.int64), np.inf
    for _ in range(_ATTEMPTS):
        order = generator.permutation(len(sizes))
        distances = np.abs(np.cumsum(sizes[order[:-1]]) - wanted)
        best = int(distances.argmin())
        if distances[best] < nearest:
            held_out, nearest = order[: best + 1], distances[best]
        if nearest <= _NEAR_ENOUGH * wanted:
            break
    is_held_out = np.zeros(len(sizes), dtype=bool)
    is_held_out[held_out] = True
    sides: tuple[list[str], list[str]] = ([], [])
    for document, number in zip(documents, content, strict=True):
        sides[int(is_held_out[number])].append(document)
    return sides


def _check_split(validation_fraction: float, seed: int) -> None:
    if not 0.0 < validation_fraction < 1.0:
        raise ValueError(f"validation_fraction must be in (0, 1); got {validation_fraction}.")
    if seed < 0:
        raise ValueError(f"seed must be at least 0; got {seed}.")


def digest_of(texts: Sequence[str]) -> str:
    """SHA-256 of texts, as it stands in a corpus's `digest`."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little"))  # ["ab", "c"] is not ["a", "bc"]
        digest.update(data)
    return digest.hexdigest()


def _cache_folder(cache_dir: Path | str | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir)
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification: a path that is not absolute is to be ignored.
    return (base if base.is_absolute() else Path.home() / ".cache") / "calmkit"


def _file_digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _MANIFEST:
            digests[path.relative_to(folder).as_posix()] = file_digest(path)
    return digests


def _facts(folder: Path, *, of: Path) -> dict[str, object]:
    """What the manifest of an entry says, computed from its files, wherever they still are."""
    return {"entry": of.name, "files": _file_digests(folder)}


def _is_whole(entry: Path) -> bool:
    try:
        manifest = json.loads((entry / _MANIFEST).read_text(encoding="utf-8"))
        return manifest == _facts(entry, of=entry)
    except (OSError, ValueError):
        return False


def _write_entry(
    entry: Path, *, tokenizer: TextTokenizer, train: TokenStore, validation: TokenStore
) -> None:
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(entry.parent)
        aside = Path(tempfile.mkdtemp(prefix=_WRITING, dir=entry.parent))
    except OSError as error:
        raise ValueError(
            f"cache_dir must be a folder that can be written; {str(entry.parent)!r} cannot: "
            f"{error.strerror}. Give another one."
        ) from error
    try:
        with writing(entry.parent, kept="what it held before is whole"):
            new = aside / "new"
            new.mkdir()
            tokenizer.save(new / "tokenizer.json")
            train.save(new / "train")
            validation.save(new / "validation")
            manifest = json.dumps(_facts(new, of=entry), indent=1)
            (new / _MANIFEST).write_text(manifest, encoding="utf-8")
            _move_into_place(new, entry, old=aside / "old")
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _move_into_place(new: Path, entry: Path, *, old: Path) -> None:
    """Put `new` at `entry`, unless another process has put a whole one there meanwhile."""
    # Succeeds only where there is no entry: a whole one is never moved away, not for a moment.
    with contextlib.suppress(OSError):
        os.replace(new, entry)
        return
    if _is_whole(entry):
        return
    with contextlib.suppress(FileNotFoundError):  # another process may repair it as well
        os.replace(entry, old)
    try:
        os.replace(new, entry)
    except OSError:
        if not _is_whole(entry):
            raise


def _remove_leftovers(cache: Path) -> None:
    """Remove what killed runs left aside; younger folders may belong to a running process."""
    for path in cache.glob(f"{_WRITING}*"):
        with contextlib.suppress(FileNotFoundError):  # its process has just finished
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
