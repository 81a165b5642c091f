r"""Drawing and decoding only the candidates that can still be chosen; same distribution.

The batch algorithm chooses only chunks with m copies among the candidates, and m equal chunks have
m equal last tokens. So tokens are computed place by place, from the last, which is furthest ahead
and least certain, to the first. After each place, candidates whose ending occurs fewer than m
times are dropped, which saves their expensive projection onto the vocabulary. If no chunk has n
copies, m goes down by one. At m = 1 all candidates are equivalent, and one is decoded. With the
same generator, the chosen chunk is the same as if all candidates had been decoded.

Candidates are independent and identically distributed, so they are drawn lazily, too.
"""

import math

import torch
from jaxtyping import Bool, Int, Integer
from torch import Tensor

from calmkit.typing import typed

from .base import Draw, DrawForm, SelectableDraw, at_once, is_integer
from .counting import count_copies, leaders_of
from .undecoded import Decoded, draw_undecoded

__all__ = ["Candidates"]


class Candidates:
    """Up to N candidates of each row, drawn and decoded on demand.

    Attributes:
        batch: Shape of the rows, which are flattened here.
        places: The places of a chunk, in the order in which they are decoded.
        tokens: (rows, N, chunk), in int64; valid only where `decoded` is True.
        decoded: True where a token is known, (rows, N, chunk).
        drawn: Number of candidates drawn for each row, (rows).
        dtype: Dtype of the draws.
    """

    def __init__(self, draw: Draw, number: int, *, first: int) -> None:
        """Draw some candidates of every row.

        Args:
            draw: The black box.
            number: N, the largest number of candidates of a row.
            first: Number to draw now, at most N.
        """
        self._draw = draw
        self._undecoded = draw_undecoded(draw, first)
        _, *batch, chunk = self._undecoded.shape
        rows, device = math.prod(batch), self._undecoded.device
        self.batch = torch.Size(batch)
        self.places = tuple(reversed(range(chunk)))
        self.tokens = torch.zeros((rows, number, chunk), dtype=torch.long, device=device)
        self.decoded = torch.zeros_like(self.tokens, dtype=torch.bool)
        here = self._undecoded
        self.dtype = here.dtype if isinstance(here, Decoded) else torch.long
        self._form = DrawForm(tuple(batch), chunk, self.dtype)
        self.drawn = torch.full((rows,), first, device=device)
        # Each candidate's index in the list of undecoded ones, and the length of that list.
        self._numbers = torch.zeros(rows, number, dtype=torch.long, device=device)
        self._numbers[:, :first] = torch.arange(first * rows, device=device).view(first, rows).T
        self._length = first * rows
        self._most = first

    def draw(self, number: int, rows: Int[Tensor, " chosen"]) -> None:
        """Draw for some rows until they have `number` candidates.

        Args:
            number: At most N.
            rows: Rows that took part in all earlier draws.
        """
        more, start = number - self._most, self._length
        if more <= 0:
            return
        box, here, form = self._draw, slice(None), self._form
        if isinstance(box, SelectableDraw) and len(rows) < len(self.tokens):
            box, here, form = box.select(rows), rows, form.of_rows(len(rows))
        self._undecoded = self._undecoded.joined(draw_undecoded(box, more, form))
        count = len(self._numbers[here])
        numbers = torch.arange(start, start + more * count, device=rows.device).view(more, count)
        self._numbers[here, self._most : number] = numbers.T
        self.drawn[here] = number
        self._length, self._most = start + more * count, number

    def decode(
        self, place: int, rows: Int[Tensor, " chosen"], wanted: Bool[Tensor, "chosen candidates"]
    ) -> None:
        """Compute the wanted tokens at a place that are not decoded yet.

        The places after it must be decoded already. For a few candidates, the places before it are
        decoded, too: that costs no more than a second call.

        Args:
            place: Place in the chunk.
            rows: The rows.
            wanted: The candidates of these rows; they must have been drawn.
        """
        row, candidate = (wanted & ~self.decoded[rows, :, place]).nonzero(as_tuple=True)
        if len(row):
            row = rows[row]
            few = len(row) <= at_once(row.device) and place != self.places[0]
            places = range(0 if few else place, place + 1)
            tokens = self._undecoded.tokens_at(places, self._numbers[row, candidate])
            if tokens.shape != (len(row), len(places)) or not is_integer(tokens.dtype):
                raise ValueError(
                    f"tokens_at must return integers of shape {(len(row), len(places))}; got "
                    f"{tokens.dtype} of shape {tuple(tokens.shape)}."
                )
            self.dtype = tokens.dtype
            here = row, candidate, slice(places.start, places.stop)
            self.tokens[here], self.decoded[here] = tokens.long(), True

    @typed
    def copies(self, level: int, rows: Int[Tensor, " chosen"]) -> Int[Tensor, "chosen candidates"]:
        """Number of copies that each of the N candidates leads, for chunks with at least `level`.

        Args:
            level: m; chunks with fewer copies are not decoded further and count as 0.
            rows: The rows.
        """
        self.draw(self.tokens.shape[1], rows)
        group = torch.zeros_like(self._numbers[rows])  # leaders of equal endings
        alive = torch.ones_like(group, dtype=torch.bool)
        apart = torch.arange(group.shape[1], 2 * group.shape[1], device=group.device)
        for place in self.places:
            self.decode(place, rows, alive)
            # A dropped candidate forms its own group, whatever its token.
            group = torch.where(alive, group, apart)
            token = torch.where(alive, self.tokens[rows, :, place], 0)
            group = leaders_of(torch.stack([group.T, token.T], dim=-1))
            alive = count_copies(group, alive).gather(1, group) >= level
        return count_copies(group, alive)

    @typed
    def chunks(self, chosen: Int[Tensor, " rows"]) -> Integer[Tensor, "rows chunk"]:
        """Decode one candidate of each row completely.

        Args:
            chosen: Index of the candidate in each row.
        """
        rows = torch.arange(len(chosen), device=chosen.device)
        picked = torch.zeros_like(self._numbers, dtype=torch.bool)
        picked[rows, chosen] = True
        for place in self.places:
            self.decode(place, rows, picked)
        return self.tokens[rows, chosen].to(self.dtype)
