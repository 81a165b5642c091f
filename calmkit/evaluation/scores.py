"""Scores of either kind of model, and of an autoencoder alone."""

import torch

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.chunking import ChunkBatch
from calmkit.data import EvaluationRows
from calmkit.models import CALM, LanguageModel, TokenLM
from calmkit.nn import evaluation_view

from .sampled_evaluation import evaluate
from .scored_text import EvaluationSettings
from .softmax_evaluation import evaluate_softmax
from .tally import Evaluation

__all__ = ["restored_share", "score"]


def score(
    model: LanguageModel,
    rows: EvaluationRows,
    settings: EvaluationSettings,
    *,
    seed: int,
    **options: int,
) -> Evaluation:
    """Brier scores and loss of either kind of model.

    Raises:
        ValueError: As `evaluate` does, or if it is another kind of model.
    """
    if isinstance(model, TokenLM):
        return evaluate_softmax(model, rows, settings, seed=seed, **options)
    if isinstance(model, CALM):
        return evaluate(model, rows, settings, seed=seed, **options)
    raise ValueError(
        f"model must be a CALM or a TokenLM to be measured; got {type(model).__name__}."
    )


@torch.no_grad()
def restored_share(autoencoder: ChunkAutoencoder, batch: ChunkBatch) -> float:
    """Share of tokens that come back from the posterior's mean."""
    autoencoder = evaluation_view(autoencoder)
    restored = autoencoder.decode_tokens(autoencoder.encode_rows(batch).mean) == batch.tokens
    return float(restored[batch.real].double().mean())
