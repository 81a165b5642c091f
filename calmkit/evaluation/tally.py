"""Accumulate scores over documents, and compute the final scores from the sums."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from calmkit.data import EvaluationRows
from calmkit.metrics import BrierLMResult, DocumentScores, Estimate, NgramSums, summarize_brier

from .scored_text import HIGHEST_ORDER, EvaluationSettings, Targets, check_context, scored_rows

__all__ = ["ENOUGH_DOCUMENTS", "Evaluation", "Tally"]

ENOUGH_DOCUMENTS = 8


@dataclass(frozen=True)
class Evaluation:
    """Scores on held-out text.

    Attributes:
        brier: BrierLM and the signed Brier-1..4, times 100; higher is better.
        energy_score: Energy score of drawn latents against the posteriors, lower is better; None
            for a softmax model, which has no latents.
        cross_entropy: Nats per token, lower is better; None for a CALM.
        scored_tokens: Number of tokens in the means of Brier-1 and the cross entropy.
        protocol: The protocol in one sentence, to be printed with the scores.
        documents: Sums of each score over documents, for a paired comparison with another model.
    """

    brier: BrierLMResult
    energy_score: Estimate | None
    cross_entropy: Estimate | None
    scored_tokens: int
    protocol: str
    documents: DocumentScores

    @property
    def perplexity(self) -> float | None:
        """Perplexity per token, exp(cross entropy), lower is better; None for a CALM."""
        return None if self.cross_entropy is None else math.exp(self.cross_entropy.value)


class Tally:
    """Sums over the tokens of each group of rows.

    A group is a document. If there are too few documents for a bootstrap, it is a row, as if rows
    were independent. Besides the Brier scores, the tally accumulates one loss value per point.

    Raises:
        ValueError: If fewer than two rows have text after the context.
    """

    def __init__(
        self, rows: EvaluationRows, min_context: int, highest_order: int = HIGHEST_ORDER
    ) -> None:
        check_context(rows, min_context)
        documents = rows.document[scored_rows(rows, min_context)].unique()
        few = len(documents) < ENOUGH_DOCUMENTS
        names = torch.arange(len(rows.document)) if few else rows.document
        groups, self._group = names.unique(return_inverse=True)
        self._names: list[int] = groups.tolist()
        self._unit: Literal["documents", "rows"] = "rows" if few else "documents"
        self._shape, self._min_context = rows.batch.tokens.shape, min_context
        self._ngrams = NgramSums.zeros(len(groups), highest_order, self._shape[2])
        self._values = torch.zeros(len(groups), 1, dtype=torch.float64)
        self._points = torch.zeros(len(groups), 1, dtype=torch.float64)

    @property
    def context(self) -> str:
        """The context of a scored chunk, in words."""
        positions, chunk_size = self._shape[1:]
        of = "" if chunk_size == 1 else f" chunks of {chunk_size}"
        return f"{self._min_context} to {positions - 1}{of} tokens"

    @property
    def rows(self) -> str:
        """The number of rows, in words."""
        return f"{self._shape[0]} rows without overlap"

    @property
    def resampled(self) -> str:
        """The number of groups with scored tokens, which the bootstrap resamples, in words."""
        return f"{int(self._ngrams.seen.sum())} {self._unit}"

    @property
    def scored_tokens(self) -> int:
        """Number of tokens in the mean of Brier-1."""
        return int(self._ngrams.counts[:, 0].sum())

    def add_draws(self, chosen: Tensor, targets: Targets, draws: Tensor) -> None:
        """Add draws (samples, points, tokens) at the targets of the chosen rows."""
        group = self._group_of(chosen, targets).to(draws.device)
        counted = targets.counted
        self._add(NgramSums.of_draws(draws, targets.tokens, counted, group, len(self._names)))

    def add_rates(
        self, chosen: Tensor, targets: Targets, hits: Tensor, collisions: Tensor
    ) -> None:
        """Add known or estimated rates (points, orders, places)."""
        group = self._group_of(chosen, targets).to(hits.device)
        self._add(NgramSums.over(hits, collisions, targets.counted, group, len(self._names)))

    def add_values(self, chosen: Tensor, targets: Targets, values: Tensor) -> None:
        """Add the loss of each point, (points,)."""
        group = self._group_of(chosen, targets)
        self._values.index_add_(0, group, values.double().cpu()[:, None])
        self._points.index_add_(0, group, torch.ones_like(values).double().cpu()[:, None])

    def brier(self, settings: EvaluationSettings, seed: int, protocol: str) -> BrierLMResult:
        """BrierLM with its errors; groups without tokens are excluded.

        If the groups are rows there are no intervals, since rows of one document are similar.

        Args:
            settings: The protocol, with the number of resamples.
            seed: Seed of the resampling.
            protocol: The protocol in one sentence.
        """
        return summarize_brier(
            self._ngrams.counted_groups(),
            resamples=settings.bootstrap,
            seed=seed,
            level=0.95 if self._unit == "documents" else None,
            protocol=protocol,
        )

    def evaluation(
        self,
        loss: Literal["energy_score", "cross_entropy"],
        settings: EvaluationSettings,
        seed: int,
        scoring: str,
    ) -> Evaluation:
        """All scores of a model.

        Args:
            loss: Name of the loss.
            settings: The protocol, with the number of resamples.
            seed: Seed of the draws and of the resampling.
            scoring: The beginning of the protocol sentence: draws or probabilities, and context.
        """
        protocol = (
            f"{scoring}; {self.scored_tokens} tokens scored; seed {seed}; "
            f"standard errors over {self.resampled}"
        )
        ngrams = self._ngrams.scores(tuple(self._names), self._unit)
        seen = self._ngrams.seen
        documents = DocumentScores(
            names=(*ngrams.names, loss),
            sums=torch.cat([ngrams.sums, self._values], dim=1)[seen],
            counts=torch.cat([ngrams.counts, self._points], dim=1)[seen],
            groups=tuple(name for name, kept in zip(self._names, seen, strict=True) if kept),
            unit=self._unit,
        )
        estimate = documents.estimate(resamples=settings.bootstrap, seed=seed)[-1]
        return Evaluation(
            brier=self.brier(settings, seed, protocol),
            energy_score=estimate if loss == "energy_score" else None,
            cross_entropy=estimate if loss == "cross_entropy" else None,
            scored_tokens=self.scored_tokens,
            protocol=protocol,
            documents=documents,
        )

    def _group_of(self, chosen: Tensor, targets: Targets) -> Tensor:
        return self._group[chosen][targets.row.cpu()]

    def _add(self, sums: NgramSums) -> None:
        here = (x.cpu() for x in (sums.hits, sums.collisions, sums.counts))
        self._ngrams = self._ngrams + NgramSums(*here)
