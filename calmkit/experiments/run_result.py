"""The result of one run; `json_converter` writes and reads it."""

from collections.abc import Mapping
from dataclasses import dataclass

from calmkit.evaluation import Continuations, SampleText, Timing
from calmkit.metrics import DocumentScores, Estimate

__all__ = ["Curve", "RunResult"]


Curve = tuple[tuple[int, float], ...]
"""Pairs of a step and a value."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The result of one model, trained with one seed.

    Unknown values are None, such as the training of a model that was only evaluated, or the FLOPs
    of a model whose work depends on the data.

    Attributes:
        seed: Seed of training.
        steps: Optimiser steps.
        trained_tokens: Tokens of text in the batches of these steps.
        training_flops: FLOPs of training backbone and head, from accounting.
        training_seconds: Time of the training steps.
        brier_lm: 100 times the geometric mean of Brier-1..4; 0 if one is not positive.
        brier: Brier-1..4, in per cent.
        documents: Sums of every score over the documents.
        baselines: Brier-1..4 of baselines at the same places, by name: token frequencies of the
            training text (`unigram`) and its n-grams (`bigram`, `trigram`).
        energy_score: Energy score of drawn latents against the posteriors; None for a softmax
            model.
        cross_entropy: Nats per token of a softmax model; None for other models.
        autoencoder_accuracy: Share of held-out tokens that the autoencoder restores; None without
            an autoencoder.
        noise_curve: Pairs of the noise on a latent, relative to the spread of all latents, and the
            share of tokens restored.
        evaluations_per_sample: Network evaluations per latent; None if they vary.
        sampling_flops: FLOPs per new token with plain sampling.
        microseconds_per_token: Time per generated token with the variant's sampler; None if it
            was not timed. A comparison times one run of each variant.
        draws_per_chunk: Mean number of candidates that the sampler used per chunk.
        unsettled: Share of chunks for which the candidates did not suffice.
        chosen_accuracy: Sampler accuracy, in per cent.
        continuations: Scores of continuing the rows with the variant's sampler, against the true
            text; None if this was not asked for.
        samples: Short generated texts, by temperature.
        validation_losses: The model's own loss on held-out text by step; not comparable between
            heads.
        validation_brier: Brier-1 on a few held-out rows by step, in per cent.
        protocol: The protocol of the evaluation, as a sentence.
    """

    seed: int | None
    steps: int | None
    trained_tokens: int | None
    training_flops: float | None
    training_seconds: float | None
    brier_lm: float
    brier: tuple[Estimate, ...]
    documents: DocumentScores
    baselines: Mapping[str, tuple[Estimate, ...]] | None
    energy_score: Estimate | None
    cross_entropy: Estimate | None
    autoencoder_accuracy: float | None
    noise_curve: tuple[tuple[float, float], ...]
    evaluations_per_sample: int | None
    sampling_flops: float | None
    microseconds_per_token: Timing | None
    draws_per_chunk: float
    unsettled: float
    chosen_accuracy: Estimate | None
    continuations: Continuations | None
    samples: tuple[SampleText, ...]
    validation_losses: Curve
    validation_brier: Curve
    protocol: str
