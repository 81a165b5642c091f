"""All diagnostics of one model.

All are measured on the same held-out points: full chunks with enough true text before them, in
rows spread over the documents. The autoencoder is judged on all full chunks of the rows, the head
by its draws at the points.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from calmkit.data import EvaluationRows, TextTokenizer
from calmkit.distributions import DiagonalGaussian
from calmkit.evaluation import ENOUGH_DOCUMENTS
from calmkit.extras import is_installed
from calmkit.finite import read_together
from calmkit.models import CALM, draw_latents
from calmkit.nn import evaluation_view

from .aggregate import latent_variance, prior_gap
from .chunk_texts import texts_of_interpolations, texts_of_samples
from .collisions import collision_calibration
from .conditioning import conditioning_gap
from .diagnosis import Diagnosis, LatentPlaces
from .gate import decoder_gate, head_noise
from .interpolation import interpolate
from .latent_error import latent_error
from .latents import latent_use
from .maps import principal_map, tsne_map
from .neighbours import nearest_chunks
from .next_chunk import next_chunk_accuracy
from .noise import noise_curve
from .skill import energy_skill, marginal_samples
from .spread import sample_spread
from .state_rank import state_rank
from .votes import sample_votes

__all__ = ["check_points", "diagnose", "enough_rows"]

_NOISE_SAMPLES = 2
_MARGINAL_DRAWS = 16
_POINTS_ON_A_MAP = 300
# Each encodes a whole row to measure the head's noise.
_POINTS_ENCODED_AGAIN = 256
# Enough positions for errors of a few per cent, in seconds on a CPU.
_POSITIONS = 1536


@dataclass(frozen=True, eq=False)
class _Points:
    """Points of the text: the true chunk, and what the head draws.

    Attributes:
        row: Row of each point.
        position: Its position there.
        tokens: The true chunk, (points, chunk).
        target: Its posterior.
        states: What the head reads, (points, hidden).
        samples: The head's latents, (samples, points, latent).
        group: Document of each point, or its row if there are few documents.
        unit: `documents` or `rows`.
    """

    row: Tensor
    position: Tensor
    tokens: Tensor
    target: DiagonalGaussian
    states: Tensor
    samples: Tensor
    group: Tensor
    unit: str


def enough_rows(positions: int, most: int) -> int:
    """The number of rows that a diagnosis needs; at least two.

    Args:
        positions: Number of chunks in a row.
        most: Largest number of rows.
    """
    return max(2, min(most, _POSITIONS // positions))


@torch.no_grad()
def diagnose(
    model: CALM,
    rows: EvaluationRows,
    tokenizer: TextTokenizer,
    *,
    draws: int,
    min_context: int,
    seed: int,
) -> Diagnosis:
    """Run all diagnostics in evaluation mode, without changing the model.

    Args:
        model: The model, on any device.
        rows: Held-out rows, each one piece of one document.
        tokenizer: Decodes tokens to text.
        draws: Number of samples of the head at each point, at least two; more give a better mean.
        min_context: Chunks of true text before the first point of a row.
        seed: Fixes all draws.

    Raises:
        ValueError: If fewer than two rows have a full chunk after the context.
    """
    check_points(rows, min_context)
    generator = torch.Generator(model.backbone.device).manual_seed(seed)
    model = evaluation_view(model)
    with read_together():
        batch = rows.batch.to(model.backbone.device)
        encoded = model.autoencoder.encode_rows(batch)
        points = _draw(model, rows, encoded, draws, min_context, generator)
        full = batch.real.all(dim=-1)
        tokens, posterior = batch.tokens[full], encoded[full]
        shape = (_NOISE_SAMPLES, *posterior.mean.shape)
        noise = torch.randn(
            shape, generator=generator, dtype=posterior.mean.dtype, device=posterior.mean.device
        )
        marginal = marginal_samples(points.target, _MARGINAL_DRAWS, generator)
        real = points.target.sample(1, generator)[0]
        plane = principal_map(posterior.mean)
        half = len(tokens) // 2
        # Chunks of other places of the text: neighbours in it may share words.
        between = interpolate(
            model.autoencoder, posterior.mean[:half], posterior.mean[half : 2 * half]
        )
        drawn_tokens = model.autoencoder.decode_tokens(points.samples)
        # The bank holds every other point, so that samples and real latents are equally likely
        # to find a near chunk: a head knows the text around its point.
        near = nearest_chunks(points.samples[0, 1::2], real[1::2], points.target.mean[::2])
        few = _evenly(len(points.tokens), _POINTS_ENCODED_AGAIN)
        size = head_noise(
            model.autoencoder,
            batch,
            points.row[few],
            points.position[few],
            points.samples[0, few],
            latent_variance(posterior),
        )
        return Diagnosis(
            noise=noise_curve(model.autoencoder, posterior, tokens, noise),
            gate=decoder_gate(model.autoencoder, posterior, tokens, noise, size=size),
            latents=latent_use(posterior),
            prior=prior_gap(posterior),
            map=plane,
            interpolation=between,
            states=state_rank(points.states),
            conditioning=conditioning_gap(points.samples, points.target, points.group),
            skill=energy_skill(points.samples, marginal, points.target, points.group),
            spread=sample_spread(points.samples, points.target),
            latent_error=latent_error(points.samples, points.target, points.group),
            neighbours=near,
            next_chunk=next_chunk_accuracy(
                model.autoencoder, points.samples, points.tokens, points.group
            ),
            collisions=collision_calibration(drawn_tokens, points.tokens, points.group),
            votes=sample_votes(drawn_tokens, points.tokens, points.group),
            principal=LatentPlaces(plane.place(real), plane.place(points.samples[0])),
            tsne=_tsne(real, points.samples[0]),
            examples=(
                *texts_of_samples(
                    model.autoencoder.decode_tokens(points.samples[0, 1::2]),
                    points.tokens[1::2],
                    near,
                    points.tokens[::2],
                    tokenizer,
                ),
                *texts_of_interpolations(between.tokens, tokenizer),
            ),
            protocol=(
                f"Measured on {len(points.tokens)} full chunks after at least {min_context} "
                f"chunks of true text, {draws} draws each, and on all {len(tokens)} full chunks "
                f"of {len(rows.document)} held-out rows; errors over "
                f"{len(points.group.unique())} {points.unit}."
            ),
        )


def _is_point(rows: EvaluationRows, min_context: int) -> Tensor:
    """(rows, positions): True at full chunks with enough text before them."""
    is_point = rows.batch.real.all(dim=-1)
    is_point[:, :min_context] = False
    return is_point


def check_points(rows: EvaluationRows, min_context: int) -> None:
    """Refuse rows if fewer than two have a full chunk after the context."""
    is_point = _is_point(rows, min_context)
    fit, points = int(is_point.any(dim=-1).sum()), int(is_point.sum())
    if fit < 2 or points < 6:
        raise ValueError(
            f"at least 2 rows must hold full chunks after min_context = {min_context} chunks, and "
            f"6 such chunks in all, to be diagnosed; {fit} of {len(rows.document)} do, with "
            f"{points}. Lower min_context, give more text, or leave diagnostics out."
        )


def _draw(
    model: CALM,
    rows: EvaluationRows,
    encoded: DiagonalGaussian,
    draws: int,
    min_context: int,
    generator: torch.Generator,
) -> _Points:
    batch = rows.batch.to(model.backbone.device)
    row, position = _is_point(rows, min_context).nonzero(as_tuple=True)
    states = model.hidden_states(batch)[row, position - 1]
    tokens = batch.tokens[row, position]
    few = len(rows.document[row].unique()) < ENOUGH_DOCUMENTS
    return _Points(
        row=row.to(tokens.device),
        position=position.to(tokens.device),
        states=states,
        tokens=tokens,
        target=encoded[row, position],
        samples=draw_latents(model.head, states, draws, generator),
        group=(row if few else rows.document[row]).to(tokens.device),
        unit="rows" if few else "documents",
    )


def _tsne(real: Tensor, drawn: Tensor) -> LatentPlaces | None:
    """Real and drawn latents in one map; None if scikit-learn is not installed."""
    if not is_installed("sklearn"):
        return None
    chosen = _evenly(len(real), _POINTS_ON_A_MAP)
    placed = tsne_map(torch.cat((real[chosen], drawn[chosen])))
    return LatentPlaces(placed[: len(chosen)], placed[len(chosen) :])


def _evenly(points: int, most: int) -> Tensor:
    """Indices of at most so many points, spread over all."""
    return torch.linspace(0, points - 1, min(points, most)).long().unique()
