"""What is inside a prepared folder, in numbers and a few windows; time bounded, whatever its size.

Lengths are those of all documents up to 2^20, and of as many chosen at random in a larger side.
Token frequencies are those of `TokenStore.token_frequencies`, which counts at most 2^27 tokens.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calmkit.chunking import ChunkBatch
from calmkit.orders import key_of, permuted

from .batches import TrainingBatches
from .manifest import TOKENIZER_FILE, Manifest
from .store import TokenStore
from .tokenizer import TextTokenizer

__all__ = ["FolderContent", "SideContent", "inspect_folder"]

_MOST_LENGTHS = 2**20
_FILL_ROWS, _FILL_SIZES = 64, (1, 2, 4, 8, 16)
_SHOWN_CHUNKS = 24


@dataclass(frozen=True, eq=False)
class SideContent:
    """One side of a folder.

    Attributes:
        documents: How many.
        tokens: How many, end tokens included.
        characters: Of the text.
        lengths: Tokens of its documents, or of some chosen at random, the shortest first.
    """

    documents: int
    tokens: int
    characters: int
    lengths: np.ndarray


@dataclass(frozen=True, eq=False)
class FolderContent:
    """What a prepared folder holds.

    Attributes:
        folder: The folder.
        manifest: Its manifest.
        sides: `train` and `validation`; one without documents is left out.
        unknown: Share of training tokens that stand for text the tokenizer does not know; None if
            it has no such token.
        broken: Share of training tokens that are no whole characters: single bytes.
        chunk_size: K of `windows`.
        windows: Beginnings of rows as they are trained on: text of each chunk, | between chunks,
            || between documents.
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
    """Look into a prepared folder.

    Args:
        folder: Written by `calmkit prepare`.
        chunk_size: K, tokens in a chunk.
        positions: Chunks in a row; fewer where the text is shorter than a row.
        windows: How many rows to show.
        seed: Chooses rows, and lengths where there are too many.

    Raises:
        ValueError: If the folder is not whole, its training text is shorter than a chunk or an
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
    """The id of text that the tokenizer does not know, if it has one."""
    model = json.loads(tokenizer.to_json())["model"]
    if model.get("unk_id") is not None:
        return model["unk_id"]
    return model["vocab"].get(model["unk_token"]) if model.get("unk_token") else None


def _broken_ids(tokenizer: TextTokenizer, frequencies: np.ndarray) -> np.ndarray:
    """Ids, of those that occur, whose text alone is no whole characters."""
    ids = np.flatnonzero(frequencies).tolist()
    return np.array([i for i in ids if "\ufffd" in tokenizer.decode([i])], dtype=np.int64)


def _on_grid(batch: ChunkBatch, row: int, tokenizer: TextTokenizer) -> str:
    """The beginning of a row: the text of each chunk, with the end token written out."""
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
    """Text of one chunk in one line; end tokens are shown."""
    pieces, run = [], []
    for token in [*tokens, tokenizer.end_id]:
        if token != tokenizer.end_id:
            run.append(token)
            continue
        pieces.append(tokenizer.decode(run) if run else "")
        run = []
    return "<end>".join(pieces).replace("\r", "").replace("\n", "\\n")
