"""A black box with known probabilities that counts its draws."""

import torch
from torch import Tensor

__all__ = ["Box", "LogitBox", "SelectableBox"]


class Box:
    """Draws from a precomputed table; each row has its own position in it.

    Attributes:
        tokens: The table, `(most, rows, chunk)`: draw i of a row is the same for any order of
            requests.
        counts: Number of draws taken from each row.
    """

    def __init__(self, tokens: Tensor, batch: tuple[int, ...]) -> None:
        self.tokens = tokens
        self.batch = batch
        self.counts = torch.zeros(tokens.shape[1], dtype=torch.long)

    def __call__(self, n: int) -> Tensor:
        """The next n draws of every row."""
        rows = torch.arange(self.tokens.shape[1])
        return self._next(n, rows).view(n, *self.batch, self.tokens.shape[-1])

    def _next(self, n: int, rows: Tensor) -> Tensor:
        places = self.counts[rows] + torch.arange(n)[:, None]
        if n and len(rows) and int(places.max()) >= len(self.tokens):
            raise RuntimeError(
                f"the sampler drew more than {len(self.tokens)} candidates of a row, far more "
                "than any temperature in the trial needs"
            )
        self.counts[rows] += n
        return self.tokens[places, rows]


class SelectableBox(Box):
    """A box that can draw for selected rows."""

    def select(self, rows: Tensor) -> "_SelectedBox":
        """The same box for these rows."""
        return _SelectedBox(self, rows)


class _SelectedBox:
    def __init__(self, box: Box, rows: Tensor) -> None:
        self.box = box
        self.rows = rows

    def __call__(self, n: int) -> Tensor:
        return self.box._next(n, self.rows)

    def select(self, rows: Tensor) -> "_SelectedBox":
        return _SelectedBox(self.box, self.rows[rows])


class LogitBox(SelectableBox):
    """A box with known probabilities, like a softmax model."""

    def __init__(self, tokens: Tensor, batch: tuple[int, ...], logits: Tensor) -> None:
        super().__init__(tokens, batch)
        self.logits = logits.view(*batch, -1)
