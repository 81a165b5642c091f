"""Learn features of a model's vectors, show the clearest as text, and steer along them."""

from dataclasses import replace

import torch
from torch import Tensor

from calmkit.autoencoders import SparseAutoencoder
from calmkit.data import EvaluationRows, TextTokenizer
from calmkit.models import CALM
from calmkit.nn import evaluation_view

from .chunk_vectors import ChunkVectors, Kind, chunk_vectors
from .clearest import BestToken, clearest_features
from .learning_features import FeatureSettings, learn_features
from .steered_text import write_steered
from .study import FeatureStudy, FeatureText, Fit

__all__ = ["study_features"]

_EXAMPLES = 5
_CHUNKS_BEFORE, _CHUNKS_AFTER = 4, 2
_POINTS_AT_ONCE = 4096
_PROMPTS = 32


@torch.no_grad()
def study_features(
    model: CALM,
    rows_to_learn: EvaluationRows,
    rows: EvaluationRows,
    tokenizer: TextTokenizer,
    settings: FeatureSettings,
    *,
    kind: Kind = "latents",
    count: int = 10,
    strengths: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0),
    new_chunks: int = 16,
    min_context: int = 16,
    seed: int = 0,
) -> tuple[FeatureStudy, SparseAutoencoder]:
    """Study the features of a model in evaluation mode, without changing it.

    Args:
        model: The model, on any device.
        rows_to_learn: Rows from whose vectors the features are learned.
        rows: Other rows, on which they are measured and shown.
        tokenizer: Makes texts of tokens.
        settings: Sizes and training of the sparse autoencoder.
        kind: Which vectors.
        count: Features to show.
        strengths: Strengths of steering, in mean activations.
        new_chunks: Chunks to write after each prompt; 0: no steering.
        min_context: Chunks in a prompt; half of a row at most.
        seed: Fixes the learning and the draws.

    Raises:
        ValueError: If the rows hold too few full chunks, or the settings do not fit.
    """
    model = evaluation_view(model)
    generator = torch.Generator(model.backbone.device).manual_seed(seed)
    vectors = chunk_vectors(model, rows_to_learn, kind).vectors
    with torch.enable_grad():
        sparse = learn_features(vectors, settings, generator)
    held_out = chunk_vectors(model, rows, kind)
    activations = torch.cat(
        [sparse.activations(part) for part in held_out.vectors.split(_POINTS_AT_ONCE)]
    )
    shown = [
        _feature_text(one, activations[:, one.feature], held_out, rows, tokenizer)
        for one in clearest_features(activations, held_out.tokens, count=count)
    ]
    if new_chunks:
        prompts = _prompts(rows, min_context)
        for number, one in enumerate(shown):
            steering = write_steered(
                model,
                one.best,
                one.mean_activation * sparse.direction(one.best.feature),
                prompts,
                tokenizer,
                of_states=kind == "states",
                strengths=strengths,
                chunks=new_chunks,
                seed=seed,
            )
            shown[number] = replace(one, steering=steering)
    study = FeatureStudy(
        kind=kind,
        fit=_fit(model, sparse, vectors, held_out, activations, kind),
        features=tuple(shown),
        protocol=(
            f"{settings.features} features, {settings.active} active, learned in "
            f"{settings.steps} steps on {len(vectors)} {kind} of {len(rows_to_learn.document)} "
            f"rows; measured on {len(held_out.vectors)} {kind} of {len(rows.document)} other rows."
        ),
    )
    return study, sparse


def _fit(
    model: CALM,
    sparse: SparseAutoencoder,
    learned: Tensor,
    held_out: ChunkVectors,
    activations: Tensor,
    kind: Kind,
) -> Fit:
    x = held_out.vectors
    again = torch.cat([sparse.decode(part) for part in activations.split(_POINTS_AT_ONCE)])
    mean = learned.mean(dim=0)
    total = (x - mean).square().sum()
    # The same number of numbers for each vector, along directions that are the same for all.
    axes = torch.linalg.eigh((learned - mean).double().T @ (learned - mean).double()).eigenvectors
    axes = axes[:, -min(sparse.active, sparse.size) :].to(x.dtype)
    by_axes = mean + (x - mean) @ axes @ axes.T
    restored = None
    if kind == "latents":
        right = model.autoencoder.decode_tokens(again) == held_out.tokens.to(again.device)
        restored = float(right.double().mean())
    return Fit(
        explained=float(1 - (x - again).square().sum() / total),
        explained_by_axes=float(1 - (x - by_axes).square().sum() / total),
        dead=float(((activations > 0).sum(dim=0) == 0).double().mean()),
        restored=restored,
    )


def _feature_text(
    best: BestToken,
    activation: Tensor,
    held_out: ChunkVectors,
    rows: EvaluationRows,
    tokenizer: TextTokenizer,
) -> FeatureText:
    """A feature with the chunks in which it is most active, in their context."""
    is_active = activation > 0
    top = activation.topk(min(_EXAMPLES, int(is_active.sum()))).indices.cpu().tolist()
    examples = []
    for point in top:
        row, position = int(held_out.row[point]), int(held_out.position[point])
        tokens, real = rows.batch.tokens[row], rows.batch.real[row]
        begin, end = max(0, position - _CHUNKS_BEFORE), position + 1 + _CHUNKS_AFTER
        before, chunk, after = (
            tokenizer.decode(tokens[some][real[some]].tolist())
            for some in (slice(begin, position), slice(position, position + 1),
                         slice(position + 1, end))
        )  # fmt: skip
        examples.append(f"{before}[{chunk}]{after}")
    return FeatureText(
        best=best,
        token=tokenizer.decode([best.token]),
        active=float(is_active.double().mean()),
        mean_activation=float(activation[is_active].mean()),
        examples=tuple(examples),
    )


def _prompts(rows: EvaluationRows, min_context: int) -> list[list[int]]:
    """Beginnings of rows that are spread over the text."""
    chunks = max(1, min(min_context, rows.batch.tokens.shape[1] // 2))
    whole = rows.batch.real[:, :chunks].flatten(1).all(dim=-1).nonzero()[:, 0]
    few = torch.linspace(0, len(whole) - 1, min(len(whole), _PROMPTS)).long().unique()
    if len(few) < 2:
        raise ValueError(
            f"at least 2 rows must hold {chunks} full chunks, as prompts; {len(few)} do. Lower "
            "min_context, give more text, or leave steering out (new_chunks = 0)."
        )
    return [rows.batch.tokens[row, :chunks].flatten().tolist() for row in whole[few].tolist()]
