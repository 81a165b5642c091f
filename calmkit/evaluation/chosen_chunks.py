"""What a sampler chooses after true text: how often it is right, and what it takes.

A sampler below temperature 1 writes other text than the head draws, so scores of the head's draws
say nothing of it. Its chunks are compared with the true ones, token by token. To be right more
often is what a low temperature is for; it is no proper score, and variety is not asked for.
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

# States after which chunks are chosen together: a bound on the candidates held for a moment.
_POSITIONS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Choices:
    """What was chosen.

    Attributes:
        documents: Scores of the documents, and last the share of tokens that are right.
        draws_per_chunk: Candidates that the sampler took for a chunk.
        unsettled: Share of chunks for which they did not suffice.
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
        documents: Scores on the same rows, after the same context.
        min_context: Chunks of true text before the first chosen one of a row.
        seed: Decides the draws.
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
