r"""Text that a model continues by itself, compared with the true text.

The first chunks of each row are the prompt. The model writes as many tokens as are compared, each
chunk after its own previous ones, and its text is compared with the true continuation:

    accuracy   share of tokens that equal the true token at the same place
    chrF       n-grams of characters in common, BLEU of words; see `calmkit.metrics`

All are in per cent, and **higher is better**. None is proper: there are many good continuations
and one true one, so a fluent text scores hardly better than any other text of the language. The
true continuation of another row, of the same length (`other_text`), shows what any text scores. A
lower temperature raises the accuracy at the cost of variety. Use these scores to compare with
models that publish them and for texts with one right answer; to compare models, use BrierLM.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from calmkit.bounds import check_at_least
from calmkit.data import EvaluationRows, TextTokenizer
from calmkit.metrics import (
    Estimate,
    bleu,
    bleu_counts,
    chrf,
    chrf_counts,
    estimates_from,
    jackknife,
)
from calmkit.models import LanguageModel
from calmkit.sampling import Sampler

from .scored_text import check_context, scored_rows
from .tally import ENOUGH_DOCUMENTS

__all__ = ["Continuations", "TextScores", "continue_rows"]

# Rows continued together, which bounds the candidates in memory.
_ROWS_AT_ONCE = 32
_CHRF, _BLEU, _RIGHT, _TOKENS = slice(0, 18), slice(18, 30), 30, 31


@dataclass(frozen=True)
class TextScores:
    """Scores of texts against the true ones, in per cent; higher is better.

    Attributes:
        chrf: Character n-grams in common.
        bleu: Word n-grams in common.
        accuracy: Share of tokens that are right.
    """

    chrf: Estimate
    bleu: Estimate
    accuracy: Estimate


@dataclass(frozen=True, kw_only=True)
class Continuations:
    """Scores of continued rows.

    Attributes:
        model: Scores of the model's continuations.
        other_text: Scores of the true continuations of other rows.
        rows: Number of rows that were continued.
        tokens: Largest number of tokens that were compared in a row.
    """

    model: TextScores
    other_text: TextScores
    rows: int
    tokens: int

    def __str__(self) -> str:
        """What was continued, and what the true text of another place scores, in one phrase."""
        other = self.other_text
        scores = ((other.chrf, "chrF"), (other.bleu, "BLEU"), (other.accuracy, "tokens"))
        found = ", ".join(f"{name} {score.value:.3g} %" for score, name in scores)
        return (
            f"{self.rows} rows by up to {self.tokens} tokens; the true text of another place "
            f"scores {found}"
        )


def continue_rows(
    model: LanguageModel,
    tokenizer: TextTokenizer,
    rows: EvaluationRows,
    sampler: Sampler,
    *,
    min_context: int,
    tokens: int,
    seed: int,
) -> Continuations:
    """Let a model continue each row that has text after the context.

    Args:
        model: The model, on any device.
        tokenizer: Its tokenizer; a text ends where the model draws its end token.
        rows: Held-out rows.
        sampler: Chooses each chunk.
        min_context: Chunks of true text in the prompt.
        tokens: Tokens to compare in each row, at most as many as it has.
        seed: Seed of the draws.

    Raises:
        ValueError: If there is no token to compare, or text after the context in fewer than two
            rows.
    """
    check_at_least(1, tokens=tokens)
    check_context(rows, min_context)
    chosen = scored_rows(rows, min_context).nonzero()[:, 0]
    cut = min_context * rows.batch.tokens.shape[2]
    texts = [rows.batch.tokens[row][rows.batch.real[row]].tolist() for row in chosen.tolist()]
    true = [text[cut : cut + tokens] for text in texts]
    generator = torch.Generator(model.backbone.device).manual_seed(seed)
    written: list[list[int]] = []
    for start in range(0, len(texts), _ROWS_AT_ONCE):
        now = slice(start, start + _ROWS_AT_ONCE)
        found = model.generate(
            [text[:cut] for text in texts[now]],
            max_new_tokens=max(map(len, true[now])),
            eos_id=tokenizer.end_id,
            sampler=sampler,
            generator=generator,
        )
        written += [one.tokens for one in found]
    half = len(true) // 2
    documents = rows.document[chosen]
    few = len(documents.unique()) < ENOUGH_DOCUMENTS
    groups = chosen if few else documents
    return Continuations(
        model=_scores(written, true, tokenizer, groups, few=few),
        other_text=_scores([*true[half:], *true[:half]], true, tokenizer, groups, few=few),
        rows=len(true),
        tokens=max(map(len, true)),
    )


def _scores(
    texts: Sequence[list[int]],
    true: Sequence[list[int]],
    tokenizer: TextTokenizer,
    groups: Tensor,
    *,
    few: bool,
) -> TextScores:
    """Scores with the error of leaving out each group."""
    names, group = groups.unique(return_inverse=True)
    counts = [
        _counts(text[: len(known)], known, tokenizer)
        for text, known in zip(texts, true, strict=True)
    ]
    table = torch.tensor(counts, dtype=torch.float64)
    sums = table.new_zeros(len(names), table.shape[1]).index_add_(0, group, table)
    values, without_each = _of_counts(sums.sum(dim=0)), _of_counts(sums.sum(dim=0) - sums)
    shares = (sums[:, _TOKENS] / sums[:, _TOKENS].sum())[:, None].expand(-1, len(values))
    variance = jackknife(values, without_each, shares)
    # Rows of one document are alike, so there are no intervals over rows.
    level = None if few else 0.95
    found = estimates_from(values, variance.amount.sqrt(), variance, level)
    return TextScores(*(one.scaled(100.0) for one in found))


def _counts(text: list[int], true: list[int], tokenizer: TextTokenizer) -> list[int]:
    decoded = tokenizer.decode(text), tokenizer.decode(true)
    right = sum(one == other for one, other in zip(text, true, strict=False))
    return [*chrf_counts(*decoded), *bleu_counts(*decoded), right, len(true)]


def _of_counts(sums: Tensor) -> Tensor:
    """chrF, BLEU and accuracy, (*batch, 3)."""
    accuracy = sums[..., _RIGHT] / sums[..., _TOKENS]
    return torch.stack((chrf(sums[..., _CHRF]), bleu(sums[..., _BLEU]), accuracy), dim=-1)
