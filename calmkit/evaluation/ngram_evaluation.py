"""Scores of counting alone, at the places where a model is scored.

A table of n-grams draws its continuations from the last tokens of the true text before each
scored chunk, as a model does, and is scored in the same way: a chunk of K tokens is drawn token
by token, and for K > 1 the later tokens of a chunk follow drawn ones. Draws are cheap here, so
there are more of them than of a model.
"""

import numpy as np
import torch

from calmkit.data import EvaluationRows
from calmkit.metrics import BrierLMResult

from .ngram_model import NgramModel
from .scored_text import (
    HIGHEST_ORDER,
    ROWS_AT_ONCE,
    EvaluationSettings,
    find_targets,
)
from .tally import Tally

__all__ = ["evaluate_ngrams"]

_DRAWS = 16


def evaluate_ngrams(
    model: NgramModel,
    rows: EvaluationRows,
    settings: EvaluationSettings,
    *,
    seed: int,
    highest_order: int = HIGHEST_ORDER,
    draws: int = _DRAWS,
) -> BrierLMResult:
    """Score a table of n-grams at the places that `evaluate` scores.

    Args:
        model: The table, of the training text.
        rows: Held-out rows.
        settings: What is scored; `draws` is not used.
        seed: Decides the draws.
        highest_order: As in `evaluate`.
        draws: Continuations at each scored place, at least 2.

    Raises:
        ValueError: If fewer than two rows have text after the context.
    """
    tally = Tally(rows, settings.min_context, highest_order)
    generator = np.random.default_rng(seed)
    chunk_size = rows.batch.tokens.shape[2]
    for chosen in torch.arange(len(rows.document)).split(ROWS_AT_ONCE):
        tokens, real = rows.batch.tokens[chosen], rows.batch.real[chosen]
        targets = find_targets(tokens, real, settings.min_context, highest_order)
        text = tokens.flatten(1).numpy()
        # The last tokens before each place, nearest last; none before the row's first token.
        back = np.arange(1 - model.order, 0)
        places = targets.place[:, None].numpy() * chunk_size + back
        context = np.where(places >= 0, text[targets.row[:, None].numpy(), places], -1)
        length = targets.tokens.shape[1]
        drawn = model.draw(np.tile(context, (draws, 1)), length, generator)
        tally.add_draws(chosen, targets, torch.from_numpy(drawn).view(draws, len(context), length))
    protocol = (
        f"{model.order}-grams, {draws} draws after {tally.context} of text, in {tally.rows}; "
        f"{tally.scored_tokens} tokens scored; standard errors over {tally.resampled}"
    )
    return tally.brier(settings, seed, protocol)
