"""Scores of a softmax model on held-out text: cross entropy, and Brier scores from probabilities.

The positions, n-grams and errors are those of `evaluate`, so the scores are comparable with those
of a CALM. Known probabilities replace draws: Brier-1 and the hit term of each Brier-n are exact,
and draws are used only for the prefixes in the collision term of Brier-2 and above (see
`calmkit.metrics.softmax`).

Logits of all tokens exist for a block of positions at a time: rows times positions times the
vocabulary would take gigabytes.
"""

import torch
from torch import Tensor

from calmkit.backbones import Cache
from calmkit.data import EvaluationRows
from calmkit.finite import read_together, require_finite
from calmkit.metrics import softmax_collision
from calmkit.models import TokenLM
from calmkit.nn import evaluation_view, vocabulary_nats
from calmkit.sampling import drawable

from .scored_text import (
    BRANCHES_AT_ONCE,
    HIGHEST_ORDER,
    ROWS_AT_ONCE,
    EvaluationSettings,
    Targets,
    find_targets,
    positions_read,
)
from .tally import Evaluation, Tally

__all__ = ["evaluate_softmax"]

_LOGITS_AT_ONCE = 2**22  # 16 MB in float32; the squares of probabilities take 64 MB more


@torch.no_grad()
def evaluate_softmax(
    model: TokenLM,
    rows: EvaluationRows,
    settings: EvaluationSettings,
    *,
    seed: int,
    highest_order: int = HIGHEST_ORDER,
) -> Evaluation:
    """Score a softmax model in evaluation mode, without changing its mode.

    Args:
        model: The model, on any device.
        rows: Held-out rows with chunks of one token.
        settings: The protocol; `draws` prefixes are drawn for Brier-2 and above.
        seed: Seed of these draws.
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
            require_finite("states of the backbone", states)
            hits = _hits(model, states, tokens, targets)
            after = states[targets.row, targets.place - 1]
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


def _hits(model: TokenLM, states: Tensor, tokens: Tensor, targets: Targets) -> Tensor:
    """Log-probability of the first n true tokens for n = 1, 2, ..., (points, orders)."""
    nats = vocabulary_nats(states[:, :-1], model.output.weight, tokens[:, 1:, 0])
    require_finite("logits of the softmax", nats)
    steps = torch.arange(targets.tokens.shape[1], device=nats.device)
    # Places beyond the row's end hold no text; their values are not counted.
    places = (targets.place[:, None] - 1 + steps).clamp_max(nats.shape[1] - 1)
    return -nats[targets.row[:, None], places].double().cumsum(dim=-1)


def _collisions(
    model: TokenLM,
    cache: Cache,
    targets: Targets,
    after: Tensor,
    draws: int,
    generator: torch.Generator,
) -> Tensor:
    """The collision term for n = 1, 2, ..., (points, orders), in branches of the cache."""
    # Sort the points by length, since a step costs as much as its longest row.
    order = targets.place.argsort(stable=True)
    branches = min(BRANCHES_AT_ONCE, _LOGITS_AT_ONCE // model.vocab_size)
    own, found = None, []
    for points in order.split(max(1, branches // draws)):
        branch = points.repeat(draws)
        own = cache.select(targets.row[branch], targets.place[branch], out=own)
        orders = targets.tokens.shape[1]
        found.append(_collisions_after(model, own, after[points], draws, orders, generator))
    return torch.cat(found)[order.argsort()]


def _collisions_after(
    model: TokenLM,
    cache: Cache,
    states: Tensor,
    draws: int,
    orders: int,
    generator: torch.Generator,
) -> Tensor:
    """The collision term: exact for n = 1, from drawn prefixes for n = 2, 3, ...

    Args:
        model: The model.
        cache: A cache with `draws` rows per point, which is extended.
        states: The state before each point, (points, hidden).
        draws: Prefixes per point.
        orders: The highest n.
        generator: Source of the draws.
    """
    points, logs = len(states), _log_probabilities(model, states)
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
