"""Scores of a softmax model on held-out text: cross entropy, and Brier scores by probabilities.

The positions, n-grams and errors are those of `evaluate`, so that the numbers stand beside those
of models that can only be drawn from. Probabilities take the place of draws where they are known:
Brier-1 and the truth's part of each Brier-n are exact, and only prefixes are drawn for the
collision part of Brier-2 and above (see `calmkit.metrics.softmax`).
"""

import torch
from torch import Tensor

from calmkit.backbones import Cache
from calmkit.data import EvaluationRows
from calmkit.finite import read_together, require_finite
from calmkit.metrics import softmax_collision
from calmkit.models import TokenLM
from calmkit.nn import evaluation_view
from calmkit.sampling import drawable

from .scored_text import (
    BRANCHES_AT_ONCE,
    HIGHEST_ORDER,
    ROWS_AT_ONCE,
    EvaluationSettings,
    Targets,
    check_context,
    find_targets,
    positions_read,
)
from .tally import Evaluation, Tally

__all__ = ["evaluate_softmax"]


@torch.no_grad()
def evaluate_softmax(
    model: TokenLM,
    rows: EvaluationRows,
    settings: EvaluationSettings,
    *,
    seed: int,
    highest_order: int = HIGHEST_ORDER,
) -> Evaluation:
    """Score a softmax model in evaluation mode, whichever mode it is in; it is left as it is.

    Args:
        model: The model, on any device.
        rows: Held-out rows of chunks of one token.
        settings: What is scored; `draws` prefixes are drawn for Brier-2 and above.
        seed: Decides them.
        highest_order: n of the longest n-grams, as in `evaluate`.

    Raises:
        ValueError: If fewer than two rows have text after the context, or chunks hold more than
            one token.
        NonFiniteError: If states or logits are not finite.
    """
    if rows.batch.tokens.shape[2] != 1:
        raise ValueError(
            f"rows must hold chunks of one token for a TokenLM; got {rows.batch.tokens.shape[2]}."
        )
    check_context(rows, settings.min_context)
    tally = Tally(rows, settings.min_context, highest_order)
    device = model.backbone.device
    generator = torch.Generator(device).manual_seed(seed)
    model = evaluation_view(model)
    for chosen in torch.arange(len(rows.document)).split(ROWS_AT_ONCE):
        with read_together():
            tokens, real = (x[chosen].to(device) for x in (rows.batch.tokens, rows.batch.real))
            targets = find_targets(tokens, real, settings.min_context, highest_order)
            longest = positions_read(tokens.shape[1], 1, highest_order)
            cache = model.backbone.new_cache(len(tokens), longest)
            states = model.backbone(model.input_encoder(tokens, real), cache=cache)
            logs = _log_probabilities(model, states)
            after = logs[targets.row, targets.place - 1]
            hits = _hits(logs, targets)
            collisions = _collisions(model, cache, targets, after, settings.draws, generator)
            tally.add_rates(chosen, targets, hits.exp()[..., None], collisions[..., None])
            tally.add_values(chosen, targets, -hits[:, 0])
    scoring = (
        f"probabilities after {tally.context} of true text, in {tally.rows}; "
        f"{settings.draws} prefixes drawn for Brier-2 and above"
    )
    return tally.evaluation("cross_entropy", settings, seed, scoring)


def _log_probabilities(model: TokenLM, states: Tensor) -> Tensor:
    require_finite("states of the backbone", states)
    logits = model.logits(states)
    require_finite("logits of the softmax", logits)
    return logits.log_softmax(dim=-1)


def _hits(logs: Tensor, targets: Targets) -> Tensor:
    """Log-probability of the first n true tokens for n = 1, 2, ..., (points, orders)."""
    steps = torch.arange(targets.tokens.shape[1], device=logs.device)
    # Behind the row's end there is no text, and what stands here does not count.
    places = (targets.place[:, None] - 1 + steps).clamp_max(logs.shape[1] - 1)
    each = logs[targets.row[:, None], places, targets.tokens]
    return each.double().cumsum(dim=-1)


def _collisions(
    model: TokenLM,
    cache: Cache,
    targets: Targets,
    after: Tensor,
    draws: int,
    generator: torch.Generator,
) -> Tensor:
    """The collision term for n = 1, 2, ..., (points, orders), in branches of the cache."""
    # Points of like length together: a step costs as much as its longest row.
    order = targets.place.argsort(stable=True)
    own, found = None, []
    for points in order.split(max(1, BRANCHES_AT_ONCE // draws)):
        branch = points.repeat(draws)
        own = cache.select(targets.row[branch], targets.place[branch], out=own)
        orders = targets.tokens.shape[1]
        found.append(_collisions_after(model, own, after[points], draws, orders, generator))
    return torch.cat(found)[order.argsort()]


def _collisions_after(
    model: TokenLM,
    cache: Cache,
    logs: Tensor,
    draws: int,
    orders: int,
    generator: torch.Generator,
) -> Tensor:
    """For n = 1, exactly, and for n = 2, 3, ... from drawn prefixes.

    Args:
        model: The model.
        cache: Of `draws` times as many rows as there are points; it is written on.
        logs: Log-probabilities of the next token after each point, (points, vocab).
        draws: Prefixes of each point.
        orders: The highest n.
        generator: Decides the draws.
    """
    points = len(logs)
    found = [softmax_collision(logs.new_zeros(1, points, 0), logs[None])]
    logs = logs.repeat(draws, 1)
    drawn: list[Tensor] = []
    while len(found) < orders:
        token = torch.multinomial(drawable(logs.exp()), 1, generator=generator)
        drawn.append(logs.gather(-1, token))
        vectors = model.input_encoder(token[:, None], torch.ones_like(token[:, None]).bool())
        logs = _log_probabilities(model, model.backbone(vectors, cache=cache)[:, 0])
        steps = torch.cat(drawn, dim=-1)
        found.append(
            softmax_collision(steps.view(draws, points, -1), logs.view(draws, points, -1))
        )
    return torch.stack(found, dim=-1)
