r"""chrF: how many n-grams of characters a text shares with a reference.

With H_n, R_n the numbers of character n-grams, without whitespace, in texts and references, and
M_n those that both have (an n-gram counts as often as where it is rarer), summed over all texts,

    P = mean_n M_n / H_n,    R = mean_n M_n / R_n,    chrF = (1 + b^2) P R / (b^2 P + R)

with b = 2, over n = 1..6 that occur in both. The n-grams of a text whose reference is shorter than
n do not count. Between 0 and 1, **higher is better**. The score is
computed from sums, so that texts can be resampled (`chrf_counts` gives the numbers of one text).
Unrelated texts of one language share many short n-grams: a chrF of 0.2 may mean nothing.

Source: Popović, "chrF: character n-gram F-score for automatic MT evaluation", WMT 2015; the
conventions are the defaults of sacrebleu (`chrF2|nc:6|nw:0|space:no`).
"""

from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.typing import typed

__all__ = ["chrf", "chrf_counts", "ngram_counts"]

_ORDERS = 6
_BETA = 2.0


def chrf_counts(text: str, reference: str) -> list[int]:
    """M_n, H_n and R_n for n = 1..6 as one list; counts of several texts can be added.

    Args:
        text: The text to judge.
        reference: The true text.
    """
    counts = ngram_counts("".join(text.split()), "".join(reference.split()), _ORDERS)
    for n in range(_ORDERS):
        if counts[2 * _ORDERS + n] == 0:  # as in sacrebleu
            counts[_ORDERS + n] = 0
    return counts


@typed
def chrf(counts: Float[Tensor, "*batch 18"]) -> Float[Tensor, "*batch"]:
    """The score of counts; 0 if nothing is shared.

    Args:
        counts: From `chrf_counts`, or sums of them.
    """
    matches, ours, theirs = counts.double().unflatten(-1, (3, _ORDERS)).unbind(dim=-2)
    occurs = (ours > 0) & (theirs > 0)
    orders = occurs.sum(dim=-1).clamp_min(1)
    precision, recall = (
        torch.where(occurs, matches / all_.clamp_min(1), 0.0).sum(dim=-1) / orders
        for all_ in (ours, theirs)
    )
    weighted = _BETA**2 * precision + recall
    score = (1 + _BETA**2) * precision * recall / torch.where(weighted > 0, weighted, 1.0)
    return score.to(counts.dtype)


def ngram_counts(text: Sequence, reference: Sequence, orders: int) -> list[int]:
    """Shared n-grams, n-grams of the text and n-grams of the reference, for n = 1, 2, ...

    Args:
        text: Characters or words.
        reference: The same of the reference.
        orders: The largest n.
    """
    shared, ours, theirs = [], [], []
    for n in range(1, orders + 1):
        one, other = (
            Counter(tuple(x[i : i + n]) for i in range(len(x) - n + 1)) for x in (text, reference)
        )
        shared.append((one & other).total())
        ours.append(one.total())
        theirs.append(other.total())
    return [*shared, *ours, *theirs]
