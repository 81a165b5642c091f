"""Statistics and example windows of a prepared folder, in bounded time for any size.

Lengths cover all documents, or a random sample of 2^20 on a larger side. Token frequencies are
from `TokenStore.token_frequencies`, which counts at most 2^27 tokens.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calmkit.chunking import ChunkBatch
from calmkit.orders import key_of, permuted
from calmkit.text import TextTokenizer

from .batches import TrainingBatches
from .manifest import TOKENIZER_FILE, Manifest
from .store import TokenStore

__all__ = ["FolderContent", "SideContent", "inspect_folder"]

_MOST_LENGTHS = 2**20
_FILL_ROWS, _FILL_SIZES = 64, (1, 2, 4, 8, 16)
_SHOWN_CHUNKS = 24


@dataclass(frozen=True, eq=False)
class SideContent:
    """One side of a folder.

    Attributes:
        documents: Number of documents.
        tokens: Number of tokens, end tokens included.
        characters: Number of characters of the text.
        lengths: Sorted token counts of its documents, or of a random sample of them.
    """

    documents: int
    tokens: int
    characters: int
    lengths: np.ndarray


@dataclass(frozen=True, eq=False)
class FolderContent:
    """Statistics of a prepared folder.

    Attributes:
        folder: The folder.
        manifest: Its manifest.
        sides: `train` and `validation`; a side without documents is omitted.
        unknown: Share of unknown tokens in the training text; None if the tokenizer has no such
            token.
        broken: Share of training tokens that are not whole characters but single bytes.
        chunk_size: K of `windows`.
        windows: Beginnings of training rows: the text of each chunk, with | between chunks and ||
            between documents.
        positions: Chunks in a row of `fill`.
        fill: For each K, the share of a row's places that hold text; the rest is padding before a
            document's piece and fill after its end.
    """

    folder: Path
    manifest: Manifest
    sides: Mapping[str, SideContent]
    unknown: float | None
    broken: float
    chunk_size: int
    windows: tuple[str, ...]
    positions: int
    fill: Mapping[int, float]


def inspect_folder(
    folder: Path, *, chunk_size: int, positions: int, windows: int, seed: int
) -> FolderContent:
    """Compute the statistics of a prepared folder.

    Args:
        folder: A folder written by `calmkit prepare`.
        chunk_size: K, tokens in a chunk.
        positions: Chunks in a row; fewer if the text is shorter than a row.
        windows: Number of rows to show.
        seed: Seed of the rows, and of the sample of lengths.

    Raises:
        ValueError: If the folder is not complete, its training text is shorter than a chunk or an
            argument is out of range.
    """
    manifest = Manifest.read(folder)
    tokenizer = TextTokenizer.load(folder / TOKENIZER_FILE)
    train = TokenStore.open(folder, "train")
    stores = {"train": train}
    if manifest.validation.documents:
        stores["validation"] = TokenStore.open(folder, "validation")
    frequencies = train.token_frequencies()

    def batch(size: int, rows: int, chunks: int) -> ChunkBatch:
        return TrainingBatches(
            train,
            chunk_size=size,
            positions=max(1, min(chunks, train.num_tokens // size)),
            batch_size=rows,
            seed=seed,
        ).batch_at(0)

    shown = batch(chunk_size, windows, positions)
    sizes = [size for size in sorted({*_FILL_SIZES, chunk_size}) if size <= train.num_tokens]
    unknown = _unknown_id(tokenizer)
    return FolderContent(
        folder=folder,
        manifest=manifest,
        sides={name: _side(store, seed) for name, store in stores.items()},
        unknown=None if unknown is None else float(frequencies[unknown]),
        broken=float(frequencies[_broken_ids(tokenizer, frequencies)].sum()),
        chunk_size=chunk_size,
        windows=tuple(_on_grid(shown, row, tokenizer) for row in range(windows)),
        positions=shown.tokens.shape[1],
        fill={size: float(batch(size, _FILL_ROWS, positions).real.double().mean())
              for size in sizes},
    )  # fmt: skip


def _side(store: TokenStore, seed: int) -> SideContent:
    count = store.num_documents
    if count <= _MOST_LENGTHS:
        lengths = np.diff(store.offsets)
    else:
        chosen = np.sort(permuted(np.arange(_MOST_LENGTHS), count, key_of(seed)))
        lengths = store.offsets[chosen + 1] - store.offsets[chosen]
    return SideContent(count, store.num_tokens, store.num_characters, np.sort(np.asarray(lengths)))


def _unknown_id(tokenizer: TextTokenizer) -> int | None:
    """The id of unknown text, if the tokenizer has one."""
    model = json.loads(tokenizer.to_json())["model"]
    if model.get("unk_id") is not None:
        return model["unk_id"]
    return model["vocab"].get(model["unk_token"]) if model.get("unk_token") else None


def _broken_ids(tokenizer: TextTokenizer, frequencies: np.ndarray) -> np.ndarray:
    """The occurring ids that do not decode to whole characters."""
    ids = np.flatnonzero(frequencies).tolist()
    return np.array([i for i in ids if "\ufffd" in tokenizer.decode([i])], dtype=np.int64)


def _on_grid(batch: ChunkBatch, row: int, tokenizer: TextTokenizer) -> str:
    """The beginning of a row as text, chunk by chunk, with visible end tokens."""
    texts: list[str] = []
    for chunks in batch.lengths[row]:
        place = len(texts)
        pieces = [
            _text_of(tokens[real].tolist(), tokenizer)
            for tokens, real in zip(
                batch.tokens[row, place : place + chunks],
                batch.real[row, place : place + chunks],
                strict=True,
            )
        ]
        texts += [*pieces[:-1], pieces[-1] + "|"] if pieces else []
    return "|".join(texts[:_SHOWN_CHUNKS])


def _text_of(tokens: list[int], tokenizer: TextTokenizer) -> str:
    """The text of one chunk on one line, with visible end tokens."""
    pieces, run = [], []
    for token in [*tokens, tokenizer.end_id]:
        if token != tokenizer.end_id:
            run.append(token)
            continue
        pieces.append(tokenizer.decode(run) if run else "")
        run = []
    return "<end>".join(pieces).replace("\r", "").replace("\n", "\\n")
