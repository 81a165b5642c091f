"""Save a trained model: the last weights, and the averaged ones beside them if the run has them.

    DIRECTORY/        the model with its last weights
              ema/    the same with its averaged weights; a folder like any other

Scores are those of the averaged weights if there are any, so the card of `ema/` states them.
"""

from collections.abc import Mapping
from pathlib import Path

from calmkit.data import TextTokenizer
from calmkit.models import LanguageModel
from calmkit.training import TrainingResult

from .model_folder import save_checkpoint

__all__ = ["AVERAGED", "save_trained"]

AVERAGED = "ema"
"""Name of the folder of the averaged weights in that of a model."""


def save_trained(
    directory: Path,
    training: TrainingResult,
    *,
    model: LanguageModel,
    tokenizer: TextTokenizer,
    config_text: str,
    metrics: Mapping[str, float] | None = None,
    protocol: str = "",
) -> None:
    """Write a model, or two with `ema`.

    Args:
        directory: Folder, created if missing.
        training: The record of the model's training.
        model: The model, with its last weights.
        tokenizer: Its tokenizer.
        config_text: The effective config.
        metrics: Scores by name, for the model card.
        protocol: Protocol of the scores, for the model card.
    """
    parts = {"model": model, "tokenizer": tokenizer, "config_text": config_text}
    scores = {"metrics": metrics, "protocol": protocol}
    if training.average is None:
        save_checkpoint(directory, **parts, **scores)
        return
    with training.averaged():
        save_checkpoint(directory / AVERAGED, **parts, **scores)
    save_checkpoint(
        directory, **parts, protocol=f"Not measured; {AVERAGED}/ holds the averaged weights."
    )
