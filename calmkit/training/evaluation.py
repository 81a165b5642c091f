"""Scores of a model on held-out text: Brier-1..4, BrierLM and the energy score.

At every scored position the model draws a few continuations from the *true* text before it. They
are compared with what came: as tokens (Brier-n) and as latents (energy score). Which positions
are scored, and how much text they see, moves the numbers; it is part of the result
(`Evaluation.protocol`).

A Brier-n counts the n-grams that start in the predicted chunk and lie inside of what was drawn.
From K = 4 on that is the chunk itself. Shorter chunks are extended to four tokens or more: each
draw is read back by the model, which draws the chunk after it, in branches of one cache and
without a loop over positions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from calmkit.backbones import Cache
from calmkit.data import EvaluationRows
from calmkit.metrics import BrierLM, Estimate, bootstrap_ratio, brier_ngram, summarize_brier
from calmkit.models import CALM
from calmkit.nn import evaluation_mode
from calmkit.scoring import EnergyScore

__all__ = ["Evaluation", "EvaluationSettings", "evaluate", "evaluate_unigram"]

_ORDERS = (1, 2, 3, 4)
_ROWS_AT_ONCE = 8
_BRANCHES_AT_ONCE = 512
_ENOUGH_DOCUMENTS = 8


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What is scored, and how often it is drawn.

    Attributes:
        rows: Rows of held-out text, spread over its documents.
        draws: Continuations drawn at each scored position, all pairs of which enter a Brier-n.
        min_context: Chunks of true text before the first scored one of a row.
        bootstrap: Resamples of the documents for the standard errors.
    """

    rows: int = 128
    draws: int = 8
    min_context: int = 16
    bootstrap: int = 1000

    def __post_init__(self) -> None:
        """Refuse settings that make no estimate."""
        for name, least in {"rows": 2, "draws": 2, "min_context": 1, "bootstrap": 10}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}.")


@dataclass(frozen=True)
class Evaluation:
    """Scores on held-out text.

    Attributes:
        brier: BrierLM and the signed Brier-1..4, times 100; higher is better.
        energy_score: Of drawn latents against the posteriors; lower is better.
        scored_tokens: Tokens that Brier-1 is a mean over.
        protocol: The evaluation in one sentence, to be printed with its numbers.
    """

    brier: BrierLM
    energy_score: Estimate
    scored_tokens: int
    protocol: str


@torch.no_grad()
def evaluate(
    model: CALM, rows: EvaluationRows, settings: EvaluationSettings, *, seed: int
) -> Evaluation:
    """Score a model; it is in evaluation mode meanwhile.

    Args:
        model: The model, on any device.
        rows: Held-out rows, one piece of one document in each.
        settings: What is scored.
        seed: Decides the draws.

    Raises:
        ValueError: If fewer than two rows have text after the context.
    """
    _check_context(rows, settings)
    positions = rows.batch.tokens.shape[1]
    tally = _Tally(rows, settings, len(_ORDERS) + 1)
    device = model.backbone.device
    generator = torch.Generator(device).manual_seed(seed)
    with evaluation_mode(model):
        for chosen in torch.arange(len(rows.document)).split(_ROWS_AT_ONCE):
            tokens, real = (x[chosen].to(device) for x in (rows.batch.tokens, rows.batch.real))
            targets = _targets(tokens, real, settings)
            latents, draws = _draw(model, tokens, real, targets, settings.draws, generator)
            posterior = model.autoencoder.encode(tokens[targets.row, targets.place])
            energy = EnergyScore().score(latents, posterior)
            for index, order in enumerate(_ORDERS):
                values = brier_ngram(draws, targets.tokens, order)
                tally.add(index, chosen, targets, values, targets.counted(order))
            everywhere = torch.ones_like(energy, dtype=torch.bool)
            tally.add(len(_ORDERS), chosen, targets, energy[:, None], everywhere[:, None])
    *brier, energy_score = tally.estimates(settings.bootstrap, seed)
    return Evaluation(
        brier=summarize_brier(brier),
        energy_score=energy_score,
        scored_tokens=tally.scored_tokens,
        protocol=(
            f"{settings.draws} draws after {settings.min_context} to {positions - 1} chunks of "
            f"{model.chunk_size} tokens of true text, in {len(rows.document)} rows; "
            f"{tally.scored_tokens} tokens scored; standard errors over {tally.resampled}"
        ),
    )


def evaluate_unigram(
    probabilities: Tensor, rows: EvaluationRows, settings: EvaluationSettings, *, seed: int
) -> BrierLM:
    """Exact scores of drawing tokens by their frequency, at the places that `evaluate` scores.

    An n-gram of independent tokens has the Brier score 2 prod_i p(y_i) - (sum_x p(x)^2)^n.

    Args:
        probabilities: Probability of each token id.
        rows: Held-out rows.
        settings: What is scored.
        seed: Of the bootstrap, as in `evaluate`.

    Raises:
        ValueError: If fewer than two rows have text after the context.
    """
    _check_context(rows, settings)
    tally = _Tally(rows, settings, len(_ORDERS))
    targets = _targets(rows.batch.tokens, rows.batch.real, settings)
    probabilities = probabilities.double()
    collision = probabilities.square().sum()
    for index, order in enumerate(_ORDERS):
        windows = probabilities[targets.tokens].unfold(-1, order, 1)
        values = 2 * windows.prod(dim=-1) - collision**order
        everything = torch.arange(len(rows.document))
        tally.add(index, everything, targets, values, targets.counted(order))
    return summarize_brier(tally.estimates(settings.bootstrap, seed))


def _check_context(rows: EvaluationRows, settings: EvaluationSettings) -> None:
    positions = rows.batch.tokens.shape[1]
    if settings.min_context >= positions:
        raise ValueError(
            f"min_context must be below the {positions} positions of a row; "
            f"got {settings.min_context}."
        )
    scored = int(_scored_rows(rows, settings).sum())
    if scored < 2:
        raise ValueError(
            f"at least 2 rows must hold text after min_context = {settings.min_context} chunks, "
            f"for a standard error; {scored} of {len(rows.document)} do. Lower min_context, or "
            "give more text."
        )


def _scored_rows(rows: EvaluationRows, settings: EvaluationSettings) -> Tensor:
    return rows.batch.real[:, settings.min_context :].flatten(1).any(dim=-1)


@dataclass(frozen=True, eq=False)
class _Targets:
    """The scored positions of some rows, and the true tokens from each on."""

    row: Tensor
    place: Tensor
    tokens: Tensor
    is_text: Tensor
    chunk_size: int

    def counted(self, order: int) -> Tensor:
        """Which n-grams count: those that start in the predicted chunk and are all text."""
        valid = self.is_text.unfold(-1, order, 1).all(dim=-1)
        valid[:, self.chunk_size :] = False
        return valid


def _targets(tokens: Tensor, real: Tensor, settings: EvaluationSettings) -> _Targets:
    chunk_size = tokens.shape[-1]
    asked = real.any(dim=-1)
    asked[:, : settings.min_context] = False
    row, place = asked.nonzero(as_tuple=True)
    # Behind the row's end there is no text.
    length = _chunks_to_draw(chunk_size) * chunk_size
    places = place[:, None] * chunk_size + torch.arange(length, device=place.device)
    known, is_text = (
        torch.nn.functional.pad(x.flatten(1), (0, length))[row[:, None], places]
        for x in (tokens, real)
    )
    return _Targets(row, place, known, is_text, chunk_size)


def _chunks_to_draw(chunk_size: int) -> int:
    return max(1, -(-_ORDERS[-1] // chunk_size))


class _Tally:
    """Sums of each metric over the tokens of each group of rows.

    A group is a document; or a row, as if rows were independent, where documents are too few
    for a bootstrap.
    """

    def __init__(self, rows: EvaluationRows, settings: EvaluationSettings, metrics: int) -> None:
        documents = rows.document[_scored_rows(rows, settings)].unique()
        few = len(documents) < _ENOUGH_DOCUMENTS
        names = torch.arange(len(rows.document)) if few else rows.document
        groups, self._group = names.unique(return_inverse=True)
        self._sums = torch.zeros(len(groups), metrics, dtype=torch.float64)
        self._counts = torch.zeros(len(groups), metrics, dtype=torch.float64)
        self._unit = "rows" if few else "documents"

    @property
    def resampled(self) -> str:
        """What the bootstrap draws: the groups in which anything was scored."""
        return f"{int((self._counts[:, 0] > 0).sum())} {self._unit}"

    @property
    def scored_tokens(self) -> int:
        """Tokens that Brier-1 is a mean over."""
        return int(self._counts[:, 0].sum())

    def add(
        self, metric: int, chosen: Tensor, targets: _Targets, values: Tensor, valid: Tensor
    ) -> None:
        """Count the valid ones of (points, starts) values of the chosen rows."""
        group = self._group[chosen][targets.row.cpu()]
        kept = torch.where(valid, values, 0.0).sum(dim=-1).double()
        self._sums[:, metric].index_add_(0, group, kept.cpu())
        self._counts[:, metric].index_add_(0, group, valid.sum(dim=-1).double().cpu())

    def estimates(self, resamples: int, seed: int) -> list[Estimate]:
        """Mean and standard error of each metric; groups without any token are left out."""
        seen = self._counts[:, 0] > 0
        return bootstrap_ratio(
            self._sums[seen], self._counts[seen], resamples=resamples, seed=seed
        )


def _draw(
    model: CALM,
    tokens: Tensor,
    real: Tensor,
    targets: _Targets,
    num_draws: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Latents of the next chunk, and the tokens of at least four places, for each point."""
    batch, positions, chunk_size = tokens.shape
    chunks = _chunks_to_draw(chunk_size)
    cache = model.backbone.new_cache(batch, positions + chunks)
    hidden = model.backbone(model.input_encoder(tokens, real), cache=cache)
    cond = hidden[targets.row, targets.place - 1]
    latents = model.head.sample(cond, num_draws, generator)
    first = model.autoencoder.decode_tokens(latents)
    return latents, _extend(model, cache, targets, first, chunks, generator)


def _extend(
    model: CALM,
    cache: Cache,
    targets: _Targets,
    first: Tensor,
    chunks: int,
    generator: torch.Generator,
) -> Tensor:
    """Let every drawn chunk go on to `chunks` chunks, in its own branch of the cache."""
    if chunks == 1:
        return first
    samples, points, chunk_size = first.shape
    done = []
    for branch in torch.arange(samples * points, device=first.device).split(_BRANCHES_AT_ONCE):
        point = branch % points
        own = cache.select(targets.row[point], targets.place[point])
        drawn = [first.flatten(0, 1)[branch]]
        for _ in range(chunks - 1):
            vectors = model.input_encoder(drawn[-1], torch.ones_like(drawn[-1], dtype=torch.bool))
            state = model.backbone(vectors[:, None], cache=own)[:, 0]
            drawn.append(model.sample_chunks(state, 1, generator)[0])
        done.append(torch.cat(drawn, dim=-1))
    return torch.cat(done).view(samples, points, chunks * chunk_size)
