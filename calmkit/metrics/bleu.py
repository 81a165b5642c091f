r"""BLEU: how many n-grams of words a text shares with a reference.

With M_n, H_n, R_n as in `chrf`, for words and n = 1..4, summed over all texts,

    BLEU = min(1, exp(1 - R_1 / H_1)) (prod_n M_n / H_n)^(1/4) .

Between 0 and 1, **higher is better**. The first factor is for texts that are too short. Where
M_n = 0, the k-th such order counts as 2^-k n-grams (smoothing "exp"); without any common word the
score is 0. Words are split off from punctuation by the rules of the script mteval-v13a.

Source: Papineni et al., "BLEU: a method for automatic evaluation of machine translation", ACL
2002; the conventions are the defaults of sacrebleu (Post, arXiv 1804.08771; `tok:13a|smooth:exp`).
"""

import re

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.typing import typed

from .chrf import ngram_counts

__all__ = ["bleu", "bleu_counts", "split_words"]

_ORDERS = 4
_ENTITIES = {"&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">"}
# Every ASCII mark but these three is a word of its own.
_MARKS = re.compile("([" + re.escape('!"#$%&()*+/:;<=>?@[\\]^_`{|}~') + "])")
# Full stops and commas belong to a number between two digits, and hyphens to a word otherwise.
_STOPS = (
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def bleu_counts(text: str, reference: str) -> list[int]:
    """M_n, H_n and R_n for n = 1..4 as one list; counts of several texts can be added.

    Args:
        text: The text to judge.
        reference: The true text.
    """
    return ngram_counts(split_words(text), split_words(reference), _ORDERS)


@typed
def bleu(counts: Float[Tensor, "*batch 12"]) -> Float[Tensor, "*batch"]:
    """The score of counts; 0 if no word is shared.

    Args:
        counts: From `bleu_counts`, or sums of them.
    """
    matches, ours, theirs = counts.double().unflatten(-1, (3, _ORDERS)).unbind(dim=-2)
    # An order that the texts are too short for ends the product; its mean is still over four.
    missing = ((matches == 0) & (ours > 0)).cumsum(dim=-1)
    smoothed = torch.where(matches > 0, matches, 0.5**missing)
    precision = torch.where(ours > 0, smoothed / ours.clamp_min(1), 0.0)
    short = torch.exp((1 - theirs[..., 0] / ours[..., 0].clamp_min(1)).clamp_max(0.0))
    score = short * precision.prod(dim=-1) ** (1 / _ORDERS)
    return torch.where(matches.sum(dim=-1) > 0, score, 0.0).to(counts.dtype)


def split_words(text: str) -> list[str]:
    """Words and marks of a text, by the rules 13a."""
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, mark in _ENTITIES.items():
        text = text.replace(entity, mark)
    text = _MARKS.sub(r" \1 ", f" {text} ")
    for pattern, spaced in _STOPS:
        text = pattern.sub(spaced, text)
    return text.split()
