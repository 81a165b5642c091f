r"""Brier-1 to 4 of models over single tokens, from draws, without drawing whole continuations.

Along the true text y the probability of an n-gram is a product, and draws at different places are
independent. The product of the shares of draws that are right is thus an unbiased hit rate:

    hit_n = prod_i share of the draws after y_1 ... y_(i-1) that equal y_i.

Two continuations are equal only if their first tokens are, and then both have the same state:

    collision_n(h) = sum_v p(v | h)^2 collision_(n-1)(h, v),    collision_0 = 1.

Of m draws, a token that c of them share stands for p^2 with c (c - 1) / (m (m - 1)), also without
bias, and the model reads on only after such tokens. Most draws differ, so that this takes a
fraction of the steps of whole continuations, as `calmkit.evaluation` draws them, and the hit rates
of Brier-2 to 4 have far less noise.
"""

from typing import Any

import torch
from torch import Generator, Tensor

from calmkit.data import EvaluationRows
from calmkit.evaluation.scored_text import HIGHEST_ORDER, Targets, find_targets
from calmkit.metrics import DocumentScores, NgramSums
from calmkit.models import LanguageModel, TokenLM
from calmkit.nn import evaluation_view

__all__ = ["drawn_brier"]

ROWS_AT_ONCE = 8
BRANCHES_AT_ONCE = 256


@torch.no_grad()
def drawn_brier(
    model: LanguageModel, rows: EvaluationRows, *, min_context: int, draws: int, seed: int
) -> list[DocumentScores]:
    """Brier-1 to 4, their hits and collisions by document.

    Of a `TokenLM` there is a second table, from probabilities: its hits and Brier-1 are exact, and
    collisions for n > 1 are those of the draws. Its last column is the cross entropy, `nats`.

    Args:
        model: A model over single tokens.
        rows: Held-out rows.
        min_context: Tokens of true text before the first scored one of a row.
        draws: At each scored place, at least 2.
        seed: Of the draws.
    """
    generator = Generator().manual_seed(seed)
    model = evaluation_view(model)
    documents, group = rows.document.unique(return_inverse=True)
    names, count = tuple(documents.tolist()), len(documents)
    drawn = known = NgramSums.zeros(count, HIGHEST_ORDER, 1)
    nats, points = torch.zeros(2, count, dtype=torch.float64)
    for chosen in torch.arange(len(rows.document)).split(ROWS_AT_ONCE):
        tokens, real = rows.batch.tokens[chosen], rows.batch.real[chosen]
        targets = find_targets(tokens, real, min_context)
        of_point = group[chosen][targets.row]
        cache = model.backbone.new_cache(len(tokens), tokens.shape[1] + HIGHEST_ORDER)
        states = model.backbone(model.input_encoder(tokens, real), cache=cache)
        after, first = states[targets.row, targets.place - 1], targets.tokens[:, 0]
        found = model.draws(after, generator)(draws)[..., 0]
        collisions = _collisions(
            model, found, cache, targets.row, targets.place, HIGHEST_ORDER, generator
        )
        right = (found == first).double().mean(dim=0)
        drawn = drawn + _sums(right, collisions, targets, of_point, count)
        if isinstance(model, TokenLM):
            logs = model.logits(after).double().log_softmax(dim=-1)
            collisions[:, 0] = logs.exp().square().sum(dim=-1)
            log_right = logs.gather(-1, first[:, None])[:, 0]
            known = known + _sums(log_right.exp(), collisions, targets, of_point, count)
            nats.index_add_(0, of_point, -log_right)
            points.index_add_(0, of_point, torch.ones_like(log_right))
    tables = [drawn.scores(names, "documents")]
    if isinstance(model, TokenLM):
        table = known.scores(names, "documents")
        tables.append(table.with_metric("nats", nats, points, documents))
    return tables


def _sums(
    right: Tensor, collisions: Tensor, targets: Targets, group: Tensor, groups: int
) -> NgramSums:
    """Sums of the n-grams whose first tokens are right with the given rates, (points,)."""
    rows, places = int(targets.row.max()) + 1, int(targets.place.max()) + HIGHEST_ORDER
    # An n-gram counts only if all its places are scored; the others keep zero.
    table = right.new_zeros(rows, places)
    table[targets.row, targets.place] = right
    windows = table[targets.row[:, None], targets.place[:, None] + torch.arange(HIGHEST_ORDER)]
    hits = windows.cumprod(dim=-1)
    return NgramSums.over(hits[..., None], collisions[..., None], targets.counted, group, groups)


def _collisions(
    model: LanguageModel,
    drawn: Tensor,
    cache: Any,
    row: Tensor,
    length: Tensor,
    orders: int,
    generator: Generator,
) -> Tensor:
    """Collision rates for n = 1, 2, ..., (points, orders).

    Args:
        model: Reads on after a token that several draws share.
        drawn: First tokens, (draws, points).
        cache: The text before them.
        row: Row of the cache of each point.
        length: Positions of that row that are before the point.
        orders: The highest n.
        generator: Source of further draws.
    """
    count = len(drawn)
    equal = drawn[:, None] == drawn[None]
    copies = equal.sum(dim=0)
    weight = (copies * (copies - 1)).double() / (count * (count - 1))
    # Each token once: at the first draw that has it.
    first = ~(equal & torch.ones(count, count).triu(1).bool()[..., None]).any(dim=0)
    own = torch.where(first, weight, 0.0).sum(dim=0)[:, None]
    if orders == 1:
        return own
    number, point = (first & (copies > 1)).nonzero(as_tuple=True)
    deeper = torch.zeros(drawn.shape[1], orders - 1, dtype=torch.float64)
    for part in torch.arange(len(point)).split(BRANCHES_AT_ONCE):
        where, token = point[part], drawn[number[part], point[part]]
        branch = cache.select(row[where], length[where])
        vectors = model.input_encoder(token[:, None], torch.ones_like(token[:, None]).bool())
        state = model.backbone(vectors[:, None], cache=branch)[:, 0]
        # Fewer draws suffice where the weight is small.
        following = model.draws(state, generator)(max(2, count // 2))[..., 0]
        rows = torch.arange(len(part))
        found = _collisions(model, following, branch, rows, branch.lengths, orders - 1, generator)
        deeper.index_add_(0, where, weight[number[part], where][:, None] * found)
    return torch.cat([own, deeper], dim=-1)
