r"""Tokenized pairs of a file of any size: tokens on the disk, a few numbers per pair in memory.

Token ids are written to a temporary file, which is then memory-mapped:

    tokens   [ end p0 p1 | r0 r1 r2 || end q0 | s0 || ... ]
    borders  [ 0,          3,          6,       8,    9, ... ]      two for each pair

Pairs are held out by *prompt*: all responses to a prompt are on one side. Each prompt is hashed
with the seed, and the prompts with the lowest hashes are held out. No list of prompts is needed.
"""

import tempfile
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from calmkit.bounds import check_at_least, check_in
from calmkit.disk import writing
from calmkit.orders import key_of, words

__all__ = ["PairStore", "TokenPair"]

_DTYPE = np.dtype("<i4")


@dataclass(frozen=True, eq=False)
class TokenPair:
    """A tokenized pair.

    Attributes:
        prompt: The end token, then the prompt's ids.
        response: The response's ids, without an end token.
        path: The source file, for error messages.
        line: The line in that file.
        prompt_hash: Equal for prompts that differ only in white space.
    """

    prompt: np.ndarray
    response: np.ndarray
    path: str = ""
    line: int = 0
    prompt_hash: int = 0

    @property
    def place(self) -> str:
        """The location, "file:line"."""
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, eq=False)
class PairStore:
    """A selection of the tokenized pairs of a file; create one with `of`.

    Attributes:
        tokens: Token ids of all pairs of the file.
        borders: The offset of each prompt and response, then the number of tokens.
        lines: The line of each pair.
        prompt_hashes: A hash of the prompt of each pair.
        path: The file.
        chosen: Indices of the selected pairs.
    """

    tokens: np.ndarray = field(repr=False)
    borders: np.ndarray = field(repr=False)
    lines: np.ndarray = field(repr=False)
    prompt_hashes: np.ndarray = field(repr=False)
    path: str
    chosen: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, pairs: Iterable[TokenPair]) -> "PairStore":
        """Store the pairs of one file; they are read once.

        Args:
            pairs: At least one pair.

        Raises:
            ValueError: If there is none.
            WriteError: If the disk of temporary files is full.
        """
        borders, lines, hashes, path = array("q", [0]), array("q"), array("Q"), ""
        with (
            writing(tempfile.gettempdir(), kept="nothing else was written"),
            tempfile.TemporaryFile() as file,
        ):
            for pair in pairs:
                for ids in (pair.prompt, pair.response):
                    file.write(ids.astype(_DTYPE).tobytes())
                    borders.append(borders[-1] + len(ids))
                lines.append(pair.line)
                hashes.append(pair.prompt_hash)
                path = pair.path
            if not lines:
                raise ValueError("pairs must hold at least one pair; got none.")
            file.flush()
            tokens = np.memmap(file, dtype=_DTYPE, mode="r")  # outlives the file's name
        return cls(
            tokens=np.asarray(tokens),
            borders=np.frombuffer(borders, np.int64),
            lines=np.frombuffer(lines, np.int64),
            prompt_hashes=np.frombuffer(hashes, np.uint64),
            path=path,
            chosen=np.arange(len(lines)),
        )

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.chosen)

    def __getitem__(self, index: int) -> TokenPair:
        """One pair."""
        place = int(self.chosen[index])
        begin, middle, end = self.borders[2 * place : 2 * place + 3].tolist()
        return TokenPair(
            self.tokens[begin:middle],
            self.tokens[middle:end],
            self.path,
            int(self.lines[place]),
            int(self.prompt_hashes[place]),
        )

    def sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of each prompt, and of each response."""
        sizes = np.diff(self.borders)
        return sizes[::2][self.chosen], sizes[1::2][self.chosen]

    def split(self, *, validation_fraction: float, seed: int) -> tuple["PairStore", "PairStore"]:
        """Hold out random prompts, each with all of its responses.

        Args:
            validation_fraction: Share of the prompts to hold out, in (0, 1); each side has at
                least one prompt.
            seed: The same seed gives the same split.

        Returns:
            Training pairs and validation pairs, each in the original order.

        Raises:
            ValueError: If there are fewer than two different prompts or an argument is out of
                range.
        """
        check_in("(0, 1)", validation_fraction=validation_fraction)
        check_at_least(0, seed=seed)
        drawn = words(key_of(seed), self.prompt_hashes[self.chosen])
        prompts = np.unique(drawn)
        if len(prompts) < 2:
            raise ValueError(
                "pairs must have at least 2 different prompts, one to train on and one to "
                f"validate on; got {len(prompts)}."
            )
        count = min(max(1, round(validation_fraction * len(prompts))), len(prompts) - 1)
        held_out = drawn < prompts[count]
        return (
            replace(self, chosen=self.chosen[~held_out]),
            replace(self, chosen=self.chosen[held_out]),
        )
