"""Sampler accuracy: how often a sampler's chunks are right after true text, and their cost.

Below temperature 1 a sampler does not follow the distribution of the head's draws, so the scores
of these draws do not evaluate it. Its chunks are compared with the true ones, token by token. A
lower temperature should raise this accuracy. It is not a proper score and does not reward variety.
"""

from dataclasses import dataclass

import torch

from calmkit.data import EvaluationRows
from calmkit.finite import read_together
from calmkit.metrics import DocumentScores
from calmkit.models import LanguageModel
from calmkit.nn import evaluation_view
from calmkit.sampling import Sampler

from .scored_text import find_targets

__all__ = ["Choices", "choose"]

# States per call of the sampler, which bounds the number of candidates in memory.
_POSITIONS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Choices:
    """The accuracy and the cost of the chosen chunks.

    Attributes:
        documents: Scores by document; the last one is the share of correct tokens.
        draws_per_chunk: Mean number of candidates that the sampler used per chunk.
        unsettled: Share of chunks for which the candidates did not suffice.
    """

    documents: DocumentScores
    draws_per_chunk: float
    unsettled: float


@torch.no_grad()
def choose(
    model: LanguageModel,
    rows: EvaluationRows,
    sampler: Sampler,
    documents: DocumentScores,
    *,
    min_context: int,
    seed: int,
) -> Choices:
    """Let a sampler choose each chunk that has enough true text before it.

    Args:
        model: The model, on any device.
        rows: Held-out rows.
        sampler: Chooses a chunk from each state.
        documents: Scores on the same rows with the same context.
        min_context: Chunks of true text before the first chosen one of a row.
        seed: Seed of the draws.
    """
    batch = rows.batch.to(model.backbone.device)
    generator = torch.Generator(batch.tokens.device).manual_seed(seed)
    targets = find_targets(batch.tokens, batch.real, min_context, 1)
    model = evaluation_view(model)
    with read_together():
        states = model.hidden_states(batch)[targets.row, targets.place - 1]
        chosen = [
            sampler(model.draws(part, generator), generator)
            for part in states.split(_POSITIONS_AT_ONCE)
        ]
    text = batch.real[targets.row, targets.place]
    right = torch.cat([one.tokens for one in chosen]) == batch.tokens[targets.row, targets.place]
    groups = torch.arange(len(rows.document)) if documents.unit == "rows" else rows.document
    return Choices(
        documents=documents.with_metric(
            "chosen_accuracy",
            (right & text).sum(dim=-1).double(),
            text.sum(dim=-1).double(),
            groups[targets.row.cpu()],
        ),
        draws_per_chunk=float(torch.cat([one.draws for one in chosen]).double().mean()),
        unsettled=float((~torch.cat([one.settled for one in chosen])).double().mean()),
    )
