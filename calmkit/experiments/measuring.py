"""What a run is measured by: scores, what its sampler chooses, how fast it writes."""

import math
from dataclasses import dataclass

import torch

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.chunking import ChunkBatch
from calmkit.config import TrainExperiment
from calmkit.data import Corpus, EvaluationRows
from calmkit.diagnostics import noise_curve
from calmkit.evaluation import (
    Evaluation,
    SoftmaxEvaluation,
    evaluate_unigram,
)
from calmkit.evaluation.chosen_chunks import choose
from calmkit.evaluation.scores import restored_share, score
from calmkit.evaluation.writing_speed import PROMPT_TOKENS, microseconds_per_token
from calmkit.experiments.texts import sample_text
from calmkit.metrics import DocumentScores, Estimate
from calmkit.models import CALM, LanguageModel
from calmkit.nn import evaluation_view
from calmkit.sampling import PlainSampler

__all__ = ["Measurements", "measure_run"]

# Sizes of noise on a latent, in spreads of all latents.
_NOISE = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
_NOISE_DRAWS = 2
_NONE = Estimate(math.nan, math.nan)


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What can be measured of a model; fields are those of `RunResult`."""

    brier_lm: float
    brier: tuple[Estimate, ...]
    brier_places: tuple[Estimate, ...]
    documents: DocumentScores
    unigram_brier: tuple[Estimate, ...]
    energy_score: Estimate
    cross_entropy: Estimate
    protocol: str
    autoencoder_accuracy: float
    noise_curve: tuple[tuple[float, float], ...]
    evaluations_per_sample: int | None
    microseconds_per_token: float
    draws_per_chunk: float
    unsettled: float
    chosen_accuracy: Estimate
    sample_text: str


def measure_run(
    model: LanguageModel, rows: EvaluationRows, experiment: TrainExperiment, corpus: Corpus
) -> Measurements:
    """Measure a model, on its device.

    Args:
        model: The model.
        rows: Held-out rows.
        experiment: Evaluation settings, sampler, seeds.
        corpus: The text: its tokenizer, a prompt, token frequencies.
    """
    settings, seed = experiment.evaluation, experiment.evaluation_seed
    sampler = PlainSampler() if experiment.sampler is None else experiment.sampler
    prompt = corpus.validation.document(0)[:PROMPT_TOKENS].tolist()
    frequencies = torch.from_numpy(corpus.train.token_frequencies())
    unigram = evaluate_unigram(frequencies, rows, settings, seed=seed)
    found = score(model, rows, settings, seed=seed)
    batch = rows.batch.to(model.backbone.device)
    autoencoder = model.autoencoder if isinstance(model, CALM) else None
    evaluations = model.head.evaluations_per_sample if isinstance(model, CALM) else 1
    choices = choose(
        model, rows, sampler, found.documents, min_context=settings.min_context, seed=seed
    )
    accuracy = choices.documents.estimate(resamples=settings.bootstrap, seed=seed)[-1]
    return Measurements(
        brier_lm=found.brier.brier_lm,
        brier=found.brier.brier,
        brier_places=tuple(place.brier for place in found.brier.places[0]),
        documents=choices.documents,
        unigram_brier=unigram.brier,
        energy_score=found.energy_score if isinstance(found, Evaluation) else _NONE,
        cross_entropy=found.cross_entropy if isinstance(found, SoftmaxEvaluation) else _NONE,
        protocol=found.protocol,
        autoencoder_accuracy=restored_share(autoencoder, batch) if autoencoder else math.nan,
        noise_curve=_noise_curve(autoencoder, batch, seed) if autoencoder else (),
        evaluations_per_sample=evaluations,
        microseconds_per_token=microseconds_per_token(model, prompt, sampler),
        draws_per_chunk=choices.draws_per_chunk,
        unsettled=choices.unsettled,
        chosen_accuracy=accuracy.scaled(100.0),
        sample_text=sample_text(
            model,
            corpus.tokenizer,
            prompt,
            sampler=experiment.sampler,
            max_new_tokens=experiment.sample_tokens,
            seed=experiment.seed,
        ),
    )


def _noise_curve(
    autoencoder: ChunkAutoencoder, batch: ChunkBatch, seed: int
) -> tuple[tuple[float, float], ...]:
    full = batch.real.all(dim=-1)
    tokens = batch.tokens[full]
    generator = torch.Generator(tokens.device).manual_seed(seed)
    shape = (_NOISE_DRAWS, len(tokens), autoencoder.latent_size)
    dtype = next(autoencoder.parameters()).dtype
    noise = torch.randn(shape, generator=generator, device=tokens.device, dtype=dtype)
    autoencoder = evaluation_view(autoencoder)
    posterior = autoencoder.encode_rows(batch)[full]
    curve = noise_curve(autoencoder, posterior, tokens, noise, sizes=_NOISE)
    return tuple(zip(curve.sizes, curve.accuracy, strict=True))
