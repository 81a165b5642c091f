r"""The batch algorithm's choice by rejection: the same distribution from fewer candidates.

At T = 1/n the batch algorithm draws N candidates and chooses a chunk that occurs c times with
weight C(c, n). In other words, it takes one of the n-subsets of the candidates that agree, each
with the same probability. Rejection makes this choice without examining all subsets:

    Draw n-subsets S_1, S_2, ... of {1, ..., N}, uniform, independent of each other and of the
    candidates. Take the first that agrees.

Given the candidates and that S_i agrees, S_i is uniform among the agreeing subsets, whatever was
rejected before. So one may also give up, by any rule that depends only on the rejected subsets,
and choose by counting all candidates: that choice is uniform among the agreeing subsets, too.

Candidates are independent and identically distributed. They can therefore be numbered in the order
in which the subsets first name them, and those that no subset names need not be drawn. Where two
candidates agree with probability p, about 1/p pairs of about 2/p candidates are tested. Most pairs
already differ in their last tokens, and only those are decoded.

The tested subsets must not depend on the candidates. Taking the first agreeing pair among the
first 2, 3, 4, ... candidates would be cheaper, but it gives the distribution of few candidates.
"""

import math

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from calmkit.typing import typed

from .base import at_once
from .candidates import Candidates

__all__ = ["agreeing", "by_appearance", "draw_subsets", "first_agreeing", "numbers_of_subsets"]

# Fewest subsets of a row in the first round. Each later round adds half of the number tested so
# far: the number tested in vain is then proportional to the number that had to be tested.
_FIRST = 8
# How often a candidate is named, on average, before counting takes over. By then six of seven have
# been drawn, and counting all costs hardly more than going on.
_TIMES_NAMED = 2


def numbers_of_subsets(number: int, size: int) -> tuple[int, int]:
    """The least number of subsets of a row in the first round, and their number in all rounds.

    Both are 0 if the first round would name half of the candidates: counting costs no more then.

    Args:
        number: N, candidates of a row.
        size: n, candidates in a subset.
    """
    if 2 * _FIRST * size > number:
        return 0, 0
    return _FIRST, _TIMES_NAMED * number // size


@typed
def draw_subsets(
    rows: int,
    subsets: int,
    size: int,
    number: int,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Int[Tensor, "rows subsets size"]:
    """Independent n-subsets of each row's N candidates.

    They are drawn with replacement: a draw that names a candidate twice is not a subset, and
    `agreeing` rejects it.

    Args:
        rows: Number of rows.
        subsets: Number of subsets for each row.
        size: n, candidates in a subset.
        number: N, candidates of a row.
        generator: Source of randomness; torch's global one if None.
        device: Device of the result.
    """
    shape = (rows, subsets, size)
    return by_appearance(torch.randint(number, shape, generator=generator, device=device), number)


@typed
def by_appearance(
    named: Int[Tensor, "rows subsets size"], number: int
) -> Int[Tensor, "rows subsets size"]:
    """Renumber the candidates of each row in the order in which they are first named."""
    flat = named.flatten(1)
    place = torch.arange(flat.shape[1], device=flat.device).expand_as(flat)
    never = torch.full((len(flat), number), flat.shape[1], device=flat.device)
    order = never.scatter_reduce(1, flat, place, "amin").argsort(dim=1)
    numbers = torch.arange(number, device=flat.device).expand_as(order)
    return torch.empty_like(order).scatter(1, order, numbers).gather(1, flat).view_as(named)


@typed
def agreeing(
    candidates: Candidates,
    rows: Int[Tensor, " chosen"],
    subsets: Int[Tensor, "chosen subsets size"],
) -> Bool[Tensor, "chosen subsets"]:
    """Whether the candidates of each subset are equal; they are decoded until they differ.

    Args:
        candidates: Candidates of all rows; those that the subsets name must have been drawn.
        rows: Rows of the subsets.
        subsets: Indices of candidates.
    """
    ordered = subsets.sort(dim=-1).values
    agrees = (ordered[..., 1:] != ordered[..., :-1]).all(dim=-1)
    for place in candidates.places:
        row, which = agrees.nonzero(as_tuple=True)
        named = torch.zeros_like(candidates.tokens[rows, :, 0], dtype=torch.bool)
        named[row[:, None], subsets[row, which]] = True
        candidates.decode(place, rows, named)
        tokens = candidates.tokens[rows[row][:, None], subsets[row, which], place]
        agrees[row, which] = (tokens == tokens[:, :1]).all(dim=-1)
    return agrees


@typed
def first_agreeing(
    candidates: Candidates, subsets: Int[Tensor, "rows subsets size"], first: int
) -> tuple[Int[Tensor, " rows"], Bool[Tensor, " rows"]]:
    """A candidate of the first subset that agrees, in each row.

    Args:
        candidates: Candidates of all rows; more are drawn as needed.
        subsets: From `draw_subsets`.
        first: Fewest subsets of a row in the first round.

    Returns:
        The candidate's index, and whether any subset agreed.
    """
    rows = torch.arange(len(subsets), device=subsets.device)
    chosen, found = torch.zeros_like(rows), torch.zeros_like(rows, dtype=torch.bool)
    start, stop = 0, max(first, _share_of(rows))
    while len(rows) and start < subsets.shape[1]:
        tested = subsets[rows, start:stop]
        candidates.draw(int(tested.max()) + 1, rows)
        agrees = agreeing(candidates, rows, tested)
        done, which = agrees.any(dim=-1), agrees.int().argmax(dim=-1)
        chosen[rows[done]] = tested[done, which[done], 0]
        found[rows[done]] = True
        rows = rows[~done]
        start, stop = stop, stop + max(stop // 2, _share_of(rows))
    return chosen, found


def _share_of(rows: Tensor) -> int:
    """Number of subsets per row at which all rows together are worth a round."""
    return math.ceil(at_once(rows.device) / max(len(rows), 1))
