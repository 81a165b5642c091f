"""Scores of either kind of model, and of an autoencoder."""

import torch

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.chunking import ChunkBatch
from calmkit.data import EvaluationRows
from calmkit.distributions import DiagonalGaussian
from calmkit.models import CALM, LanguageModel, TokenLM
from calmkit.nn import evaluation_view

from .sampled_evaluation import evaluate
from .scored_text import ROWS_AT_ONCE, EvaluationSettings
from .softmax_evaluation import evaluate_softmax
from .tally import Evaluation

__all__ = ["posteriors_of", "restored_share", "score"]


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
        ValueError: As in `evaluate`, or if it is another kind of model.
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
    """Share of tokens that the autoencoder restores from the posterior's mean."""
    latents = posteriors_of(autoencoder, batch).mean
    restored = evaluation_view(autoencoder).decode_tokens(latents) == batch.tokens
    return float(restored[batch.real].double().mean())


@torch.no_grad()
def posteriors_of(autoencoder: ChunkAutoencoder, batch: ChunkBatch) -> DiagonalGaussian:
    """The posterior of each chunk in its row, in evaluation mode.

    Rows are encoded in blocks: a validation of many long rows would otherwise take more memory
    than the training around it.
    """
    autoencoder = evaluation_view(autoencoder)
    blocks = [
        autoencoder.encode_rows(batch.rows(slice(first, first + ROWS_AT_ONCE)))
        for first in range(0, len(batch.lengths), ROWS_AT_ONCE)
    ]
    mean, std = (torch.cat([getattr(b, name) for b in blocks]) for name in ("mean", "std"))
    return DiagonalGaussian(mean, std)
