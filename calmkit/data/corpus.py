r"""From a path to tokenized training and validation text, prepared once.

A folder written by `calmkit prepare` is used directly. Any other text is prepared as such a folder
(`preparation`) in a cache. Its key covers the content and every option that affects the result. A
second call only reads the sources' bytes and maps the files.

One process prepares an entry while others wait for it. An interrupted entry is resumed. A damaged
entry is detected by the SHA-256 of each file in the manifest, and rebuilt.
"""

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from calmkit.locks import LOCK_FILE, FolderInUseError, only_one_in, turn_in
from calmkit.text import EMBEDDED_NAME, WORK_FOLDER, TextTokenizer, sources_of

from .manifest import TOKENIZER_FILE, Manifest, is_prepared
from .output_folder import prepare_folder
from .preparation import Preparation, key_of
from .store import TokenStore
from .text_mixture import TextMixture

__all__ = ["Corpus", "digest_of", "prepare_corpus"]

_ENTRY, _KEY = "corpus-", 32
_STALE_SECONDS = 24 * 3600
# Larger entries are not verified at each start, since reading them takes too long.
_CHECKED_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class Corpus:
    """Text that is ready for training.

    Attributes:
        train: Training documents.
        validation: Held-out documents; a tokenizer trained here has not seen them either.
        tokenizer: The tokenizer of the ids.
        name: Name of the text in results: that of the file or folder.
        digest: SHA-256 of the prepared text, printed with results, since files change and the
            embedded text differs between Python versions.
    """

    train: TokenStore | TextMixture
    validation: TokenStore | TextMixture
    tokenizer: TextTokenizer
    name: str
    digest: str

    @classmethod
    def of_folder(cls, folder: Path, *, name: str) -> "Corpus":
        """Map a prepared folder.

        Raises:
            ValueError: If the folder is not complete.
        """
        return cls(
            train=TokenStore.open(folder, "train"),
            validation=TokenStore.open(folder, "validation"),
            tokenizer=TextTokenizer.load(folder / TOKENIZER_FILE),
            name=name,
            digest=Manifest.read(folder).digest,
        )


def prepare_corpus(
    path: Path | str | None = None,
    *,
    vocab_size: int | None = None,
    tokenizer: str | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
    cache_dir: Path | str | None = None,
    tell: Callable[[str], None] = lambda text: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Corpus:
    """Read, split and tokenize text, or find it in the cache.

    Args:
        path: A prepared folder; a file, folder or pattern as in `calmkit.text.source_files`; None
            for the embedded text.
        vocab_size: Size of the tokenizer to train, at least 257; the required size of an existing
            tokenizer.
        tokenizer: An existing tokenizer, as in `find_tokenizer`. None: train one.
        validation_fraction: Share of the documents to hold out, in (0, 1).
        seed: Seed of the held-out split.
        cache_dir: Folder of the cache; `calmkit` in `$XDG_CACHE_HOME` or `~/.cache` if None.
        tell: Called with a message before a long step, and while another process holds the entry.
        progress: Called with the bytes of the sources done so far and in total.

    Raises:
        ValueError: If an argument is out of range, the text cannot be read or split or is too
            small for `vocab_size`, or the cache folder cannot be written.
        WriteError: If the disk of the cache folder is full.
    """
    name = EMBEDDED_NAME if path is None else Path(path).resolve().name
    if path is not None and is_prepared(Path(path)):
        return _with_size_checked(Corpus.of_folder(Path(path), name=name), vocab_size)
    if vocab_size is None and tokenizer is None:
        raise ValueError("vocab_size must be given to train a tokenizer; got None.")
    preparation = Preparation(
        sources=sources_of(path),
        tokenizer=tokenizer or f"train:{vocab_size}",
        validation_fraction=validation_fraction,
        seed=seed,
    )
    entry = _cache_folder(cache_dir) / f"{_ENTRY}{preparation.key[:_KEY]}"
    if not _is_complete(entry):
        _make_cache(entry.parent)
        with turn_in(entry, tell=tell):
            if not _is_complete(entry):
                if is_prepared(entry) or not (entry / WORK_FOLDER).exists():
                    _clear(entry)
                try:
                    prepare_folder(preparation, entry, tell=tell, progress=progress)
                except ValueError:  # every text with this key would fail
                    shutil.rmtree(entry, ignore_errors=True)
                    raise
    return _with_size_checked(Corpus.of_folder(entry, name=name), vocab_size)


def digest_of(texts: Sequence[str]) -> str:
    """SHA-256 of texts, printed with results."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little"))  # ["ab", "c"] is not ["a", "bc"]
        digest.update(data)
    return digest.hexdigest()


def _with_size_checked(corpus: Corpus, vocab_size: int | None) -> Corpus:
    if vocab_size is not None and corpus.tokenizer.vocab_size != vocab_size:
        raise ValueError(
            f"vocab_size must be {corpus.tokenizer.vocab_size}, that of the tokenizer of "
            f"{corpus.name}; got {vocab_size}. Leave it out."
        )
    return corpus


def _cache_folder(cache_dir: Path | str | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir)
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification requires relative paths to be ignored.
    return (base if base.is_absolute() else Path.home() / ".cache") / "calmkit"


def _is_complete(entry: Path) -> bool:
    try:
        manifest = Manifest.read(entry)
        if entry.name != f"{_ENTRY}{key_of(manifest.options)[:_KEY]}":
            return False
        if sum(file.bytes for file in manifest.files) <= _CHECKED_BYTES:
            manifest.check_digests(entry)
    except (KeyError, ValueError):
        return False
    return True


def _make_cache(cache: Path) -> None:
    """Create the cache if needed, and remove unfinished entries that are a day old."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not os.access(cache, os.W_OK):
            raise PermissionError(13, "it may not be written")
    except OSError as error:
        raise ValueError(
            f"cache_dir must be a folder that can be written; {str(cache)!r} cannot: "
            f"{error.strerror}. Give another one."
        ) from error
    for entry in cache.glob(f"{_ENTRY}*"):
        if is_prepared(entry) or not _is_old(entry):
            continue
        with contextlib.suppress(FolderInUseError, OSError), only_one_in(entry, name="cache_dir"):
            shutil.rmtree(entry, ignore_errors=True)


def _is_old(entry: Path) -> bool:
    with contextlib.suppress(OSError):  # its process has just changed it
        newest = max(path.stat().st_mtime for path in [entry, *entry.rglob("*")])
        return time.time() - newest > _STALE_SECONDS
    return False


def _clear(entry: Path) -> None:
    for path in entry.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK_FILE:
            path.unlink()
