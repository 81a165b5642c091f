"""One long stream of token ids that lies in several files of one size, read as one array.

Token i lies in file i // shard_tokens. Files are mapped when they are first read, and of many
files only some stay mapped, since each map holds a file descriptor.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

__all__ = ["ShardedTokens"]

_MOST_MAPPED = 256


class ShardedTokens:
    """Token ids in files, sliced like an array.

    Args:
        files: The files in their order; all but the last are full.
        shard_tokens: Tokens in a full file.
        dtype: Of a token id in the files.

    Raises:
        ValueError: If a file is not full, or the last one is too large.
    """

    def __init__(self, files: Sequence[Path], shard_tokens: int, dtype: np.dtype) -> None:
        self._files, self._shard_tokens, self.dtype = tuple(files), shard_tokens, dtype
        full = shard_tokens * dtype.itemsize
        sizes = [file.stat().st_size for file in self._files]
        for number, (file, size) in enumerate(zip(self._files, sizes, strict=True), start=1):
            is_last = number == len(sizes)
            if not (0 < size <= full if is_last else size == full) or size % dtype.itemsize:
                at_most = "at most " if is_last else ""
                raise ValueError(
                    f"{file} must hold {at_most}{shard_tokens} tokens of {dtype.itemsize} bytes; "
                    f"it has {size} bytes. Prepare the text again."
                )
        self._length = sum(sizes) // dtype.itemsize
        self._mapped = functools.lru_cache(_MOST_MAPPED)(self._map)

    def __len__(self) -> int:
        """Tokens in all files."""
        return self._length

    def __getitem__(self, place: slice) -> np.ndarray:
        """Tokens of a slice with step 1; a view where they lie in one file."""
        begin, end, step = place.indices(self._length)
        if step != 1:
            raise ValueError(f"step must be 1; got {step}.")
        pieces = []
        while begin < end:
            shard, inner = divmod(begin, self._shard_tokens)
            pieces.append(self._mapped(shard)[inner : inner + end - begin])
            begin += len(pieces[-1])
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate([np.empty(0, self.dtype), *pieces])

    def _map(self, shard: int) -> np.ndarray:
        # A view: slices of a memmap itself are slow to make.
        return np.asarray(np.memmap(self._files[shard], dtype=self.dtype, mode="r"))
