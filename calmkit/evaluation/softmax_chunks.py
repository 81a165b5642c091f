"""Scores of a softmax model that draws whole chunks, at the places where a CALM is scored.

A softmax that reads every true token before the next one is scored at an easier task than a model
that draws K tokens at once: there, the later tokens of a chunk follow drawn ones. Here the
softmax draws its continuations as `evaluate` lets a CALM draw them, from the true text before
each chunk, so that the two differ in nothing but the model.
"""

import torch
from torch import Tensor

from calmkit.backbones import Cache
from calmkit.data import EvaluationRows
from calmkit.finite import read_together
from calmkit.metrics import BrierLMResult
from calmkit.models import TokenLM
from calmkit.nn import evaluation_view

from .scored_text import (
    BRANCHES_AT_ONCE,
    HIGHEST_ORDER,
    ROWS_AT_ONCE,
    EvaluationSettings,
    Targets,
    find_targets,
)
from .tally import Tally

__all__ = ["evaluate_softmax_chunks"]


@torch.no_grad()
def evaluate_softmax_chunks(
    model: TokenLM,
    rows: EvaluationRows,
    settings: EvaluationSettings,
    *,
    seed: int,
    highest_order: int = HIGHEST_ORDER,
) -> BrierLMResult:
    """Score the chunks that a softmax model draws, in evaluation mode.

    Args:
        model: The model, on any device.
        rows: Held-out rows, with chunks of any size.
        settings: The protocol.
        seed: Seed of the draws.
        highest_order: n of the longest n-grams, as in `evaluate`.

    Raises:
        ValueError: If fewer than two rows have text after the context.
        NonFiniteError: If states or logits are not finite.
    """
    tally = Tally(rows, settings.min_context, highest_order)
    device = model.backbone.device
    generator = torch.Generator(device).manual_seed(seed)
    model = evaluation_view(model)
    for chosen in torch.arange(len(rows.document)).split(ROWS_AT_ONCE):
        with read_together():
            tokens, real = (x[chosen].to(device) for x in (rows.batch.tokens, rows.batch.real))
            targets = find_targets(tokens, real, settings.min_context, highest_order)
            tokens, real = (x.flatten(1)[..., None] for x in (tokens, real))
            longest = tokens.shape[1] + targets.tokens.shape[1]
            cache = model.backbone.new_cache(len(tokens), longest)
            states = model.backbone(model.input_encoder(tokens, real), cache=cache)
            begin = targets.place * rows.batch.tokens.shape[2]
            after = states[targets.row, begin - 1]
            drawn = _draw(model, cache, targets, begin, after, settings.draws, generator)
            tally.add_draws(chosen, targets, drawn)
    protocol = (
        f"a softmax, {settings.draws} draws after {tally.context} of true text, in {tally.rows}; "
        f"{tally.scored_tokens} tokens scored; standard errors over {tally.resampled}"
    )
    return tally.brier(settings, seed, protocol)


def _draw(
    model: TokenLM,
    cache: Cache,
    targets: Targets,
    begin: Tensor,
    after: Tensor,
    draws: int,
    generator: torch.Generator,
) -> Tensor:
    """Continuations (draws, points, tokens), each in its own branch of the cache.

    Args:
        model: The model.
        cache: The cache of all rows.
        targets: The points and how many tokens to draw.
        begin: Token of its row with which each point begins.
        after: State before it, (points, hidden).
        draws: Continuations per point.
        generator: Source of the draws.
    """
    points, length = targets.tokens.shape
    # Sort the branches by length, since a step costs as much as its longest row.
    order = begin.repeat(draws).argsort(stable=True)
    own, done = None, []
    for branch in order.split(BRANCHES_AT_ONCE):
        point = branch % points
        own = cache.select(targets.row[point], begin[point], out=own)
        state, drawn = after[point], []
        while len(drawn) < length:
            drawn.append(model.draws(state, generator)(1)[0])
            if len(drawn) < length:
                read = torch.ones_like(drawn[-1][:, None], dtype=torch.bool)
                vectors = model.input_encoder(drawn[-1][:, None], read)
                state = model.backbone(vectors, cache=own)[:, 0]
        done.append(torch.cat(drawn, dim=-1))
    return torch.cat(done)[order.argsort()].view(draws, points, length)
