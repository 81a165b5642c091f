"""Scores of a CALM on held-out text: Brier-1..4, BrierLM and the energy score.

At every scored position the model draws a few continuations of the *true* text before it. They are
compared with the true continuation, as tokens (Brier-n) and as latents (energy score). The scores
depend on the choice of positions and on their context, so both are part of the result
(`Evaluation.protocol`).

A Brier-n counts the n-grams that start in the predicted chunk and lie inside the drawn tokens. For
K >= 4 the model draws that chunk only. Shorter chunks are extended to at least four tokens: the
model reads each draw and draws the next chunk, in branches of one cache and without a loop over
positions.
"""

import torch
from torch import Tensor

from calmkit.backbones import Cache
from calmkit.chunking import ChunkBatch
from calmkit.data import EvaluationRows
from calmkit.finite import read_together
from calmkit.metrics import BrierLMResult
from calmkit.models import CALM, draw_latents
from calmkit.nn import evaluation_view
from calmkit.scoring import EnergyScore

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

__all__ = ["evaluate", "evaluate_unigram"]


@torch.no_grad()
def evaluate(
    model: CALM,
    rows: EvaluationRows,
    settings: EvaluationSettings,
    *,
    seed: int,
    highest_order: int = HIGHEST_ORDER,
) -> Evaluation:
    """Score a model in evaluation mode, without changing its mode.

    Args:
        model: The model, on any device.
        rows: Held-out rows, each with one piece of one document.
        settings: The protocol.
        seed: Seed of the draws.
        highest_order: n of the longest n-grams. The published BrierLM has n = 4; another n is
            another metric.

    Raises:
        ValueError: If fewer than two rows have text after the context.
        NonFiniteError: If states, latents or logits are not finite.
    """
    tally = Tally(rows, settings.min_context, highest_order)
    device = model.backbone.device
    generator = torch.Generator(device).manual_seed(seed)
    model = evaluation_view(model)
    for chosen in torch.arange(len(rows.document)).split(ROWS_AT_ONCE):
        with read_together():
            tokens, real = (x[chosen].to(device) for x in (rows.batch.tokens, rows.batch.real))
            targets = find_targets(tokens, real, settings.min_context, highest_order)
            latents, draws = _draw(model, tokens, real, targets, settings.draws, generator)
            one_document_each = ((tokens.shape[1],),) * len(chosen)
            posterior = model.autoencoder.encode_rows(ChunkBatch(tokens, real, one_document_each))
            target = posterior[targets.row, targets.place]
            tally.add_draws(chosen, targets, draws)
            tally.add_values(chosen, targets, EnergyScore().score(latents, target))
    scoring = f"{settings.draws} draws after {tally.context} of true text, in {tally.rows}"
    return tally.evaluation("energy_score", settings, seed, scoring)


def evaluate_unigram(
    probabilities: Tensor,
    rows: EvaluationRows,
    settings: EvaluationSettings,
    *,
    seed: int,
    highest_order: int = HIGHEST_ORDER,
) -> BrierLMResult:
    """Exact scores of the unigram baseline, at the places that `evaluate` scores.

    An n-gram of independent tokens has the Brier score 2 prod_i p(y_i) - (sum_x p(x)^2)^n.

    Args:
        probabilities: Probability of each token id.
        rows: Held-out rows.
        settings: The protocol.
        seed: Seed of the bootstrap, as in `evaluate`.
        highest_order: As in `evaluate`.

    Raises:
        ValueError: If fewer than two rows have text after the context.
    """
    tally = Tally(rows, settings.min_context, highest_order)
    targets = find_targets(rows.batch.tokens, rows.batch.real, settings.min_context, highest_order)
    probabilities = probabilities.double()
    hits = torch.zeros(targets.counted.shape, dtype=probabilities.dtype)
    for n in range(1, highest_order + 1):
        windows = probabilities[targets.tokens].unfold(-1, n, 1).prod(dim=-1)
        starts = windows[:, : hits.shape[2]]
        hits[:, n - 1, : starts.shape[1]] = starts
    orders = torch.arange(1, highest_order + 1)
    collisions = (probabilities.square().sum() ** orders)[:, None].expand_as(hits)
    tally.add_rates(torch.arange(len(rows.document)), targets, hits, collisions)
    return tally.brier(settings, seed, f"token frequencies, after {tally.context} of text")


def _draw(
    model: CALM,
    tokens: Tensor,
    real: Tensor,
    targets: Targets,
    num_draws: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw latents of the next chunk and tokens for the longest n-gram, for each point."""
    batch, positions, chunk_size = tokens.shape
    chunks = targets.tokens.shape[1] // chunk_size
    longest = positions_read(positions, chunk_size, targets.counted.shape[1])
    cache = model.backbone.new_cache(batch, longest)
    hidden = model.backbone(model.input_encoder(tokens, real), cache=cache)
    cond = hidden[targets.row, targets.place - 1]
    latents = draw_latents(model.head, cond, num_draws, generator)
    first = model.autoencoder.decode_tokens(latents)
    return latents, _extend(model, cache, targets, first, chunks, generator)


def _extend(
    model: CALM,
    cache: Cache,
    targets: Targets,
    first: Tensor,
    chunks: int,
    generator: torch.Generator,
) -> Tensor:
    """Extend every drawn chunk to `chunks` chunks, in its own branch of the cache."""
    if chunks == 1:
        return first
    samples, points, chunk_size = first.shape
    point = torch.arange(samples * points, device=first.device) % points
    # Sort the branches by length, since a step costs as much as its longest row.
    order = targets.place[point].argsort(stable=True)
    own, done = None, []
    for branch in order.split(BRANCHES_AT_ONCE):
        row, place = targets.row[point[branch]], targets.place[point[branch]]
        own = cache.select(row, place, out=own)
        drawn = [first.flatten(0, 1)[branch]]
        for _ in range(chunks - 1):
            vectors = model.input_encoder(drawn[-1], torch.ones_like(drawn[-1], dtype=torch.bool))
            state = model.backbone(vectors[:, None], cache=own)[:, 0]
            drawn.append(model.sample_chunks(state, 1, generator)[0])
        done.append(torch.cat(drawn, dim=-1))
    tokens = torch.cat(done)[order.argsort()]
    return tokens.view(samples, points, chunks * chunk_size)
